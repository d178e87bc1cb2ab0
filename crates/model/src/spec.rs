//! The architecture of a model as data: what the one forward pass of the engine interprets.
//!
//! A [`Spec`] is a list of layers, each with its own shape; nothing in it says which family the numbers
//! came from except [`Spec::family`], which no computation reads. [`Spec::tensors`] lists the weights such a
//! model has, under ounce's own names; the tables in [`crate::families`] translate these to file names.
//!
//! One layer, in the sequential arrangement, computes for attention and then for the feed-forward part
//! `x = residual_norm(x + after_norm(part(before_norm(x))))`, where each absent norm is the identity.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::rope::Rope;

/// A whole model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Name of the family whose table translates tensor names (`llama`, `bert`).
    pub family: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Rows of the token embedding; may exceed the tokenizer's vocabulary (padding rows).
    pub vocab_size: usize,
    /// Positions the model was trained for.
    pub context_length: usize,
    /// True for decoders: a position sees itself and what is before it. False for encoders.
    pub causal: bool,
    /// From token ids to the residual stream.
    pub embedding: Embedding,
    /// The layers, first to last; they may differ in every number.
    pub layers: Vec<Layer>,
    /// Norm after the last layer.
    pub final_norm: Option<Norm>,
    /// From the residual stream to logits; none for bare encoders.
    pub head: Option<Head>,
    /// From the residual stream to the scores of labels.
    pub classifier: Option<Classifier>,
    /// How a sentence encoder makes one vector out of its positions.
    pub pooling: Option<Pooling>,
    /// Linear layers whose matrix `[out, in]` is the product of two thin ones: their names, with the rank. Such a layer has
    /// `{name}.reduce.weight`, `[rank, in]`, and `{name}.expand.weight`, `[out, rank]`, in place of `{name}.weight`, and computes
    /// `expand (reduce x) + bias`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ranks: BTreeMap<String, usize>,
}

/// Token embedding and what is added to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// Factor on the token vectors (Gemma: square root of the hidden size).
    pub scale: f32,
    /// Learned position vectors.
    pub positions: Option<Positions>,
    /// Rows of the token-type table; 0 for none.
    pub token_types: usize,
    /// Norm of the sum.
    pub norm: Option<Norm>,
    /// Width of all these tables where it is not that of the residual stream: a linear layer with bias leads from the
    /// normed sum to the stream (ALBERT).
    pub projected_from: Option<usize>,
}

/// A table of learned position vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions {
    /// Rows of the table.
    pub count: usize,
    /// Row of the first position (RoBERTa: padding id + 1).
    pub offset: usize,
}

/// What a norm computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// `x / sqrt(mean(x²) + eps) · w`.
    Rms,
    /// `(x − mean(x)) / sqrt(var(x) + eps) · w + b`.
    Layer,
}

/// A normalisation with learned weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Norm {
    /// What it computes.
    pub kind: NormKind,
    /// Added to the variance.
    pub eps: f32,
    /// Whether there is a bias.
    pub bias: bool,
    /// Whether the stored weight is the difference to one (Gemma).
    pub plus_one: bool,
}

impl Norm {
    /// RMSNorm as most decoders have it.
    pub fn rms(eps: f32) -> Norm {
        Norm { kind: NormKind::Rms, eps, bias: false, plus_one: false }
    }

    /// LayerNorm with bias.
    pub fn layer(eps: f32) -> Norm {
        Norm { kind: NormKind::Layer, eps, bias: true, plus_one: false }
    }
}

/// Where the norms of one half of a layer sit; see the module's formula.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Norms {
    /// On the input of the branch (pre-norm: Llama).
    pub before: Option<Norm>,
    /// On the output of the branch, before it is added (OLMo 2; Gemma has both).
    pub after: Option<Norm>,
    /// On the sum (post-norm: BERT).
    pub residual: Option<Norm>,
}

