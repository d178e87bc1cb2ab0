//! Shares models over HTTP, with the interfaces that clients know. Below, one thread an engine batches all requests
//! ([`scheduler`]); above, requests are read, checked and answered ([`http`]).
//!
//! - [`scheduler`]: continuous batching, the prefix cache, memory, the queue. Knows token ids, nothing of HTTP.
//! - [`registry`]: the models by name, loaded and unloaded. [`model`]: a model with its tokenizer, template and scheduler. [`grammar`]: text that follows a schema.
//! - [`input`], [`options`], [`answer`], [`streaming`], [`output`]: what all dialects share. [`openai`], [`anthropic`], [`ollama`]: the dialects.
//! - [`embeddings`], [`tokens`]: what is answered at once.
//! - [`page`]: the page at `/`. [`openapi`]: what is served, described for programs and people.
//! - [`http`]: routes, keys, limits, connections. [`metrics`]: what Prometheus reads. [`traces`]: what OpenTelemetry's collectors get.

pub mod answer;
pub mod anthropic;
pub mod embeddings;
pub mod error;
pub mod fields;
pub mod grammar;
pub mod http;
pub mod input;
pub mod metrics;
pub mod model;
pub mod ollama;
pub mod openai;
pub mod openapi;
pub mod options;
pub mod output;
pub mod page;
pub mod registry;
pub mod scheduler;
pub mod streaming;
pub mod tokens;
pub mod traces;

pub use http::{Key, Server, Settings};
pub use model::{Draft, MakeAdapter, ServeError, Served, Source};
pub use registry::{Open, Registry};
pub use scheduler::{Budget, Limits, SwapSpace};
pub use traces::Traces;
