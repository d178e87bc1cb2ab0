//! `/v1/completions`: texts that go on from a prompt, with echo and the prompt's log-probabilities, as evaluation harnesses
//! ask for them.

use std::sync::Arc;

use ounce_model::tokenizer::Tokenizer;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::logprobs::CompletionLogprobs;
use super::{Delivery, Head};
use crate::answer::{self, Answers, collect, reason, timings, usage};
use crate::error::{ApiError, ApiResult, Dialect};
use crate::fields::Fields;
use crate::input::{Input, inputs};
use crate::model::Served;
use crate::options::{Asker, Options, likeliest};
use crate::scheduler::{Event, Job, Scored, Summary};
use crate::streaming::{Frame, Translate, Written};

/// Tokens of an answer where a request does not say; OpenAI's own default.
const DEFAULT_MAX_TOKENS: usize = 16;

/// A request, ready to be handed to the scheduler.
#[derive(Debug)]
pub struct Request {
    model: Arc<Served>,
    head: Head,
    /// How the answer is sent.
    pub delivery: Delivery,
    choices: usize,
    echo: bool,
    logprobs: bool,
    /// The prompts' texts, as far as they are needed.
    texts: Vec<String>,
    jobs: Vec<Job>,
    events: Vec<UnboundedReceiver<Event>>,
}

impl Request {
    /// Reads a request and turns its prompts into tokens.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn read(body: &Value, model: Arc<Served>, asker: &Asker) -> ApiResult<Request> {
        let fields = Fields::of(body)?;
        let mut options = Options::read(&fields, &model)?;
        options.max_tokens = Some(fields.count("max_tokens")?.unwrap_or(DEFAULT_MAX_TOKENS));
        if let Some(best) = fields.count("best_of")?
            && best != options.choices
        {
            return Err(ApiError::field("best_of", "best_of should equal n: all answers are returned"));
        }
        if fields.text("suffix")?.is_some_and(|suffix| !suffix.is_empty()) {
            return Err(ApiError::field(
                "suffix",
                "suffix is not supported: the model only goes on behind a text",
            ));
        }
        let echo = fields.flag("echo")?.unwrap_or(false);
        // Harnesses send a number, some clients true.
        let logprobs = match fields.value("logprobs") {
            Some(Value::Bool(wanted)) => wanted.then_some(1),
            _ => fields.count("logprobs")?,
        };
        let logprobs = logprobs.map(|count| likeliest("logprobs", count)).transpose()?;
        options.top_logprobs = logprobs;
        let special = fields.flag("add_special_tokens")?.unwrap_or(true);
        let prompts = inputs(&fields, "prompt")?;
        let mut request = Request {
            head: Head::new("cmpl-", fields.text("model")?.unwrap_or(&model.id), &model.fingerprint),
            delivery: Delivery::read(&fields)?,
            choices: options.choices,
            echo,
            logprobs: logprobs.is_some(),
            texts: Vec::new(),
            jobs: Vec::new(),
            events: Vec::new(),
            model,
        };
        for prompt in prompts {
            let (text, ids) = match prompt {
                Input::Text(text) => {
                    let ids = request.model.encode(&text, special)?;
                    (text, ids)
                }
                Input::Ids(ids) => {
                    let text = if echo { decode(&request.model.tokenizer, &ids)? } else { String::new() };
                    (text, ids)
                }
            };
            // An empty prompt begins a new text.
            let ids = if ids.is_empty() { start(&request.model)? } else { ids };
            let job = options.job(&request.model, ids, asker);
            let (mut job, events) = job.map_err(|error| error.about("messages", "prompt"))?;
            job.prompt_logprobs = if echo { logprobs } else { None };
            request.texts.push(text);
            request.jobs.push(job);
            request.events.push(events);
        }
        Ok(request)
    }
}

impl Written for Request {
    type Stream = Stream;

    fn is_streamed(&self) -> bool {
        self.delivery.stream
    }

    fn submit(&mut self) -> ApiResult<()> {
        let scheduler = self.model.writer()?;
        Ok(scheduler.submit_all(std::mem::take(&mut self.jobs))?)
    }

