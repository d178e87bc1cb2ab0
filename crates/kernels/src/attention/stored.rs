//! Rounding rows of keys and values to the elements they are stored as, and widening single ones.

use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::hadamard;
use super::lanes::NORMAL;
use crate::vector::{LANES, dispatch};

/// Sixteen neighbours as they are stored.
pub(super) trait Stored: Pod {
    /// A rounded number before it is among its neighbours.
    type One: Pod;

    /// Rounds one head's row, which it may change, and gives the row's scale: 1 where the type has none.
    fn encode(row: &mut [f32], out: &mut [Self::One]) -> f32;

    /// Stores a number in its lane.
    fn put(&mut self, lane: usize, one: Self::One);

    /// The number of a lane, without its scale.
    fn get(&self, lane: usize) -> f32;
}

impl Stored for [f32; LANES] {
    type One = f32;

    fn encode(row: &mut [f32], out: &mut [f32]) -> f32 {
        out.copy_from_slice(row);
        1.0
    }

    fn put(&mut self, lane: usize, one: f32) {
        self[lane] = one;
    }

    fn get(&self, lane: usize) -> f32 {
        self[lane]
    }
}

impl Stored for [f16; LANES] {
    type One = f16;

    fn encode(row: &mut [f32], out: &mut [f16]) -> f32 {
        const LARGEST: f32 = 65504.0;
        row.iter_mut().for_each(|x| *x = x.clamp(-LARGEST, LARGEST));
        out.convert_from_f32_slice(row);
        1.0
    }

    fn put(&mut self, lane: usize, one: f16) {
        self[lane] = one;
    }

    fn get(&self, lane: usize) -> f32 {
        self[lane].to_f32()
    }
}

impl Stored for [bf16; LANES] {
    type One = bf16;

    fn encode(row: &mut [f32], out: &mut [bf16]) -> f32 {
        #[inline(always)]
        fn run<const FUSED: bool>(row: &[f32], out: &mut [bf16]) {
            for (out, x) in out.iter_mut().zip(row) {
                let bits = x.to_bits();
                let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
                // Rounding could carry a NaN into an infinity, so a NaN is cut off and made quiet instead.
                *out = bf16::from_bits(if x.is_nan() { (bits >> 16) | 0x40 } else { rounded } as u16);
            }
        }
        fn dispatched(row: &[f32], out: &mut [bf16]) {
            dispatch!(run(row: &[f32], out: &mut [bf16]))
        }
        dispatched(row, out);
        1.0
    }

    fn put(&mut self, lane: usize, one: bf16) {
        self[lane] = one;
    }

    fn get(&self, lane: usize) -> f32 {
        self[lane].to_f32()
    }
}

impl Stored for [i8; LANES] {
    type One = i8;

    /// Transforms the row and rounds it to multiples of a 127th of its greatest magnitude.
    fn encode(row: &mut [f32], out: &mut [i8]) -> f32 {
        #[inline(always)]
        fn run<const FUSED: bool>(row: &[f32], out: &mut [i8]) -> f32 {
            let greater = |greatest: f32, x: &f32| if x.abs() > greatest { x.abs() } else { greatest };
            let greatest = row.iter().fold(0.0, greater);
            let inverse = if greatest > 0.0 { 127.0 / greatest } else { 0.0 };
            for (out, x) in out.iter_mut().zip(row) {
                *out = (x * inverse).round_ties_even() as i8;
            }
            // An int8 cannot say NaN; the scale can.
            if row.iter().any(|x| x.is_nan()) { f32::NAN } else { greatest / 127.0 }
        }
        fn dispatched(row: &[f32], out: &mut [i8]) -> f32 {
            dispatch!(run(row: &[f32], out: &mut [i8]) -> f32)
        }
        hadamard::transform(row, row.len());
        dispatched(row, out)
    }

    fn put(&mut self, lane: usize, one: i8) {
        self[lane] = one;
    }

