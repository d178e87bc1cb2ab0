//! Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024): the momentum of a matrix is
//! made nearly orthogonal before it is applied.
//!
//! The Newton-Schulz iteration `X ← a X + (b A + c A²) X` with `A = X Xᵀ` drives the singular values of a matrix of
//! norm one towards one: five times with coefficients chosen for speed leave them between about 0.7 and 1.2.

use super::norm::sum_of_squares;
use crate::gemm::{self, Compute, Operand, gemm};
use crate::grad::split_values;
use crate::pool::{Pool, SharedOut};
use crate::vector::{dispatch, fused};

/// Iterations, and their coefficients.
const ITERATIONS: usize = 5;
const COEFFICIENTS: (f32, f32, f32) = (3.4445, -4.7750, 2.0315);

/// Below this norm a matrix counts as zero.
const LEAST_NORM: f64 = 1e-7;

/// `m ← m + (1 − μ)(g − m)`, `w ← w − lr · λ · w − lr · size · orthogonal(u)` with `u = m`, or with Nesterov's momentum
/// `u = g + μ (m − g)`: the order of PyTorch's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Muon {
    /// Learning rate.
    pub lr: f64,
    /// μ.
    pub momentum: f64,
    /// Whether the step looks ahead by the momentum.
    pub nesterov: bool,
    /// λ.
    pub weight_decay: f64,
    /// How great a step is.
    pub size: Size,
    /// What the iteration's products are computed in; bf16 is enough for it.
    pub compute: Compute,
}

/// The factor on a step of a matrix of `[rows, columns]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Size {
    /// `√max(1, rows / columns)`.
    #[default]
    Original,
    /// `0.2 √max(rows, columns)`: as great as AdamW's steps, whose learning rate then fits (Liu et al., 2025).
    LikeAdamW,
}

/// Memory to use again in the next step; it grows to the largest matrix.
#[derive(Default)]
pub struct Workspace {
    values: Vec<f32>,
    gemm: gemm::Workspace,
}

impl Muon {
    /// One step of a matrix of `rows` times `columns` parameters, from its gradient times `grad_scale`; `m` begins as
    /// zeros.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn update(
        &self,
        pool: &Pool,
        (rows, columns): (usize, usize),
        value: &mut [f32],
        grad: &[f32],
        m: &mut [f32],
        grad_scale: f32,
        workspace: &mut Workspace,
    ) {
        let length = rows * columns;
        assert!(value.len() == length && grad.len() == length && m.len() == length, "a matrix of that shape");
        let Workspace { values, gemm } = workspace;
        let side = rows.min(columns);
        let needed = 2 * length + 2 * side * side;
        if values.len() < needed {
            values.resize(needed, 0.0);
        }
        let (x, rest) = values[..needed].split_at_mut(length);
        let (next, squares) = rest.split_at_mut(length);

        let shared = (SharedOut::new(x), SharedOut::new(m));
        let factors = ((1.0 - self.momentum) as f32, grad_scale, self.nesterov);
        split_values(pool, length, |range| {
            // SAFETY: threads have disjoint ranges.
            let (x, m) = unsafe { (shared.0.part(range.clone()), shared.1.part(range.clone())) };
            mix(factors, &grad[range], m, x);
        });
        orthogonalize(pool, self.compute, (rows, columns), x, next, squares, gemm);

        let (height, width) = (rows as f64, columns as f64);
        let size = match self.size {
            Size::Original => (height / width).max(1.0).sqrt(),
            Size::LikeAdamW => 0.2 * height.max(width).sqrt(),
        };
        let (keep, step) = ((1.0 - self.lr * self.weight_decay) as f32, (-self.lr * size) as f32);
        combine(pool, keep, value, step, x);
    }
}

/// The momentum and what is applied of it.
fn mix(factors: (f32, f32, bool), grad: &[f32], m: &mut [f32], x: &mut [f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(
        (toward, scale, nesterov): (f32, f32, bool),
        grad: &[f32],
        m: &mut [f32],
        x: &mut [f32],
    ) {
        for ((grad, m), x) in grad.iter().zip(m).zip(x) {
            let grad = scale * grad;
            *m = fused::<FUSED>(grad - *m, toward, *m);
            *x = if nesterov { fused::<FUSED>(grad - *m, toward, *m) } else { *m };
        }
    }
    dispatch!(run(factors: (f32, f32, bool), grad: &[f32], m: &mut [f32], x: &mut [f32]))
}

/// `x ← a · x + b · y`.
fn combine(pool: &Pool, a: f32, x: &mut [f32], b: f32, y: &[f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(a: f32, x: &mut [f32], b: f32, y: &[f32]) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x = fused::<FUSED>(b, *y, a * *x));
    }
    fn part(a: f32, x: &mut [f32], b: f32, y: &[f32]) {
        dispatch!(run(a: f32, x: &mut [f32], b: f32, y: &[f32]))
    }
    let x = SharedOut::new(x);
    split_values(pool, y.len(), |range| {
        // SAFETY: threads have disjoint ranges.
        let x = unsafe { x.part(range.clone()) };
        part(a, x, b, &y[range]);
    });
}

/// Newton-Schulz on `x` (`[rows, columns]`), from the side that is shorter: with `A = Xᵀ X` and `X ← a X + X (b A + c A²)`
/// where there are more rows. `next` is as long as `x`, `squares` holds two square matrices of the shorter side.
fn orthogonalize(
    pool: &Pool,
    compute: Compute,
    (rows, columns): (usize, usize),
    x: &mut [f32],
    next: &mut [f32],
    squares: &mut [f32],
    workspace: &mut gemm::Workspace,
) {
    let (a, b, c) = COEFFICIENTS;
    let norm = sum_of_squares(pool, x).sqrt().max(LEAST_NORM);
    let inverse = (1.0 / norm) as f32;
    x.iter_mut().for_each(|x| *x *= inverse);

    let side = rows.min(columns);
    let (gram, square) = squares.split_at_mut(side * side);
    let (mut x, mut next) = (x, next);
    for _ in 0..ITERATIONS {
        let (straight, turned) = (Operand::rows(x, columns), Operand::columns(x, columns));
        let (left, right, depth) =
            if rows > columns { (turned, straight, rows) } else { (straight, turned, columns) };
        gemm(pool, compute, (side, side, depth), left, right, false, gram, side, workspace);
        let operand = Operand::rows(gram, side);
        gemm(pool, compute, (side, side, side), operand, operand, false, square, side, workspace);
        combine(pool, b, gram, c, square);
        let (left, right) = if rows > columns {
            (Operand::rows(x, columns), Operand::rows(gram, side))
        } else {
            (Operand::rows(gram, side), Operand::rows(x, columns))
        };
        gemm(pool, compute, (rows, columns, side), left, right, false, next, columns, workspace);
        combine(pool, 1.0, next, a, x);
        std::mem::swap(&mut x, &mut next);
    }
    // After an odd number of iterations the result is where `next` was.
    if ITERATIONS % 2 == 1 {
        next.copy_from_slice(x);
    }
}