    async fn answer(self) -> ApiResult<Value> {
        let Request { model, head, choices, echo, logprobs, texts, events, .. } = self;
        let mut all = Vec::new();
        let mut total = Summary::default();
        for (prompt, (events, text)) in events.into_iter().zip(texts).enumerate() {
            let Answers { prompt: scores, choices: answers, summary } = collect(choices, events).await?;
            answer::add(&mut total, &summary);
            for (sample, choice) in answers.into_iter().enumerate() {
                let logprobs = logprobs.then(|| {
                    // Without echo, offsets count from the answer's beginning.
                    let mut shape = CompletionLogprobs::default();
                    shape.extend(&model.tokenizer, &scores);
                    shape.extend(&model.tokenizer, &choice.tokens);
                    shape.take()
                });
                let shown = if echo { format!("{text}{}", choice.text) } else { choice.text };
                all.push(json!({
                    "index": prompt * choices + sample,
                    "text": shown,
                    "logprobs": logprobs,
                    "finish_reason": choice.finish.map(reason),
                    "stop_reason": choice.stop,
                }));
            }
        }
        Ok(json!({
            "id": head.id, "object": "text_completion", "created": head.created, "model": head.model,
            "system_fingerprint": head.fingerprint, "choices": all, "usage": usage(&total), "timings": timings(&total),
        }))
    }

    fn stream(self) -> (Vec<UnboundedReceiver<Event>>, Stream) {
        let offsets = || CompletionLogprobs::default();
        let answers = self.events.len() * self.choices;
        let stream = Stream {
            logprobs: self.logprobs.then(|| std::iter::repeat_with(offsets).take(answers).collect()),
            model: self.model,
            head: self.head,
            usage: self.delivery.usage,
            choices: self.choices,
            echo: self.echo,
            texts: self.texts,
            total: Summary::default(),
        };
        (self.events, stream)
    }
}

fn decode(tokenizer: &Tokenizer, ids: &[u32]) -> ApiResult<String> {
    tokenizer.decode(ids, false).map_err(|error| ApiError::internal(error.to_string()))
}

/// What stands before a text.
fn start(model: &Served) -> ApiResult<Vec<u32>> {
    let special = model.tokenizer.special();
    let start = special.bos.or_else(|| special.eos.first().copied());
    start
        .map(|id| vec![id])
        .ok_or_else(|| ApiError::field("prompt", "prompt is empty; give at least one token"))
}

/// Writes a completion while it comes.
#[derive(Debug)]
pub struct Stream {
    model: Arc<Served>,
    head: Head,
    usage: bool,
    choices: usize,
    echo: bool,
    texts: Vec<String>,
    logprobs: Option<Vec<CompletionLogprobs>>,
    total: Summary,
}

impl Stream {
    fn chunk(&self, choices: Value) -> Value {
        json!({
            "id": self.head.id, "object": "text_completion", "created": self.head.created,
            "model": self.head.model, "system_fingerprint": self.head.fingerprint, "choices": choices,
        })
    }

    fn piece(&mut self, index: usize, text: &str, tokens: &[Scored]) -> Frame {
        let logprobs = self.logprobs.as_mut().map(|all| {
            all[index].extend(&self.model.tokenizer, tokens);
            all[index].take()
        });
        let choice = json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": null});
        Frame::Data(self.chunk(json!([choice])))
    }

    fn echoed(&mut self, prompt: usize, scores: &[Scored]) -> Vec<Frame> {
        let text = self.texts[prompt].clone();
        let indices = prompt * self.choices..(prompt + 1) * self.choices;
        indices.map(|index| self.piece(index, &text, scores)).collect()
    }
}

impl Translate for Stream {
    fn begin(&mut self) -> Vec<Frame> {
        if !self.echo || self.logprobs.is_some() {
            return Vec::new();
        }
        (0..self.texts.len()).flat_map(|prompt| self.echoed(prompt, &[])).collect()
    }

    fn event(&mut self, prompt: usize, event: Event) -> Vec<Frame> {
        match event {
            Event::Prompt(scores) => self.echoed(prompt, &scores),
            Event::Delta { text, tokens, .. }
                if text.is_empty() && (self.logprobs.is_none() || tokens.is_empty()) =>
            {
                Vec::new()
            }
            Event::Delta { choice, text, tokens } => {
                vec![self.piece(prompt * self.choices + choice, &text, &tokens)]
            }
            Event::Finished { choice, finish, stop } => {
                let index = prompt * self.choices + choice;
                let choice = json!({
                    "index": index, "text": "", "logprobs": null,
                    "finish_reason": reason(finish), "stop_reason": stop,
                });
                vec![Frame::Data(self.chunk(json!([choice])))]
            }
            Event::Done(summary) => {
                answer::add(&mut self.total, &summary);
                Vec::new()
            }
            Event::Failed(_) => Vec::new(),
        }
    }

    fn end(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        if self.usage {
            let mut chunk = self.chunk(json!([]));
            chunk["usage"] = usage(&self.total);
            chunk["timings"] = timings(&self.total);
            frames.push(Frame::Data(chunk));
        }
        frames.push(Frame::Done);
        frames
    }

    fn fail(&mut self, error: &ApiError) -> Vec<Frame> {
        vec![Frame::Data(error.body(Dialect::OpenAi)), Frame::Done]
    }
}
