//! GEB-1.3B (method 121): a language model for processors, from guarded training over alignment to its speed.
//!
//! "GEB-1.3B: Open Lightweight Large Language Model", arXiv 2406.09900. The preset `cpu-lm` ([`crate::config::Preset`]) has its
//! form: a quarter of the key/value heads, a head of its own, a tenth of the gradient to the embedding, and the guard
//! against spikes ([`crate::trainer::guard`]). Its alignment is [`crate::loss::PreferenceLoss`].

mod alignment;
mod corpus;
mod decoding;
mod stability;

use ounce_eval::method::{DemonstrationError, Evidence, Family, Lab, Method};

use crate::config::{Model, Preset};

/// The method's number.
const NUMBER: u16 = 121;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "GEB-1.3B",
    family: Family::DomainLanguage,
    paper: "GEB-1.3B: Open Lightweight Large Language Model",
    arxiv: Some("2406.09900"),
    gives: "A preset for a language model meant for CPUs: guarded training, alignment, and its speed and memory on the machine at hand.",
    claim: "Trained on 550B tokens, better than TinyLLaMA-1.1B, about 12 tokens a second in FP32 on a CPU.",
    command: Some("ounce train run.toml --set model.preset=cpu-lm"),
    demonstrate: Some(demonstrate),
};

/// How large the trainings are.
#[derive(Debug, Clone, Copy)]
struct Scale {
    hidden: usize,
    layers: usize,
    heads: usize,
    /// Tokens of a sequence.
    context: usize,
    /// Sequences of a step.
    batch: usize,
    steps: u64,
    /// Texts to learn from, and held out.
    texts: [usize; 2],
    /// Trainings of each kind, each with weights and order of its own.
    repeats: u64,
    /// Choices to learn from, and held out.
    choices: [usize; 2],
    /// Steps of learning to choose.
    aligning: u64,
}

impl Scale {
    /// Of the stored evidence.
    const WHOLE: Scale = Scale {
        hidden: 96,
        layers: 3,
        heads: 8,
        context: 64,
        batch: 6,
        steps: 500,
        texts: [4000, 150],
        repeats: 2,
        choices: [800, 200],
        aligning: 100,
    };

    /// The preset at this scale, with so many key/value heads.
    fn shape(&self, kv_heads: usize) -> Model {
        Model {
            preset: Preset::CpuLm,
            hidden: self.hidden,
            layers: self.layers,
            heads: self.heads,
            kv_heads,
            context: 2 * self.context,
            ..Model::default()
        }
    }
}

/// The demonstration of the catalogue's entry.
fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let scale = Scale::WHOLE;
    let mut evidence = Evidence::new(NUMBER, lab.seed(), stability::CLEAN);
    let trained = stability::measure(lab, &scale, &mut evidence);
    let mut net = trained.map_err(DemonstrationError::step(NUMBER, "training"))?;
    lab.progress("learning to choose", 0.75);
    let aligned = alignment::measure(lab.seed(), &scale, &mut net, &mut evidence);
    aligned.map_err(DemonstrationError::step(NUMBER, "learning to choose"))?;
    lab.progress("decoding", 0.85);
    let decoded = decoding::measure(&decoding::SHAPE, &mut evidence);
    decoded.map_err(DemonstrationError::step(NUMBER, "decoding"))?;
    evidence.notes = vec![
        "The preset at a size that trains in a minute, on generated texts in two languages; the paper's benchmarks, its \
         data and its checks of toxicity are out of reach here."
            .into(),
        "AdamW divides by the size of gradients, so a smaller gradient at the embedding acts through clipping and not \
         through smaller steps."
            .into(),
        "Decoding was measured with random weights; speed does not hang on what they are.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}
