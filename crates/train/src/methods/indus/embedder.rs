//! Sentence vectors: the mean of an encoder's last stream, brought to length one; trained on pairs, or on a larger embedder's
//! similarities.
//!
//! - **Pairs** of query and passage, all of a batch beside each other: `L = −1/2N Σ_i ln softmax_j≠i(v_i · v_j / τ)[partner of i]`,
//!   which has query to passage, passage to query, and both to their own kind among the wrong answers.
//! - **Similarities**: `L = 1/2N Σ_i KL(softmax(S^T_i / τ) ‖ softmax(S^S_i / τ))` over the same candidates,
//!   but for the teacher's own entropy.

use candle_core::{D, Device, Tensor};
use ounce_model::Model;

use crate::graph::{GraphNet, NoHook, Pass};
use crate::{Batch, Loss, Result};

/// Vectors of length one, `[sequences, width]`, of a stream `[tokens, width]`.
fn pooled(stream: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    let tokens: usize = lengths.iter().sum();
    let mut means = vec![0.0f32; lengths.len() * tokens];
    let mut start = 0;
    for (row, &length) in means.chunks_exact_mut(tokens.max(1)).zip(lengths) {
        row[start..start + length].fill(1.0 / length as f32);
        start += length;
    }
    let means = Tensor::from_vec(means, (lengths.len(), tokens), &Device::Cpu)?.matmul(stream)?;
    let size = (means.sqr()?.sum_keepdim(D::Minus1)? + 1e-12)?.sqrt()?;
    Ok(means.broadcast_div(&size)?)
}

/// Logarithms of softmaxes of `v vᵀ / τ`, nobody its own candidate, `[sequences, sequences]`.
fn log_similarities(vectors: &Tensor, temperature: f64) -> Result<Tensor> {
    let count = vectors.dims()[0];
    let own: Vec<f32> =
        (0..count * count).map(|at| if at / count == at % count { -1e4f32 } else { 0.0 }).collect();
    let own = Tensor::from_vec(own, (count, count), &Device::Cpu)?;
    let scores = ((vectors.matmul(&vectors.t()?)? / temperature)? + own)?;
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?;
    let sums = scores.exp()?.sum_keepdim(D::Minus1)?.log()?;
    Ok(scores.broadcast_sub(&sums)?)
}

/// `−Σ w ln p` over rows, as their mean.
fn cross_entropy(weights: &Tensor, logarithms: &Tensor) -> Result<Tensor> {
    let rows = weights.dims()[0] as f64;
    Ok(((weights * logarithms)?.sum_all()? * (-1.0 / rows))?)
}

fn reported(value: Tensor) -> Result<(Tensor, Loss)> {
    let sum = f64::from(value.to_scalar::<f32>()?);
    Ok((value, Loss { sum, count: 1 }))
}

/// An encoder that learns that the first half of a batch's sequences belongs to the second, one to one.
pub(super) fn of_pairs(model: &Model, temperature: f64) -> Result<GraphNet> {
    let mut net = plain(model)?;
    net.set_objective(move |pass| {
        let logarithms = log_similarities(&vectors_of(pass)?, temperature)?;
        let count = pass.batch().lengths.len();
        let partner = |at: usize| (at / count + count / 2) % count == at % count;
        let weights = (0..count * count).map(|at| f32::from(u8::from(partner(at)))).collect();
        reported(cross_entropy(&Tensor::from_vec(weights, (count, count), &Device::Cpu)?, &logarithms)?)
    });
    Ok(net)
}

/// An encoder that learns another's similarities between a batch's sequences.
pub(super) fn of_similarities(model: &Model, mut teacher: Embedder, temperature: f64) -> Result<GraphNet> {
    let mut net = plain(model)?;
    net.set_objective(move |pass| {
        let count = pass.batch().lengths.len();
        let taught = teacher.vectors(pass.batch())?;
        let width = taught.len() / count.max(1);
        let taught = Tensor::from_vec(taught, (count, width), &Device::Cpu)?;
        let weights = log_similarities(&taught, temperature)?.exp()?;
        reported(cross_entropy(&weights, &log_similarities(&vectors_of(pass)?, temperature)?)?)
    });
    Ok(net)
}

fn plain(model: &Model) -> Result<GraphNet> {
    GraphNet::from_model(model, Default::default(), &mut |_, linear| Ok(Box::new(linear)))
}

fn vectors_of(pass: &Pass<'_>) -> Result<Tensor> {
    pooled(&pass.hidden(&mut NoHook)?, &pass.batch().lengths)
}

/// An encoder whose vectors are asked for.
pub(super) struct Embedder(GraphNet);

impl Embedder {
    pub fn new(model: &Model) -> Result<Embedder> {
        Ok(Embedder(plain(model)?))
    }

    /// Vectors of a batch's sequences, one behind the other.
    pub fn vectors(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        let mut found = Vec::new();
        self.0.run(batch, None, &mut |pass: &Pass<'_>| {
            let vectors = vectors_of(pass)?;
            found = vectors.flatten_all()?.to_vec1::<f32>()?;
            Ok((vectors.sum_all()?, Loss::default()))
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Trainable;
    use crate::distil::tests::gradients_are_differences;

    fn encoder(hidden: usize, seed: u64) -> Model {
        crate::distil::tests::encoder(hidden, 1, 2, 0.4, seed).model().expect("a model")
    }

    fn four() -> Batch {
        Batch::untold(&[vec![1, 5, 2], vec![7, 3], vec![1, 9, 5, 2], vec![12, 3]])
    }

    #[test]
    fn vectors_are_means_of_length_one() {
        let stream =
            Tensor::from_vec(vec![3.0f32, 0.0, 3.0, 8.0, 0.0, -2.0], (3, 2), &Device::Cpu).expect("made");
        let found = pooled(&stream, &[2, 1]).expect("pooled").to_vec2::<f32>().expect("values");
        for (found, expected) in found.concat().iter().zip([0.6, 0.8, 0.0, -1.0]) {
            assert!((found - expected).abs() < 1e-6);
        }
    }

    /// The loss of pairs by its formula.
    #[test]
    fn pairs_are_told_from_all_others() {
        let mut net = of_pairs(&encoder(8, 3), 0.2).expect("an embedder");
        let vectors = Embedder::new(&encoder(8, 3)).expect("an embedder").vectors(&four()).expect("vectors");
        let dot = |i: usize, j: usize| {
            (0..8).map(|k| f64::from(vectors[i * 8 + k] * vectors[j * 8 + k])).sum::<f64>()
        };
        let mut expected = 0.0;
        for i in 0..4 {
            let sum: f64 = (0..4).filter(|&j| j != i).map(|j| (dot(i, j) / 0.2).exp()).sum();
            expected -= (dot(i, (i + 2) % 4) / 0.2 - sum.ln()) / 4.0;
        }
        let found = net.loss(&four()).expect("a loss").sum;
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }

    #[test]
    fn gradients_are_those_of_the_losses() {
        let teacher = Embedder::new(&encoder(12, 5)).expect("an embedder");
        let nets = [of_pairs(&encoder(8, 3), 0.2), of_similarities(&encoder(8, 3), teacher, 0.2)];
        for net in nets {
            let mut net = net.expect("an embedder");
            gradients_are_differences(&mut net, &four(), 5e-3);
        }
    }
}
