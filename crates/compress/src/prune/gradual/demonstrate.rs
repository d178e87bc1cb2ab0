//! Measures gradual pruning on models of letters that are trained from nothing: large and sparse against small and dense at equal
//! bytes, and the gradual schedule against pruning at once with the same steps left.

use ounce_eval::method::{DemonstrationError, Evidence, Fixture, Lab, Row};
use ounce_eval::stats::mean_and_error;
use ounce_model::Model;

use super::NUMBER;
use super::packed::{pack, unpack};
use super::train::{Options, Schedule, is_pruned, train};
use crate::prune::learning::mean_loss;
use crate::prune::structured::groups;
use crate::prune::workbench::{Letters, drawn, reshaped};
use crate::{Error, Result};

const LOSS: &str = "held-out loss";
const DENSE: &str = "large, dense";
const AT_ONCE: &str = "large, 90 % at once";

/// Letters of a sequence.
const CONTEXT: usize = 128;

/// How much is done.
pub(super) struct Plan {
    pub seeds: usize,
    pub steps: u64,
    pub tokens: usize,
    pub bytes: usize,
    pub held_out: usize,
    pub hidden: usize,
}

impl Plan {
    fn full() -> Plan {
        Plan { seeds: 3, steps: 800, tokens: 1024, bytes: 850_000, held_out: 40_000, hidden: 64 }
    }
}

/// The demonstration of the catalogue's entry.
pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, &Plan::full()).map_err(DemonstrationError::step(NUMBER, "training models of letters"))
}

/// Bytes of a model whose matrices are stored sparsely, and the model read back from them.
fn stored(model: &Model) -> Result<(usize, Model)> {
    let (mut bytes, mut back) = (0, Vec::new());
    for info in model.spec.tensors() {
        let tensor = model.weights.get(&info.name)?;
        let values = model.weights.f32(&info.name)?;
        if !is_pruned(&info.shape) {
            bytes += 4 * values.len();
            continue;
        }
        let packed = pack(&values);
        bytes += packed.len();
        let read = unpack(&packed, values.len())
            .ok_or_else(|| Error::matrix(&info.name, "did not come back from its bytes"))?;
        back.push((info.name, ounce_model::Tensor::from_f32(&tensor.shape, &read)));
    }
    Ok((bytes, Model { weights: model.weights.replaced(back)?, ..model.clone() }))
}

/// A model of at most so many parameters, as drawn by hand, whose feed-forward halves take what is left.
fn filled(model: &Model, most: u64, seed: u64) -> Result<Model> {
    let small = drawn(model, most, seed)?;
    let (hidden, layers) = (small.spec.hidden_size, small.spec.layers.len());
    let spare = most.saturating_sub(small.spec.parameters()) as usize / (3 * hidden * layers);
    let width = groups::mlp(&small.spec, 0).map_or(0, |mlp| mlp.width) + spare;
    reshaped(&small, &[("intermediate_size", width)], seed)
}

fn dense_bytes(model: &Model) -> usize {
    4 * model.spec.parameters() as usize
}

