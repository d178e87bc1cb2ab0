//! From a job's events to whole answers, for clients that wait for them.

use ounce_engine::generate::Finish;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::error::{ApiError, ApiResult};
use crate::scheduler::{Event, Scored, Summary};

/// One whole answer.
#[derive(Debug, Default)]
pub struct Choice {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<Scored>,
    /// Why it ended.
    pub finish: Option<Finish>,
    /// The stop text that ended it.
    pub stop: Option<String>,
}

/// All answers to a prompt.
#[derive(Debug, Default)]
pub struct Answers {
    /// The prompt's scores, if asked for.
    pub prompt: Vec<Scored>,
    /// The answers.
    pub choices: Vec<Choice>,
    /// Counts and times.
    pub summary: Summary,
}

/// Waits for all answers. Dropping the future gives the job up.
///
/// # Errors
/// If the job fails.
pub async fn collect(choices: usize, mut events: UnboundedReceiver<Event>) -> ApiResult<Answers> {
    let mut answers = Answers::default();
    answers.choices.resize_with(choices, Choice::default);
    while let Some(event) = events.recv().await {
        match event {
            Event::Prompt(scores) => answers.prompt = scores,
            Event::Delta { choice, text, tokens } => {
                answers.choices[choice].text.push_str(&text);
                answers.choices[choice].tokens.extend(tokens);
            }
            Event::Finished { choice, finish, stop } => {
                answers.choices[choice].finish = Some(finish);
                answers.choices[choice].stop = stop;
            }
            Event::Done(summary) => {
                answers.summary = summary;
                return Ok(answers);
            }
            Event::Failed(failure) => return Err(failure.into()),
        }
    }
    Err(ApiError::internal("the engine's thread has ended"))
}

/// The reason in OpenAI's words.
pub fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

/// `usage` in OpenAI's words.
pub fn usage(summary: &Summary) -> Value {
    json!({
        "prompt_tokens": summary.prompt_tokens,
        "completion_tokens": summary.completion_tokens,
        "total_tokens": summary.prompt_tokens + summary.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": summary.cached_tokens},
        "completion_tokens_details": {
            "accepted_prediction_tokens": summary.accepted_tokens,
            "rejected_prediction_tokens": summary.drafted_tokens - summary.accepted_tokens,
        },
    })
}

/// `timings` as llama.cpp's server gives them, with the time in the queue.
pub fn timings(summary: &Summary) -> Value {
    let milliseconds = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    let speed = |tokens: usize, time: std::time::Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
    let run = summary.prompt_tokens.saturating_sub(summary.cached_tokens);
    json!({
        "queue_ms": milliseconds(summary.queue_time),
        "cache_n": summary.cached_tokens,
        "prompt_n": run,
        "prompt_ms": milliseconds(summary.prompt_time),
        "prompt_per_second": speed(run, summary.prompt_time),
        "predicted_n": summary.completion_tokens,
        "predicted_ms": milliseconds(summary.decode_time),
        "predicted_per_second": speed(summary.completion_tokens, summary.decode_time),
        "draft_n": summary.drafted_tokens,
        "draft_n_accepted": summary.accepted_tokens,
    })
}

/// Sums over several prompts of one request.
pub fn add(total: &mut Summary, one: &Summary) {
    total.prompt_tokens += one.prompt_tokens;
    total.cached_tokens += one.cached_tokens;
    total.completion_tokens += one.completion_tokens;
    total.drafted_tokens += one.drafted_tokens;
    total.accepted_tokens += one.accepted_tokens;
    total.queue_time = total.queue_time.max(one.queue_time);
    total.prompt_time = total.prompt_time.max(one.prompt_time);
    total.decode_time = total.decode_time.max(one.decode_time);
}