impl Norms {
    /// Pre-norm only.
    pub fn before(norm: Norm) -> Norms {
        Norms { before: Some(norm), ..Norms::default() }
    }

    /// Norm of the branch's output only.
    pub fn after(norm: Norm) -> Norms {
        Norms { after: Some(norm), ..Norms::default() }
    }

    /// Post-norm only.
    pub fn residual(norm: Norm) -> Norms {
        Norms { residual: Some(norm), ..Norms::default() }
    }
}

/// One layer. A missing half is skipped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Attention half.
    pub attention: Option<Attention>,
    /// Feed-forward half.
    pub feed_forward: Option<FeedForward>,
    /// How the halves are joined.
    pub residual: Residual,
    /// Factor on what each half adds to the residual stream, behind its norm (Granite).
    pub residual_scale: f32,
    /// The layer whose weights it uses, if it has none of its own: one that is before it, has its own, and is otherwise
    /// alike (ALBERT).
    pub shares: Option<usize>,
}

/// How the two halves of a layer meet the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Residual {
    /// Attention is added first; the feed-forward half sees the sum.
    Sequential,
    /// Both halves see the same input, each through its own norm (GPT-NeoX).
    Parallel,
    /// Both halves see the attention's normed input (StableLM 2 12B).
    ParallelSharedNorm,
}

/// Multi-head attention with grouped key/value heads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Norm placement.
    pub norms: Norms,
    /// Biases on query, key and value.
    pub qkv_bias: bool,
    /// Bias on the output projection.
    pub output_bias: bool,
    /// Norm of queries and keys before the rotation.
    pub qk_norm: Option<QkNorm>,
    /// Factor on the scores, usually `1/√head_dim`.
    pub scale: f32,
    /// `cap · tanh(score / cap)` on the scores (Gemma 2).
    pub softcap: Option<f32>,
    /// A position sees only the last `window` positions, itself included.
    pub window: Option<usize>,
    /// Rotary position embedding; none for learned positions or NoPE layers.
    pub rope: Option<Rope>,
    /// The layer whose queries and keys, and so whose attention matrix, it uses in the place of its own (EchoAtt): the nearest before it that
    /// has its own. Such a layer has values and an output only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<usize>,
}

/// Norm of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct QkNorm {
    /// What it computes.
    pub norm: Norm,
    /// Over what.
    pub scope: QkScope,
}

/// What one query/key norm spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QkScope {
    /// Each head, all heads sharing one weight of `head_dim` (Qwen 3, Gemma 3).
    Head,
    /// Each head with a weight of its own (StableLM).
    EachHead,
    /// The whole projection at once, weight of `heads · head_dim` (OLMo 2).
    Width,
}

/// The feed-forward half.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeedForward {
    /// Norm placement.
    pub norms: Norms,
    /// Dense or mixture of experts.
    pub kind: FeedForwardKind,
}

/// What the feed-forward half computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedForwardKind {
    /// One multilayer perceptron.
    Dense(Mlp),
    /// A router and experts.
    Experts(Experts),
}

/// `down(act(up(x)))`, or gated `down(act(gate(x)) ⊙ up(x))`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mlp {
    /// Inner width.
    pub width: usize,
    /// Whether there is a gate.
    pub gated: bool,
    /// The nonlinearity.
    pub activation: Activation,
    /// Biases on all its linears.
    pub bias: bool,
}

/// A sparsely activated feed-forward half: each token uses `used` of `count` experts, weighted by the
/// softmax of the router's scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Experts {
    /// Experts there are.
    pub count: usize,
    /// Experts a token uses.
    pub used: usize,
    /// Each expert.
    pub expert: Mlp,
    /// Whether the chosen experts' weights are scaled to sum to one.
    pub normalise: bool,
    /// An expert every token uses besides.
    pub shared: Option<Mlp>,
    /// Whether a sigmoid gate scales the shared expert (Qwen 2 MoE).
    pub shared_gate: bool,
}

