//! The rules themselves, on slices.

/// AdamW's and Lion's numbers for one step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Adam {
    pub rate: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    /// Rate times weight decay.
    pub decay: f32,
    /// `1 / (1 − β1^t)`.
    pub correction1: f32,
    /// `1 / (1 − β2^t)`.
    pub correction2: f32,
    /// Factor on the gradient.
    pub scale: f32,
}

/// SGD's and Muon's numbers for one step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Momentum {
    pub rate: f32,
    pub momentum: f32,
    /// Rate times weight decay.
    pub decay: f32,
    /// Factor on the gradient.
    pub scale: f32,
}

pub(super) fn adamw(value: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], it: &Adam) {
    for (((w, g), m), v) in value.iter_mut().zip(grad).zip(m).zip(v) {
        let g = g * it.scale;
        *m += (1.0 - it.beta1) * (g - *m);
        *v += (1.0 - it.beta2) * (g * g - *v);
        let step = *m * it.correction1 / ((*v * it.correction2).sqrt() + it.eps);
        *w -= it.decay * *w + it.rate * step;
    }
}

pub(super) fn lion(value: &mut [f32], grad: &[f32], m: &mut [f32], it: &Adam) {
    for ((w, g), m) in value.iter_mut().zip(grad).zip(m) {
        let g = g * it.scale;
        let mixed = *m + (1.0 - it.beta1) * (g - *m);
        *m += (1.0 - it.beta2) * (g - *m);
        let sign = if mixed == 0.0 { 0.0 } else { mixed.signum() };
        *w -= it.decay * *w + it.rate * sign;
    }
}

pub(super) fn sgd(value: &mut [f32], grad: &[f32], m: Option<&mut [f32]>, it: &Momentum) {
    match m {
        Some(m) => {
            for ((w, g), m) in value.iter_mut().zip(grad).zip(m) {
                *m = it.momentum * *m + g * it.scale;
                *w -= it.decay * *w + it.rate * *m;
            }
        }
        None => {
            for (w, g) in value.iter_mut().zip(grad) {
                *w -= it.decay * *w + it.rate * g * it.scale;
            }
        }
    }
}

/// Nesterov momentum, orthogonalised; steps have the root mean square 0.2 that AdamW's have.
pub(super) fn muon(value: &mut [f32], grad: &[f32], m: &mut [f32], shape: [usize; 2], it: &Momentum) {
    let mut direction: Vec<f32> = Vec::with_capacity(m.len());
    for (g, m) in grad.iter().zip(m) {
        let g = g * it.scale;
        *m = it.momentum * *m + g;
        direction.push(g + it.momentum * *m);
    }
    let step = orthogonal(direction, shape);
    let rate = it.rate * 0.2 * (shape[0].max(shape[1]) as f32).sqrt();
    for (w, step) in value.iter_mut().zip(step) {
        *w -= it.decay * *w + rate * step;
    }
}

/// Brings all singular values near one by five steps of Newton and Schulz's iteration.
fn orthogonal(matrix: Vec<f32>, [rows, columns]: [usize; 2]) -> Vec<f32> {
    let wide = rows <= columns;
    let mut x = if wide { matrix } else { transpose(&matrix, rows, columns) };
    let (short, long) = (rows.min(columns), rows.max(columns));
    let norm = x.iter().map(|it| f64::from(*it) * f64::from(*it)).sum::<f64>().sqrt();
    let factor = (1.0 / (norm + 1e-7)) as f32;
    x.iter_mut().for_each(|it| *it *= factor);
    let (a, b, c) = (3.4445, -4.775, 2.0315);
    for _ in 0..5 {
        let square = product_transposed(&x, &x, short, short, long);
        let fourth = product_transposed(&square, &square, short, short, short);
        let mix: Vec<f32> = square.iter().zip(&fourth).map(|(s, f)| b * s + c * f).collect();
        let moved = product_transposed(&mix, &transpose(&x, short, long), short, long, short);
        x.iter_mut().zip(moved).for_each(|(x, moved)| *x = a * *x + moved);
    }
    if wide { x } else { transpose(&x, short, long) }
}

fn transpose(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(matrix.len());
    for column in 0..columns {
        out.extend((0..rows).map(|row| matrix[row * columns + column]));
    }
    out
}

/// `a[m, k] · b[n, k]ᵀ`.
fn product_transposed(a: &[f32], b: &[f32], m: usize, n: usize, k: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(m * n);
    for row in a.chunks_exact(k) {
        out.extend(b.chunks_exact(k).map(|other| row.iter().zip(other).map(|(x, y)| x * y).sum::<f32>()));
    }
    debug_assert_eq!(out.len(), m * n);
    out
}
