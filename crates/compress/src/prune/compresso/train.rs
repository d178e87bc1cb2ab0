//! Training of gates and adapters together, down to a size; then of adapters, or all weights, on the model that is left.

use ounce_model::Model;
use ounce_train::{Batch, IGNORE};

use super::gated::{Gated, begin, few};
use super::heal::{heal, heal_all};
use crate::Result;
use crate::prune::learning::Shuffled;
use crate::prune::structured::Cut;
use crate::prune::structured::compensate::compensate;
use crate::prune::structured::groups::Unit;
use crate::stages::not_empty;

/// What learns behind the cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Heals {
    /// Adapters, as before it.
    Adapters,
    /// All weights, at this highest rate.
    All(f64),
}

/// How it is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Steps with gates.
    pub gate_steps: u64,
    /// Steps of adapters alone, behind the cut.
    pub heal_steps: u64,
    /// Share of the steps with gates over which the wished sparsity rises from 0.
    pub warmup: f64,
    /// Tokens of a step, at least; whole sequences.
    pub tokens: usize,
    /// Learning rate of gates, and of the two factors that hold them to the size.
    pub gate_rate: f64,
    /// Learning rate of adapters; it falls along half a cosine in each of the two parts.
    pub adapter_rate: f64,
    /// Rank of adapters.
    pub rank: usize,
    /// How far gates begin apart, in `ln α`: those that a Taylor score ranks last are so much less open than those in the middle, those that it
    /// ranks first so much more. 0 begins with all alike, as the paper does.
    pub head_start: f32,
    /// Whether what stays answers for what left by least squares, when gates are read.
    pub answer: bool,
    /// What learns behind the cut.
    pub heals: Heals,
    /// Whether the stream gets narrower too, where the model allows it.
    pub stream: bool,
    /// Channels, and the stream, stay in multiples of this: kernels and blocks of number formats want whole ones.
    pub multiple: usize,
    /// Tokens before each sequence that tell the model that it is being pruned (the collaborative prompt); they are not learned.
    pub prompt: Vec<u32>,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            gate_steps: 250,
            heal_steps: 150,
            warmup: 0.5,
            tokens: 2048,
            gate_rate: 0.1,
            adapter_rate: 5e-3,
            rank: 8,
            head_start: 1.0,
            answer: true,
            heals: Heals::Adapters,
            stream: true,
            multiple: 1,
            prompt: Vec::new(),
            seed: 0,
        }
    }
}

/// What became of a model.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The model that is left, trained.
    pub model: Model,
    /// The masked model and the cut one before adapters went on, for comparison.
    pub halves: [Model; 2],
    /// The sparsity that the gates expected when they were read.
    pub expected: f64,
}

/// A batch of so many tokens at least, each sequence behind the prompt, which is not learned itself.
pub(super) fn prompted(text: &mut Shuffled<'_>, options: &Options) -> Batch {
    let own = text.next(options.tokens).into_iter();
    let own: Vec<Vec<u32>> = own.map(|ids| [options.prompt.as_slice(), ids].concat()).collect();
    let mut batch = Batch::next_token(own.iter().map(Vec::as_slice));
    let mut start = 0;
    for length in &batch.lengths {
        let told = (start + options.prompt.len()).min(start + length);
        batch.targets[start..told].fill(IGNORE);
        start += length;
    }
    batch
}

/// Prunes a model to at most `target` parameters. `progress` is told the steps done and in all.
///
/// # Errors
/// If there is no text, the model can't be trained or cut so small, the loss is no number, or `progress` stops the work.
pub fn prune(
    model: &Model,
    sequences: &[Vec<u32>],
    target: u64,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Outcome> {
    not_empty(sequences)?;
    let total = options.gate_steps + options.heal_steps;
    let mut text = Shuffled::new(sequences, options.seed);
    let stream = options.stream
        && crate::prune::structured::groups::check(&model.spec, Unit::Stream { channel: 0 }).is_ok();
    let mut gated = Gated::new(model, stream, target, options)?;
    if options.head_start != 0.0 {
        begin(model, &gated.places, sequences, options, &mut gated.log_alpha)?;
    }
    for step in 0..options.gate_steps {
        progress(step, total)?;
        gated.step(&prompted(&mut text, options), step, options)?;
    }
    let (mut open, cut, expected) = gated.settle(model, target)?;
    let inner = Cut { stream: None, ..cut.clone() };
    if options.answer && inner != Cut::nothing(&model.spec) {
        let shown = few(sequences);
        open.weights = compensate(&open, &inner, shown, &mut |_, _| progress(options.gate_steps, total))?;
    }
    let small = cut.apply(&open)?;
    let masked = Model { weights: cut.masked(&open)?, ..open };
    let mut done = |step| progress(options.gate_steps + step, total);
    let healed = match options.heals {
        Heals::Adapters => heal(&small, &mut text, options, &mut done)?,
        Heals::All(rate) => heal_all(&small, &mut text, rate, options, &mut done)?,
    };
    progress(total, total)?;
    Ok(Outcome { model: healed, halves: [masked, small], expected })
}
