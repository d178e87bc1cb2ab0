//! LLM-Viewer: a roofline of every operator, before anything is built (arXiv 2402.16363, sections 2 and 3).
//!
//! An operator does `F` operations on `A` bytes; its intensity is `I = F / A`. A machine that computes `π` operations and reads
//! `β` bytes a second lets it run at `min(π, I·β)`: it is bound by memory where `I < π/β`. The accountant gives `F` and `A` of
//! any spec; [`forecast`](mod@crate::forecast) adds to the roofline what it takes on a real machine: a bandwidth by where the
//! weights lie, and the efficiency of each kernel.

mod demonstrate;

use ounce_eval::method::{Family, Method};
use ounce_model::Spec;
use ounce_model::account::Operator;
use ounce_model::machine::Machine;

use crate::Result;
use crate::calibrate::Calibration;
use crate::forecast::{Formats, Phase, Workload, forecast};

/// The entry in the catalogue.
pub const METHOD: Method = Method {
    number: 99,
    name: "LLM-Viewer",
    family: Family::Planning,
    paper: "LLM Inference Unveiled: Survey and Roofline Model Insights",
    arxiv: Some("2402.16363"),
    gives: "Model, hardware, batch and bits go in, and each operator's time, bottleneck and memory come out before anything is built.",
    claim: "Decoding is bound by memory and prefill by compute, and the roofline shows how each technique moves that.",
    command: Some("ounce forecast MODEL --operators"),
    demonstrate: Some(demonstrate::demonstrate),
};

/// The number of sequences at once from which on a step's linear layers take twice the time that they take for one: about
/// where they turn from being bound by memory to being bound by arithmetic. None up to `most`.
///
/// # Errors
/// As [`forecast`](crate::forecast::forecast()).
pub fn turning_batch(
    spec: &Spec,
    formats: &Formats,
    machine: &Machine,
    calibration: &Calibration,
    workload: &Workload,
    most: usize,
) -> Result<Option<usize>> {
    let seconds = |batch: usize| -> Result<f64> {
        let told = forecast(spec, formats, machine, calibration, &Workload { batch, ..*workload })?;
        let linear = told.operators.iter().filter(|it| it.phase == Phase::Token && is_linear(it.operator));
        Ok(linear.map(|it| it.seconds).sum())
    };
    let one = seconds(1)?;
    for batch in 2..=most {
        if seconds(batch)? >= 2.0 * one {
            return Ok(Some(batch));
        }
    }
    Ok(None)
}

/// Whether an operator is nothing but products with weights of the layers.
pub fn is_linear(operator: Operator) -> bool {
    matches!(operator, Operator::QueryKeyValue | Operator::Output | Operator::GateUp | Operator::Down)
}
