//! The model that is compressed: a small one, trained on the town.

use std::sync::Arc;

use ounce_eval::method::{Lab, Text};
use ounce_kernels::{DType, quant};
use ounce_model::tokenizer::Tokenizer;
use ounce_model::{Model, Tensor};
use ounce_train::config::{self, Preset};
use ounce_train::data::{Cache, Documents, LanguageStream, Layout, StreamSettings};
use ounce_train::methods::workbench::{cosine, fit_watched};
use ounce_train::net::{Net, Options};
use ounce_train::tokenizer::{self, TokenizerSettings};

use crate::{Error, Result};

/// Tokens of the longest sequence; the town's documents are shorter.
const CONTEXT: usize = 128;
/// The highest learning rate.
const RATE: f64 = 4e-3;
/// The share of the demonstration's time that training takes.
pub(super) const SHARE: f64 = 0.6;

/// How large everything is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub hidden: usize,
    pub layers: usize,
    /// Bytes of text.
    pub bytes: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    pub steps: u64,
    /// Sequences of a step, of 128 tokens if documents were as long.
    pub sequences: usize,
}

impl Scale {
    /// Of the stored evidence: as narrow as still learns the town, for a model with weights to spare shows little.
    pub const FULL: Scale =
        Scale { hidden: 64, layers: 4, bytes: 4_000_000, vocabulary: 768, steps: 1000, sequences: 16 };
}

/// A trained model and the documents that it read.
pub(super) struct Subject {
    pub model: Model,
    pub documents: Vec<Vec<u32>>,
    /// Tokens of all steps.
    pub tokens: u64,
}

/// Trains the model; it comes out in bf16.
pub(super) fn train(lab: &dyn Lab, scale: &Scale) -> Result<Subject> {
    lab.progress("the town's words", 0.0);
    let text = lab.text(Text::Town, scale.bytes);
    let settings = TokenizerSettings { vocab_size: scale.vocabulary, ..TokenizerSettings::default() };
    let tokenizer = tokenizer::train(text.split("\n\n").map(|it| Ok(it.to_string())), &settings)?;
    let documents = documents(&tokenizer, &text)?;
    let shape = config::Model {
        preset: Preset::Llama,
        hidden: scale.hidden,
        layers: scale.layers,
        heads: scale.hidden / 32,
        context: CONTEXT,
        ..config::Model::default()
    };
    let skeleton = shape.skeleton(&tokenizer, None)?;
    let mut net = Net::random(&skeleton, Options::default(), shape.initial(), lab.seed())?;
    let cache = Cache::in_memory(documents.iter().map(Vec::as_slice), tokenizer.id_limit())?;
    let (seed, sequences) = (lab.seed(), scale.sequences);
    let layout = Layout::Documents;
    let settings = StreamSettings { context: CONTEXT, sequences, seed, shuffle: true, epochs: None, layout };
    let mut stream = LanguageStream::new(Documents::all(Arc::new(cache)), settings)?;
    let mut step = 0u64;
    fit_watched(&mut net, &mut stream, cosine(RATE, scale.steps), &mut |_| {
        step += 1;
        let share = step as f64 / scale.steps as f64;
        lab.progress("training on the town", SHARE * share);
    })?;
    let model = halved(&net.model()?)?;
    Ok(Subject { model, documents, tokens: scale.steps * (sequences * CONTEXT) as u64 })
}

/// The documents of a text, each between the tokens that end texts.
fn documents(tokenizer: &Tokenizer, text: &str) -> Result<Vec<Vec<u32>>> {
    let end = tokenizer.special().eos.first().copied();
    let encode = |document: &str| -> Result<Vec<u32>> {
        let ids = tokenizer.encode(document, false)?;
        Ok(end.into_iter().chain(ids).chain(end).collect())
    };
    text.split("\n\n").map(encode).collect()
}

/// A model with all weights in bf16.
fn halved(model: &Model) -> Result<Model> {
    let half = |name: &str| -> Result<(String, Tensor)> {
        let tensor = model.weights.get(name)?;
        let mut bytes = Vec::new();
        let values = tensor.to_f32().map_err(|error| Error::matrix(name, error))?;
        quant::encode_rows(DType::BF16, &values, tensor.row_len(), &mut bytes)
            .map_err(|error| Error::matrix(name, error))?;
        Ok((name.to_owned(), Tensor { dtype: DType::BF16, data: bytes.into(), ..tensor }))
    };
    let tensors: Vec<(String, Tensor)> = model.weights.names().map(half).collect::<Result<_>>()?;
    Ok(Model { weights: model.weights.replaced(tensors)?, ..model.clone() })
}
