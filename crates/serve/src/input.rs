//! Texts as clients give them: as text or as tokens, one or many.

use serde_json::Value;

use crate::error::{ApiError, ApiResult};
use crate::fields::Fields;

/// Texts of a request at most.
const MOST_TEXTS: usize = 2048;

/// A text as a client gives it.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// As text.
    Text(String),
    /// As tokens.
    Ids(Vec<u32>),
}

/// Reads a field that holds a text, texts, token ids, or lists of token ids.
///
/// # Errors
/// If it holds something else.
pub fn inputs(fields: &Fields<'_>, name: &str) -> ApiResult<Vec<Input>> {
    let value = fields.value(name).ok_or_else(|| fields.missing(name))?;
    let wrong =
        || ApiError::field(name, format!("{name} should be a text, texts, token ids, or lists of token ids"));
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong);
    let one = |value: &Value| match value {
        Value::String(text) => Ok(Input::Text(text.clone())),
        Value::Array(ids) => Ok(Input::Ids(ids.iter().map(id).collect::<ApiResult<_>>()?)),
        _ => Err(wrong()),
    };
    let inputs = match value {
        Value::Array(list) if list.first().is_some_and(Value::is_number) => vec![one(value)?],
        Value::Array(list) => list.iter().map(one).collect::<ApiResult<_>>()?,
        value => vec![one(value)?],
    };
    if inputs.is_empty() || inputs.len() > MOST_TEXTS {
        let what = format!("{name} should hold 1 to {MOST_TEXTS} texts, found {}", inputs.len());
        return Err(ApiError::field(name, what));
    }
    Ok(inputs)
}
