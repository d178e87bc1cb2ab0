//! llama2.c checkpoints (`.bin`, version 0): seven integers and all weights in f32, in a fixed order. The
//! vocabulary lies beside it in a file of its own (`tokenizer.bin` or `tok*.bin`).
//!
//! Queries and keys are stored for interleaved rotation, as in GGUF's `llama` architecture.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ounce_kernels::DType;
use serde_json::{Map, Value, json};

use crate::families;
use crate::model::{Format, Model, Origin};
use crate::names::{self, Layout, Names, Rule, laid, same};
use crate::storage::Bytes;
use crate::tokenizer::Tokenizer;
use crate::tokenizer::llama2c::read_file;
use crate::weights::{MemorySource, Tensor, bytes_of};
use crate::{Config, Error, Result, Spec, Weights};

/// Names given to the file's tensors, which have none of their own.
const NAMES: Names = Names { prefixes: &[""], rules: &[RULES], ignore: &[] };

const RULES: &[Rule] = &[
    same("token_embedding", &["embed.tokens"]),
    same("rms_att.{i}", &["layers.{i}.attention.before_norm"]),
    laid("wq.{i}", &["layers.{i}.attention.query"], Layout::Interleaved),
    laid("wk.{i}", &["layers.{i}.attention.key"], Layout::Interleaved),
    same("wv.{i}", &["layers.{i}.attention.value"]),
    same("wo.{i}", &["layers.{i}.attention.output"]),
    same("rms_ffn.{i}", &["layers.{i}.feed_forward.before_norm"]),
    same("w1.{i}", &["layers.{i}.feed_forward.gate"]),
    same("w2.{i}", &["layers.{i}.feed_forward.down"]),
    same("w3.{i}", &["layers.{i}.feed_forward.up"]),
    same("rms_final", &["final_norm"]),
    same("wcls", &["head"]),
];

/// The seven integers in front.
struct Header {
    dim: usize,
    hidden_dim: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    vocab_size: usize,
    seq_len: usize,
    shared_head: bool,
}

/// Bytes of the header.
const HEADER_BYTES: usize = 28;

/// How files of later versions begin: `ak42` as a little-endian integer.
const LATER_MAGIC: i32 = 0x616b_3432;

/// Sizes from here on are damage.
const MAX_SIZE: u32 = 1 << 24;

/// Opens a checkpoint and the vocabulary beside it.
///
/// # Errors
/// If the file is no llama2.c checkpoint, or its size is not what its header says.
pub fn open_model(path: &Path) -> Result<Model> {
    let bytes = Bytes::map(path)?;
    let header = read_header(&bytes, path)?;
    let (config, spec, weights) = parse(&header, &bytes, path)?;
    let tokenizer = match find_vocab(path, header.vocab_size) {
        Some(vocab) => Some(read_vocab(&vocab, header.vocab_size)?),
        None => None,
    };
    let generation = Config::new(path, Map::new());
    let origin = Origin { path: path.to_path_buf(), format: Format::Llama2c, name: None };
    Ok(Model { spec, weights, tokenizer, chat: None, config, generation, origin, extras: Vec::new() })
}

/// Reads the architecture and weights of a file's bytes; `path` is used in messages.
///
/// # Errors
/// As [`open_model`].
pub fn read(bytes: &Bytes, path: &Path) -> Result<(Spec, Weights)> {
    let (_, spec, weights) = parse(&read_header(bytes, path)?, bytes, path)?;
    Ok((spec, weights))
}

fn parse(header: &Header, bytes: &Bytes, path: &Path) -> Result<(Config, Spec, Weights)> {
    let config = config_of(header, path);
    let (_, spec) = families::spec_of(&config)?;
    let source = split(header, bytes, path)?;
    let weights = names::resolve(&spec, &NAMES, Arc::new(source))?;
    Ok((config, spec, weights))
}

