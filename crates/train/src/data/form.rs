//! What the columns of a record mean: text to go on with, questions with answers, conversations, choices.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use ounce_model::chat::Message;

use super::readers::{Content, Place, Record};
use crate::{Error, Result};

/// Which columns a record's parts are in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "form")]
pub enum Form {
    /// Text, all of which is learned.
    Text {
        /// The column.
        column: String,
    },
    /// `instruction`, `input` (may be missing or empty) and `output`, of which the last is learned.
    Alpaca,
    /// A list of messages, of which the assistant's are learned.
    Chat {
        /// The column.
        column: String,
    },
    /// A text and how it goes on, which is learned.
    Completion {
        /// The column of the text.
        prompt: String,
        /// The column of what is learned.
        answer: String,
    },
    /// Two answers of which the first is better: `chosen` and `rejected`, texts or lists of messages, with the question
    /// in `prompt` or in front of both.
    Preference,
}

/// A record whose parts have a meaning.
#[derive(Debug, Clone, PartialEq)]
pub enum Example {
    /// Text.
    Text(String),
    /// An instruction with its answer.
    Alpaca {
        /// What is to be done.
        instruction: String,
        /// With what; may be empty.
        input: String,
        /// The answer.
        output: String,
    },
    /// A conversation; the assistant's messages from `first` on are learned.
    Chat {
        /// All messages.
        messages: Vec<Message>,
        /// The first message whose answer counts.
        first: usize,
    },
    /// A text and how it goes on.
    Completion {
        /// Given.
        prompt: String,
        /// Learned.
        answer: String,
    },
    /// The better answer and the worse one.
    Preference(Box<[Example; 2]>),
}

impl Example {
    /// What is asked: the instruction with its input, what the user said in a conversation, the text to go on with. Empty for
    /// plain text; the better answer's for a choice.
    pub fn question(&self) -> String {
        match self {
            Example::Text(_) => String::new(),
            Example::Alpaca { instruction, input, .. } if input.is_empty() => instruction.clone(),
            Example::Alpaca { instruction, input, .. } => format!("{instruction}\n\n{input}"),
            Example::Chat { messages, .. } => {
                let asked = messages.iter().filter(|message| message.role == "user");
                asked.map(Message::text).collect::<Vec<_>>().join("\n\n")
            }
            Example::Completion { prompt, .. } => prompt.clone(),
            Example::Preference(pair) => pair[0].question(),
        }
    }
}

/// Names that a column with text has.
const TEXT: [&str; 4] = ["text", "content", "story", "document"];

/// Names that a column with messages has.
const CHAT: [&str; 2] = ["messages", "conversations"];

