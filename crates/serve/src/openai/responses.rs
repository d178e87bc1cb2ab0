//! `/v1/responses`, without memory: nothing is stored, so an earlier response can't be referred to.

use std::sync::Arc;

use ounce_engine::generate::Finish;
use ounce_model::chat::{Content, Message};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Head, new_id};
use crate::answer::collect;
use crate::error::{ApiError, ApiResult};
use crate::fields::Fields;
use crate::grammar::Shape;
use crate::model::Served;
use crate::openai::chat::{Conversation, Tools};
use crate::options::{Asker, Options};
use crate::output::{Parser, Part};
use crate::scheduler::{Event, Summary};
use crate::streaming::{Frame, Translate, Written};

/// A request.
#[derive(Debug)]
pub struct Request {
    conversation: Conversation,
    head: Head,
    /// Whether the answer is sent as it comes.
    pub stream: bool,
    /// What the answer repeats of the request.
    echo: Value,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn read(body: &Value, model: Arc<Served>, asker: &Asker) -> ApiResult<Request> {
        let fields = Fields::of(body)?;
        if fields.text("previous_response_id")?.is_some() {
            let what = "previous_response_id: nothing is stored here; send the whole conversation as input";
            return Err(ApiError::field("previous_response_id", what));
        }
        if fields.flag("background")?.unwrap_or(false) {
            return Err(ApiError::field("background", "background is not supported"));
        }
        let mut options = Options::read(&fields, &model)?;
        options.choices = 1;
        options.max_tokens = fields.count("max_output_tokens")?;
        if let Some(text) = fields.inner("text", "text.")?
            && let Some(format) = text.inner("format", "text.format.")?
        {
            options.shape = match format.required_text("type")? {
                "text" => None,
                "json_object" => Some((Shape::JsonObject, "text.format")),
                "json_schema" => {
                    let schema = format.value("schema").ok_or_else(|| format.missing("schema"))?;
                    Some((Shape::Schema(schema.clone()), "text.format"))
                }
                other => {
                    let what =
                        format!("text.format.type is text, json_object or json_schema, found {other:?}");
                    return Err(ApiError::field("text.format.type", what));
                }
            };
        }
        let mut messages = Vec::new();
        if let Some(text) = fields.text("instructions")? {
            messages.push(Message::new("system", text));
        }
        match fields.value("input") {
            Some(Value::String(text)) => messages.push(Message::new("user", text.clone())),
            Some(Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    let message = read_item(item).map_err(|what| {
                        ApiError::field(format!("input[{index}]"), format!("input[{index}]: {what}"))
                    })?;
                    join(&mut messages, message);
                }
            }
            Some(_) => return Err(ApiError::field("input", "input should be a text or a list of items")),
            None => return Err(fields.missing("input")),
        }
        let head = Head::new("resp_", fields.text("model")?.unwrap_or(&model.id), &model.fingerprint);
        let echo = json!({
            "instructions": fields.value("instructions"), "max_output_tokens": options.max_tokens,
            "metadata": fields.value("metadata").cloned().unwrap_or_else(|| json!({})),
            "parallel_tool_calls": fields.flag("parallel_tool_calls")?.unwrap_or(true),
            "temperature": options.sampling.temperature, "top_p": options.sampling.top_p,
            "tool_choice": fields.value("tool_choice").cloned().unwrap_or_else(|| json!("auto")),
            "tools": fields.value("tools").cloned().unwrap_or_else(|| json!([])),
            "text": fields.value("text").cloned().unwrap_or_else(|| json!({"format": {"type": "text"}})),
            "previous_response_id": null, "truncation": "disabled", "store": false,
        });
        let tools = tools(&fields)?;
        let mut kwargs = Map::new();
        if let Some(reasoning) = fields.inner("reasoning", "reasoning.")?
            && let Some(effort) = reasoning.text("effort")?
        {
            kwargs.insert("reasoning_effort".to_string(), json!(effort));
            if effort == "none" {
                kwargs.insert("enable_thinking".to_string(), json!(false));
            }
        }
        let stream = fields.flag("stream")?.unwrap_or(false);
        let conversation = Conversation::new(model, messages, options, &tools, kwargs, asker)?;
        Ok(Request { conversation, head, stream, echo })
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
        let (mut jobs, mut stream) = self.stream();
        let Some(events) = jobs.pop() else { return Err(ApiError::internal("there is no job")) };
        let answers = collect(1, events).await?;
        let choice = answers.choices.into_iter().next().unwrap_or_default();
        if let Some(mut parser) = stream.parser.take() {
            let mut parts = parser.push(&choice.text);
            parts.extend(parser.finish());
            parts.into_iter().for_each(|part| drop(stream.part(part)));
        }
        drop(stream.close());
        stream.finish = choice.finish.unwrap_or(Finish::Stop);
        Ok(stream.response(Some(&answers.summary)))
    }

    fn stream(mut self) -> (Vec<UnboundedReceiver<Event>>, Stream) {
        let events = self.conversation.take_events();
        let stream = Stream {
            parser: Some(self.conversation.parser()),
            head: self.head,
            echo: self.echo,
            output: Vec::new(),
            open: None,
            sequence: 0,
            finish: Finish::Stop,
            last: None,
        };
        (vec![events], stream)
    }
}

