//! P-tuning (Liu et al., "GPT Understands, Too", arXiv 2103.10385): as prompt tuning, but the vectors are made by a small network, which
//! lets them learn together: `P = W₃ relu(W₂ relu(W₁ E + b₁) + b₂) + b₃`. A file has what came of it.
//!
//! Parameters: `n d` vectors and `3 (d² + d)` of the network while it trains; `n d` afterwards.

use candle_core::Tensor;
use ounce_model::Model;
use ounce_model::spec::Spec;
use ounce_train::graph::ops::tensor;
use ounce_train::graph::{Hook, Weight};
use ounce_train::{Param, ParamKind};
use serde_json::{Map, Value};

use super::prompt::{InFront, PROMPT, Prompt, check_tokens, drawn};
use crate::adapter::{Adapter, Array};
use crate::random::kaiming;
use crate::{Error, Result, Settings};

/// The network's weights, in the order of use: vectors, then matrix and bias of each layer.
const NAMES: [&str; 7] = [
    "p_tuning.vectors",
    "p_tuning.w1",
    "p_tuning.b1",
    "p_tuning.w2",
    "p_tuning.b2",
    "p_tuning.w3",
    "p_tuning.b3",
];

/// P-tuning.
pub struct PTuning {
    settings: Settings,
    weights: Vec<Weight>,
}

impl PTuning {
    /// P-tuning with these settings.
    ///
    /// # Errors
    /// If there are to be no vectors.
    pub fn new(settings: Settings) -> Result<PTuning> {
        check_tokens(&settings)?;
        Ok(PTuning { settings, weights: Vec::new() })
    }
}

/// `W₃ relu(W₂ relu(W₁ E + b₁) + b₂) + b₃`.
fn encode(parts: &[Tensor]) -> candle_core::Result<Tensor> {
    let [vectors, w1, b1, w2, b2, w3, b3] = parts else {
        candle_core::bail!("{} parts of seven", parts.len())
    };
    let layer = |x: &Tensor, w: &Tensor, b: &Tensor| x.matmul(&w.t()?)?.broadcast_add(b);
    let inner = layer(&layer(vectors, w1, b1)?.relu()?, w2, b2)?.relu()?;
    layer(&inner, w3, b3)
}

impl Adapter for PTuning {
    fn parameters(&self, base: &Spec) -> u64 {
        let width = base.embedding_width();
        (self.settings.tokens * width + 3 * (width * width + width)) as u64
    }

    fn weights(&mut self, base: &Model) -> Result<Vec<Weight>> {
        let (tokens, width, seed) = (self.settings.tokens, base.spec.embedding_width(), self.settings.seed);
        for (at, name) in NAMES.into_iter().enumerate() {
            self.weights.push(match at {
                0 => Weight::new(name, &[tokens, width], ParamKind::Embedding, drawn(base, &self.settings)?)?,
                odd if odd % 2 == 1 => Weight::new(
                    name,
                    &[width, width],
                    ParamKind::Matrix,
                    kaiming(width, width * width, seed, name),
                )?,
                _ => Weight::new(name, &[width], ParamKind::Bias, vec![0.0; width])?,
            });
        }
        Ok(self.weights.clone())
    }

    fn virtual_tokens(&self) -> usize {
        self.settings.tokens
    }

    fn hook(&self, lengths: &[usize]) -> Box<dyn Hook + '_> {
        let parts: ounce_train::Result<Vec<Tensor>> = self.weights.iter().map(Weight::tensor).collect();
        let prompt = parts.and_then(|parts| Ok(encode(&parts)?));
        Box::new(InFront { prompt: Some(prompt), lengths: lengths.to_vec() })
    }

    fn file_values(&self, params: &[Param]) -> Result<Vec<Array>> {
        let find = |name: &str| {
            let param = params.iter().find(|param| param.name == name);
            let param = param.ok_or_else(|| Error::Option(format!("{name} is missing")))?;
            Ok(tensor(param.value.clone(), param.shape.as_slice())?)
        };
        let parts: Vec<Tensor> = NAMES.into_iter().map(find).collect::<Result<_>>()?;
        let prompt = encode(&parts)?;
        let mut arrays = vec![Array {
            name: PROMPT.to_owned(),
            shape: prompt.dims().to_vec(),
            values: prompt.flatten_all()?.to_vec1()?,
        }];
        // A new head goes along.
        let others = params.iter().filter(|it| it.is_trainable() && !NAMES.contains(&it.name.as_str()));
        arrays.extend(others.map(Array::of));
        Ok(arrays)
    }

    fn config(&self, base: &Spec) -> Map<String, Value> {
        Prompt::new(self.settings.clone()).map(|prompt| prompt.config(base)).unwrap_or_default()
    }
}
