//! One answer of a model: runs the prompt, hands out text as it comes, and keeps what a report needs.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::bail;
use ounce_engine::draft::Ahead;
use ounce_engine::generate::{Finish, Generation, Step};
use ounce_engine::text::TextStream;
use ounce_engine::{Engine, Sampler, Sampling, Session};
use ounce_model::tokenizer::Tokenizer;

use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};

/// Tokens that a text without an end may have, where no limit is given.
pub const DEFAULT_MAX_TOKENS: usize = 256;

/// What to answer, and how.
#[derive(Debug)]
pub struct Request<'a> {
    /// The whole prompt, what the session already holds included.
    pub prompt: &'a [u32],
    /// Tokens at most; none stops only at the end of the text or of the context.
    pub max_tokens: Option<usize>,
    /// Tokens that end the text.
    pub end_ids: &'a [u32],
    /// Texts that end the text; they are cut off.
    pub stops: &'a [String],
    /// Likeliest tokens to report at each step.
    pub top_logprobs: Option<usize>,
    /// How tokens are drawn.
    pub sampling: &'a Sampling,
    /// Whether the text goes on from the prompt's, so that the space before its first word counts.
    pub continuing: bool,
}

/// What came out.
#[derive(Debug)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// Its tokens.
    pub steps: Vec<Step>,
    /// Why it ended.
    pub finish: Finish,
    /// Whether the user ended it.
    pub interrupted: bool,
    /// Tokens of the prompt that had to be run.
    pub prompt_tokens: usize,
    /// Time for them.
    pub prompt_time: Duration,
    /// Time for the answer.
    pub decode_time: Duration,
    /// Tokens that a draft model guessed, and how many were right.
    pub guessed: Option<(usize, usize)>,
}

/// Generates an answer behind `request.prompt`. What the session holds of the prompt already is not run again.
/// `draft` guesses for it; `on_text` is handed each piece of text; `watch` ends the answer early.
///
/// # Errors
/// If the prompt does not fit the model, an option is out of its range, or `on_text` fails.
pub fn answer(
    session: &mut Session<'_>,
    draft: Option<&Engine>,
    tokenizer: &Tokenizer,
    request: &Request<'_>,
    watch: Option<&Watch>,
    mut on_text: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Answer> {
    let context = session.engine().spec().context_length;
    if request.prompt.len() > context {
        let tokens = request.prompt.len();
        bail!("the prompt has {tokens} tokens, and the model's context is {context}; shorten the prompt");
    }
    let known = common_start(session.tokens(), request.prompt);
    session.truncate(known);
    let mut sampler = Sampler::new(request.sampling.clone(), tokenizer.id_limit() as usize)?;
    request.prompt[..known].iter().for_each(|&id| sampler.observe(id));
    let generation = Generation {
        max_tokens: request.max_tokens.unwrap_or(usize::MAX),
        end_ids: request.end_ids.to_vec(),
        top_logprobs: request.top_logprobs,
    };
    let mut stream = TextStream::new(tokenizer, request.stops.to_vec(), request.continuing)?;
    let mut text = String::new();
    let mut steps = Vec::new();
    let mut interrupted = false;
    let mut failed = None;
    let new = &request.prompt[known..];
    let mut bar = Some(Progress::new("reading the prompt", Unit::Tokens));
    let on_prompt = |done: usize| {
        if let Some(bar) = &mut bar {
            bar.set(done as u64, new.len() as u64);
        }
        if done == new.len() {
            bar = None;
        }
    };
    let mut ahead = draft.map(Ahead::new).transpose()?;
    let outcome = generation.run_ahead(session, &mut sampler, new, ahead.as_mut(), on_prompt, |step| {
        let piece = stream.push(step.id)?;
        steps.push(step);
        text.push_str(&piece.text);
        failed = on_text(&piece.text).err();
        interrupted = watch.is_some_and(Watch::requested);
        let end = piece.stopped || interrupted || failed.is_some();
        Ok(if end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let rest = stream.finish()?;
    on_text(&rest)?;
    text.push_str(&rest);
    Ok(Answer {
        text,
        steps,
        finish: outcome.finish,
        interrupted,
        prompt_tokens: outcome.prompt_tokens,
        prompt_time: outcome.prompt_time,
        decode_time: outcome.decode_time,
        guessed: ahead.map(|it| (it.drafted, it.accepted)),
    })
}

/// How many tokens of the prompt need not be run again. The last always is: its logits are needed.
fn common_start(held: &[u32], prompt: &[u32]) -> usize {
    let same = held.iter().zip(prompt).take_while(|(held, prompt)| held == prompt).count();
    same.min(prompt.len().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_token_of_a_prompt_is_always_run() {
        assert_eq!(common_start(&[1, 2, 3], &[1, 2, 4, 5]), 2);
        assert_eq!(common_start(&[1, 2, 3], &[1, 2]), 1);
        assert_eq!(common_start(&[], &[]), 0);
    }
}
