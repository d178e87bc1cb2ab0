//! From logits to the next token: penalties, temperature, top-k, top-p, min-p, and a seeded draw.
//!
//! The order is that of common tools: penalties on the logits, then top-k, then temperature, then top-p and
//! min-p on the resulting probabilities. Log-probabilities are of the model's own distribution, before all
//! of this.

use std::collections::HashMap;

use ounce_kernels::softmax::log_sum_exp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Keeps the `top_k` likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of likeliest tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Drops tokens less likely than this share of the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen before; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Subtracted once from the logits of tokens seen before.
    pub presence_penalty: f32,
    /// Subtracted from the logits of tokens seen before, once for each time.
    pub frequency_penalty: f32,
    /// Makes the draw repeatable.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Always the likeliest token.
    pub fn greedy() -> Sampling {
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, ..Sampling::default() }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the option that is out of its range.
    pub fn check(&self) -> Result<()> {
        let bad = |what: String| Err(Error::Option(what));
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return bad(format!("temperature should be 0 or more, found {}", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return bad(format!("top-p should be above 0 and at most 1, found {}", self.top_p));
        }
        if !(self.min_p >= 0.0 && self.min_p <= 1.0) {
            return bad(format!("min-p should be within 0 and 1, found {}", self.min_p));
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return bad(format!("repetition penalty should be above 0, found {}", self.repetition_penalty));
        }
        if !(self.presence_penalty.is_finite() && self.frequency_penalty.is_finite()) {
            return bad("presence and frequency penalties should be finite numbers".to_string());
        }
        Ok(())
    }
}

/// A token and the natural logarithm of its probability under the model.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// Natural logarithm of its probability, before temperature and truncation.
    pub logprob: f32,
}

/// The `count` likeliest tokens, likeliest first, and `chosen`'s own log-probability.
pub fn logprobs(logits: &[f32], chosen: u32, count: usize) -> (TokenLogprob, Vec<TokenLogprob>) {
    let total = log_sum_exp(logits);
    let of = |id: u32| TokenLogprob { id, logprob: (f64::from(logits[id as usize]) - total) as f32 };
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if count < order.len() {
        order.select_nth_unstable_by(count, by_logit);
        order.truncate(count);
    }
    order.sort_by(by_logit);
    (of(chosen), order.into_iter().map(of).collect())
}

/// Tokens that are sorted at once; more are sorted only as far as a draw looks.
const MANY: usize = 256;

/// Chooses tokens; keeps the random state and the counts that penalties need.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: Sampling,
    random: ChaCha8Rng,
    seen: HashMap<u32, u32>,
    /// Ids from here on are padding rows of the embedding, which no tokenizer has.
    vocab_limit: usize,
}

impl Sampler {
    /// A sampler over ids below `vocab_limit`, the tokenizer's real vocabulary.
    ///
    /// # Errors
    /// If an option is out of its range.
    pub fn new(options: Sampling, vocab_limit: usize) -> Result<Sampler> {
        options.check()?;
        let random = ChaCha8Rng::seed_from_u64(options.seed);
        Ok(Sampler { options, random, seen: HashMap::new(), vocab_limit })
    }

    /// Counts a token of the prompt or of the answer for the penalties.
    pub fn observe(&mut self, id: u32) {
        *self.seen.entry(id).or_insert(0) += 1;
    }

    /// Chooses a token by its logits; the first index wins among equals. Does not observe it.
    pub fn choose(&mut self, logits: &[f32]) -> u32 {
        self.choose_among(logits, |_| {})
    }

    /// As [`Sampler::choose`], among logits that `adjust` may raise, lower, or forbid with negative infinity, after
    /// the penalties.
    pub fn choose_among(&mut self, logits: &[f32], adjust: impl FnOnce(&mut [f32])) -> u32 {
        let mut logits = logits[..logits.len().min(self.vocab_limit)].to_vec();
        self.penalise(&mut logits);
        adjust(&mut logits);
        if self.options.temperature == 0.0 {
            return greatest(&logits);
        }
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        let keep = self.options.top_k;
        if keep > 0 && keep < order.len() {
            order.select_nth_unstable_by(keep, by_logit);
            order.truncate(keep);
        }
        if order.len() > MANY {
            return self.choose_of_many(&logits, order);
        }
        order.sort_unstable_by(by_logit);
        let top = f64::from(logits[order[0] as usize]);
        let temperature = f64::from(self.options.temperature);
        let mut weights: Vec<f64> =
            order.iter().map(|&id| ((f64::from(logits[id as usize]) - top) / temperature).exp()).collect();
        self.truncate_tail(&mut weights);
        order[draw(&weights, self.random.random::<f64>())]
    }

