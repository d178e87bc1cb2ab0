//! Tensor names as data: a table of [`Rule`]s says under which name, and in which layout, a file format
//! stores each of ounce's tensors. The same table reads ([`resolve`]) and writes ([`plan`]).
//!
//! Templates: `{i}` is the layer, `{e}` the expert (or head), `{p}` one of the table's prefixes. Where layers share
//! weights, `{g}` is the group of layers and `{j}` the place in it (see `groups`). Where `ours`
//! has `{e}` and `file` has not, the file's tensor stacks all experts, the expert index slowest.

mod read;
mod write;

use std::collections::HashSet;

use crate::spec::{FeedForwardKind, QkScope, Spec};
use crate::weights::TensorSource;

pub use read::{Take, resolve};
pub use write::{FileTensor, plan};

/// One line of a table.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The file's name, without `.weight` or `.bias` unless [`Suffix::Bare`].
    pub file: &'static str,
    /// ounce's names of the parts it holds, in order, without `.weight` or `.bias`.
    pub ours: &'static [&'static str],
    /// How the parts lie in the file's tensor.
    pub layout: Layout,
    /// How `.weight` and `.bias` are spelt.
    pub suffix: Suffix,
}

/// How one or several of ounce's tensors lie in one tensor of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As they are; several parts one below the other (fused query/key/value, gate/up).
    Rows,
    /// Transposed, `[in, out]`; several parts side by side (GPT-2).
    Columns,
    /// Per head its query, key and value rows (GPT-NeoX).
    HeadThirds,
    /// Rows of each head reordered for interleaved rotation (GGUF `llama`, llama2.c).
    Interleaved,
    /// The file has the value plus one (GGUF Gemma norms).
    PlusOne,
}

/// How the end of the name is spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suffix {
    /// `.weight` and `.bias`.
    Usual,
    /// Nothing is appended; holds weights only.
    Bare,
    /// `.gamma` and `.beta` (early BERT checkpoints).
    GammaBeta,
}

/// A format's table for one family.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// What `{p}` may stand for; the first is written, or none for a model without a head.
    pub prefixes: &'static [&'static str],
    /// The rules; of several that match a tensor the first whose file name exists is read, and the very
    /// first is written.
    pub rules: &'static [&'static [Rule]],
    /// Ends of names that files carry and no computation needs.
    pub ignore: &'static [&'static str],
}

impl Names {
    /// The source's name for one of ounce's tensors, if a rule for it names a tensor that is there.
    pub(crate) fn find(&self, ours: &str, source: &dyn TensorSource) -> Option<String> {
        let key = Key::of(ours);
        let rules =
            self.rules.iter().copied().flatten().filter(|rule| rule.ours.contains(&key.template.as_str()));
        let names = |rule: &Rule| {
            let prefixes = self.prefixes.iter();
            prefixes.filter_map(|prefix| rule.file_name(prefix, &key)).collect::<Vec<_>>()
        };
        rules.flat_map(names).find(|name| source.info(name).is_some())
    }

    /// What stands in front of the layer's number, in every spelling (`model.layers.`, `layers.`).
    fn layer_stems(&self) -> HashSet<String> {
        let numbered = |rule: &Rule| rule.file.split_once("{i}").or_else(|| rule.file.split_once("{g}"));
        let files = self.rules.iter().copied().flatten().filter_map(numbered);
        files
            .flat_map(|(stem, _)| self.prefixes.iter().map(move |prefix| stem.replace("{p}", prefix)))
            .filter(|stem| !stem.is_empty())
            .collect()
    }
}

