//! The table at the end: what was saved, and what it cost.

use ounce_engine::{Engine, Mode};
use ounce_eval::divergence::{self, Report as Divergence};
use ounce_eval::perplexity::Options;
use ounce_eval::similarity::{self, Ids};
use ounce_eval::speed::{Work, run_once};
use ounce_model::Model;
use ounce_model::formats::Forecast;
use serde::Serialize;

use super::texts::{TestArgs, sequence_length};
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source, units};

/// Tokens that are generated to measure the speed, and how often.
const SPEED_TOKENS: usize = 32;
const SPEED_RUNS: usize = 3;

/// Sizes, speeds and distances.
#[derive(Debug, Serialize)]
pub struct Closing {
    /// Bytes of the original's weights.
    pub bytes_before: u64,
    /// Bytes of the new file.
    pub bytes: u64,
    /// Bits for each of the original's weights.
    pub bits_before: f64,
    /// The same in the new file, all tensors counted.
    pub bits_per_weight: f64,
    /// Tokens a second in generation, of both; none where the model generates nothing.
    pub tokens_per_second: Option<[f64; 2]>,
    /// How far predictions moved, of models that predict the next token.
    pub divergence: Option<Divergence>,
    /// How far sentence vectors moved, of encoders.
    pub similarity: Option<similarity::Report>,
}

/// Bits a value over all tensors of a file.
pub fn bits_per_weight(forecast: &Forecast) -> f64 {
    let values: f64 = forecast.tensors.iter().map(|it| it.shape.iter().product::<usize>() as f64).sum();
    let bytes: f64 = forecast.tensors.iter().map(|it| it.bytes as f64).sum();
    bytes * 8.0 / values.max(1.0)
}

/// Compares a model with the one that it was made from.
///
/// # Errors
/// If the test text can't be read, or one of the models can't be run.
pub fn compare(original: &Model, model: &Model, test: &TestArgs, bytes: u64) -> anyhow::Result<Closing> {
    let values: f64 = original
        .weights
        .names()
        .filter_map(|name| original.weights.info(name))
        .map(|(_, shape)| shape.iter().product::<usize>() as f64)
        .sum();
    let bits = |bytes: u64| bytes as f64 * 8.0 / values.max(1.0);
    let mut closing = Closing {
        bytes_before: original.weight_bytes(),
        bytes,
        bits_before: bits(original.weight_bytes()),
        bits_per_weight: bits(model.weight_bytes()),
        tokens_per_second: None,
        divergence: None,
        similarity: None,
    };
    if !test.compares() {
        return Ok(closing);
    }
    let load = |model: &Model| Engine::load(model, Mode::fast());
    if !original.spec.causal {
        let sentences = test.sentences(original)?;
        closing.similarity = Some(vectors(&load(original)?, &load(model)?, &sentences)?);
        return Ok(closing);
    }
    let (before, after) = (load(original)?, load(model)?);
    closing.divergence = Some(diverge(original, &before, &after, test)?);
    let context = sequence_length(original);
    // In turn, so that a machine that slows down slows both; the best of each.
    let mut speeds = [0.0f64; 2];
    for _ in 0..SPEED_RUNS {
        for (engine, speed) in [&before, &after].into_iter().zip(&mut speeds) {
            let run = run_once(engine, Work::Generation(SPEED_TOKENS.min(context - 1)), 0, false)?;
            *speed = speed.max(run.tokens_per_second);
        }
    }
    closing.tokens_per_second = Some(speeds);
    Ok(closing)
}

/// How far the predictions of `after` are from those of `before`, the original's, on the test text, with a bar.
///
/// # Errors
/// If the test text can't be read, or one of the models can't be run.
pub fn diverge(
    original: &Model,
    before: &Engine,
    after: &Engine,
    test: &TestArgs,
) -> anyhow::Result<Divergence> {
    let documents = test.documents(original)?;
    let context = sequence_length(original);
    let options = Options { context, stride: context, prefix: source::text_start(original) };
    let watch = Watch::start();
    let mut bar = Progress::new("comparing", Unit::Tokens);
    Ok(divergence::compare(before, after, &documents, &options, |done, total| {
        bar.set(done as u64, total as u64);
        Ok(watch.check()?)
    })?)
}

fn vectors(before: &Engine, after: &Engine, sentences: &[Ids]) -> anyhow::Result<similarity::Report> {
    let watch = Watch::start();
    let mut bar = Progress::new("comparing", Unit::Items);
    Ok(similarity::compare(before, after, sentences, |done, total| {
        bar.set(done as u64, total as u64);
        Ok(watch.check()?)
    })?)
}

impl Closing {
    /// Prints the table; `made` is what the second model is called.
    ///
    /// # Errors
    /// As [`output::print_table`].
    pub fn print(&self, made: &str) -> anyhow::Result<()> {
        let mut table = output::table(&["", "original", made]);
        table.add_row(["bytes", &units::bytes(self.bytes_before), &units::bytes(self.bytes)]);
        table.add_row([
            "bits a weight",
            &format!("{:.2}", self.bits_before),
            &format!("{:.2}", self.bits_per_weight),
        ]);
        if let Some(found) = &self.divergence {
            let perplexity = |value: f64| format!("{value:.4}");
            table.add_row([
                "perplexity",
                &perplexity(found.original_perplexity.value),
                &perplexity(found.perplexity.value),
            ]);
            table.add_row(["KL to the original, mean", "0", &format!("{:.5}", found.mean_kl.value)]);
            table.add_row(["KL, 99th percentile", "0", &format!("{:.5}", found.p99_kl)]);
            table.add_row([
                "same top token",
                "100 %",
                &format!("{:.2} %", found.top1_agreement.value * 100.0),
            ]);
        }
        if let Some(found) = &self.similarity {
            let rows = [
                ("cosine to the original's vectors, mean", "1", format!("{:.5}", found.mean_cosine)),
                ("cosine, least", "1", format!("{:.5}", found.least_cosine)),
                ("same nearest text", "100 %", format!("{:.1} %", found.same_nearest * 100.0)),
            ];
            rows.into_iter().for_each(|(what, before, after)| {
                table.add_row([what, before, &after]);
            });
        }
        if let Some([before, after]) = self.tokens_per_second {
            table.add_row(["tokens/s", &format!("{before:.0}"), &format!("{after:.0}")]);
        }
        output::print_table(&table)
    }
}
