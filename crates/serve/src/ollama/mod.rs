//! Ollama's `/api/…`: lines of JSON in place of events, streamed unless told otherwise.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ounce_engine::generate::Finish;
use ounce_model::chat::Message;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::answer::{Answers, collect, reason};
use crate::error::{ApiError, ApiResult, Dialect};
use crate::fields::Fields;
use crate::grammar::Shape;
use crate::model::Served;
use crate::openai::chat::{Conversation, Tools, messages};
use crate::options::{Asker, Options};
use crate::output::{Parser, Part};
use crate::registry::Known;
use crate::scheduler::{Event, Job, Summary};
use crate::streaming::{Form, Frame, Translate, Written};

/// A request for text.
#[derive(Debug)]
pub struct Request {
    model: Arc<Served>,
    kind: Kind,
    name: String,
    /// Whether the answer is the message of a chat, not a bare text.
    chat: bool,
    stream: bool,
    started: Instant,
}

#[derive(Debug)]
enum Kind {
    Chat(Box<Conversation>),
    /// A bare text to go on with.
    Text {
        job: Option<Box<Job>>,
        events: UnboundedReceiver<Event>,
    },
}

impl Request {
    /// Reads `/api/chat`.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn chat(body: &Value, model: Arc<Served>, asker: &Asker) -> ApiResult<Request> {
        let fields = Fields::of(body)?;
        let messages = messages(&fields)?;
        let request = Request::read(&fields, model, asker, messages, Tools::read(&fields)?)?;
        Ok(Request { chat: true, ..request })
    }

    /// Reads `/api/generate`.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn generate(body: &Value, model: Arc<Served>, asker: &Asker) -> ApiResult<Request> {
        let fields = Fields::of(body)?;
        let prompt = fields.text("prompt")?.unwrap_or_default();
        if fields.text("suffix")?.is_some_and(|suffix| !suffix.is_empty()) {
            return Err(ApiError::field(
                "suffix",
                "suffix is not supported: the model only goes on behind a text",
            ));
        }
        if fields.list("images")?.is_some_and(|images| !images.is_empty()) {
            return Err(ApiError::field("images", "images can't be given to this model, it takes only text"));
        }
        if model.template.is_some() && !fields.flag("raw")?.unwrap_or(false) {
            let system = fields.text("system")?.map(|text| Message::new("system", text));
            let messages = system.into_iter().chain([Message::new("user", prompt)]).collect();
            return Request::read(&fields, model, asker, messages, Tools::default());
        }
        model.writer()?;
        let options = options(&fields, &model)?;
        let ids = model.encode(prompt, true)?;
        let (job, events) = options.job(&model, ids, asker)?;
        let kind = Kind::Text { job: Some(Box::new(job)), events };
        Request::of(&fields, model, kind)
    }

    fn read(
        fields: &Fields<'_>,
        model: Arc<Served>,
        asker: &Asker,
        messages: Vec<Message>,
        tools: Tools,
    ) -> ApiResult<Request> {
        let mut kwargs = Map::new();
        if let Some(think) = fields.value("think") {
            kwargs.insert("enable_thinking".to_string(), json!(*think != json!(false)));
        }
        let options = options(fields, &model)?;
        let conversation = Conversation::new(model.clone(), messages, options, &tools, kwargs, asker)?;
        Request::of(fields, model, Kind::Chat(Box::new(conversation)))
    }

    fn of(fields: &Fields<'_>, model: Arc<Served>, kind: Kind) -> ApiResult<Request> {
        let name = fields.text("model")?.unwrap_or(&model.id).to_string();
        let stream = fields.flag("stream")?.unwrap_or(true);
        Ok(Request { model, kind, name, chat: false, stream, started: Instant::now() })
    }
}

impl Written for Request {
    type Stream = Stream;
    const FORM: Form = Form::Lines;

    fn is_streamed(&self) -> bool {
        self.stream
    }

    fn submit(&mut self) -> ApiResult<()> {
        match &mut self.kind {
            Kind::Chat(conversation) => conversation.submit(),
            Kind::Text { job, .. } => {
                let scheduler = self.model.writer()?;
                Ok(job.take().into_iter().try_for_each(|job| scheduler.submit(*job))?)
            }
        }
    }

