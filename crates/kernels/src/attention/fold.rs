//! What is known of a tile's queries after some blocks: the greatest score, the sum of exponentials relative to it,
//! and the values mixed by these. Folding two of them gives what both blocks together would have given.

use super::lanes::{Lanes, exp};
use crate::vector::LANES;

/// Results of `rows` queries, each part `[rows]` or `[rows][padded dim]`.
pub(super) struct Partial<'a> {
    pub greatest: &'a mut [f32],
    pub total: &'a mut [f32],
    pub mixed: &'a mut [f32],
}

/// f32 that a [`Partial`] of this many rows takes.
pub(super) fn partial_len(rows: usize, padded_dim: usize) -> usize {
    (2 * rows).next_multiple_of(LANES) + rows * padded_dim
}

impl<'a> Partial<'a> {
    /// Divides memory of [`partial_len`].
    pub(super) fn of(memory: &'a mut [f32], rows: usize) -> Partial<'a> {
        let (scalars, mixed) = memory.split_at_mut((2 * rows).next_multiple_of(LANES));
        let (greatest, total) = scalars.split_at_mut(rows);
        Partial { greatest, total: &mut total[..rows], mixed }
    }

    /// Nothing seen yet.
    pub(super) fn clear(&mut self) {
        self.greatest.fill(f32::NEG_INFINITY);
        self.total.fill(0.0);
        self.mixed.fill(0.0);
    }

    /// Copies what another knows of `rows` to the rows from `first` on.
    pub(super) fn copy(&mut self, first: usize, other: &Partial<'_>, rows: usize, padded_dim: usize) {
        self.greatest[first..first + rows].copy_from_slice(&other.greatest[..rows]);
        self.total[first..first + rows].copy_from_slice(&other.total[..rows]);
        self.mixed[first * padded_dim..(first + rows) * padded_dim]
            .copy_from_slice(&other.mixed[..rows * padded_dim]);
    }

    /// Adds what another knows of `rows` about later positions to the rows from `first` on.
    ///
    /// # Safety
    /// The features of `S` are there.
    #[inline(always)]
    pub(super) unsafe fn fold<S: Lanes>(
        &mut self,
        first: usize,
        other: &Partial<'_>,
        rows: usize,
        padded_dim: usize,
    ) {
        for row in 0..rows {
            let into = first + row;
            let (ours, theirs) = (self.greatest[into], other.greatest[row]);
            // Not even a NaN was seen there.
            if other.total[row] == 0.0 {
                continue;
            }
            let greatest = if theirs > ours { theirs } else { ours };
            let mixed = &mut self.mixed[into * padded_dim..(into + 1) * padded_dim];
            let other_mixed = &other.mixed[row * padded_dim..(row + 1) * padded_dim];
            // SAFETY: the caller's promise; both rows have a multiple of sixteen values.
            unsafe {
                let [our_factor, their_factor] = if ours == greatest {
                    [S::splat(1.0), exp::<S>(S::splat(theirs - greatest))]
                } else {
                    [exp::<S>(S::splat(ours - greatest)), S::splat(1.0)]
                };
                for at in (0..padded_dim).step_by(LANES) {
                    let ours = S::mul(S::load(mixed.as_ptr().add(at)), our_factor);
                    let sum = S::fma(S::load(other_mixed.as_ptr().add(at)), their_factor, ours);
                    S::store(mixed.as_mut_ptr().add(at), sum);
                }
                let mut factors = [[0.0f32; LANES]; 2];
                S::store(factors[0].as_mut_ptr(), our_factor);
                S::store(factors[1].as_mut_ptr(), their_factor);
                self.total[into] = self.total[into] * factors[0][0] + other.total[row] * factors[1][0];
            }
            self.greatest[into] = greatest;
        }
    }
}
