//! Idealized runtime: time and cost of any request from a handful of timings (arXiv 2305.02440, section 3).
//!
//! A request of `p` prompt tokens and `o` answer tokens, alone on its machine, takes `T(p, o) = f(p) + g·(o − 1)`: the prompt,
//! which is bound by arithmetic, up to the first token; and a time for each further token, which is bound by memory. On a
//! processor the cache that each token reads shows in longer contexts, so there is a term more, `h · Σ positions`, that is kept
//! where the timings ask for it.
//!
//! `f` is what was measured with one answer token, made monotone and linear between; `g` and `h` are a least-squares fit over
//! all timings together. Each timing should be the fastest of several (*denoised*), so that other programs do not count.

mod demonstrate;

use std::time::Instant;

use ounce_engine::Engine;
use ounce_eval::method::{Family, Method};
use ounce_eval::speed::scattered_ids;
use serde::Serialize;

use crate::{Error, Result};

/// The entry in the catalogue.
pub const METHOD: Method = Method {
    number: 72,
    name: "Idealized runtime",
    family: Family::Planning,
    paper: "Cheaply Evaluating Inference Efficiency Metrics for Autoregressive Transformer APIs",
    arxiv: Some("2305.02440"),
    gives: "A handful of timings predicts time and cost for every prompt and answer length, so that models compare by quality per ideal second.",
    claim: "Runtime is well described by a prompt term and a linear output term, shown on ten models.",
    command: Some("ounce forecast MODEL --timings --request PROMPT:ANSWER"),
    demonstrate: Some(demonstrate::demonstrate),
};

/// What one request took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Timing {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens of the answer.
    pub answer: usize,
    /// Seconds, of the fastest run.
    pub seconds: f64,
}

/// A law of times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fit {
    /// `f`: prompt tokens and seconds to the first token, shortest first.
    pub first: Vec<(usize, f64)>,
    /// `g`: seconds of each further token.
    pub per_token: f64,
    /// `h`: seconds for each position before such a token; 0 where timings show none.
    pub per_token_position: f64,
    /// Share of the variance of `T − f` that `g` and `h` explain.
    pub r_squared: f64,
}

/// Further tokens of an answer, and the positions before them summed.
fn further(prompt: usize, answer: usize) -> (f64, f64) {
    let (steps, prompt) = (answer.saturating_sub(1) as f64, prompt as f64);
    (steps, steps * prompt + steps * (steps + 1.0) / 2.0)
}

impl Fit {
    /// Seconds to the first token of a prompt.
    pub fn first_seconds(&self, prompt: usize) -> f64 {
        let x = prompt as f64;
        let at = self.first.partition_point(|&(tokens, _)| tokens < prompt);
        let line = |(x0, y0): (usize, f64), (x1, y1): (usize, f64)| {
            y0 + (y1 - y0) * (x - x0 as f64) / (x1 as f64 - x0 as f64).max(1.0)
        };
        match (at, self.first.len()) {
            (_, 0) => 0.0,
            (_, 1) => self.first[0].1,
            // Shorter than all: a prompt is no faster than the shortest.
            (0, _) => self.first[0].1,
            (at, len) => line(self.first[at.min(len - 1) - 1], self.first[at.min(len - 1)]),
        }
    }

    /// Seconds of a request.
    pub fn seconds(&self, prompt: usize, answer: usize) -> f64 {
        let (steps, positions) = further(prompt, answer);
        self.first_seconds(prompt) + self.per_token * steps + self.per_token_position * positions
    }

    /// What a request costs on so many machines at a price for an hour.
    pub fn cost(&self, prompt: usize, answer: usize, machines: f64, hour_price: f64) -> f64 {
        self.seconds(prompt, answer) / 3600.0 * machines * hour_price
    }
}

/// Requests to time: five prompt lengths up to the longest, three answer lengths each.
pub fn grid(longest_prompt: usize, longest_answer: usize) -> Vec<(usize, usize)> {
    let mut prompts: Vec<usize> = (0..=4).map(|quarter| (longest_prompt * quarter / 4).max(1)).collect();
    prompts.dedup();
    let mut answers = vec![1, (longest_answer / 4).max(2), longest_answer.max(3)];
    answers.dedup();
    prompts.iter().flat_map(|&prompt| answers.iter().map(move |&answer| (prompt, answer))).collect()
}