    /// The same draw where sorting all tokens would take longer than all else: the likeliest are sorted piece by piece,
    /// as far as the draw looks.
    fn choose_of_many(&mut self, logits: &[f32], mut order: Vec<u32>) -> u32 {
        let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        let top = logits.iter().fold(f32::NEG_INFINITY, |top, &logit| top.max(logit));
        let scale = 1.0 / f64::from(self.options.temperature);
        let weight = |id: u32| ((f64::from(logits[id as usize]) - f64::from(top)) * scale).exp();
        let total: f64 = order.iter().map(|&id| weight(id)).sum();
        let at = self.random.random::<f64>();
        let (top_p, min_p) = (f64::from(self.options.top_p), f64::from(self.options.min_p));
        // With nothing to cut off, the draw itself says how far to look.
        let enough = if top_p < 1.0 || min_p > 0.0 { top_p * total } else { at * total };
        let (mut weights, mut sum, mut sorted): (Vec<f64>, f64, usize) = (Vec::new(), 0.0, 0);
        'sorting: while sorted < order.len() {
            let piece = (order.len() - sorted).min(MANY.max(sorted));
            if sorted + piece < order.len() {
                order[sorted..].select_nth_unstable_by(piece, by_logit);
            }
            order[sorted..sorted + piece].sort_unstable_by(by_logit);
            for &id in &order[sorted..sorted + piece] {
                let weight = weight(id);
                // The rest is as unlikely, or forbidden.
                if (weight < min_p || weight == 0.0) && !weights.is_empty() {
                    break 'sorting;
                }
                weights.push(weight);
                sum += weight;
                if sum >= enough && sum > 0.0 {
                    break 'sorting;
                }
            }
            sorted += piece;
        }
        if top_p < 1.0 || min_p > 0.0 { order[draw(&weights, at)] } else { order[weights.len() - 1] }
    }

    fn penalise(&self, logits: &mut [f32]) {
        let options = &self.options;
        for (&id, &count) in &self.seen {
            let Some(logit) = logits.get_mut(id as usize) else { continue };
            *logit = if *logit > 0.0 {
                *logit / options.repetition_penalty
            } else {
                *logit * options.repetition_penalty
            };
            *logit -= options.presence_penalty + options.frequency_penalty * count as f32;
        }
    }

    /// Cuts descending weights by top-p and min-p; at least one stays.
    fn truncate_tail(&self, weights: &mut Vec<f64>) {
        let total: f64 = weights.iter().sum();
        if self.options.top_p < 1.0 {
            let wanted = f64::from(self.options.top_p) * total;
            let mut sum = 0.0;
            let enough = weights.iter().position(|weight| {
                sum += weight;
                sum >= wanted
            });
            weights.truncate(enough.map_or(weights.len(), |last| last + 1));
        }
        let least = f64::from(self.options.min_p) * weights[0];
        let kept = weights.iter().take_while(|&&weight| weight >= least).count();
        weights.truncate(kept.max(1));
    }
}

/// The index of the greatest value, the first among equals.
fn greatest(values: &[f32]) -> u32 {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best as u32
}

