//! How far the result's predictions are from the original's, with the cache that it will run with.

use ounce_engine::{Engine, Mode};
use ounce_eval::divergence::{self, Report};
use ounce_eval::perplexity::Options;
use ounce_kernels::attention::KvType;
use ounce_model::Model;
use ounce_model::account::Formats;
use ounce_plan::budget::Quality;

use super::super::plan::budget::Asked;
use super::super::quantize::texts::{TextArgs, sequence_length};
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::source;

/// Compares on the test text.
///
/// # Errors
/// If the text can't be read, or one of the models can't be run.
pub fn compare(
    original: &Model,
    small: &Model,
    kv: Option<KvType>,
    asked: &Asked,
    texts: &TextArgs,
) -> anyhow::Result<Report> {
    let documents = texts.test(original)?;
    let load = |model: &Model, kv: Option<KvType>| -> anyhow::Result<Engine> {
        let mut engine = Engine::load(model, Mode::fast())?;
        engine.set_kv_type(kv.unwrap_or_else(|| asked.kv_for(&Formats::of(&model.weights))));
        Ok(engine)
    };
    let (before, after) = (load(original, None)?, load(small, kv)?);
    let context = sequence_length(original);
    let options = Options { context, stride: context, prefix: source::text_start(original) };
    let watch = Watch::start();
    let mut bar = Progress::new("comparing", Unit::Tokens);
    Ok(divergence::compare(&before, &after, &documents, &options, |done, total| {
        bar.set(done as u64, total as u64);
        Ok(watch.check()?)
    })?)
}

/// The measures that budgets name.
pub fn of(report: &Report) -> Quality {
    Quality {
        kl: report.mean_kl.value,
        perplexity_ratio: report.perplexity_ratio,
        top1: report.top1_agreement.value,
    }
}
