//! What a GGUF file of a model will hold, before anything is written: keys, tensors, and what they leave unsaid.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use serde_json::{Value as Json, json};

use super::Arch;
use super::facts::Facts;
use super::rope;
use crate::families;
use crate::formats::gguf::{Metadata, Value};
use crate::model::Model;
use crate::names::{self, FileTensor};
use crate::rope::RopeScaling;
use crate::spec::{Positions, Spec};
use crate::{Config, Error, Result};

/// A file to be written.
#[derive(Debug)]
pub(super) struct Draft {
    /// Its architecture.
    pub arch: &'static Arch,
    /// The model as it is in the file: an encoder has no head any more.
    pub spec: Spec,
    /// The configuration that belongs to it.
    pub config: Config,
    /// The architecture's keys.
    pub metadata: Metadata,
    /// The weights.
    pub tensors: Vec<FileTensor>,
    /// Small tensors that are settings.
    pub settings: Vec<(&'static str, Vec<f32>)>,
}

impl Draft {
    /// The file of a model.
    ///
    /// # Errors
    /// If no architecture of GGUF holds the family, or a tensor has no place in it.
    pub fn of(spec: &Spec, config: &Config) -> Result<Draft> {
        if spec.sharing_layers() > 0 {
            let what = "GGUF has no layers that share their weights; write a folder of safetensors";
            return Err(Error::unsupported(what));
        }
        let arch = super::for_spec(spec).ok_or_else(|| {
            Error::unsupported(format!("GGUF has no architecture for the family {}", spec.family))
        })?;
        let (mut spec, mut config) = (spec.clone(), config.clone());
        if !spec.causal && spec.head.is_some() {
            tracing::warn!(
                "GGUF has no place for the head of a masked language model; only the encoder is written"
            );
            spec.head = None;
            let class = families::by_name(&spec.family).and_then(|family| family.architectures.first());
            config
                .map_mut()
                .insert("architectures".to_string(), json!(class.map_or_else(Vec::new, |it| vec![it])));
        }
        let mut metadata = Metadata::default();
        for key in arch.keys.iter().copied().flatten() {
            if let Some(value) = (key.of)(&spec) {
                metadata.insert(format!("{}.{}", arch.name, key.suffix), value);
            }
        }
        if let Some(Value::U32(width)) = metadata.get(&format!("{}.attention.key_length", arch.name)) {
            let width = *width;
            metadata.insert(format!("{}.attention.value_length", arch.name), width);
        }
        metadata.insert(format!("{}.vocab_size", arch.name), spec.vocab_size as u32);
        let settings = match arch.rope {
            Some(_) => rope::write(&spec, arch.name, &mut metadata),
            None => Vec::new(),
        };
        (arch.write)(&spec, &config, &mut metadata);
        let tensors = names::plan(&spec, &arch.names)?;
        Ok(Draft { arch, spec, config, metadata, tensors, settings })
    }

    /// What a reader will know of the file.
    pub fn facts<'a>(&'a self, path: &'a Path) -> Facts<'a> {
        let shapes = self.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice()));
        let vectors: HashMap<&str, Vec<f32>> =
            self.settings.iter().map(|(name, values)| (*name, values.clone())).collect();
        Facts { path, arch: self.arch, metadata: &self.metadata, shapes: shapes.collect(), vectors }
    }

    /// Parts of the spec that a reader without ounce's own keys gets wrong, as paths (`layers.attention.window`).
    ///
    /// # Errors
    /// If the file's own keys give no model at all.
    pub fn unexpressed(&self) -> Result<Vec<String>> {
        let path = Path::new("GGUF file");
        let plain = Config::new(path, self.facts(path).config()?);
        let (_, found) = families::spec_of(&plain)?;
        let mut differing = BTreeSet::new();
        compare(&comparable(&self.spec), &comparable(&found), String::new(), &mut differing);
        if !self.spec.ranks.is_empty() {
            differing.insert("factorised layers".to_string());
        }
        Ok(differing.into_iter().collect())
    }
}

/// What GGUF's own keys can't say of a model, as paths within its spec (`layers.attention.rope.scaling`): ounce keeps
/// it in keys of its own, other programs compute without it.
///
/// # Errors
/// If no architecture of GGUF holds the model.
pub fn unexpressed(model: &Model) -> Result<Vec<String>> {
    Draft::of(&model.spec, &model.config)?.unexpressed()
}

/// The architecture that a model's GGUF file names.
///
/// # Errors
/// If no architecture of GGUF holds the model.
pub fn architecture(model: &Model) -> Result<&'static str> {
    Ok(Draft::of(&model.spec, &model.config)?.arch.name)
}

