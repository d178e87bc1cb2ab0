//! Training while parts leave.

use anyhow::bail;
use ounce_compress::prune::efficient_llm;
use ounce_model::Model;
use serde::Serialize;

use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};

/// Flags of training.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Training while pruning")]
pub struct TrainingArgs {
    /// Train on the calibration text while heads, channels and the stream's width leave. Wants more text than a look does: raise
    /// --calibration-tokens
    #[arg(long, value_enum, value_name = "WAY")]
    train: Option<Way>,
    /// Steps of some 2048 tokens
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u64).range(1..))]
    train_steps: u64,
    /// The highest learning rate; lower it if the loss rises
    #[arg(long, value_name = "RATE", default_value_t = 2e-3)]
    train_rate: f64,
}

/// How a model is trained while it gets smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Parts leave every few steps, by gradients and their squares, and what stays answers for them (EfficientLLM)
    EfficientLlm,
}

impl TrainingArgs {
    /// Whether training was asked for.
    pub fn is_asked(&self) -> bool {
        self.train.is_some()
    }

    /// Refuses numbers that can't be.
    ///
    /// # Errors
    /// In one sentence.
    pub fn check(&self) -> anyhow::Result<()> {
        if !(self.train_rate > 0.0 && self.train_rate < 1.0) {
            bail!("--train-rate should be above 0 and below 1, found {}", self.train_rate);
        }
        Ok(())
    }

    /// Trains until at most so many parameters are left, with a bar.
    ///
    /// # Errors
    /// If there are no such few, the model can't be trained, or the user stops the work.
    pub fn shrink(
        &self,
        model: &Model,
        text: &[Vec<u32>],
        most: u64,
        multiple: usize,
    ) -> anyhow::Result<Model> {
        let options = efficient_llm::Options {
            steps: self.train_steps,
            rate: self.train_rate,
            multiple,
            ..efficient_llm::Options::default()
        };
        let watch = Watch::start();
        let mut bar = Progress::new("training", Unit::Items);
        let (small, events) = efficient_llm::shrink(model, text, most, &options, &mut |done, total| {
            bar.set(done, total);
            Ok(watch.check()?)
        })?;
        for event in events {
            tracing::info!("step {}: {} parameters", event.step, event.parameters);
        }
        Ok(small)
    }
}