/// Tools, which this interface writes without the inner object.
fn tools(fields: &Fields<'_>) -> ApiResult<Tools> {
    let mut rewritten = Map::new();
    let list = fields.list("tools")?.unwrap_or_default();
    let mut functions = Vec::new();
    for tool in list {
        match tool.get("type").and_then(Value::as_str) {
            Some("function") if tool.get("function").is_none() => {
                functions.push(json!({"type": "function", "function": {
                    "name": tool.get("name"), "description": tool.get("description"),
                    "parameters": tool.get("parameters"),
                }}));
            }
            Some("function") => functions.push(tool.clone()),
            // Tools that the service itself runs do not exist here; a model is simply not told of them.
            _ => {}
        }
    }
    rewritten.insert("tools".to_string(), Value::Array(functions));
    for name in ["tool_choice", "parallel_tool_calls"] {
        if let Some(value) = fields.value(name) {
            rewritten.insert(name.to_string(), value.clone());
        }
    }
    Tools::read(&Fields::of(&Value::Object(rewritten))?)
}

/// An item of the input as a message.
fn read_item(item: &Value) -> Result<Message, String> {
    let text = |key: &str| item.get(key).and_then(Value::as_str).map(String::from);
    match item.get("type").and_then(Value::as_str).unwrap_or("message") {
        "message" => {
            let role = text("role").ok_or("role is missing")?;
            let role = if role == "developer" { "system".to_string() } else { role };
            let content = match item.get("content") {
                Some(Value::String(content)) => content.clone(),
                Some(Value::Array(parts)) => parts
                    .iter()
                    .map(|part| match part.get("type").and_then(Value::as_str) {
                        Some("input_text" | "output_text" | "text") => {
                            Ok(part.get("text").and_then(Value::as_str).unwrap_or_default())
                        }
                        other => Err(format!("a part of type {other:?} can't be given to this model")),
                    })
                    .collect::<Result<String, String>>()?,
                _ => return Err("content should be a text or a list of parts".to_string()),
            };
            Ok(Message::new(role, content))
        }
        "function_call" => Ok(Message {
            content: Some(Content::Text(String::new())),
            tool_calls: Some(vec![json!({
                "id": text("call_id"), "type": "function",
                "function": {"name": text("name").ok_or("name is missing")?, "arguments": text("arguments")},
            })]),
            ..Message::new("assistant", "")
        }),
        "function_call_output" => {
            let output = match item.get("output") {
                Some(Value::String(output)) => output.clone(),
                Some(output) => output.to_string(),
                None => return Err("output is missing".to_string()),
            };
            Ok(Message { tool_call_id: text("call_id"), ..Message::new("tool", output) })
        }
        "reasoning" => Ok(Message::new("reasoning", "")),
        other => Err(format!("an item of type {other:?} can't be given to this model")),
    }
}

