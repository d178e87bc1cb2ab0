//! A small, sound Llama folder, of which each test damages one file.

use std::path::{Path, PathBuf};

use ounce_model::{Config, Model, Result, families, names};
use serde_json::{Map, Value, json};

use super::safetensors::file;

/// The folder; it is removed when this is dropped.
pub struct Folder(tempfile::TempDir);

/// A tensor as a safetensors header has it: name, type, shape, bytes.
pub type Stored = (String, &'static str, Vec<usize>, Vec<u8>);

/// The settings of the sound model.
pub fn config() -> Map<String, Value> {
    let config = json!({
        "model_type": "llama",
        "hidden_size": 8,
        "intermediate_size": 6,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 5,
        "max_position_embeddings": 16,
    });
    config.as_object().unwrap().clone()
}

/// The tensors of a configuration, in F32, with small values.
pub fn tensors(config: &Map<String, Value>) -> Vec<Stored> {
    let (family, spec) = families::spec_of(&Config::new("config.json", config.clone())).unwrap();
    let planned = names::plan(&spec, &family.names).unwrap();
    let values = |count: usize| (0..count).flat_map(|i| (i as f32 * 0.1).sin().to_le_bytes()).collect();
    planned
        .into_iter()
        .map(|it| (it.name, "F32", it.shape.clone(), values(it.shape.iter().product())))
        .collect()
}

/// A safetensors file of these tensors.
pub fn pack(tensors: &[Stored]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend_from_slice(bytes);
    }
    file(&Value::Object(header).to_string(), &data)
}

impl Folder {
    /// A sound model.
    pub fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.write("config.json", Value::Object(config()).to_string());
        folder.write("model.safetensors", pack(&tensors(&config())));
        folder
    }

    /// A model with these settings; the weights are the sound ones.
    pub fn with_settings(changes: &[(&str, Value)]) -> Folder {
        let mut config = config();
        for (key, value) in changes {
            match value {
                Value::Null => config.remove(*key),
                value => config.insert((*key).to_string(), value.clone()),
            };
        }
        let folder = Folder::new();
        folder.write("config.json", Value::Object(config).to_string());
        folder
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.file(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.file(name)).unwrap();
    }

    pub fn open(&self) -> Result<Model> {
        Model::open(self.path())
    }
}

#[test]
fn the_sound_folder_opens() {
    let model = Folder::new().open().unwrap();
    assert_eq!(model.spec.layers.len(), 2);
    assert!(model.weights.unused().is_empty() && model.tokenizer.is_none());
}
