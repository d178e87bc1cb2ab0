//! Log-probabilities in the two shapes of OpenAI's interfaces.

use ounce_model::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

use crate::scheduler::Scored;

/// What JSON has in place of minus infinity.
const IMPOSSIBLE: f32 = -9999.0;

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { IMPOSSIBLE }
}

/// A token as text. Bytes that are no text alone are written out, so that different tokens stay different.
fn spell(tokenizer: &Tokenizer, id: u32) -> (String, Vec<u8>) {
    let bytes = tokenizer.piece_bytes(id);
    match String::from_utf8(bytes) {
        Ok(text) => {
            let bytes = text.clone().into_bytes();
            (text, bytes)
        }
        Err(error) => {
            let bytes = error.into_bytes();
            let text = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
            (format!("bytes:{text}"), bytes)
        }
    }
}

/// `logprobs.content` of a chat, for the tokens of an answer or of a piece of it.
pub fn chat(tokenizer: &Tokenizer, tokens: &[Scored]) -> Value {
    let one = |id: u32, logprob: f32| {
        let (token, bytes) = spell(tokenizer, id);
        json!({"token": token, "logprob": finite(logprob), "bytes": bytes})
    };
    let content = tokens.iter().filter_map(|scored| {
        let mut entry = one(scored.id, scored.logprob?);
        entry["top_logprobs"] = scored.top.iter().map(|top| one(top.id, top.logprob)).collect();
        Some(entry)
    });
    json!({"content": content.collect::<Vec<_>>(), "refusal": null})
}

/// `logprobs` of a completion, written piece by piece.
#[derive(Debug, Default)]
pub struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Map<String, Value>>>,
    text_offset: Vec<usize>,
    characters: usize,
}

impl CompletionLogprobs {
    /// Logprobs of a text that begins after so many characters.
    pub fn from(characters: usize) -> CompletionLogprobs {
        CompletionLogprobs { characters, ..CompletionLogprobs::default() }
    }

    /// Adds tokens. The chosen one is among the likeliest, as harnesses want it, if there are any.
    pub fn extend(&mut self, tokenizer: &Tokenizer, tokens: &[Scored]) {
        for scored in tokens {
            let (token, _) = spell(tokenizer, scored.id);
            let mut top = Map::new();
            for likely in &scored.top {
                // The first of several tokens that are spelt alike is the likeliest.
                top.entry(spell(tokenizer, likely.id).0).or_insert_with(|| json!(finite(likely.logprob)));
            }
            if let Some(logprob) = scored.logprob
                && !top.is_empty()
            {
                top.entry(token.clone()).or_insert_with(|| json!(finite(logprob)));
            }
            self.text_offset.push(self.characters);
            self.characters += token.chars().count();
            self.tokens.push(token);
            self.token_logprobs.push(scored.logprob.map(finite));
            self.top_logprobs.push(scored.logprob.map(|_| top));
        }
    }

    /// What was added since the last call.
    pub fn take(&mut self) -> Value {
        let rest = CompletionLogprobs::from(self.characters);
        let taken = std::mem::replace(self, rest);
        json!({
            "tokens": taken.tokens,
            "token_logprobs": taken.token_logprobs,
            "top_logprobs": taken.top_logprobs,
            "text_offset": taken.text_offset,
        })
    }
}
