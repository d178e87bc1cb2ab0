//! Messages to the text a chat model was trained on.
//!
//! A model brings its own template, written in Jinja for Python. [`ChatTemplate`] runs it as transformers does; a
//! [`Message`] is what it is given. Out comes text that already holds the special tokens: encode it without adding more.
//! A template is code from a stranger: it can reach nothing but its variables, and its steps are counted.

mod environment;
mod python;
mod template;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

pub use environment::python_method;
pub use template::{ChatTemplate, RenderOptions};

/// One message of a conversation, in the form the OpenAI interface and chat templates share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, or another name the template knows.
    pub role: String,
    /// What is said. `None` is a message without the key, which some templates tell from a null.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// The calls an assistant asks for: `{"type": "function", "function": {"name", "arguments"}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<Value>>,
    /// Which call a tool's message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// Who speaks, or which tool answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Everything else, such as `reasoning_content`; templates see these keys too.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// Text.
    Text(String),
    /// Parts: `{"type": "text", "text": "…"}` or other media.
    Parts(Vec<Value>),
    /// JSON's null, as assistants send it beside tool calls.
    Null,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Content>, D::Error> {
    Content::deserialize(deserializer).map(Some)
}

impl Message {
    /// A message of text.
    pub fn new(role: impl Into<String>, text: impl Into<String>) -> Message {
        Message { role: role.into(), content: Some(Content::Text(text.into())), ..Message::default() }
    }

    /// All text of the message; other media are left out.
    pub fn text(&self) -> String {
        match &self.content {
            Some(Content::Text(text)) => text.clone(),
            Some(Content::Parts(parts)) => {
                parts.iter().filter_map(|part| part.get("text")?.as_str()).collect()
            }
            Some(Content::Null) | None => String::new(),
        }
    }

    /// The message with its content as one text, for templates that know no parts.
    ///
    /// # Errors
    /// `Err` gives the message back when a part is something other than text.
    pub fn flattened(self) -> Result<Message, Box<Message>> {
        match &self.content {
            Some(Content::Parts(parts))
                if parts.iter().all(|part| part.get("text").is_some_and(Value::is_string)) =>
            {
                let text = self.text();
                Ok(Message { content: Some(Content::Text(text)), ..self })
            }
            Some(Content::Parts(_)) => Err(Box::new(self)),
            _ => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_keep_what_they_were_given() {
        for message in [
            json!({"role": "user", "content": "hi"}),
            json!({"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]}),
            json!({"role": "assistant", "tool_calls": []}),
            json!({"role": "tool", "content": [{"type": "text", "text": "a"}], "tool_call_id": "1", "thinking": "b"}),
        ] {
            let read: Message = serde_json::from_value(message.clone()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), message);
        }
    }

    #[test]
    fn parts_become_text_only_if_they_are() {
        let text = |part: Value| Message {
            content: Some(Content::Parts(vec![json!({"type": "text", "text": "a"}), part])),
            ..Message::new("user", "")
        };
        let flat = text(json!({"type": "text", "text": "b"})).flattened().unwrap();
        assert_eq!(flat.content, Some(Content::Text("ab".into())));
        assert!(text(json!({"type": "image"})).flattened().is_err());
    }
}
