//! A layer's matrices in the order in which they are used, and what calibration shows of their inputs: for techniques that
//! change a model matrix by matrix, each on the inputs that the changed ones before it give.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use ounce_engine::{Mode, Walk};
use ounce_kernels::DType;
use ounce_kernels::isa::Isa;
use ounce_model::Weights;
use ounce_model::spec_tensors::{EXPAND, REDUCE};

use crate::quantize::moments::Collector;
use crate::{Error, Result};

/// How layers are computed for calibration.
pub(crate) fn mode() -> Mode {
    // Inputs rounded to bf16 say as much about what matters, and tiles multiply them several times as fast.
    Mode::Fast { quantize: (Isa::current() == Isa::Amx).then_some(DType::BF16) }
}

/// Refuses calibration without tokens.
pub(crate) fn not_empty(calibration: &[Vec<u32>]) -> Result<()> {
    match calibration.iter().all(Vec::is_empty) {
        true => {
            Err(Error::Option("the calibration text is empty; give one with some thousand tokens".into()))
        }
        false => Ok(()),
    }
}

/// Those of the matrices that are of a layer, by their place in it: each stage's inputs depend on the stages before.
pub(crate) fn stages<'n>(matrices: impl IntoIterator<Item = &'n String>, layer: usize) -> Vec<Vec<String>> {
    let prefix = format!("layers.{layer}.");
    let mut stages = vec![Vec::new(); 8];
    for name in matrices.into_iter().filter(|name| name.starts_with(&prefix)) {
        // The second matrix of a factorised layer is given what the first one gives.
        let behind = name.ends_with(EXPAND);
        let linear = name.trim_end_matches(EXPAND).trim_end_matches(REDUCE).trim_end_matches(".weight");
        let stage = match linear.rsplit('.').next() {
            Some("query" | "key" | "value") => 0,
            Some("output") => 1,
            Some("down") => 3,
            _ => 2,
        };
        stages[2 * stage + usize::from(behind)].push(name.clone());
    }
    stages.retain(|stage| !stage.is_empty());
    stages
}

/// What the matrices of a stage, or the head, are given where the walk stands, from where the stage before ended; with the products of all pairs of columns if
/// those are wanted. `check` may stop the work.
pub(crate) fn look(
    walk: &mut Walk,
    weights: &Weights,
    names: &[String],
    pairs: bool,
    mut check: impl FnMut() -> ounce_engine::Result<()>,
) -> Result<Arc<Mutex<Collector>>> {
    let linear = |name: &String| name.trim_end_matches(".weight").to_owned();
    let linears: HashSet<String> = names.iter().map(linear).collect();
    // Those of one stage see the same input, unless there are experts.
    let alone =
        |name: &&String| !name.contains(".experts.") && !name.contains(".shared.") && !name.ends_with(EXPAND);
    let last = names.first().filter(alone);
    let collector = Arc::new(Mutex::new(Collector::of(linears, last.map(linear), pairs)));
    if names.iter().any(|name| name.starts_with("layers.")) {
        walk.look_on(weights, collector.clone(), |_| check())?;
    } else {
        walk.look_at_head(collector.clone())?;
    }
    Ok(collector)
}
