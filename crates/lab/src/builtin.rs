//! The built-in model: a small language model of generated stories that is part of the program.
//!
//! The files of an ordinary Hugging Face folder, bf16, embedded at build time; `assets/builtin/README.md` is its
//! model card. Nothing is parsed here.

/// The model's name.
pub const NAME: &str = "ounce-tiny";

/// What stands where another model has its path.
pub const ORIGIN: &str = "<ounce-tiny>";

/// Its files: name and content.
pub const FILES: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("../assets/builtin/config.json")),
    ("generation_config.json", include_bytes!("../assets/builtin/generation_config.json")),
    ("model.safetensors", include_bytes!("../assets/builtin/model.safetensors")),
    ("tokenizer.json", include_bytes!("../assets/builtin/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../assets/builtin/tokenizer_config.json")),
    ("README.md", include_bytes!("../assets/builtin/README.md")),
];

/// The content of one of [`FILES`].
pub fn file(name: &str) -> Option<&'static [u8]> {
    FILES.iter().find(|(file, _)| *file == name).map(|(_, content)| *content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_stay_small_and_the_texts_are_json() {
        let weights = file("model.safetensors").expect("weights");
        assert!(weights.len() <= 1_900_000, "{} bytes", weights.len());
        for (name, content) in FILES.iter().filter(|(name, _)| name.ends_with(".json")) {
            serde_json::from_slice::<serde_json::Value>(content)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert!(file("nothing").is_none());
    }

    #[test]
    fn the_config_describes_a_llama_that_ends_texts_with_its_first_token() {
        let config: serde_json::Value =
            serde_json::from_slice(file("config.json").expect("config")).expect("valid JSON");
        assert_eq!(config["model_type"], "llama");
        assert_eq!(config["bos_token_id"], 0);
        assert_eq!(config["eos_token_id"], 0);
        assert_eq!(config["vocab_size"], 2048);
    }
}
