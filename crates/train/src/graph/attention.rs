//! The attention half of a layer.

use candle_core::Tensor;
use ounce_kernels::grad::attention::Shape;
use ounce_model::spec::{Attention as AttentionSpec, QkScope};

use super::build::{Builder, Place};
use super::hook::Hook;
use super::norm::{Norm, Norms};
use super::ops::{self, Kernels};
use super::pass::State;
use crate::Result;
use crate::net::Rotations;

/// The attention half of a layer.
pub(super) struct Attention {
    pub norms: Norms,
    on: Kernels,
    shape: Shape,
    query: Place,
    key: Place,
    value: Place,
    output: Place,
    query_norms: Vec<Norm>,
    key_norms: Vec<Norm>,
    rotation: Option<usize>,
}

impl Attention {
    pub fn build(
        from: &mut Builder<'_>,
        name: &str,
        spec: &AttentionSpec,
        causal: bool,
        rotations: &mut Rotations,
    ) -> Result<Attention> {
        let bias = spec.qkv_bias;
        Ok(Attention {
            norms: Norms::build(from, name, &spec.norms)?,
            on: from.on,
            shape: Shape {
                heads: spec.heads,
                kv_heads: spec.kv_heads,
                head_dim: spec.head_dim,
                scale: spec.scale,
                softcap: spec.softcap,
                window: spec.window,
                causal,
            },
            query: from.slot(&format!("{name}.query"), bias)?,
            key: from.slot(&format!("{name}.key"), bias)?,
            value: from.slot(&format!("{name}.value"), bias)?,
            output: from.slot(&format!("{name}.output"), spec.output_bias)?,
            query_norms: qk_norms(from, &format!("{name}.query_norm"), spec, spec.heads)?,
            key_norms: qk_norms(from, &format!("{name}.key_norm"), spec, spec.kv_heads)?,
            rotation: spec.rope.as_ref().map(|rope| rotations.add(rope)),
        })
    }

    pub fn places(&self) -> impl Iterator<Item = &Place> {
        [&self.query, &self.key, &self.value, &self.output].into_iter()
    }

    /// The branch's result for the normed input `x`, both `[tokens, hidden]`, where it is the model's layer `index`.
    pub fn forward(&self, index: usize, x: &Tensor, state: &State, hook: &mut dyn Hook) -> Result<Tensor> {
        let [queries, keys] = match hook.shared_attention(index)? {
            Some(shared) => shared,
            None => self.queries_and_keys(x, state)?,
        };
        hook.attends(index, &queries, &keys)?;
        let [keys, values] = hook.attended(index, keys, self.value.slot.forward(x)?)?;
        let mixed = ops::attention(self.on, self.shape, &state.lengths, &queries, &keys, &values)?;
        let mixed = hook.mixed(index, &queries, mixed)?;
        self.output.slot.forward(&mixed)
    }

    fn queries_and_keys(&self, x: &Tensor, state: &State) -> Result<[Tensor; 2]> {
        let Shape { heads, kv_heads, head_dim, .. } = self.shape;
        let queries = self.normed(&self.query_norms, self.query.slot.forward(x)?)?;
        let keys = self.normed(&self.key_norms, self.key.slot.forward(x)?)?;
        let Some(rotation) = self.rotation else { return Ok([queries, keys]) };
        let by = &state.rotations[rotation];
        Ok([
            ops::rotate(self.on, &queries, heads, head_dim, by)?,
            ops::rotate(self.on, &keys, kv_heads, head_dim, by)?,
        ])
    }

    /// Queries or keys behind their norm: none, one for heads or the whole width, or one for each head.
    fn normed(&self, norms: &[Norm], x: Tensor) -> Result<Tensor> {
        match norms {
            [] => Ok(x),
            [norm] => {
                let shape = x.shape().clone();
                Ok(norm.forward(&x.reshape(((), norm.weight.shape()[0]))?)?.reshape(shape)?)
            }
            norms => {
                let head_dim = self.shape.head_dim;
                let heads = norms.iter().enumerate();
                let heads =
                    heads.map(|(head, norm)| norm.forward(&x.narrow(1, head * head_dim, head_dim)?));
                Ok(Tensor::cat(&heads.collect::<Result<Vec<_>>>()?, 1)?)
            }
        }
    }
}

fn qk_norms(from: &mut Builder<'_>, name: &str, spec: &AttentionSpec, heads: usize) -> Result<Vec<Norm>> {
    let Some(norm) = spec.qk_norm else { return Ok(Vec::new()) };
    let names: Vec<String> = match norm.scope {
        QkScope::Head | QkScope::Width => vec![name.to_string()],
        QkScope::EachHead => (0..heads).map(|head| format!("{name}.{head}")).collect(),
    };
    let mut norms = Vec::new();
    for name in names {
        norms.extend(from.norm(&name, Some(norm.norm))?);
    }
    Ok(norms)
}