    fn stream(self) -> (Vec<UnboundedReceiver<Event>>, Stream) {
        let (events, parser) = match self.kind {
            Kind::Chat(mut conversation) => (conversation.take_events(), conversation.parser()),
            Kind::Text { events, .. } => (events, Parser::new(None, false)),
        };
        let stream = Stream {
            name: self.name,
            chat: self.chat,
            parser: Some(parser),
            started: self.started,
            finish: Finish::Stop,
            last: None,
        };
        (vec![events], stream)
    }

    async fn answer(self) -> ApiResult<Value> {
        let (mut events, mut stream) = self.stream();
        let Some(events) = events.pop() else { return Err(ApiError::internal("there is no job")) };
        let Answers { choices, summary, .. } = collect(1, events).await?;
        let choice = choices.into_iter().next().unwrap_or_default();
        let mut parts = Vec::new();
        if let Some(mut parser) = stream.parser.take() {
            parts = parser.push(&choice.text);
            parts.extend(parser.finish());
        }
        stream.finish = choice.finish.unwrap_or(Finish::Stop);
        Ok(stream.object(&parts, Some(&summary)))
    }
}

/// `options`, `format` and the rest, by Ollama's names.
fn options(fields: &Fields<'_>, model: &Served) -> ApiResult<Options> {
    let mut options = match fields.object("options")? {
        Some(map) => Options::read(&Fields::of(&Value::Object(renamed(map)))?, model)?,
        None => Options::of(model),
    };
    if let Some(inner) = fields.inner("options", "options.")? {
        // Negative ones mean without a limit.
        options.max_tokens = inner.integer("num_predict")?.and_then(|count| usize::try_from(count).ok());
    }
    // Streamed unless it is said otherwise.
    options.whole = !fields.flag("stream")?.unwrap_or(true);
    match fields.value("format") {
        None => {}
        Some(Value::String(format)) if format.is_empty() => {}
        Some(Value::String(format)) if format == "json" => {
            options.shape = Some((Shape::JsonObject, "format"))
        }
        Some(schema @ Value::Object(_)) => options.shape = Some((Shape::Schema(schema.clone()), "format")),
        Some(other) => {
            return Err(ApiError::field("format", format!("format is \"json\" or a schema, found {other}")));
        }
    }
    Ok(options)
}

fn renamed(map: &Map<String, Value>) -> Map<String, Value> {
    let name = |name: &str| match name {
        "repeat_penalty" => "repetition_penalty".to_string(),
        name => name.to_string(),
    };
    map.iter().map(|(key, value)| (name(key), value.clone())).collect()
}

/// Writes an answer while it comes.
#[derive(Debug)]
pub struct Stream {
    name: String,
    chat: bool,
    parser: Option<Parser>,
    started: Instant,
    finish: Finish,
    last: Option<Value>,
}

impl Stream {
    fn object(&self, parts: &[Part], end: Option<&Summary>) -> Value {
        let (mut content, mut thinking, mut calls) = (String::new(), String::new(), Vec::new());
        for part in parts {
            match part {
                Part::Content(text) => content.push_str(text),
                Part::Reasoning(text) => thinking.push_str(text),
                Part::Call { name, arguments } => {
                    let arguments: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
                    calls.push(json!({"function": {"name": name, "arguments": arguments}}));
                }
            }
        }
        let mut object = json!({"model": self.name, "created_at": now()});
        if self.chat {
            let mut message = json!({"role": "assistant", "content": content});
            if !thinking.is_empty() {
                message["thinking"] = json!(thinking);
            }
            if !calls.is_empty() {
                message["tool_calls"] = json!(calls);
            }
            object["message"] = message;
        } else {
            object["response"] = json!(content);
            if !thinking.is_empty() {
                object["thinking"] = json!(thinking);
            }
        }
        object["done"] = json!(end.is_some());
        if let Some(summary) = end {
            let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            object["done_reason"] = json!(reason(self.finish));
            object["total_duration"] = json!(nanoseconds(self.started.elapsed()));
            object["load_duration"] = json!(nanoseconds(summary.queue_time));
            object["prompt_eval_count"] = json!(summary.prompt_tokens);
            object["prompt_eval_duration"] = json!(nanoseconds(summary.prompt_time));
            object["eval_count"] = json!(summary.completion_tokens);
            object["eval_duration"] = json!(nanoseconds(summary.decode_time));
        }
        object
    }

