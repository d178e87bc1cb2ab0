//! Anthropic's `/v1/messages`.

use std::sync::Arc;

use ounce_engine::generate::Finish;
use ounce_model::chat::{Content, Message};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::answer::collect;
use crate::error::{ApiError, ApiResult, Dialect};
use crate::fields::Fields;
use crate::model::Served;
use crate::openai::chat::{Conversation, Tools};
use crate::openai::new_id;
use crate::options::{Asker, Options};
use crate::output::{Parser, Part};
use crate::scheduler::{Event, Summary};
use crate::streaming::{Frame, Translate, Written};

/// A request.
#[derive(Debug)]
pub struct Request {
    conversation: Conversation,
    id: String,
    model: String,
    /// Whether the answer is sent as it comes.
    pub stream: bool,
    prompt_tokens: usize,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn read(body: &Value, model: Arc<Served>, asker: &Asker) -> ApiResult<Request> {
        let fields = Fields::of(body)?;
        let mut options = Options::read(&fields, &model)?;
        let most = fields.count("max_tokens")?.ok_or_else(|| fields.missing("max_tokens"))?;
        options.max_tokens = Some(most);
        options.stops = fields.texts("stop_sequences")?;
        options.choices = 1;
        let name = fields.text("model")?.unwrap_or(&model.id).to_string();
        let stream = fields.flag("stream")?.unwrap_or(false);
        let (messages, tools, kwargs) = conversation(&fields)?;
        let conversation = Conversation::new(model, messages, options, &tools, kwargs, asker)?;
        let prompt_tokens = conversation.prompt_tokens();
        Ok(Request { conversation, id: new_id("msg_"), model: name, stream, prompt_tokens })
    }
}

impl Written for Request {
    type Stream = Stream;

    fn is_streamed(&self) -> bool {
        self.stream
    }

    fn submit(&mut self) -> ApiResult<()> {
        self.conversation.submit()
    }

    async fn answer(self) -> ApiResult<Value> {
        let Request { mut conversation, id, model, .. } = self;
        let answers = collect(1, conversation.take_events()).await?;
        let choice = answers.choices.into_iter().next().unwrap_or_default();
        let parts = Conversation::parts(&conversation, &choice.text);
        let calls = parts.iter().any(|part| matches!(part, Part::Call { .. }));
        let mut content: Vec<Value> = Vec::new();
        for part in parts {
            let (kind, key, text) = match part {
                Part::Call { name, arguments } => {
                    content.push(json!({"type": "tool_use", "id": new_id("toolu_"), "name": name, "input": input(&arguments)}));
                    continue;
                }
                Part::Content(text) => ("text", "text", text),
                Part::Reasoning(text) => ("thinking", "thinking", text),
            };
            match content.last_mut().filter(|last| last["type"] == kind) {
                Some(last) => last[key] = json!(format!("{}{text}", last[key].as_str().unwrap_or_default())),
                None if kind == "thinking" => content.push(json!({"type": kind, key: text, "signature": ""})),
                None => content.push(json!({"type": kind, key: text})),
            }
        }
        Ok(json!({
            "id": id, "type": "message", "role": "assistant", "model": model, "content": content,
            "stop_reason": choice.finish.map(|finish| stop_reason(finish, choice.stop.as_deref(), calls)),
            "stop_sequence": choice.stop, "usage": usage(&answers.summary),
        }))
    }

    fn stream(mut self) -> (Vec<UnboundedReceiver<Event>>, Stream) {
        let events = self.conversation.take_events();
        let stream = Stream {
            parser: Some(self.conversation.parser()),
            id: self.id,
            model: self.model,
            prompt_tokens: self.prompt_tokens,
            block: None,
            blocks: 0,
            calls: false,
            end: None,
        };
        (vec![events], stream)
    }
}

/// `/v1/messages/count_tokens`.
///
/// # Errors
/// As [`Request::read`].
pub fn count(body: &Value, model: Arc<Served>, asker: &Asker) -> ApiResult<Value> {
    let fields = Fields::of(body)?;
    let (messages, tools, kwargs) = conversation(&fields)?;
    let options = Options { max_tokens: Some(0), ..Options::of(&model) };
    let conversation = Conversation::new(model, messages, options, &tools, kwargs, asker)?;
    Ok(json!({"input_tokens": conversation.prompt_tokens()}))
}

