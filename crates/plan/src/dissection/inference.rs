//! A prompt and tokens of an answer, with weight formats, cache types and modes.

use std::time::Instant;

use ounce_engine::{Engine, Mode, Operator, Profile};
use ounce_eval::speed::scattered_ids;
use ounce_kernels::DType;
use ounce_kernels::attention::KvType;
use ounce_model::Model;

/// A combination of techniques.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// Quantize the weights to this at load, and use the fast kernels; without it the reference mode.
    pub weights: Option<DType>,
    /// How keys and values are cached.
    pub kv: KvType,
}

/// What a prompt and a token took.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Seconds of the prompt.
    pub prompt: f64,
    /// Seconds of a further token.
    pub token: f64,
    /// Bytes of packed weights.
    pub packed_bytes: usize,
    /// Bytes of the cache.
    pub cache_bytes: usize,
    /// Seconds of each kind of work in one prompt, and the seconds of that prompt.
    pub prompt_parts: (Vec<(Operator, f64)>, f64),
    /// The same of some tokens.
    pub token_parts: (Vec<(Operator, f64)>, f64),
}

impl Answer {
    /// Share of a phase's time that kinds of work take.
    pub fn share((parts, all): &(Vec<(Operator, f64)>, f64), of: impl Fn(Operator) -> bool) -> f64 {
        parts.iter().filter(|(operator, _)| of(*operator)).map(|(_, seconds)| seconds).sum::<f64>() / all
    }
}

/// Steps of an answer.
const STEPS: usize = 8;

/// Runs a prompt of `length` tokens and some further ones; times are the fastest of `runs` after one that is looked into.
///
/// # Errors
/// If the model can't be run.
pub fn answer(model: &Model, flags: Flags, length: usize, runs: usize) -> crate::Result<Answer> {
    let mode = flags.weights.map_or(Mode::Reference, |dtype| Mode::Fast { quantize: Some(dtype) });
    let mut engine = Engine::load(model, mode)?;
    engine.set_kv_type(flags.kv);
    let ids = scattered_ids(model.spec.vocab_size, 0..length + STEPS);
    let (mut prompt, mut token, mut cache_bytes) = (f64::INFINITY, f64::INFINITY, 0);
    let (mut prompt_parts, mut token_parts) = ((Vec::new(), 0.0), (Vec::new(), 0.0));
    let parts = |profile: Option<&Profile>| -> Vec<(Operator, f64)> {
        let costs = profile.into_iter().flat_map(Profile::costs);
        costs.map(|(operator, cost)| (operator, cost.seconds)).collect()
    };
    for run in 0..=runs + 1 {
        // One to warm up, one that is looked into.
        let look = run == 1;
        let mut session = engine.session();
        if look {
            session.measure();
        }
        let start = Instant::now();
        let logits = session.feed(&ids[..length], |_| {})?;
        session.reuse(logits);
        let first = start.elapsed().as_secs_f64();
        if look {
            prompt_parts = (parts(session.profile()), first);
            session.measure();
        }
        let mut all = 0.0;
        for id in ids[length..].chunks(1) {
            let start = Instant::now();
            let logits = session.feed(id, |_| {})?;
            session.reuse(logits);
            let seconds = start.elapsed().as_secs_f64();
            all += seconds;
            if run > 1 {
                token = token.min(seconds);
            }
        }
        if look {
            token_parts = (parts(session.profile()), all);
        } else if run > 1 {
            prompt = prompt.min(first);
        }
        cache_bytes = session.cache_bytes();
    }
    Ok(Answer { prompt, token, packed_bytes: engine.packed_bytes(), cache_bytes, prompt_parts, token_parts })
}
