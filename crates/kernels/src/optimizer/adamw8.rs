//! AdamW with states of eight bits (Dettmers et al., "8-bit Optimizers via Block-wise Quantization", 2022): a value
//! of a block of 256 is the greatest magnitude of the block times one of 256 numbers (equation 5), which are dense near
//! zero in steps of powers of ten and near one in even steps (dynamic tree quantization, section 2.2).
//!
//! It differs from the paper in one thing: a mean square that is not zero is never stored as zero. A zero there under
//! a mean that is not zero would make the next step as great as `1 / ε`.

use std::sync::OnceLock;

use super::adamw::{self, AdamW, Factors};
use crate::pool::{Pool, SharedOut};
use crate::vector::dispatch;

/// Parameters that share a scale.
pub const BLOCK: usize = 256;

/// The state of a tensor's parameters: a byte each and a scale a block, for both means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State<Bytes = Vec<u8>, Scales = Vec<f32>> {
    /// Codes of the means of gradients.
    pub m: Bytes,
    /// Their blocks' greatest magnitudes.
    pub m_scales: Scales,
    /// Codes of the means of squared gradients.
    pub v: Bytes,
    /// Their blocks' greatest values.
    pub v_scales: Scales,
}

impl State {
    /// Zeros for so many parameters.
    pub fn new(parameters: usize) -> State {
        let scales = vec![0.0; parameters.div_ceil(BLOCK)];
        State {
            m: vec![ZERO; parameters],
            m_scales: scales.clone(),
            v: vec![0; parameters],
            v_scales: scales,
        }
    }

    /// The means of gradients and of their squares, in f32.
    pub fn decode(&self) -> (Vec<f32>, Vec<f32>) {
        let decode = |codes: &[u8], scales: &[f32], code: &Code| {
            let value = |(index, &byte): (usize, &u8)| code.values[usize::from(byte)] * scales[index / BLOCK];
            codes.iter().enumerate().map(value).collect()
        };
        (decode(&self.m, &self.m_scales, signed()), decode(&self.v, &self.v_scales, unsigned()))
    }

    /// Takes up the means of gradients and of their squares, rounded.
    ///
    /// # Panics
    /// If they are not as many as the state has.
    pub fn encode(&mut self, m: &[f32], v: &[f32]) {
        assert!(m.len() == self.m.len() && v.len() == self.v.len(), "lengths fit");
        for ((x, codes), scale) in m.chunks(BLOCK).zip(self.m.chunks_mut(BLOCK)).zip(&mut self.m_scales) {
            *scale = encode_signed(x, codes);
        }
        for ((x, codes), scale) in v.chunks(BLOCK).zip(self.v.chunks_mut(BLOCK)).zip(&mut self.v_scales) {
            *scale = encode_unsigned(x, codes);
        }
    }
}

/// One step of parameters, from their gradient times `grad_scale`: that of [`AdamW::update`] on the state's values,
/// which are rounded to eight bits afterwards.
///
/// # Panics
/// If the lengths differ.
pub fn update(
    pool: &Pool,
    options: &AdamW,
    value: &mut [f32],
    grad: &[f32],
    state: &mut State,
    grad_scale: f32,
) {
    let (length, blocks) = (grad.len(), grad.len().div_ceil(BLOCK));
    assert!(value.len() == length && state.m.len() == length && state.v.len() == length, "lengths fit");
    assert!(state.m_scales.len() == blocks && state.v_scales.len() == blocks, "a scale for every block");
    let factors = options.factors(grad_scale);
    let value = SharedOut::new(value);
    let (m, v) = (SharedOut::new(&mut state.m), SharedOut::new(&mut state.v));
    let (m_scales, v_scales) = (SharedOut::new(&mut state.m_scales), SharedOut::new(&mut state.v_scales));
    crate::grad::split_blocks(pool, length, BLOCK, |range| {
        let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
        // SAFETY: threads have disjoint ranges of whole blocks.
        unsafe {
            let state = State {
                m: m.part(range.clone()),
                m_scales: m_scales.part(blocks.clone()),
                v: v.part(range.clone()),
                v_scales: v_scales.part(blocks),
            };
            part(factors, value.part(range.clone()), &grad[range], state);
        }
    });
}

/// A thread's part of a state.
type Part<'a> = State<&'a mut [u8], &'a mut [f32]>;