/// A rule for one tensor stored as it is.
pub const fn same(file: &'static str, ours: &'static [&'static str]) -> Rule {
    Rule { file, ours, layout: Layout::Rows, suffix: Suffix::Usual }
}

/// A rule with a layout of its own.
pub const fn laid(file: &'static str, ours: &'static [&'static str], layout: Layout) -> Rule {
    Rule { file, ours, layout, suffix: Suffix::Usual }
}

/// A rule for a tensor whose file name has no `.weight`.
pub const fn bare(file: &'static str, ours: &'static [&'static str]) -> Rule {
    Rule { file, ours, layout: Layout::Rows, suffix: Suffix::Bare }
}

impl Rule {
    /// The file's full name for one of ounce's suffixes; `None` if this rule has none such.
    fn file_name(&self, prefix: &str, key: &Key<'_>) -> Option<String> {
        let end = match (self.suffix, key.suffix) {
            (Suffix::Usual, suffix) => suffix,
            (Suffix::Bare, ".weight") => "",
            (Suffix::GammaBeta, ".weight") => ".gamma",
            (Suffix::GammaBeta, ".bias") => ".beta",
            _ => return None,
        };
        let mut name = self.file.replace("{p}", prefix);
        if let Some(layer) = key.layer {
            name = name.replace("{i}", &layer.to_string());
        }
        if let Some((group, place)) = key.group {
            name = name.replace("{g}", &group.to_string()).replace("{j}", &place.to_string());
        }
        if let Some(expert) = key.expert {
            name = name.replace("{e}", &expert.to_string());
        }
        Some(name + end)
    }

    fn stacked(&self) -> bool {
        !self.file.contains("{e}") && self.ours.iter().any(|ours| ours.contains("{e}"))
    }
}

/// One of ounce's names taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key<'a> {
    template: String,
    layer: Option<usize>,
    expert: Option<usize>,
    /// Group of shared layers and place in it, where the model is known.
    group: Option<(usize, usize)>,
    suffix: &'a str,
}

impl<'a> Key<'a> {
    fn of(name: &'a str) -> Key<'a> {
        let dot = name.rfind('.').unwrap_or(name.len());
        let (stem, suffix) = name.split_at(dot);
        let (mut layer, mut expert) = (None, None);
        let parts: Vec<&str> = stem
            .split('.')
            .map(|part| match part.parse::<usize>() {
                Ok(number) if layer.is_none() => {
                    layer = Some(number);
                    "{i}"
                }
                Ok(number) => {
                    expert = Some(number);
                    "{e}"
                }
                Err(_) => part,
            })
            .collect();
        Key { template: parts.join("."), layer, expert, group: None, suffix }
    }

    /// [`Key::of`] with the layer's place among shared ones.
    fn within(spec: &Spec, names: &Names, name: &'a str) -> Key<'a> {
        let key = Key::of(name);
        let grouped = names.rules.iter().copied().flatten().any(|rule| rule.file.contains("{g}"));
        Key { group: key.layer.filter(|_| grouped).map(|layer| groups(spec, layer)), ..key }
    }

    /// The name that `ours` stands for at this key's layer, for expert `expert`.
    fn sibling(&self, ours: &str, expert: Option<usize>) -> String {
        let mut name = ours.to_string();
        if let Some(layer) = self.layer {
            name = name.replace("{i}", &layer.to_string());
        }
        if let Some(expert) = expert {
            name = name.replace("{e}", &expert.to_string());
        }
        name + self.suffix
    }
}

/// Group and place of a layer that has weights: layers are used as groups of consecutive ones, each group several times
/// before the next. A group is as long as there are layers before the first that shares; without sharing it is one.
fn groups(spec: &Spec, layer: usize) -> (usize, usize) {
    let length = spec.layers.iter().position(|layer| layer.shares.is_some()).unwrap_or(1).max(1);
    let owned = spec.layers.iter().take(layer).filter(|layer| layer.shares.is_none()).count();
    (owned / length, owned % length)
}

/// Heads of the projection that `template` names at a layer; for layouts that reorder heads.
fn heads_of(spec: &Spec, layer: Option<usize>, template: &str) -> Option<usize> {
    let attention = spec.layers.get(layer?)?.attention.as_ref()?;
    Some(if template.ends_with("query") { attention.heads } else { attention.kv_heads })
}

/// How many experts (or heads) a stacked tensor of this template holds at a layer.
fn stack_len(spec: &Spec, layer: Option<usize>, template: &str) -> Option<usize> {
    let layer = spec.layers.get(layer?)?;
    if template.contains(".experts.") {
        return match &layer.feed_forward.as_ref()?.kind {
            FeedForwardKind::Experts(experts) => Some(experts.count),
            FeedForwardKind::Dense(_) => None,
        };
    }
    let attention = layer.attention.as_ref()?;
    let norm = attention.qk_norm.filter(|norm| norm.scope == QkScope::EachHead);
    norm.map(|_| if template.contains("query_norm") { attention.heads } else { attention.kv_heads })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_take_names_apart_and_put_them_together() {
        let name = "layers.3.feed_forward.experts.17.up.weight";
        let key = Key::of(name);
        assert_eq!(key.template, "layers.{i}.feed_forward.experts.{e}.up");
        assert_eq!((key.layer, key.expert, key.suffix), (Some(3), Some(17), ".weight"));
        assert_eq!(key.sibling(&key.template, Some(17)), name);
    }

    #[test]
    fn stacked_rules_are_those_whose_file_names_no_expert() {
        assert!(same("blk.{i}.ffn_up_exps", &["layers.{i}.feed_forward.experts.{e}.up"]).stacked());
        assert!(!same("m.{i}.experts.{e}.w3", &["layers.{i}.feed_forward.experts.{e}.up"]).stacked());
    }
}
