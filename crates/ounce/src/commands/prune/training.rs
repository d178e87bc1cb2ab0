//! Training while parts leave.

use anyhow::bail;
use ounce_compress::prune::{amoeba, compresso, echo, efficient_llm, gradual};
use ounce_model::Model;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
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
    /// The highest learning rate; lower it if the loss rises [default: 0.002; for efficient-llm 0.001; of compresso's adapters 0.005, of all
    /// weights behind its cut a fifth of that]
    #[arg(long, value_name = "RATE")]
    train_rate: Option<f64>,
    /// The stream stays as wide as it is, and only heads and channels leave (efficient-llm, compresso)
    #[arg(long)]
    keep_stream: bool,
    /// Seed of the order of texts, and of gates and adapters; 0 is the order in which they came
    #[arg(long, value_name = "N", default_value_t = 0)]
    train_seed: u64,
}

/// How a model is trained while it gets smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Parts leave every few steps, by gradients and their squares, and what stays answers for them (EfficientLLM)
    EfficientLlm,
    /// Gates learn which parts leave while adapters heal, all other weights frozen, for three steps in twenty; then all weights learn (Compresso)
    Compresso,
    /// Single weights become zero, more and more of them until seven tenths of the steps; all others are trained
    Gradual,
    /// Layers that attend alike share queries and keys, so many as --copies says, and the model relearns by its own predictions for two thirds of the
    /// steps, then by the text (EchoAtt)
    EchoAtt,
    /// Adapters for many shapes at once; the file that is written holds them, and prune --shapes cuts any of them out of the model (AmoebaLLM)
    Amoeba,
}

impl TrainingArgs {
    /// Whether training was asked for.
    pub fn is_asked(&self) -> bool {
        self.train.is_some()
    }

    /// Steps, and the highest learning rate where one was named.
    pub fn course(&self) -> (u64, Option<f64>) {
        (self.train_steps, self.train_rate)
    }

    /// Texts in the order of the seed.
    pub fn ordered(&self, mut texts: Vec<Vec<u32>>) -> Vec<Vec<u32>> {
        if self.train_seed > 0 {
            texts.shuffle(&mut StdRng::seed_from_u64(self.train_seed));
        }
        texts
    }

    /// The seed of gates and adapters.
    pub fn seed(&self) -> u64 {
        self.train_seed
    }

    /// Whether single weights become zero, and shapes stay.
    pub fn is_sparse(&self) -> bool {
        self.train == Some(Way::Gradual)
    }

    /// Whether layers come to copy attention.
    pub fn is_echo(&self) -> bool {
        self.train == Some(Way::EchoAtt)
    }

    /// Lets so many layers attend by the queries and keys of the nearest before them that has its own, those that attend most alike, and the model
    /// relearn, with bars.
    ///
    /// # Errors
    /// If there are not so many, the family can't say it, the model can't be trained, or the user stops the work.
    pub fn echo(&self, model: &Model, text: &[Vec<u32>], copies: usize) -> anyhow::Result<Model> {
        /// Texts by which attention is compared: its matrices grow with the square of their length.
        const COMPARED: usize = 8;
        let watch = Watch::start();
        let mut bar = Progress::new("looking at attention", Unit::Items);
        let shown = &text[..text.len().min(COMPARED)];
        let worth = echo::similarity(model, shown, &mut |done, all| {
            bar.set(done as u64, all as u64);
            Ok(watch.check()?)
        })?;
        drop(bar);
        let sources = echo::sources(&worth, 1, copies)?;
        // What can't be said is refused before anything is trained.
        echo::said(model, &sources)?;
        let mut student = echo::Student::new(model, &sources)?;
        let usual = echo::Options::default();
        let behind = self.train_steps / 3;
        let options = echo::Options {
            steps: [self.train_steps - behind, behind],
            rate: self.train_rate.unwrap_or(usual.rate),
            seed: usual.seed + self.train_seed,
            ..usual
        };
        let mut bar = Progress::new("training", Unit::Items);
        echo::heal(&mut student, model, text, &options, &mut |done, total| {
            bar.set(done, total);
            Ok(watch.check()?)
        })?;
        Ok(student.model()?)
    }

    /// Whether shapes are trained that are cut out later.
    pub fn is_amoeba(&self) -> bool {
        self.train == Some(Way::Amoeba)
    }

    /// How the widths of shapes are made.
    pub fn widths(&self, uniform: bool) -> amoeba::Way {
        if uniform { amoeba::Way::Alike } else { amoeba::Way::Fitted }
    }

    /// Trains with masks until this share of each matrix is zero, with a bar.
    ///
    /// # Errors
    /// If the model can't be trained, or the user stops the work.
    pub fn sparse(&self, model: &Model, text: &[Vec<u32>], share: f64) -> anyhow::Result<Model> {
        let every = (self.train_steps / 40).max(1);
        let (start, times) = (self.train_steps / 10, self.train_steps * 6 / 10 / every);
        let schedule = Some(gradual::Schedule { last: share, start, every, times });
        let rate = self.train_rate.unwrap_or(2e-3);
        let options =
            gradual::Options { steps: self.train_steps, tokens: 2048, rate, schedule, seed: self.train_seed };
        let watch = Watch::start();
        let mut bar = Progress::new("training", Unit::Items);
        Ok(gradual::train(model, text, &options, &mut |done, total| {
            bar.set(done, total);
            Ok(watch.check()?)
        })?)
    }

    /// Refuses numbers that can't be.
    ///
    /// # Errors
    /// In one sentence.
    pub fn check(&self) -> anyhow::Result<()> {
        if let Some(rate) = self.train_rate.filter(|rate| !(*rate > 0.0 && *rate < 1.0)) {
            bail!("--train-rate should be above 0 and below 1, found {rate}");
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
        let watch = Watch::start();
        let mut bar = Progress::new("training", Unit::Items);
        let mut progress = |done: u64, total: u64| {
            bar.set(done, total);
            Ok(watch.check()?)
        };
        if self.train == Some(Way::Compresso) {
            let usual = compresso::Options::default();
            let gate_steps = (self.train_steps * 3).div_ceil(20);
            let adapter_rate = self.train_rate.unwrap_or(usual.adapter_rate);
            let options = compresso::Options {
                gate_steps,
                heal_steps: self.train_steps - gate_steps,
                adapter_rate,
                heals: compresso::Heals::All(0.2 * adapter_rate),
                stream: !self.keep_stream,
                multiple,
                seed: usual.seed + self.train_seed,
                ..usual
            };
            return Ok(compresso::prune(model, text, most, &options, &mut progress)?.model);
        }
        let usual = efficient_llm::Options::default();
        let options = efficient_llm::Options {
            steps: self.train_steps,
            rate: self.train_rate.unwrap_or(usual.rate),
            multiple,
            stream: !self.keep_stream,
            ..usual
        };
        let (small, events) = efficient_llm::shrink(model, text, most, &options, &mut progress)?;
        for event in events {
            tracing::info!("step {}: {} parameters", event.step, event.parameters);
        }
        Ok(small)
    }
}
