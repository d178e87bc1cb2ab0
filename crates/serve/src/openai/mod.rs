//! OpenAI's interfaces.

pub mod chat;
pub mod completions;
pub mod logprobs;
pub mod models;
pub mod responses;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::ApiResult;
use crate::fields::Fields;

/// What the answers to a request say of themselves.
#[derive(Debug, Clone)]
pub struct Head {
    /// The answer's name.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's name, as it was asked for.
    pub model: String,
    /// The model's fingerprint.
    pub fingerprint: String,
}

impl Head {
    /// A new name that begins with `prefix`.
    pub fn new(prefix: &str, model: &str, fingerprint: &str) -> Head {
        Head {
            id: new_id(prefix),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            model: model.to_string(),
            fingerprint: fingerprint.to_string(),
        }
    }
}

/// A name that no other answer has.
pub fn new_id(prefix: &str) -> String {
    format!("{prefix}{:032x}", rand::random::<u128>())
}

/// How a request wants its answer sent.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    /// As it comes.
    pub stream: bool,
    /// With the counts at the end of the stream.
    pub usage: bool,
}

impl Delivery {
    /// Reads `stream` and `stream_options`.
    ///
    /// # Errors
    /// If one has a wrong type.
    pub fn read(fields: &Fields<'_>) -> ApiResult<Delivery> {
        let stream = fields.flag("stream")?.unwrap_or(false);
        let usage = match fields.inner("stream_options", "stream_options.")? {
            Some(options) => options.flag("include_usage")?.unwrap_or(false),
            None => false,
        };
        Ok(Delivery { stream, usage })
    }
}
