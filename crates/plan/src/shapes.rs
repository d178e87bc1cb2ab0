//! Models of real shapes with random weights: speed and memory do not depend on what the weights are, so they can be
//! measured without a download. They write no text worth reading.

use ounce_kernels::{DType, quant};
use ounce_model::account::Formats;
use ounce_model::model::{Format, Model, Origin};
use ounce_model::storage::Bytes;
use ounce_model::weights::{MemorySource, Tensor};
use ounce_model::{Config, Error, Result, Spec, Weights, families};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// A published shape.
#[derive(Debug)]
pub struct Shape {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its `config.json`.
    config: fn() -> Value,
}

/// Three sizes: width, inner width and layers, or heads, key/value heads and width of a head.
pub type Three = (usize, usize, usize);

/// Every shape, smallest first. Numbers are those of the published configurations.
pub static SHAPES: [Shape; 5] = [
    Shape { name: "smollm2-135m", config: || llama(576, 1536, 30, (9, 3, 64), 49152, true) },
    Shape {
        name: "qwen2.5-0.5b",
        config: || {
            let mut config = llama(896, 4864, 24, (14, 2, 64), 151_936, true);
            config["model_type"] = json!("qwen2");
            config
        },
    },
    Shape { name: "llama-3.2-1b", config: || llama(2048, 8192, 16, (32, 8, 64), 128_256, true) },
    Shape {
        name: "qwen3-4b",
        config: || {
            let mut config = llama(2560, 9728, 36, (32, 8, 128), 151_936, true);
            config["model_type"] = json!("qwen3");
            config
        },
    },
    Shape {
        name: "mixtral-mini",
        config: || {
            let mut config = llama(1024, 1792, 12, (16, 4, 64), 32000, false);
            config["model_type"] = json!("mixtral");
            config["num_local_experts"] = json!(8);
            config["num_experts_per_tok"] = json!(2);
            config
        },
    },
];

fn llama(
    hidden: usize,
    inner: usize,
    layers: usize,
    (heads, kv_heads, head_dim): (usize, usize, usize),
    vocab: usize,
    tied: bool,
) -> Value {
    json!({
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100_000.0,
    })
}

/// The shape of this name.
///
/// # Errors
/// If there is none, with the names there are.
pub fn by_name(name: &str) -> Result<&'static Shape> {
    SHAPES.iter().find(|shape| shape.name == name).ok_or_else(|| {
        let names: Vec<&str> = SHAPES.iter().map(|shape| shape.name).collect();
        Error::unsupported(format!("the shape {name} is none that ounce knows ({})", names.join(", ")))
    })
}

/// A row of random values that is used again and again: making billions of them would take minutes.
const NOISE: usize = 1 << 16;

impl Shape {
    /// Its architecture.
    ///
    /// # Errors
    /// None for the shapes there are.
    pub fn spec(&self) -> Result<Spec> {
        Ok(families::spec_of(&self.config())?.1)
    }

    fn config(&self) -> Config {
        let Value::Object(map) = (self.config)() else { unreachable!("a configuration is an object") };
        Config::new(format!("<{}>", self.name), map)
    }

    /// A model of this shape in `dtype` (norms and biases in F32), or in what takes its place where rows are no whole
    /// blocks ([`DType::fitting`]). `progress` is told the share done.
    ///
    /// # Errors
    /// If ounce does not write the format.
    pub fn model(&self, dtype: DType, seed: u64, progress: &dyn Fn(f64)) -> Result<Model> {
        random_model(self.config(), dtype, 0.0, seed, progress)
    }

    /// As [`Shape::model`], with this share of the weights of matrices zero, at random places.
    ///
    /// # Errors
    /// As [`Shape::model`].
    pub fn sparse_model(&self, dtype: DType, zeros: f64, seed: u64, progress: &dyn Fn(f64)) -> Result<Model> {
        random_model(self.config(), dtype, zeros, seed, progress)
    }
}

/// A decoder of the Llama family with any numbers and random weights: to measure sizes that nobody has published.
///
/// # Errors
/// If ounce does not write the format.
pub fn llama_model(sizes: Three, heads: Three, vocab: usize, dtype: DType, seed: u64) -> Result<Model> {
    random_model(llama_config(sizes, heads, vocab), dtype, 0.0, seed, &|_| {})
}

