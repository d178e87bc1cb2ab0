//! The best pair of a rank: `min ‖(W − B A) X‖` over all pairs, `X` what the layer is given.
//!
//! With `C = X Xᵀ` and `C = L Lᵀ` this is the singular value decomposition of `W L`, cut at the rank (Eckart and Young), brought
//! back by `L⁻¹`; with `C = I` it is that of `W`. It is computed from the smaller side:
//!
//! - `out ≤ in`: `U` has the eigenvectors of `W C Wᵀ`; `B = U`, `A = Uᵀ W`. `L` is not needed.
//! - `out > in`: `V` has the eigenvectors of `Lᵀ Wᵀ W L`; `B = W L V`, `A = Vᵀ L⁻¹`.
//!
//! Then both get the same size, direction by direction (PELA's `U S^½` and `S^½ Vᵀ`), so that one learning rate suits them.

use ounce_kernels::gemm::{Compute, Operand, Workspace, gemm};
use ounce_kernels::pool::Pool;

use ounce_kernels::eigen::{dot, symmetric};

/// Added to the diagonal of `C`, as a part of its mean: inputs that calibration never saw are not thrown away for nothing.
const DAMPING: f64 = 1e-3;

/// Two thin matrices.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    /// Width between them.
    pub rank: usize,
    /// `A`, `[rank, in]`.
    pub reduce: Vec<f32>,
    /// `B`, `[out, rank]`.
    pub expand: Vec<f32>,
    /// The part of the output's square that is lost: of what calibration showed, or of the weights' square.
    pub lost: f64,
}

/// Factorises `w`, `[rows, columns]`; `inputs` is `Σ x xᵀ`, `[columns, columns]`, in any unit.
///
/// # Errors
/// In one sentence, if a value is no number.
pub(crate) fn factors(
    w: &[f32],
    rows: usize,
    columns: usize,
    rank: usize,
    inputs: Option<&[f32]>,
) -> Result<Factors, String> {
    let damped = inputs.map(|inputs| damp(inputs, columns));
    let bad = || "holds values that are no numbers; repair the weights first".to_string();
    let (values, mut reduce, mut expand) = if rows <= columns {
        let seen = match &damped {
            Some(c) => product(w, c, rows, columns, columns),
            None => w.to_vec(),
        };
        let gram = wide(&product_transposed(&seen, w, rows, columns, rows));
        let (values, vectors) = symmetric(gram, rows).ok_or_else(bad)?;
        let u = narrow(&vectors[..rank * rows]);
        let reduce = product(&u, w, rank, rows, columns);
        (values, reduce, transposed(&u, rank, rows))
    } else {
        let gram = wide(&product(&transposed(w, rows, columns), w, columns, rows, columns));
        match &damped {
            None => {
                let (values, vectors) = symmetric(gram, columns).ok_or_else(bad)?;
                let v = narrow(&vectors[..rank * columns]);
                let expand = product_transposed(w, &v, rows, columns, rank);
                (values, v, expand)
            }
            Some(c) => {
                let l = cholesky(wide(c), columns).ok_or_else(bad)?;
                let seen = sandwich(&gram, &l, columns);
                let (values, vectors) = symmetric(seen, columns).ok_or_else(bad)?;
                let v = &vectors[..rank * columns];
                // L V, as rows: each vector is brought to the inputs' own scale.
                let scaled: Vec<f64> =
                    v.chunks_exact(columns).flat_map(|v| lower_times(&l, v, columns)).collect();
                let expand = product_transposed(w, &narrow(&scaled), rows, columns, rank);
                let reduce: Vec<f64> =
                    v.chunks_exact(columns).flat_map(|v| solve_transposed(&l, v, columns)).collect();
                (values, narrow(&reduce), expand)
            }
        }
    };
    balance(&mut reduce, &mut expand, rank, rows, columns);
    let lost = match inputs {
        // What calibration showed, without the damping.
        Some(inputs) => {
            let mut error = product(&expand, &reduce, rows, rank, columns);
            error.iter_mut().zip(w).for_each(|(product, w)| *product = w - *product);
            share(trace(&error, inputs, rows, columns), trace(w, inputs, rows, columns))
        }
        None => {
            let sum = |values: &[f64]| values.iter().map(|value| value.max(0.0)).sum::<f64>();
            share(sum(&values[rank..]), sum(&values))
        }
    };
    match reduce.iter().chain(&expand).all(|x| x.is_finite()) {
        true => Ok(Factors { rank, reduce, expand, lost }),
        false => Err(bad()),
    }
}

pub(super) fn share(part: f64, all: f64) -> f64 {
    if all > 0.0 { (part / all).max(0.0) } else { 0.0 }
}

