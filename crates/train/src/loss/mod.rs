//! Losses on logits. A network hands them over a chunk of rows at a time and takes back gradients in their place.

mod cross_entropy;
mod distillation;
mod log_probability;
mod preference;
mod scores;
mod span;

use ounce_kernels::pool::Pool;

pub use cross_entropy::CrossEntropy;
#[cfg(test)]
pub(crate) use distillation::log_softmax;
pub use distillation::{
    Adaptive, Distillation, Divergence, ForwardKl, Js, Kind as DivergenceKind, Predictions, ReverseKl,
    SkewKl, SkewReverseKl, Softness, Taid, TaidOptions, TeacherRows, Tvd,
};
pub use log_probability::LogProbabilities;
pub use preference::{Choices, PreferenceLoss};
pub use scores::Scores;
pub use span::SpanLoss;

/// The logits of some rows of a batch.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// The threads to use.
    pub pool: &'a Pool,
    /// `[rows, width]`, before the softcap.
    pub logits: &'a mut [f32],
    /// Entries of the vocabulary.
    pub width: usize,
    /// The target of each row.
    pub targets: &'a [u32],
    /// Each row's number in the batch.
    pub rows: &'a [usize],
    /// `cap · tanh(logit / cap)` comes first, if the model has it.
    pub softcap: Option<f32>,
}

/// A loss on logits.
pub trait LogitLoss {
    /// Whether a gradient hangs on the logits of all chunks. They come once without a scale then, before they come with
    /// one.
    fn looks_first(&self) -> bool {
        false
    }

    /// The sum of the rows' losses in nats. With `scale` the logits are replaced by the gradient of that sum times the
    /// scale; without, what they hold afterwards is unspecified.
    fn chunk(&mut self, chunk: Chunk<'_>, scale: Option<f32>) -> f64;
}
