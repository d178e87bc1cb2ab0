//! A training run as a TOML file: what is trained, on what, and how. [`keys::TABLE`] documents every key; files are
//! checked against it, so that a key written wrong is named, with the one it was likely meant to be.

pub mod keys;
mod parse;
mod precision;
mod shape;

use std::path::PathBuf;

use ounce_eval::answers::Articles;
use serde::{Deserialize, Serialize};

use crate::data::{Layout, Packing, ReadOptions, Separator};
use crate::optim::{self, Kind};
use crate::schedule::{Decay, Schedule, Shape};
use crate::trainer::guard;
use crate::{Error, Result};

pub use parse::{parse, template};
pub use precision::Precision;

/// A run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// What is trained.
    pub model: Model,
    /// What turns text into ids.
    pub tokenizer: Tokenizer,
    /// What it is trained on.
    pub data: Data,
    /// How long and in which steps.
    pub train: Train,
    /// From gradients to weights.
    pub optimizer: Optimizer,
    /// The learning rate over time.
    pub schedule: Rates,
    /// The loss-spike guard.
    pub guard: Guard,
    /// How progress is judged.
    pub validation: Validation,
    /// What is written, where and when.
    pub output: Output,
}

/// What is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Model {
    /// A model to go on from; empty for new weights.
    pub from: String,
    /// Shape of new weights.
    pub preset: Preset,
    /// Width.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Key/value heads; 0 for the preset's.
    pub kv_heads: usize,
    /// Inner width of the feed-forward halves; 0 for the preset's.
    pub feed_forward: usize,
    /// Width of token vectors (albert); 0 for the preset's.
    pub embedding: usize,
    /// Groups of layers with weights of their own (albert).
    pub groups: usize,
    /// Positions.
    pub context: usize,
    /// Whether the embedding serves as head.
    pub tied: bool,
    /// Standard deviation of new weights; 0 for the preset's.
    pub init: f32,
    /// Patterns of weights to train; empty for all.
    pub trains: Vec<String>,
    /// Numbers that all weights are stored in, read from one shared array; 0 stores each weight.
    pub stored: usize,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            from: String::new(),
            preset: Preset::Llama,
            hidden: 256,
            layers: 6,
            heads: 8,
            kv_heads: 0,
            feed_forward: 0,
            embedding: 0,
            groups: 1,
            context: 512,
            tied: true,
            init: 0.0,
            trains: Vec::new(),
            stored: 0,
        }
    }
}

/// Shapes of new models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Llama: as many key/value heads as heads.
    #[default]
    Llama,
    /// A language model for processors (GEB, arXiv 2406.09900): a quarter of the key/value heads, head not tied, gradient
    /// of the embedding shrunk to a tenth, spike guard on.
    CpuLm,
    /// MiniCPM (arXiv 2404.06395): factors on embedding, residual stream and logits, and rates of matrices scaled by width,
    /// so that one learning rate holds for all widths; written as Granite, which other tools read.
    Minicpm,
    /// An encoder that is trained on hidden tokens.
    Bert,
    /// The same with layers that share one set of weights and narrow token vectors (arXiv 1909.11942).
    Albert,
}

/// What turns text into ids.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tokenizer {
    /// A folder or file; empty for that of `model.from`, or the built-in model's for new weights.
    pub from: String,
}

/// What is learned of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// By the data: preferences or answers if it has some, else the next token; hidden tokens for encoders.
    #[default]
    Auto,
    /// The next token of every text.
    Language,
    /// The answers of instructions, conversations and completions.
    Answers,
    /// To choose between two answers, by direct preference optimization.
    Preferences,
    /// Hidden tokens.
    Masked,
    /// Labels of texts.
    Classify,
    /// Tags of words.
    Tag,
    /// Answers that stand in texts.
    Spans,
    /// Vectors by which queries find their passages; by adapters only.
    Retrieve,
}

/// What it is trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Data {
    /// Files, folders and patterns.
    pub train: Vec<PathBuf>,
    /// Files for validation; empty to hold out a part of the others.
    pub validation: Vec<PathBuf>,
    /// The part held out if there are no files for it; 0 for none.
    pub held_out: f64,
    /// What is learned.
    pub objective: Objective,
    /// Tokens of a sequence at most; 0 for the model's.
    pub context: usize,
    /// A line between two documents of a text file; empty for blank lines.
    pub separator: String,
    /// How documents become sequences.
    pub layout: Layout,
    /// How answers are laid into rows.
    pub packing: Packing,
    /// Whether answers in one row are hidden from each other.
    pub isolated: bool,
    /// Whether the order is new each epoch.
    pub shuffle: bool,
    /// The part of tokens that is hidden for encoders.
    pub mask: f64,
    /// Tokens from one window of a long text to the next, where answers are looked for.
    pub stride: usize,
    /// Where tokens are kept; empty for a file in the output folder.
    pub cache: PathBuf,
}

