//! Zero-initialised gated prefixes (Zhang et al., "LLaMA-Adapter: Efficient Fine-tuning of Language Models with Zero-init Attention",
//! arXiv 2303.16199, equations 5 to 8), the cheapest plug-in of LLaMA-Reviewer (Lu et al., arXiv 2308.11148).
//!
//! The last `L` layers have `n` vectors `P` each. Queries attend to them apart from the text and what they find is added behind a gate:
//! `softmax(s q Kᵀ) V + tanh(g) · softmax(s q K_pᵀ) V_p`, `K_p = W_k P`, `V_p = W_v P`, by the layer's own frozen matrices, without rotation.
//! `g` begins at 0, so that the model is what it was.
//!
//! Parameters: `L (n d + 1)`.

mod demonstrate;
mod review;

use std::collections::BTreeMap;

use candle_core::Tensor;
use ounce_eval::method::{Family, Method};
use ounce_model::Model;
use ounce_model::spec::{Attention, Spec};
use ounce_train::ParamKind;
use ounce_train::graph::ops::{Kernels, softmax};
use ounce_train::graph::{Hook, Linear, Slot, Weight};
use ounce_train::net::normal;

use crate::adapter::Adapter;
use crate::methods::prompt::check_tokens;
use crate::{Error, Result, Settings};

const NUMBER: u16 = 38;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "LLaMA-Reviewer",
    family: Family::Peft,
    paper: "LLaMA-Reviewer: Advancing Code Review Automation with Large Language Models through Parameter-Efficient Fine-Tuning",
    arxiv: Some("2308.11148"),
    gives: "Each code-review task gets its own small plug-in on one frozen model, taken up when the model is loaded.",
    claim: "LLaMA-6.7B with less than 1 % trainable parameters matches models that were pretrained for code review.",
    command: Some("ounce tune MODEL --method gated-prefix --data FILE -o ADAPTER"),
    demonstrate: Some(demonstrate::demonstrate),
};

/// The deviation of vectors at first.
const DEVIATION: f32 = 0.02;

/// What a layer's prefix is computed with.
#[derive(Default)]
struct Gated {
    prefix: Option<Weight>,
    gate: Option<Weight>,
    key: Option<Linear>,
    value: Option<Linear>,
    attention: Option<Attention>,
}

/// Gated prefixes.
pub struct GatedPrefix {
    settings: Settings,
    /// By layer.
    layers: BTreeMap<usize, Gated>,
}

impl GatedPrefix {
    /// Gated prefixes with these settings.
    ///
    /// # Errors
    /// If there are to be no vectors.
    pub fn new(settings: Settings) -> Result<GatedPrefix> {
        check_tokens(&settings)?;
        Ok(GatedPrefix { settings, layers: BTreeMap::new() })
    }

    /// The layers that have a prefix: the last ones, all but the first two where nothing is said.
    fn chosen(&self, base: &Spec) -> std::ops::Range<usize> {
        let all = base.layers.len();
        let count = match self.settings.layers {
            usize::MAX => all.saturating_sub(2).max(1),
            layers => layers.min(all),
        };
        all - count..all
    }
}

impl Adapter for GatedPrefix {
    fn begin(&mut self, base: &Model) -> Result<()> {
        for index in self.chosen(&base.spec) {
            let attention = base.spec.layers[index].attention.clone().ok_or_else(|| {
                Error::Option(format!("layer {index} has no attention for a prefix; name fewer --layers"))
            })?;
            if base.spec.owner(index) != index {
                return Err(Error::Option(
                    "layers that share their weights can't have gated prefixes; choose prefix".into(),
                ));
            }
            self.layers.insert(index, Gated { attention: Some(attention), ..Gated::default() });
        }
        Ok(())
    }

    fn parameters(&self, base: &Spec) -> u64 {
        (self.chosen(base).len() * (self.settings.tokens * base.hidden_size + 1)) as u64
    }