/// Adds a message; calls that follow a message of the assistant are part of it.
fn join(messages: &mut Vec<Message>, message: Message) {
    if message.role == "reasoning" {
        return;
    }
    match (messages.last_mut(), &message.tool_calls) {
        (Some(last), Some(calls)) if last.role == "assistant" => {
            last.tool_calls.get_or_insert_default().extend(calls.clone());
        }
        _ => messages.push(message),
    }
}

/// Writes a response while it comes.
#[derive(Debug)]
pub struct Stream {
    parser: Option<Parser>,
    head: Head,
    echo: Value,
    output: Vec<Value>,
    /// The item that is being written: its kind and text so far.
    open: Option<(&'static str, String)>,
    sequence: u64,
    finish: Finish,
    last: Option<Value>,
}

impl Stream {
    fn frame(&mut self, kind: &'static str, mut event: Value) -> Frame {
        event["type"] = json!(kind);
        event["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        Frame::Named(kind, event)
    }

    fn response(&self, end: Option<&Summary>) -> Value {
        let status = match (end, self.finish) {
            (None, _) => "in_progress",
            (Some(_), Finish::Length) => "incomplete",
            (Some(_), Finish::Stop) => "completed",
        };
        let mut response = json!({
            "id": self.head.id, "object": "response", "created_at": self.head.created, "status": status,
            "model": self.head.model, "output": self.output, "error": null,
            "incomplete_details": (status == "incomplete").then(|| json!({"reason": "max_output_tokens"})),
            "usage": end.map(|summary| json!({
                "input_tokens": summary.prompt_tokens,
                "input_tokens_details": {"cached_tokens": summary.cached_tokens},
                "output_tokens": summary.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": summary.prompt_tokens + summary.completion_tokens,
            })),
        });
        if let (Some(response), Some(echo)) = (response.as_object_mut(), self.echo.as_object()) {
            response.extend(echo.clone());
        }
        response
    }

    fn start(&mut self, kind: &'static str) -> Vec<Frame> {
        let mut frames = self.close();
        let index = self.output.len();
        let item = match kind {
            "message" => {
                json!({"id": new_id("msg_"), "type": "message", "status": "in_progress", "role": "assistant", "content": []})
            }
            _ => json!({"id": new_id("rs_"), "type": "reasoning", "summary": [], "content": []}),
        };
        let id = item["id"].clone();
        frames.push(self.frame("response.output_item.added", json!({"output_index": index, "item": item})));
        self.output.push(item);
        if kind == "message" {
            let part = json!({"type": "output_text", "text": "", "annotations": []});
            let event = json!({"item_id": id, "output_index": index, "content_index": 0, "part": part});
            frames.push(self.frame("response.content_part.added", event));
        }
        self.open = Some((kind, String::new()));
        frames
    }

    /// Ends the item that is being written.
    fn close(&mut self) -> Vec<Frame> {
        let Some((kind, text)) = self.open.take() else { return Vec::new() };
        let index = self.output.len() - 1;
        let id = self.output[index]["id"].clone();
        let place = json!({"item_id": id, "output_index": index, "content_index": 0});
        let with = |key: &str, value: Value| {
            let mut event = place.clone();
            event[key] = value;
            event
        };
        let mut frames = Vec::new();
        if kind == "message" {
            let part = json!({"type": "output_text", "text": text, "annotations": []});
            frames.push(self.frame("response.output_text.done", with("text", json!(text))));
            frames.push(self.frame("response.content_part.done", with("part", part.clone())));
            self.output[index]["status"] = json!("completed");
            self.output[index]["content"] = json!([part]);
        } else {
            frames.push(self.frame("response.reasoning_text.done", with("text", json!(text))));
            self.output[index]["content"] = json!([{"type": "reasoning_text", "text": text}]);
        }
        let item = self.output[index].clone();
        frames.push(self.frame("response.output_item.done", json!({"output_index": index, "item": item})));
        frames
    }

    fn part(&mut self, part: Part) -> Vec<Frame> {
        let (kind, event, text) = match part {
            Part::Content(text) => ("message", "response.output_text.delta", text),
            Part::Reasoning(text) => ("reasoning", "response.reasoning_text.delta", text),
            Part::Call { name, arguments } => return self.call(&name, &arguments),
        };
        let mut frames = Vec::new();
        if self.open.as_ref().is_none_or(|(open, _)| *open != kind) {
            frames = self.start(kind);
        }
        if let Some((_, so_far)) = &mut self.open {
            so_far.push_str(&text);
        }
        let index = self.output.len() - 1;
        let id = self.output[index]["id"].clone();
        let delta = json!({"item_id": id, "output_index": index, "content_index": 0, "delta": text});
        frames.push(self.frame(event, delta));
        frames
    }

    fn call(&mut self, name: &str, arguments: &str) -> Vec<Frame> {
        let mut frames = self.close();
        let index = self.output.len();
        let id = new_id("fc_");
        let item = |arguments: &str, status: &str| {
            json!({
                "id": id, "type": "function_call", "call_id": new_id("call_"), "name": name,
                "arguments": arguments, "status": status,
            })
        };
        let done = item(arguments, "completed");
        let mut added = done.clone();
        (added["arguments"], added["status"]) = (json!(""), json!("in_progress"));
        frames.push(self.frame("response.output_item.added", json!({"output_index": index, "item": added})));
        let place = json!({"item_id": id, "output_index": index});
        let mut delta = place.clone();
        delta["delta"] = json!(arguments);
        frames.push(self.frame("response.function_call_arguments.delta", delta));
        let mut end = place;
        end["arguments"] = json!(arguments);
        frames.push(self.frame("response.function_call_arguments.done", end));
        frames.push(
            self.frame("response.output_item.done", json!({"output_index": index, "item": done.clone()})),
        );
        self.output.push(done);
        frames
    }
}

impl Translate for Stream {
    fn begin(&mut self) -> Vec<Frame> {
        let response = self.response(None);
        let created = self.frame("response.created", json!({"response": response}));
        vec![created, self.frame("response.in_progress", json!({"response": response}))]
    }

