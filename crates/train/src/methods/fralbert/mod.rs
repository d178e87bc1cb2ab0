//! FrALBERT (method 103): an encoder whose layers share one set of weights, tuned to answer questions in a language with
//! little data.
//!
//! "On the Usability of Transformers-based models for a French Question-Answering task", arXiv 2207.09150. The encoder is
//! ALBERT's (arXiv 1909.11942): token vectors of width `e` below the stream's `h`, brought to it by one matrix, so that a
//! vocabulary of `V` costs `V e + e h` instead of `V h`; one layer run through `L` times, so that `L` layers cost the
//! memory of one and the time of `L`. On top are two scores a token, `w_s · h_i` for the first word of the answer and
//! `w_e · h_i` for the last, trained with the mean of both cross-entropies ([`crate::loss::SpanLoss`]); the answer is the
//! best pair `i ≤ j < i + 30`. With scarce data the outcome hangs on the seed. Two remedies are compared over seeds:
//! questions translated by a machine, and questions of a language that has plenty.
//!
//! To use it: preset `albert` with `data.objective = "masked"` makes the encoder, then `data.objective = "spans"` with
//! `model.from` tunes it; `validation.articles = "french"` judges answers as French needs it.

mod demonstrate;
mod language;
mod study;

use ounce_eval::method::{Family, Method};

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: 103,
    name: "FrALBERT",
    family: Family::DomainLanguage,
    paper: "On the Usability of Transformers-based models for a French Question-Answering task",
    arxiv: Some("2207.09150"),
    gives: "A compact encoder with shared layers answers questions in a language with little data, with the remedy that \
            makes training stable.",
    claim: "12M parameters compete with much larger French models where data is scarce; data augmentation and \
            cross-lingual transfer make training on little data more stable.",
    command: Some("ounce train RUN.toml --set data.objective=spans --set model.from=ENCODER"),
    demonstrate: Some(demonstrate::demonstrate),
};