    fn slot(&mut self, name: &str, linear: Linear) -> Result<Box<dyn Slot>> {
        let mut parts = name.split('.');
        if let (Some("layers"), Some(Ok(index)), Some("attention"), Some(part)) =
            (parts.next(), parts.next().map(str::parse::<usize>), parts.next(), parts.next())
            && let Some(gated) = self.layers.get_mut(&index)
        {
            match part {
                "key" => gated.key = Some(linear.clone()),
                "value" => gated.value = Some(linear.clone()),
                _ => {}
            }
        }
        Ok(Box::new(linear))
    }

    fn weights(&mut self, base: &Model) -> Result<Vec<Weight>> {
        let (tokens, width) = (self.settings.tokens, base.spec.hidden_size);
        let mut weights = Vec::new();
        for (index, gated) in &mut self.layers {
            let name = format!("layers.{index}.gated_prefix");
            let values = normal(DEVIATION, tokens * width, self.settings.seed, &name);
            let prefix = Weight::new(&name, &[tokens, width], ParamKind::Embedding, values)?;
            let gate = Weight::new(&format!("layers.{index}.prefix_gate"), &[1], ParamKind::Norm, vec![0.0])?;
            weights.extend([prefix.clone(), gate.clone()]);
            (gated.prefix, gated.gate) = (Some(prefix), Some(gate));
        }
        Ok(weights)
    }

    fn hook(&self, _lengths: &[usize]) -> Box<dyn Hook + '_> {
        Box::new(Behind(self))
    }
}

/// Adds what queries find in the prefixes.
struct Behind<'a>(&'a GatedPrefix);

impl Hook for Behind<'_> {
    fn mixed(&mut self, layer: usize, queries: &Tensor, mixed: Tensor) -> ounce_train::Result<Tensor> {
        let Some(Gated {
            prefix: Some(prefix),
            gate: Some(gate),
            key: Some(key),
            value: Some(value),
            attention: Some(shape),
        }) = self.0.layers.get(&layer)
        else {
            return Ok(mixed);
        };
        let prefix = prefix.tensor()?;
        let found = look(queries, &key.forward(&prefix)?, &value.forward(&prefix)?, shape)?;
        Ok((mixed + found.broadcast_mul(&gate.tensor()?.tanh()?)?)?)
    }
}

/// `softmax(s q K_pᵀ) V_p`, of every head; all tokens see all of the prefix.
fn look(queries: &Tensor, keys: &Tensor, values: &Tensor, shape: &Attention) -> ounce_train::Result<Tensor> {
    let Attention { heads, kv_heads, head_dim, .. } = *shape;
    let (tokens, n) = (queries.dims2()?.0, keys.dims2()?.0);
    let group = heads / kv_heads;
    // Queries of the heads that share a key, one below the other: [kv_heads, group · tokens, head_dim].
    let queries =
        queries.reshape((tokens, kv_heads, group, head_dim))?.permute((1, 2, 0, 3))?.contiguous()?;
    let queries = queries.reshape((kv_heads, group * tokens, head_dim))?;
    let by_head = |x: &Tensor| x.reshape((n, kv_heads, head_dim))?.transpose(0, 1)?.contiguous();
    let scores = (queries.matmul(&by_head(keys)?.transpose(1, 2)?.contiguous()?)? * f64::from(shape.scale))?;
    let found = softmax(Kernels::default(), &scores)?.matmul(&by_head(values)?)?;
    let found = found.reshape((kv_heads, group, tokens, head_dim))?.permute((2, 0, 1, 3))?.contiguous()?;
    Ok(found.reshape((tokens, heads * head_dim))?)
}

#[cfg(test)]
mod tests {
    use super::demonstrate::{Scale, measure};
    use crate::desk::Desk;

    #[test]
    fn a_small_study_gives_sound_evidence() {
        let scale = Scale { width: 16, base: 3, general: 1, steps: 3, examples: 12, judged: 8, seeds: 1 };
        let evidence = measure(&Desk, &scale).expect("measured");
        evidence.check().expect("sound");
        assert!(evidence.expectations[3].holds, "{:?}", evidence.expectations[3]);
    }
}
