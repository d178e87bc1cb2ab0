//! `/v1/chat/completions`.

use std::sync::Arc;

use ounce_engine::generate::Finish;
use ounce_model::chat::{Message, RenderOptions};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Delivery, Head, logprobs, new_id};
use crate::answer::{collect, reason, timings, usage};
use crate::error::{ApiError, ApiResult, Dialect};
use crate::fields::Fields;
use crate::grammar::Shape;
use crate::model::Served;
use crate::options::{Asker, Options, likeliest};
use crate::output::{CallStyle, Parser, Part};
use crate::scheduler::{Event, Job};
use crate::streaming::{Frame, Translate, Written};

/// A conversation, ready to be answered; what all chat dialects come down to.
#[derive(Debug)]
pub struct Conversation {
    /// The model.
    pub model: Arc<Served>,
    /// The job, until it is handed to the scheduler.
    job: Option<Job>,
    events: UnboundedReceiver<Event>,
    /// Answers that are wanted.
    pub choices: usize,
    /// How the model was asked to write calls, if it has tools.
    style: Option<CallStyle>,
    thinking: bool,
}

/// The tools of a request.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    /// As the template sees them: `{"type": "function", "function": {…}}`.
    pub list: Vec<Value>,
    /// Whether one has to be called.
    pub required: bool,
    /// The one that has to be called.
    pub named: Option<String>,
    /// Whether there may be several calls.
    pub several: bool,
}

impl Conversation {
    /// Writes a conversation with the model's template and turns it into tokens.
    ///
    /// # Errors
    /// If the template refuses the messages, or they do not fit.
    pub fn new(
        model: Arc<Served>,
        messages: Vec<Message>,
        mut options: Options,
        tools: &Tools,
        kwargs: Map<String, Value>,
        asker: &Asker,
    ) -> ApiResult<Conversation> {
        model.writer()?;
        if messages.is_empty() {
            return Err(ApiError::field("messages", "messages is empty; give at least one message"));
        }
        let style = (!tools.list.is_empty())
            .then(|| CallStyle::of(model.template.as_ref().map_or("", |template| template.source())));
        if let Some(style) = style
            && (tools.required || tools.named.is_some())
        {
            options.shape = Some((Shape::Lark(style.grammar(&tools.wanted()?, tools.several)), "tools"));
        }
        let render = RenderOptions {
            add_generation_prompt: true,
            tools: tools.list.clone(),
            kwargs,
            ..RenderOptions::default()
        };
        let text = model.conversation(messages, &render)?;
        let ids = model.conversation_ids(&text)?;
        let (mut job, events) = options.job(&model, ids, asker)?;
        job.continuing = model.template.is_none();
        let thinking = text.trim_end().ends_with("<think>");
        Ok(Conversation { choices: options.choices, job: Some(job), events, style, thinking, model })
    }

    /// Hands the job to the scheduler.
    ///
    /// # Errors
    /// If the queue is full.
    pub fn submit(&mut self) -> ApiResult<()> {
        let scheduler = self.model.writer()?;
        Ok(self.job.take().into_iter().try_for_each(|job| scheduler.submit(job))?)
    }

    /// Tokens of the prompt; 0 once the job was handed in.
    pub fn prompt_tokens(&self) -> usize {
        self.job.as_ref().map_or(0, |job| job.prompt.len())
    }

    /// The events, once.
    pub fn take_events(&mut self) -> UnboundedReceiver<Event> {
        let (_, closed) = tokio::sync::mpsc::unbounded_channel();
        std::mem::replace(&mut self.events, closed)
    }

    /// Takes an answer's text apart.
    pub fn parser(&self) -> Parser {
        Parser::new(self.style, self.thinking)
    }

    /// The parts of a whole answer.
    pub fn parts(style: &Conversation, text: &str) -> Vec<Part> {
        let mut parser = style.parser();
        let mut parts = parser.push(text);
        parts.extend(parser.finish());
        parts
    }
}

