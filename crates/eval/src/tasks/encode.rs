//! Texts to token ids as the harness encodes them for causal models.

use super::{Error, Result};
use crate::perplexity::is_space;
use crate::trust::Prompting;

/// Encodes for one model.
pub(super) struct Encoder<'a> {
    prompting: &'a Prompting<'a>,
    /// How the token that begins texts is spelt: a text that begins so gets no second one.
    start_text: String,
}

impl<'a> Encoder<'a> {
    pub fn new(prompting: &'a Prompting<'a>) -> Result<Encoder<'a>> {
        let start = prompting.start.map(|id| prompting.tokenizer.decode(&[id], false)).transpose()?;
        Ok(Encoder { prompting, start_text: start.unwrap_or_default() })
    }

    /// A text with the tokens that the tokenizer itself puts around it.
    pub fn text(&self, text: &str) -> Result<Vec<u32>> {
        let begun = !self.start_text.is_empty() && text.starts_with(&self.start_text);
        Ok(self.prompting.tokenizer.encode(text, !begun)?)
    }

    /// The token that stands before a text without a context.
    pub fn start(&self, task: &str) -> Result<u32> {
        self.prompting.start.ok_or_else(|| {
            Error::task(
                task,
                "the model has no token that begins or ends texts, so nothing can stand before one",
            )
        })
    }

    /// A context and what continues it. Both are encoded together and cut where the context alone ends; spaces at the
    /// context's end belong to the continuation.
    pub fn pair(&self, task: &str, context: &str, continuation: &str) -> Result<(Vec<u32>, Vec<u32>)> {
        if context.is_empty() {
            let ids = self.prompting.tokenizer.encode(continuation, false)?;
            let start = self.start(task)?;
            return Ok(match ids.split_first() {
                Some((&first, rest)) if first == start => (vec![start], rest.to_vec()),
                _ => (vec![start], ids),
            });
        }
        let kept = context.trim_end_matches(is_space);
        let whole = self.text(&format!("{context}{continuation}"))?;
        let mut context = self.text(kept)?;
        let continuation = whole.get(context.len()..).unwrap_or_default().to_vec();
        if context.is_empty() {
            context.push(self.start(task)?);
        }
        Ok((context, continuation))
    }
}
