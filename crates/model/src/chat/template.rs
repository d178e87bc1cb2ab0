//! Finds, compiles and runs a model's chat template.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::Environment;
use minijinja::value::Serde;
use serde_json::{Map, Value, json};

use super::{Message, environment};
use crate::tokenizer::{load, special};
use crate::{Error, Result};

/// What goes into a template beside the messages.
#[derive(Clone, Debug, Default)]
pub struct RenderOptions {
    /// JSON schemas of the tools the model may call; empty for none.
    pub tools: Vec<Value>,
    /// Texts the model is to answer from, `{"title", "text"}`; empty for none.
    pub documents: Vec<Value>,
    /// Whether the text ends where the assistant's answer begins.
    pub add_generation_prompt: bool,
    /// Whether the text ends inside the last message, for the model to go on with it.
    pub continue_final: bool,
    /// More variables, such as `enable_thinking`.
    pub kwargs: Map<String, Value>,
    /// Which of several templates to use; by default `tool_use` if there are tools, else `default`.
    pub template: Option<String>,
    /// The time templates may print, in seconds since 1970 (UTC); `None` for the clock.
    pub now_unix_seconds: Option<i64>,
}

/// The chat template of a model, compiled.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    /// Name and source of each, as they came.
    sources: Arc<Vec<(String, String)>>,
    tokens: Arc<BTreeMap<String, String>>,
}

/// Marks where the last message ends; as transformers has it, for templates that look at the content.
const END_MARK: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// The names a message's reasoning goes by; templates read the first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

impl ChatTemplate {
    /// Compiles one template. `tokens` are the texts of special tokens by name (`bos_token`, …), as in
    /// [`crate::tokenizer::SpecialIds::names`].
    ///
    /// # Errors
    /// When the source is no template.
    pub fn new(source: impl Into<String>, tokens: BTreeMap<String, String>) -> Result<ChatTemplate> {
        ChatTemplate::named(vec![("default".into(), source.into())], tokens)
    }

    /// Compiles several templates with their names, as GGUF files (`tokenizer.chat_template.NAME`) and some folders
    /// have them; one should be called `default`.
    pub fn named(sources: Vec<(String, String)>, tokens: BTreeMap<String, String>) -> Result<ChatTemplate> {
        let environment = environment::with_templates(&sources)?;
        Ok(ChatTemplate {
            environment: Arc::new(environment),
            sources: Arc::new(sources),
            tokens: Arc::new(tokens),
        })
    }

    /// Reads the template of a Hugging Face folder: `chat_template.jinja` (with `additional_chat_templates/`), else
    /// `chat_template.json`, else the key in `tokenizer_config.json`. `None` if there is none. The texts of special
    /// tokens are those named in `tokenizer_config.json` and `special_tokens_map.json`.
    pub fn from_folder(dir: impl AsRef<Path>) -> Result<Option<ChatTemplate>> {
        let dir = dir.as_ref();
        let mut sources = Vec::new();
        if let Some(source) = read_template(&dir.join("chat_template.jinja"))? {
            sources.push(("default".to_string(), source));
        }
        let folder = dir.join("additional_chat_templates");
        for entry in std::fs::read_dir(&folder).ok().into_iter().flatten() {
            let path = entry.map_err(Error::io(&folder))?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_string();
            if path.extension().is_some_and(|extension| extension == "jinja")
                && let Some(source) = read_template(&path)?
            {
                sources.push((name, source));
            }
        }
        sources.sort();
        for file in ["chat_template.json", "tokenizer_config.json"] {
            if sources.is_empty() {
                let path = dir.join(file);
                let config = load::read_json(&path)?;
                sources = declared(config.get("chat_template").unwrap_or(&Value::Null))
                    .map_err(|what| Error::format(&path, what))?;
            }
        }
        if sources.is_empty() {
            return Ok(None);
        }
        let tokenizer_config = load::read_json(&dir.join("tokenizer_config.json"))?;
        let special_tokens_map = load::read_json(&dir.join("special_tokens_map.json"))?;
        ChatTemplate::named(sources, special::token_names(&[&special_tokens_map, &tokenizer_config]))
            .map(Some)
    }

    /// Names and sources of all templates, for writing them to another file.
    pub fn sources(&self) -> &[(String, String)] {
        &self.sources
    }

    /// The source of the template used without tools.
    pub fn source(&self) -> &str {
        let default = self.sources.iter().find(|(name, _)| name == "default").or(self.sources.first());
        default.map_or("", |(_, source)| source)
    }

