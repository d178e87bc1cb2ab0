//! `/tokenize` and `/detokenize`, as vLLM and llama.cpp's server have them; each answer holds the names of both.

use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::fields::Fields;
use crate::model::Served;
use crate::openai::chat::messages;
use crate::options::ids;
use ounce_model::chat::RenderOptions;

/// The tokens of a text or of a conversation.
///
/// # Errors
/// Names the field at fault.
pub fn tokenize(body: &Value, model: &Served) -> ApiResult<Value> {
    let fields = Fields::of(body)?;
    let flag = |names: [&str; 2], default: bool| -> ApiResult<bool> {
        Ok(fields.flag(names[0])?.or(fields.flag(names[1])?).unwrap_or(default))
    };
    let tokens = if fields.value("messages").is_some() {
        let render = RenderOptions {
            add_generation_prompt: fields.flag("add_generation_prompt")?.unwrap_or(true),
            ..RenderOptions::default()
        };
        model.conversation_ids(&model.conversation(messages(&fields)?, &render)?)?
    } else {
        let text = fields.text("prompt")?.or(fields.text("content")?);
        let text = text.ok_or_else(|| fields.missing("prompt"))?;
        // llama.cpp's server adds none unless asked to.
        let default = fields.value("prompt").is_some();
        model.encode(text, flag(["add_special_tokens", "add_special"], default)?)?
    };
    let mut answer = json!({"count": tokens.len(), "max_model_len": model.context, "tokens": tokens});
    if flag(["return_token_strs", "with_pieces"], false)? {
        answer["token_strs"] = json!(model.tokenizer.pieces(&tokens));
    }
    Ok(answer)
}

/// The text of tokens.
///
/// # Errors
/// If the model has no such token.
pub fn detokenize(body: &Value, model: &Served) -> ApiResult<Value> {
    let fields = Fields::of(body)?;
    if fields.value("tokens").is_none() {
        return Err(fields.missing("tokens"));
    }
    let ids = ids(&fields, "tokens")?;
    if let Some(id) = ids.iter().find(|&&id| model.tokenizer.piece(id).is_none()) {
        return Err(ApiError::field("tokens", format!("{id} is no token of {}", model.id)));
    }
    let text = model.tokenizer.decode(&ids, false).map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(json!({"prompt": text, "content": text}))
}
