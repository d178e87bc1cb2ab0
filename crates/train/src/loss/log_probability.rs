//! How likely a model thinks whole sequences are: the sum of the log-probabilities of each one's targets.

use ounce_kernels::grad::cross_entropy::softmax_cross_entropy;

use super::{Chunk, LogitLoss};
use crate::IGNORE;

/// Collects log-probabilities; as a loss it is the cross-entropy, each sequence with a weight of its own.
#[derive(Debug, Clone)]
pub struct LogProbabilities {
    /// Behind the last token of each sequence.
    ends: Vec<usize>,
    /// Of the targets of each sequence, in nats.
    values: Vec<f64>,
}

impl LogProbabilities {
    /// Of a batch with sequences of so many tokens.
    pub fn new(lengths: &[usize]) -> LogProbabilities {
        let ends = lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        LogProbabilities { ends: ends.collect(), values: vec![0.0; lengths.len()] }
    }

    /// The log-probability of each sequence's targets, once all chunks came without a scale.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Goes through a chunk sequence by sequence: adds to the values, or, where there are weights, replaces the logits by
    /// the gradient of `Σ weight · cross-entropy`. Gives the sum of cross-entropies in nats.
    pub(super) fn run(&mut self, chunk: Chunk<'_>, weight: Option<&dyn Fn(usize) -> f64>) -> f64 {
        let Chunk { pool, mut logits, width, mut targets, mut rows, softcap } = chunk;
        let mut sum = 0.0;
        while let Some(&first) = rows.first() {
            let sequence = self.ends.partition_point(|end| *end <= first);
            let count = rows.partition_point(|row| *row < self.ends[sequence]);
            let (own, rest) = logits.split_at_mut(count * width);
            let scale = weight.map_or(1.0, |weight| weight(sequence) as f32);
            let gradient = weight.is_some();
            let loss =
                softmax_cross_entropy(pool, own, width, &targets[..count], IGNORE, scale, gradient, softcap);
            if !gradient {
                self.values[sequence] -= loss;
            }
            sum += loss;
            (logits, targets, rows) = (rest, &targets[count..], &rows[count..]);
        }
        sum
    }
}

impl LogitLoss for LogProbabilities {
    fn chunk(&mut self, chunk: Chunk<'_>, scale: Option<f32>) -> f64 {
        match scale {
            None => self.run(chunk, None),
            Some(scale) => self.run(chunk, Some(&|_| f64::from(scale))),
        }
    }
}
