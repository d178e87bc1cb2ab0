//! Activations as the kernels want them: int8 with shared scales, bf16, or f32.
//!
//! Int8: blocks of 32 or 256 values share a scale `max|x| / 127`; values are rounded to nearest, ties to even. Sums of
//! sixteen values each are kept for formats whose weights have an offset.

use half::bf16;

use crate::pool::Pool;
use crate::vector::dispatch;

/// Values whose sum is kept.
pub(crate) const SUM_BLOCK: usize = 16;

/// Bytes between two tokens' int8 or bf16 values: without them the same columns of many tokens would meet in few places of
/// the first-level cache, since row lengths are multiples of powers of two.
const PADDING: usize = 64;

/// Fewer tokens than this are prepared sooner than threads are woken for them.
const SHARED_FROM: usize = 8;

/// The form that activations are brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16.
    Bf16,
    /// Int8 with a scale for so many values.
    Int8(usize),
}

/// Activations of some tokens, `[tokens, columns]`; the buffers are used again.
#[derive(Debug, Default)]
pub struct Activations {
    tokens: usize,
    columns: usize,
    /// Values from one token to the next.
    stride: usize,
    form: Form,
    floats: Vec<f32>,
    halves: Vec<bf16>,
    values: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i16>,
}

impl Activations {
    /// An empty set.
    pub fn new() -> Activations {
        Activations::default()
    }

    /// Tokens held.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Values of a token.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The form they were brought to.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Takes `x`, `[tokens, columns]`, in the wanted form.
    pub(crate) fn fill(&mut self, x: &[f32], columns: usize, form: Form, pool: &Pool) {
        assert!(x.len().is_multiple_of(columns), "whole tokens");
        self.tokens = x.len() / columns;
        self.columns = columns;
        self.form = form;
        match form {
            Form::F32 => {
                self.stride = columns;
                self.floats.clear();
                self.floats.extend_from_slice(x);
            }
            Form::Bf16 => {
                self.stride = columns + PADDING / size_of::<bf16>();
                let length = self.tokens * self.stride;
                self.halves.resize(self.halves.len().max(length), bf16::ZERO);
                self.split(pool).split_chunks(&mut self.halves[..length], self.stride, |token, halves| {
                    to_bf16(&x[token * columns..(token + 1) * columns], halves);
                });
            }
            Form::Int8(block) => self.fill_int8(x, block, pool),
        }
    }

    /// The pool, or one thread where few tokens are prepared sooner than others are told of them.
    fn split<'p>(&self, pool: &'p Pool) -> &'p Pool {
        if self.tokens < SHARED_FROM { Pool::single() } else { pool }
    }

    fn fill_int8(&mut self, x: &[f32], block: usize, pool: &Pool) {
        assert!(self.columns.is_multiple_of(block), "whole blocks");
        let (columns, stride) = (self.columns, self.columns + PADDING);
        self.stride = stride;
        self.values.resize(self.tokens * stride, 0);
        self.scales.resize(x.len() / block, 0.0);
        self.sums.resize(x.len() / SUM_BLOCK, 0);
        let quantize_tokens = |x: &[f32], values: &mut [i8], scales: &mut [f32], sums: &mut [i16]| {
            let tokens = x.chunks_exact(columns).zip(values.chunks_exact_mut(stride));
            let extras =
                scales.chunks_exact_mut(columns / block).zip(sums.chunks_exact_mut(columns / SUM_BLOCK));
            for ((x, values), (scales, sums)) in tokens.zip(extras) {
                quantize(x, block, &mut values[..columns], scales, sums);
            }
        };
        if self.tokens < SHARED_FROM {
            return quantize_tokens(x, &mut self.values, &mut self.scales, &mut self.sums);
        }
        let mut rest = (&mut self.values[..], &mut self.scales[..], &mut self.sums[..]);
        let share = self.tokens.div_ceil(pool.threads());
        let mut parts = Vec::with_capacity(pool.threads());
        for x in x.chunks(share * columns) {
            let (values, scales, sums) = rest;
            let (values, more_values) = values.split_at_mut(x.len() / columns * stride);
            let (scales, more_scales) = scales.split_at_mut(x.len() / block);
            let (sums, more_sums) = sums.split_at_mut(x.len() / SUM_BLOCK);
            rest = (more_values, more_scales, more_sums);
            parts.push((x, values, scales, sums));
        }
        pool.split_chunks(&mut parts, 1, |_, part| {
            for (x, values, scales, sums) in part {
                quantize_tokens(x, values, scales, sums);
            }
        });
    }

    /// Values from one token to the next.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// The values of a token, if they are f32.
    #[inline]
    pub(crate) fn floats(&self, token: usize) -> &[f32] {
        &self.floats[token * self.stride..][..self.columns]
    }

    /// The values of a token, if they are bf16.
    #[inline]
    pub(crate) fn halves(&self, token: usize) -> &[bf16] {
        &self.halves[token * self.stride..][..self.columns]
    }

    /// The values of a token, if they are int8.
    #[inline]
    pub(crate) fn values(&self, token: usize) -> &[i8] {
        &self.values[token * self.stride..][..self.columns]
    }

    /// The scales of a token's blocks.
    #[inline]
    pub(crate) fn scales(&self, token: usize) -> &[f32] {
        let blocks = self.scales.len() / self.tokens.max(1);
        &self.scales[token * blocks..(token + 1) * blocks]
    }

    /// Sums of each [`SUM_BLOCK`] values of a token.
    #[inline]
    pub(crate) fn sums(&self, token: usize) -> &[i16] {
        let blocks = self.columns / SUM_BLOCK;
        &self.sums[token * blocks..(token + 1) * blocks]
    }
}