/// Nonlinearities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x · σ(x)`.
    Silu,
    /// `x · Φ(x)`, by the error function.
    Gelu,
    /// GELU by the tanh approximation.
    GeluTanh,
    /// `x · σ(1.702 x)`.
    GeluQuick,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²`.
    Relu2,
    /// `tanh(x)`.
    Tanh,
}

/// From the residual stream to logits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Whether the token embedding serves as the matrix.
    pub tied: bool,
    /// Bias on the logits.
    pub bias: bool,
    /// Dense layer, nonlinearity and norm in front (masked language models).
    pub transform: Option<HeadTransform>,
    /// Factor on the logits, before the cap (Granite).
    pub scale: f32,
    /// `cap · tanh(logit / cap)` (Gemma 2).
    pub softcap: Option<f32>,
}

/// The layer in front of a masked language model's output matrix.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HeadTransform {
    /// The nonlinearity after the dense layer.
    pub activation: Activation,
    /// The norm after that.
    pub norm: Norm,
}

/// From hidden states to the scores of labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classifier {
    /// How many labels there are.
    pub labels: usize,
    /// What a score is of.
    pub of: Scored,
    /// Whether scores have a bias.
    pub bias: bool,
}

/// What gets a score for every label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scored {
    /// A text, by one of its positions.
    Text {
        /// Whether that is the last position, not the first.
        last: bool,
        /// The nonlinearity of a dense layer in front.
        dense: Option<Activation>,
    },
    /// Every token.
    Tokens,
    /// Every token as the start (label 0) and the end (label 1) of an answer.
    Spans,
}

/// How a sentence encoder makes one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pooling {
    /// Which positions it takes.
    pub mode: PoolingMode,
    /// Whether the vector is scaled to length one.
    pub normalise: bool,
}

/// Which positions make the sentence vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolingMode {
    /// The first.
    Cls,
    /// The mean of all.
    Mean,
    /// The greatest value of each dimension.
    Max,
    /// The last.
    Last,
}

impl Attention {
    /// Width of all query heads.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

impl Spec {
    /// Width of the token vectors, and of what a transformed head multiplies with them.
    pub fn embedding_width(&self) -> usize {
        self.embedding.projected_from.unwrap_or(self.hidden_size)
    }

    /// The layer that holds the weights of layer `index`: itself, or the one it shares with.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn owner(&self, index: usize) -> usize {
        self.layers[index].shares.unwrap_or(index)
    }

    /// How many layers use each other's weights, for people and reports: layers without weights of their own.
    pub fn sharing_layers(&self) -> usize {
        self.layers.iter().filter(|layer| layer.shares.is_some()).count()
    }

    /// The rotations of all layers that have one.
    pub fn ropes(&self) -> impl Iterator<Item = &Rope> {
        self.layers.iter().filter_map(|layer| layer.attention.as_ref()?.rope.as_ref())
    }

    /// How many layers attend by another's queries and keys.
    pub fn copying_layers(&self) -> usize {
        let attentions = self.layers.iter().filter_map(|layer| layer.attention.as_ref());
        attentions.filter(|attention| attention.copies.is_some()).count()
    }

    /// Key/value cache bytes that one more token costs at `bytes_per_value`, over all layers. Layers with a
    /// window stop growing once it is full; this is the cost before that.
    pub fn kv_bytes_per_token(&self, bytes_per_value: usize) -> usize {
        let widths = self.layers.iter().filter_map(|layer| layer.attention.as_ref());
        let kept = |attention: &Attention| if attention.copies.is_some() { 1 } else { 2 };
        widths.map(|attention| kept(attention) * attention.kv_width() * bytes_per_value).sum()
    }

    /// Number of parameters, tied ones once.
    pub fn parameters(&self) -> u64 {
        self.tensors().iter().map(|tensor| tensor.shape.iter().map(|&n| n as u64).product::<u64>()).sum()
    }
}