/// The index in which a point `at` of `0..1` falls when the weights share that line.
fn draw(weights: &[f64], at: f64) -> usize {
    let mut rest = at * weights.iter().sum::<f64>();
    for (index, weight) in weights.iter().enumerate() {
        rest -= weight;
        if rest < 0.0 {
            return index;
        }
    }
    // Rounding may leave a rest; what has no weight is never drawn.
    weights.iter().rposition(|&weight| weight > 0.0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [0.0, 2.0, 1.0, -1.0];

    fn counts(options: Sampling, draws: usize) -> [usize; 4] {
        let mut sampler = Sampler::new(options, 4).expect("options are in range");
        let mut counts = [0; 4];
        (0..draws).for_each(|_| counts[sampler.choose(&LOGITS) as usize] += 1);
        counts
    }

    fn plain() -> Sampling {
        Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, ..Sampling::default() }
    }

    #[test]
    fn draws_follow_the_softmax() {
        let counts = counts(plain(), 20_000);
        let total: f64 = LOGITS.iter().map(|&logit| f64::from(logit).exp()).sum();
        for (count, logit) in counts.iter().zip(LOGITS) {
            let expected = 20_000.0 * f64::from(logit).exp() / total;
            // Five standard deviations of a binomial.
            assert!((*count as f64 - expected).abs() < 5.0 * expected.sqrt(), "{count} against {expected}");
        }
    }

    #[test]
    fn truncations_keep_the_likeliest() {
        assert_eq!(counts(Sampling { top_k: 1, ..plain() }, 50), [0, 50, 0, 0]);
        assert_eq!(counts(Sampling { top_p: 0.5, ..plain() }, 50), [0, 50, 0, 0]);
        let two = counts(Sampling { min_p: 0.3, ..plain() }, 400);
        assert!(two[0] == 0 && two[1] > 0 && two[2] > 0 && two[3] == 0, "{two:?}");
        assert_eq!(counts(Sampling::greedy(), 5), [0, 5, 0, 0]);
    }

    #[test]
    fn penalties_move_seen_tokens_down() {
        let options = Sampling { frequency_penalty: 0.6, temperature: 0.0, ..plain() };
        let mut sampler = Sampler::new(options, 4).expect("options are in range");
        sampler.observe(1);
        assert_eq!(sampler.choose(&LOGITS), 1);
        sampler.observe(1);
        assert_eq!(sampler.choose(&LOGITS), 2);
    }

    #[test]
    fn padding_rows_are_never_chosen_and_seeds_repeat() {
        let mut sampler = Sampler::new(Sampling::greedy(), 1).expect("options are in range");
        assert_eq!(sampler.choose(&LOGITS), 0);
        assert_eq!(counts(plain(), 100), counts(plain(), 100));
        assert!(Sampler::new(Sampling { top_p: 0.0, ..plain() }, 4).is_err());
    }

    #[test]
    fn draws_of_many_tokens_are_those_of_all_sorted() {
        let logits: Vec<f32> = (0..5000u32).map(|id| (id * 7919 % 5000) as f32 / 600.0).collect();
        for (top_p, min_p, temperature) in
            [(1.0, 0.0, 1.0), (0.9, 0.0, 0.7), (1.0, 0.02, 1.3), (0.5, 0.1, 2.0)]
        {
            let options = Sampling { top_p, min_p, temperature, seed: 3, ..plain() };
            let mut sampler = Sampler::new(options.clone(), 5000).expect("options are in range");
            let mut random = ChaCha8Rng::seed_from_u64(3);
            let mut order: Vec<u32> = (0..5000).collect();
            order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
            let top = f64::from(logits[order[0] as usize]);
            let weight = |id: u32| ((f64::from(logits[id as usize]) - top) / f64::from(temperature)).exp();
            let mut weights: Vec<f64> = order.iter().map(|&id| weight(id)).collect();
            sampler.truncate_tail(&mut weights);
            for _ in 0..500 {
                let expected = order[draw(&weights, random.random::<f64>())];
                assert_eq!(sampler.choose(&logits), expected, "{options:?}");
            }
        }
    }

    #[test]
    fn forbidden_tokens_are_never_drawn_and_raised_ones_are() {
        let mut sampler = Sampler::new(plain(), 4).expect("options are in range");
        let only_last = |logits: &mut [f32]| logits[..3].fill(f32::NEG_INFINITY);
        assert!((0..100).all(|_| sampler.choose_among(&LOGITS, only_last) == 3));
        let mut greedy = Sampler::new(Sampling::greedy(), 4).expect("options are in range");
        assert_eq!(greedy.choose_among(&LOGITS, |logits| logits[0] += 5.0), 0);
    }

    #[test]
    fn logprobs_are_of_the_whole_distribution() {
        let (chosen, top) = logprobs(&LOGITS, 2, 2);
        let total: f64 = LOGITS.iter().map(|&logit| f64::from(logit).exp()).sum();
        assert!((f64::from(chosen.logprob) - (1.0 - total.ln())).abs() < 1e-6);
        assert_eq!([top[0].id, top[1].id], [1, 2]);
    }
}
