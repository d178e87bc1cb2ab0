//! Models in GGUF files: which metadata keys and tensor names an architecture uses, over the container in
//! [`super::gguf`].
//!
//! One file an architecture: its tables say how ounce's families are stored, and serve reading and writing. Reading
//! turns metadata into a configuration in Hugging Face's keys, from which the family builds the spec; writing asks
//! the spec. What GGUF has no key for travels in keys of ounce's own that other programs pass over:
//!
//! - `ounce.config`, `ounce.generation_config`: the original JSON. The file's own keys win where they mean something
//!   else than these.
//! - `ounce.file.NAME`: small text files of the original folder.
//! - `ounce.pooling`: what `pooling_type` can't say; `ounce.positions`: rows of RoBERTa's position table that GGUF
//!   leaves out.

mod bert;
mod config;
mod deci;
mod draft;
mod facts;
mod gemma;
mod gpt2;
mod gptneox;
mod granite;
mod keys;
mod llama;
mod olmo2;
mod phi3;
mod qwen;
mod read;
mod rope;
mod smollm3;
mod stablelm;
mod types;
mod vocab;
mod windows;
mod write;

use serde_json::{Map, Value as Json};

use crate::formats::gguf::Metadata;
use crate::names::{Names, Rule, same};
use crate::spec::Spec;
use crate::{Config, Result};

pub use draft::{architecture, unexpressed};
pub use read::{is_first_shard, open_model};
pub use write::{forecast, matrices, write_model};

use facts::Facts;
use keys::Key;

/// One of GGUF's architectures.
#[derive(Debug)]
struct Arch {
    /// `general.architecture`.
    name: &'static str,
    /// ounce's families that are stored so.
    families: &'static [&'static str],
    /// Keys that hold one number each.
    keys: &'static [&'static [Key]],
    /// How the families' configurations spell rotation; none without rotation.
    rope: Option<rope::Spelling>,
    /// Tensor names.
    names: Names,
    /// Adds to a configuration what the tables don't say; always `model_type`.
    read: fn(&Facts<'_>, &mut Map<String, Json>) -> Result<()>,
    /// Adds to the metadata what the tables don't say.
    write: fn(&Spec, &Config, &mut Metadata),
}

/// Every architecture.
static ALL: &[&Arch] = &[
    &llama::LLAMA,
    &deci::DECI,
    &qwen::QWEN2,
    &qwen::QWEN2_MOE,
    &qwen::QWEN3,
    &qwen::QWEN3_MOE,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &phi3::PHI3,
    &granite::GRANITE,
    &smollm3::SMOLLM3,
    &olmo2::OLMO2,
    &stablelm::STABLELM,
    &gpt2::GPT2,
    &gptneox::GPTNEOX,
    &bert::BERT,
];

fn by_name(name: &str) -> Option<&'static Arch> {
    ALL.iter().copied().find(|arch| arch.name == name)
}

/// The architecture that a model is stored as.
fn for_spec(spec: &Spec) -> Option<&'static Arch> {
    if deci::fits(spec) {
        return Some(&deci::DECI);
    }
    ALL.iter().copied().find(|arch| arch.families.contains(&spec.family.as_str()))
}

/// Tensors of files that no computation needs or that are read as settings.
const IGNORED: &[&str] =
    &["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight", ".attn_rot_embd.weight"];

/// A table of names; GGUF's have no prefixes.
const fn names(rules: &'static [&'static [Rule]]) -> Names {
    Names { prefixes: &[""], rules, ignore: IGNORED }
}

/// Embedding, last norm and head.
const OUTSIDE: &[Rule] =
    &[same("token_embd", &["embed.tokens"]), same("output_norm", &["final_norm"]), same("output", &["head"])];

/// Separate query, key and value projections in half-split order.
const PROJECTIONS: &[Rule] = &[
    same("blk.{i}.attn_q", &["layers.{i}.attention.query"]),
    same("blk.{i}.attn_k", &["layers.{i}.attention.key"]),
    same("blk.{i}.attn_v", &["layers.{i}.attention.value"]),
];

/// The three projections in one tensor, one below the other.
const FUSED_PROJECTIONS: &[Rule] = &[same(
    "blk.{i}.attn_qkv",
    &["layers.{i}.attention.query", "layers.{i}.attention.key", "layers.{i}.attention.value"],
)];

/// The projection behind the attention.
const ATTENTION_OUTPUT: &[Rule] = &[same("blk.{i}.attn_output", &["layers.{i}.attention.output"])];

/// Norms of queries and keys.
const HEAD_NORMS: &[Rule] = &[
    same("blk.{i}.attn_q_norm", &["layers.{i}.attention.query_norm"]),
    same("blk.{i}.attn_k_norm", &["layers.{i}.attention.key_norm"]),
];

/// Pre-norms of both halves.
const PRE_NORMS: &[Rule] = &[
    same("blk.{i}.attn_norm", &["layers.{i}.attention.before_norm"]),
    same("blk.{i}.ffn_norm", &["layers.{i}.feed_forward.before_norm"]),
];

/// Feed-forward half with gate.
const GATED: &[Rule] = &[same("blk.{i}.ffn_gate", &["layers.{i}.feed_forward.gate"])];

/// Feed-forward half, less the gate.
const MLP: &[Rule] = &[
    same("blk.{i}.ffn_up", &["layers.{i}.feed_forward.up"]),
    same("blk.{i}.ffn_down", &["layers.{i}.feed_forward.down"]),
];

/// Router and experts: all of a layer in one tensor; gate and up may be one tensor together, and early files have one
/// tensor an expert.
const EXPERTS: &[Rule] = &[
    same("blk.{i}.ffn_gate_inp", &["layers.{i}.feed_forward.router"]),
    same("blk.{i}.ffn_gate_exps", &["layers.{i}.feed_forward.experts.{e}.gate"]),
    same("blk.{i}.ffn_up_exps", &["layers.{i}.feed_forward.experts.{e}.up"]),
    same("blk.{i}.ffn_down_exps", &["layers.{i}.feed_forward.experts.{e}.down"]),
    same(
        "blk.{i}.ffn_gate_up_exps",
        &["layers.{i}.feed_forward.experts.{e}.gate", "layers.{i}.feed_forward.experts.{e}.up"],
    ),
    same("blk.{i}.ffn_gate.{e}", &["layers.{i}.feed_forward.experts.{e}.gate"]),
    same("blk.{i}.ffn_up.{e}", &["layers.{i}.feed_forward.experts.{e}.up"]),
    same("blk.{i}.ffn_down.{e}", &["layers.{i}.feed_forward.experts.{e}.down"]),
];

/// For [`Arch::write`] of architectures whose tables say everything.
fn nothing_more(_: &Spec, _: &Config, _: &mut Metadata) {}

/// Sets `model_type` and the class that goes with it.
fn set_model_type(map: &mut Map<String, Json>, model_type: &str, class: &str) {
    map.insert("model_type".to_string(), model_type.into());
    map.insert("architectures".to_string(), serde_json::json!([class]));
}

/// Sets a switch.
fn set_flag(map: &mut Map<String, Json>, key: &str, flag: bool) {
    map.insert(key.to_string(), flag.into());
}