impl Tools {
    /// Reads `tools`, `tool_choice` and `parallel_tool_calls`.
    ///
    /// # Errors
    /// If one is not as it should be.
    pub fn read(fields: &Fields<'_>) -> ApiResult<Tools> {
        let wrong = |what: &str| ApiError::field("tool_choice", format!("tool_choice: {what}"));
        let mut tools = Tools {
            list: fields.list("tools")?.unwrap_or_default().to_vec(),
            several: fields.flag("parallel_tool_calls")?.unwrap_or(true),
            ..Tools::default()
        };
        for tool in &tools.list {
            if tool.pointer("/function/name").is_none_or(|name| !name.is_string()) {
                let what = "each of tools should be {\"type\": \"function\", \"function\": {\"name\", …}}";
                return Err(ApiError::field("tools", what));
            }
        }
        match fields.value("tool_choice") {
            None => {}
            Some(Value::String(choice)) => match choice.as_str() {
                "none" => tools.list.clear(),
                "auto" => {}
                "required" => tools.required = true,
                _ => return Err(wrong("none, auto, required, or a function's name in an object")),
            },
            Some(choice) => {
                let name = choice.pointer("/function/name").or_else(|| choice.get("name"));
                let name =
                    name.and_then(Value::as_str).ok_or_else(|| wrong("the function's name is missing"))?;
                tools.named = Some(name.to_string());
            }
        }
        if (tools.required || tools.named.is_some()) && tools.list.is_empty() {
            return Err(wrong("there are no tools to call"));
        }
        Ok(tools)
    }

    /// The functions of which one has to be called.
    fn wanted(&self) -> ApiResult<Vec<&Map<String, Value>>> {
        let functions = self.list.iter().filter_map(|tool| tool.get("function")?.as_object());
        let named = |tool: &&Map<String, Value>| match &self.named {
            Some(name) => tool.get("name").and_then(Value::as_str) == Some(name),
            None => true,
        };
        let wanted: Vec<_> = functions.filter(named).collect();
        match (&self.named, wanted.is_empty()) {
            (Some(name), true) => {
                Err(ApiError::field("tool_choice", format!("tool_choice: there is no tool {name:?}")))
            }
            _ => Ok(wanted),
        }
    }
}

/// A request of this interface.
#[derive(Debug)]
pub struct Request {
    conversation: Conversation,
    head: Head,
    /// How the answer is sent.
    pub delivery: Delivery,
    logprobs: bool,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn read(body: &Value, model: Arc<Served>, asker: &Asker) -> ApiResult<Request> {
        let fields = Fields::of(body)?;
        let mut options = Options::read(&fields, &model)?;
        options.max_tokens = match fields.count("max_completion_tokens")? {
            Some(count) => Some(count),
            None => fields.count("max_tokens")?,
        };
        let logprobs = fields.flag("logprobs")?.unwrap_or(false);
        let top = fields.count("top_logprobs")?;
        if top.is_some_and(|count| count > 0) && !logprobs {
            return Err(ApiError::field("top_logprobs", "top_logprobs needs logprobs: true"));
        }
        options.top_logprobs = match logprobs {
            true => Some(likeliest("top_logprobs", top.unwrap_or(0))?),
            false => None,
        };
        let head = Head::new("chatcmpl-", fields.text("model")?.unwrap_or(&model.id), &model.fingerprint);
        let messages = messages(&fields)?;
        let tools = Tools::read(&fields)?;
        let kwargs = kwargs(&fields)?;
        let delivery = Delivery::read(&fields)?;
        let conversation = Conversation::new(model, messages, options, &tools, kwargs, asker)?;
        Ok(Request { conversation, head, delivery, logprobs })
    }
}

impl Written for Request {
    type Stream = Stream;

    fn is_streamed(&self) -> bool {
        self.delivery.stream
    }

