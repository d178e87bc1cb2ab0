//! The Hadamard transform of a head's dims, which spreads single large dims evenly over all of them.
//!
//! It is orthogonal, so that turned queries and turned keys have the inner products of plain ones, and its own
//! inverse, so that sums of turned values turn back. A row whose largest dim is no longer far from the others loses
//! less when one int8 scale has to cover them all.

#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512};
use super::lanes::{Lanes, Plain};
use crate::isa::Isa;
use crate::vector::LANES;

/// Transforms each row of `dim` in place, in blocks of the greatest power of two that divides `dim`.
pub(super) fn transform(rows: &mut [f32], dim: usize) {
    if dim == 0 {
        return;
    }
    let block = 1 << dim.trailing_zeros();
    if block < LANES {
        return rows.chunks_exact_mut(block).for_each(short);
    }
    match Isa::current() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the path is chosen only where the processor has its features.
        Isa::Avx512 => unsafe { Avx512::transform(rows, block) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { Avx2::transform(rows, block) },
        // SAFETY: plain code needs no features.
        _ => unsafe { Plain::<false>::transform(rows, block) },
    }
}

/// Transforms rows of `block`, a power of two and at least sixteen. Every instruction set adds the same numbers.
///
/// # Safety
/// The features of `S` are there.
#[inline(always)]
pub(super) unsafe fn transform_blocks<S: Lanes>(rows: &mut [f32], block: usize) {
    let factor = 1.0 / (block as f32).sqrt();
    for row in rows.chunks_exact_mut(block) {
        let row = row.as_mut_ptr();
        // SAFETY: the caller's promise; sixteen values from each multiple of sixteen on lie in the row.
        unsafe {
            for at in (0..block).step_by(LANES) {
                let scaled = S::mul(S::load(row.add(at)), S::splat(factor));
                S::store(row.add(at), S::hadamard(scaled));
            }
            let mut half = LANES;
            while half < block {
                for first in (0..block).step_by(2 * half) {
                    for at in (first..first + half).step_by(LANES) {
                        let (low, high) = (S::load(row.add(at)), S::load(row.add(at + half)));
                        S::store(row.add(at), S::add(low, high));
                        S::store(row.add(at + half), S::sub(low, high));
                    }
                }
                half *= 2;
            }
        }
    }
}

/// Transforms one row of a power of two.
fn short(row: &mut [f32]) {
    let factor = 1.0 / (row.len() as f32).sqrt();
    row.iter_mut().for_each(|x| *x *= factor);
    let mut half = 1;
    while half < row.len() {
        for pair in row.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (low, high) in low.iter_mut().zip(high) {
                (*low, *high) = (*low + *high, *low - *high);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_products_with_the_matrix_of_signs() {
        for dim in [1usize, 2, 4, 8, 16, 20, 24, 64, 80, 128, 256] {
            let block = 1 << dim.trailing_zeros();
            let row: Vec<f32> = (0..dim).map(|i| (i as f32 * 1.3).sin()).collect();
            let mut found = row.clone();
            transform(&mut found, dim);
            for (index, found) in found.iter().enumerate() {
                let (first, row_bits) = (index / block * block, index % block);
                let exact: f64 = (0..block)
                    .map(|column| {
                        let sign = if (row_bits & column).count_ones() % 2 == 0 { 1.0 } else { -1.0 };
                        sign * f64::from(row[first + column]) / (block as f64).sqrt()
                    })
                    .sum();
                assert!((f64::from(*found) - exact).abs() < 1e-6, "{dim} {index}: {found} {exact}");
            }
        }
    }

    #[test]
    fn instruction_sets_agree_to_the_bit() {
        let rows: Vec<f32> = (0..3 * 64).map(|i| (i as f32 * 0.7).cos() * 3.0).collect();
        let mut plain = rows.clone();
        // SAFETY: plain code needs no features.
        unsafe { Plain::<false>::transform(&mut plain, 64) };
        let mut short_rows = rows.clone();
        short_rows.chunks_exact_mut(64).for_each(short);
        assert_eq!(plain, short_rows);
        for isa in Isa::available() {
            let mut found = rows.clone();
            match isa {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the processor has it.
                Isa::Avx512 => unsafe { Avx512::transform(&mut found, 64) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Isa::Avx2 => unsafe { Avx2::transform(&mut found, 64) },
                _ => transform(&mut found, 64),
            }
            assert_eq!(found, plain, "{}", isa.name());
        }
    }

    #[test]
    fn twice_is_nothing() {
        let rows: Vec<f32> = (0..3 * 48).map(|i| (i as f32 * 0.7).cos() * 3.0).collect();
        let mut turned = rows.clone();
        transform(&mut turned, 48);
        transform(&mut turned, 48);
        assert!(turned.iter().zip(&rows).all(|(a, b)| (a - b).abs() < 2e-6));
    }
}
