//! One answer while it is made: the tokens it shall hold, the session that holds some of them, and how the next is chosen.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use ounce_engine::generate::Finish;
use ounce_engine::sample::logprobs;
use ounce_engine::text::TextStream;
use ounce_engine::{Sampler, Session};
use ounce_model::tokenizer::Tokenizer;

use super::guess::Guesses;
use super::job::{Event, Failure, Job, Scored, Summary};
use super::swap::Aside;
use crate::grammar::Constraint;

/// A job that left the queue, with what its answers have in common.
#[derive(Debug)]
pub(super) struct Task {
    pub job: Job,
    pub arrived: Instant,
    pub admitted: Instant,
    pub first_token: Cell<Option<Instant>>,
    pub cached: Cell<usize>,
    pub unfinished: Cell<usize>,
    pub generated: Cell<usize>,
    pub drafted: Cell<usize>,
    pub accepted: Cell<usize>,
    /// Whether the answers besides the first have begun.
    pub forked: Cell<bool>,
    /// Whether it has failed and nobody is to be told anything more.
    pub failed: Cell<bool>,
}

impl Task {
    pub(super) fn new(job: Job, arrived: Instant) -> Rc<Task> {
        Rc::new(Task {
            unfinished: Cell::new(job.choices),
            job,
            arrived,
            admitted: Instant::now(),
            first_token: Cell::default(),
            cached: Cell::new(0),
            generated: Cell::new(0),
            drafted: Cell::new(0),
            accepted: Cell::new(0),
            forked: Cell::new(false),
            failed: Cell::new(false),
        })
    }

    /// Tells the client; a client that has left is noticed elsewhere.
    pub(super) fn tell(&self, event: Event) {
        if !self.failed.get() {
            let _ = self.job.events.send(event);
        }
    }

    pub(super) fn fail(&self, failure: Failure) {
        self.tell(Event::Failed(failure));
        self.failed.set(true);
    }

    /// Whether its answers are of no use any more.
    pub(super) fn is_over(&self) -> bool {
        self.failed.get() || self.job.events.is_closed()
    }

    pub(super) fn summary(&self) -> Summary {
        let now = Instant::now();
        let first = self.first_token.get().unwrap_or(now);
        Summary {
            prompt_tokens: self.job.prompt.len(),
            cached_tokens: self.cached.get(),
            completion_tokens: self.generated.get(),
            drafted_tokens: self.drafted.get(),
            accepted_tokens: self.accepted.get(),
            queue_time: self.admitted - self.arrived,
            prompt_time: first - self.admitted,
            decode_time: now - first,
        }
    }
}

/// One answer.
#[derive(Debug)]
pub(super) struct Sequence<'e> {
    pub task: Rc<Task>,
    pub choice: usize,
    pub session: Session<'e>,
    /// Prompt and answer; the session holds a beginning of it.
    pub tokens: Vec<u32>,
    pub sampler: Sampler,
    /// None once the rest was handed out.
    stream: Option<TextStream>,
    constraint: Option<Constraint>,
    generated: usize,
    /// What is not handed out before the end.
    held: (String, Vec<Scored>),
    /// Scores of the prompt so far, where they are wanted.
    pub prompt_scores: Vec<Scored>,
    /// Whether the scores of the whole prompt were handed out.
    pub scored: bool,
    /// Whether nothing of it was run, so that a look into the prefix cache is worth it.
    pub fresh: bool,
    pub last_token: Option<Instant>,
    pub guesses: Guesses<'e>,
    /// What it had computed when it was put back.
    pub aside: Option<Aside>,
}