    fn get(&self, lane: usize) -> f32 {
        f32::from(self[lane])
    }
}

/// Where the search for a scale begins, as shares of the row's root mean square. Normal rows end alike from all of them; rows
/// of few different magnitudes, as single large dims make them, do not.
const STARTS: [f32; 5] = [1.0, 0.75, 1.3, 1.65, 2.0];

/// Rounds of rounding and fitting the scale to what came out; more change next to nothing.
const FITS: usize = 2;

/// Lane `i` below eight is in the low half of byte `i`, lane `8 + i` in the high half.
impl Stored for [u8; LANES / 2] {
    type One = u8;

    /// Transforms the row and rounds it to multiples of [`NORMAL`]: by a scale near the row's
    /// root mean square at first, then by the one with the least squared error for the codes so far.
    fn encode(row: &mut [f32], out: &mut [u8]) -> f32 {
        #[inline(always)]
        fn run<const FUSED: bool>(row: &[f32], out: &mut [u8]) -> f32 {
            let squares: f32 = row.iter().map(|x| x * x).sum();
            let rms = (squares / row.len().max(1) as f32).sqrt();
            if !rms.is_finite() {
                // A code cannot say NaN; the scale can.
                out.fill(0);
                return f32::NAN;
            }
            // Sums of |x| n and n n for the numbers n that magnitudes are rounded to at a scale.
            let round = |scale: f32, each: &mut dyn FnMut(usize, u8)| {
                let middles: [f32; 7] = std::array::from_fn(|at| (NORMAL[at] + NORMAL[at + 1]) / 2.0 * scale);
                let (mut products, mut squares) = (0.0f32, 0.0f32);
                for (at, x) in row.iter().enumerate() {
                    let code = middles.iter().map(|&middle| u8::from(x.abs() > middle)).sum::<u8>();
                    let number = NORMAL[usize::from(code)];
                    products += x.abs() * number;
                    squares += number * number;
                    each(at, code);
                }
                (products, squares.max(f32::MIN_POSITIVE))
            };
            let (mut best, mut most) = (0.0, 0.0);
            for start in STARTS {
                let mut scale = rms * start;
                for _ in 0..FITS {
                    let (products, squares) = round(scale, &mut |_, _| {});
                    // What the fitted scale takes off the squared error.
                    if products * products / squares > most {
                        (best, most) = (scale, products * products / squares);
                    }
                    scale = products / squares;
                }
            }
            let (products, squares) =
                round(best, &mut |at, code| out[at] = code | u8::from(row[at] < 0.0) << 3);
            products / squares
        }
        fn dispatched(row: &[f32], out: &mut [u8]) -> f32 {
            dispatch!(run(row: &[f32], out: &mut [u8]) -> f32)
        }
        hadamard::transform(row, row.len());
        dispatched(row, out)
    }

    fn put(&mut self, lane: usize, one: u8) {
        let shift = lane / 8 * 4;
        let byte = &mut self[lane % 8];
        *byte = *byte & !(15 << shift) | one << shift;
    }