    fn submit(&mut self) -> ApiResult<()> {
        self.conversation.submit()
    }

    async fn answer(self) -> ApiResult<Value> {
        let Request { mut conversation, head, logprobs, .. } = self;
        let answers = collect(conversation.choices, conversation.take_events()).await?;
        let choices = answers.choices.iter().enumerate().map(|(index, choice)| {
            let parts = Conversation::parts(&conversation, &choice.text);
            let message = message(&parts);
            let logprobs = logprobs.then(|| logprobs::chat(&conversation.model.tokenizer, &choice.tokens));
            let finish =
                choice.finish.map(|finish| finish_reason(finish, message.get("tool_calls").is_some()));
            json!({
                "index": index, "message": message, "logprobs": logprobs,
                "finish_reason": finish, "stop_reason": choice.stop,
            })
        });
        Ok(json!({
            "id": head.id, "object": "chat.completion", "created": head.created, "model": head.model,
            "system_fingerprint": head.fingerprint, "choices": choices.collect::<Vec<_>>(),
            "usage": usage(&answers.summary), "timings": timings(&answers.summary),
        }))
    }

    fn stream(mut self) -> (Vec<UnboundedReceiver<Event>>, Stream) {
        let events = self.conversation.take_events();
        let answers = (0..self.conversation.choices)
            .map(|_| Answer { parser: Some(self.conversation.parser()), calls: 0 })
            .collect();
        let stream = Stream {
            model: self.conversation.model,
            head: self.head,
            usage: self.delivery.usage,
            logprobs: self.logprobs,
            answers,
            last: None,
        };
        (vec![events], stream)
    }
}

/// The messages of a request.
///
/// # Errors
/// If one is none.
pub fn messages(fields: &Fields<'_>) -> ApiResult<Vec<Message>> {
    let list = fields.list("messages")?.ok_or_else(|| fields.missing("messages"))?;
    let read = |(index, value): (usize, &Value)| {
        let wrong = |what: String| {
            ApiError::field(format!("messages[{index}]"), format!("messages[{index}]: {what}"))
        };
        let message: Message = serde_json::from_value(value.clone())
            .map_err(|error| wrong(format!("{error}; a message is {{\"role\", \"content\"}}")))?;
        if message.content.is_none() && message.tool_calls.is_none() {
            return Err(wrong("content is missing".to_string()));
        }
        // Templates know the role by its older name.
        let role = if message.role == "developer" { "system".to_string() } else { message.role.clone() };
        Ok(Message { role, ..message })
    };
    list.iter().enumerate().map(read).collect()
}

/// Variables for the template.
fn kwargs(fields: &Fields<'_>) -> ApiResult<Map<String, Value>> {
    let mut kwargs = fields.object("chat_template_kwargs")?.cloned().unwrap_or_default();
    if let Some(effort) = fields.text("reasoning_effort")? {
        kwargs.entry("reasoning_effort").or_insert_with(|| json!(effort));
        if effort == "none" {
            kwargs.entry("enable_thinking").or_insert_with(|| json!(false));
        }
    }
    Ok(kwargs)
}

fn finish_reason(finish: Finish, calls: bool) -> &'static str {
    match finish {
        Finish::Stop if calls => "tool_calls",
        finish => reason(finish),
    }
}

/// An assistant's message of these parts.
fn message(parts: &[Part]) -> Value {
    let mut content = String::new();
    let mut reasoning = String::new();
    let mut calls = Vec::new();
    for part in parts {
        match part {
            Part::Content(text) => content.push_str(text),
            Part::Reasoning(text) => reasoning.push_str(text),
            Part::Call { name, arguments } => calls.push(json!({
                "id": new_id("call_"), "type": "function", "function": {"name": name, "arguments": arguments},
            })),
        }
    }
    let mut message = json!({"role": "assistant", "content": content, "refusal": null});
    if !reasoning.is_empty() {
        message["reasoning_content"] = json!(reasoning);
    }
    if !calls.is_empty() {
        if content.trim().is_empty() {
            message["content"] = Value::Null;
        }
        message["tool_calls"] = json!(calls);
    }
    message
}

