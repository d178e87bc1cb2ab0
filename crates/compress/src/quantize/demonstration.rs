//! What demonstrations of quantizers share.

use ounce_model::{Model, Tensor};
use serde_json::json;

use super::efficient_qat::block_ap::{self, Trained};
use super::{Finished, Method, Plan, Quantizer, Store};
use crate::{Error, Result};

/// The texts of a corpus, each behind the token that begins texts, cut to the model's context.
pub(crate) fn stories(model: &Model, text: &str) -> Result<Vec<Vec<u32>>> {
    let Some(tokenizer) = model.tokenizer.as_ref() else {
        return Err(Error::Option("the built-in model has no tokenizer".into()));
    };
    let encode = |story: &str| {
        let mut ids = tokenizer.encode(story, true)?;
        ids.truncate(model.spec.context_length);
        Ok(ids)
    };
    text.split("\n\n").map(encode).collect()
}

/// The model in the plan's formats, its layers trained if that is asked for; nothing of it lies in files.
pub(crate) fn quantized(
    model: &Model,
    plan: &Plan,
    method: Method,
    calibration: &[Vec<u32>],
    training: Option<block_ap::Options>,
) -> Result<(Model, Vec<Trained>)> {
    let folder = tempfile::tempdir().map_err(ounce_model::Error::io(std::env::temp_dir()))?;
    let store = Store::open(folder.path(), &json!({}))?;
    let mut layers = Vec::new();
    let mut ignore = |_: Option<&Finished>, _: u64, _: u64| Ok(());
    let mut keep = |trained: &Trained| layers.push(*trained);
    let mut quantizer = Quantizer::new(model, plan, method, &store, &mut ignore);
    if let Some(options) = training {
        quantizer = quantizer.with_training(options, &mut keep);
    }
    let weights = quantizer.run(calibration.to_vec())?;
    // The store's files go with the folder.
    let owned: Result<Vec<(String, Tensor)>> = (plan.formats.keys())
        .map(|name| {
            let tensor = weights.get(name)?;
            Ok((name.clone(), Tensor { data: tensor.data.to_vec().into(), ..tensor }))
        })
        .collect();
    let weights = model.weights.replaced(owned?)?;
    Ok((Model { weights, ..model.clone() }, layers))
}
