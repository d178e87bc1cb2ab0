//! A plain network of images for the demonstration: matrices with ReLU between them, no biases, cross-entropy at the end.

use ounce_kernels::gemm::{Compute, Operand, Workspace, gemm};
use ounce_kernels::pool::Pool;
use rand_chacha::ChaCha8Rng;

use crate::diffusion::normal;

/// The matrices, `[out, in]`, the first one's first.
#[derive(Debug, Clone)]
pub(super) struct Mlp {
    /// Values at the start, between matrices and at the end.
    pub widths: Vec<usize>,
    pub weights: Vec<Vec<f32>>,
}

/// The deviation of a matrix before training (He et al., 2015).
pub(super) fn deviation(inputs: usize) -> f64 {
    (2.0 / inputs as f64).sqrt()
}

/// `out = x Wᵀ` for rows `x`.
fn product(size: (usize, usize, usize), a: Operand<'_>, b: Operand<'_>, room: &mut Workspace) -> Vec<f32> {
    let mut out = vec![0.0; size.0 * size.1];
    gemm(Pool::global(), Compute::F32, size, a, b, false, &mut out, size.1, room);
    out
}

/// The root of the mean square.
fn size(values: &[f32]) -> f32 {
    (values.iter().map(|x| x * x).sum::<f32>() / values.len().max(1) as f32).sqrt()
}

impl Mlp {
    pub fn random(widths: &[usize], random: &mut ChaCha8Rng) -> Mlp {
        let matrix = |pair: &[usize]| {
            let deviation = deviation(pair[0]) as f32;
            normal(random, pair[0] * pair[1]).iter().map(|x| x * deviation).collect()
        };
        Mlp { widths: widths.to_vec(), weights: widths.windows(2).map(matrix).collect() }
    }

    /// Numbers of all matrices.
    pub fn parameters(&self) -> usize {
        self.weights.iter().map(Vec::len).sum()
    }

    /// Values behind each matrix, images first; ReLU is applied to all but the last.
    pub fn forward(&self, images: &[f32]) -> Vec<Vec<f32>> {
        let rows = images.len() / self.widths[0];
        let mut room = Workspace::default();
        let mut values = vec![images.to_vec()];
        for (layer, weights) in self.weights.iter().enumerate() {
            let (input, output) = (self.widths[layer], self.widths[layer + 1]);
            let (x, w) = (Operand::rows(&values[layer], input), Operand::columns(weights, input));
            let mut out = product((rows, output, input), x, w, &mut room);
            if layer + 1 < self.weights.len() {
                out.iter_mut().for_each(|x| *x = x.max(0.0));
            }
            values.push(out);
        }
        values
    }

    /// How large the values behind each matrix are: the root of their mean square.
    pub fn sizes(&self, images: &[f32]) -> Vec<f32> {
        self.forward(images)[1..].iter().map(|it| size(it)).collect()
    }

    /// Scales each matrix so that the values behind it are of such sizes; one with nothing but zeros behind it stays.
    pub fn level(&mut self, images: &[f32], sizes: &[f32]) {
        for (layer, &wanted) in sizes.iter().enumerate() {
            let found = size(&self.forward(images)[layer + 1]);
            if found > 0.0 {
                self.weights[layer].iter_mut().for_each(|w| *w *= wanted / found);
            }
        }
    }

    /// Gradients of the matrices from that of the last values.
    pub fn backward(&self, values: &[Vec<f32>], mut slope: Vec<f32>) -> Vec<Vec<f32>> {
        let rows = values[0].len() / self.widths[0];
        let mut room = Workspace::default();
        let mut gradients = vec![Vec::new(); self.weights.len()];
        for layer in (0..self.weights.len()).rev() {
            let (input, output) = (self.widths[layer], self.widths[layer + 1]);
            let (dy, x) = (Operand::columns(&slope, output), Operand::rows(&values[layer], input));
            gradients[layer] = product((output, input, rows), dy, x, &mut room);
            if layer > 0 {
                let (dy, w) = (Operand::rows(&slope, output), Operand::rows(&self.weights[layer], input));
                let mut below = product((rows, input, output), dy, w, &mut room);
                below.iter_mut().zip(&values[layer]).filter(|(_, x)| **x <= 0.0).for_each(|(d, _)| *d = 0.0);
                slope = below;
            }
        }
        gradients
    }

    /// Mean loss in nats, and the gradients.
    pub fn gradients(&self, images: &[f32], labels: &[u32]) -> (f64, Vec<Vec<f32>>) {
        let values = self.forward(images);
        let classes = self.widths[self.weights.len()];
        let mut slope = values[self.weights.len()].clone();
        let mut sum = 0.0;
        for (row, &label) in slope.chunks_exact_mut(classes).zip(labels) {
            let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let all: f32 = row.iter().map(|x| (x - greatest).exp()).sum();
            sum += f64::from(all.ln() + greatest - row[label as usize]);
            row.iter_mut().for_each(|x| *x = (*x - greatest).exp() / all / labels.len() as f32);
            row[label as usize] -= 1.0 / labels.len() as f32;
        }
        (sum / labels.len() as f64, self.backward(&values, slope))
    }

    /// The part of images whose label is found.
    pub fn accuracy(&self, images: &[f32], labels: &[u32]) -> f64 {
        let values = self.forward(images);
        let scores = values[self.weights.len()].chunks_exact(self.widths[self.weights.len()]);
        let right = scores.zip(labels).filter(|(row, label)| {
            let best = (0..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best });
            best == **label as usize && row[best].is_finite()
        });
        right.count() as f64 / labels.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn levelled_results_are_of_the_asked_size() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let mut mlp = Mlp::random(&[7, 6, 5, 3], &mut random);
        let images = normal(&mut random, 7 * 9);
        let before = mlp.sizes(&images);
        mlp.weights.iter_mut().for_each(|it| it.iter_mut().step_by(2).for_each(|w| *w = 0.0));
        assert!(
            mlp.sizes(&images).iter().zip(&before).any(|(now, before)| (now / before - 1.0).abs() > 0.05)
        );
        mlp.level(&images, &before);
        assert!(
            mlp.sizes(&images).iter().zip(&before).all(|(now, before)| (now / before - 1.0).abs() < 1e-4)
        );
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let mut random = ChaCha8Rng::seed_from_u64(4);
        let mut mlp = Mlp::random(&[7, 6, 5, 3], &mut random);
        let images = normal(&mut random, 7 * 9);
        let labels: Vec<u32> = (0..9).map(|at| at % 3).collect();
        let (_, gradients) = mlp.gradients(&images, &labels);
        for layer in 0..3 {
            for place in [0, 4, gradients[layer].len() - 1] {
                let mut loss = |by: f32| {
                    mlp.weights[layer][place] += by;
                    let loss = mlp.gradients(&images, &labels).0;
                    mlp.weights[layer][place] -= by;
                    loss
                };
                let expected = (loss(2e-3) - loss(-2e-3)) / 4e-3;
                let found = f64::from(gradients[layer][place]);
                assert!(
                    (found - expected).abs() < 2e-3 * (1.0 + expected.abs()),
                    "{layer} {place}: {found} {expected}"
                );
            }
        }
    }
}
