//! How far a model's predictions are from those of the original that it was made from.
//!
//! Both are led over the same windows as in [`crate::perplexity`]. Every predicted token gives the divergence
//! `KL(original || model) = Σ p_original · ln(p_original / p_model)` in nats, over the whole vocabulary; it is 0 only
//! where both predict the same, while perplexities can be equal by chance. [`compare`] runs both models side by
//! side; [`Reference`] keeps the original's logits, so that many models are compared with one run of the original.

use ounce_engine::{Engine, Error, Result};
use ounce_kernels::pool::Pool;
use serde::Serialize;

use crate::perplexity::{Estimate, Options, WindowScore};
use crate::stats::quantile_of_sorted;
use crate::walk::{Plan, Walk, runs_whole};

/// What two models say about one token.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Pair {
    /// KL(original || model) in nats.
    kl: f64,
    /// Whether both hold the same token for the most probable one.
    same_top: bool,
    /// Natural logarithm of the probability that the original gives the token.
    original: f64,
    /// The same of the model.
    model: f64,
}

/// How a model differs from its original over a text. Standard errors are estimated from how the windows differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Tokens predicted.
    pub tokens: usize,
    /// Windows run.
    pub windows: usize,
    /// Mean of KL(original || model) in nats a token.
    pub mean_kl: Estimate,
    /// Half of the tokens have at most this KL, in nats; percentiles are interpolated linearly.
    pub median_kl: f64,
    /// 90 % of the tokens have at most this KL.
    pub p90_kl: f64,
    /// 99 % of the tokens have at most this KL.
    pub p99_kl: f64,
    /// 99.9 % of the tokens have at most this KL.
    pub p999_kl: f64,
    /// The largest KL.
    pub max_kl: f64,
    /// Share of the tokens where both models hold the same token for the most probable one.
    pub top1_agreement: Estimate,
    /// `exp(−log-likelihood / tokens)` of the original.
    pub original_perplexity: Estimate,
    /// The same of the model.
    pub perplexity: Estimate,
    /// The model's perplexity divided by the original's.
    pub perplexity_ratio: f64,
    /// Natural logarithm of that ratio; its error is that of the windows' differences, so that what makes a text
    /// hard for both models is no part of it.
    pub ln_perplexity_ratio: Estimate,
    /// Root of the mean square of the change of the text's token's probability.
    pub rms_probability_change: Estimate,
    /// What the model scored in each window; [`crate::perplexity::Report`] is made of them.
    #[serde(skip)]
    pub scores: Vec<WindowScore>,
}

/// Runs an original and a model side by side over documents. `progress` is told the tokens predicted so far and in
/// all, and may stop the work.
///
/// # Errors
/// If the vocabularies differ in size, there is nothing to predict, and as [`crate::perplexity::score`].
pub fn compare(
    original: &Engine,
    model: &Engine,
    documents: &[Vec<u32>],
    options: &Options,
    mut progress: impl FnMut(usize, usize) -> Result<()>,
) -> Result<Report> {
    let vocab = original.spec().vocab_size;
    check_vocabulary(vocab, model)?;
    let plan = Plan::new(documents, options)?;
    let whole = runs_whole(original) || runs_whole(model);
    let mut tally = Tally::default();
    let mut expected = Vec::new();
    for (ids, window) in plan.windows() {
        let mut originals = Walk::new(original, ids, window, whole)?;
        let mut models = Walk::new(model, ids, window, whole)?;
        tally.windows.push(Vec::with_capacity(window.end - window.first));
        loop {
            expected.clear();
            let more = originals.step(|_, logits| {
                expected.extend_from_slice(logits);
                Ok(())
            })?;
            if !more {
                break;
            }
            let mut rest = expected.as_slice();
            models.step(|targets, logits| {
                let (now, later) = rest.split_at(logits.len());
                rest = later;
                tally.add(targets, now, logits, vocab);
                progress(tally.tokens, plan.tokens)
            })?;
        }
    }
    tally.report()
}

/// The logits of an original for a text, kept in memory.
#[derive(Debug)]
pub struct Reference {
    plan: Plan,
    vocab: usize,
    whole: bool,
    /// `[tokens, vocab]`, in the order of the windows.
    logits: Vec<f32>,
}

