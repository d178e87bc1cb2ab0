//! The generation loop: prompt in, one token a step out, until an end-of-text token or a limit.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use ounce_model::rope::Rope;

use crate::draft::Ahead;
use crate::error::Result;
use crate::sample::{Sampler, TokenLogprob, logprobs};
use crate::session::Session;

/// What to generate.
#[derive(Debug, Clone)]
pub struct Generation {
    /// Tokens at most.
    pub max_tokens: usize,
    /// Tokens that end the text; they are not handed out.
    pub end_ids: Vec<u32>,
    /// Likeliest tokens to report at each step; none reports nothing.
    pub top_logprobs: Option<usize>,
}

/// One generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The token.
    pub id: u32,
    /// Its log-probability and the likeliest tokens', if asked for.
    pub logprobs: Option<(TokenLogprob, Vec<TokenLogprob>)>,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// An end-of-text token, or the caller's own condition.
    Stop,
    /// The token limit or the model's context.
    Length,
}

/// How a generation went.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt that were run.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub tokens: usize,
    /// Time to run the prompt.
    pub prompt_time: Duration,
    /// Time of all steps after it.
    pub decode_time: Duration,
}

impl Generation {
    /// Feeds `prompt` to the session and generates behind it. `on_prompt` is told how many prompt tokens are
    /// done; `on_step` gets each token and may end the text.
    ///
    /// # Errors
    /// If the prompt is empty or does not fit the model.
    pub fn run(
        &self,
        session: &mut Session<'_>,
        sampler: &mut Sampler,
        prompt: &[u32],
        on_prompt: impl FnMut(usize),
        on_step: impl FnMut(Step) -> Result<ControlFlow<()>>,
    ) -> Result<Outcome> {
        self.run_ahead(session, sampler, prompt, None, on_prompt, on_step)
    }

    /// As [`Generation::run`], with a draft model that guesses ahead where that is faster. What is generated is the same.
    ///
    /// # Errors
    /// As there.
    pub fn run_ahead(
        &self,
        session: &mut Session<'_>,
        sampler: &mut Sampler,
        prompt: &[u32],
        mut ahead: Option<&mut Ahead<'_>>,
        on_prompt: impl FnMut(usize),
        mut on_step: impl FnMut(Step) -> Result<ControlFlow<()>>,
    ) -> Result<Outcome> {
        let start = Instant::now();
        prompt.iter().for_each(|&id| sampler.observe(id));
        let mut logits = session.feed(prompt, on_prompt)?;
        let prompt_time = start.elapsed();
        let start = Instant::now();
        let spec = session.engine().spec();
        let (limit, vocab) = (spec.context_length, spec.vocab_size);
        ahead = ahead.filter(|_| !spec.ropes().any(Rope::depends_on_length));
        let mut tokens = 0;
        let (mut guesses, mut text): (Vec<u32>, Vec<u32>) = Default::default();
        let finish = loop {
            // The logits are those behind the last certain token, and behind each guess.
            let certain = session.tokens().len() - guesses.len();
            let (mut right, mut last, mut finish) = (0, None, None);
            for row in logits.chunks_exact(vocab) {
                if tokens >= self.max_tokens {
                    finish = Some(Finish::Length);
                    break;
                }
                let id = sampler.choose(row);
                if self.end_ids.contains(&id) {
                    finish = Some(Finish::Stop);
                    break;
                }
                sampler.observe(id);
                tokens += 1;
                let logprobs = self.top_logprobs.map(|count| logprobs(row, id, count));
                if on_step(Step { id, logprobs })?.is_break() {
                    finish = Some(Finish::Stop);
                    break;
                }
                if certain + right >= limit {
                    finish = Some(Finish::Length);
                    break;
                }
                last = Some(id);
                if guesses.get(right) != Some(&id) {
                    break;
                }
                right += 1;
            }
            if right < guesses.len() {
                session.truncate(certain + right);
            }
            if let Some(ahead) = &mut ahead {
                ahead.learn(guesses.len(), right);
            }
            if tokens >= self.max_tokens {
                finish = finish.or(Some(Finish::Length));
            }
            let id = match (finish, last) {
                (Some(finish), _) => break finish,
                (None, Some(id)) => id,
                (None, None) => break Finish::Length,
            };
            session.reuse(std::mem::take(&mut logits));
            guesses.clear();
            let Some(ahead) = &mut ahead else {
                logits = session.feed(&[id], |_| {})?;
                continue;
            };
            let mut ids = vec![id];
            let room = (limit - session.tokens().len() - 1).min(self.max_tokens - tokens - 1);
            // All that it holds is certain, so what the session holds beyond is new.
            text.extend(&session.tokens()[text.len()..]);
            text.push(id);
            guesses = ahead.guess(&text, room, sampler)?;
            ids.extend(&guesses);
            let start = Instant::now();
            logits = if guesses.is_empty() { session.feed(&ids, |_| {})? } else { session.logits(&ids)? };
            ahead.observe(ids.len(), start.elapsed().as_secs_f64());
        };
        let prompt_tokens = prompt.len();
        Ok(Outcome { finish, prompt_tokens, tokens, prompt_time, decode_time: start.elapsed() })
    }
}
