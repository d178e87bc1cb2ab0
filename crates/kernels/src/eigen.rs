//! Eigenvalues and eigenvectors of symmetric matrices, in f64: Householder reflections to a tridiagonal matrix, then implicit QL
//! steps (Golub and Van Loan, "Matrix Computations", chapter 8). About `9 n³` operations.

/// Steps for one eigenvalue before it counts as lost; three are usual.
const STEPS: usize = 60;

/// Eigenvalues from the greatest to the least, and the eigenvector of each as a row, `[n, n]`. None if the matrix holds what is no
/// number.
pub fn symmetric(mut a: Vec<f64>, n: usize) -> Option<(Vec<f64>, Vec<f64>)> {
    debug_assert_eq!(a.len(), n * n, "a square");
    if a.iter().any(|x| !x.is_finite()) {
        return None;
    }
    // The rows of `q` are those of the orthogonal matrix that makes `a` tridiagonal.
    let mut q = vec![0.0; n * n];
    (0..n).for_each(|i| q[i * n + i] = 1.0);
    tridiagonal(&mut a, &mut q, n);
    let mut diagonal: Vec<f64> = (0..n).map(|i| a[i * n + i]).collect();
    let mut beside: Vec<f64> = (0..n).map(|i| if i + 1 < n { a[i * n + i + 1] } else { 0.0 }).collect();
    ql(&mut diagonal, &mut beside, &mut q, n)?;
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| diagonal[j].total_cmp(&diagonal[i]).then(i.cmp(&j)));
    let vectors = order.iter().flat_map(|&i| q[i * n..(i + 1) * n].iter().copied()).collect();
    Some((order.iter().map(|&i| diagonal[i]).collect(), vectors))
}

/// `a ← Q a Qᵀ`, tridiagonal, with `Q` in `q`: reflection `k` clears row and column `k` beyond their neighbours.
fn tridiagonal(a: &mut [f64], q: &mut [f64], n: usize) {
    let (mut v, mut p) = (vec![0.0; n], vec![0.0; n]);
    for k in 0..n.saturating_sub(2) {
        let from = k + 1;
        let norm = (from..n).map(|i| a[k * n + i].powi(2)).sum::<f64>().sqrt();
        if norm == 0.0 {
            continue;
        }
        v[from..n].copy_from_slice(&a[k * n + from..(k + 1) * n]);
        v[from] += if v[from] >= 0.0 { norm } else { -norm };
        let square: f64 = v[from..n].iter().map(|x| x * x).sum();
        if square == 0.0 {
            continue;
        }
        // H = I − 2 v vᵀ / |v|²;  H a H = a − v wᵀ − w vᵀ with w = p − (pᵀv / |v|²) v, p = 2 a v / |v|².
        for (i, p) in p.iter_mut().enumerate().skip(from) {
            *p = 2.0 * dot(&a[i * n + from..(i + 1) * n], &v[from..n]) / square;
        }
        let along = dot(&p[from..n], &v[from..n]) / square;
        p[from..].iter_mut().zip(&v[from..]).for_each(|(p, v)| *p -= along * v);
        for (i, (vi, wi)) in v.iter().zip(&p).enumerate().skip(from) {
            let row = a[i * n + from..(i + 1) * n].iter_mut();
            row.zip(&p[from..]).zip(&v[from..]).for_each(|((x, w), v)| *x -= vi * w + wi * v);
        }
        let reflected = dot(&a[k * n + from..(k + 1) * n], &v[from..n]) * 2.0 / square;
        for (i, v) in v.iter().enumerate().skip(from) {
            a[k * n + i] -= reflected * v;
            a[i * n + k] = a[k * n + i];
        }
        // Q ← H Q: rows are mixed.
        let mut mixed = vec![0.0; n];
        for (i, v) in v.iter().enumerate().skip(from) {
            let row = &q[i * n..(i + 1) * n];
            mixed.iter_mut().zip(row).for_each(|(sum, x)| *sum += v * x);
        }
        for (i, v) in v.iter().enumerate().skip(from) {
            let factor = 2.0 * v / square;
            q[i * n..(i + 1) * n].iter_mut().zip(&mixed).for_each(|(x, sum)| *x -= factor * sum);
        }
    }
}

/// Diagonalises a tridiagonal matrix, turning the rows of `q` along.
fn ql(d: &mut [f64], e: &mut [f64], q: &mut [f64], n: usize) -> Option<()> {
    // What rounding leaves of numbers as large as these: between eigenvalues of zero, of which a product of thin matrices has many,
    // nothing is small beside its neighbours.
    let size = d.iter().zip(e.iter()).map(|(d, e)| d.abs() + e.abs()).fold(0.0, f64::max);
    for l in 0..n {
        for step in 0.. {
            // The first place from `l` on where the matrix falls apart.
            let m = (l..n - 1).find(|&m| e[m].abs() <= f64::EPSILON * size).unwrap_or(n - 1);
            if m == l {
                break;
            }
            if step == STEPS {
                return None;
            }
            // Wilkinson's shift.
            let mut g = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let r = g.hypot(1.0);
            g = d[m] - d[l] + e[l] / (g + r.copysign(g));
            let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
            let mut whole = true;
            for i in (l..m).rev() {
                let (f, b) = (s * e[i], c * e[i]);
                let r = f.hypot(g);
                e[i + 1] = r;
                if r == 0.0 {
                    d[i + 1] -= p;
                    e[m] = 0.0;
                    whole = false;
                    break;
                }
                (s, c) = (f / r, g / r);
                g = d[i + 1] - p;
                let r = (d[i] - g) * s + 2.0 * c * b;
                p = s * r;
                d[i + 1] = g + p;
                g = c * r - b;
                let (upper, lower) = q.split_at_mut((i + 1) * n);
                for (x, y) in upper[i * n..].iter_mut().zip(&mut lower[..n]) {
                    (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                }
            }
            if whole {
                d[l] -= p;
                e[l] = g;
                e[m] = 0.0;
            }
        }
    }
    Some(())
}

/// The inner product.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_of_low_rank_has_its_few_eigenvalues_and_zeros() {
        for (n, rank) in [(48, 1), (64, 3), (96, 8), (5, 0)] {
            // The Gram matrix of a product of thin matrices that was rounded to f32, as weights are.
            let wave = |i: usize, k: usize| (((k + 1) * i) as f32).sin();
            let w: Vec<f64> = (0..n * 64)
                .map(|at| f64::from((0..rank).map(|k| wave(at / 64, k) * wave(at % 64 + 9, k)).sum::<f32>()))
                .collect();
            let rows: Vec<&[f64]> = w.chunks_exact(64).collect();
            let a: Vec<f64> = (0..n * n).map(|at| dot(rows[at / n], rows[at % n])).collect();
            let (values, vectors) = symmetric(a.clone(), n).expect("eigenvalues");
            let largest = values[0].abs();
            assert!(values.is_sorted_by(|a, b| a >= b));
            assert!(
                values[rank..].iter().all(|value| value.abs() <= 1e-12 * largest),
                "{n} {rank}: {values:?}"
            );
            for (value, vector) in values.iter().zip(vectors.chunks_exact(n)) {
                assert!((dot(vector, vector) - 1.0).abs() < 1e-12);
                let off = a.chunks_exact(n).zip(vector).map(|(row, x)| (dot(row, vector) - value * x).abs());
                assert!(off.fold(0.0, f64::max) <= 1e-12 * largest.max(f64::MIN_POSITIVE), "{n} {rank}");
            }
        }
        assert!(symmetric(vec![f64::NAN], 1).is_none());
    }
}