#[derive(Debug)]
struct Answer {
    parser: Option<Parser>,
    calls: usize,
}

/// Writes a chat completion while it comes.
#[derive(Debug)]
pub struct Stream {
    model: Arc<Served>,
    head: Head,
    usage: bool,
    logprobs: bool,
    answers: Vec<Answer>,
    last: Option<Value>,
}

impl Stream {
    fn chunk(&self, choices: Value) -> Value {
        json!({
            "id": self.head.id, "object": "chat.completion.chunk", "created": self.head.created,
            "model": self.head.model, "system_fingerprint": self.head.fingerprint, "choices": choices,
        })
    }

    fn delta(&self, index: usize, delta: &Value, logprobs: Option<Value>) -> Frame {
        Frame::Data(self.chunk(json!([
            {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null}
        ])))
    }

    fn parts(&mut self, index: usize, parts: Vec<Part>, mut logprobs: Option<Value>) -> Vec<Frame> {
        let mut frames = Vec::new();
        for part in parts {
            let delta = match part {
                Part::Content(text) => json!({"content": text}),
                Part::Reasoning(text) => json!({"reasoning_content": text}),
                Part::Call { name, arguments } => {
                    let call = self.answers[index].calls;
                    self.answers[index].calls += 1;
                    json!({"tool_calls": [{
                        "index": call, "id": new_id("call_"), "type": "function",
                        "function": {"name": name, "arguments": arguments},
                    }]})
                }
            };
            frames.push(self.delta(index, &delta, logprobs.take()));
        }
        // Scores are not held back with the text.
        if let Some(logprobs) = logprobs {
            frames.push(self.delta(index, &json!({"content": ""}), Some(logprobs)));
        }
        frames
    }
}

impl Translate for Stream {
    fn begin(&mut self) -> Vec<Frame> {
        let role = json!({"role": "assistant", "content": ""});
        (0..self.answers.len()).map(|index| self.delta(index, &role, None)).collect()
    }

    fn event(&mut self, _: usize, event: Event) -> Vec<Frame> {
        match event {
            Event::Delta { choice, text, tokens } => {
                let logprobs = (self.logprobs && !tokens.is_empty())
                    .then(|| logprobs::chat(&self.model.tokenizer, &tokens));
                let parser = self.answers[choice].parser.as_mut();
                let parts = parser.map(|parser| parser.push(&text)).unwrap_or_default();
                self.parts(choice, parts, logprobs)
            }
            Event::Finished { choice, finish, stop } => {
                let parts = self.answers[choice].parser.take().map(Parser::finish).unwrap_or_default();
                let mut frames = self.parts(choice, parts, None);
                let reason = finish_reason(finish, self.answers[choice].calls > 0);
                frames.push(Frame::Data(self.chunk(json!([{
                    "index": choice, "delta": {}, "logprobs": null, "finish_reason": reason, "stop_reason": stop,
                }]))));
                frames
            }
            Event::Done(summary) => {
                let mut chunk = self.chunk(json!([]));
                chunk["usage"] = usage(&summary);
                chunk["timings"] = timings(&summary);
                self.last = Some(chunk);
                Vec::new()
            }
            Event::Prompt(_) | Event::Failed(_) => Vec::new(),
        }
    }

    fn end(&mut self) -> Vec<Frame> {
        let last = self.last.take().filter(|_| self.usage);
        last.map(Frame::Data).into_iter().chain([Frame::Done]).collect()
    }

    fn fail(&mut self, error: &ApiError) -> Vec<Frame> {
        vec![Frame::Data(error.body(Dialect::OpenAi)), Frame::Done]
    }
}
