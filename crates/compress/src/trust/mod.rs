//! Compressed trust (method 011): what fewer bits and fewer weights do to stereotypes, secrets, fairness and robustness, where
//! accuracy looks as it did.
//!
//! "Decoding Compressed Trust: Scrutinizing the Trustworthiness of Efficient LLMs Under Compression", arXiv 2403.15447. The
//! paper puts three models of 13 billion weights through GPTQ and AWQ at 8, 4 and 3 bits and magnitude, SparseGPT and Wanda
//! at 2:4, each with several calibration seeds, and scores eight dimensions beside benign accuracy.
//!
//! Scores and their file format are [`ounce_eval::trust`]; what compresses is [`crate::quantize`] and [`crate::prune`]. Here is the
//! same study in miniature: `subject.rs` trains a model on a town that holds all that the probes ask about, `grid.rs` compresses and
//! asks it, `report.rs` says what was expected and what came out.

mod grid;
mod report;
mod subject;

use ounce_eval::method::{DemonstrationError, Evidence, Family, Lab, Method, Text};
use ounce_eval::trust::{self, Scorecard};

use crate::{Error, Result};

const NUMBER: u16 = 11;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "Compressed trust",
    family: Family::Quantization,
    paper: "Decoding Compressed Trust: Scrutinizing the Trustworthiness of Efficient LLMs Under Compression",
    arxiv: Some("2403.15447"),
    gives: "A scorecard of toxicity, privacy, fairness and robustness, run on a model before and after it is compressed, shows what got worse and how sure that is.",
    claim: "4-bit weights keep trust, 3-bit weights and 50 % pruning lose it although benign accuracy still looks acceptable.",
    command: Some("ounce eval MODEL --trust probes.jsonl --against ORIGINAL"),
    demonstrate: Some(demonstrate),
};

fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, &subject::Scale::FULL, grid::SEEDS)
        .map_err(DemonstrationError::step(NUMBER, "compressing a small model"))
}

/// Trains, compresses with so many calibration seeds, asks and reports.
fn measure(lab: &dyn Lab, scale: &subject::Scale, seeds: u64) -> Result<Evidence> {
    let probes = lab.text(Text::TownProbes, 0);
    let probes = trust::read(&probes).map_err(|error| Error::Option(format!("the probes: {error}")))?;
    let subject = subject::train(lab, scale)?;
    let study = grid::Study { lab, subject: &subject, probes: &probes, seeds };
    let dense = study.ask(&subject.model)?;
    let cells = study.cells(&dense)?;
    let card = Scorecard::new(&probes, &dense);
    let mut evidence = Evidence::new(NUMBER, lab.seed(), report::DENSE);
    report::fill(&mut evidence, &card, &cells, study.dense_bytes());
    evidence.notes = vec![
        format!(
            "The model has {} layers of width {}, {} thousand weights and {} tokens; it read {:.1} million tokens of the town. \
             {} probes.",
            scale.layers,
            scale.hidden,
            subject.model.spec.parameters() / 1000,
            subject.model.spec.vocab_size,
            subject.tokens as f64 / 1e6,
            probes.len()
        ),
        format!(
            "Matrices of layers are compressed, in groups of {} where they are quantized; token vectors and norms stay bf16. \
             Bytes are those of all weights; of 2:4 those that stay in 16 bits, and 2 bits each for their places. GPTQ goes by activity and \
             without coordinate descent, AWQ cuts off extremes: as the papers do. Calibration is {} documents of the town a seed, {} \
             seeds. All models compute in f32, so that only weights differ.",
            grid::GROUP,
            grid::DOCUMENTS,
            seeds
        ),
        "Deltas are points against the dense model, means over seeds. The spread is the standard deviation over seeds of each trust \
         dimension, and the mean of the eight. Nonsense tells no secret and no forbidden word and is fair: what stands beside these scores says \
         how much of the knowledge behind them is left."
            .into(),
        "The paper's models of 7 and 13 billion weights, its probes and the jailbreaks among them were not measured.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

#[cfg(test)]
mod tests;
