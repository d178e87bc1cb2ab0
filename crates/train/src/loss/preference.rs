//! Direct preference optimization (arXiv 2305.18290, equation 7): the better of two answers is to become likelier than the
//! worse, both measured against what a frozen reference π₀ gives them.
//!
//! `L = −log σ(z)`, `z = β [(log π(y_w) − log π₀(y_w)) − (log π(y_l) − log π₀(y_l))]`
//!
//! Its gradient by `log π(y_w)` is `−β σ(−z)`, and the opposite by `log π(y_l)`: each is a cross-entropy with a weight
//! that hangs on both answers, so logits are computed twice, the layers once.

use serde::Serialize;

use super::{Chunk, LogProbabilities, LogitLoss};

/// What became of choices between two answers; sums over all of them.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Choices {
    /// Choices.
    pub pairs: usize,
    /// How often the better answer gained more on the reference than the worse.
    pub right: usize,
    /// How often the better answer is the likelier one.
    pub likelier: usize,
    /// Sum of `z`: how far the better answer is ahead of the worse, with β.
    pub margin: f64,
    /// Sum of what the better answers gained on the reference, in nats.
    pub better: f64,
    /// Sum of what the worse answers gained.
    pub worse: f64,
}

impl std::ops::AddAssign for Choices {
    fn add_assign(&mut self, other: Choices) {
        self.pairs += other.pairs;
        self.right += other.right;
        self.likelier += other.likelier;
        self.margin += other.margin;
        self.better += other.better;
        self.worse += other.worse;
    }
}

/// The loss of pairs of sequences, the better one first.
#[derive(Debug, Clone)]
pub struct PreferenceLoss<'b> {
    reference: &'b [f64],
    beta: f64,
    found: LogProbabilities,
}

impl PreferenceLoss<'_> {
    /// Of sequences of these lengths; `reference` has the log-probability of each under the reference, in nats, and `beta`
    /// says how closely the model is held to it.
    ///
    /// # Panics
    /// If there is not a reference for each sequence, or a sequence has no partner.
    pub fn new<'b>(lengths: &[usize], reference: &'b [f64], beta: f64) -> PreferenceLoss<'b> {
        assert!(
            lengths.len() == reference.len() && lengths.len().is_multiple_of(2),
            "sequences are pairs, each with a reference"
        );
        PreferenceLoss { reference, beta, found: LogProbabilities::new(lengths) }
    }

    /// What the sequence gained on the reference, in nats.
    fn gain(&self, sequence: usize) -> f64 {
        self.found.values()[sequence] - self.reference[sequence]
    }

    /// `z` of a pair.
    fn margin(&self, pair: usize) -> f64 {
        self.beta * (self.gain(2 * pair) - self.gain(2 * pair + 1))
    }

    /// The sum of losses over all pairs, once all chunks came without a scale.
    pub fn sum(&self) -> f64 {
        (0..self.reference.len() / 2).map(|pair| softplus(-self.margin(pair))).sum()
    }

    /// What became of the choices, once all chunks came without a scale.
    pub fn choices(&self) -> Choices {
        let mut all = Choices::default();
        for pair in 0..self.reference.len() / 2 {
            let (better, worse) = (2 * pair, 2 * pair + 1);
            let values = self.found.values();
            all += Choices {
                pairs: 1,
                right: usize::from(self.gain(better) > self.gain(worse)),
                likelier: usize::from(values[better] > values[worse]),
                margin: self.margin(pair),
                better: self.gain(better),
                worse: self.gain(worse),
            };
        }
        all
    }
}

impl LogitLoss for PreferenceLoss<'_> {
    fn looks_first(&self) -> bool {
        true
    }

    /// Gives the chunk's cross-entropy; the loss itself is [`PreferenceLoss::sum`], as it hangs on all chunks.
    fn chunk(&mut self, chunk: Chunk<'_>, scale: Option<f32>) -> f64 {
        let Some(scale) = scale else { return self.found.run(chunk, None) };
        let slopes: Vec<f64> = (0..self.reference.len())
            .map(|sequence| {
                let slope = f64::from(scale) * self.beta * sigmoid(-self.margin(sequence / 2));
                if sequence.is_multiple_of(2) { slope } else { -slope }
            })
            .collect();
        self.found.run(chunk, Some(&|sequence| slopes[sequence]))
    }
}

/// `log(1 + e^x)`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}
