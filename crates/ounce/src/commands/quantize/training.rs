//! Training behind quantizing: EfficientQAT's two phases.

use anyhow::bail;
use ounce_compress::quantize::Plan;
use ounce_compress::quantize::efficient_qat::{self, block_ap, end_to_end};
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
    /// Train what was quantized, on the calibration text (EfficientQAT); most useful with 2 or 3 bits
    #[arg(long, value_enum, value_name = "PHASES")]
    train: Option<Phases>,
    /// Passes over the calibration text in each phase [default: 4 for blocks, 2 for scales]
    #[arg(long, value_name = "N", requires = "train", value_parser = clap::value_parser!(u16).range(1..=1000))]
    train_epochs: Option<u16>,
    /// What step sizes of all layers together learn: the original's predictions, or the calibration text itself
    #[arg(long, value_enum, value_name = "WHAT", requires = "train", default_value_t = Target::Original)]
    train_target: Target,
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

    /// How layers are trained, if they are.
    pub fn blocks(&self) -> Option<block_ap::Options> {
        let usual = block_ap::Options::default();
        let epochs = self.train_epochs.map_or(usual.epochs, usize::from);
        matches!(self.train, Some(Phases::Blocks | Phases::Both))
            .then_some(block_ap::Options { epochs, ..usual })
    }

    /// Refuses formats that can't be trained.
    ///
    /// # Errors
    /// If training is asked for and nothing of the plan has scales to train.
    pub fn check(&self, plan: &Plan) -> anyhow::Result<()> {
        let suits = |name: &String| plan.dtype(name).is_some_and(efficient_qat::suits);
        if self.is_asked() && !plan.formats.keys().any(suits) {
            bail!(
                "--train needs matrices in blocks with scales, such as q2_k or g2_64; choose such a --type"
            );
        }
        Ok(())
    }

    /// What results depend on.
    pub fn settings(&self) -> Value {
        self.blocks().map_or(Value::Null, |options| json!(options))
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
    /// Prints a line for each layer and one for the step sizes.
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
        Ok(())
    }
}
