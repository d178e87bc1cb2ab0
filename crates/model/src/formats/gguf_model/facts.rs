//! What is known of a GGUF file before its weights are looked at: metadata, names and shapes of tensors, and the few
//! small tensors that are settings rather than weights. A file that is only planned has the same facts.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::Arch;
use super::keys::{fold_layers, to_json};
use super::rope;
use crate::formats::gguf::{FromValue, GgufFile, Metadata};
use crate::{Error, Result};

/// Tensors that hold rotary frequencies' divisors.
pub(super) const ROPE_TENSORS: [&str; 3] =
    ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

/// Values of the largest such tensor; half a head's width.
const MAX_DIVISORS: usize = 1 << 16;

/// The facts of one file.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// The file, for messages.
    pub path: &'a Path,
    /// Its architecture.
    pub arch: &'static Arch,
    /// Its metadata.
    pub metadata: &'a Metadata,
    /// Row-major shapes by name.
    pub shapes: HashMap<&'a str, &'a [usize]>,
    /// The values of [`ROPE_TENSORS`].
    pub vectors: HashMap<&'a str, Vec<f32>>,
}

impl<'a> Facts<'a> {
    /// The facts of a file on disk.
    ///
    /// # Errors
    /// If its architecture is none that ounce knows, or a small tensor can't be read.
    pub fn of(file: &'a GgufFile) -> Result<Facts<'a>> {
        let kind: Option<&str> = file.get("general.type")?;
        if let Some(kind) = kind.filter(|kind| *kind != "model") {
            let what =
                format!("holds a GGUF {kind}, which is no model by itself; name the file of the model");
            return Err(Error::format(file.path(), what));
        }
        let name: &str = file.require("general.architecture")?;
        let arch = super::by_name(name).ok_or_else(|| {
            let known: Vec<&str> = super::ALL.iter().map(|arch| arch.name).collect();
            let what = format!(
                "the architecture \"{name}\" is none that ounce knows; it knows {}",
                known.join(", ")
            );
            Error::format(file.path(), what)
        })?;
        let mut vectors = HashMap::new();
        for name in ROPE_TENSORS {
            let Some(tensor) = file.tensor(name) else { continue };
            let count = crate::weights::values_of(&tensor.shape).filter(|&count| count <= MAX_DIVISORS);
            let bad = |what: &str| Error::tensor(file.path(), name, what);
            let mut values = vec![0.0; count.ok_or_else(|| bad("has more values than a head can have"))?];
            ounce_kernels::quant::decode(tensor.dtype, &tensor.data, &mut values)
                .map_err(|error| bad(&error.to_string()))?;
            if !values.iter().all(|value| *value > 0.0 && value.is_finite()) {
                return Err(bad("should hold positive numbers; the file is damaged"));
            }
            vectors.insert(name, values);
        }
        let shapes =
            file.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect();
        Ok(Facts { path: file.path(), arch, metadata: file.metadata(), shapes, vectors })
    }

    /// The value of the architecture's key with this ending, if it is there.
    ///
    /// # Errors
    /// If it is of another kind.
    pub fn get<T: FromValue<'a>>(&self, suffix: &str) -> Result<Option<T>> {
        let key = format!("{}.{suffix}", self.arch.name);
        let Some(value) = self.metadata.get(&key) else { return Ok(None) };
        T::from_value(value).map(Some).ok_or_else(|| {
            Error::format(
                self.path,
                format!("metadata key {key} should be {}, but is {}", T::WANTED, value.kind()),
            )
        })
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.shapes.contains_key(name)
    }

    /// Whether a layer has the tensor `blk.{layer}.{part}`.
    pub fn layer_has(&self, layer: usize, part: &str) -> bool {
        self.has(&format!("blk.{layer}.{part}"))
    }

    /// Whether some layer has the tensor `blk.{layer}.{part}`.
    pub fn some_layer_has(&self, part: &str) -> bool {
        let of_layer = |name: &str| name.strip_prefix("blk.")?.split_once('.').map(|(_, rest)| rest == part);
        self.shapes.keys().any(|name| of_layer(name) == Some(true))
    }

