//! Compressed variants of a model, by the ids of the registry.

use ounce_compress::prune::{self, Criterion, Sparsity, TWO_OF_FOUR};
use ounce_compress::quantize::{
    Finished, Method, Plan, Preparation, Quantizer, Store, awq, gptq, rotate, smooth, units,
};
use ounce_compress::{Error, Result};
use ounce_kernels::DType;
use ounce_model::{Model, Tensor};
use serde_json::json;

use super::super::inference::outer;

/// How a variant is made.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// Matrices in a format, after preparations.
    Bits(DType, Method, Vec<Preparation>),
    /// Zeros among the weights of layers.
    Zeros(Criterion, Sparsity),
}

/// The variants of an id; none of ids that are something else.
pub(super) fn way(id: &str) -> Option<Way> {
    let sparse_gpt = Criterion::SparseGpt(prune::sparsegpt::Options::default());
    let gptq = || Method::Gptq(gptq::Options::default());
    let clipped = || Preparation::Awq(awq::Options { clip: true, ..awq::Options::default() });
    Some(match id {
        "8-bit" => Way::Bits(DType::Q8_0, Method::Round, Vec::new()),
        "6-bit" => Way::Bits(DType::Q6K, Method::Round, Vec::new()),
        "4-bit-rounded" => Way::Bits(DType::Q4_0, Method::Round, Vec::new()),
        "4-bit-gptq" => Way::Bits(DType::Q4_0, gptq(), Vec::new()),
        "4-bit-awq" => Way::Bits(DType::Q4_0, Method::Round, vec![clipped()]),
        "3-bit-gptq" => Way::Bits(DType::G3x32, gptq(), Vec::new()),
        "rotation" => Way::Bits(DType::Q4_0, gptq(), vec![Preparation::Rotate(rotate::Options { seed: 0 })]),
        "smooth-w8a8" => {
            Way::Bits(DType::Q8_0, Method::Round, vec![Preparation::Smooth(smooth::Options { alpha: 0.5 })])
        }
        "magnitude" => Way::Zeros(Criterion::Magnitude, Sparsity::Share(0.5)),
        "wanda" => Way::Zeros(Criterion::Wanda, Sparsity::Share(0.5)),
        "sparsegpt" => Way::Zeros(sparse_gpt, Sparsity::Share(0.5)),
        "2-of-4" => Way::Zeros(sparse_gpt, TWO_OF_FOUR),
        _ => return None,
    })
}

/// The formats of a model's matrices as `ounce quantize --type` chooses them.
pub(super) fn plan(model: &Model, dtype: DType) -> Result<Plan> {
    let all = units(model)?;
    Plan::new(all.iter().map(|unit| (unit, if unit.is_outer() { outer(dtype) } else { Some(dtype) })))
}

/// Makes a variant; nothing of it lies in files.
pub(super) fn make(model: &Model, way: &Way, calibration: &[Vec<u32>]) -> Result<Model> {
    match way {
        Way::Zeros(criterion, sparsity) => {
            let names = prune::matrices(model)?;
            let text = calibration.to_vec();
            let weights = prune::prune(model, &names, *criterion, *sparsity, text, &mut |_, _| Ok(()))?;
            Ok(Model { weights, ..model.clone() })
        }
        Way::Bits(dtype, method, preparations) => {
            let folder = tempfile::tempdir().map_err(ounce_model::Error::io(std::env::temp_dir()))?;
            let store = Store::open(folder.path(), &json!({}))?;
            let mut prepared = model.clone();
            for step in preparations {
                prepared = step.shaped(&prepared)?;
            }
            let plan = plan(&prepared, *dtype)?;
            for (at, step) in preparations.iter().enumerate() {
                let part = store.part(&format!("prepare-{at}"), &json!({}))?;
                prepared = step.apply(&prepared, &plan, calibration, &part, &mut |_, _| Ok(()))?;
            }
            let mut ignore = |_: Option<&Finished>, _: u64, _: u64| Ok(());
            let quantizer = Quantizer::new(&prepared, &plan, *method, &store, &mut ignore);
            let weights = quantizer.run(calibration.to_vec())?;
            // The store's files go with the folder.
            let owned = weights.names().map(|name| {
                let tensor = weights.get(name)?;
                Ok((name.to_owned(), Tensor { data: tensor.data.to_vec().into(), ..tensor }))
            });
            let owned: Vec<(String, Tensor)> = owned.collect::<Result<_>>()?;
            let weights = prepared.weights.replaced(owned)?;
            Ok(Model { weights, ..prepared.clone() })
        }
    }
}

/// The texts of a corpus, each behind the token that begins texts, cut to a length.
pub(super) fn stories(model: &Model, text: &str, length: usize) -> Result<Vec<Vec<u32>>> {
    let Some(tokenizer) = model.tokenizer.as_ref() else {
        return Err(Error::Option("the model of the demonstration has no tokenizer".into()));
    };
    let encode = |story: &str| {
        let mut ids = tokenizer.encode(story, true)?;
        ids.truncate(length.min(model.spec.context_length));
        Ok(ids)
    };
    let all: Result<Vec<Vec<u32>>> = text.split("\n\n").map(encode).collect();
    Ok(all?.into_iter().filter(|ids| ids.len() > 1).collect())
}
