//! Both phases on a small golden model.

use std::path::Path;

use ounce_kernels::DType;
use ounce_model::{Model, Weights};
use serde_json::json;

use super::block_ap::{self, Trained};
use super::end_to_end;
use crate::quantize::training::quantizer::Start;
use crate::quantize::{Finished, Method, Plan, Quantizer, Store, units};
use crate::{Error, Result};

fn model() -> Model {
    Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models/llama")).unwrap()
}

/// Matrices whose rows are whole groups of 32: all of a layer but `down`.
fn plan(model: &Model) -> Plan {
    let units = units(model).unwrap();
    let fits = |columns: usize| columns.is_multiple_of(32).then_some(DType::G2x32);
    Plan::new(units.iter().map(|unit| (unit, if unit.is_outer() { None } else { fits(unit.columns) })))
        .unwrap()
}

/// Six sequences in turn, so that those held out are like those learned from.
fn sequences() -> Vec<Vec<u32>> {
    (0..24u32)
        .map(|at| at % 6)
        .map(|seed| (0..20u32).map(|at| (seed * 31 + at * at * 7 + at) % 96).collect())
        .collect()
}

fn options(start: Start) -> block_ap::Options {
    // Few steps, so large ones.
    let (weight_rate, step_rate) = (0.03, 0.03);
    block_ap::Options { epochs: 6, tokens: 60, weight_rate, step_rate, start, ..block_ap::Options::default() }
}

struct Ran {
    weights: Weights,
    layers: Vec<Trained>,
    done: Vec<u64>,
    total: u64,
}

fn run(model: &Model, folder: &Path, start: Start, stop_at: Option<u64>) -> Result<Ran> {
    let plan = plan(model);
    let store = Store::open(folder, &json!({}))?;
    let (mut layers, mut seen, mut whole) = (Vec::new(), Vec::new(), 0);
    let mut observer = |_: Option<&Finished>, done: u64, total: u64| {
        seen.push(done);
        whole = total;
        if stop_at.is_some_and(|at| done > at) { Err(Error::Option("stopped".into())) } else { Ok(()) }
    };
    let mut on_layer = |trained: &Trained| layers.push(*trained);
    let weights = Quantizer::new(model, &plan, Method::Round, &store, &mut observer)
        .with_training(options(start), &mut on_layer)
        .run(sequences())?;
    Ok(Ran { weights, layers, done: seen, total: whole })
}

#[test]
fn training_brings_every_layer_nearer_and_packs_what_it_found() {
    let model = model();
    for start in [Start::Weights, Start::Values, Start::Codes] {
        let folder = tempfile::tempdir().unwrap();
        let ran = run(&model, folder.path(), start, None).unwrap();
        assert_eq!(ran.layers.len(), 2);
        for layer in &ran.layers {
            assert!(layer.after < 0.95 * layer.before, "{start:?}: {layer:?}");
            assert!(layer.memory.optimizer > 2 * 4 * 32 * 32 && layer.memory.activations > 0);
        }
        let names: Vec<String> = plan(&model).formats.into_keys().collect();
        assert_eq!(names.len(), 2 * 6);
        for name in names {
            assert_eq!(ran.weights.get(&name).unwrap().dtype, DType::G2x32, "{name}");
        }
        assert!(ran.done.is_sorted() && ran.done.last() == Some(&ran.total), "progress goes up to the end");
    }
}

#[test]
fn a_run_that_was_stopped_goes_on_and_ends_in_the_same_weights() {
    let (model, folder, other) = (model(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let whole = run(&model, folder.path(), Start::Codes, None).unwrap();
    let error = run(&model, other.path(), Start::Codes, Some(whole.total * 3 / 4)).err().unwrap();
    assert!(error.to_string().contains("stopped"));
    let resumed = run(&model, other.path(), Start::Codes, None).unwrap();
    let taken: Vec<bool> = resumed.layers.iter().map(|layer| layer.resumed).collect();
    assert_eq!(taken, [true, false]);
    for name in plan(&model).formats.keys() {
        let (a, b) = (whole.weights.get(name).unwrap(), resumed.weights.get(name).unwrap());
        assert_eq!(*a.data, *b.data, "{name}");
    }
}

#[test]
fn step_sizes_alone_learn_the_text_and_codes_stay() {
    let original = model();
    let folder = tempfile::tempdir().unwrap();
    let weights = run(&original, folder.path(), Start::Codes, None).unwrap().weights;
    let model = Model { weights, ..original };
    let options = end_to_end::Options { epochs: 4, tokens: 60, rate: 0.02 };
    let mut shares = Vec::new();
    let (weights, tuned) = end_to_end::train(&model, None, &sequences(), &options, &mut |share| {
        shares.push(share);
        Ok(())
    })
    .unwrap();
    assert!(tuned.after < tuned.before, "{tuned:?}");
    assert!(shares.is_sorted() && shares.last() == Some(&1.0));
    let mut moved = 0;
    for name in plan(&model).formats.keys() {
        let (before, after) = (model.weights.get(name).unwrap(), weights.get(name).unwrap());
        let size = DType::G2x32.block_bytes();
        for (before, after) in before.data.chunks_exact(size).zip(after.data.chunks_exact(size)) {
            assert_eq!(before[2..], after[2..], "{name}: codes and zero points stay");
            moved += usize::from(before[..2] != after[..2]);
        }
    }
    assert!(moved > tuned.trained / 2, "{moved} of {}", tuned.trained);
    let kept = tuned.memory;
    assert!(kept.optimizer == 8 * tuned.trained && kept.gradients == 4 * tuned.trained, "{kept:?}");
}

#[test]
fn a_single_sequence_can_not_be_judged() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let plan = plan(&model);
    let store = Store::open(folder.path(), &json!({})).unwrap();
    let mut observer = |_: Option<&Finished>, _: u64, _: u64| Ok(());
    let mut on_layer = |_: &Trained| {};
    let error = Quantizer::new(&model, &plan, Method::Round, &store, &mut observer)
        .with_training(options(Start::Codes), &mut on_layer)
        .run(vec![(0..20).collect()])
        .expect_err("one sequence");
    assert!(error.to_string().contains("longer text"), "{error}");
}
