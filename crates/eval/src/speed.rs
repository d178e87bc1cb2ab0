//! Speed of an engine: prompt processing (`pp512`: tokens a second for a prompt of 512) and generation (`tg128`:
//! tokens a second for 128 single steps), as tools of the field name them. Token ids are arbitrary.

use std::time::Instant;

use ounce_engine::Engine;
use serde::Serialize;

use ounce_engine::Result;

/// What to measure.
#[derive(Debug, Clone, Serialize)]
pub struct SpeedOptions {
    /// Prompt lengths.
    pub prompts: Vec<usize>,
    /// Numbers of single steps.
    pub generations: Vec<usize>,
    /// Tokens that lie in the cache before a generation begins.
    pub depth: usize,
    /// Runs of each, after one to warm up.
    pub repetitions: usize,
}

impl Default for SpeedOptions {
    fn default() -> SpeedOptions {
        SpeedOptions { prompts: vec![512], generations: vec![128], depth: 0, repetitions: 5 }
    }
}

/// One piece of work to be timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A prompt of so many tokens at once.
    Prompt(usize),
    /// So many single steps.
    Generation(usize),
}

impl Work {
    /// The usual name: `pp512`, `tg128`.
    pub fn name(self) -> String {
        match self {
            Work::Prompt(tokens) => format!("pp{tokens}"),
            Work::Generation(tokens) => format!("tg{tokens}"),
        }
    }

    /// Tokens it handles.
    pub fn tokens(self) -> usize {
        match self {
            Work::Prompt(tokens) | Work::Generation(tokens) => tokens,
        }
    }
}

/// The runs of one piece of work.
#[derive(Debug, Clone, Serialize)]
pub struct Speed {
    /// What was done.
    pub work: Work,
    /// Tokens a second of each run.
    pub samples: Vec<f64>,
}

impl Speed {
    /// Mean of the runs.
    pub fn mean(&self) -> f64 {
        self.samples.iter().sum::<f64>() / self.samples.len() as f64
    }

    /// Standard deviation of the runs; 0 for a single one.
    pub fn deviation(&self) -> f64 {
        let (mean, n) = (self.mean(), self.samples.len() as f64);
        let squares: f64 = self.samples.iter().map(|sample| (sample - mean).powi(2)).sum();
        if n > 1.0 { (squares / (n - 1.0)).sqrt() } else { 0.0 }
    }

    /// The fastest run.
    pub fn best(&self) -> f64 {
        self.samples.iter().copied().fold(0.0, f64::max)
    }
}

impl SpeedOptions {
    /// Every piece of work, prompts first.
    pub fn works(&self) -> Vec<Work> {
        let prompts = self.prompts.iter().map(|&tokens| Work::Prompt(tokens));
        prompts.chain(self.generations.iter().map(|&tokens| Work::Generation(tokens))).collect()
    }
}

/// Does one piece of work once and gives its tokens a second.
///
/// # Errors
/// If the model is no decoder or has too few positions.
pub fn run_once(engine: &Engine, work: Work, depth: usize) -> Result<f64> {
    let vocab = engine.spec().vocab_size as u32;
    let id = |index: usize| (index as u32).wrapping_mul(2_654_435_761) % vocab;
    let mut session = engine.session();
    if depth > 0 {
        let prompt: Vec<u32> = (0..depth).map(id).collect();
        session.feed(&prompt, |_| {})?;
    }
    let start;
    match work {
        Work::Prompt(tokens) => {
            let prompt: Vec<u32> = (0..tokens).map(id).collect();
            start = Instant::now();
            session.feed(&prompt, |_| {})?;
        }
        Work::Generation(tokens) => {
            start = Instant::now();
            for index in 0..tokens {
                let logits = session.feed(&[id(index)], |_| {})?;
                session.reuse(logits);
            }
        }
    }
    Ok(work.tokens() as f64 / start.elapsed().as_secs_f64())
}