/// Messages, tools and template variables in the words of the templates.
fn conversation(fields: &Fields<'_>) -> ApiResult<(Vec<Message>, Tools, Map<String, Value>)> {
    let mut messages = Vec::new();
    match fields.value("system") {
        None => {}
        Some(Value::String(text)) => messages.push(Message::new("system", text.clone())),
        Some(Value::Array(blocks)) => {
            let text: Vec<&str> = blocks.iter().filter_map(|block| block.get("text")?.as_str()).collect();
            messages.push(Message::new("system", text.join("\n")));
        }
        Some(_) => return Err(ApiError::field("system", "system should be a text or a list of text blocks")),
    }
    let list = fields.list("messages")?.ok_or_else(|| fields.missing("messages"))?;
    for (index, message) in list.iter().enumerate() {
        read_message(message, &mut messages).map_err(|what| {
            ApiError::field(format!("messages[{index}]"), format!("messages[{index}]: {what}"))
        })?;
    }
    let mut tools = Tools { several: true, ..Tools::default() };
    for tool in fields.list("tools")?.unwrap_or_default() {
        let name = tool.get("name").and_then(Value::as_str);
        let name = name.ok_or_else(|| ApiError::field("tools", "each of tools should have a name"))?;
        let parameters = tool.get("input_schema").cloned().unwrap_or_else(|| json!({"type": "object"}));
        tools.list.push(json!({"type": "function", "function": {
            "name": name, "description": tool.get("description"), "parameters": parameters,
        }}));
    }
    if let Some(choice) = fields.inner("tool_choice", "tool_choice.")? {
        tools.several = !choice.flag("disable_parallel_tool_use")?.unwrap_or(false);
        match choice.required_text("type")? {
            "auto" => {}
            "none" => tools.list.clear(),
            "any" => tools.required = true,
            "tool" => tools.named = Some(choice.required_text("name")?.to_string()),
            other => {
                let what = format!("tool_choice.type is auto, any, tool or none, found {other:?}");
                return Err(ApiError::field("tool_choice.type", what));
            }
        }
        if (tools.required || tools.named.is_some()) && tools.list.is_empty() {
            return Err(ApiError::field("tool_choice", "tool_choice: there are no tools to call"));
        }
    }
    let mut kwargs = fields.object("chat_template_kwargs")?.cloned().unwrap_or_default();
    if let Some(thinking) = fields.inner("thinking", "thinking.")? {
        let enabled = thinking.required_text("type")? != "disabled";
        kwargs.insert("enable_thinking".to_string(), json!(enabled));
    }
    Ok((messages, tools, kwargs))
}

/// One message; results of tools become messages of their own.
fn read_message(message: &Value, out: &mut Vec<Message>) -> Result<(), String> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(String::from);
    let role = text(message, "role").filter(|role| role == "user" || role == "assistant" || role == "system");
    let role = role.ok_or("role should be user or assistant")?;
    let blocks = match message.get("content") {
        Some(Value::String(content)) => {
            out.push(Message::new(role, content.clone()));
            return Ok(());
        }
        Some(Value::Array(blocks)) => blocks,
        _ => return Err("content should be a text or a list of blocks".to_string()),
    };
    let (mut said, mut thought, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for block in blocks {
        match block.get("type").and_then(Value::as_str) {
            Some("text") => said.extend(text(block, "text")),
            Some("thinking") => thought.extend(text(block, "thinking")),
            Some("redacted_thinking") => {}
            Some("tool_use") => calls.push(json!({
                "id": block.get("id"), "type": "function",
                "function": {"name": block.get("name"), "arguments": block.get("input")},
            })),
            Some("tool_result") => {
                let result = match block.get("content") {
                    Some(Value::String(text)) => text.clone(),
                    Some(Value::Array(parts)) => parts
                        .iter()
                        .filter_map(|part| part.get("text")?.as_str())
                        .collect::<Vec<_>>()
                        .join("\n"),
                    _ => String::new(),
                };
                let id = text(block, "tool_use_id");
                out.push(Message { tool_call_id: id, ..Message::new("tool", result) });
            }
            Some(other) => return Err(format!("a block of type {other:?} can't be given to this model")),
            None => return Err("a block has no type".to_string()),
        }
    }
    if !said.is_empty() || !calls.is_empty() || !thought.is_empty() {
        let mut message = Message::new(role, said.join("\n"));
        if !calls.is_empty() {
            message.tool_calls = Some(calls);
            if said.is_empty() {
                message.content = Some(Content::Text(String::new()));
            }
        }
        if !thought.is_empty() {
            message.extra.insert("reasoning_content".to_string(), json!(thought.join("\n")));
        }
        out.push(message);
    }
    Ok(())
}

