//! A sparsely activated feed-forward half with its gradients: `out = Σ_e w_e · expert_e(x)` over the chosen experts,
//! `w = softmax(router(x))`, scaled to sum to one where the model says so.
//!
//! Gradients flow through the chosen experts and their weights; which experts are chosen has none. What keeps experts
//! evenly used in training is the loss of the Switch Transformer (arXiv 2101.03961, equation 4) with a weight α: `α E Σ_e
//! f_e P_e`, with `f_e` the share of all choices that fell on an expert and `P_e` the mean of its probability. It is 1 · α
//! at least, where all are used alike.

use ounce_kernels::activation::sigmoid;
use ounce_kernels::matmul::{add_scaled, dot};
use ounce_kernels::softmax::softmax;
use ounce_model::spec::Experts as ExpertsSpec;

use super::build::Builder;
use super::context::Context;
use super::feed_forward::{Mlp, MlpSaved};
use super::linear::Linear;
use crate::Result;

/// A router and experts.
#[derive(Debug)]
pub(crate) struct Experts {
    spec: ExpertsSpec,
    router: Linear,
    experts: Vec<Mlp>,
    shared: Option<Mlp>,
    shared_gate: Option<Linear>,
}

/// One expert's share of a batch.
#[derive(Debug)]
struct Share {
    expert: usize,
    /// Rows that chose it, with their weights.
    rows: Vec<(usize, f32)>,
    inputs: Vec<f32>,
    results: Vec<f32>,
    saved: MlpSaved,
}

/// What a forward pass keeps.
#[derive(Debug)]
pub(crate) struct Saved {
    /// Softmax of the router's scores, `[tokens, experts]`.
    probabilities: Vec<f32>,
    shares: Vec<Share>,
    shared: Option<(MlpSaved, Vec<f32>, Vec<f32>)>,
}

impl Saved {
    pub fn release(self, cx: &mut Context<'_>) {
        cx.buffers.give(self.probabilities);
        for share in self.shares {
            cx.buffers.give(share.inputs);
            cx.buffers.give(share.results);
            share.saved.release(cx);
        }
        if let Some((saved, results, gates)) = self.shared {
            saved.release(cx);
            cx.buffers.give(results);
            cx.buffers.give(gates);
        }
    }
}

impl Experts {
    pub fn build(from: &mut Builder<'_>, name: &str, spec: &ExpertsSpec) -> Result<Experts> {
        let router = from.linear(&format!("{name}.router"), false)?;
        let experts =
            (0..spec.count).map(|expert| Mlp::build(from, &format!("{name}.experts.{expert}"), &spec.expert));
        let experts = experts.collect::<Result<_>>()?;
        let shared = spec.shared.as_ref().map(|shared| Mlp::build(from, &format!("{name}.shared"), shared));
        let shared = shared.transpose()?;
        let gate = spec.shared_gate.then(|| from.linear(&format!("{name}.shared_gate"), false));
        Ok(Experts { spec: spec.clone(), router, experts, shared, shared_gate: gate.transpose()? })
    }

    /// Adds the result for `x` to `out`; results are added in the order of experts.
    pub fn forward(&self, x: &[f32], out: &mut [f32], cx: &mut Context<'_>) -> Saved {
        let hidden = self.router.input;
        let mut probabilities = self.router.apply(x, cx);
        let chosen: Vec<Vec<(usize, f32)>> = probabilities
            .chunks_exact_mut(self.spec.count)
            .map(|scores| {
                softmax(scores);
                self.choose(scores)
            })
            .collect();
        let mut shares = Vec::new();
        for (expert, mlp) in self.experts.iter().enumerate() {
            let weight_of = |chosen: &Vec<(usize, f32)>| {
                chosen.iter().find(|(other, _)| *other == expert).map(|&(_, weight)| weight)
            };
            let rows: Vec<(usize, f32)> = chosen
                .iter()
                .enumerate()
                .filter_map(|(row, chosen)| weight_of(chosen).map(|weight| (row, weight)))
                .collect();
            if rows.is_empty() {
                continue;
            }
            let mut inputs = cx.buffers.take(rows.len() * hidden);
            for (&(row, _), input) in rows.iter().zip(inputs.chunks_exact_mut(hidden)) {
                input.copy_from_slice(&x[row * hidden..(row + 1) * hidden]);
            }
            let mut results = cx.zeros(inputs.len());
            let saved = mlp.forward(&inputs, &mut results, cx);
            for (&(row, weight), result) in rows.iter().zip(results.chunks_exact(hidden)) {
                add_scaled(weight, result, &mut out[row * hidden..(row + 1) * hidden]);
            }
            shares.push(Share { expert, rows, inputs, results, saved });
        }
        let shared = self.shared.as_ref().map(|mlp| {
            let mut results = cx.zeros(x.len());
            let saved = mlp.forward(x, &mut results, cx);
            let mut gates = self.shared_gate.as_ref().map_or(Vec::new(), |gate| gate.apply(x, cx));
            gates.iter_mut().for_each(|gate| *gate = sigmoid(*gate));
            for (row, result) in results.chunks_exact(hidden).enumerate() {
                let weight = gates.get(row).copied().unwrap_or(1.0);
                add_scaled(weight, result, &mut out[row * hidden..(row + 1) * hidden]);
            }
            (saved, results, gates)
        });
        Saved { probabilities, shares, shared }
    }

