//! The generation loop: prompt in, one token a step out, until an end-of-text token or a limit.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

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
        mut on_step: impl FnMut(Step) -> Result<ControlFlow<()>>,
    ) -> Result<Outcome> {
        let start = Instant::now();
        prompt.iter().for_each(|&id| sampler.observe(id));
        let mut logits = session.feed(prompt, on_prompt)?;
        let prompt_time = start.elapsed();
        let start = Instant::now();
        let limit = session.engine().spec().context_length;
        let mut tokens = 0;
        let finish = loop {
            if tokens >= self.max_tokens {
                break Finish::Length;
            }
            let id = sampler.choose(&logits);
            if self.end_ids.contains(&id) {
                break Finish::Stop;
            }
            sampler.observe(id);
            tokens += 1;
            let logprobs = self.top_logprobs.map(|count| logprobs(&logits, id, count));
            if on_step(Step { id, logprobs })?.is_break() {
                break Finish::Stop;
            }
            if session.tokens().len() >= limit {
                break Finish::Length;
            }
            if tokens < self.max_tokens {
                session.reuse(std::mem::take(&mut logits));
                logits = session.feed(&[id], |_| {})?;
            }
        };
        let prompt_tokens = prompt.len();
        Ok(Outcome { finish, prompt_tokens, tokens, prompt_time, decode_time: start.elapsed() })
    }
}