impl Reference {
    /// Runs the original over documents and keeps its logits: tokens × vocabulary × 4 bytes, of which there may be
    /// `limit`. `progress` is as in [`compare`].
    ///
    /// # Errors
    /// If more bytes than the limit, or than there are, would be needed; and as [`crate::perplexity::score`].
    pub fn of(
        engine: &Engine,
        documents: &[Vec<u32>],
        options: &Options,
        limit: u64,
        mut progress: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<Reference> {
        let plan = Plan::new(documents, options)?;
        let vocab = engine.spec().vocab_size;
        let bytes = plan.tokens as u128 * vocab as u128 * size_of::<f32>() as u128;
        let mut logits = Vec::new();
        if bytes > u128::from(limit) || logits.try_reserve_exact(plan.tokens.saturating_mul(vocab)).is_err() {
            return Err(Error::Option(format!(
                "the original's logits for {} tokens need {bytes} bytes of memory, more than the {limit} they may \
                 have; give a shorter text or a higher limit",
                plan.tokens
            )));
        }
        let whole = runs_whole(engine);
        let mut done = 0;
        for (ids, window) in plan.windows() {
            let mut walk = Walk::new(engine, ids, window, whole)?;
            while walk.step(|targets, some| {
                logits.extend_from_slice(some);
                done += targets.len();
                progress(done, plan.tokens)
            })? {}
        }
        Ok(Reference { plan, vocab, whole, logits })
    }

    /// Bytes of the logits.
    pub fn bytes(&self) -> usize {
        size_of_val(self.logits.as_slice())
    }

    /// Runs a model over the same documents and compares it. `progress` is as in [`compare`].
    ///
    /// # Errors
    /// As [`compare`].
    pub fn compare(
        &self,
        engine: &Engine,
        mut progress: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<Report> {
        check_vocabulary(self.vocab, engine)?;
        let whole = self.whole || runs_whole(engine);
        let mut tally = Tally::default();
        let mut rest = self.logits.as_slice();
        for (ids, window) in self.plan.windows() {
            let mut walk = Walk::new(engine, ids, window, whole)?;
            tally.windows.push(Vec::with_capacity(window.end - window.first));
            while walk.step(|targets, logits| {
                let (now, later) = rest.split_at(logits.len());
                rest = later;
                tally.add(targets, now, logits, self.vocab);
                progress(tally.tokens, self.plan.tokens)
            })? {}
        }
        tally.report()
    }
}

fn check_vocabulary(original: usize, model: &Engine) -> Result<()> {
    let vocab = model.spec().vocab_size;
    if vocab == original {
        return Ok(());
    }
    Err(Error::Unsuitable(format!(
        "the original scores {original} tokens and the model {vocab}, so their predictions can't be compared; name \
         the model that this one was made from"
    )))
}

/// What was found so far.
#[derive(Debug, Default)]
struct Tally {
    windows: Vec<Vec<Pair>>,
    tokens: usize,
}

impl Tally {
    /// Compares `[targets, vocab]` logits, to the last window.
    fn add(&mut self, targets: &[u32], original: &[f32], model: &[f32], vocab: usize) {
        let mut pairs = vec![Pair::default(); targets.len()];
        Pool::global().split_chunks(&mut pairs, 1, |row, pair| {
            let at = row * vocab..(row + 1) * vocab;
            pair[0] = pair_of(&original[at.clone()], &model[at], targets[row] as usize);
        });
        self.tokens += pairs.len();
        if let Some(window) = self.windows.last_mut() {
            window.append(&mut pairs);
        }
    }

    fn report(&self) -> Result<Report> {
        if self.tokens == 0 {
            return Err(Error::Unsuitable("there is nothing to predict; give a longer text".to_string()));
        }
        let mean = |of: &dyn Fn(&Pair) -> f64| {
            let sums = |window: &Vec<Pair>| (window.len(), window.iter().map(of).sum());
            Estimate::of_mean(&self.windows.iter().map(sums).collect::<Vec<_>>())
        };
        let perplexity = |nats: Estimate| nats.with_slope(nats.value.exp(), nats.value.exp());
        let mut kls: Vec<f64> = self.windows.iter().flatten().map(|pair| pair.kl).collect();
        kls.sort_by(f64::total_cmp);
        let ln_ratio = mean(&|pair| pair.original - pair.model);
        let square = mean(&|pair| (pair.model.exp() - pair.original.exp()).powi(2));
        let rms = square.value.sqrt();
        Ok(Report {
            tokens: self.tokens,
            windows: self.windows.len(),
            mean_kl: mean(&|pair| pair.kl),
            median_kl: quantile_of_sorted(&kls, 0.5),
            p90_kl: quantile_of_sorted(&kls, 0.9),
            p99_kl: quantile_of_sorted(&kls, 0.99),
            p999_kl: quantile_of_sorted(&kls, 0.999),
            max_kl: quantile_of_sorted(&kls, 1.0),
            top1_agreement: mean(&|pair| f64::from(u8::from(pair.same_top))),
            original_perplexity: perplexity(mean(&|pair| -pair.original)),
            perplexity: perplexity(mean(&|pair| -pair.model)),
            perplexity_ratio: ln_ratio.value.exp(),
            ln_perplexity_ratio: ln_ratio,
            // Without any change there is no slope, and no error either.
            rms_probability_change: square.with_slope(rms, if rms > 0.0 { 0.5 / rms } else { 0.0 }),
            scores: self.windows.iter().map(|window| score_of(window)).collect(),
        })
    }
}

fn score_of(window: &[Pair]) -> WindowScore {
    WindowScore { tokens: window.len(), log_likelihood: window.iter().map(|pair| pair.model).sum() }
}

/// Compares two rows of finite logits, all in f64. Equal rows give a KL of exactly 0.
fn pair_of(original: &[f32], model: &[f32], target: usize) -> Pair {
    let (top, greatest) = top_of(original);
    let (model_top, model_greatest) = top_of(model);
    let (mut sum, mut weighted, mut model_sum) = (0.0, 0.0, 0.0);
    for (&original, &model) in original.iter().zip(model) {
        let (original, model) = (f64::from(original), f64::from(model));
        let weight = (original - greatest).exp();
        sum += weight;
        weighted += weight * (original - model);
        model_sum += (model - model_greatest).exp();
    }
    let log_sum = greatest + sum.ln();
    let model_log_sum = model_greatest + model_sum.ln();
    Pair {
        // Rounding may take what is nearly 0 below it.
        kl: (weighted / sum + (model_log_sum - log_sum)).max(0.0),
        same_top: top == model_top,
        original: f64::from(original[target]) - log_sum,
        model: f64::from(model[target]) - model_log_sum,
    }
}

/// Place and value of the greatest logit, of equal ones the first.
fn top_of(logits: &[f32]) -> (usize, f64) {
    let mut top = (0, f32::NEG_INFINITY);
    for (place, &logit) in logits.iter().enumerate() {
        if logit > top.1 {
            top = (place, logit);
        }
    }
    (top.0, f64::from(top.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} against {b}");
    }

    #[test]
    fn a_row_is_compared_as_written_out() {
        let (original, model) = ([0.5f32, -1.0, 2.0, 0.0], [1.0f32, 3.0, -0.5, 0.25]);
        let probabilities = |logits: &[f32]| {
            let sum: f64 = logits.iter().map(|&it| f64::from(it).exp()).sum();
            logits.iter().map(|&it| f64::from(it).exp() / sum).collect::<Vec<_>>()
        };
        let (p, q) = (probabilities(&original), probabilities(&model));
        let kl: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
        let pair = pair_of(&original, &model, 1);
        near(pair.kl, kl);
        near(pair.original, p[1].ln());
        near(pair.model, q[1].ln());
        assert!(!pair.same_top && pair_of(&original, &original, 0).same_top);
        // A shift of all logits changes no probability, however large it is.
        let shifted = original.map(|it| it + 4096.0);
        near(pair_of(&original, &shifted, 0).kl, 0.0);
        near(pair_of(&shifted, &model, 1).kl, kl);
    }

    #[test]
    fn extreme_logits_stay_numbers() {
        let pair = pair_of(&[3e38, -3e38, 0.0], &[-3e38, 3e38, 0.0], 0);
        assert!(pair.kl.is_finite() && pair.kl > 1e38 && pair.model < -1e38, "{pair:?}");
        assert_eq!(pair_of(&[1e30; 5], &[1e30; 5], 4).kl, 0.0);
    }

    #[test]
    fn percentiles_are_interpolated() {
        // numpy.percentile of the same values.
        let values = [1.0, 2.0, 4.0, 8.0];
        for (share, expected) in [(0.0, 1.0), (0.5, 3.0), (0.9, 6.8), (0.99, 7.88), (1.0, 8.0)] {
            near(quantile_of_sorted(&values, share), expected);
        }
        assert_eq!(quantile_of_sorted(&[7.0], 0.999), 7.0);
    }

    #[test]
    fn reports_follow_their_formulas() {
        let pair = |kl, same_top, p: f64, q: f64| Pair { kl, same_top, original: p.ln(), model: q.ln() };
        let windows = vec![
            vec![pair(0.1, true, 0.5, 0.25), pair(0.3, false, 0.5, 0.5)],
            vec![pair(0.2, true, 0.25, 0.5), pair(0.4, true, 0.5, 0.125)],
        ];
        let report = Tally { windows, tokens: 4 }.report().expect("a report");
        assert_eq!((report.tokens, report.windows), (4, 2));
        near(report.mean_kl.value, 0.25);
        // Two windows of equal length with means 0.2 and 0.3.
        near(report.mean_kl.stderr.expect("two windows"), 0.05);
        near(report.median_kl, 0.25);
        near(report.max_kl, 0.4);
        near(report.top1_agreement.value, 0.75);
        near(report.top1_agreement.stderr.expect("two windows"), 0.25);
        near(report.original_perplexity.value, 2f64.powf(1.25));
        near(report.perplexity.value, 2f64.powf(1.75));
        near(report.perplexity_ratio, 2f64.powf(0.5));
        // Both windows lose ln 2 over two tokens, so nothing is uncertain.
        near(report.ln_perplexity_ratio.value, 0.5 * 2f64.ln());
        near(report.ln_perplexity_ratio.stderr.expect("two windows"), 0.0);
        near(report.rms_probability_change.value, ((0.0625 + 0.0625 + 0.140625) / 4.0f64).sqrt());
        assert_eq!(report.scores.iter().map(|it| it.tokens).collect::<Vec<_>>(), [2, 2]);
        assert!(Tally::default().report().is_err());
    }
}
