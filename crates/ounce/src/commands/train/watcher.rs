//! What a person sees of a run while it goes.

use std::path::{Path, PathBuf};

use ounce_engine::{Engine, Generation, Mode, Sampler, Sampling};
use ounce_model::Model;
use ounce_train::trainer::{Guarded, Observer, Preferences, Step, Validation, guard::Verdict};
use ounce_train::{Error, Trainable};

use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::units;

/// Tokens of a sample.
const SAMPLE: usize = 48;

/// Shows a bar and prints validations, samples and what the guard did.
pub(in crate::commands) struct Watcher {
    pub bar: Progress,
    pub watch: Watch,
    pub total: u64,
    /// Whether lines for people are left out.
    pub quiet: bool,
    pub prompt: String,
    /// Validations so far.
    pub validations: Vec<Validation>,
    pub last: Option<Step>,
    /// Smoothed loss.
    loss: Option<f64>,
}

impl Watcher {
    pub fn new(total: u64, quiet: bool, prompt: String) -> Watcher {
        let bar = Progress::new("training", Unit::Items);
        Watcher {
            bar,
            watch: Watch::start(),
            total,
            quiet,
            prompt,
            validations: Vec::new(),
            last: None,
            loss: None,
        }
    }

    fn line(&self, text: &str) {
        if !self.quiet {
            self.bar.print(text);
        }
    }
}

impl Observer for Watcher {
    fn wants_to_stop(&mut self) -> bool {
        self.watch.requested()
    }

    fn step(&mut self, step: &Step) -> ounce_train::Result<()> {
        let loss = self.loss.map_or(step.loss, |loss| 0.95 * loss + 0.05 * step.loss);
        self.loss = Some(loss);
        let memory = step.memory.map_or(String::new(), |bytes| format!(" · {}", units::bytes(bytes)));
        let padding = match step.padding {
            0.0 => String::new(),
            share => format!(" · {:.0} % padding", 100.0 * share),
        };
        let speed = step.useful_tokens_per_second;
        self.bar.say(&format!("loss {loss:.4} · {speed:.0} tokens/s{padding}{memory}"));
        self.bar.set(step.step, self.total);
        self.last = Some(*step);
        Ok(())
    }

    fn validation(&mut self, validation: &Validation) -> ounce_train::Result<()> {
        let Validation { step, best, .. } = validation;
        let mark = if *best { "  best so far" } else { "" };
        let train = self.loss.map_or(String::new(), |loss| format!("   training loss {loss:.4}"));
        self.line(&format!("step {step:>7}   validation {}{mark}{train}", said(validation)));
        self.validations.push(*validation);
        Ok(())
    }

    fn sample(&mut self, step: u64, net: &mut dyn Trainable) -> ounce_train::Result<()> {
        match sample(net, &self.prompt) {
            Ok(text) => self.line(&format!("step {step:>7}   {text}")),
            // A run is not lost because its sample is.
            Err(error) => self.line(&format!("step {step:>7}   no sample: {error}")),
        }
        Ok(())
    }

    fn checkpoint(&mut self, step: u64, folder: &PathBuf) {
        tracing::info!("step {step}: checkpoint {}", folder.display());
    }

    fn guarded(&mut self, what: &Guarded) {
        let Guarded { step, loss, norm, verdict, restored } = what;
        let done = match (verdict, restored) {
            (_, Some(step)) => format!("weights of step {step} restored"),
            (Verdict::Capped, None) => "learned all the same, enough were left out".to_string(),
            _ => "batch left out".to_string(),
        };
        self.line(&format!("step {step:>7}   spike: loss {loss:.3}, gradient norm {norm:.3}; {done}"));
    }
}

/// How well a network chooses between answers.
fn in_words(preferences: &Preferences) -> String {
    let Preferences { pairs, accuracy, margin, better, worse, .. } = preferences;
    format!(
        "{:.1} % of {pairs} choices right, margin {margin:.3}; better answers {better:+.2} nats, worse {worse:+.2}",
        100.0 * accuracy
    )
}

/// A validation in words: loss, and perplexity, how it chooses between answers, or what a classifier is judged by.
pub(in crate::commands) fn said(validation: &Validation) -> String {
    let Validation { loss, perplexity, preferences, metrics, .. } = validation;
    match (preferences, metrics.to_string()) {
        (Some(preferences), _) => format!("loss {loss:.4}, {}", in_words(preferences)),
        (None, none) if none.is_empty() => format!("loss {loss:.4}, perplexity {perplexity:.3}"),
        (None, metrics) => format!("loss {loss:.4}, {metrics}"),
    }
}

/// What the network makes of a prompt, greedily.
fn sample(net: &dyn Trainable, prompt: &str) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model");
    net.save(&path)?;
    write(&path, prompt)
}

fn write(path: &Path, prompt: &str) -> anyhow::Result<String> {
    let model = Model::open(path)?;
    let tokenizer = crate::source::tokenizer(&model)?;
    let engine = Engine::load(&model, Mode::Reference)?;
    let mut session = engine.session();
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    let mut sampler = Sampler::new(greedy, tokenizer.id_limit() as usize)?;
    let generation = Generation { max_tokens: SAMPLE, end_ids: model.end_ids(), top_logprobs: None };
    let mut ids = tokenizer.encode(prompt, true)?;
    let length = ids.len();
    let start = ids.clone();
    generation.run(
        &mut session,
        &mut sampler,
        &start,
        |_| {},
        |step| {
            ids.push(step.id);
            Ok(std::ops::ControlFlow::Continue(()))
        },
    )?;
    Ok(format!("{prompt}│{}", tokenizer.decode(&ids[length..], true)?.replace('\n', " ")))
}

/// The error of a stopped run, if it is one.
pub(in crate::commands) fn is_interrupt(error: &Error) -> bool {
    matches!(error, Error::Model(ounce_model::Error::Interrupted))
}
