//! Prefix tuning (Li and Liang, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", arXiv 2101.00190): keys and values in
//! front of those of every text, in every layer. Keys are as attention sees them: behind norm and rotation.
//!
//! Parameters: `n · 2 · layers · kv_heads · head_dim`.

use candle_core::Tensor;
use ounce_model::Model;
use ounce_model::spec::Spec;
use ounce_train::ParamKind;
use ounce_train::graph::{Hook, Weight};
use ounce_train::net::normal;
use serde_json::{Map, Value, json};

use super::prompt::{PROMPT, check_tokens, config, place};
use crate::adapter::Adapter;
use crate::{Error, Result, Settings};

/// The deviation of keys and values at first.
const DEVIATION: f32 = 0.02;

/// Prefix tuning.
pub struct Prefix {
    settings: Settings,
    prefix: Option<Weight>,
    /// Width of a layer's keys.
    width: usize,
}

impl Prefix {
    /// Prefix tuning with these settings.
    ///
    /// # Errors
    /// If there are to be no vectors.
    pub fn new(settings: Settings) -> Result<Prefix> {
        check_tokens(&settings)?;
        Ok(Prefix { settings, prefix: None, width: 0 })
    }
}

/// The width of keys, if it is the same in every layer.
fn key_width(base: &Spec) -> Option<usize> {
    let mut widths = base.layers.iter().map(|layer| layer.attention.as_ref().map(|it| it.kv_width()));
    let first = widths.next()??;
    widths.all(|width| width == Some(first)).then_some(first)
}

impl Adapter for Prefix {
    fn begin(&mut self, base: &Model) -> Result<()> {
        self.width = key_width(&base.spec).ok_or_else(|| {
            Error::Option(
                "prefixes need layers with keys of one width; this model's differ, choose lora".into(),
            )
        })?;
        Ok(())
    }

    fn parameters(&self, base: &Spec) -> u64 {
        (self.settings.tokens * 2 * base.layers.len() * key_width(base).unwrap_or(0)) as u64
    }

    fn weights(&mut self, base: &Model) -> Result<Vec<Weight>> {
        let shape = [self.settings.tokens, 2 * base.spec.layers.len() * self.width];
        let values = normal(DEVIATION, shape[0] * shape[1], self.settings.seed, PROMPT);
        let weight = Weight::new(PROMPT, &shape, ParamKind::Embedding, values)?;
        self.prefix = Some(weight.clone());
        Ok(vec![weight])
    }

    fn virtual_tokens(&self) -> usize {
        self.settings.tokens
    }

    fn hook(&self, lengths: &[usize]) -> Box<dyn Hook + '_> {
        Box::new(Prefixed { of: self, lengths: lengths.to_vec() })
    }

    fn config(&self, base: &Spec) -> Map<String, Value> {
        let mut map = config(&self.settings, base);
        let attention = base.layers.iter().find_map(|layer| layer.attention.as_ref());
        map.insert("token_dim".into(), json!(self.width));
        map.insert("num_attention_heads".into(), json!(attention.map(|it| it.kv_heads)));
        map.insert("encoder_hidden_size".into(), json!(base.hidden_size));
        map.insert("prefix_projection".into(), json!(false));
        map
    }
}

/// Puts prefixes in front of keys and values.
struct Prefixed<'a> {
    of: &'a Prefix,
    lengths: Vec<usize>,
}

impl Hook for Prefixed<'_> {
    fn attended(&mut self, layer: usize, keys: Tensor, values: Tensor) -> ounce_train::Result<[Tensor; 2]> {
        let Some(prefix) = &self.of.prefix else { return Ok([keys, values]) };
        let (prefix, width) = (prefix.tensor()?, self.of.width);
        let part = |at: usize| prefix.narrow(1, at * width, width)?.contiguous();
        Ok([
            place(&keys, &part(2 * layer)?, &self.lengths)?,
            place(&values, &part(2 * layer + 1)?, &self.lengths)?,
        ])
    }
}
