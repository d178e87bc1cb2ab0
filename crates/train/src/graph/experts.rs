//! A router and experts: `out = Σ_e w_e · expert_e(x)` over the chosen experts, `w = softmax(router(x))`, scaled to sum
//! to one where the model says so. Gradients flow through the chosen experts and their weights.

use std::sync::Arc;

use candle_core::Tensor;
use ounce_model::spec::Experts as ExpertsSpec;

use super::build::{Builder, Place};
use super::feed_forward::Mlp;
use super::ops::{self, Kernels};
use crate::Result;

/// A router and experts.
pub(super) struct Experts {
    on: Kernels,
    spec: ExpertsSpec,
    router: Place,
    experts: Vec<Mlp>,
    shared: Option<Mlp>,
    shared_gate: Option<Place>,
}

/// Rows of a batch, sorted by the expert they chose, first expert first.
struct Routes {
    /// Rows of each expert, as ends in the lists.
    ends: Vec<usize>,
    rows: Vec<u32>,
    /// Where the weight of a row's expert lies among all weights, `row · count + expert`.
    weights: Vec<u32>,
}

impl Experts {
    pub fn build(from: &mut Builder<'_>, name: &str, spec: &ExpertsSpec) -> Result<Experts> {
        let router = from.slot(&format!("{name}.router"), false)?;
        let experts =
            (0..spec.count).map(|expert| Mlp::build(from, &format!("{name}.experts.{expert}"), &spec.expert));
        let experts = experts.collect::<Result<_>>()?;
        let shared = spec.shared.as_ref().map(|shared| Mlp::build(from, &format!("{name}.shared"), shared));
        let shared = shared.transpose()?;
        let gate = spec.shared_gate.then(|| from.slot(&format!("{name}.shared_gate"), false));
        let on = from.on;
        Ok(Experts { on, spec: spec.clone(), router, experts, shared, shared_gate: gate.transpose()? })
    }

    pub fn places(&self) -> impl Iterator<Item = &Place> {
        let experts = self.experts.iter().chain(&self.shared).flat_map(Mlp::places);
        [&self.router].into_iter().chain(experts).chain(&self.shared_gate)
    }

    /// The result for rows `x`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let tokens = x.dims2()?.0;
        let mut weights = ops::softmax(self.on, &self.router.slot.forward(x)?)?;
        let (routes, chosen) = self.route(&weights)?;
        if self.spec.normalise {
            let of_chosen = (&weights * chosen)?;
            weights = of_chosen.broadcast_div(&of_chosen.sum_keepdim(1)?)?;
        }
        let mut results = Vec::new();
        let mut start = 0;
        for (expert, &end) in self.experts.iter().zip(&routes.ends) {
            if end > start {
                let rows: Arc<[u32]> = routes.rows[start..end].into();
                results.push(expert.forward(&ops::gather(self.on, x, &rows, 1.0, 1.0)?)?);
            }
            start = end;
        }
        let weights = weights.reshape(((), 1))?;
        let weights = ops::gather(self.on, &weights, &routes.weights.into(), 1.0, 1.0)?;
        let results = Tensor::cat(&results, 0)?.broadcast_mul(&weights)?;
        let mut out = ops::scatter(self.on, &results, &routes.rows.into(), tokens)?;
        if let Some(shared) = &self.shared {
            let mut result = shared.forward(x)?;
            if let Some(gate) = &self.shared_gate {
                let gates = (gate.slot.forward(x)?.neg()?.exp()? + 1.0)?.recip()?;
                result = result.broadcast_mul(&gates)?;
            }
            out = (out + result)?;
        }
        Ok(out)
    }

    /// Which rows go to which expert: the greatest `used` probabilities of each, first index first among equals. Also
    /// as 1 and 0, `[rows, count]`.
    fn route(&self, probabilities: &Tensor) -> Result<(Routes, Tensor)> {
        let count = self.spec.count;
        let mut of_experts = vec![Vec::new(); count];
        let chosen = ops::read([probabilities], |[probabilities]| {
            let mut chosen = vec![0.0f32; probabilities.len()];
            for (row, own) in probabilities.chunks_exact(count).enumerate() {
                let mut order: Vec<usize> = (0..count).collect();
                order.sort_by(|&a, &b| own[b].total_cmp(&own[a]));
                for &expert in &order[..self.spec.used] {
                    of_experts[expert].push(row as u32);
                    chosen[row * count + expert] = 1.0;
                }
            }
            chosen
        })?;
        let mut routes = Routes { ends: Vec::new(), rows: Vec::new(), weights: Vec::new() };
        for (expert, rows) in of_experts.iter().enumerate() {
            routes.weights.extend(rows.iter().map(|row| row * count as u32 + expert as u32));
            routes.rows.extend(rows);
            routes.ends.push(routes.rows.len());
        }
        Ok((routes, ops::tensor(chosen, probabilities.shape())?))
    }
}