/// Rounds to bf16, to nearest, ties to even; NaN stays NaN. What of `out` is longer stays as it is.
fn to_bf16(x: &[f32], out: &mut [bf16]) {
    #[inline(always)]
    fn run<const FUSED: bool>(x: &[f32], out: &mut [bf16]) {
        for (x, out) in x.iter().zip(out) {
            let bits = x.to_bits();
            let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
            *out = bf16::from_bits(if x.is_nan() { 0x7fc0 } else { rounded as u16 });
        }
    }
    dispatch!(run(x: &[f32], out: &mut [bf16]))
}

/// Quantizes whole blocks.
fn quantize(x: &[f32], block: usize, values: &mut [i8], scales: &mut [f32], sums: &mut [i16]) {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::isa::Isa;
        if Isa::current().vectors() == Isa::Avx512 {
            // SAFETY: the processor has AVX-512 F, BW, VL and DQ when this path is chosen.
            return unsafe { quantize_avx512(x, block, values, scales, sums) };
        }
        if Isa::current().vectors() == Isa::Avx2 {
            // SAFETY: the processor has AVX2 when this path is chosen.
            return unsafe { quantize_avx2(x, block, values, scales, sums) };
        }
    }
    quantize_blocks(x, block, values, scales, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn quantize_avx512(x: &[f32], block: usize, values: &mut [i8], scales: &mut [f32], sums: &mut [i16]) {
    quantize_blocks(x, block, values, scales, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn quantize_avx2(x: &[f32], block: usize, values: &mut [i8], scales: &mut [f32], sums: &mut [i16]) {
    quantize_blocks(x, block, values, scales, sums);
}

/// The arithmetic, in loops that the compiler vectorises for the caller's instruction set.
#[inline(always)]
fn quantize_blocks(x: &[f32], block: usize, values: &mut [i8], scales: &mut [f32], sums: &mut [i16]) {
    let blocks = x.chunks_exact(block).zip(values.chunks_exact_mut(block)).zip(scales);
    for (((x, values), scale), sums) in blocks.zip(sums.chunks_exact_mut(block / SUM_BLOCK)) {
        let mut greatest = [0.0f32; SUM_BLOCK];
        for x in x.as_chunks::<SUM_BLOCK>().0 {
            for lane in 0..SUM_BLOCK {
                greatest[lane] = greatest[lane].max(x[lane].abs());
            }
        }
        let greatest = greatest.iter().copied().fold(0.0, f32::max);
        *scale = greatest / 127.0;
        let inverse = if greatest > 0.0 { 127.0 / greatest } else { 0.0 };
        let groups = x.as_chunks::<SUM_BLOCK>().0.iter().zip(values.as_chunks_mut::<SUM_BLOCK>().0);
        for ((x, values), sum) in groups.zip(sums) {
            let mut total = 0i32;
            for lane in 0..SUM_BLOCK {
                // Adding and taking away 1.5 · 2^23 rounds to nearest even in one vector instruction each.
                const ROUND: f32 = 12_582_912.0;
                let rounded = (x[lane] * inverse + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
                values[lane] = rounded as i8;
                total += rounded;
            }
            *sum = total as i16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_as_the_half_crate_does() {
        let mut x: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin() * 10f32.powi(i % 70 - 35)).collect();
        x.extend([
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            f32::MIN_POSITIVE,
            1.0 + 1.0 / 256.0,
        ]);
        let mut out = vec![bf16::ZERO; x.len()];
        to_bf16(&x, &mut out);
        assert!(x.iter().zip(&out).all(|(&x, out)| out.to_bits() == bf16::from_f32(x).to_bits()));
        to_bf16(&[f32::NAN], &mut out);
        assert!(out[0].is_nan());
    }

    #[test]
    fn values_are_within_half_a_step_and_sums_are_exact() {
        let x: Vec<f32> = (0..512).map(|i| (i as f32 * 0.37).sin() * (1.0 + i as f32 * 0.01)).collect();
        for block in [32, 256] {
            let mut quantized = Activations::new();
            quantized.fill(&x, 256, Form::Int8(block), &Pool::new(1));
            for token in 0..2 {
                let (values, scales) = (quantized.values(token), quantized.scales(token));
                for (index, &value) in values.iter().enumerate() {
                    let scale = scales[index / block];
                    let error = (f32::from(value) * scale - x[token * 256 + index]).abs();
                    assert!(error <= scale * 0.501, "{index}: {error} with scale {scale}");
                }
                for (index, &sum) in quantized.sums(token).iter().enumerate() {
                    let exact: i16 = values[index * 16..][..16].iter().map(|&value| i16::from(value)).sum();
                    assert_eq!(sum, exact);
                }
            }
        }
    }
}
