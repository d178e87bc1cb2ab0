//! Measures the axes against each other (method 098): on the weights of the tiny built-in model ([`language`]), and on a small
//! network of images ([`images`]) whose activations are quantized too, trained in few bits, and given bits by its Hessian.

mod images;
mod language;

use ounce_eval::method::{DemonstrationError, Evidence, Family, Lab, Method};

use super::{Calibration, Granularity};
use crate::Result;

const NUMBER: u16 = 98;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "Quantizer choices",
    family: Family::Quantization,
    paper: "A Survey of Quantization Methods for Efficient Neural Network Inference",
    arxiv: Some("2103.13630"),
    gives: "Every decision in a quantizer (grid, granularity, calibration, rounding) is an option of its own whose cost and error can be compared on a given model.",
    claim: "Four bits or fewer promise up to 16 times less memory and latency in theory and 4 to 8 times in practice.",
    command: Some("ounce quantize MODEL --explain"),
    demonstrate: Some(demonstrate),
};

const BITS: [u32; 5] = [8, 6, 4, 3, 2];
const CALIBRATIONS: [(&str, Calibration); 3] = [
    ("min-max", Calibration::MinMax),
    ("99.9 %", Calibration::Percentile(0.999)),
    ("least squares", Calibration::Mse),
];
const GRANULARITIES: [(&str, Granularity); 3] = [
    ("tensor", Granularity::Tensor),
    ("channel", Granularity::Channel),
    ("group 32", Granularity::Group(32)),
];

/// The baseline's row.
const ORIGINAL: &str = "language model: original";

fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab).map_err(DemonstrationError::step(NUMBER, "sweeping the axes"))
}

fn label(what: &str, bits: u32, rest: &str) -> String {
    format!("{what}: {bits} bits, {rest}")
}

fn measure(lab: &dyn Lab) -> Result<Evidence> {
    let mut evidence = Evidence::new(NUMBER, lab.seed(), ORIGINAL);
    language::language(lab, &mut evidence)?;
    images::images(lab, &mut evidence)?;
    evidence.notes = vec![
        "The language model is the tiny built-in one: weights of its layers are rounded and computed with in f32, activations, token vectors \
         and head stay as they are. Bits a weight count scales of 16 bits and zero points."
            .into(),
        "The network of images is the classifier of method 073 on generated pictures, norms folded; where weights are quantized, activations have 8 \
         bits. The error of logits is their mean squared change over their variance on test pictures, in percent."
            .into(),
        "Simulated quantization tells of accuracy, not of speed; what int8 brings in speed is measured by method 073.".into(),
        "QAT of language models is method 075. Not built: zero-shot quantization, searches by reinforcement learning or with \
         latency tables, distillation during QAT, product quantization and Huffman codes, low-bit gradients."
            .into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

/// The value of a row.
fn value(evidence: &Evidence, label: &str, name: &str) -> f64 {
    evidence.row(label).and_then(|row| row.get(name)).unwrap_or(f64::NAN)
}