fn read_header(bytes: &[u8], path: &Path) -> Result<Header> {
    let no_checkpoint = |what: String| {
        Error::format(path, format!("{what}, so it is no llama2.c checkpoint; pickle weights are not read"))
    };
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Err(no_checkpoint(format!("has {} bytes, less than a header", bytes.len())));
    };
    let (words, _) = header.as_chunks::<4>();
    let word = |index: usize| i32::from_le_bytes(words[index]);
    if word(0) == LATER_MAGIC {
        let what = format!(
            "is a llama2.c checkpoint of version {}, of which only version 0 is read; export it again without \
             --version",
            word(1)
        );
        return Err(Error::format(path, what));
    }
    let size = |index: usize, name: &str| match word(index).unsigned_abs() {
        size if size > 0 && size < MAX_SIZE && (word(index) > 0 || name == "vocab_size") => Ok(size as usize),
        _ => Err(no_checkpoint(format!("says that {name} is {}", word(index)))),
    };
    let header = Header {
        dim: size(0, "dim")?,
        hidden_dim: size(1, "hidden_dim")?,
        layers: size(2, "n_layers")?,
        heads: size(3, "n_heads")?,
        kv_heads: size(4, "n_kv_heads")?,
        vocab_size: size(5, "vocab_size")?,
        seq_len: size(6, "max_seq_len")?,
        // A negative vocabulary size means that the head has a matrix of its own.
        shared_head: word(5) > 0,
    };
    let Header { dim, heads, kv_heads, .. } = header;
    if !dim.is_multiple_of(2 * heads) || !heads.is_multiple_of(kv_heads) {
        let what =
            format!("has {heads} heads and {kv_heads} key/value heads, which can't share {dim} dimensions");
        return Err(no_checkpoint(what));
    }
    Ok(header)
}

fn config_of(header: &Header, path: &Path) -> Config {
    let value = json!({
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": header.dim,
        "intermediate_size": header.hidden_dim,
        "num_hidden_layers": header.layers,
        "num_attention_heads": header.heads,
        "num_key_value_heads": header.kv_heads,
        "vocab_size": header.vocab_size,
        "max_position_embeddings": header.seq_len,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": header.shared_head,
        "bos_token_id": 1,
        "eos_token_id": 2,
    });
    let Value::Object(map) = value else { unreachable!("an object literal is an object") };
    Config::new(path, map)
}

/// Cuts the weights apart; they must fill the file exactly.
fn split(header: &Header, bytes: &Bytes, path: &Path) -> Result<MemorySource> {
    let (dim, hidden, layers) = (header.dim, header.hidden_dim, header.layers);
    let head_dim = dim / header.heads;
    let kv_dim = header.kv_heads * head_dim;
    let per_layer: [(&str, &[usize]); 9] = [
        ("rms_att", &[dim]),
        ("wq", &[dim, dim]),
        ("wk", &[kv_dim, dim]),
        ("wv", &[kv_dim, dim]),
        ("wo", &[dim, dim]),
        ("rms_ffn", &[dim]),
        ("w1", &[hidden, dim]),
        ("w2", &[dim, hidden]),
        ("w3", &[hidden, dim]),
    ];
    let mut source = MemorySource::new(path);
    let mut offset = HEADER_BYTES;
    let mut take = |name: String, shape: &[usize], keep: bool| -> Result<()> {
        let size = bytes_of(DType::F32, shape);
        let end = size.and_then(|size| offset.checked_add(size)).filter(|&end| end <= bytes.len());
        let Some(end) = end else {
            let what =
                format!("ends inside {name}, so it is cut off or no llama2.c checkpoint; fetch it again");
            return Err(Error::format(path, what));
        };
        if keep {
            let data = bytes.slice(offset..end);
            source.insert(name + ".weight", Tensor { dtype: DType::F32, shape: shape.to_vec(), data });
        }
        offset = end;
        Ok(())
    };
    take("token_embedding".to_string(), &[header.vocab_size, dim], true)?;
    for (name, shape) in per_layer {
        for layer in 0..layers {
            take(format!("{name}.{layer}"), shape, true)?;
        }
    }
    take("rms_final".to_string(), &[dim], true)?;
    // Tables of cosines and sines that nothing needs any more.
    take("freq_cis".to_string(), &[header.seq_len, head_dim], false)?;
    if !header.shared_head {
        take("wcls".to_string(), &[header.vocab_size, dim], true)?;
    }
    if offset != bytes.len() {
        let rest = bytes.len() - offset;
        return Err(Error::format(
            path,
            format!("has {rest} bytes too many, so it is no llama2.c checkpoint; fetch it again"),
        ));
    }
    Ok(source)
}

/// The vocabulary file beside a checkpoint: `tok{size}.bin` or `tokenizer.bin`.
fn find_vocab(path: &Path, vocab_size: usize) -> Option<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let names = [format!("tok{vocab_size}.bin"), "tokenizer.bin".to_string()];
    names.iter().map(|name| folder.join(name)).find(|file| file.is_file())
}

/// Reads the vocabulary; one of another size is another model's.
fn read_vocab(path: &Path, vocab_size: usize) -> Result<Tokenizer> {
    let tokenizer = read_file(path)?.to_tokenizer()?;
    if tokenizer.id_limit() as usize != vocab_size {
        let what = format!(
            "has {} tokens, but the checkpoint beside it has {vocab_size}; put its own vocabulary there as \
             tok{vocab_size}.bin",
            tokenizer.id_limit()
        );
        return Err(Error::format(path, what));
    }
    Ok(tokenizer)
}