    fn event(&mut self, _: usize, event: Event) -> Vec<Frame> {
        match event {
            Event::Delta { text, .. } => {
                let parts = self.parser.as_mut().map(|parser| parser.push(&text)).unwrap_or_default();
                parts.into_iter().flat_map(|part| self.part(part)).collect()
            }
            Event::Finished { finish, .. } => {
                self.finish = finish;
                let parts = self.parser.take().map(Parser::finish).unwrap_or_default();
                let mut frames: Vec<Frame> = parts.into_iter().flat_map(|part| self.part(part)).collect();
                frames.extend(self.close());
                frames
            }
            Event::Done(summary) => {
                self.last = Some(self.response(Some(&summary)));
                Vec::new()
            }
            Event::Prompt(_) | Event::Failed(_) => Vec::new(),
        }
    }

    fn end(&mut self) -> Vec<Frame> {
        let kind = if self.finish == Finish::Length { "response.incomplete" } else { "response.completed" };
        let Some(response) = self.last.take() else { return Vec::new() };
        vec![self.frame(kind, json!({"response": response}))]
    }

    fn fail(&mut self, error: &ApiError) -> Vec<Frame> {
        let mut response = self.response(None);
        response["status"] = json!("failed");
        response["error"] = json!({"code": error.kind, "message": error.message});
        vec![self.frame("response.failed", json!({"response": response}))]
    }
}
