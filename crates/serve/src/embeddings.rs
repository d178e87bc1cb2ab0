//! Vectors of texts, for all dialects that ask for them.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::fields::Fields;
use crate::input::{Input, inputs};
use crate::model::Served;

/// Vectors and the number of tokens they were made of.
#[derive(Debug)]
pub struct Vectors {
    /// One a text.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub tokens: usize,
}

/// The vectors of texts; longer ones than the model takes are refused, or cut at the end with `truncate`.
///
/// # Errors
/// If a text is empty or too long, holds ids the model has not, or an adapter is asked.
pub fn embed(model: &Served, inputs: Vec<Input>, truncate: bool) -> ApiResult<Vectors> {
    if let Some(parent) = &model.parent {
        let what = format!("{} is an adapter, which embeddings do without; ask {parent}", model.id);
        return Err(ApiError::unsuitable(what));
    }
    let limit = longest(model);
    let mut vectors = Vectors { vectors: Vec::with_capacity(inputs.len()), tokens: 0 };
    for (index, input) in inputs.into_iter().enumerate() {
        let (mut ids, mut types) = match input {
            Input::Ids(ids) => (ids, Vec::new()),
            Input::Text(text) => {
                let encoded = model.tokenizer.encode_with_types(&text, None, true);
                let encoded = encoded.map_err(|error| ApiError::internal(error.to_string()))?;
                (encoded.ids, encoded.type_ids)
            }
        };
        if model.engine.spec().embedding.token_types == 0 {
            types.clear();
        }
        if ids.is_empty() {
            return Err(ApiError::field(
                "input",
                format!("input {index} is empty; an empty text has no vector"),
            ));
        }
        if ids.len() > limit {
            if !truncate {
                let what = format!(
                    "input {index} has {} tokens, and the model takes {limit}; shorten it",
                    ids.len()
                );
                return Err(ApiError {
                    code: Some("context_length_exceeded"),
                    ..ApiError::field("input", what)
                });
            }
            // The token that ends a text stays at its end.
            let ending = ids.last().copied().filter(|&id| model.tokenizer.is_special(id));
            ids.truncate(limit);
            types.truncate(limit);
            if let (Some(last), Some(ending)) = (ids.last_mut(), ending) {
                *last = ending;
            }
        }
        vectors.tokens += ids.len();
        let vector = model.engine.embed(&ids, &types);
        vectors.vectors.push(vector.map_err(|error| ApiError::field("input", error.to_string()))?);
    }
    Ok(vectors)
}

/// Tokens of a text at most: the sentence encoder's own limit, else the model's.
fn longest(model: &Served) -> usize {
    let own = model.extras.iter().find(|extra| extra.name == "sentence_bert_config.json");
    let own = own.and_then(|extra| serde_json::from_slice::<Value>(&extra.content).ok());
    let own = own.and_then(|settings| settings.get("max_seq_length")?.as_u64());
    let whole = model.engine.spec().context_length.max(1);
    own.map_or(whole, |own| whole.min(own as usize).max(1))
}

/// `/v1/embeddings`.
///
/// # Errors
/// As [`embed`], and names the field at fault.
pub fn openai(body: &Value, model: &Arc<Served>) -> ApiResult<Value> {
    let fields = Fields::of(body)?;
    let inputs = inputs(&fields, "input")?;
    let base64 = match fields.text("encoding_format")? {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let what = format!("encoding_format is float or base64, found {other:?}");
            return Err(ApiError::field("encoding_format", what));
        }
    };
    let width = model.engine.spec().hidden_size;
    let dimensions = fields.count("dimensions")?;
    if dimensions.is_some_and(|count| !(1..=width).contains(&count)) {
        return Err(ApiError::field("dimensions", format!("dimensions should be from 1 to {width}")));
    }
    let truncate = fields.flag("truncate")?.unwrap_or(false);
    let Vectors { mut vectors, tokens } = embed(model, inputs, truncate)?;
    if let Some(count) = dimensions {
        vectors.iter_mut().for_each(|vector| shorten(vector, count));
    }
    let data = vectors.iter().enumerate().map(|(index, vector)| {
        let embedding = if base64 { json!(encode(vector)) } else { json!(vector) };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    });
    Ok(json!({
        "object": "list",
        "data": data.collect::<Vec<_>>(),
        "model": model.id,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }))
}

/// `/api/embed`, which cuts long texts unless told not to.
///
/// # Errors
/// As [`embed`].
pub fn ollama(body: &Value, model: &Arc<Served>) -> ApiResult<Value> {
    let fields = Fields::of(body)?;
    let truncate = fields.flag("truncate")?.unwrap_or(true);
    let Vectors { vectors, tokens } = embed(model, inputs(&fields, "input")?, truncate)?;
    Ok(json!({"model": model.id, "embeddings": vectors, "prompt_eval_count": tokens}))
}

/// The first dims, scaled to length one again.
fn shorten(vector: &mut Vec<f32>, count: usize) {
    vector.truncate(count);
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

/// Little-endian floats in base64, as OpenAI's Python client reads them.
fn encode(vector: &[f32]) -> String {
    BASE64_STANDARD.encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_written_as_clients_read_them() {
        // base64.b64encode(struct.pack("<2f", 1, -2.5))
        assert_eq!(encode(&[1.0, -2.5]), "AACAPwAAIMA=");
        let mut vector = vec![3.0, 4.0, 12.0];
        shorten(&mut vector, 2);
        assert_eq!(vector, [0.6, 0.8]);
    }
}
