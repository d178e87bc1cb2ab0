//! The loss of models that find an answer in a text: the mean of two cross-entropies over the text's tokens, one for where
//! the answer begins and one for where it ends (BERT, arXiv 1810.04805, section 4.2).

use super::{Chunk, LogitLoss};
use crate::IGNORE;

/// Losses of spans; logits are `[tokens, 2]`, start and end.
#[derive(Debug, Clone, Copy)]
pub struct SpanLoss<'b> {
    /// Tokens of each sequence.
    pub lengths: &'b [usize],
    /// First and last token of each answer, counted in its sequence; both [`IGNORE`] for none.
    pub spans: &'b [[u32; 2]],
}

impl LogitLoss for SpanLoss<'_> {
    fn chunk(&mut self, chunk: Chunk<'_>, scale: Option<f32>) -> f64 {
        let Chunk { logits, .. } = chunk;
        assert_eq!(logits.len(), 2 * self.lengths.iter().sum::<usize>(), "all tokens in one chunk");
        let mut sum = 0.0;
        let mut rest = logits;
        for (index, &length) in self.lengths.iter().enumerate() {
            let (own, more) = rest.split_at_mut(2 * length);
            rest = more;
            match self.spans.get(index) {
                Some(span) if span[0] != IGNORE => {
                    for (side, &target) in span.iter().enumerate() {
                        sum += 0.5 * one_side(own, side, target as usize, scale);
                    }
                }
                _ => own.fill(0.0),
            }
        }
        sum
    }
}

/// Cross-entropy over every second logit; with `scale` these are replaced by half its gradient times the scale.
fn one_side(logits: &mut [f32], side: usize, target: usize, scale: Option<f32>) -> f64 {
    let values = || logits[side..].iter().step_by(2).map(|&logit| f64::from(logit));
    let greatest = values().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = values().map(|logit| (logit - greatest).exp()).sum();
    let lse = greatest + total.ln();
    let loss = lse - f64::from(logits[2 * target + side]);
    if let Some(scale) = scale {
        for (position, logit) in logits[side..].iter_mut().step_by(2).enumerate() {
            let probability = (f64::from(*logit) - lse).exp() as f32;
            *logit = 0.5 * scale * (probability - if position == target { 1.0 } else { 0.0 });
        }
    }
    loss
}
