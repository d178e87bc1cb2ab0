//! Models that are part of the program: small ones of generated stories, trained by `ounce train`.
//!
//! Each is the files of an ordinary Hugging Face folder, bf16, embedded at build time; the `README.md` among them is its
//! model card, and `docs/built-in-model.md` tells how they are made. Nothing is parsed here.

use ounce_model::Model;
use ounce_model::formats::hf;

/// A model that is part of the program.
#[derive(Debug)]
pub struct Embedded {
    /// Its name.
    pub name: &'static str,
    /// What a user writes where another model has its path.
    pub reference: &'static str,
    /// What it is, in a few words.
    pub what: &'static str,
    /// Its files: name and content.
    pub files: &'static [(&'static str, &'static [u8])],
}

/// The files of one folder of `assets/`.
macro_rules! folder {
    ($folder:literal: $($file:literal),+) => {
        &[$(($file, include_bytes!(concat!("../assets/", $folder, "/", $file)))),+]
    };
}

/// The language model that runs where none is named. A static, not a constant: constants are copied to where they are used.
pub static LANGUAGE: Embedded = Embedded {
    name: "ounce-tales",
    reference: "builtin",
    what: "a language model of children's tales",
    files: folder!("builtin": "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"),
};

/// The same with a twelfth of the weights: for tests and for experiments that need many runs.
pub static TINY: Embedded = Embedded {
    name: "ounce-tales-tiny",
    reference: "builtin-tiny",
    what: "the same, tiny",
    files: folder!("tiny": "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"),
};

/// An encoder that finds hidden words of the same tales.
pub static ENCODER: Embedded = Embedded {
    name: "ounce-tales-encoder",
    reference: "builtin-encoder",
    what: "an encoder of the same tales",
    files: folder!("encoder": "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"),
};

/// All of them, the one that runs where none is named first.
pub static ALL: [&Embedded; 3] = [&LANGUAGE, &TINY, &ENCODER];

impl Embedded {
    /// The content of one of its files.
    pub fn file(&self, name: &str) -> Option<&'static [u8]> {
        self.files.iter().find(|(file, _)| *file == name).map(|(_, content)| *content)
    }

    /// What stands where another model has its path.
    pub fn origin(&self) -> String {
        format!("<{}>", self.name)
    }

    /// The model, its weights not read yet.
    ///
    /// # Errors
    /// If its files are damaged, which they are not.
    pub fn open(&self) -> ounce_model::Result<Model> {
        hf::open_embedded(&self.origin(), self.files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_stay_small_and_the_texts_are_json() {
        for (model, limit) in ALL.into_iter().zip([8_000_000, 700_000, 2_200_000]) {
            let weights = model.file("model.safetensors").expect("weights");
            assert!(weights.len() <= limit, "{}: {} bytes", model.name, weights.len());
            for (name, content) in model.files.iter().filter(|(name, _)| name.ends_with(".json")) {
                serde_json::from_slice::<serde_json::Value>(content)
                    .unwrap_or_else(|error| panic!("{}/{name}: {error}", model.name));
            }
            assert!(model.file("nothing").is_none());
        }
    }

    #[test]
    fn names_and_references_differ_and_all_open_with_a_tokenizer() {
        for (at, model) in ALL.into_iter().enumerate() {
            for other in &ALL[..at] {
                assert!(model.name != other.name && model.reference != other.reference);
            }
            let opened = model.open().expect("opens");
            assert!(opened.tokenizer.is_some(), "{}", model.name);
        }
    }

    #[test]
    fn the_config_describes_a_llama_that_ends_texts_with_its_first_token() {
        for model in [&LANGUAGE, &TINY] {
            let config: serde_json::Value =
                serde_json::from_slice(model.file("config.json").expect("config")).expect("valid JSON");
            assert_eq!(config["model_type"], "llama");
            assert_eq!(config["bos_token_id"], 0);
            assert_eq!(config["eos_token_id"], 0);
            assert_eq!(config["vocab_size"], 2048);
        }
    }
}
