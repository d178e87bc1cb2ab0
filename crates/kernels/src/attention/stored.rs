//! Rounding rows of keys and values to the elements they are stored as, and widening single ones.

use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::hadamard;
use crate::vector::dispatch;

/// An element as it is stored.
pub(super) trait Stored: Pod {
    /// Rounds one head's row, which it may change, and gives the row's scale: 1 where the type has none.
    fn encode(row: &mut [f32], out: &mut [Self]) -> f32;

    /// The number without its scale.
    fn widen(self) -> f32;
}

impl Stored for f32 {
    fn encode(row: &mut [f32], out: &mut [f32]) -> f32 {
        out.copy_from_slice(row);
        1.0
    }

    fn widen(self) -> f32 {
        self
    }
}

impl Stored for f16 {
    fn encode(row: &mut [f32], out: &mut [f16]) -> f32 {
        const LARGEST: f32 = 65504.0;
        row.iter_mut().for_each(|x| *x = x.clamp(-LARGEST, LARGEST));
        out.convert_from_f32_slice(row);
        1.0
    }

    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl Stored for bf16 {
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

    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl Stored for i8 {
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

    fn widen(self) -> f32 {
        f32::from(self)
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
        f16::encode(&mut row.clone(), &mut halves);
        bf16::encode(&mut row.clone(), &mut brains);
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
            let scale = i8::encode(&mut row, &mut bytes);
            for (x, byte) in row.iter().zip(&bytes) {
                assert!((x - f32::from(*byte) * scale).abs() <= scale * 0.5001, "{dim}: {x} {byte} {scale}");
            }
            assert!(bytes.iter().any(|byte| byte.abs() == 127));
        }
        assert_eq!(i8::encode(&mut [0.0; 4], &mut [0; 4]), 0.0);
        assert!(i8::encode(&mut [0.0, f32::NAN], &mut [0; 2]).is_nan());
    }

    #[test]
    fn one_large_dim_does_not_spoil_the_others() {
        let mut row: Vec<f32> = (0..128).map(|i| (i as f32 * 2.1).sin() * 2.0).collect();
        row[17] = 200.0;
        let norm = |errors: Vec<f32>| errors.iter().map(|x| x * x).sum::<f32>().sqrt();
        let step = 200.0 / 127.0;
        let plain = norm(row.iter().map(|x| x - (x / step).round() * step).collect());

        let (mut found, mut bytes) = (row.clone(), vec![0; 128]);
        let scale = i8::encode(&mut found, &mut bytes);
        found.iter_mut().zip(bytes).for_each(|(x, byte)| *x = f32::from(byte) * scale);
        hadamard::transform(&mut found, 128);
        let transformed = norm(found.iter().zip(&row).map(|(a, b)| a - b).collect());
        assert!(transformed < plain / 6.0, "{transformed} {plain}");
    }
}
