//! Prompt tuning (Lester et al., "The Power of Scale for Parameter-Efficient Prompt Tuning", arXiv 2104.08691): vectors in front of
//! every text, in the place of embedded tokens; nothing else is trained. They begin as vectors of tokens drawn from the vocabulary.
//!
//! Parameters: `n · d`.

use candle_core::Tensor;
use ounce_model::Model;
use ounce_model::spec::Spec;
use ounce_train::ParamKind;
use ounce_train::graph::ops::{self, Kernels};
use ounce_train::graph::{Hook, Weight};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use crate::adapter::Adapter;
use crate::{Error, Result, Settings};

/// What the vectors are called here and in files.
pub(crate) const PROMPT: &str = "prompt_embeddings";

/// Prompt tuning.
pub struct Prompt {
    settings: Settings,
    prompt: Option<Weight>,
}

/// Refuses a prompt without vectors.
pub(crate) fn check_tokens(settings: &Settings) -> Result<()> {
    match settings.tokens {
        0 => Err(Error::Option("a prompt should have 1 vector or more".into())),
        _ => Ok(()),
    }
}

/// Vectors of tokens drawn from the vocabulary, `[tokens, width]`.
pub(crate) fn drawn(base: &Model, settings: &Settings) -> Result<Vec<f32>> {
    let table = base.weights.get("embed.tokens.weight")?;
    let (rows, width) = (table.rows(), table.row_len());
    let mut random = ChaCha8Rng::seed_from_u64(settings.seed);
    let mut values = vec![0.0; settings.tokens * width];
    for out in values.chunks_exact_mut(width) {
        let row = random.random_range(0..rows);
        table.decode_row(row, out).map_err(|error| Error::Option(format!("embed.tokens.weight: {error}")))?;
    }
    Ok(values)
}

/// Puts `rows`, `[n, width]`, in the place of the first `n` of every sequence in `x`.
pub(crate) fn place(x: &Tensor, rows: &Tensor, lengths: &[usize]) -> ounce_train::Result<Tensor> {
    let n = rows.dims2()?.0 as u32;
    let table = Tensor::cat(&[rows, x], 0)?;
    let mut ids = Vec::with_capacity(x.dims2()?.0);
    for &length in lengths {
        let start = ids.len() as u32;
        ids.extend((0..length as u32).map(|at| if at < n { at } else { n + start + at }));
    }
    ops::gather(Kernels::default(), &table, &ids.into(), 1.0, 1.0)
}

/// peft's settings of prompts.
pub(crate) fn config(settings: &Settings, base: &Spec) -> Map<String, Value> {
    let attention = base.layers.iter().find_map(|layer| layer.attention.as_ref());
    let value = json!({
        "num_virtual_tokens": settings.tokens, "token_dim": base.embedding_width(), "num_transformer_submodules": 1,
        "num_attention_heads": attention.map(|it| it.heads), "num_layers": base.layers.len(),
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

impl Prompt {
    /// Prompt tuning with these settings.
    ///
    /// # Errors
    /// If there are to be no vectors.
    pub fn new(settings: Settings) -> Result<Prompt> {
        check_tokens(&settings)?;
        Ok(Prompt { settings, prompt: None })
    }
}

impl Adapter for Prompt {
    fn parameters(&self, base: &Spec) -> u64 {
        (self.settings.tokens * base.embedding_width()) as u64
    }

    fn weights(&mut self, base: &Model) -> Result<Vec<Weight>> {
        let values = drawn(base, &self.settings)?;
        let shape = [self.settings.tokens, base.spec.embedding_width()];
        let weight = Weight::new(PROMPT, &shape, ParamKind::Embedding, values)?;
        self.prompt = Some(weight.clone());
        Ok(vec![weight])
    }

    fn virtual_tokens(&self) -> usize {
        self.settings.tokens
    }

    fn hook(&self, lengths: &[usize]) -> Box<dyn Hook + '_> {
        Box::new(InFront { prompt: self.prompt.as_ref().map(Weight::tensor), lengths: lengths.to_vec() })
    }

    fn config(&self, base: &Spec) -> Map<String, Value> {
        let mut map = config(&self.settings, base);
        if self.settings.method == crate::Kind::PTuning {
            map.insert("encoder_reparameterization_type".into(), json!("MLP"));
            map.insert("encoder_hidden_size".into(), json!(base.embedding_width()));
        } else {
            map.insert("prompt_tuning_init".into(), json!("RANDOM"));
        }
        map
    }
}

/// Puts a prompt in front of every sequence.
pub(crate) struct InFront {
    pub prompt: Option<ounce_train::Result<Tensor>>,
    pub lengths: Vec<usize>,
}

impl Hook for InFront {
    fn embedded(&mut self, x: Tensor) -> ounce_train::Result<Tensor> {
        match self.prompt.take() {
            Some(prompt) => place(&x, &prompt?, &self.lengths),
            None => Ok(x),
        }
    }
}