pub(super) fn measure(lab: &dyn Lab, plan: &Plan) -> Result<Evidence> {
    let Letters { parts, held_out, count } =
        Letters::new(lab, plan.seeds, plan.bytes, plan.held_out, CONTEXT);
    let tiny = lab.model(Fixture::Tiny)?;
    let large = |seed: u64| -> Result<Model> {
        let keys = [
            ("vocab_size", count),
            ("hidden_size", plan.hidden),
            ("num_hidden_layers", 3),
            ("head_dim", plan.hidden / 4),
            ("intermediate_size", plan.hidden * 11 / 4),
            ("max_position_embeddings", CONTEXT),
        ];
        reshaped(&tiny, &keys, seed)
    };
    let sparse = [0.75, 0.9];
    let arms = 2 + 2 * sparse.len();
    let mut rows: Vec<(String, Vec<f64>, usize)> = Vec::new();
    let mut note = |label: &str, loss: f64, bytes: usize| match rows.iter_mut().find(|row| row.0 == label) {
        Some(row) => row.1.push(loss),
        None => rows.push((label.to_owned(), vec![loss], bytes)),
    };
    let mut exact = true;
    for (seed, text) in parts.iter().enumerate() {
        let number = lab.seed() + seed as u64;
        let mut at = 0;
        let mut step = |what: &str| {
            lab.progress(
                &format!("seed {}: {what}", seed + 1),
                (seed * arms + at) as f64 / (plan.seeds * arms) as f64,
            );
            at += 1;
        };
        let run = |model: &Model, schedule: Option<Schedule>| {
            let options =
                Options { steps: plan.steps, tokens: plan.tokens, rate: 4e-3, schedule, seed: number };
            train(model, text, &options, &mut |_, _| Ok(()))
        };
        step(DENSE);
        let model = large(number)?;
        let dense = run(&model, None)?;
        note(DENSE, mean_loss(&dense, &held_out)?, dense_bytes(&dense));
        // Rankings from a tenth to seven tenths of the steps, while the rate is high enough to recover.
        let every = (plan.steps / 40).max(1);
        let (start, times) = (plan.steps / 10, plan.steps * 6 / 10 / every);
        for last in sparse {
            let label = format!("large, {:.0} % gradually", last * 100.0);
            step(&label);
            let found = run(&model, Some(Schedule { last, start, every, times }))?;
            let (bytes, back) = stored(&found)?;
            let loss = mean_loss(&found, &held_out)?;
            exact &= loss == mean_loss(&back, &held_out)?;
            note(&label, loss, bytes);
            let label = format!("small, dense, bytes of {:.0} %", last * 100.0);
            step(&label);
            let small = run(&filled(&model, (bytes / 4) as u64, number)?, None)?;
            note(&label, mean_loss(&small, &held_out)?, dense_bytes(&small));
        }
        step(AT_ONCE);
        let found = run(&model, Some(Schedule::at_once(0.9, start + times * every)))?;
        note(AT_ONCE, mean_loss(&found, &held_out)?, stored(&found)?.0);
    }
    let mut evidence = Evidence::new(NUMBER, lab.seed(), "small, dense, bytes of 90 %");
    for (label, losses, bytes) in &rows {
        let (mean, error) = mean_and_error(losses);
        evidence.rows.push(
            Row::new(label).with(LOSS, mean, "nats a letter").with("standard error", error, "nats").with(
                "bytes",
                *bytes as f64,
                "",
            ),
        );
    }
    let mean = |evidence: &Evidence, label: &str| {
        evidence.row(label).and_then(|row| row.get(LOSS)).unwrap_or(f64::NAN)
    };
    for last in sparse {
        let percent = last * 100.0;
        let [sparse, dense] =
            [format!("large, {percent:.0} % gradually"), format!("small, dense, bytes of {percent:.0} %")]
                .map(|label| mean(&evidence, &label));
        evidence.expect(
            format!("at {percent:.0} % large and sparse is better than small and dense of as many bytes"),
            format!("{sparse:.4} against {dense:.4}"),
            sparse < dense,
        );
    }
    let [gradual, at_once] = ["large, 90 % gradually", AT_ONCE].map(|label| mean(&evidence, label));
    evidence.expect(
        "at 90 % the gradual schedule is better than pruning at once where it ends, with the same steps left",
        format!("{gradual:.4} against {at_once:.4}"),
        gradual < at_once,
    );
    evidence.expect(
        "read back from its bytes, the sparse model has the same loss to the last bit",
        if exact { "the same" } else { "another" },
        exact,
    );
    evidence.notes = vec![
        format!(
            "Models of letters ({count} of them) with three layers, the large one {} wide, trained from nothing for {} steps of {} letters, \
             sequences of {CONTEXT}; {} seeds, each with text of its own. Small ones are as deep, narrower, the widest of at most as many bytes, with feed-forward halves that take what is left. \
             Bytes are f32 values, and one bit a weight of sparse matrices.",
            plan.hidden, plan.steps, plan.tokens, plan.seeds,
        ),
        "Kernels that skip zeros weren't built: sparse models are smaller here, not faster. Networks of images weren't measured.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}