/// Names that a question and its answer have.
const PAIRS: [(&str, &str); 4] =
    [("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("instruction", "response")];

impl Form {
    /// The form that a record's columns speak for.
    ///
    /// # Errors
    /// If they are none of the usual ones.
    pub fn detect(record: &Record) -> Result<Form> {
        let fields = match &record.content {
            Content::Text(_) => return Ok(Form::Text { column: TEXT[0].into() }),
            Content::Fields(fields) => fields,
        };
        let has = |name: &str| fields.contains_key(name);
        if has("chosen") && has("rejected") {
            return Ok(Form::Preference);
        }
        if has("instruction") && has("output") {
            return Ok(Form::Alpaca);
        }
        if let Some(column) = CHAT.iter().find(|name| fields.get(**name).is_some_and(is_list)) {
            return Ok(Form::Chat { column: column.to_string() });
        }
        if let Some((prompt, answer)) = PAIRS.iter().find(|(prompt, answer)| has(prompt) && has(answer)) {
            return Ok(Form::Completion { prompt: prompt.to_string(), answer: answer.to_string() });
        }
        if let Some(column) = TEXT.iter().find(|name| has(name)) {
            return Ok(Form::Text { column: column.to_string() });
        }
        if fields.len() == 1 {
            return Ok(Form::Text { column: fields.keys().cloned().collect() });
        }
        Err(Error::data(
            &record.place,
            format!("the columns {} are none of the usual ones; say which holds the text", names(fields)),
        ))
    }

    /// Whether only answers are learned.
    pub fn has_answers(&self) -> bool {
        !matches!(self, Form::Text { .. })
    }

    /// The parts of a record.
    ///
    /// # Errors
    /// If a column is missing or holds something else.
    pub fn example(&self, record: Record) -> Result<Example> {
        let Record { place, content } = record;
        let fields = match (content, self) {
            (Content::Text(text), Form::Text { .. }) => return Ok(Example::Text(text)),
            (Content::Text(_), _) => {
                return Err(Error::data(
                    &place,
                    "plain text has no columns with questions and answers; use JSON or a table",
                ));
            }
            (Content::Fields(fields), _) => Columns { place, fields },
        };
        match self {
            Form::Text { column } => fields.text(column).map(Example::Text),
            Form::Alpaca => Ok(Example::Alpaca {
                instruction: fields.text("instruction")?,
                input: if fields.fields.contains_key("input") {
                    fields.text("input")?
                } else {
                    String::new()
                },
                output: fields.text("output")?,
            }),
            Form::Chat { column } => Ok(Example::Chat { messages: fields.messages(column)?, first: 0 }),
            Form::Completion { prompt, answer } => {
                Ok(Example::Completion { prompt: fields.text(prompt)?, answer: fields.text(answer)? })
            }
            Form::Preference => {
                Ok(Example::Preference(Box::new([fields.choice("chosen")?, fields.choice("rejected")?])))
            }
        }
    }
}

struct Columns {
    place: Place,
    fields: Map<String, Value>,
}

impl Columns {
    fn value(&self, column: &str) -> Result<&Value> {
        self.fields.get(column).ok_or_else(|| {
            let known = self.fields.keys().map(|name| (strsim::jaro_winkler(name, column), name));
            let nearest = known.filter(|(likeness, _)| *likeness > 0.7).max_by(|a, b| a.0.total_cmp(&b.0));
            let question = nearest.map_or(String::new(), |(_, name)| format!("; did you mean {name:?}?"));
            let known = names(&self.fields);
            Error::data(&self.place, format!("there is no column {column:?} among {known}{question}"))
        })
    }

    /// The text of a column; a missing value is an empty text.
    fn text(&self, column: &str) -> Result<String> {
        match self.value(column)? {
            Value::String(text) => Ok(text.clone()),
            Value::Null => Ok(String::new()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(value) => Ok(value.to_string()),
            other => {
                Err(Error::data(&self.place, format!("column {column:?} is {}, not a text", kind(other))))
            }
        }
    }

    fn messages(&self, column: &str) -> Result<Vec<Message>> {
        let Value::Array(list) = self.value(column)? else {
            return Err(Error::data(&self.place, format!("column {column:?} is no list of messages")));
        };
        if list.is_empty() {
            return Err(Error::data(&self.place, format!("column {column:?} is an empty list of messages")));
        }
        list.iter().map(|value| message(value).map_err(|what| Error::data(&self.place, what))).collect()
    }

    /// One of two answers, with the question in front.
    fn choice(&self, column: &str) -> Result<Example> {
        let prompt = self.fields.get("prompt");
        if !is_list(self.value(column)?) {
            let prompt = if prompt.is_some() { self.text("prompt")? } else { String::new() };
            return Ok(Example::Completion { prompt, answer: self.text(column)? });
        }
        let answer = self.messages(column)?;
        let mut messages = match prompt {
            Some(list) if is_list(list) => self.messages("prompt")?,
            // Some sets repeat the question as the first of the messages.
            Some(Value::String(text)) if answer.len() == 1 => vec![Message::new("user", text.as_str())],
            _ => Vec::new(),
        };
        messages.extend(answer);
        Ok(Example::Chat { first: messages.len() - 1, messages })
    }
}

/// A message as `{"role", "content"}` or, as ShareGPT has it, `{"from", "value"}`.
fn message(value: &Value) -> Result<Message, String> {
    if let (Some(from), Some(said)) =
        (value.get("from").and_then(Value::as_str), value.get("value").and_then(Value::as_str))
    {
        let role = match from {
            "human" => "user",
            "gpt" | "chatgpt" | "bot" => "assistant",
            other => other,
        };
        return Ok(Message::new(role, said));
    }
    serde_json::from_value(value.clone())
        .map_err(|_| "a message has no \"role\" and \"content\" (or \"from\" and \"value\")".to_string())
}

fn is_list(value: &Value) -> bool {
    value.is_array()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
        _ => "a number",
    }
}

fn names(fields: &Map<String, Value>) -> String {
    fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::data::readers::Unit;

    fn record(value: Value) -> Record {
        let place = Place { file: Path::new("a.jsonl").into(), record: 3, unit: Unit::Line };
        let Value::Object(fields) = value else { panic!("an object") };
        Record { place, content: Content::Fields(fields) }
    }

    #[test]
    fn forms_are_recognised_by_their_columns() {
        let form = |value| Form::detect(&record(value));
        assert_eq!(form(json!({"instruction": "a", "input": "", "output": "b"})).unwrap(), Form::Alpaca);
        assert_eq!(form(json!({"chosen": "a", "rejected": "b"})).unwrap(), Form::Preference);
        assert_eq!(
            form(json!({"id": 1, "conversations": []})).unwrap(),
            Form::Chat { column: "conversations".into() }
        );
        assert_eq!(form(json!({"id": 1, "text": "b"})).unwrap(), Form::Text { column: "text".into() });
        assert_eq!(form(json!({"body": "b"})).unwrap(), Form::Text { column: "body".into() });
        let error = form(json!({"a": "b", "c": "d"})).unwrap_err().to_string();
        assert!(error.starts_with("a.jsonl:3: the columns a, c are none"), "{error}");
    }

    #[test]
    fn questions_are_what_is_asked() {
        let question = |value| {
            let record = record(value);
            Form::detect(&record).unwrap().example(record).unwrap().question()
        };
        assert_eq!(question(json!({"instruction": "add", "input": "1 2", "output": "3"})), "add\n\n1 2");
        assert_eq!(question(json!({"prompt": "q", "chosen": "a", "rejected": "b"})), "q");
        let chat = json!({"messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "hi"},
        ]});
        assert_eq!(question(chat), "hello");
    }

    #[test]
    fn a_missing_column_is_named_with_the_nearest() {
        let form = Form::Text { column: "txet".into() };
        let error = form.example(record(json!({"id": 1, "text": "b"}))).unwrap_err().to_string();
        assert_eq!(error, "a.jsonl:3: there is no column \"txet\" among id, text; did you mean \"text\"?");
    }

    #[test]
    fn both_ways_to_write_messages_are_read() {
        let form = Form::Chat { column: "m".into() };
        let plain = json!({"m": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]});
        let share = json!({"m": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]});
        assert_eq!(form.example(record(plain)).unwrap(), form.example(record(share)).unwrap());
        let error = form.example(record(json!({"m": [{"said": "q"}]}))).unwrap_err().to_string();
        assert!(error.contains("no \"role\""), "{error}");
    }

    #[test]
    fn choices_share_their_question() {
        let pair = |value| match Form::Preference.example(record(value)).unwrap() {
            Example::Preference(pair) => *pair,
            other => panic!("{other:?}"),
        };
        let texts = pair(json!({"prompt": "q", "chosen": "a", "rejected": "b"}));
        assert_eq!(texts[1], Example::Completion { prompt: "q".into(), answer: "b".into() });
        let said =
            |text: &str| json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": text}]);
        let whole = pair(json!({"prompt": "q", "chosen": said("a"), "rejected": said("b")}));
        let apart = pair(json!({
            "prompt": [{"role": "user", "content": "q"}],
            "chosen": [{"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "b"}],
        }));
        assert_eq!(whole, apart);
        assert!(matches!(&whole[0], Example::Chat { first: 1, messages } if messages.len() == 2));
    }
}