    fn pieces(&self, parts: Vec<Part>) -> Vec<Frame> {
        parts.into_iter().map(|part| Frame::Data(self.object(&[part], None))).collect()
    }
}

impl Translate for Stream {
    fn event(&mut self, _: usize, event: Event) -> Vec<Frame> {
        match event {
            Event::Delta { text, .. } => {
                let parts = self.parser.as_mut().map(|parser| parser.push(&text)).unwrap_or_default();
                self.pieces(parts)
            }
            Event::Finished { finish, .. } => {
                self.finish = finish;
                let parts = self.parser.take().map(Parser::finish).unwrap_or_default();
                self.pieces(parts)
            }
            Event::Done(summary) => {
                self.last = Some(self.object(&[], Some(&summary)));
                Vec::new()
            }
            Event::Prompt(_) | Event::Failed(_) => Vec::new(),
        }
    }

    fn end(&mut self) -> Vec<Frame> {
        self.last.take().map(Frame::Data).into_iter().collect()
    }

    fn fail(&mut self, error: &ApiError) -> Vec<Frame> {
        vec![Frame::Data(error.body(Dialect::Ollama))]
    }
}

/// `/api/tags`.
pub fn tags(models: &[Known]) -> Value {
    let one = |known: &Known| match known.loaded() {
        Some(model) => entry(&model),
        None => json!({
            "name": known.name(), "model": known.name(), "modified_at": time(0), "size": 0, "digest": "", "details": {},
        }),
    };
    json!({"models": models.iter().map(one).collect::<Vec<_>>()})
}

/// `/api/ps`.
pub fn running<'m>(models: impl Iterator<Item = &'m Served>) -> Value {
    let entry = |model: &Served| {
        let mut entry = entry(model);
        entry["size_vram"] = json!(0);
        entry["context_length"] = json!(model.context);
        entry["expires_at"] = json!("9999-12-31T23:59:59Z");
        entry
    };
    json!({"models": models.map(entry).collect::<Vec<_>>()})
}

fn entry(model: &Served) -> Value {
    json!({
        "name": model.id, "model": model.id, "modified_at": time(model.created), "size": model.weight_bytes,
        "digest": model.fingerprint.trim_start_matches("fp_"), "details": details(model),
    })
}

fn details(model: &Served) -> Value {
    let family = model.engine.spec().family.to_string();
    json!({
        "parent_model": "", "format": model.format, "family": family, "families": [family],
        "parameter_size": size(model.parameters), "quantization_level": model.quantization,
    })
}

/// `/api/show`.
pub fn show(model: &Served) -> Value {
    let spec = model.engine.spec();
    let family = spec.family.to_string();
    let mut capabilities = Vec::new();
    if model.scheduler.is_some() {
        capabilities.push("completion");
    } else {
        capabilities.push("embedding");
    }
    let template = model.template.as_ref().map_or("", |template| template.source());
    if template.contains("tools") {
        capabilities.push("tools");
    }
    if template.contains("<think>") {
        capabilities.push("thinking");
    }
    json!({
        "modelfile": format!("FROM {}\n", model.origin), "parameters": "", "template": template,
        "details": details(model), "capabilities": capabilities, "modified_at": time(model.created),
        "model_info": {
            "general.architecture": family,
            "general.parameter_count": model.parameters,
            format!("{family}.context_length"): model.context,
            format!("{family}.embedding_length"): spec.hidden_size,
            format!("{family}.block_count"): spec.layers.len(),
            format!("{family}.vocab_size"): spec.vocab_size,
        },
    })
}

fn size(parameters: u64) -> String {
    let value = parameters as f64;
    if parameters >= 1_000_000_000 { format!("{:.1}B", value / 1e9) } else { format!("{:.1}M", value / 1e6) }
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let whole = time(since.as_secs());
    format!("{}.{:06}Z", whole.trim_end_matches('Z'), since.subsec_micros())
}

/// Seconds since 1970 as a date and time.
fn time(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years (Hinnant's civil_from_days).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_told_as_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(time(seconds), text);
        }
    }
}
