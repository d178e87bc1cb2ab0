//! Norms of rows that keep each row's statistics, and their gradients.
//!
//! Rows are whole vectors of a layer or, for norms of queries and keys, single heads.

use super::rows::{count, lane_sum, split, sum_blocks, values};
use crate::pool::{Pool, SharedOut};
use crate::vector::{dispatch, fused};

/// RMSNorm of rows: `out = x · inverse · (weight + offset)` with `inverse = 1 / sqrt(mean(x²) + eps)`, one a row.
///
/// # Panics
/// If the lengths do not fit: `x` and `out` are `[rows, width]`, `weight` is `[width]`, `inverse` is `[rows]`.
pub fn rms_norm(
    pool: &Pool,
    x: &[f32],
    width: usize,
    weight: &[f32],
    offset: f32,
    eps: f32,
    out: &mut [f32],
    inverse: &mut [f32],
) {
    let rows = count(x.len(), width);
    assert!(out.len() == x.len() && inverse.len() == rows && weight.len() == width, "lengths fit");
    let (out, inverse) = (SharedOut::new(out), SharedOut::new(inverse));
    split(pool, rows, width, |rows| {
        let places = values(&rows, width);
        // SAFETY: threads have disjoint rows.
        let (out, inverse) = unsafe { (out.part(places.clone()), inverse.part(rows)) };
        rms_rows(&x[places], weight, offset, eps, out, inverse);
    });
}

fn rms_rows(x: &[f32], weight: &[f32], offset: f32, eps: f32, out: &mut [f32], inverse: &mut [f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(
        x: &[f32],
        weight: &[f32],
        offset: f32,
        eps: f32,
        out: &mut [f32],
        inverse: &mut [f32],
    ) {
        let width = weight.len();
        for ((x, out), inverse) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(inverse) {
            let squares = lane_sum([x], |sum, [x]| fused::<FUSED>(x, x, sum));
            let scale = (1.0 / (squares / width as f64 + f64::from(eps)).sqrt()) as f32;
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                *out = x * scale * (weight + offset);
            }
            *inverse = scale;
        }
    }
    dispatch!(run(
        x: &[f32],
        weight: &[f32],
        offset: f32,
        eps: f32,
        out: &mut [f32],
        inverse: &mut [f32]
    ))
}

/// Gradient of [`rms_norm`]. With `x̂ = x · inverse` and `d = dy · (weight + offset)`:
/// `dx += inverse · (d − x̂ · mean(d · x̂))` and `dweight += Σ dy · x̂` over the rows.
///
/// # Panics
/// If the lengths do not fit: `x`, `dy` and `dx` are `[rows, width]`, the weights `[width]`, `inverse` is `[rows]`.
pub fn rms_norm_backward(
    pool: &Pool,
    x: &[f32],
    width: usize,
    weight: &[f32],
    offset: f32,
    inverse: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dweight: Option<&mut [f32]>,
) {
    let rows = count(x.len(), width);
    assert!(dy.len() == x.len() && dx.len() == x.len(), "gradients as long as the rows");
    assert!(inverse.len() == rows && weight.len() == width, "lengths fit");
    let dx = SharedOut::new(dx);
    sum_blocks(pool, rows, width, [dweight], |rows, dweight| {
        let places = values(&rows, width);
        // SAFETY: each row is one thread's.
        let dx = unsafe { dx.part(places.clone()) };
        rms_rows_backward(&x[places.clone()], weight, offset, &inverse[rows], &dy[places], dx, dweight);
    });
}

/// [`rms_norm_backward`] of some rows; `dweight` may be empty.
fn rms_rows_backward(
    x: &[f32],
    weight: &[f32],
    offset: f32,
    inverse: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    #[inline(always)]
    fn run<const FUSED: bool>(
        x: &[f32],
        weight: &[f32],
        offset: f32,
        inverse: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        dweight: &mut [f32],
    ) {
        let width = weight.len();
        let rows = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
        for (((x, dy), dx), &inverse) in rows.zip(inverse) {
            let product = lane_sum([x, dy, weight], |sum, [x, dy, weight]| {
                fused::<FUSED>(dy * (weight + offset), x, sum)
            });
            let inverse_cubed = f64::from(inverse).powi(3);
            let along = -(product / width as f64 * inverse_cubed) as f32;
            for (((dx, x), dy), weight) in dx.iter_mut().zip(x).zip(dy).zip(weight) {
                *dx += fused::<FUSED>(dy * (weight + offset), inverse, x * along);
            }
            for ((dweight, x), dy) in dweight.iter_mut().zip(x).zip(dy) {
                *dweight = fused::<FUSED>(dy * inverse, *x, *dweight);
            }
        }
    }
    dispatch!(run(
        x: &[f32],
        weight: &[f32],
        offset: f32,
        inverse: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        dweight: &mut [f32]
    ))
}

/// LayerNorm of rows: `out = (x − mean) · inverse · (weight + offset) + bias` with
/// `inverse = 1 / sqrt(var + eps)`; mean and inverse are one a row.
///
/// # Panics
/// If the lengths do not fit: `x` and `out` are `[rows, width]`, `weight` and `bias` `[width]`, `mean` and `inverse`
/// `[rows]`.
pub fn layer_norm(
    pool: &Pool,
    x: &[f32],
    width: usize,
    weight: &[f32],
    offset: f32,
    bias: Option<&[f32]>,
    eps: f32,
    out: &mut [f32],
    mean: &mut [f32],
    inverse: &mut [f32],
) {
    let rows = count(x.len(), width);
    assert!(out.len() == x.len() && weight.len() == width, "lengths fit");
    assert!(mean.len() == rows && inverse.len() == rows, "statistics of every row");
    assert!(bias.is_none_or(|bias| bias.len() == width), "a bias as wide as the rows");
    let (out, mean, inverse) = (SharedOut::new(out), SharedOut::new(mean), SharedOut::new(inverse));
    split(pool, rows, width, |rows| {
        let places = values(&rows, width);
        // SAFETY: threads have disjoint rows.
        let (out, mean, inverse) =
            unsafe { (out.part(places.clone()), mean.part(rows.clone()), inverse.part(rows)) };
        layer_rows(&x[places], weight, offset, bias, eps, out, mean, inverse);
    });
}

