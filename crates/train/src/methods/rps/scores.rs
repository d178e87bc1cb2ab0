//! Which weights of a network are left before it is trained: baselines of the demonstration.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::mlp::Mlp;

/// How weights are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    /// By nothing.
    Random,
    /// By their magnitude.
    Magnitude,
    /// By `|w g|` on a batch ("SNIP", arXiv 1810.02340, equation 3).
    Snip,
    /// By `|w ∂R/∂w|` with `R` the sum of results of `|W|` for an input of ones, in a hundred rounds ("Pruning neural networks without any data
    /// by iteratively conserving synaptic flow", arXiv 2006.05467, algorithm 1).
    SynFlow,
    /// By `w · (H g)` on a batch, greatest first: what is left keeps most of the gradient's flow ("Picking winning tickets before training by
    /// preserving gradient flow", GraSP, arXiv 2002.07376, equation 8 with the sign turned). Logits are divided by 200 there.
    Grasp,
}

/// Rounds of SynFlow.
const ROUNDS: usize = 100;

/// What logits are divided by for GraSP.
const TEMPERATURE: f32 = 200.0;

/// The gradients of the loss with logits divided by [`TEMPERATURE`], which a last matrix as much smaller does.
fn warm(mlp: &Mlp, images: &[f32], labels: &[u32]) -> Vec<Vec<f32>> {
    let mut own = mlp.clone();
    own.weights.iter_mut().last().into_iter().flatten().for_each(|w| *w /= TEMPERATURE);
    let mut gradients = own.gradients(images, labels).1;
    gradients.iter_mut().last().into_iter().flatten().for_each(|g| *g /= TEMPERATURE);
    gradients
}

/// `w · (H g)` for all weights; the product with the Hessian by central differences along `g`.
fn kept_flow(mlp: &Mlp, images: &[f32], labels: &[u32]) -> Vec<Vec<f32>> {
    let size = |values: &[Vec<f32>]| values.iter().flatten().map(|x| x * x).sum::<f32>().sqrt();
    let gradients = warm(mlp, images, labels);
    let step = 1e-2 * size(&mlp.weights) / size(&gradients).max(f32::MIN_POSITIVE);
    let at = |step: f32| {
        let mut own = mlp.clone();
        let weights = own.weights.iter_mut().flatten().zip(gradients.iter().flatten());
        weights.for_each(|(w, g)| *w += step * g);
        warm(&own, images, labels)
    };
    let mut scores = at(step);
    let behind = at(-step);
    let weights = behind.iter().flatten().zip(mlp.weights.iter().flatten());
    scores.iter_mut().flatten().zip(weights).for_each(|(s, (b, w))| *s = w * (*s - b) / (2.0 * step));
    scores
}

/// `|w ∂R/∂w|` for all weights.
fn flow(mlp: &Mlp) -> Vec<Vec<f32>> {
    let mut own = mlp.clone();
    own.weights.iter_mut().flatten().for_each(|x| *x = x.abs());
    let values = own.forward(&vec![1.0; own.widths[0]]);
    // Sums over many layers grow beyond what f32 holds or fall to nothing; only the order counts.
    let slope = vec![1.0; own.widths[own.weights.len()]];
    let mut scores = own.backward(&values, slope);
    scores.iter_mut().flatten().zip(own.weights.iter().flatten()).for_each(|(score, w)| *score *= w);
    scores
}

/// The `keep` greatest of all scores, one mask a matrix.
pub(super) fn greatest(scores: &[Vec<f32>], keep: usize) -> Vec<Vec<bool>> {
    let flat: Vec<f32> = scores.concat();
    let mut order: Vec<usize> = (0..flat.len()).collect();
    order.sort_by(|&a, &b| flat[b].total_cmp(&flat[a]).then(a.cmp(&b)));
    let mut mask = vec![false; flat.len()];
    order.iter().take(keep).for_each(|&at| mask[at] = true);
    let mut rest = mask.as_slice();
    let part = |scores: &Vec<f32>| {
        let (own, behind) = rest.split_at(scores.len());
        rest = behind;
        own.to_vec()
    };
    scores.iter().map(part).collect()
}

