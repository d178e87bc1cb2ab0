//! How far the result's predictions are from the original's, with the cache that it will run with.

use ounce_engine::{Engine, Mode};
use ounce_eval::divergence::Report;
use ounce_kernels::attention::KvType;
use ounce_model::Model;
use ounce_model::account::Formats;

use super::super::plan::budget::Asked;
use super::super::quantize::closing::diverge;
use super::super::quantize::texts::TestArgs;

/// Compares on the test text.
///
/// # Errors
/// If the text can't be read, or one of the models can't be run.
pub fn compare(
    original: &Model,
    small: &Model,
    kv: Option<KvType>,
    asked: &Asked,
    test: &TestArgs,
) -> anyhow::Result<Report> {
    let load = |model: &Model, kv: Option<KvType>| -> anyhow::Result<Engine> {
        let mut engine = Engine::load(model, Mode::fast())?;
        engine.set_kv_type(kv.unwrap_or_else(|| asked.kv_for(&Formats::of(&model.weights))));
        Ok(engine)
    };
    diverge(original, &load(original, None)?, &load(small, kv)?, test)
}
