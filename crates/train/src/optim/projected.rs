//! Full training of a matrix with moments for a few directions of its gradient.
//!
//! - **GaLore** ("GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection", arXiv 2403.03507, algorithm 2): every `T` steps
//!   the `r` strongest singular directions `P` of the gradient on its smaller side; Adam on `R = Pᵀ G` (or `G P`), and
//!   `W ← W − η α P Adam(R)`.
//! - **GradNormLoRP** ("Gradient Weight-normalized Low-rank Projection for Efficient LLM Training", arXiv 2412.19616): rows are split into
//!   norms and directions, `W = diag(m) D`; `∂L/∂m_i = D_i · G_i`, `∂L/∂D_i = m_i (G_i − (D_i · G_i) D_i)`. The gradient of `D` is
//!   projected as GaLore's, `m` learns by plain Adam, and rows of `D` are normalised after the step. `m` and `D` follow from `W`, so
//!   nothing but moments is kept.
//!
//! For `W` `[n, m]`, `n ≤ m`, that is `2 r m + n r` values in place of `2 n m`, and `2` a row for its norm's moments.
//!
//! Directions come from a randomised range finder with power iterations. When they change, moments are carried over: with
//! `C = P_newᵀ P_old` the mean becomes `C m`, and the mean square `(C ⊙ C) v`, as if what lies in different directions were independent.

use ounce_kernels::gemm::{Compute, Operand, Workspace, gemm};
use ounce_kernels::optimizer::adamw::AdamW;
use ounce_kernels::pool::Pool;

use super::moments::{Moments, NAMES};
use super::options::{Group, LowRank, Options, Projection};
use super::state::{Part, SlotType};
use crate::Param;
use crate::net::normal;

/// Power iterations of the range finder.
const ITERATIONS: usize = 3;

/// Names of the parts of the moments of the rows' norms, as [`NAMES`] has them.
const OF_NORMS: [&str; 4] = ["norm_m", "norm_m_scales", "norm_v", "norm_v_scales"];

/// The memory of a matrix.
#[derive(Debug, Clone)]
pub(super) struct Projected {
    rows: usize,
    columns: usize,
    rank: usize,
    /// Directions on the smaller side, one a row: `[rank, min(rows, columns)]`.
    basis: Vec<f32>,
    moments: Moments,
    /// Of the rows' norms, if they are apart.
    norms: Option<Moments>,
}