fn layer_rows(
    x: &[f32],
    weight: &[f32],
    offset: f32,
    bias: Option<&[f32]>,
    eps: f32,
    out: &mut [f32],
    mean: &mut [f32],
    inverse: &mut [f32],
) {
    #[inline(always)]
    fn run<const FUSED: bool>(
        x: &[f32],
        weight: &[f32],
        offset: f32,
        bias: Option<&[f32]>,
        eps: f32,
        out: &mut [f32],
        mean: &mut [f32],
        inverse: &mut [f32],
    ) {
        let width = weight.len();
        let rows = x.chunks_exact(width).zip(out.chunks_exact_mut(width));
        for (((x, out), mean), inverse) in rows.zip(mean).zip(inverse) {
            let middle = (lane_sum([x], |sum, [x]| sum + x) / width as f64) as f32;
            let squares = lane_sum([x], |sum, [x]| fused::<FUSED>(x - middle, x - middle, sum));
            let scale = (1.0 / (squares / width as f64 + f64::from(eps)).sqrt()) as f32;
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                *out = (x - middle) * scale * (weight + offset);
            }
            if let Some(bias) = bias {
                out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
            }
            (*mean, *inverse) = (middle, scale);
        }
    }
    dispatch!(run(
        x: &[f32],
        weight: &[f32],
        offset: f32,
        bias: Option<&[f32]>,
        eps: f32,
        out: &mut [f32],
        mean: &mut [f32],
        inverse: &mut [f32]
    ))
}

/// Gradient of [`layer_norm`]. With `x̂ = (x − mean) · inverse` and `d = dy · (weight + offset)`:
/// `dx += inverse · (d − mean(d) − x̂ · mean(d · x̂))`, `dweight += Σ dy · x̂` and `dbias += Σ dy` over the rows.
///
/// # Panics
/// If the lengths do not fit: `x`, `dy` and `dx` are `[rows, width]`, weights and bias `[width]`, `mean` and
/// `inverse` `[rows]`.
pub fn layer_norm_backward(
    pool: &Pool,
    x: &[f32],
    width: usize,
    weight: &[f32],
    offset: f32,
    mean: &[f32],
    inverse: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dweight: Option<&mut [f32]>,
    dbias: Option<&mut [f32]>,
) {
    let rows = count(x.len(), width);
    assert!(dy.len() == x.len() && dx.len() == x.len(), "gradients as long as the rows");
    assert!(mean.len() == rows && inverse.len() == rows && weight.len() == width, "lengths fit");
    let dx = SharedOut::new(dx);
    let weighted = if dweight.is_some() { width } else { 0 };
    sum_blocks(pool, rows, width, [dweight, dbias], |rows, sums| {
        let places = values(&rows, width);
        let (dweight, dbias) = sums.split_at_mut(weighted);
        // SAFETY: each row is one thread's.
        let dx = unsafe { dx.part(places.clone()) };
        let (x, dy) = (&x[places.clone()], &dy[places]);
        layer_rows_backward(x, weight, offset, &mean[rows.clone()], &inverse[rows], dy, dx, dweight);
        if !dbias.is_empty() {
            super::rows::add_rows(dy, dbias);
        }
    });
}

/// [`layer_norm_backward`] of some rows but for the bias; `dweight` may be empty.
fn layer_rows_backward(
    x: &[f32],
    weight: &[f32],
    offset: f32,
    mean: &[f32],
    inverse: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    #[inline(always)]
    fn run<const FUSED: bool>(
        x: &[f32],
        weight: &[f32],
        offset: f32,
        mean: &[f32],
        inverse: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        dweight: &mut [f32],
    ) {
        let width = weight.len();
        let rows = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
        for ((((x, dy), dx), &mean), &inverse) in rows.zip(mean).zip(inverse) {
            let sum = lane_sum([dy, weight], |sum, [dy, weight]| fused::<FUSED>(dy, weight + offset, sum));
            let product = lane_sum([x, dy, weight], |sum, [x, dy, weight]| {
                fused::<FUSED>(dy * (weight + offset), x - mean, sum)
            });
            let middle = (sum / width as f64) as f32;
            let along = -(product / width as f64 * f64::from(inverse).powi(2)) as f32;
            for (((dx, x), dy), weight) in dx.iter_mut().zip(x).zip(dy).zip(weight) {
                let across = fused::<FUSED>(*dy, weight + offset, -middle);
                *dx = fused::<FUSED>(fused::<FUSED>(x - mean, along, across), inverse, *dx);
            }
            for ((dweight, x), dy) in dweight.iter_mut().zip(x).zip(dy) {
                *dweight = fused::<FUSED>(dy * inverse, x - mean, *dweight);
            }
        }
    }
    dispatch!(run(
        x: &[f32],
        weight: &[f32],
        offset: f32,
        mean: &[f32],
        inverse: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        dweight: &mut [f32]
    ))
}
