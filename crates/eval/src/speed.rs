//! Speed of an engine: prompt processing (`pp512`: tokens a second for a prompt of 512), generation (`tg128`: tokens a
//! second for 128 single steps), generation of several sequences at once (`tg128x8`) and steps that check drafted tokens
//! (`draft8`: eight tokens and the logits of each), as tools of the field name them. Token ids are arbitrary.

use std::ops::Range;
use std::time::Instant;

use ounce_engine::{Engine, Profile, Result, Turn, Want};
use serde::Serialize;

/// What to measure.
#[derive(Debug, Clone, Serialize)]
pub struct SpeedOptions {
    /// Prompt lengths.
    pub prompts: Vec<usize>,
    /// Numbers of single steps.
    pub generations: Vec<usize>,
    /// Numbers of sequences that generate at once, as many steps as the first of `generations` says.
    pub sequences: Vec<usize>,
    /// Numbers of drafted tokens that a step checks.
    pub drafts: Vec<usize>,
    /// Tokens that lie in the cache before a generation begins.
    pub depth: usize,
    /// Runs of each, after one to warm up.
    pub repetitions: usize,
}

impl Default for SpeedOptions {
    fn default() -> SpeedOptions {
        SpeedOptions {
            prompts: vec![512],
            generations: vec![128],
            sequences: Vec::new(),
            drafts: Vec::new(),
            depth: 0,
            repetitions: 5,
        }
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
    /// So many steps of several sequences at once.
    Batch {
        /// Steps.
        steps: usize,
        /// Sequences.
        sequences: usize,
    },
    /// Steps of so many tokens with the logits of each.
    Draft(usize),
}

/// Steps of [`Work::Draft`] in a run: enough to be timed.
const DRAFT_STEPS: usize = 16;

impl Work {
    /// The usual name: `pp512`, `tg128`, `tg128x8`, `draft8`.
    pub fn name(self) -> String {
        match self {
            Work::Prompt(tokens) => format!("pp{tokens}"),
            Work::Generation(tokens) => format!("tg{tokens}"),
            Work::Batch { steps, sequences } => format!("tg{steps}x{sequences}"),
            Work::Draft(tokens) => format!("draft{tokens}"),
        }
    }

    /// Tokens it handles.
    pub fn tokens(self) -> usize {
        match self {
            Work::Prompt(tokens) | Work::Generation(tokens) => tokens,
            Work::Batch { steps, sequences } => steps * sequences,
            Work::Draft(tokens) => tokens * DRAFT_STEPS,
        }
    }

    /// Forward passes it takes, if the prompt is run as a whole.
    pub fn steps(self) -> usize {
        match self {
            Work::Prompt(_) => 1,
            Work::Generation(steps) | Work::Batch { steps, .. } => steps,
            Work::Draft(_) => DRAFT_STEPS,
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
        let generations = self.generations.iter().map(|&tokens| Work::Generation(tokens));
        let steps = self.generations.first().copied().unwrap_or(128);
        let batches = self.sequences.iter().map(|&sequences| Work::Batch { steps, sequences });
        let drafts = self.drafts.iter().map(|&tokens| Work::Draft(tokens));
        prompts.chain(generations).chain(batches).chain(drafts).collect()
    }
}

/// How one run of a piece of work went.
#[derive(Debug, Clone)]
pub struct Run {
    /// Tokens a second.
    pub tokens_per_second: f64,
    /// Where the time went, if that was asked for.
    pub profile: Option<Profile>,
}

/// Token ids all over a vocabulary, for work whose time does not depend on what they say.
pub fn scattered_ids(vocab: usize, places: Range<usize>) -> Vec<u32> {
    places.map(|place| (place as u32).wrapping_mul(2_654_435_761) % vocab as u32).collect()
}

/// Does one piece of work once. `measure` also notes where the time goes, which takes some itself.
///
/// # Errors
/// If the model is no decoder or has too few positions.
pub fn run_once(engine: &Engine, work: Work, depth: usize, measure: bool) -> Result<Run> {
    let ids = |from: usize, count: usize| scattered_ids(engine.spec().vocab_size, from..from + count);
    let count = if let Work::Batch { sequences, .. } = work { sequences } else { 1 };
    let mut sessions: Vec<_> = (0..count).map(|_| engine.session()).collect();
    let mut batch = engine.batch();
    if depth > 0 {
        for (index, session) in sessions.iter_mut().enumerate() {
            session.feed(&ids(index, depth), |_| {})?;
        }
    }
    if measure {
        sessions[0].measure();
        batch.measure();
    }
    let prompt = ids(0, work.tokens());
    let start = Instant::now();
    match work {
        Work::Prompt(_) => {
            sessions[0].feed(&prompt, |_| {})?;
        }
        Work::Generation(_) => {
            for token in prompt.chunks(1) {
                let logits = sessions[0].feed(token, |_| {})?;
                sessions[0].reuse(logits);
            }
        }
        Work::Batch { sequences, .. } => {
            for tokens in prompt.chunks(sequences) {
                let turns = sessions.iter_mut().zip(tokens.chunks(1));
                let mut turns: Vec<_> =
                    turns.map(|(session, ids)| Turn { session, ids, want: Want::Last }).collect();
                batch.step(&mut turns)?;
            }
        }
        Work::Draft(tokens) => {
            for ids in prompt.chunks(tokens) {
                let session = &mut sessions[0];
                batch.step(&mut [Turn { session, ids, want: Want::All }])?;
            }
        }
    }
    let tokens_per_second = work.tokens() as f64 / start.elapsed().as_secs_f64();
    let profile = match work {
        Work::Prompt(_) | Work::Generation(_) => sessions[0].profile(),
        Work::Batch { .. } | Work::Draft(_) => batch.profile(),
    };
    Ok(Run { tokens_per_second, profile: profile.cloned() })
}
