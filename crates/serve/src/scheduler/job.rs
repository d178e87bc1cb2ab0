//! What the scheduler is asked to do, and what it answers: token ids and options in, a stream of events out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ounce_engine::generate::Finish;
use ounce_engine::sample::TokenLogprob;
use ounce_engine::{Adapter, Sampling};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::grammar::Constraint;

/// One prompt and the answers wanted behind it.
#[derive(Debug)]
pub struct Job {
    /// Who asks; those who ask get equal shares.
    pub owner: String,
    /// Lower values are served first.
    pub priority: i32,
    /// The prompt, at least one token.
    pub prompt: Vec<u32>,
    /// Answers that are wanted.
    pub choices: usize,
    /// Tokens of an answer at most; 0 only runs the prompt.
    pub max_tokens: usize,
    /// Tokens before which no end-of-text token is chosen.
    pub min_tokens: usize,
    /// Tokens that end an answer.
    pub end_ids: Vec<u32>,
    /// Texts that end an answer; they are cut off.
    pub stops: Vec<String>,
    /// How tokens are drawn; each further answer adds one to the seed.
    pub sampling: Sampling,
    /// What is added to the logits of tokens.
    pub bias: Vec<(u32, f32)>,
    /// Likeliest tokens to report for each token of the answer.
    pub top_logprobs: Option<usize>,
    /// Likeliest tokens to report for each token of the prompt.
    pub prompt_logprobs: Option<usize>,
    /// Whether the answer goes on from the prompt's text, so that the space before its first word counts.
    pub continuing: bool,
    /// Whether the answer is waited for as a whole: then it is handed out in one piece, and no one is woken for each token.
    pub whole: bool,
    /// Whether tokens such as `<|im_end|>` are part of the text that is handed out.
    pub special_text: bool,
    /// What the text has to be, as a grammar.
    pub constraint: Option<Constraint>,
    /// What is added beside the weights.
    pub adapter: Option<Arc<Adapter>>,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
    /// The span that the client sent as `traceparent`.
    pub parent: Option<String>,
    /// Where events go. When the other end is dropped the job is given up.
    pub events: UnboundedSender<Event>,
}

impl Job {
    /// A job with neutral options, and where its events arrive.
    pub fn new(prompt: Vec<u32>, max_tokens: usize) -> (Job, UnboundedReceiver<Event>) {
        let (events, receiver) = unbounded_channel();
        let job = Job {
            owner: String::new(),
            priority: 0,
            prompt,
            choices: 1,
            max_tokens,
            min_tokens: 0,
            end_ids: Vec::new(),
            stops: Vec::new(),
            sampling: Sampling::greedy(),
            bias: Vec::new(),
            top_logprobs: None,
            prompt_logprobs: None,
            continuing: true,
            whole: false,
            special_text: false,
            constraint: None,
            adapter: None,
            deadline: None,
            parent: None,
            events,
        };
        (job, receiver)
    }
}

/// A token with its log-probability, where it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The token.
    pub id: u32,
    /// The natural logarithm of its probability; none for a text's first token and where nobody asked.
    pub logprob: Option<f32>,
    /// The likeliest tokens in its place.
    pub top: Vec<TokenLogprob>,
}

/// What happens to a job, in this order: the prompt's scores if asked for, deltas and ends of the answers, the summary.
#[derive(Debug)]
pub enum Event {
    /// The prompt's tokens with their scores.
    Prompt(Vec<Scored>),
    /// More of an answer. The text may be empty while it is held back.
    Delta {
        /// Which answer.
        choice: usize,
        /// The text that can be shown now.
        text: String,
        /// The tokens that came.
        tokens: Vec<Scored>,
    },
    /// An answer has ended.
    Finished {
        /// Which answer.
        choice: usize,
        /// Why.
        finish: Finish,
        /// The stop string that ended it.
        stop: Option<String>,
    },
    /// All answers have ended; nothing follows.
    Done(Summary),
    /// The job can't be done; nothing follows.
    Failed(Failure),
}

/// Counts and times of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Summary {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of it that were known from earlier prompts.
    pub cached_tokens: usize,
    /// Tokens of all answers.
    pub completion_tokens: usize,
    /// Tokens that were guessed ahead, and of them those that were right.
    pub drafted_tokens: usize,
    /// Guessed tokens that were right.
    pub accepted_tokens: usize,
    /// Time in the queue.
    pub queue_time: Duration,
    /// Time from leaving the queue to the first token.
    pub prompt_time: Duration,
    /// Time for the tokens after it.
    pub decode_time: Duration,
}

/// Why a job can't be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The deadline has passed.
    #[error("the time limit of the request has passed")]
    Deadline,
    /// The server ends.
    #[error("the server is shutting down")]
    Stopping,
    /// Memory for it is held by other models.
    #[error("there is no memory for the request at present")]
    Memory,
    /// The engine says why.
    #[error("{0}")]
    Engine(String),
}