/// Fits the law.
///
/// # Errors
/// If a prompt length has no timing with one answer token, or no timing has more than one.
pub fn fit(timings: &[Timing]) -> Result<Fit> {
    let mut first: Vec<(usize, f64)> =
        timings.iter().filter(|it| it.answer == 1).map(|it| (it.prompt, it.seconds)).collect();
    first.sort_by_key(|&(prompt, _)| prompt);
    let mut least = 0.0f64;
    for (_, seconds) in &mut first {
        least = least.max(*seconds);
        *seconds = least;
    }
    let rest: Vec<(f64, f64, f64)> = timings
        .iter()
        .filter(|it| it.answer > 1)
        .filter_map(|it| {
            let (_, own) = first.iter().find(|(prompt, _)| *prompt == it.prompt)?;
            let (steps, positions) = further(it.prompt, it.answer);
            Some((steps, positions, it.seconds - own))
        })
        .collect();
    if rest.is_empty() || first.is_empty() {
        let what = "timings should hold each prompt with one answer token, and some with more";
        return Err(Error::Option(what.to_string()));
    }
    let sum = |term: fn(&(f64, f64, f64)) -> f64| rest.iter().map(term).sum::<f64>();
    let (ss, sp, pp) = (sum(|it| it.0 * it.0), sum(|it| it.0 * it.1), sum(|it| it.1 * it.1));
    let (sy, py) = (sum(|it| it.0 * it.2), sum(|it| it.1 * it.2));
    let determinant = ss * pp - sp * sp;
    let both = ((sy * pp - py * sp) / determinant, (py * ss - sy * sp) / determinant);
    // A term that would make longer contexts faster, or the first step free, is noise.
    let sound = determinant > 1e-9 * ss * pp && both.0 > 0.0 && both.1 > 0.0;
    let (per_token, per_token_position) = if sound { both } else { (sy / ss, 0.0) };
    let mean = sum(|it| it.2) / rest.len() as f64;
    let spread: f64 = rest.iter().map(|it| (it.2 - mean).powi(2)).sum();
    let left: f64 = rest.iter().map(|it| (it.2 - per_token * it.0 - per_token_position * it.1).powi(2)).sum();
    let r_squared = if spread > 0.0 { 1.0 - left / spread } else { 0.0 };
    Ok(Fit { first, per_token, per_token_position, r_squared })
}

/// Runs one request alone; seconds until its last token is known.
///
/// # Errors
/// If the model is no decoder or has too few positions.
pub fn run_request(engine: &Engine, prompt: usize, answer: usize) -> Result<f64> {
    let ids = scattered_ids(engine.spec().vocab_size, 0..prompt + answer);
    let mut session = engine.session();
    let start = Instant::now();
    let mut logits = session.feed(&ids[..prompt], |_| {})?;
    for id in ids[prompt..].chunks(1).take(answer.saturating_sub(1)) {
        session.reuse(logits);
        logits = session.feed(id, |_| {})?;
    }
    std::hint::black_box(&logits);
    Ok(start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_law_that_made_the_timings_is_found_again() {
        let truth = Fit {
            first: vec![(1, 0.01), (100, 0.05), (400, 0.3)],
            per_token: 0.004,
            per_token_position: 2e-6,
            r_squared: 1.0,
        };
        let mut timings = Vec::new();
        for prompt in [400, 1, 100] {
            for answer in [1, 5, 40] {
                timings.push(Timing { prompt, answer, seconds: truth.seconds(prompt, answer) });
            }
        }
        let found = fit(&timings).unwrap();
        assert!((found.per_token - 0.004).abs() < 1e-9 && (found.per_token_position - 2e-6).abs() < 1e-12);
        assert!(found.r_squared > 0.999_999);
        for (prompt, answer) in [(50, 7), (250, 90), (800, 2), (1, 1)] {
            let (found, truth) = (found.seconds(prompt, answer), truth.seconds(prompt, answer));
            assert!((found - truth).abs() < 1e-9, "{prompt}:{answer}");
        }
        assert!((found.cost(100, 1, 2.0, 3.6) - 0.05 * 2.0 * 0.001).abs() < 1e-12);
    }

    #[test]
    fn first_tokens_never_come_sooner_for_longer_prompts() {
        let timing = |prompt, answer, seconds| Timing { prompt, answer, seconds };
        let found = fit(&[timing(1, 1, 0.2), timing(64, 1, 0.1), timing(64, 3, 0.3)]).unwrap();
        assert_eq!(found.first, [(1, 0.2), (64, 0.2)]);
        assert!(fit(&[timing(1, 1, 0.2)]).is_err() && fit(&[timing(1, 4, 0.2)]).is_err());
    }

    #[test]
    fn a_grid_is_a_handful() {
        assert_eq!(grid(512, 32).len(), 15);
        assert!(grid(1, 1).iter().all(|&(prompt, answer)| prompt > 0 && answer > 0));
    }
}