    /// The experts of one token with their weights: the greatest `used` probabilities, first index first among equals.
    fn choose(&self, probabilities: &[f32]) -> Vec<(usize, f32)> {
        let mut order: Vec<usize> = (0..probabilities.len()).collect();
        order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
        let mut chosen: Vec<(usize, f32)> =
            order[..self.spec.used].iter().map(|&expert| (expert, probabilities[expert])).collect();
        if self.spec.normalise {
            let sum: f32 = chosen.iter().map(|(_, weight)| weight).sum();
            chosen.iter_mut().for_each(|(_, weight)| *weight /= sum);
        }
        chosen
    }

    /// Adds to the weights' gradients and gives that of `x`.
    pub fn backward(&self, x: &[f32], saved: Saved, dout: &[f32], cx: &mut Context<'_>) -> Vec<f32> {
        let hidden = self.router.input;
        let row_of = |values: &'_ [f32], row: usize| -> std::ops::Range<usize> {
            debug_assert!(values.len() >= (row + 1) * hidden);
            row * hidden..(row + 1) * hidden
        };
        let mut dx = cx.zeros(x.len());
        // Gradients of the chosen experts' weights; 0 for the others, which is what decides that they were not chosen.
        let mut dweights = cx.zeros(saved.probabilities.len());
        let mut used = vec![Vec::new(); x.len() / hidden];
        for share in saved.shares {
            let mut dresults = cx.zeros(share.results.len());
            let pairs = share.results.chunks_exact(hidden).zip(dresults.chunks_exact_mut(hidden));
            for (&(row, weight), (result, dresult)) in share.rows.iter().zip(pairs) {
                let dout = &dout[row_of(dout, row)];
                dweights[row * self.spec.count + share.expert] = dot(dout, result);
                used[row].push((share.expert, weight));
                add_scaled(weight, dout, dresult);
            }
            let dinputs = self.experts[share.expert].backward(&share.inputs, share.saved, &dresults, cx);
            for (&(row, _), dinput) in share.rows.iter().zip(dinputs.chunks_exact(hidden)) {
                add_scaled(1.0, dinput, &mut dx[row_of(x, row)]);
            }
            for buffer in [share.inputs, share.results, dresults, dinputs] {
                cx.buffers.give(buffer);
            }
        }
        let uneven = self.unevenness(&used, cx.balance);
        let dscores = self.backward_choice(&saved.probabilities, dweights, &used, &uneven);
        self.router.backward_weights(x, &dscores, cx);
        self.router.backward_input(&dscores, &mut dx, true, cx);
        cx.buffers.give(dscores);
        cx.buffers.give(saved.probabilities);
        if let (Some(mlp), Some((saved, results, gates))) = (&self.shared, saved.shared) {
            let mut dresults = cx.zeros(results.len());
            let mut dgates = cx.zeros(gates.len());
            for (row, dresult) in dresults.chunks_exact_mut(hidden).enumerate() {
                let dout = &dout[row_of(dout, row)];
                add_scaled(gates.get(row).copied().unwrap_or(1.0), dout, dresult);
                if let Some(gate) = gates.get(row) {
                    dgates[row] = dot(dout, &results[row_of(&results, row)]) * gate * (1.0 - gate);
                }
            }
            let dinputs = mlp.backward(x, saved, &dresults, cx);
            cx.add(1.0, &dinputs, &mut dx);
            if let Some(gate) = &self.shared_gate {
                gate.backward_weights(x, &dgates, cx);
                gate.backward_input(&dgates, &mut dx, true, cx);
            }
            for buffer in [results, gates, dresults, dgates, dinputs] {
                cx.buffers.give(buffer);
            }
        }
        dx
    }

    /// The slope of the balancing loss by each expert's probability, which is the same for all tokens; nothing without one.
    fn unevenness(&self, used: &[Vec<(usize, f32)>], weight: f32) -> Vec<f32> {
        if weight == 0.0 {
            return Vec::new();
        }
        let mut shares = vec![0.0; self.spec.count];
        used.iter().flatten().for_each(|&(expert, _)| shares[expert] += 1.0);
        let (tokens, count) = (used.len() as f32, self.spec.count as f32);
        let choices = tokens * self.spec.used as f32;
        shares.iter().map(|share| weight * count * share / choices / tokens).collect()
    }

    /// From the gradients of the chosen weights to those of the router's scores, `[tokens, experts]` each.
    fn backward_choice(
        &self,
        probabilities: &[f32],
        mut gradients: Vec<f32>,
        used: &[Vec<(usize, f32)>],
        uneven: &[f32],
    ) -> Vec<f32> {
        let count = self.spec.count;
        let rows = gradients.chunks_exact_mut(count).zip(probabilities.chunks_exact(count));
        for ((gradient, probabilities), used) in rows.zip(used) {
            if self.spec.normalise {
                // w_e = p_e / s: dp_e = (dw_e − Σ w·dw) / s over the chosen ones.
                let sum: f32 = used.iter().map(|&(expert, _)| probabilities[expert]).sum();
                let mean: f32 = used.iter().map(|&(expert, weight)| weight * gradient[expert]).sum();
                used.iter().for_each(|&(expert, _)| gradient[expert] = (gradient[expert] - mean) / sum);
            }
            gradient.iter_mut().zip(uneven).for_each(|(g, slope)| *g += slope);
            let mean: f32 = gradient.iter().zip(probabilities).map(|(g, p)| g * p).sum();
            gradient.iter_mut().zip(probabilities).for_each(|(g, p)| *g = p * (*g - mean));
        }
        gradients
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ounce_kernels::gemm::Compute;
    use ounce_kernels::pool::Pool;
    use ounce_model::Model;
    use ounce_model::spec::FeedForwardKind;

    use super::super::buffers::Buffers;
    use super::super::init::normal;
    use super::*;

    /// `α E Σ f P` written out, with the shares `f` given; rows of `x` and of the router have the model's width.
    fn balancing_loss(router: &[f32], x: &[f32], shares: &[f64], width: usize) -> f64 {
        let tokens = x.len() / width;
        let mut sum = 0.0;
        for x in x.chunks_exact(width) {
            let dot =
                |row: &[f32]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
            let powers: Vec<f64> = router.chunks_exact(width).map(|row| dot(row).exp()).collect();
            let total: f64 = powers.iter().sum();
            sum += powers.iter().zip(shares).map(|(power, share)| share * power / total).sum::<f64>();
        }
        shares.len() as f64 * sum / tokens as f64
    }

    #[test]
    fn the_balancing_loss_has_the_gradient_of_finite_differences() {
        const WEIGHT: f32 = 0.5;
        for name in ["mixtral", "qwen2_moe"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models").join(name);
            let model = Model::open(path).expect("golden");
            let kind = model.spec.layers[0].feed_forward.as_ref().map(|it| &it.kind);
            let Some(FeedForwardKind::Experts(spec)) = kind else { panic!("{name} has experts") };
            let mut from = Builder::new(&model.weights, &|_| true);
            let experts = Experts::build(&mut from, "layers.0.feed_forward", spec).expect("golden");
            let (width, tokens) = (model.spec.hidden_size, 23);
            let x = normal(1.0, tokens * width, 1, "x");
            let mut cx = Context {
                packed: &[],
                params: &mut from.params,
                buffers: &mut Buffers::default(),
                pool: Pool::global(),
                compute: Compute::F32,
                lengths: &[tokens],
                rotations: &[],
                balance: WEIGHT,
            };
            let saved = experts.forward(&x, &mut vec![0.0; x.len()], &mut cx);
            let mut shares = vec![0.0; spec.count];
            for share in &saved.shares {
                shares[share.expert] = share.rows.len() as f64 / (tokens * spec.used) as f64;
            }
            // Nothing comes from behind, so all there is comes from balancing.
            experts.backward(&x, saved, &vec![0.0; x.len()], &mut cx);
            let router = cx.params.iter().find(|it| it.name.ends_with("router.weight")).expect("a router");
            let mut weights = router.value.clone();
            for index in (0..weights.len()).step_by(weights.len() / 40 + 1) {
                let mut moved = |by: f32| {
                    let before = std::mem::replace(&mut weights[index], router.value[index] + by);
                    let loss = balancing_loss(&weights, &x, &shares, width);
                    weights[index] = before;
                    loss
                };
                let slope = f64::from(WEIGHT) * (moved(1e-2) - moved(-1e-2)) / 2e-2;
                let ours = f64::from(router.grad[index]);
                assert!(
                    (ours - slope).abs() < 1e-4 + 1e-2 * slope.abs(),
                    "{name} {index}: {ours} for {slope}"
                );
            }
            assert!(router.grad.iter().any(|it| it.abs() > 1e-3), "{name}");
        }
    }
}
