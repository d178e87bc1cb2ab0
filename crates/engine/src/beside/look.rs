//! What queries find in keys and values of an adapter's own, beside what they find in the text (LLaMA-Adapter, arXiv 2303.16199,
//! equations 5 to 8).

use std::collections::HashMap;

use ounce_kernels::matmul::{add_scaled, dot};
use ounce_kernels::softmax::softmax;
use ounce_model::spec::{Attention, Spec};
use smallvec::SmallVec;

use crate::error::{Error, Result};

/// Keys and values that the queries of one layer see, in a softmax of their own.
#[derive(Debug, Clone)]
pub struct Look {
    /// The layer.
    pub layer: usize,
    /// `[n, key width]`, compared with queries as they are, without norm or rotation.
    pub keys: Vec<f32>,
    /// `[n, key width]`.
    pub values: Vec<f32>,
    /// The factor on what is found.
    pub gate: f32,
}

/// Checked, by layer.
pub(super) fn by_layer(spec: &Spec, looks: Vec<Look>) -> Result<HashMap<usize, Look>> {
    let mut found = HashMap::new();
    for look in looks {
        let layer = look.layer;
        let wrong = |what: &str| {
            Err(Error::Unsuitable(format!("the adapter's keys and values of layer {layer} {what}")))
        };
        let attention = spec.layers.get(layer).and_then(|it| it.attention.as_ref());
        let Some(width) = attention.map(Attention::kv_width) else { return wrong("have no attention there") };
        let fits = !look.keys.is_empty() && look.keys.len().is_multiple_of(width);
        if !fits || look.keys.len() != look.values.len() {
            return wrong("have another width than the layer's");
        }
        if !look.gate.is_finite() || !look.keys.iter().chain(&look.values).all(|it| it.is_finite()) {
            return wrong("are no numbers");
        }
        if found.insert(layer, look).is_some() {
            return wrong("come twice");
        }
    }
    Ok(found)
}

impl Look {
    /// Adds what one position's queries, `[heads, head size]`, find to what they found in the text.
    pub(super) fn add(
        &self,
        shape: &Attention,
        queries: &[f32],
        mixed: &mut [f32],
        scores: &mut SmallVec<[f32; 64]>,
    ) {
        let (size, width) = (shape.head_dim, shape.kv_width());
        let sharing = shape.heads / shape.kv_heads.max(1);
        let heads = queries.chunks_exact(size).zip(mixed.chunks_exact_mut(size)).enumerate();
        for (head, (query, out)) in heads {
            let own = head / sharing * size..(head / sharing + 1) * size;
            scores.clear();
            scores
                .extend(self.keys.chunks_exact(width).map(|key| shape.scale * dot(query, &key[own.clone()])));
            softmax(scores);
            for (score, value) in scores.iter().zip(self.values.chunks_exact(width)) {
                add_scaled(self.gate * score, &value[own.clone()], out);
            }
        }
    }
}
