//! Random weights to begin with.

use ounce_model::spec::{Norm, Spec};
use ounce_model::spec_tensors::{EXPAND, REDUCE, is_factor};
use ounce_model::weights::MemorySource;
use ounce_model::{Tensor, Weights};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::build::kind_of;
use crate::ParamKind;

/// How weights are drawn: normally distributed, each tensor from its own stream, so that the order does not matter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Init {
    /// Standard deviation of matrices.
    pub matrix: f32,
    /// Standard deviation of embeddings and of an untied head.
    pub embedding: f32,
    /// Whether what writes to the residual stream is scaled by `1/√(2 · layers)`, as in GPT-2.
    pub scaled_output: bool,
}

impl Default for Init {
    fn default() -> Init {
        Init { matrix: 0.02, embedding: 0.02, scaled_output: true }
    }
}

impl Init {
    /// Weights of a whole model. Norms begin as the identity, biases at 0.
    pub fn weights(&self, spec: &Spec, seed: u64) -> Weights {
        let mut source = MemorySource::new("<new weights>");
        let offset = any_norm(spec).is_some_and(|norm| norm.plus_one);
        let output_scale =
            if self.scaled_output { (2.0 * spec.layers.len().max(1) as f32).sqrt().recip() } else { 1.0 };
        for info in spec.tensors() {
            let count = info.shape.iter().product();
            let writes =
                info.name.ends_with("attention.output.weight") || info.name.ends_with(".down.weight");
            let values = match kind_of(&info.name, &info.shape) {
                ParamKind::Bias | ParamKind::Steps => vec![0.0; count],
                ParamKind::Norm => vec![if offset { 0.0 } else { 1.0 }; count],
                ParamKind::Embedding | ParamKind::Head => normal(self.embedding, count, seed, &info.name),
                ParamKind::Matrix if is_factor(&info.name) => {
                    // The product is to vary as the whole matrix would: `s² √rank = deviation`.
                    let rank = if info.name.ends_with(EXPAND) { info.shape[1] } else { info.shape[0] };
                    let linear = info.name.trim_end_matches(EXPAND).trim_end_matches(REDUCE);
                    let writes = linear.ends_with("attention.output") || linear.ends_with(".down");
                    let deviation = if writes { self.matrix * output_scale } else { self.matrix };
                    normal((deviation / (rank as f32).sqrt()).sqrt(), count, seed, &info.name)
                }
                ParamKind::Matrix => {
                    let deviation = if writes { self.matrix * output_scale } else { self.matrix };
                    normal(deviation, count, seed, &info.name)
                }
            };
            source.insert(info.name, Tensor::from_f32(&info.shape, &values));
        }
        Weights::in_memory(source)
    }
}

/// One of a model's norms; whether weights are stored as differences to one is the same for all.
fn any_norm(spec: &Spec) -> Option<Norm> {
    let layers = spec.layers.iter().filter_map(|layer| layer.attention.as_ref()?.norms.before);
    spec.final_norm.or_else(|| layers.into_iter().next())
}

/// Normally distributed values of a tensor (Box–Muller), from a stream that hangs on the seed and the name.
pub fn normal(deviation: f32, count: usize, seed: u64, name: &str) -> Vec<f32> {
    // FNV-1a; only has to differ from name to name.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ hash);
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
        let angle = std::f64::consts::TAU * random.random::<f64>();
        values.push((radius * angle.cos()) as f32 * deviation);
        values.push((radius * angle.sin()) as f32 * deviation);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_normal_and_hang_on_seed_and_name() {
        let values = normal(0.5, 20_000, 7, "a");
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / 20_000.0;
        let variance = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.02 && (variance.sqrt() - 0.5).abs() < 0.01, "{mean} {variance}");
        assert_eq!(values, normal(0.5, 20_000, 7, "a"));
        assert_ne!(values[0], normal(0.5, 1, 7, "b")[0]);
        assert_ne!(values[0], normal(0.5, 1, 8, "a")[0]);
    }
}