/// Block after block. Each step of a block is a function of its own, whose arguments the compiler knows to be apart.
fn part(factors: Factors, value: &mut [f32], grad: &[f32], state: Part<'_>) {
    let (mut m, mut v) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
    let values = value.chunks_mut(BLOCK).zip(grad.chunks(BLOCK));
    let codes = state.m.chunks_mut(BLOCK).zip(state.v.chunks_mut(BLOCK));
    let scales = state.m_scales.iter_mut().zip(state.v_scales);
    for (((value, grad), (m_codes, v_codes)), (m_scale, v_scale)) in values.zip(codes).zip(scales) {
        let (m, v) = (&mut m[..value.len()], &mut v[..value.len()]);
        decode(signed(), m_codes, *m_scale, m);
        decode(unsigned(), v_codes, *v_scale, v);
        adamw::part(factors, value, grad, m, v);
        *m_scale = encode_signed(m, m_codes);
        *v_scale = encode_unsigned(v, v_codes);
    }
}

/// The numbers of codes times their scale.
fn decode(code: &Code, codes: &[u8], scale: f32, out: &mut [f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(code: &Code, codes: &[u8], scale: f32, out: &mut [f32]) {
        for (out, byte) in out.iter_mut().zip(codes) {
            *out = code.values[usize::from(*byte)] * scale;
        }
    }
    dispatch!(run(code: &Code, codes: &[u8], scale: f32, out: &mut [f32]))
}

/// The nearest codes; gives the scale.
fn encode_signed(x: &[f32], codes: &mut [u8]) -> f32 {
    #[inline(always)]
    fn run<const FUSED: bool>(code: &Code, x: &[f32], codes: &mut [u8]) -> f32 {
        let (scale, zero) = (greatest(x), u32::from(ZERO));
        let factor = inverse(scale);
        for (x, byte) in x.iter().zip(codes) {
            let steps = code.steps(x.abs() * factor);
            // One itself is there above zero alone.
            *byte = if *x > 0.0 { zero + steps } else { zero - steps.min(zero) } as u8;
        }
        scale
    }
    fn compiled(code: &Code, x: &[f32], codes: &mut [u8]) -> f32 {
        dispatch!(run(code: &Code, x: &[f32], codes: &mut [u8]) -> f32)
    }
    compiled(signed(), x, codes)
}

/// The nearest codes, that of zero for zero alone; gives the scale.
fn encode_unsigned(x: &[f32], codes: &mut [u8]) -> f32 {
    #[inline(always)]
    fn run<const FUSED: bool>(code: &Code, x: &[f32], codes: &mut [u8]) -> f32 {
        let scale = greatest(x);
        let factor = inverse(scale);
        for (x, byte) in x.iter().zip(codes) {
            *byte = code.steps(x * factor).max(u32::from(*x > 0.0)) as u8;
        }
        scale
    }
    fn compiled(code: &Code, x: &[f32], codes: &mut [u8]) -> f32 {
        dispatch!(run(code: &Code, x: &[f32], codes: &mut [u8]) -> f32)
    }
    compiled(unsigned(), x, codes)
}

/// The greatest magnitude.
#[inline(always)]
fn greatest(values: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if b.abs() > a { b.abs() } else { a };
    let (chunks, rest) = values.as_chunks::<32>();
    let mut lanes = [0.0f32; 32];
    for chunk in chunks {
        for lane in 0..32 {
            lanes[lane] = greater(lanes[lane], chunk[lane]);
        }
    }
    for (lane, x) in rest.iter().enumerate() {
        lanes[lane] = greater(lanes[lane], *x);
    }
    lanes.into_iter().fold(0.0, f32::max)
}

/// `1 / scale`, and 0 for a scale too small to have one.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale >= f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 }
}

/// The code of zero among the signed numbers.
const ZERO: u8 = 127;

/// Cells of the search table, a power of two: numbers from 2⁻²³ on that share the exponent and seven bits of the
/// fraction. Those above one are never looked at.
const CELLS: usize = 4096;

/// The bits of the first cell.
const FIRST_CELL: u32 = (127 - 23) << 7;

