//! Sums of products: rows of one matrix with panels of sixteen columns of another, in a tile of registers.

use crate::attention::lanes::Arithmetic;
use crate::vector::LANES;

/// Rows are computed in whole groups of so many.
pub(super) const ROWS: usize = 8;

/// `out[r][p · 16 + l] = Σ_i inputs[r][i] · panels[p][i][l]`, or `+=`, in the order of `i`.
#[derive(Clone, Copy)]
pub(super) struct Product {
    /// `[r][i]` with rows `input_stride` apart; with `TRANSPOSED` `[i][r]`, `i` that far apart.
    pub inputs: *const f32,
    pub input_stride: usize,
    /// Panels lie `panel_stride` apart, the rows of a panel `row_stride`.
    pub panels: *const f32,
    pub panel_stride: usize,
    pub row_stride: usize,
    /// The range of `i`.
    pub length: usize,
    pub out: *mut f32,
    pub out_stride: usize,
}

impl Product {
    /// Computes `rows` rows, a multiple of [`ROWS`], and `panels` panels.
    ///
    /// # Safety
    /// The features of `S` are there; what the product describes can be read and written.
    #[inline(always)]
    pub(super) unsafe fn run<S: Arithmetic, const TRANSPOSED: bool, const ADD: bool>(
        self,
        rows: usize,
        panels: usize,
    ) {
        debug_assert!(rows.is_multiple_of(ROWS), "whole groups of rows");
        for row in (0..rows).step_by(ROWS) {
            let mut panel = 0;
            // SAFETY: the caller's promise, for each tile.
            unsafe {
                if S::WIDE {
                    while panel + 2 <= panels {
                        self.tile::<S, TRANSPOSED, ADD, 8, 2>(row, panel);
                        panel += 2;
                    }
                    if panel < panels {
                        self.tile::<S, TRANSPOSED, ADD, 8, 1>(row, panel);
                    }
                } else {
                    while panel < panels {
                        self.tile::<S, TRANSPOSED, ADD, 4, 1>(row, panel);
                        self.tile::<S, TRANSPOSED, ADD, 4, 1>(row + 4, panel);
                        panel += 1;
                    }
                }
            }
        }
    }

    /// `T` rows and `P` panels, all sums in registers.
    ///
    /// # Safety
    /// As for [`Product::run`].
    #[inline(always)]
    unsafe fn tile<S: Arithmetic, const TRANSPOSED: bool, const ADD: bool, const T: usize, const P: usize>(
        &self,
        row: usize,
        panel: usize,
    ) {
        // SAFETY: indices stay below what the caller promises.
        unsafe {
            let mut totals = [[S::splat(0.0); P]; T];
            let panels: [*const f32; P] =
                std::array::from_fn(|p| self.panels.add((panel + p) * self.panel_stride));
            let first = self.inputs.add(if TRANSPOSED { row } else { row * self.input_stride });
            let inputs: [*const f32; T] =
                std::array::from_fn(|t| first.add(if TRANSPOSED { t } else { t * self.input_stride }));
            for index in 0..self.length {
                let mut lanes = [S::splat(0.0); P];
                for p in 0..P {
                    lanes[p] = S::load(panels[p].add(index * self.row_stride));
                }
                let at = if TRANSPOSED { index * self.input_stride } else { index };
                for t in 0..T {
                    let input = S::splat(*inputs[t].add(at));
                    for p in 0..P {
                        totals[t][p] = S::fma(lanes[p], input, totals[t][p]);
                    }
                }
            }
            for t in 0..T {
                for p in 0..P {
                    let out = self.out.add((row + t) * self.out_stride + (panel + p) * LANES);
                    let total = if ADD { S::add(S::load(out), totals[t][p]) } else { totals[t][p] };
                    S::store(out, total);
                }
            }
        }
    }
}
