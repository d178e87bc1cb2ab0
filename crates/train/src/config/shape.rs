//! The architecture of new models: a preset and its sizes to a model without weights.

use ounce_model::chat::ChatTemplate;
use ounce_model::model::{Format, Origin};
use ounce_model::tokenizer::Tokenizer;
use ounce_model::weights::MemorySource;
use ounce_model::{Config as Keys, Weights, families};
use serde_json::{Map, Value, json};

use super::{Model, Preset};
use crate::net::Init;
use crate::{Error, Result};

/// MiniCPM's base width, at which all its factors are 1 (arXiv 2404.06395, section 3).
const BASE_WIDTH: f64 = 256.0;

impl Model {
    /// A model of this shape without weights, for a tokenizer.
    ///
    /// # Errors
    /// If the sizes do not fit each other.
    pub fn skeleton(&self, tokenizer: &Tokenizer, chat: Option<ChatTemplate>) -> Result<ounce_model::Model> {
        let special = tokenizer.special();
        let ids = [
            ("bos_token_id", special.bos),
            ("eos_token_id", special.eos.first().copied()),
            ("pad_token_id", special.pad),
        ];
        let known = ids.into_iter().filter_map(|(key, id)| Some((key, id?)));
        let model = self.architecture(tokenizer.id_limit() as usize, known)?;
        Ok(ounce_model::Model { tokenizer: Some(tokenizer.clone()), chat, ..model })
    }

    /// A model of this shape without weights and tokenizer, for `vocab` ids of which none is special.
    ///
    /// # Errors
    /// If the sizes do not fit each other.
    pub fn bare(&self, vocab: usize) -> Result<ounce_model::Model> {
        self.architecture(vocab, [])
    }

    /// The same with ids that are special, by their keys in `config.json`.
    ///
    /// # Errors
    /// If the sizes do not fit each other.
    pub fn architecture<'k>(
        &self,
        vocab: usize,
        special: impl IntoIterator<Item = (&'k str, u32)>,
    ) -> Result<ounce_model::Model> {
        let Value::Object(mut map) = self.keys(vocab)? else { unreachable!("a configuration is an object") };
        map.extend(special.into_iter().map(|(key, id)| (key.to_string(), json!(id))));
        let config = Keys::new("<new model>", map);
        let (_, spec) = families::spec_of(&config)?;
        Ok(ounce_model::Model {
            spec,
            weights: Weights::in_memory(MemorySource::new("<new model>")),
            tokenizer: None,
            chat: None,
            generation: Keys::new("<new model>", Map::new()),
            origin: Origin { path: config.path().to_path_buf(), format: Format::BuiltIn, name: None },
            config,
            extras: Vec::new(),
        })
    }

    /// How its weights are drawn.
    pub fn initial(&self) -> Init {
        let scaled = (0.1 / (self.hidden as f64 / BASE_WIDTH).sqrt()) as f32;
        let usual = match self.preset {
            Preset::Minicpm => Init { matrix: scaled, embedding: 0.1, scaled_output: false },
            Preset::Bert | Preset::Albert => Init { scaled_output: false, ..Init::default() },
            Preset::Llama | Preset::CpuLm => Init::default(),
        };
        if self.init > 0.0 { Init { matrix: self.init, embedding: self.init, ..usual } } else { usual }
    }

    /// The factor on the gradient that reaches the embedding.
    pub fn embedding_gradient(&self) -> Option<f32> {
        (self.from.is_empty() && self.preset == Preset::CpuLm).then_some(0.1)
    }

    /// The width that learning rates of matrices are scaled from, if they are.
    pub fn base_width(&self) -> Option<usize> {
        (self.from.is_empty() && self.preset == Preset::Minicpm).then_some(BASE_WIDTH as usize)
    }

    /// `config.json`.
    fn keys(&self, vocab: usize) -> Result<Value> {
        let Model { hidden, layers, heads, context, .. } = *self;
        if hidden == 0 || layers == 0 || heads == 0 || context == 0 || !hidden.is_multiple_of(2 * heads) {
            return Err(Error::Settings(format!(
                "a model of width {hidden} with {layers} layers, {heads} heads and {context} positions can't be made; heads \
                 should split the width into even parts"
            )));
        }
        let or = |given: usize, usual: usize| if given == 0 { usual } else { given };
        let inner = or(self.feed_forward, (hidden * 8 / 3).next_multiple_of(32));
        let mut keys = json!({
            "model_type": "llama",
            "vocab_size": vocab,
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": or(self.kv_heads, heads),
            "head_dim": hidden / heads,
            "max_position_embeddings": context,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10_000.0,
            "tie_word_embeddings": self.tied,
        });
        match self.preset {
            Preset::Llama => {}
            Preset::CpuLm => {
                keys["num_key_value_heads"] = json!(or(self.kv_heads, heads.div_ceil(4)));
                keys["tie_word_embeddings"] = json!(false);
            }
            Preset::Minicpm => {
                keys["model_type"] = json!("granite");
                keys["embedding_multiplier"] = json!(12.0);
                keys["attention_multiplier"] = json!(((hidden / heads) as f64).sqrt().recip());
                keys["residual_multiplier"] = json!(1.4 / (layers as f64).sqrt());
                keys["logits_scaling"] = json!(hidden as f64 / BASE_WIDTH);
            }
            Preset::Bert | Preset::Albert => {
                keys = json!({
                    "model_type": "bert",
                    "architectures": ["BertForMaskedLM"],
                    "vocab_size": vocab,
                    "hidden_size": hidden,
                    "intermediate_size": or(self.feed_forward, 4 * hidden),
                    "num_hidden_layers": layers,
                    "num_attention_heads": heads,
                    "max_position_embeddings": context,
                    "type_vocab_size": 2,
                    "layer_norm_eps": 1e-12,
                    "hidden_act": "gelu",
                });
            }
        }
        if self.preset == Preset::Albert {
            keys["model_type"] = json!("albert");
            keys["architectures"] = json!(["AlbertForMaskedLM"]);
            keys["embedding_size"] = json!(or(self.embedding, 128.min(hidden)));
            keys["num_hidden_groups"] = json!(self.groups);
            keys["inner_group_num"] = json!(1);
            keys["hidden_act"] = json!("gelu_new");
        }
        Ok(keys)
    }
}