/// The weights that stay, `keep` of them. `batch` are images with labels.
pub(super) fn masks(
    rank: Rank,
    mlp: &Mlp,
    keep: usize,
    (images, labels): (&[f32], &[u32]),
    random: &mut ChaCha8Rng,
) -> Vec<Vec<bool>> {
    let times = |gradients: Vec<Vec<f32>>| -> Vec<Vec<f32>> {
        let pairs = gradients.iter().zip(&mlp.weights);
        pairs.map(|(g, w)| g.iter().zip(w).map(|(g, w)| (g * w).abs()).collect()).collect()
    };
    match rank {
        Rank::Random => {
            let scores: Vec<Vec<f32>> =
                mlp.weights.iter().map(|it| it.iter().map(|_| random.random::<f32>()).collect()).collect();
            greatest(&scores, keep)
        }
        Rank::Magnitude => {
            let scores: Vec<Vec<f32>> =
                mlp.weights.iter().map(|it| it.iter().map(|x| x.abs()).collect()).collect();
            greatest(&scores, keep)
        }
        Rank::Grasp => greatest(&kept_flow(mlp, images, labels), keep),
        Rank::Snip => greatest(&times(mlp.gradients(images, labels).1), keep),
        Rank::SynFlow => {
            let mut left = mlp.clone();
            let mut mask = Vec::new();
            let share = keep as f64 / mlp.parameters() as f64;
            for round in 1..=ROUNDS {
                let now = match round {
                    ROUNDS => keep,
                    round => (mlp.parameters() as f64 * share.powf(round as f64 / ROUNDS as f64)) as usize,
                };
                let mut scores = flow(&left);
                // What is out stays out, behind weights through which nothing flows.
                let weights = left.weights.iter().flatten();
                scores
                    .iter_mut()
                    .flatten()
                    .zip(weights)
                    .filter(|(_, w)| **w == 0.0)
                    .for_each(|(s, _)| *s = -1.0);
                mask = greatest(&scores, now);
                left.weights
                    .iter_mut()
                    .flatten()
                    .zip(mask.iter().flatten())
                    .filter(|(_, m)| !**m)
                    .for_each(|(w, _)| *w = 0.0);
            }
            mask
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::diffusion::normal;

    #[test]
    fn flow_is_that_of_all_paths_and_masks_keep_as_many_as_asked() {
        let mut random = ChaCha8Rng::seed_from_u64(8);
        let mlp = Mlp::random(&[3, 4, 2], &mut random);
        // The score of a weight is the sum over paths through it of the products of magnitudes.
        let found = flow(&mlp);
        for hidden in 0..4 {
            let out: f32 = (0..2).map(|o| mlp.weights[1][o * 4 + hidden].abs()).sum();
            for input in 0..3 {
                let expected = mlp.weights[0][hidden * 3 + input].abs() * out;
                assert!((found[0][hidden * 3 + input] - expected).abs() < 1e-5);
            }
        }
        let images = normal(&mut random, 3 * 5);
        let labels = [0, 1, 0, 1, 1];
        // Half the derivative of the gradient's square along a weight that fades is minus what GraSP keeps by.
        let kept = kept_flow(&mlp, &images, &labels);
        for (layer, at) in [(0, 2), (0, 7), (1, 5)] {
            let square = |by: f32| -> f64 {
                let mut own = mlp.clone();
                own.weights[layer][at] *= 1.0 + by;
                warm(&own, &images, &labels).iter().flatten().map(|g| f64::from(*g).powi(2)).sum()
            };
            let expected = (square(2e-2) - square(-2e-2)) / 4e-2 / 2.0;
            let found = f64::from(kept[layer][at]);
            let scale = square(0.0);
            assert!((found - expected).abs() < 2e-2 * scale, "{layer} {at}: {found} {expected} {scale}");
        }
        for rank in [Rank::Random, Rank::Magnitude, Rank::Snip, Rank::SynFlow, Rank::Grasp] {
            for keep in [1, 7, 20] {
                let mask = masks(rank, &mlp, keep, (&images, &labels), &mut random);
                assert_eq!(mask.iter().flatten().filter(|kept| **kept).count(), keep, "{rank:?}");
            }
        }
        let greatest = masks(Rank::Magnitude, &mlp, 1, (&images, &labels), &mut random).concat();
        let all = mlp.weights.concat();
        let most = all.iter().map(|x| x.abs()).fold(0.0, f32::max);
        assert!(all.iter().zip(&greatest).all(|(x, kept)| *kept == (x.abs() == most)));
        // A path is left as long as there are weights for one.
        let mask = masks(Rank::SynFlow, &mlp, 2, (&images, &labels), &mut random);
        let hidden = mask[0].iter().position(|kept| *kept).expect("one in the first matrix") / 3;
        assert!(mask[1][hidden] || mask[1][4 + hidden]);
    }
}