/// A spec without what does not change results: the family's name, unused rows of a position table, and which method
/// gave a list of divisors. How sentences are pooled is no part of the comparison.
fn comparable(spec: &Spec) -> Json {
    let mut spec = Spec { family: String::new(), pooling: None, ranks: Default::default(), ..spec.clone() };
    for attention in spec.layers.iter_mut().filter_map(|layer| layer.attention.as_mut()) {
        if let Some(rope) = &mut attention.rope
            && let Some(divisors) = rope.divisors()
        {
            rope.scaling = RopeScaling::Divisors { divisors };
        }
    }
    let positions = spec.embedding.positions;
    spec.embedding.positions =
        positions.map(|it| Positions { count: it.count.saturating_sub(it.offset), offset: 0 });
    serde_json::to_value(spec).unwrap_or(Json::Null)
}

fn compare(ours: &Json, theirs: &Json, path: String, differing: &mut BTreeSet<String>) {
    let below = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
    match (ours, theirs) {
        (Json::Object(ours), Json::Object(theirs)) if ours.len() == theirs.len() => {
            for (key, value) in ours {
                compare(value, theirs.get(key).unwrap_or(&Json::Null), below(key), differing);
            }
        }
        (Json::Array(ours), Json::Array(theirs)) if ours.len() == theirs.len() => {
            for (ours, theirs) in ours.iter().zip(theirs) {
                compare(ours, theirs, path.clone(), differing);
            }
        }
        (Json::Number(ours), Json::Number(theirs)) => {
            let (ours, theirs) = (ours.as_f64().unwrap_or(0.0), theirs.as_f64().unwrap_or(0.0));
            if (ours - theirs).abs() > 1e-5 * ours.abs() {
                differing.insert(path);
            }
        }
        _ if ours != theirs => {
            differing.insert(path);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::hf;
    use crate::spec::FeedForwardKind;

    fn open(name: &str) -> Model {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models").join(name);
        hf::open_model(&folder).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn layers_of_any_shape_come_back_from_the_keys() {
        for name in ["llama", "qwen3_moe", "gemma2", "phi3_longrope_long", "stablelm"] {
            let model = open(name);
            let mut spec = model.spec.clone();
            if let Some(attention) = &mut spec.layers[0].attention {
                (attention.heads, attention.kv_heads) = (2, 1);
            }
            match spec.layers[0].feed_forward.as_mut().map(|half| &mut half.kind) {
                Some(FeedForwardKind::Dense(mlp)) => mlp.width = 24,
                Some(FeedForwardKind::Experts(experts)) => (experts.count, experts.expert.width) = (3, 8),
                None => {}
            }
            spec.layers[1].attention = None;
            let last = spec.layers.len() - 1;
            spec.layers[last].feed_forward = None;
            let draft = Draft::of(&spec, &model.config).expect("a draft");
            let path = Path::new("draft");
            let plain = Config::new(path, draft.facts(path).config().expect("a configuration"));
            let (_, found) = families::spec_of(&plain).unwrap_or_else(|error| panic!("{name}: {error}"));
            let shapes = |spec: &Spec| -> Vec<_> { spec.tensors() };
            assert_eq!(shapes(&found), shapes(&spec), "{name}");
        }
    }

    #[test]
    fn llama_with_unequal_layers_is_stored_as_other_programs_read_it() {
        let model = open("llama");
        assert_eq!(Draft::of(&model.spec, &model.config).expect("a draft").arch.name, "llama");
        let mut spec = model.spec.clone();
        if let Some(FeedForwardKind::Dense(mlp)) =
            spec.layers[0].feed_forward.as_mut().map(|half| &mut half.kind)
        {
            mlp.width = 24;
        }
        spec.layers[1].attention = None;
        let draft = Draft::of(&spec, &model.config).expect("a draft");
        assert_eq!(draft.arch.name, "deci");
        assert_eq!(draft.unexpressed().expect("a model"), [] as [&str; 0]);
        // That architecture computes attention with nothing behind it in another way.
        spec.layers[0].feed_forward = None;
        assert_eq!(Draft::of(&spec, &model.config).expect("a draft").arch.name, "llama");
    }

    #[test]
    fn families_without_an_architecture_are_refused() {
        let model = open("llama");
        let spec = Spec { family: "rwkv".to_string(), ..model.spec.clone() };
        assert!(Draft::of(&spec, &model.config).is_err());
    }
}