/// 256 numbers, and what finds the nearest of those that are not negative.
struct Code {
    /// In rising order, by code.
    values: [f32; 256],
    /// For each cell, steps from zero to the number nearest to the cell's smallest.
    nearest: [u32; CELLS],
    /// Where one more step is nearer; infinity behind the last.
    ends: [f32; 256],
}

impl Code {
    /// From the numbers above zero in rising order, which are all but the negative ones.
    fn new(positive: &[f32], signed: bool) -> Code {
        let mut values = [0.0; 256];
        let zero = if signed { usize::from(ZERO) } else { 0 };
        for (index, &x) in positive.iter().enumerate() {
            values[zero + 1 + index] = x;
            if let Some(mirrored) = zero.checked_sub(1 + index) {
                values[mirrored] = -x;
            }
        }
        let mut ends = [f32::INFINITY; 256];
        let middles = values[zero..].windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
        ends.iter_mut().zip(middles).for_each(|(end, middle)| *end = middle);
        let cell = |cell: usize| f32::from_bits((FIRST_CELL + cell as u32) << 16);
        let nearest = std::array::from_fn(|index| ends.partition_point(|&end| end < cell(index)) as u32);
        Code { values, nearest, ends }
    }

    /// Steps from zero to the number nearest to `x`, which is between 0 and 1; some number of them for NaN. Without
    /// a branch, and with words in the tables, so that it becomes a loop of gathers.
    #[inline(always)]
    fn steps(&self, x: f32) -> u32 {
        let x = if x < 1.0 { x } else { 1.0 };
        let x = if x > 0.5f32.powi(23) { x } else { 0.5f32.powi(23) };
        // No cell has more than one end in it, and below the first there is none.
        let cell = (x.to_bits() >> 16).wrapping_sub(FIRST_CELL) as usize % CELLS;
        let steps = self.nearest[cell];
        steps + u32::from(x > self.ends[steps as usize % 256])
    }
}

/// The numbers above zero: in each of seven decades below one twice as many as in the decade before, in the middles
/// of even parts of `[0.1, 1]` times the decade, and one itself.
fn positive(first_count: usize) -> Vec<f32> {
    let mut numbers = Vec::with_capacity(256);
    for decade in 0..7 {
        let count = first_count << decade;
        let scale = 10f64.powi(decade - 6);
        let middle = |index: usize| 0.1 + 0.9 * (index as f64 + 0.5) / count as f64;
        numbers.extend((0..count).map(|index| (scale * middle(index)) as f32));
    }
    numbers.push(1.0);
    numbers
}

/// The numbers of means of gradients.
fn signed() -> &'static Code {
    static CODE: OnceLock<Code> = OnceLock::new();
    CODE.get_or_init(|| Code::new(&positive(1), true))
}

/// The numbers of means of squares.
fn unsigned() -> &'static Code {
    static CODE: OnceLock<Code> = OnceLock::new();
    CODE.get_or_init(|| Code::new(&positive(2), false))
}

#[cfg(test)]
pub(super) fn numbers() -> [[f32; 256]; 2] {
    [signed().values, unsigned().values]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_number_is_found() {
        for code in [signed(), unsigned()] {
            let zero = code.values.iter().position(|&x| x == 0.0).unwrap();
            let numbers = &code.values[zero..];
            let cells = (0..=23 * 128).map(|cell| f32::from_bits((FIRST_CELL + cell) << 16));
            let between = (0..20_000).map(|i| (-f64::from(i) * 0.0009).exp() as f32);
            let middles = numbers.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
            let near = middles.flat_map(|x| [x.next_down(), x, x.next_up()]);
            for x in cells.chain(between).chain(near).chain([0.0, 1e-30, 1.0]) {
                let found = (numbers[code.steps(x) as usize] - x).abs();
                let least = numbers.iter().map(|number| (number - x).abs()).fold(f32::INFINITY, f32::min);
                // As near as the rounding of the middle between two numbers lets it be.
                assert!(found <= least + 2.0 * f32::EPSILON * x, "{x}: {found} instead of {least}");
            }
        }
    }

    #[test]
    fn numbers_that_are_none_and_infinite_scales_do_no_harm() {
        for code in [signed(), unsigned()] {
            assert!(code.steps(f32::NAN) < 256);
            assert_eq!(code.values[code.values.len() - 1], 1.0);
            assert_eq!(code.steps(f32::INFINITY), code.steps(1.0));
        }
    }
}