    /// The number of layers.
    ///
    /// # Errors
    /// If the key is missing or absurd.
    pub fn layers(&self) -> Result<usize> {
        let count: Option<usize> = self.get("block_count")?;
        count.filter(|&count| count <= 10_000).ok_or_else(|| {
            let what =
                format!("metadata key {}.block_count is missing or no number of layers", self.arch.name);
            Error::format(self.path, what)
        })
    }

    /// Width of a head: as given, or an even split of the hidden size.
    ///
    /// # Errors
    /// If a key is of another kind.
    pub fn head_dim(&self) -> Result<usize> {
        if let Some(given) = self.get("attention.key_length")? {
            return Ok(given);
        }
        let hidden: usize = self.get("embedding_length")?.unwrap_or(0);
        let several = || self.get::<Vec<usize>>("attention.head_count").ok().flatten();
        let heads = match self.get::<usize>("attention.head_count") {
            Ok(heads) => heads,
            Err(error) => Some(several().ok_or(error)?.into_iter().find(|&heads| heads > 0).unwrap_or(1)),
        };
        Ok(hidden / heads.unwrap_or(1).max(1))
    }

    /// The configuration in Hugging Face's keys, as far as the file's own keys and tensors say it.
    ///
    /// # Errors
    /// If a key is of another kind, or asks for something that ounce does not compute.
    pub fn config(&self) -> Result<Map<String, Json>> {
        self.refuse_unknown_mathematics()?;
        let mut map = Map::new();
        for key in self.arch.keys.iter().copied().flatten() {
            let value = self.metadata.get(&format!("{}.{}", self.arch.name, key.suffix));
            if let Some(json) = value.and_then(to_json) {
                map.insert(key.config.to_string(), json);
            }
        }
        let embedding = self.shapes.get("token_embd.weight").and_then(|shape| shape.first());
        let rows = embedding.ok_or_else(|| Error::tensor(self.path, "token_embd.weight", "is missing"))?;
        map.insert("vocab_size".to_string(), json!(rows));
        map.insert("tie_word_embeddings".to_string(), json!(!self.has("output.weight")));
        if let Some(spelling) = &self.arch.rope {
            rope::read(self, spelling, &mut map)?;
        }
        (self.arch.read)(self, &mut map)?;
        fold_layers(self.arch.keys, &mut map);
        Ok(map)
    }

    /// Refuses settings that change what is computed and that no supported family has.
    fn refuse_unknown_mathematics(&self) -> Result<()> {
        let head_dim = self.head_dim()?;
        let neutral = |suffix: &str, number: f32| match suffix {
            "attention.scale" => (number * (head_dim as f32).sqrt() - 1.0).abs() < 1e-4,
            "expert_gating_func" => number <= 1.0,
            "logit_scale" | "residual_scale" | "embedding_scale" | "expert_weights_scale" => {
                number == 0.0 || number == 1.0
            }
            _ => number == 0.0,
        };
        let known = |suffix: &str| self.arch.keys.iter().copied().flatten().any(|key| key.suffix == suffix);
        for suffix in CHANGES_MATHEMATICS.into_iter().filter(|suffix| !known(suffix)) {
            let value = self.metadata.get(&format!("{}.{suffix}", self.arch.name));
            let number = value.and_then(|value| match value.integer() {
                Some(integer) => Some(integer as f32),
                None => f32::from_value(value),
            });
            if number.is_some_and(|number| !neutral(suffix, number)) {
                let name = self.arch.name;
                let what =
                    format!("metadata key {name}.{suffix} asks for something that ounce does not compute");
                return Err(Error::format(self.path, what));
            }
        }
        let value_dim: Option<usize> = self.get("attention.value_length")?;
        if value_dim.is_some_and(|value_dim| value_dim != head_dim) {
            let what = "heads whose values are wider or narrower than their keys are not supported";
            return Err(Error::format(self.path, what));
        }
        Ok(())
    }
}

/// Keys that only architectures with them in their tables write with any but a neutral value.
const CHANGES_MATHEMATICS: [&str; 11] = [
    "attention.scale",
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attention.temperature_scale",
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "expert_weights_scale",
    "expert_group_count",
    "expert_gating_func",
    "nextn_predict_layers",
];