    fn get(&self, lane: usize) -> f32 {
        NORMAL[usize::from(self[lane % 8] >> (lane / 8 * 4) & 15)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_as_their_library_does_and_stop_at_the_largest() {
        let row: Vec<f32> =
            (0..4096).map(|i| f32::from_bits(i * 1_048_573)).chain([f32::NAN, -1e30]).collect();
        let (mut halves, mut brains) = (vec![f16::ZERO; row.len()], vec![bf16::ZERO; row.len()]);
        <[f16; LANES]>::encode(&mut row.clone(), &mut halves);
        <[bf16; LANES]>::encode(&mut row.clone(), &mut brains);
        for ((x, half), brain) in row.iter().zip(halves).zip(brains) {
            assert_eq!(half.is_nan(), x.is_nan());
            assert_eq!(brain.is_nan(), x.is_nan());
            if !x.is_nan() {
                assert_eq!(half, f16::from_f32(x.clamp(-65504.0, 65504.0)), "{x}");
                assert_eq!(brain, bf16::from_f32(*x), "{x}");
            }
        }
    }

    #[test]
    fn bytes_are_within_half_a_step_of_the_transformed_row() {
        for dim in [1, 20, 64, 128] {
            let mut row: Vec<f32> = (0..dim).map(|i| (i as f32 * 2.1).sin()).collect();
            row[0] = 40.0;
            let mut bytes = vec![0; dim];
            let scale = <[i8; LANES]>::encode(&mut row, &mut bytes);
            for (x, byte) in row.iter().zip(&bytes) {
                assert!((x - f32::from(*byte) * scale).abs() <= scale * 0.5001, "{dim}: {x} {byte} {scale}");
            }
            assert!(bytes.iter().any(|byte| byte.abs() == 127));
        }
        assert_eq!(<[i8; LANES]>::encode(&mut [0.0; 4], &mut [0; 4]), 0.0);
        assert!(<[i8; LANES]>::encode(&mut [0.0, f32::NAN], &mut [0; 2]).is_nan());
    }

    #[test]
    fn one_large_dim_does_not_spoil_the_others() {
        let mut row: Vec<f32> = (0..128).map(|i| (i as f32 * 2.1).sin() * 2.0).collect();
        row[17] = 200.0;
        let norm = |errors: Vec<f32>| errors.iter().map(|x| x * x).sum::<f32>().sqrt();
        let step = 200.0 / 127.0;
        let plain = norm(row.iter().map(|x| x - (x / step).round() * step).collect());

        let (mut found, mut bytes) = (row.clone(), vec![0; 128]);
        let scale = <[i8; LANES]>::encode(&mut found, &mut bytes);
        found.iter_mut().zip(bytes).for_each(|(x, byte)| *x = f32::from(byte) * scale);
        hadamard::transform(&mut found, 128);
        let transformed = norm(found.iter().zip(&row).map(|(a, b)| a - b).collect());
        assert!(transformed < plain / 6.0, "{transformed} {plain}");
    }

    #[test]
    fn codes_are_a_tenth_of_a_normal_row_away_and_survive_their_neighbours() {
        // Sums of twelve even numbers are about normal.
        let mut state = 1u32;
        let mut even = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 16_777_216.0 - 0.5
        };
        for dim in [64, 128, 256] {
            let mut row: Vec<f32> = (0..dim).map(|_| (0..12).map(|_| even()).sum::<f32>() * 3.0).collect();
            let mut codes = vec![0; dim];
            let scale = <[u8; LANES / 2]>::encode(&mut row, &mut codes);
            let mut kept = vec![[0xffu8; LANES / 2]; dim / LANES];
            codes.iter().enumerate().for_each(|(at, code)| kept[at / LANES].put(at % LANES, *code));
            let found = (0..dim).map(|at| kept[at / LANES].get(at % LANES) * scale);
            let (error, all) = row.iter().zip(found).fold((0.0, 0.0), |(error, all), (x, found)| {
                (error + (x - found) * (x - found), all + x * x)
            });
            assert!(error < 0.013 * all && error > 0.005 * all, "{dim}: {}", error / all);
        }
        // Numbers that are all as large are kept as they are, zeros too.
        let mut even = [0.0; 4];
        even[1] = 3.0;
        let mut codes = [0; 4];
        let scale = <[u8; LANES / 2]>::encode(&mut even, &mut codes);
        for (x, code) in even.iter().zip(codes) {
            assert!((x - NORMAL[usize::from(code)] * scale).abs() < 1e-6);
        }
        assert_eq!(<[u8; LANES / 2]>::encode(&mut [0.0; 4], &mut [0; 4]), 0.0);
        assert!(<[u8; LANES / 2]>::encode(&mut [0.0, f32::NAN], &mut [0; 2]).is_nan());
    }
}
