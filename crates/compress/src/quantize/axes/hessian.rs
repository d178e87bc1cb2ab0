//! Sensitivity by second derivatives: HAWQ-V2 (Dong et al., 2020), the survey's section IV.B.
//!
//! A layer's sensitivity at b bits is `Ω(b) = t̄ · ‖Q_b(W) − W‖²` with t̄ the mean of the Hessian's diagonal over the layer's
//! weights. The trace is Hutchinson's estimate `tr(H) = E[vᵀ H v]` over random signs v, and `H v` the difference of two
//! gradients. [`super::super::allocate`] then gives out the bits.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::allocate::{Choice, allocate};

/// A trace with the standard error of its estimate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trace {
    /// The estimate.
    pub value: f64,
    /// Its standard error; 0 of a single probe.
    pub stderr: f64,
}

/// Hutchinson's estimate from `probes` products `H v`, which `product` gives.
///
/// # Errors
/// Whatever `product` finds wrong.
pub fn trace<E>(
    size: usize,
    probes: usize,
    seed: u64,
    mut product: impl FnMut(&[f32]) -> Result<Vec<f32>, E>,
) -> Result<Trace, E> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut found = Vec::with_capacity(probes);
    for _ in 0..probes {
        let v: Vec<f32> = (0..size).map(|_| if rng.random::<bool>() { 1.0 } else { -1.0 }).collect();
        let hv = product(&v)?;
        found.push(v.iter().zip(&hv).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>());
    }
    let count = found.len().max(1) as f64;
    let value = found.iter().sum::<f64>() / count;
    let square: f64 = found.iter().map(|it| (it - value).powi(2)).sum();
    let stderr = if found.len() > 1 { (square / (count - 1.0) / count).sqrt() } else { 0.0 };
    Ok(Trace { value, stderr })
}

/// `H v` by central differences: `(∇L(w + εv) − ∇L(w − εv)) / 2ε`.
///
/// # Errors
/// Whatever `gradient` finds wrong.
pub fn product<E>(
    weights: &[f32],
    v: &[f32],
    epsilon: f32,
    mut gradient: impl FnMut(&[f32]) -> Result<Vec<f32>, E>,
) -> Result<Vec<f32>, E> {
    let moved = |sign: f32| weights.iter().zip(v).map(|(w, v)| w + sign * epsilon * v).collect::<Vec<f32>>();
    let (above, below) = (gradient(&moved(1.0))?, gradient(&moved(-1.0))?);
    Ok(above.iter().zip(&below).map(|(a, b)| (a - b) / (2.0 * epsilon)).collect())
}

/// A layer as bits are given out to it.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its weights.
    pub count: usize,
    /// The trace of the loss's Hessian over them; below zero counts as zero.
    pub trace: f64,
    /// Of each number of bits, ‖Q(W) − W‖².
    pub errors: Vec<(u32, f64)>,
}

impl Layer {
    /// Ω of each choice of bits.
    pub fn sensitivities(&self) -> impl Iterator<Item = (u32, f64)> {
        let mean = self.trace.max(0.0) / self.count.max(1) as f64;
        self.errors.iter().map(move |&(bits, error)| (bits, mean * error))
    }
}

/// Bits for each layer with the least `Σ Ω` in so many bytes of codes; none if the fewest bits take more.
pub fn assign(layers: &[Layer], bytes: u64) -> Option<Vec<u32>> {
    let ways = |layer: &Layer| -> Vec<Choice> {
        let size = |bits: u32| (layer.count as u64 * u64::from(bits)).div_ceil(8);
        layer.sensitivities().map(|(bits, cost)| Choice { bytes: size(bits), cost }).collect()
    };
    let units: Vec<Vec<Choice>> = layers.iter().map(ways).collect();
    let chosen = allocate(&units, bytes)?;
    Some(chosen.into_iter().zip(layers).map(|(choice, layer)| layer.errors[choice].0).collect())
}

#[cfg(test)]
mod tests {
    use super::super::random;
    use super::*;

    /// A symmetric matrix and the product with it.
    fn matrix(size: usize, beside: f32) -> Vec<f32> {
        let mut next = random::normal(3);
        let mut matrix = vec![0.0; size * size];
        for a in 0..size {
            for b in 0..=a {
                let value = next() * if a == b { 1.0 } else { beside } + if a == b { 2.0 } else { 0.0 };
                (matrix[a * size + b], matrix[b * size + a]) = (value, value);
            }
        }
        matrix
    }

    fn times(matrix: &[f32], v: &[f32]) -> Vec<f32> {
        matrix.chunks(v.len()).map(|row| row.iter().zip(v).map(|(a, b)| a * b).sum()).collect()
    }

    #[test]
    fn one_probe_finds_the_trace_of_a_diagonal_and_many_that_of_any_matrix() {
        let size = 20;
        let exact = |matrix: &[f32]| (0..size).map(|at| f64::from(matrix[at * size + at])).sum::<f64>();
        let diagonal = matrix(size, 0.0);
        let found = trace(size, 1, 5, |v| Ok::<_, ()>(times(&diagonal, v))).unwrap();
        assert!((found.value - exact(&diagonal)).abs() < 1e-4);
        let full = matrix(size, 0.5);
        let found = trace(size, 400, 5, |v| Ok::<_, ()>(times(&full, v))).unwrap();
        assert!(found.stderr > 0.0 && (found.value - exact(&full)).abs() < 4.0 * found.stderr, "{found:?}");
    }

    #[test]
    fn products_are_differences_of_gradients() {
        // L = Σ w⁴ / 12, whose Hessian is the diagonal of w².
        let weights = [1.0f32, -2.0, 0.5];
        let gradient = |w: &[f32]| Ok::<_, ()>(w.iter().map(|w| w.powi(3) / 3.0).collect());
        let found = product(&weights, &[1.0, -1.0, 2.0], 1e-2, gradient).unwrap();
        for (found, exact) in found.iter().zip([1.0, -4.0, 0.5]) {
            assert!((found - exact).abs() < 1e-3, "{found} {exact}");
        }
        assert!(product(&weights, &weights, 0.1, |_| Err::<Vec<f32>, _>("no")).is_err());
    }

    #[test]
    fn bits_go_where_the_loss_is_curved() {
        let errors = vec![(2, 1.0), (4, 0.06), (8, 0.0002)];
        let layer = |trace: f64| Layer { count: 1000, trace, errors: errors.clone() };
        // As many bytes as 4 bits for all take.
        let layers = [layer(100.0), layer(1.0), layer(2.0)];
        let bits = assign(&layers, 1500).unwrap();
        let cost = |bits: &[u32]| -> f64 {
            let of =
                |(layer, bits): (&Layer, &u32)| layer.sensitivities().find(|it| it.0 == *bits).unwrap().1;
            layers.iter().zip(bits).map(of).sum()
        };
        let mut best = f64::INFINITY;
        for a in [2, 4, 8] {
            for b in [2, 4, 8] {
                for c in [2, 4, 8] {
                    if (a + b + c) * 125 <= 1500 {
                        best = best.min(cost(&[a, b, c]));
                    }
                }
            }
        }
        assert_eq!((bits[0], cost(&bits)), (8, best));
        assert!(cost(&bits) < cost(&[4, 4, 4]));
        assert!(assign(&layers, 700).is_none());
    }
}
