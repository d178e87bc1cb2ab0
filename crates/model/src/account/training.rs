//! What a training step will need, from the architecture alone.

use super::pass::{Pass, Work, pieces};
use super::{Formats, Operator, cache, sizes};
use crate::spec::{Attention, FeedForward, FeedForwardKind, Mlp, Residual, Spec};

/// Values that a norm in front of a half keeps for a token: what it gave is made again where halves follow each other.
fn before(norm: bool, residual: Residual, hidden: usize) -> usize {
    match (norm, residual) {
        (false, _) => 0,
        (true, Residual::Sequential) => 2,
        (true, _) => hidden + 2,
    }
}

/// Values that the attention half keeps for a token, besides the stream.
fn attention_values(attention: &Attention, residual: Residual, hidden: usize) -> usize {
    let (query, kv) = (attention.query_width(), attention.kv_width());
    let norm = before(attention.norms.before.is_some(), residual, hidden);
    let after = if attention.norms.after.is_some() { hidden } else { 0 };
    let raw = if attention.qk_norm.is_some() { query + kv } else { 0 };
    norm + after + 2 * query + 2 * kv + raw + attention.heads
}

fn mlp_values(mlp: &Mlp) -> usize {
    if mlp.gated { 2 * mlp.width } else { mlp.width }
}

fn feed_forward_values(feed_forward: &FeedForward, residual: Residual, hidden: usize) -> usize {
    let norm = before(feed_forward.norms.before.is_some(), residual, hidden);
    let after = if feed_forward.norms.after.is_some() { hidden } else { 0 };
    let inner = match &feed_forward.kind {
        FeedForwardKind::Dense(mlp) => mlp_values(mlp),
        FeedForwardKind::Experts(experts) => {
            let shared = experts.shared.as_ref().map_or(0, |mlp| mlp_values(mlp) + hidden);
            experts.count + experts.used * (2 * hidden + mlp_values(&experts.expert)) + shared
        }
    };
    norm + after + inner
}

/// Values that each layer keeps for a token.
fn layer_values(spec: &Spec) -> impl Iterator<Item = usize> + '_ {
    let hidden = spec.hidden_size;
    spec.layers.iter().map(move |layer| {
        let residual = layer.residual;
        let attention =
            layer.attention.as_ref().map_or(0, |it| hidden + attention_values(it, residual, hidden));
        let feed_forward = layer.feed_forward.as_ref();
        attention + feed_forward.map_or(0, |it| hidden + feed_forward_values(it, residual, hidden))
    })
}

/// Rows whose logits exist at once in training: 16 MiB of them, or up to 256 rows in 64 MiB, for each chunk of rows reads and packs the
/// whole head.
pub fn logit_rows(vocabulary: usize) -> usize {
    let within = |values: usize| values / vocabulary.max(1);
    within(1 << 22).max(within(1 << 24).min(256)).max(1)
}

/// Bytes of buffers for a step of so many tokens besides weights and gradients: what the layers keep, the widest layer's
/// working buffers and a chunk of logits.
pub fn workspace_bytes(spec: &Spec, tokens: usize, checkpointing: bool) -> usize {
    let largest = layer_values(spec).max().unwrap_or(0);
    let kept = match checkpointing {
        true => spec.layers.len() * spec.hidden_size + largest,
        false => layer_values(spec).sum(),
    };
    let logits = logit_rows(spec.vocab_size).min(tokens.max(1)) * spec.vocab_size;
    // Working buffers: gradients of the widest layer's inner values and of the stream, and a normed input.
    let working = largest / 2 + 4 * spec.hidden_size;
    4 * (tokens * (kept + working) + logits)
}

/// Floating-point operations of one step of so many tokens in sequences of `length`: three products for every weight of a
/// linear layer (forward, input gradient, weight gradient), two for a frozen one, and attention. What is computed again for
/// checkpointing is the layers, not the head.
pub fn step_operations(spec: &Spec, tokens: usize, length: usize, checkpointing: bool) -> f64 {
    let sequences = (tokens / length.max(1)).max(1);
    let pass = Pass { sequences, start: 0, tokens: length, logits: tokens };
    let forward = pieces(spec, pass).into_iter().map(|piece| {
        let operations = match piece.work {
            Work::Product { matrices, vectors, share } => {
                let values: usize = matrices.iter().map(|it| it.rows * it.columns).sum();
                2.0 * share * vectors * values as f64
            }
            Work::Attention(it) => {
                let seen = sequences as u64 * cache::seen(it, spec.causal, 0, length);
                4.0 * it.query_width() as f64 * seen as f64
            }
            Work::Elements { .. } => 0.0,
        };
        let in_layers = !matches!(piece.operator, Operator::Head | Operator::Embedding);
        operations * if checkpointing && in_layers { 4.0 } else { 3.0 }
    });
    forward.sum()
}