impl<'e> Sequence<'e> {
    /// The first answer of a task.
    ///
    /// # Errors
    /// If an option is out of its range.
    pub(super) fn new(
        task: Rc<Task>,
        session: Session<'e>,
        tokenizer: &Tokenizer,
    ) -> ounce_engine::Result<Sequence<'e>> {
        let tokens = task.job.prompt.clone();
        let mut sampler = Sampler::new(task.job.sampling.clone(), tokenizer.id_limit() as usize)?;
        tokens.iter().for_each(|&id| sampler.observe(id));
        let prompt_scores = match task.job.prompt_logprobs {
            Some(_) => vec![Scored { id: tokens[0], logprob: None, top: Vec::new() }],
            None => Vec::new(),
        };
        Ok(Sequence {
            choice: 0,
            stream: Some(stream(&task.job, tokenizer)?),
            constraint: task.job.constraint.clone(),
            generated: 0,
            held: Default::default(),
            session,
            tokens,
            sampler,
            prompt_scores,
            scored: false,
            fresh: true,
            last_token: None,
            guesses: Guesses::default(),
            aside: None,
            task,
        })
    }

    /// Another answer to the same prompt, which this one has just read.
    ///
    /// # Errors
    /// As [`Sequence::new`].
    pub(super) fn sibling(&self, choice: usize, tokenizer: &Tokenizer) -> ounce_engine::Result<Sequence<'e>> {
        let mut sampling = self.task.job.sampling.clone();
        sampling.seed = sampling.seed.wrapping_add(choice as u64);
        let mut sampler = Sampler::new(sampling, tokenizer.id_limit() as usize)?;
        self.tokens.iter().for_each(|&id| sampler.observe(id));
        Ok(Sequence {
            task: self.task.clone(),
            choice,
            session: self.session.fork(self.tokens.len()),
            tokens: self.tokens.clone(),
            sampler,
            stream: Some(stream(&self.task.job, tokenizer)?),
            constraint: self.constraint.clone(),
            generated: 0,
            held: Default::default(),
            prompt_scores: Vec::new(),
            scored: true,
            fresh: false,
            last_token: None,
            guesses: Guesses::after(&self.guesses.sources),
            aside: None,
        })
    }

    /// The tokens that the session does not hold yet.
    pub(super) fn pending(&self) -> &[u32] {
        &self.tokens[self.session.tokens().len()..]
    }

    /// Whether only the last token is to be run.
    pub(super) fn is_decoding(&self) -> bool {
        self.generated > 0 && self.pending().len() == 1
    }

    /// Tokens that may be guessed in a text of `limit` tokens at most.
    pub(super) fn room_for_guesses(&self, limit: usize) -> usize {
        let room = limit.saturating_sub(self.tokens.len() + 1);
        room.min(self.task.job.max_tokens.saturating_sub(self.generated + 1))
    }

    /// Takes note of how many of the guesses were right.
    pub(super) fn learn(&mut self, guessed: usize, right: usize) {
        self.guesses.learn(guessed, right);
        self.task.drafted.set(self.task.drafted.get() + guessed);
        self.task.accepted.set(self.task.accepted.get() + right);
    }

    /// Whether the prompt's scores are wanted and not complete.
    pub(super) fn is_scoring(&self) -> bool {
        self.task.job.prompt_logprobs.is_some() && !self.scored
    }

    /// Takes the logits after a prompt token: they score the one that follows.
    pub(super) fn score_prompt(&mut self, logits: &[f32]) {
        let Some(&next) = self.task.job.prompt.get(self.prompt_scores.len()) else { return };
        let (chosen, top) = logprobs(logits, next, self.task.job.prompt_logprobs.unwrap_or(0));
        self.prompt_scores.push(Scored { id: next, logprob: Some(chosen.logprob), top });
    }

    /// Chooses the next token by the logits after the last one and hands it out. Gives the token, or why the answer ends.
    ///
    /// # Errors
    /// If the grammar is too costly, or the tokenizer fails.
    pub(super) fn choose(&mut self, logits: &[f32], limit: usize) -> Result<Result<u32, Finish>, Failure> {
        let job = &self.task.job;
        if job.max_tokens == 0 || self.tokens.len() >= limit {
            return Ok(Err(Finish::Length));
        }
        let mut broken = None;
        let (bias, constraint) = (&job.bias, &mut self.constraint);
        let early = self.generated < job.min_tokens;
        let id = self.sampler.choose_among(logits, |logits| {
            for &(id, bias) in bias {
                if let Some(logit) = logits.get_mut(id as usize) {
                    *logit += bias;
                }
            }
            if let Some(constraint) = constraint {
                broken = constraint.mask(logits).err();
            } else if early {
                for &id in &job.end_ids {
                    if let Some(logit) = logits.get_mut(id as usize) {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        });
        if let Some(what) = broken {
            return Err(Failure::Engine(format!("the grammar can't be followed: {what}")));
        }
        if job.end_ids.contains(&id) {
            return Ok(Err(Finish::Stop));
        }
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(id).map_err(Failure::Engine)?;
        }
        self.sampler.observe(id);
        self.generated += 1;
        self.tokens.push(id);
        self.task.generated.set(self.task.generated.get() + 1);
        let score = self.task.job.top_logprobs.map(|count| logprobs(logits, id, count));
        let (logprob, top) = score.map_or((None, Vec::new()), |(chosen, top)| (Some(chosen.logprob), top));
        let Some(stream) = &mut self.stream else { return Ok(Err(Finish::Stop)) };
        let piece = stream.push(id).map_err(|error| Failure::Engine(error.to_string()))?;
        let token = Scored { id, logprob, top };
        if self.task.job.whole {
            self.held.0.push_str(&piece.text);
            self.held.1.push(token);
        } else {
            let (choice, tokens) = (self.choice, vec![token]);
            self.task.tell(Event::Delta { choice, text: piece.text, tokens });
        }
        let done = self.constraint.as_ref().is_some_and(Constraint::is_done);
        if piece.stopped || done {
            return Ok(Err(Finish::Stop));
        }
        if self.generated >= self.task.job.max_tokens || self.tokens.len() >= limit {
            return Ok(Err(Finish::Length));
        }
        Ok(Ok(id))
    }

    /// Hands out the rest of the text and the end of the answer; the last answer ends the task.
    pub(super) fn finish(&mut self, finish: Finish) {
        let Some(stream) = self.stream.take() else { return };
        let stop = stream.met().map(String::from);
        let (mut text, tokens) = std::mem::take(&mut self.held);
        match stream.finish() {
            Ok(rest) => text.push_str(&rest),
            Err(error) => self.task.fail(Failure::Engine(error.to_string())),
        }
        if !text.is_empty() || !tokens.is_empty() {
            self.task.tell(Event::Delta { choice: self.choice, text, tokens });
        }
        self.task.tell(Event::Finished { choice: self.choice, finish, stop });
        self.task.unfinished.set(self.task.unfinished.get().saturating_sub(1));
        if self.task.unfinished.get() == 0 {
            self.task.tell(Event::Done(self.task.summary()));
        }
    }
}

fn stream(job: &Job, tokenizer: &Tokenizer) -> ounce_engine::Result<TextStream> {
    if job.special_text {
        TextStream::with_special(tokenizer, job.stops.clone(), job.continuing)
    } else {
        TextStream::new(tokenizer, job.stops.clone(), job.continuing)
    }
}