    /// The text of a conversation.
    ///
    /// Arguments of tool calls that come as JSON text, as the OpenAI interface sends them, are given to the template as
    /// objects, which is what templates expect.
    ///
    /// # Errors
    /// When the template refuses the messages, fails, or runs for too long.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String> {
        if options.continue_final && options.add_generation_prompt {
            return Err(Error::text(
                "a text can't both continue the last message and begin a new one; choose one",
            ));
        }
        let mut messages = messages.iter().map(as_json).collect::<Result<Vec<Value>>>()?;
        let continued = if options.continue_final { Some(mark_end(&mut messages)?) } else { None };
        let name = self.choose(options)?;
        let list = |items: &[Value]| if items.is_empty() { Value::Null } else { Value::from(items) };
        let mut context: Map<String, Value> =
            self.tokens.iter().map(|(name, text)| (name.clone(), json!(text))).collect();
        context.insert("messages".into(), Value::Array(messages));
        context.insert("tools".into(), list(&options.tools));
        context.insert("documents".into(), list(&options.documents));
        context.insert("add_generation_prompt".into(), json!(options.add_generation_prompt));
        context.extend(options.kwargs.clone());
        context.insert(environment::NOW.into(), json!(options.now_unix_seconds.unwrap_or_else(clock)));

        let text = self
            .environment
            .get_template(name)
            .and_then(|template| template.render(Serde(context)))
            .map_err(environment::explain)?;
        match continued {
            Some(said) => cut_at_mark(&text, &said),
            None => Ok(text),
        }
    }

    fn choose(&self, options: &RenderOptions) -> Result<&str> {
        let find = |name: &str| {
            self.sources.iter().find(|(known, _)| known == name).map(|(known, _)| known.as_str())
        };
        if let Some(name) = &options.template {
            return find(name).ok_or_else(|| {
                let known: Vec<&str> = self.sources.iter().map(|(known, _)| known.as_str()).collect();
                Error::text(format!("the model has no chat template {name:?}; it has {}", known.join(", ")))
            });
        }
        let with_tools = if options.tools.is_empty() { None } else { find("tool_use") };
        with_tools
            .or_else(|| find("default"))
            .or_else(|| self.sources.first().map(|(name, _)| name.as_str()))
            .ok_or_else(|| {
                Error::text(
                    "the model has no chat template; give one, or use plain completion instead of chat",
                )
            })
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

fn clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

fn read_template(path: &Path) -> Result<Option<String>> {
    let Some(bytes) = load::read(path)? else { return Ok(None) };
    let text = String::from_utf8(bytes);
    text.map(Some).map_err(|_| Error::format(path, "the template is not UTF-8; download the file again"))
}

/// The value of the key `chat_template`: a text, or a list of `{"name", "template"}`.
fn declared(value: &Value) -> Result<Vec<(String, String)>, String> {
    let wrong = || "chat_template is neither a text nor a list of {\"name\", \"template\"}".to_string();
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(source) => Ok(vec![("default".into(), source.clone())]),
        Value::Array(list) => list
            .iter()
            .map(|entry| {
                let text = |key: &str| Some(entry.get(key)?.as_str()?.to_string());
                text("name").zip(text("template")).ok_or_else(wrong)
            })
            .collect(),
        _ => Err(wrong()),
    }
}

/// A message as templates see it: arguments are objects, and reasoning has all its names.
fn as_json(message: &Message) -> Result<Value> {
    let mut value = serde_json::to_value(message)
        .map_err(|e| Error::text(format!("a message can't be given to the chat template ({e})")))?;
    for call in value.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
        let holder = if call.get("function").is_some() { call.get_mut("function") } else { Some(call) };
        if let Some(arguments) = holder.and_then(|holder| holder.get_mut("arguments"))
            && let Some(Ok(parsed @ Value::Object(_))) = arguments.as_str().map(serde_json::from_str)
        {
            *arguments = parsed;
        }
    }
    if let Some(fields) = value.as_object_mut()
        && let Some(reasoning) =
            REASONING.iter().find_map(|key| fields.get(*key).filter(|v| !v.is_null()).cloned())
    {
        fields.entry("thinking").or_insert_with(|| reasoning.clone());
        fields.insert("reasoning_content".into(), reasoning);
    }
    Ok(value)
}

/// Puts the mark at the end of the last message's text and gives that text.
fn mark_end(messages: &mut [Value]) -> Result<String> {
    let nothing = || Error::text("there is no text in the last message to continue");
    let content = messages.last_mut().and_then(|message| message.get_mut("content")).ok_or_else(nothing)?;
    let text = match content {
        Value::Array(parts) => {
            parts.iter_mut().rev().find_map(|part| part.get_mut("text")).ok_or_else(nothing)?
        }
        single => single,
    };
    let said = text.as_str().ok_or_else(nothing)?.to_string();
    *text = json!(format!("{said}{END_MARK}"));
    Ok(said)
}

fn cut_at_mark(text: &str, said: &str) -> Result<String> {
    let at = text.rfind(END_MARK.trim()).filter(|_| text.contains(said.trim())).ok_or_else(|| {
        Error::text("the chat template changes or drops the last message, so it can't be continued")
    })?;
    // A template that trims messages took the mark's own space; the spaces before it would have gone as well.
    let before = &text[..at];
    Ok(if text[at..].starts_with(END_MARK) { before } else { before.trim_end() }.to_string())
}
