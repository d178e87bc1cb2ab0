//! CodeACT (method 004): train on the hard and varied part of instruction data, in rows without much padding.
//!
//! "CodeACT: Code Adaptive Compute-efficient Tuning Framework for Code LLMs", arXiv 2408.02193. Its two parts are apart here:
//! CDAS, section 3.1, is [`crate::data::select::select`] with `IFD(y|x) = PPL(y|x) / PPL(y)`; Dynamic Pack, section 3.2, is
//! [`crate::data::Packing::DynamicPack`]. `ounce select` and `data.packing` of `ounce train` are how they are used.
//!
//! ounce's own batches have no rows and no padding, so packing has nothing left to save in it: Dynamic Pack is there to
//! compare with, and for what it costs where rectangles are computed.

mod packing;
mod selection;
mod tasks;

use ounce_eval::method::{DemonstrationError, Evidence, Family, Lab, Method};

/// The method's number.
const NUMBER: u16 = 4;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "CodeACT",
    family: Family::Training,
    paper: "CodeACT: Code Adaptive Compute-efficient Tuning Framework for Code LLMs",
    arxiv: Some("2408.02193"),
    gives: "Fine-tuning keeps only the hard and varied examples and packs them without padding, which saves most of its time.",
    claim: "DeepSeek-Coder-6.7B on 40 % of the data gains 8.6 % on HumanEval with 78 % less time and 27 % less peak memory.",
    command: Some("ounce select MODEL DATA -o selected.jsonl --ratio 0.4"),
    demonstrate: Some(demonstrate),
};

/// The demonstration of the catalogue's entry.
fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let mut evidence = Evidence::new(NUMBER, lab.seed(), selection::ALL);
    let selected = selection::measure(lab, &selection::Scale::WHOLE, &mut evidence);
    selected.map_err(DemonstrationError::step(NUMBER, "the selection"))?;
    lab.progress("packing", 0.9);
    let packed = packing::measure(lab.seed(), &packing::Scale::WHOLE, &mut evidence);
    packed.map_err(DemonstrationError::step(NUMBER, "packing"))?;
    evidence.notes = vec![
        "Selection and packing were measured apart; the paper's 78 % is both together.".into(),
        "The questions' groups come from the mean of the model's own last layer, not from a sentence encoder as in the \
         paper."
            .into(),
        "Judging costs two forward passes over all records, and one run of a selection may repay it or not; it is \
         listed and not part of the training times."
            .into(),
        "Useful tokens a second of padded rows leave the head out: ounce computes no logits where nothing is learned."
            .into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}