impl Default for Data {
    fn default() -> Data {
        Data {
            train: Vec::new(),
            validation: Vec::new(),
            held_out: 0.01,
            objective: Objective::Auto,
            context: 0,
            separator: "<|endoftext|>".to_string(),
            layout: Layout::Documents,
            packing: Packing::None,
            isolated: true,
            shuffle: true,
            mask: 0.15,
            stride: 128,
            cache: PathBuf::new(),
        }
    }
}

impl Data {
    /// How files are read.
    pub fn read(&self) -> ReadOptions {
        let separator = match self.separator.as_str() {
            "" => Separator::BlankLines,
            line => Separator::Line(line.to_string()),
        };
        ReadOptions { separator, ..ReadOptions::default() }
    }
}

/// How long and in which steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Train {
    /// Sequences of a micro-batch; it has `batch * context` tokens.
    pub batch: usize,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Steps; 0 if tokens or epochs say.
    pub steps: u64,
    /// Tokens; 0 if steps or epochs say.
    pub tokens: u64,
    /// Epochs; 0 if steps or tokens say.
    pub epochs: f64,
    /// Minutes, made into steps when a run begins; 0 if something else says.
    pub minutes: f64,
    /// Decides weights and order.
    pub seed: u64,
    /// What products are computed in.
    pub precision: Precision,
    /// Whether layers are computed a second time to save memory.
    pub checkpointing: bool,
    /// How closely preferences hold the model to what it was.
    pub beta: f64,
    /// Factor on the loss that keeps experts evenly used; 0 for none.
    pub balance: f64,
}

impl Default for Train {
    fn default() -> Train {
        Train {
            batch: 8,
            accumulation: 1,
            steps: 0,
            tokens: 0,
            epochs: 0.0,
            minutes: 0.0,
            seed: 1,
            precision: Precision::F32,
            checkpointing: false,
            beta: 0.1,
            balance: 0.0,
        }
    }
}

/// From gradients to weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Optimizer {
    /// The rule.
    pub kind: Kind,
    /// The highest learning rate; 0 for Step Law's.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Momentum of SGD and Muon.
    pub momentum: f64,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
    /// Projection of the gradients of layers' matrices.
    pub projection: optim::Projection,
    /// Directions that a projection keeps.
    pub rank: usize,
    /// Steps after which they are looked for anew.
    pub refresh: u64,
    /// Factor on projected steps.
    pub scale: f64,
    /// The norm that gradients are clipped to; 0 for none.
    pub clip: f64,
}

impl Default for Optimizer {
    fn default() -> Optimizer {
        let optim::Options { kind, beta1, beta2, eps, momentum, weight_decay, low_rank, .. } =
            optim::Options::default();
        let optim::LowRank { projection, rank, refresh, scale } = low_rank;
        Optimizer {
            kind,
            lr: 0.0,
            beta1,
            beta2,
            eps,
            momentum,
            weight_decay,
            projection,
            rank,
            refresh,
            scale,
            clip: 1.0,
        }
    }
}

impl Optimizer {
    /// The optimizer's own settings.
    pub fn options(&self) -> optim::Options {
        optim::Options {
            kind: self.kind,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            momentum: self.momentum,
            weight_decay: self.weight_decay,
            low_rank: optim::LowRank {
                projection: self.projection,
                rank: self.rank,
                refresh: self.refresh,
                scale: self.scale,
            },
            ..optim::Options::default()
        }
    }
}

/// Shapes of schedules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Stays at the peak.
    Constant,
    /// Half a cosine.
    Cosine,
    /// A straight line.
    Linear,
    /// Warm-up, stable, decay.
    #[default]
    Wsd,
}

/// The learning rate over time. Lengths below 1 are parts of the run, others steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rates {
    /// The shape.
    pub kind: ScheduleKind,
    /// Length of the warm-up.
    pub warmup: f64,
    /// Length of WSD's decay.
    pub decay: f64,
    /// Form of WSD's decay.
    pub curve: Decay,
    /// The last rate as a part of the highest.
    pub last: f64,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates { kind: ScheduleKind::Wsd, warmup: 0.02, decay: 0.1, curve: Decay::OneMinusSqrt, last: 0.01 }
    }
}

