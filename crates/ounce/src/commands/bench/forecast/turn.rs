//! One model's prompts and tokens, measured in a process of its own.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use ounce_engine::{Cost, Engine, Mode, Operator, Profile};
use ounce_eval::speed::scattered_ids;
use ounce_eval::stats::quantile;
use ounce_kernels::pool::Pool;
use ounce_model::Model;
use ounce_model::account::Formats;
use ounce_model::machine::{cpu_time, host};
use serde::{Deserialize, Serialize};

use crate::compute;

/// What was measured of a model.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Turn {
    /// By prompt, the shortest first.
    pub prompts: Vec<Found>,
    /// Share of the time in which the threads had a core each.
    pub cpu_share: Option<f64>,
}

/// What was measured of a prompt and the tokens behind it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Found {
    pub prompt: usize,
    /// Resident bytes at most so far.
    pub peak_bytes: u64,
    pub cache_bytes: u64,
    /// Seconds to the first token, of each round.
    pub first: Vec<f64>,
    /// Seconds of a further token, the median of each round.
    pub tokens: Vec<f64>,
    /// What the meter counted in one prompt, and in the tokens behind it.
    pub prompt_parts: Vec<Part>,
    pub token_parts: Vec<Part>,
}

/// One kind of work.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Part {
    pub operator: Operator,
    pub seconds: f64,
    pub bytes: u64,
    pub operations: u64,
}

fn parts(profile: Option<&Profile>) -> Vec<Part> {
    let part = |(operator, cost): (Operator, Cost)| Part {
        operator,
        seconds: cost.seconds,
        bytes: cost.bytes,
        operations: cost.operations,
    };
    profile.into_iter().flat_map(Profile::costs).map(part).collect()
}

/// Measures.
///
/// # Errors
/// If the model can't be run, or the system does not tell memory.
pub(super) fn run(file: &Path, prompts: &[usize], steps: usize, rounds: usize) -> anyhow::Result<Turn> {
    let model = Model::open(file)?;
    let mut engine = Engine::load(&model, Mode::fast())?;
    engine.set_kv_type(compute::usual_kv_type(&Formats::of(&model.weights), Mode::fast()));
    drop(model);
    let mut found = Vec::new();
    let (wall, cpu) = (Instant::now(), cpu_time());
    for &prompt in prompts {
        let ids = scattered_ids(engine.spec().vocab_size, 0..prompt + steps);
        let mut session = engine.session();
        let (mut first, mut tokens) = (Vec::new(), Vec::new());
        let mut once = |look: bool| -> anyhow::Result<[Vec<Part>; 2]> {
            session.truncate(0);
            if look {
                session.measure();
            }
            let start = Instant::now();
            let logits = session.feed(&ids[..prompt], |_| {})?;
            session.reuse(logits);
            if !look {
                first.push(start.elapsed().as_secs_f64());
            }
            let prompt_parts = parts(session.profile().filter(|_| look));
            if look {
                session.measure();
            }
            let mut times = Vec::with_capacity(steps);
            for id in ids[prompt..].chunks(1) {
                let start = Instant::now();
                let logits = session.feed(id, |_| {})?;
                session.reuse(logits);
                times.push(start.elapsed().as_secs_f64());
            }
            if !look {
                tokens.push(quantile(&times, 0.5));
            }
            Ok([prompt_parts, parts(session.profile().filter(|_| look))])
        };
        for _ in 0..rounds {
            once(false)?;
        }
        // Last, since looking takes time.
        let [prompt_parts, token_parts] = once(true)?;
        let peak_bytes = host::resident_bytes().1.context("peak memory is known on Linux only")?;
        let cache_bytes = session.cache_bytes() as u64;
        found.push(Found { prompt, peak_bytes, cache_bytes, first, tokens, prompt_parts, token_parts });
    }
    let wanted = wall.elapsed().as_secs_f64() * Pool::global().threads() as f64;
    let cpu_share = match (cpu, cpu_time()) {
        (Some(before), Some(after)) => Some((after.saturating_sub(before).as_secs_f64() / wanted).min(1.0)),
        _ => None,
    };
    Ok(Turn { prompts: found, cpu_share })
}
