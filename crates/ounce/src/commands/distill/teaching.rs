//! The flags that distilling and healing have in common.

use std::path::PathBuf;

use anyhow::bail;
use ounce_kernels::DType;
use ounce_train::distil::Options;
use ounce_train::loss::{DivergenceKind, Softness, TaidOptions};

use super::super::convert::parse_dtype;

/// How and on what a student is taught.
#[derive(Debug, Clone, clap::Args)]
pub struct TeachingArgs {
    /// The model's folder, or file ending in .gguf, to be made
    #[arg(short, long, value_name = "TARGET")]
    pub output: PathBuf,
    /// Replace what is at the target
    #[arg(long)]
    pub force: bool,
    /// Begin anew where an interrupted run of the same target could go on
    #[arg(long)]
    pub fresh: bool,
    /// Text to learn on, like what the model will read; `-` is stdin [default: generated English tales, which suit the built-in
    /// models; a real model deserves a text of its own]
    #[arg(long, value_name = "FILE", help_heading = "Texts")]
    pub text: Option<PathBuf>,
    /// Tokens to learn on, over again if the text has fewer [default: those of the text, once]
    #[arg(long, value_name = "N", help_heading = "Texts")]
    pub tokens: Option<u64>,
    /// Text to be judged on [default: the last twentieth of the text, which is not learnt from then]
    #[arg(long, value_name = "FILE", help_heading = "Texts")]
    pub test: Option<PathBuf>,
    /// Tokens to be judged on, at most
    #[arg(long, value_name = "N", default_value_t = 16_384, help_heading = "Texts")]
    pub test_tokens: usize,
    /// Compare nothing before and after
    #[arg(long, conflicts_with = "test", help_heading = "Texts")]
    pub no_test: bool,
    /// What is made small: kl, reverse-kl, skew-kl, skew-reverse-kl, js, tvd, adaptive-kl or taid
    #[arg(long, value_name = "LOSS", value_parser = parse_loss, help_heading = "Learning")]
    pub loss: Option<DivergenceKind>,
    /// What the logits of both are divided by before they are compared
    #[arg(long, value_name = "T", default_value_t = 1.0, help_heading = "Learning")]
    pub temperature: f32,
    /// The part of the text's own next token in the loss, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, help_heading = "Learning")]
    pub hard: f32,
    /// Weight of the distance between the streams behind layers; 1 is a good start. A student of another width learns matrices along that
    /// bring its streams to the teacher's width, which is slower
    #[arg(long, value_name = "WEIGHT", default_value_t = 0.0, help_heading = "Learning")]
    pub features: f32,
    /// Weight of the relations between tokens that queries, keys and values of the last layer show (MiniLMv2), for students of any width;
    /// slower, and keeps all activations
    #[arg(long, value_name = "WEIGHT", default_value_t = 0.0, help_heading = "Learning")]
    pub relations: f64,
    /// The teacher's layer whose relations are learned, counted from 1 [default: the last]
    #[arg(long, value_name = "N", requires = "relations", help_heading = "Learning")]
    pub relation_layer: Option<usize>,
    /// Heads that relations are cut into [default: the student's key heads, or fewer that divide all widths]
    #[arg(long, value_name = "N", requires = "relations", help_heading = "Learning")]
    pub relation_heads: Option<usize>,
    /// Where the target of --loss taid begins: 0 the student's own prediction, 1 the teacher's; 0.2 for a very large teacher
    /// [default: 0.4]
    #[arg(long, value_name = "T", help_heading = "Learning")]
    pub taid_start: Option<f64>,
    /// How fast the target of --loss taid follows the loss; 0 for an even pace [default: 5e-4]
    #[arg(long, value_name = "ALPHA", help_heading = "Learning")]
    pub taid_alpha: Option<f64>,
    /// The highest learning rate [default: 5e-4 for a student with weights, by Step Law for a new one]
    #[arg(long, value_name = "RATE", help_heading = "Learning")]
    pub lr: Option<f64>,
    /// Sequences of a step
    #[arg(long, value_name = "N", default_value_t = 8, help_heading = "Learning")]
    pub batch: usize,
    /// Tokens of a sequence [default: 256, or what the models can read if that is less]
    #[arg(long, value_name = "N", help_heading = "Learning")]
    pub context: Option<usize>,
    /// Seed of the order of sequences, and of a new student's weights
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Learning")]
    pub seed: u64,
    /// Steps between checkpoints [default: a twentieth of the steps, 50 at least]
    #[arg(long, value_name = "N", help_heading = "Learning")]
    pub checkpoint_every: Option<u64>,
    /// Ask the teacher first and keep what it says in this file; it is not in memory while the student learns then
    #[arg(long, value_name = "FILE", help_heading = "Teacher")]
    pub cache: Option<PathBuf>,
    /// Likeliest tokens of each prediction that are kept in the file; the others count as one
    #[arg(long, value_name = "N", default_value_t = 64, requires = "cache", help_heading = "Teacher")]
    pub top: usize,
    /// Format of the written matrices [default: the student's, F32 if that is quantized]
    #[arg(long, value_name = "FORMAT", value_parser = parse_dtype)]
    pub dtype: Option<DType>,
}

impl TeachingArgs {
    /// Refuses numbers that make no sense, before anything is read.
    ///
    /// # Errors
    /// In one sentence.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.output.symlink_metadata().is_ok() && !self.force {
            bail!("{}: exists already; choose another name or add --force", self.output.display());
        }
        if self.batch == 0 || self.top == 0 || self.tokens == Some(0) {
            bail!("--batch, --tokens and --top should be 1 or more");
        }
        if self.context.is_some_and(|context| context < 2) {
            bail!("--context should be 2 or more: there is nothing to predict in a sequence of one token");
        }
        if let Some(rate) = self.lr.filter(|rate| !(*rate > 0.0 && *rate <= 1.0)) {
            bail!("--lr should be above 0 and at most 1, found {rate}");
        }
        if self.loss != Some(DivergenceKind::Taid) && (self.taid_start.is_some() || self.taid_alpha.is_some())
        {
            bail!("--taid-start and --taid-alpha belong to --loss taid; add it, or leave them out");
        }
        if (self.features > 0.0 || self.relations > 0.0) && self.cache.is_some() {
            bail!(
                "--features and --relations need the teacher's layers, which --cache does not keep; leave it or them out"
            );
        }
        if !(self.relations >= 0.0 && self.relations.is_finite()) {
            bail!("--relations should be 0 or more, found {}", self.relations);
        }
        if self.relation_layer == Some(0) {
            bail!("--relation-layer counts from 1");
        }
        Ok(())
    }

    /// How predictions and streams are compared.
    pub fn options(&self) -> Options {
        let softness = Softness { temperature: self.temperature, hard: self.hard };
        Options { softness, features: self.features }
    }

    /// TAID's numbers.
    pub fn taid(&self) -> TaidOptions {
        let usual = TaidOptions::default();
        TaidOptions {
            start: self.taid_start.unwrap_or(usual.start),
            alpha: self.taid_alpha.unwrap_or(usual.alpha),
            ..usual
        }
    }
}

/// A loss by its name.
///
/// # Errors
/// In one sentence, if there is none.
pub fn parse_loss(text: &str) -> Result<DivergenceKind, String> {
    DivergenceKind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
        format!("{text:?} is no loss; there are {}", DivergenceKind::ALL.map(DivergenceKind::name).join(", "))
    })
}