/// `tr(a c aᵀ)`.
fn trace(a: &[f32], c: &[f32], rows: usize, n: usize) -> f64 {
    let seen = product(a, c, rows, n, n);
    a.iter().zip(&seen).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Gives both factors the same size in each of the directions between them.
pub(super) fn balance(reduce: &mut [f32], expand: &mut [f32], rank: usize, rows: usize, columns: usize) {
    for at in 0..rank {
        let row = &reduce[at * columns..(at + 1) * columns];
        let a: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let b: f64 = (0..rows).map(|row| f64::from(expand[row * rank + at]).powi(2)).sum::<f64>().sqrt();
        if a == 0.0 || b == 0.0 {
            continue;
        }
        let factor = (b / a).sqrt() as f32;
        reduce[at * columns..(at + 1) * columns].iter_mut().for_each(|x| *x *= factor);
        (0..rows).for_each(|row| expand[row * rank + at] /= factor);
    }
}

fn damp(inputs: &[f32], n: usize) -> Vec<f32> {
    let mean = (0..n).map(|i| f64::from(inputs[i * n + i])).sum::<f64>() / n as f64;
    let mut damped = inputs.to_vec();
    let more = if mean > 0.0 { DAMPING * mean } else { 1.0 };
    (0..n).for_each(|i| damped[i * n + i] += more as f32);
    damped
}

/// `L` with `L Lᵀ = a`, lower; none if `a` is not positive.
pub(super) fn cholesky(mut a: Vec<f64>, n: usize) -> Option<Vec<f64>> {
    for i in 0..n {
        for j in 0..=i {
            let (upper, lower) = a.split_at(i * n);
            let other = if j == i { &lower[..n] } else { &upper[j * n..(j + 1) * n] };
            let rest = lower[j] - dot(&lower[..j], &other[..j]);
            a[i * n + j] = match i == j {
                true if rest > 0.0 => rest.sqrt(),
                true => return None,
                false => rest / a[j * n + j],
            };
        }
        a[i * n + i + 1..(i + 1) * n].fill(0.0);
    }
    Some(a)
}

/// `Lᵀ g L`.
fn sandwich(g: &[f64], l: &[f64], n: usize) -> Vec<f64> {
    let mut right = vec![0.0; n * n];
    // Row by row: (g L)[i] = Σ_k g[i, k] L[k].
    for (row, out) in g.chunks_exact(n).zip(right.chunks_exact_mut(n)) {
        for (k, x) in row.iter().enumerate() {
            out[..=k].iter_mut().zip(&l[k * n..=k * n + k]).for_each(|(out, l)| *out += x * l);
        }
    }
    let mut both = vec![0.0; n * n];
    for k in 0..n {
        let row = &right[k * n..(k + 1) * n];
        for i in 0..=k {
            let factor = l[k * n + i];
            both[i * n..(i + 1) * n].iter_mut().zip(row).for_each(|(out, x)| *out += factor * x);
        }
    }
    // Rounding leaves it a little uneven.
    for i in 0..n {
        for j in 0..i {
            let mean = 0.5 * (both[i * n + j] + both[j * n + i]);
            (both[i * n + j], both[j * n + i]) = (mean, mean);
        }
    }
    both
}

/// `L v`.
fn lower_times(l: &[f64], v: &[f64], n: usize) -> Vec<f64> {
    (0..n).map(|i| dot(&l[i * n..=i * n + i], &v[..=i])).collect()
}

/// `x` with `Lᵀ x = v`.
pub(super) fn solve_transposed(l: &[f64], v: &[f64], n: usize) -> Vec<f64> {
    let mut x = v.to_vec();
    for i in (0..n).rev() {
        x[i] /= l[i * n + i];
        let (done, rest) = (x[i], &l[i * n..i * n + i]);
        x[..i].iter_mut().zip(rest).for_each(|(x, l)| *x -= done * l);
    }
    x
}

/// `a b`, `[m, k]` times `[k, n]`.
pub(crate) fn product(a: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Vec<f32> {
    let mut out = vec![0.0; m * n];
    let (left, right) = (Operand::rows(a, k), Operand::rows(b, n));
    gemm(Pool::global(), Compute::F32, (m, n, k), left, right, false, &mut out, n, &mut Workspace::default());
    out
}

/// `a bᵀ`, `[m, k]` times `[n, k]`.
pub(super) fn product_transposed(a: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Vec<f32> {
    let mut out = vec![0.0; m * n];
    let (left, right) = (Operand::rows(a, k), Operand::columns(b, k));
    gemm(Pool::global(), Compute::F32, (m, n, k), left, right, false, &mut out, n, &mut Workspace::default());
    out
}

pub(super) fn transposed(a: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| a[row * columns + column])).collect()
}

pub(super) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

pub(super) fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|x| *x as f32).collect()
}
