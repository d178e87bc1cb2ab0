//! What a model is: its spec, weights, file formats, tokenizer and chat template.
//!
//! - [`account`]: what a spec needs, without running it: bytes, operations, traffic.
//! - [`error`]: what can be wrong with a file, said in one sentence.
//! - [`spec`], [`spec_tensors`], [`rope`]: the architecture as data, and the weights it has.
//! - [`storage`], [`weights`]: named tensors, memory-mapped and read lazily.
//! - [`model`]: all of it together; [`Model::open`] is where to begin.
//! - [`names`]: under which names and layouts files store ounce's tensors.
//! - [`families`]: one file per model family: `config.json` to spec, tensor names.
//! - [`formats`]: Hugging Face folders, safetensors, GGUF, llama2.c.
//! - [`tokenizer`], [`chat`]: text to ids and back; messages to text.
//! - [`machine`]: what the machine that runs it can do, measured.
//! - [`hub`]: references such as `org/name`, found in the cache that Hugging Face tools share.

pub mod account;
pub mod chat;
pub mod config;
pub mod error;
pub mod families;
pub mod formats;
pub mod hub;
pub mod machine;
pub mod model;
pub mod names;
pub mod rope;
pub mod spec;
pub mod spec_tensors;
pub mod storage;
pub mod tokenizer;
pub mod weights;

pub use config::Config;
pub use error::{Error, Result};
pub use model::Model;
pub use spec::Spec;
pub use weights::{Tensor, Weights};
