//! What both models write behind the same beginnings.

use ounce_engine::{Engine, Mode, Sampling};
use ounce_model::Model;
use serde::Serialize;

use super::super::quantize::texts::TestArgs;
use crate::generation::{Request, answer};
use crate::source;

/// Beginnings that are shown, their tokens, and the tokens behind each.
const SAMPLES: usize = 3;
const PROMPT: usize = 16;
const ANSWER: usize = 60;

/// A beginning, and what both models write behind it.
#[derive(Debug, Serialize)]
pub struct Sample {
    pub prompt: String,
    pub before: String,
    pub after: String,
}

/// The likeliest continuations of pieces of the test text.
///
/// # Errors
/// If the text can't be read, or one of the models can't be run.
pub fn write(original: &Model, small: &Model, test: &TestArgs) -> anyhow::Result<Vec<Sample>> {
    let tokenizer = source::tokenizer(original)?;
    let ids: Vec<u32> = test.documents(original)?.concat();
    let longest = original.spec.context_length.saturating_sub(2);
    let length = PROMPT.min(longest / 2).min(ids.len());
    if length == 0 {
        return Ok(Vec::new());
    }
    let engines = [Engine::load(original, Mode::fast())?, Engine::load(small, Mode::fast())?];
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let ends = &tokenizer.special().eos;
    let mut samples = Vec::new();
    for index in 0..SAMPLES {
        let first = index * (ids.len() - length) / SAMPLES;
        let piece = &ids[first..first + length];
        let prompt: Vec<u32> =
            source::text_start(original).into_iter().chain(piece.iter().copied()).collect();
        let mut written = Vec::new();
        for engine in &engines {
            let request = Request {
                prompt: &prompt,
                max_tokens: Some(ANSWER.min(longest - length)),
                end_ids: ends,
                stops: &[],
                top_logprobs: None,
                sampling: &sampling,
                continuing: true,
            };
            written.push(answer(&mut engine.session(), None, tokenizer, &request, None, |_| Ok(()))?.text);
        }
        let mut written = written.into_iter();
        samples.push(Sample {
            prompt: tokenizer.decode(piece, true)?,
            before: written.next().unwrap_or_default(),
            after: written.next().unwrap_or_default(),
        });
    }
    Ok(samples)
}
