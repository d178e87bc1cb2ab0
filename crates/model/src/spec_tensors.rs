//! The weights a [`Spec`] has: ounce's names and shapes, one list for every reader and writer.
//!
//! Names end in `.weight` or `.bias`. Linear weights are `[out, in]`; norms and biases are vectors.

use std::collections::BTreeMap;

use crate::spec::{
    Attention, Experts, FeedForward, FeedForwardKind, Mlp, Norm, Norms, QkNorm, QkScope, Residual, Scored,
    Spec,
};

/// Name and shape of one weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// ounce's name, for instance `layers.3.attention.query.weight`.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
}

/// End of the name of a factorised linear layer's first matrix.
pub const REDUCE: &str = ".reduce.weight";
/// End of the name of its second matrix.
pub const EXPAND: &str = ".expand.weight";

/// Whether a weight of this name is one of the two matrices of a factorised linear layer.
pub fn is_factor(name: &str) -> bool {
    name.ends_with(REDUCE) || name.ends_with(EXPAND)
}

/// Collects the list; knows which linear layers are factorised.
struct List<'s>(Vec<TensorSpec>, &'s BTreeMap<String, usize>);

impl List<'_> {
    fn push(&mut self, name: String, shape: &[usize]) {
        self.0.push(TensorSpec { name, shape: shape.to_vec() });
    }

    fn norm(&mut self, name: &str, norm: Option<Norm>, width: usize) {
        if let Some(norm) = norm {
            self.push(format!("{name}.weight"), &[width]);
            if norm.bias {
                self.push(format!("{name}.bias"), &[width]);
            }
        }
    }

    fn linear(&mut self, name: &str, out: usize, input: usize, bias: bool) {
        match self.1.get(name) {
            Some(&rank) => {
                self.push(format!("{name}{REDUCE}"), &[rank, input]);
                self.push(format!("{name}{EXPAND}"), &[out, rank]);
            }
            None => self.push(format!("{name}.weight"), &[out, input]),
        }
        if bias {
            self.push(format!("{name}.bias"), &[out]);
        }
    }

    fn norms(&mut self, name: &str, norms: &Norms, width: usize) {
        self.norm(&format!("{name}.before_norm"), norms.before, width);
        self.norm(&format!("{name}.after_norm"), norms.after, width);
        self.norm(&format!("{name}.residual_norm"), norms.residual, width);
    }

    fn qk_norm(&mut self, name: &str, norm: &QkNorm, heads: usize, head_dim: usize) {
        match norm.scope {
            QkScope::Head => self.norm(name, Some(norm.norm), head_dim),
            QkScope::Width => self.norm(name, Some(norm.norm), heads * head_dim),
            QkScope::EachHead => {
                for head in 0..heads {
                    self.norm(&format!("{name}.{head}"), Some(norm.norm), head_dim);
                }
            }
        }
    }

    fn attention(&mut self, name: &str, attention: &Attention, hidden: usize) {
        self.norms(name, &attention.norms, hidden);
        let (query, kv) = (attention.query_width(), attention.kv_width());
        if attention.copies.is_none() {
            self.linear(&format!("{name}.query"), query, hidden, attention.qkv_bias);
            self.linear(&format!("{name}.key"), kv, hidden, attention.qkv_bias);
        }
        self.linear(&format!("{name}.value"), kv, hidden, attention.qkv_bias);
        self.linear(&format!("{name}.output"), hidden, query, attention.output_bias);
        if let Some(norm) = attention.qk_norm.as_ref().filter(|_| attention.copies.is_none()) {
            self.qk_norm(&format!("{name}.query_norm"), norm, attention.heads, attention.head_dim);
            self.qk_norm(&format!("{name}.key_norm"), norm, attention.kv_heads, attention.head_dim);
        }
    }

    fn mlp(&mut self, name: &str, mlp: &Mlp, hidden: usize) {
        if mlp.gated {
            self.linear(&format!("{name}.gate"), mlp.width, hidden, mlp.bias);
        }
        self.linear(&format!("{name}.up"), mlp.width, hidden, mlp.bias);
        self.linear(&format!("{name}.down"), hidden, mlp.width, mlp.bias);
    }

    fn experts(&mut self, name: &str, experts: &Experts, hidden: usize) {
        self.linear(&format!("{name}.router"), experts.count, hidden, false);
        for expert in 0..experts.count {
            self.mlp(&format!("{name}.experts.{expert}"), &experts.expert, hidden);
        }
        if let Some(shared) = &experts.shared {
            self.mlp(&format!("{name}.shared"), shared, hidden);
        }
        if experts.shared_gate {
            self.linear(&format!("{name}.shared_gate"), 1, hidden, false);
        }
    }

    fn feed_forward(&mut self, name: &str, feed_forward: &FeedForward, hidden: usize) {
        self.norms(name, &feed_forward.norms, hidden);
        match &feed_forward.kind {
            FeedForwardKind::Dense(mlp) => self.mlp(name, mlp, hidden),
            FeedForwardKind::Experts(experts) => self.experts(name, experts, hidden),
        }
    }
}

impl Spec {
    /// Every weight of such a model once, in the order of first use.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let hidden = self.hidden_size;
        let mut list = List(Vec::new(), &self.ranks);
        let width = self.embedding_width();
        list.push("embed.tokens.weight".into(), &[self.vocab_size, width]);
        if let Some(positions) = self.embedding.positions {
            list.push("embed.positions.weight".into(), &[positions.count, width]);
        }
        if self.embedding.token_types > 0 {
            list.push("embed.types.weight".into(), &[self.embedding.token_types, width]);
        }
        list.norm("embed.norm", self.embedding.norm, width);
        if self.embedding.projected_from.is_some() {
            list.linear("embed.projection", hidden, width, true);
        }
        for (index, layer) in self.layers.iter().enumerate().filter(|(_, layer)| layer.shares.is_none()) {
            if let Some(attention) = &layer.attention {
                list.attention(&format!("layers.{index}.attention"), attention, hidden);
            }
            if let Some(feed_forward) = &layer.feed_forward {
                debug_assert!(
                    layer.residual != Residual::ParallelSharedNorm || feed_forward.norms.before.is_none(),
                    "a shared norm belongs to the attention"
                );
                list.feed_forward(&format!("layers.{index}.feed_forward"), feed_forward, hidden);
            }
        }
        list.norm("final_norm", self.final_norm, hidden);
        if let Some(head) = &self.head {
            let mut read = hidden;
            if let Some(transform) = head.transform {
                read = width;
                list.linear("head.dense", width, hidden, true);
                list.norm("head.norm", Some(transform.norm), width);
            }
            if !head.tied {
                list.push("head.weight".into(), &[self.vocab_size, read]);
            }
            if head.bias {
                list.push("head.bias".into(), &[self.vocab_size]);
            }
        }
        if let Some(classifier) = self.classifier {
            let name = match classifier.of {
                Scored::Text { dense, .. } => {
                    if dense.is_some() {
                        list.linear("classifier.dense", hidden, hidden, true);
                    }
                    "classifier"
                }
                Scored::Tokens => "token_classifier",
                Scored::Spans => "span_classifier",
            };
            list.linear(name, classifier.labels, hidden, classifier.bias);
        }
        list.0
    }
}