/// `out = a b`.
fn product(pool: &Pool, size: (usize, usize, usize), a: Operand<'_>, b: Operand<'_>) -> Vec<f32> {
    let mut out = vec![0.0; size.0 * size.1];
    gemm(pool, Compute::F32, size, a, b, false, &mut out, size.1, &mut Workspace::default());
    out
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Makes rows orthonormal, one after the other, twice over for rounding. A row that lies among earlier ones becomes zero.
fn orthonormal(rows: &mut [f32], width: usize) {
    for at in 0..rows.len() / width {
        let (before, row) = rows.split_at_mut(at * width);
        let row = &mut row[..width];
        let begun = dot(row, row).sqrt();
        for _ in 0..2 {
            for earlier in before.chunks_exact(width) {
                let along = dot(earlier, row) as f32;
                row.iter_mut().zip(earlier).for_each(|(x, e)| *x -= along * e);
            }
        }
        let norm = dot(row, row).sqrt();
        let factor = if norm > 1e-5 * begun && norm > 0.0 { (1.0 / norm) as f32 } else { 0.0 };
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

impl Projected {
    pub fn new(options: &Options, group: &Group, param: &Param) -> Projected {
        let (rows, columns, rank) = (param.shape[0], param.shape[1], options.low_rank.rank);
        let norms = (group.projection == Projection::GradNormLorp).then(|| Moments::new(group.kind, rows));
        Projected {
            rows,
            columns,
            rank,
            basis: vec![0.0; rank * rows.min(columns)],
            moments: Moments::new(group.kind, rank * rows.max(columns)),
            norms,
        }
    }

    pub fn bytes(&self) -> usize {
        4 * self.basis.len() + self.moments.bytes() + self.norms.as_ref().map_or(0, Moments::bytes)
    }

    /// Whether directions are those of columns, `P` `[rows, rank]`; else of rows.
    fn tall(&self) -> bool {
        self.rows <= self.columns
    }

    /// `Pᵀ G`, `[rank, columns]`, or `G P`, `[rows, rank]`.
    fn project(&self, pool: &Pool, g: &[f32]) -> Vec<f32> {
        let Projected { rows, columns, rank, .. } = *self;
        match self.tall() {
            true => product(
                pool,
                (rank, columns, rows),
                Operand::rows(&self.basis, rows),
                Operand::rows(g, columns),
            ),
            false => product(
                pool,
                (rows, rank, columns),
                Operand::rows(g, columns),
                Operand::columns(&self.basis, columns),
            ),
        }
    }

    /// `P R` or `R Pᵀ`, `[rows, columns]`.
    fn back(&self, pool: &Pool, r: &[f32]) -> Vec<f32> {
        let Projected { rows, columns, rank, .. } = *self;
        match self.tall() {
            true => product(
                pool,
                (rows, columns, rank),
                Operand::columns(&self.basis, rows),
                Operand::rows(r, columns),
            ),
            false => product(
                pool,
                (rows, columns, rank),
                Operand::rows(r, rank),
                Operand::rows(&self.basis, columns),
            ),
        }
    }

    /// Looks for the strongest directions of a gradient, and carries the moments over.
    fn refresh(&mut self, pool: &Pool, g: &[f32], seed: u64, name: &str) {
        let Projected { rows, columns, rank, .. } = *self;
        let (small, large) = (rows.min(columns), rows.max(columns));
        let mut basis = normal(1.0, rank * small, seed, name);
        orthonormal(&mut basis, small);
        for _ in 0..ITERATIONS {
            let (through, again) = match self.tall() {
                true => (Operand::rows(g, columns), Operand::columns(g, columns)),
                false => (Operand::columns(g, columns), Operand::rows(g, columns)),
            };
            let mut seen = product(pool, (rank, large, small), Operand::rows(&basis, small), through);
            orthonormal(&mut seen, large);
            basis = product(pool, (rank, small, large), Operand::rows(&seen, large), again);
            orthonormal(&mut basis, small);
        }
        let old = std::mem::replace(&mut self.basis, basis);
        let turn = product(
            pool,
            (rank, rank, small),
            Operand::rows(&self.basis, small),
            Operand::columns(&old, small),
        );
        let squares: Vec<f32> = turn.iter().map(|x| x * x).collect();
        let tall = self.tall();
        let turned = |by: &[f32], x: &[f32]| match tall {
            true => product(pool, (rank, large, rank), Operand::rows(by, rank), Operand::rows(x, large)),
            false => product(pool, (large, rank, rank), Operand::rows(x, rank), Operand::columns(by, rank)),
        };
        self.moments.change(|m, v| (turned(&turn, m), turned(&squares, v)));
    }

    /// Moves a matrix. `adam` says rate, decay and step.
    pub fn step(&mut self, pool: &Pool, options: &Options, adam: &AdamW, param: &mut Param, scale: f32) {
        let LowRank { refresh, scale: factor, .. } = options.low_rank;
        let plain = AdamW { weight_decay: 0.0, ..*adam };
        let slow = AdamW { lr: factor * adam.lr, ..plain };
        let keep = (1.0 - adam.lr * adam.weight_decay) as f32;
        let due = (adam.step - 1).is_multiple_of(refresh);
        let mut gradient: Vec<f32> = param.grad.iter().map(|g| g * scale).collect();
        let rows = self.rows;
        let norms: Vec<f32> = match self.norms {
            Some(_) => {
                param.value.chunks_exact(self.columns).map(|row| dot(row, row).sqrt() as f32).collect()
            }
            None => vec![1.0; rows],
        };
        let mut along = vec![0.0; rows];
        if self.norms.is_some() {
            let values = param.value.chunks_exact_mut(self.columns);
            let each = gradient.chunks_exact_mut(self.columns).zip(values).zip(&norms).zip(&mut along);
            for (((g, w), &norm), along) in each {
                apart(g, w, norm, along);
            }
        }
        if due {
            self.refresh(pool, &gradient, adam.step, &param.name);
        }
        let projected = self.project(pool, &gradient);
        let moved = self.moments.step(pool, &slow, &projected);
        let moved = self.back(pool, &moved);
        match &mut self.norms {
            None => {
                param.value.iter_mut().zip(&moved).for_each(|(w, step)| *w = keep * *w + step);
            }
            Some(moments) => {
                let steps = moments.step(pool, &plain, &along);
                let each = param.value.chunks_exact_mut(self.columns).zip(moved.chunks_exact(self.columns));
                for ((d, moved), (norm, step)) in each.zip(norms.iter().zip(&steps)) {
                    d.iter_mut().zip(moved).for_each(|(d, step)| *d += step);
                    let length = dot(d, d).sqrt() as f32;
                    // A row of zeros has no direction yet: what the step gives it is its value.
                    let factor = match *norm > 0.0 && length > 0.0 {
                        true => (keep * norm + step).max(0.0) / length,
                        false => 1.0,
                    };
                    d.iter_mut().for_each(|d| *d *= factor);
                }
            }
        }
    }

    /// The parts of its memory.
    pub fn slots<'s>(&'s self, slots: &mut Vec<Part<&'s [u8]>>) {
        slots.push(("basis", SlotType::F32, bytemuck::cast_slice(&self.basis)));
        self.moments.slots(NAMES, slots);
        if let Some(norms) = &self.norms {
            norms.slots(OF_NORMS, slots);
        }
    }

    /// As [`Projected::slots`], to be loaded into.
    pub fn slots_mut<'s>(&'s mut self, slots: &mut Vec<Part<&'s mut [u8]>>) {
        slots.push(("basis", SlotType::F32, bytemuck::cast_slice_mut(&mut self.basis)));
        self.moments.slots_mut(NAMES, slots);
        if let Some(norms) = &mut self.norms {
            norms.slots_mut(OF_NORMS, slots);
        }
    }
}

/// Makes a row's gradient that of its direction, the row its direction, and gives the gradient of its norm.
fn apart(g: &mut [f32], w: &mut [f32], norm: f32, along: &mut f32) {
    if norm > 0.0 {
        w.iter_mut().for_each(|w| *w /= norm);
        let of_norm = dot(g, w) as f32;
        g.iter_mut().zip(&*w).for_each(|(g, d)| *g = norm * (*g - of_norm * d));
        *along = of_norm;
    }
}

#[cfg(test)]
#[path = "projected_tests.rs"]
mod tests;