impl Rates {
    /// The schedule of a run of `total` steps with the highest rate `peak`.
    ///
    /// # Errors
    /// If the parts do not fit.
    pub fn schedule(&self, peak: f64, total: u64) -> Result<Schedule> {
        let steps = |name: &str, length: f64| match length {
            length if length < 0.0 || !length.is_finite() => Err(Error::Settings(format!(
                "schedule.{name} should be a number of steps or a part of the run below 1, found {length}"
            ))),
            part if part < 1.0 => Ok((part * total as f64).round() as u64),
            steps => Ok(steps as u64),
        };
        let floor = self.last * peak;
        let shape = match self.kind {
            ScheduleKind::Constant => Shape::Constant,
            ScheduleKind::Cosine => Shape::Cosine { floor },
            ScheduleKind::Linear => Shape::Linear { floor },
            ScheduleKind::Wsd => Shape::Wsd { decay: steps("decay", self.decay)?, curve: self.curve, floor },
        };
        let schedule = Schedule { peak, warmup: steps("warmup", self.warmup)?, total, shape };
        schedule.check()?;
        Ok(schedule)
    }
}

/// The loss-spike guard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guard {
    /// Whether it watches.
    pub on: bool,
    /// How many scaled median absolute deviations above the median is a spike.
    pub deviations: f64,
    /// The part of batches that may be left out.
    pub cap: f64,
}

impl Default for Guard {
    fn default() -> Guard {
        let guard::Options { deviations, cap, .. } = guard::Options::default();
        Guard { on: false, deviations, cap }
    }
}

/// How progress is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Validation {
    /// Steps between validations; 0 for one at the end.
    pub every: u64,
    /// Micro-batches of one at most; 0 for all.
    pub batches: usize,
    /// Steps between samples of text; 0 for none.
    pub sample_every: u64,
    /// What samples begin with.
    pub prompt: String,
    /// Whose articles do not count in answers.
    pub articles: Articles,
}

impl Default for Validation {
    fn default() -> Validation {
        Validation {
            every: 200,
            batches: 50,
            sample_every: 0,
            prompt: "Once upon a time".to_string(),
            articles: Articles::English,
        }
    }
}

/// What is written, where and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Output {
    /// The run's folder.
    pub folder: PathBuf,
    /// Steps between checkpoints; 0 for one at the end.
    pub checkpoint_every: u64,
    /// Newest checkpoints that stay.
    pub keep: usize,
    /// Steps between lines of the log.
    pub log_every: u64,
}

impl Default for Output {
    fn default() -> Output {
        Output { folder: PathBuf::from("run"), checkpoint_every: 500, keep: 2, log_every: 1 }
    }
}

impl Config {
    /// What must be the same for a checkpoint to be continued: all but the length, the schedule and what is only reported.
    pub fn identity(&self) -> String {
        let mut data = self.data.clone();
        data.cache = PathBuf::new();
        let Train { batch, accumulation, seed, precision, beta, balance, .. } = self.train;
        let optimizer = Optimizer { lr: 0.0, ..self.optimizer.clone() };
        let (mut model, mut data) = (serde_json::json!(self.model), serde_json::json!(data));
        // Keys that change nothing are left out, so that they don't set apart runs from before there were any.
        let without = |value: &mut serde_json::Value, keys: &[&str]| {
            let map = value.as_object_mut();
            map.into_iter().for_each(|map| keys.iter().for_each(|key| drop(map.remove(*key))));
        };
        if self.model.preset != Preset::Albert {
            without(&mut model, &["embedding", "groups"]);
        }
        if !matches!(self.data.objective, Objective::Auto | Objective::Spans)
            || self.data.stride == Data::default().stride
        {
            without(&mut data, &["stride"]);
        }
        let mut identity = serde_json::json!({
            "model": model, "tokenizer": self.tokenizer, "data": data, "optimizer": optimizer,
            "train": [batch, accumulation, seed as usize], "precision": precision,
        });
        // What is newer than some checkpoints is left out where it is as it was before.
        let usual = Train::default();
        for (key, value, usual) in [("beta", beta, usual.beta), ("balance", balance, usual.balance)] {
            if value != usual {
                identity[key] = value.into();
            }
        }
        if let Some(data) = identity["data"].as_object_mut() {
            for (key, usual) in [("packing", "none".into()), ("isolated", serde_json::Value::Bool(true))] {
                if data.get(key) == Some(&usual) {
                    data.remove(key);
                }
            }
        }
        identity.to_string()
    }
}