/// The architecture of such a model.
///
/// # Errors
/// None where heads divide into groups.
pub fn llama_spec(sizes: Three, heads: Three, vocab: usize) -> Result<Spec> {
    Ok(families::spec_of(&llama_config(sizes, heads, vocab))?.1)
}

fn llama_config((hidden, inner, layers): Three, heads: Three, vocab: usize) -> Config {
    let Value::Object(map) = llama(hidden, inner, layers, heads, vocab, true) else {
        unreachable!("a configuration is an object")
    };
    Config::new("<random>", map)
}

/// A model with random weights in `dtype`, as [`Shape::sparse_model`].
fn random_model(
    config: Config,
    dtype: DType,
    zeros: f64,
    seed: u64,
    progress: &dyn Fn(f64),
) -> Result<Model> {
    let (_, spec) = families::spec_of(&config)?;
    let formats = Formats::uniform(&spec, dtype);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut noise: Vec<f32> = (0..NOISE).map(|_| random.random_range(-0.05f32..0.05)).collect();
    if zeros > 0.0 {
        noise.iter_mut().filter(|_| random.random_bool(zeros.min(1.0))).for_each(|it| *it = 0.0);
    }
    let mut source = MemorySource::new(config.path());
    let tensors = spec.tensors();
    let total: usize = tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    let mut done = 0usize;
    for tensor in tensors {
        let values: usize = tensor.shape.iter().product();
        let stored = if tensor.shape.len() == 1 {
            Tensor::from_f32(&tensor.shape, &vec![1.0; values])
        } else {
            let dtype = formats.get(&tensor.name).unwrap_or(dtype);
            let data = fill(dtype, &tensor.shape, &noise, random.random_range(0..NOISE))
                .map_err(|error| Error::tensor(config.path(), tensor.name.as_str(), error.to_string()))?;
            Tensor { dtype, shape: tensor.shape.clone(), data: Bytes::from(data) }
        };
        source.insert(tensor.name, stored);
        done += values;
        progress(done as f64 / total as f64);
    }
    let generation = Config::new(config.path(), serde_json::Map::new());
    let origin = Origin { path: config.path().to_path_buf(), format: Format::BuiltIn, name: None };
    let weights = Weights::in_memory(source);
    Ok(Model { spec, weights, tokenizer: None, chat: None, config, generation, origin, extras: Vec::new() })
}

/// Encodes rows cut from the noise, a different place for each of the first rows and those again for the rest.
pub(crate) fn fill(
    dtype: DType,
    shape: &[usize],
    noise: &[f32],
    start: usize,
) -> Result<Vec<u8>, quant::QuantError> {
    const DIFFERENT_ROWS: usize = 61;
    let (rows, columns) = (shape[..shape.len() - 1].iter().product::<usize>(), shape[shape.len() - 1]);
    let row = |index: usize| -> Vec<f32> {
        let from = start + index * 7919;
        (0..columns).map(|column| noise[(from + column) % noise.len()]).collect()
    };
    let different: Vec<f32> = (0..DIFFERENT_ROWS.min(rows)).flat_map(row).collect();
    let mut encoded = Vec::new();
    quant::encode_rows(dtype, &different, columns, &mut encoded)?;
    let row_bytes = encoded.len() / DIFFERENT_ROWS.min(rows).max(1);
    let mut data = Vec::with_capacity(rows * row_bytes);
    while data.len() < rows * row_bytes {
        let rest = rows * row_bytes - data.len();
        data.extend_from_slice(&encoded[..rest.min(encoded.len())]);
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_the_published_parameter_counts() {
        // Published: 134,515,008 · 494,032,768 · 1,235,814,400 · 4,022,468,096.
        let expected = [134_515_008, 494_032_768, 1_235_814_400, 4_022_468_096];
        for (shape, expected) in SHAPES.iter().zip(expected) {
            assert_eq!(shape.spec().unwrap().parameters(), expected, "{}", shape.name);
        }
    }

    #[test]
    fn a_shape_becomes_a_model_that_runs() {
        let model = by_name("smollm2-135m").unwrap().model(DType::Q8_0, 1, &|_| {}).unwrap();
        let engine = ounce_engine::Engine::load(&model, ounce_engine::Mode::fast()).unwrap();
        let logits = engine.session().feed(&[1, 2, 3], |_| {}).unwrap();
        assert_eq!(logits.len(), 49152);
        assert!(by_name("gpt-9").unwrap_err().to_string().contains("qwen3-4b"));
    }
}
