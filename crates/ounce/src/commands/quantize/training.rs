//! Training behind quantizing: EfficientQAT's two phases, and L4Q.

use anyhow::bail;
use ounce_compress::quantize::efficient_qat::{self, block_ap, end_to_end};
use ounce_compress::quantize::{Plan, l4q};
use ounce_kernels::DType;
use ounce_model::{Model, Weights};
use serde::Serialize;
use serde_json::{Value, json};

use crate::interrupt::Watch;
use crate::output;
use crate::progress::{Progress, Unit};

/// Flags that ask for training.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Training")]
pub struct TrainingArgs {
    /// Train what was quantized, on the calibration text (EfficientQAT, L4Q); most useful with 2 or 3 bits
    #[arg(long, value_enum, value_name = "WHAT")]
    train: Option<Phases>,
    /// Passes over the calibration text in each phase [default: 4 for blocks and l4q, 2 for scales]
    #[arg(long, value_name = "N", requires = "train", value_parser = clap::value_parser!(u16).range(1..=1000))]
    train_epochs: Option<u16>,
    /// What step sizes of all layers together learn: the original's predictions, or the calibration text itself
    #[arg(long, value_enum, value_name = "WHAT", requires = "train", default_value_t = Target::Original)]
    train_target: Target,
    /// For --train l4q: rank of the adapters that are rounded with the weights [default: 4]
    #[arg(long, value_name = "N", requires = "train", value_parser = clap::value_parser!(u16).range(1..=1024))]
    train_rank: Option<u16>,
    /// For --train l4q: learning rate of the adapters; those of steps follow [default: 0.005]
    #[arg(long, value_name = "RATE", requires = "train")]
    train_rate: Option<f64>,
}

/// What the whole model learns in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// To predict what the original predicts: the least divergence from it
    Original,
    /// To predict the next token of the text, as in the paper: perplexity falls, also below the original's where the text is
    /// much like what the model is for
    Text,
}

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phases {
    /// Weights, step sizes and zero points of one layer after the other, to give what the original layer gives
    Blocks,
    /// The step sizes of all layers together, on the next token
    Scales,
    /// First blocks, then scales
    Both,
    /// An adapter to the text and what rounds its sum with the weights, all layers together on the next token: adapts and
    /// quantizes at once, and leaves no adapter (L4Q)
    L4q,
}

/// What training came to.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Of each layer.
    #[serde(rename = "trained_layers", skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<block_ap::Trained>,
    /// Of all step sizes.
    #[serde(rename = "trained_step_sizes", skip_serializing_if = "Option::is_none")]
    pub step_sizes: Option<end_to_end::Tuned>,
    /// Of adapters that are rounded with the weights.
    #[serde(rename = "trained_adapters", skip_serializing_if = "Option::is_none")]
    pub adapters: Option<l4q::Trained>,
}

impl TrainingArgs {
    /// Whether anything is to be trained.
    pub fn is_asked(&self) -> bool {
        self.train.is_some()
    }

    /// Whether step sizes are trained in the end.
    pub fn scales(&self) -> bool {
        matches!(self.train, Some(Phases::Scales | Phases::Both))
    }

    /// How the text is adapted to, if it is.
    pub fn adapters(&self) -> Option<l4q::Options> {
        let usual = l4q::Options::default();
        let rate = self.train_rate.unwrap_or(usual.rate);
        (self.train == Some(Phases::L4q)).then(|| l4q::Options {
            rank: self.train_rank.map_or(usual.rank, usize::from),
            epochs: self.train_epochs.map_or(usual.epochs, usize::from),
            rate,
            step_rate: usual.step_rate * rate / usual.rate,
            offset_rate: usual.offset_rate * rate / usual.rate,
            ..usual
        })
    }

    /// How layers are trained, if they are.
    pub fn blocks(&self) -> Option<block_ap::Options> {
        let usual = block_ap::Options::default();
        let epochs = self.train_epochs.map_or(usual.epochs, usize::from);
        matches!(self.train, Some(Phases::Blocks | Phases::Both))
            .then_some(block_ap::Options { epochs, ..usual })
    }