/// A call's arguments as an object.
fn input(arguments: &str) -> Value {
    serde_json::from_str(arguments).unwrap_or_else(|_| json!({}))
}

fn stop_reason(finish: Finish, stop: Option<&str>, calls: bool) -> &'static str {
    match (finish, stop) {
        (Finish::Length, _) => "max_tokens",
        (Finish::Stop, Some(_)) => "stop_sequence",
        (Finish::Stop, None) if calls => "tool_use",
        (Finish::Stop, None) => "end_turn",
    }
}

fn usage(summary: &Summary) -> Value {
    json!({
        "input_tokens": summary.prompt_tokens - summary.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": summary.cached_tokens,
        "output_tokens": summary.completion_tokens,
    })
}

/// Writes a message while it comes.
#[derive(Debug)]
pub struct Stream {
    parser: Option<Parser>,
    id: String,
    model: String,
    prompt_tokens: usize,
    /// The kind of the block that is open.
    block: Option<&'static str>,
    blocks: usize,
    calls: bool,
    end: Option<(&'static str, Option<String>)>,
}

impl Stream {
    fn open(&mut self, kind: &'static str, block: Value) -> Vec<Frame> {
        let mut frames = self.close();
        self.block = Some(kind);
        frames.push(Frame::Named(
            "content_block_start",
            json!({"type": "content_block_start", "index": self.blocks, "content_block": block}),
        ));
        frames
    }

    fn close(&mut self) -> Vec<Frame> {
        if self.block.take().is_none() {
            return Vec::new();
        }
        self.blocks += 1;
        vec![Frame::Named(
            "content_block_stop",
            json!({"type": "content_block_stop", "index": self.blocks - 1}),
        )]
    }

    fn delta(&self, delta: &Value) -> Frame {
        Frame::Named(
            "content_block_delta",
            json!({"type": "content_block_delta", "index": self.blocks, "delta": delta}),
        )
    }

    fn part(&mut self, part: Part) -> Vec<Frame> {
        let mut frames = Vec::new();
        match part {
            Part::Content(text) => {
                if self.block != Some("text") {
                    frames = self.open("text", json!({"type": "text", "text": ""}));
                }
                frames.push(self.delta(&json!({"type": "text_delta", "text": text})));
            }
            Part::Reasoning(text) => {
                if self.block != Some("thinking") {
                    frames =
                        self.open("thinking", json!({"type": "thinking", "thinking": "", "signature": ""}));
                }
                frames.push(self.delta(&json!({"type": "thinking_delta", "thinking": text})));
            }
            Part::Call { name, arguments } => {
                self.calls = true;
                let block = json!({"type": "tool_use", "id": new_id("toolu_"), "name": name, "input": {}});
                frames = self.open("tool_use", block);
                frames.push(self.delta(&json!({"type": "input_json_delta", "partial_json": arguments})));
            }
        }
        frames
    }
}

impl Translate for Stream {
    fn begin(&mut self) -> Vec<Frame> {
        let message = json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": [],
            "stop_reason": null, "stop_sequence": null,
            "usage": {"input_tokens": self.prompt_tokens, "output_tokens": 0},
        });
        vec![Frame::Named("message_start", json!({"type": "message_start", "message": message}))]
    }

    fn event(&mut self, _: usize, event: Event) -> Vec<Frame> {
        match event {
            Event::Delta { text, .. } => {
                let parts = self.parser.as_mut().map(|parser| parser.push(&text)).unwrap_or_default();
                parts.into_iter().flat_map(|part| self.part(part)).collect()
            }
            Event::Finished { finish, stop, .. } => {
                let parts = self.parser.take().map(Parser::finish).unwrap_or_default();
                let frames = parts.into_iter().flat_map(|part| self.part(part)).collect();
                self.end = Some((stop_reason(finish, stop.as_deref(), self.calls), stop));
                frames
            }
            Event::Done(summary) => {
                let mut frames = self.close();
                let (reason, stop) = self.end.take().unwrap_or(("end_turn", None));
                frames.push(Frame::Named(
                    "message_delta",
                    json!({
                        "type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": stop},
                        "usage": usage(&summary),
                    }),
                ));
                frames
            }
            Event::Prompt(_) | Event::Failed(_) => Vec::new(),
        }
    }

    fn end(&mut self) -> Vec<Frame> {
        vec![Frame::Named("message_stop", json!({"type": "message_stop"}))]
    }

    fn fail(&mut self, error: &ApiError) -> Vec<Frame> {
        vec![Frame::Named("error", error.body(Dialect::Anthropic))]
    }
}
