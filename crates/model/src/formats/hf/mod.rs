//! Hugging Face model folders: `config.json`, safetensors, tokenizer, chat template, generation settings, and
//! sentence-transformers' files. Nothing in a folder is run; pickle weights are refused.

pub(crate) mod files;
mod narrow;
mod packing;
mod plan;
mod pooling;
mod quantized;
mod read;
mod write;

pub(crate) use read::EXTRAS;
pub use read::{open_embedded, open_model};
pub use write::{forecast, write_model};