    /// Refuses what can't be trained.
    ///
    /// # Errors
    /// If training is asked for and nothing of the plan suits it, the model does not predict the next token, a flag belongs to
    /// another way to train, or a rate is none.
    pub fn check(&self, model: &Model, plan: &Plan) -> anyhow::Result<()> {
        let any =
            |suits: fn(DType) -> bool| plan.formats.keys().any(|name| plan.dtype(name).is_some_and(suits));
        if self.train == Some(Phases::L4q) && !any(|dtype| dtype.group_shape().is_some()) {
            bail!(
                "--train l4q needs matrices in groups such as g3_32, which folders hold; name a folder as the target"
            );
        }
        let steps_alone = self.train == Some(Phases::Scales) && any(efficient_qat::has_steps);
        if self.is_asked() && !any(efficient_qat::suits) && !steps_alone {
            bail!(
                "--train needs matrices in blocks with scales, such as q2_k or g2_64; choose such a --type"
            );
        }
        if self.train != Some(Phases::L4q) && (self.train_rank.is_some() || self.train_rate.is_some()) {
            bail!("--train-rank and --train-rate are for --train l4q; leave them out, or train with it");
        }
        if let Some(rate) = self.train_rate.filter(|rate| !(*rate > 0.0 && *rate <= 1.0)) {
            bail!("--train-rate should be above 0 and at most 1, found {rate}");
        }
        let decoder = model.spec.causal && model.spec.head.is_some() && model.spec.classifier.is_none();
        if (self.scales() || self.train == Some(Phases::L4q)) && !decoder {
            bail!("this way to train learns the next token, and the model predicts none; use --train blocks");
        }
        Ok(())
    }

    /// Refuses a text of which nothing can be held out.
    ///
    /// # Errors
    /// If training is asked for and there is one sequence.
    pub fn check_text(&self, sequences: &[Vec<u32>]) -> anyhow::Result<()> {
        if self.is_asked() && sequences.len() < 2 {
            bail!(
                "--train learns from some sequences of the calibration text and is judged by others, and the text gives {}; give a \
                 longer text, or more --calibration-tokens",
                sequences.len()
            );
        }
        Ok(())
    }

    /// What results depend on.
    pub fn settings(&self) -> Value {
        self.blocks().map_or(Value::Null, |options| json!(options))
    }

    /// Adapts `model` to the calibration text and rounds it at once, with a bar; begins at the codes of `blocks`.
    ///
    /// # Errors
    /// As [`l4q::train()`].
    pub fn adapt(
        &self,
        model: &Model,
        plan: &Plan,
        blocks: &Weights,
        sequences: &[Vec<u32>],
        options: &l4q::Options,
    ) -> ounce_compress::Result<(Weights, l4q::Trained)> {
        let watch = Watch::start();
        let mut bar = Progress::new("training adapters", Unit::Share);
        l4q::train(model, plan, Some(blocks), sequences, options, &mut |share| {
            bar.set((share * 1e6) as u64, 1_000_000);
            Ok(watch.check()?)
        })
    }

    /// Trains all step sizes, with a bar.
    ///
    /// # Errors
    /// As [`end_to_end::train`].
    pub fn tune(
        &self,
        model: &Model,
        original: &Model,
        sequences: &[Vec<u32>],
    ) -> ounce_compress::Result<(Weights, end_to_end::Tuned)> {
        let usual = end_to_end::Options::default();
        let epochs = self.train_epochs.map_or(usual.epochs, usize::from);
        let watch = Watch::start();
        let mut bar = Progress::new("training step sizes", Unit::Share);
        let options = end_to_end::Options { epochs, ..usual };
        let teacher = (self.train_target == Target::Original).then_some(original);
        end_to_end::train(model, teacher, sequences, &options, &mut |share| {
            bar.set((share * 1e6) as u64, 1_000_000);
            Ok(watch.check()?)
        })
    }
}

/// A layer's result in words.
pub fn line(trained: &block_ap::Trained) -> String {
    format!(
        "layer {}: error {:.3} % before training, {:.3} % after",
        trained.layer,
        trained.before * 100.0,
        trained.after * 100.0
    )
}

impl Report {
    /// Prints a line for each layer, and one for step sizes or adapters.
    ///
    /// # Errors
    /// If nothing can be printed.
    pub fn print(&self) -> anyhow::Result<()> {
        for trained in &self.layers {
            output::line(line(trained))?;
        }
        if let Some(tuned) = &self.step_sizes {
            output::line(format!(
                "step sizes: {} {:.4} nats a token on held-out calibration text before training, {:.4} after",
                if tuned.distilled { "divergence" } else { "loss" },
                tuned.before,
                tuned.after
            ))?;
        }
        if let Some(adapted) = &self.adapters {
            output::line(format!(
                "adapters: {} numbers for {} weights; {:.4} nats a token on held-out calibration text before training, {:.4} after",
                adapted.trained, adapted.weights, adapted.before, adapted.after
            ))?;
        }
        Ok(())
    }
}