/// What an optimizer keeps of earlier gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptimizerState {
    /// Nothing: plain gradient descent.
    Nothing,
    /// One f32 a value: momentum, Lion.
    Momentum,
    /// Two f32 a value: AdamW.
    AdamW,
    /// Two bytes a value and two f32 for each 256: AdamW in 8 bits.
    AdamW8bit,
    /// One f32 a value of the layers' matrices, two of all others: Muon.
    Muon,
}

impl OptimizerState {
    /// Bytes that it keeps of a weight.
    pub fn bytes(self, name: &str, shape: &[usize]) -> u64 {
        let values: u64 = shape.iter().map(|&n| n as u64).product();
        match self {
            OptimizerState::Nothing => 0,
            OptimizerState::Momentum => 4 * values,
            OptimizerState::AdamW => 8 * values,
            OptimizerState::AdamW8bit => 2 * values + 8 * values.div_ceil(256),
            OptimizerState::Muon => {
                if is_layer_matrix(name, shape) {
                    4 * values
                } else {
                    8 * values
                }
            }
        }
    }
}

/// Which weights are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trained {
    /// All, in f32.
    All,
    /// Two matrices of this rank beside each matrix of the layers; the model's own weights stay as they are stored.
    Adapters {
        /// The inner width of an adapter.
        rank: usize,
    },
}

/// A training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// What is trained.
    pub trained: Trained,
    /// What the optimizer keeps.
    pub state: OptimizerState,
    /// Tokens of a step that are run at once.
    pub tokens: usize,
    /// Whether only the layers' inputs are kept, and the rest computed again.
    pub checkpointing: bool,
}

/// Bytes of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Weights, trained ones in f32, frozen ones as stored.
    pub weights: u64,
    /// Gradients of trained weights, f32.
    pub gradients: u64,
    /// The optimizer's memory.
    pub optimizer: u64,
    /// Activations that are kept, working buffers, logits.
    pub buffers: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.gradients + self.optimizer + self.buffers
    }
}

fn is_layer_matrix(name: &str, shape: &[usize]) -> bool {
    shape.len() == 2 && name.starts_with("layers.")
}

/// Parameters of adapters of a rank: `rank · (in + out)` for each matrix of the layers.
pub fn adapter_parameters(spec: &Spec, rank: usize) -> u64 {
    let tensors = spec.tensors().into_iter().filter(|it| is_layer_matrix(&it.name, &it.shape));
    tensors.map(|it| (rank * it.shape.iter().sum::<usize>()) as u64).sum()
}

/// Bytes that a training step takes.
pub fn memory(spec: &Spec, formats: &Formats, job: &Job) -> Memory {
    let buffers = workspace_bytes(spec, job.tokens, job.checkpointing) as u64;
    match job.trained {
        Trained::All => {
            let values = 4 * spec.parameters();
            let kept = spec.tensors().iter().map(|it| job.state.bytes(&it.name, &it.shape)).sum();
            Memory { weights: values, gradients: values, optimizer: kept, buffers }
        }
        Trained::Adapters { rank } => {
            let tensors = spec.tensors().into_iter().filter(|it| is_layer_matrix(&it.name, &it.shape));
            let kept = tensors
                .flat_map(|it| it.shape.iter().map(|&side| (it.name.clone(), side)).collect::<Vec<_>>());
            let optimizer = kept.map(|(name, side)| job.state.bytes(&name, &[rank, side])).sum();
            let own = 4 * adapter_parameters(spec, rank);
            let weights = sizes::weight_bytes(spec, formats) + own;
            // What adapters keep between their two matrices.
            let inner = spec.tensors().iter().filter(|it| is_layer_matrix(&it.name, &it.shape)).count();
            let kept = 4 * (job.tokens * rank * inner) as u64;
            Memory { weights, gradients: own, optimizer, buffers: buffers + kept }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optimizers_keep_the_bytes_of_their_moments() {
        let (name, shape) = ("layers.0.attention.query.weight", [3, 200]);
        for (state, bytes) in [
            (OptimizerState::Nothing, 0),
            (OptimizerState::Momentum, 2400),
            (OptimizerState::AdamW, 4800),
            (OptimizerState::AdamW8bit, 1200 + 3 * 8),
            (OptimizerState::Muon, 2400),
        ] {
            assert_eq!(state.bytes(name, &shape), bytes, "{state:?}");
        }
        assert_eq!(OptimizerState::Muon.bytes("head.weight", &shape), 4800);
    }
}
