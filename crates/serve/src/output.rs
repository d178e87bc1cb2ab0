//! What a chat model's text means: reasoning between marks, calls of tools, and the rest, which is the answer. Works on text as
//! it comes; what may become a mark is held back.

use serde_json::{Map, Value, json};

use crate::grammar::concise;

/// A part of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Text for the user.
    Content(String),
    /// What the model thinks before it answers.
    Reasoning(String),
    /// A call, complete.
    Call {
        /// The tool.
        name: String,
        /// Its arguments, an object as JSON text.
        arguments: String,
    },
}

/// How a model writes the calls of tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallStyle {
    /// `<tool_call>{"name", "arguments"}</tool_call>`: Hermes, Qwen, SmolLM and others.
    Tagged,
    /// `[TOOL_CALLS][{"name", "arguments"}, …]`: Mistral.
    Mistral,
    /// The whole answer is `{"name", "parameters"}`: Llama 3, and models without a style of their own.
    Bare,
}

const TAG: (&str, &str) = ("<tool_call>", "</tool_call>");
const MISTRAL: &str = "[TOOL_CALLS]";
const THINK: (&str, &str) = ("<think>", "</think>");

impl CallStyle {
    /// The style that a template asks for.
    pub fn of(template: &str) -> CallStyle {
        if template.contains(TAG.0) {
            CallStyle::Tagged
        } else if template.contains(MISTRAL) {
            CallStyle::Mistral
        } else {
            CallStyle::Bare
        }
    }

    /// A grammar, in llguidance's Lark, for one call or more of these tools, `{"name", "parameters"}` each.
    pub fn grammar(self, tools: &[&Map<String, Value>], several: bool) -> String {
        let key = if self == CallStyle::Bare { "parameters" } else { "arguments" };
        let call = |tool: &&Map<String, Value>| {
            let parameters = tool.get("parameters").cloned().unwrap_or_else(|| json!({"type": "object"}));
            json!({
                "type": "object", "additionalProperties": false, "required": ["name", key],
                "properties": {"name": {"const": tool.get("name")}, key: parameters},
            })
        };
        let calls: Vec<Value> = tools.iter().map(call).collect();
        let any = if calls.len() == 1 { calls[0].clone() } else { json!({"anyOf": calls}) };
        let schema = concise(any.clone());
        match self {
            CallStyle::Tagged => {
                // Without an end, a model that falls for calls goes on until its tokens are used up.
                let more = if several { "(\"\\n\" call){0,15}" } else { "" };
                format!(
                    "start: call {more}\ncall: \"{}\\n\" object \"\\n{}\"\nobject: %json {schema}\n",
                    TAG.0, TAG.1
                )
            }
            CallStyle::Mistral => {
                let most = if several { json!(16) } else { json!(1) };
                let list = concise(json!({"type": "array", "items": any, "minItems": 1, "maxItems": most}));
                format!("start: \"{MISTRAL}\" list\nlist: %json {list}\n")
            }
            CallStyle::Bare => format!("start: object\nobject: %json {schema}\n"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Content,
    Thinking,
    Call,
    /// The rest is calls in JSON.
    Calls,
}

/// Takes an answer's text apart.
#[derive(Debug)]
pub struct Parser {
    place: Place,
    held: String,
    style: Option<CallStyle>,
    /// Whether a call has just ended: lines behind it are no answer.
    after_call: bool,
    /// Whether reasoning has just ended: blanks behind it are no answer.
    after_thought: bool,
}

impl Parser {
    /// A parser; `style` if the model was given tools, `thinking` if the prompt ends within the model's reasoning.
    pub fn new(style: Option<CallStyle>, thinking: bool) -> Parser {
        Parser {
            place: if thinking { Place::Thinking } else { Place::Start },
            held: String::new(),
            style,
            after_call: false,
            after_thought: false,
        }
    }

    /// Takes more text.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        self.held.push_str(text);
        let mut parts = Vec::new();
        while self.advance(&mut parts) {}
        parts.retain(|part| !matches!(part, Part::Content(text) | Part::Reasoning(text) if text.is_empty()));
        parts
    }

    /// Takes what was held back.
    pub fn finish(mut self) -> Vec<Part> {
        let rest = std::mem::take(&mut self.held);
        let calls = match self.place {
            Place::Call | Place::Calls => read_calls(&rest),
            // Nothing but a call, without marks.
            Place::Start if self.style.is_some() => read_calls(&rest),
            _ => None,
        };
        match calls {
            Some(calls) => calls,
            None if rest.is_empty() => Vec::new(),
            None if rest.trim().is_empty() && (self.place != Place::Content || self.after_call) => Vec::new(),
            None if self.place == Place::Thinking => vec![Part::Reasoning(rest)],
            None if self.place == Place::Call => vec![Part::Content(format!("{}{rest}", TAG.0))],
            None => vec![Part::Content(rest)],
        }
    }

    /// One step; whether another may follow.
    fn advance(&mut self, parts: &mut Vec<Part>) -> bool {
        match self.place {
            Place::Start => {
                let start = self.held.trim_start();
                if start.is_empty() || THINK.0.starts_with(start) {
                    return false;
                }
                if let Some(rest) = start.strip_prefix(THINK.0) {
                    self.held = rest.trim_start_matches('\n').to_string();
                    self.place = Place::Thinking;
                    return true;
                }
                // A bare call can only be told from text when it is complete.
                if self.style == Some(CallStyle::Bare) && start.starts_with('{') {
                    return false;
                }
                if self.after_thought {
                    self.held = start.to_string();
                }
                self.place = Place::Content;
                true
            }
            Place::Thinking => match self.cut(THINK.1) {
                (thought, true) => {
                    parts.push(Part::Reasoning(thought.trim_end().to_string()));
                    self.after_thought = true;
                    self.place = Place::Start;
                    true
                }
                (thought, false) => {
                    parts.push(Part::Reasoning(thought));
                    false
                }
            },
            Place::Content => {
                let mark = match self.style {
                    Some(CallStyle::Tagged) => TAG.0,
                    Some(CallStyle::Mistral) => MISTRAL,
                    Some(CallStyle::Bare) | None => {
                        parts.push(Part::Content(std::mem::take(&mut self.held)));
                        return false;
                    }
                };
                let (text, met) = self.cut(mark);
                if text.trim().is_empty() && (met || self.after_call) {
                    if !met {
                        self.held.insert_str(0, &text);
                        return false;
                    }
                } else {
                    self.after_call = false;
                    parts.push(Part::Content(text));
                }
                if met {
                    self.place = if mark == MISTRAL { Place::Calls } else { Place::Call };
                }
                met
            }
            Place::Call => {
                let Some(end) = self.held.find(TAG.1) else { return false };
                let call = self.held[..end].to_string();
                self.held = self.held[end + TAG.1.len()..].to_string();
                match read_calls(&call) {
                    Some(calls) => parts.extend(calls),
                    None => parts.push(Part::Content(format!("{}{call}{}", TAG.0, TAG.1))),
                }
                self.place = Place::Content;
                self.after_call = true;
                true
            }
            Place::Calls => false,
        }
    }

    /// The held text up to a mark, and whether it was met; without one, all that can't become it.
    fn cut(&mut self, mark: &str) -> (String, bool) {
        if let Some(at) = self.held.find(mark) {
            let text = self.held[..at].to_string();
            self.held = self.held[at + mark.len()..].to_string();
            return (text, true);
        }
        let lengths = (1..mark.len()).rev().filter(|&length| mark.is_char_boundary(length));
        let open = lengths.into_iter().find(|&length| self.held.ends_with(&mark[..length])).unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - open);
        (std::mem::replace(&mut self.held, rest), false)
    }
}

/// Calls written as an object or a list of them.
fn read_calls(text: &str) -> Option<Vec<Part>> {
    let text = text.trim().trim_start_matches("<|python_tag|>");
    let calls = match serde_json::from_str(text).ok()? {
        Value::Array(calls) => calls,
        call => vec![call],
    };
    let call = |call: &Value| {
        let call = call.get("function").filter(|it| it.is_object()).unwrap_or(call);
        let name = call.get("name")?.as_str()?.to_string();
        let arguments = call.get("arguments").or_else(|| call.get("parameters"));
        let arguments = match arguments {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => "{}".to_string(),
        };
        Some(Part::Call { name, arguments })
    };
    let calls: Vec<Part> = calls.iter().map(call).collect::<Option<_>>()?;
    (!calls.is_empty()).then_some(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of a text that comes in pieces of `size` characters, neighbours of a kind joined.
    fn parse(style: Option<CallStyle>, thinking: bool, text: &str, size: usize) -> Vec<Part> {
        let mut parser = Parser::new(style, thinking);
        let characters: Vec<char> = text.chars().collect();
        let mut parts = Vec::new();
        for piece in characters.chunks(size) {
            parts.extend(parser.push(&piece.iter().collect::<String>()));
        }
        parts.extend(parser.finish());
        let mut joined: Vec<Part> = Vec::new();
        for part in parts {
            match (joined.last_mut(), part) {
                (Some(Part::Content(text)), Part::Content(more))
                | (Some(Part::Reasoning(text)), Part::Reasoning(more)) => text.push_str(&more),
                (_, part) => joined.push(part),
            }
        }
        joined
    }

    fn call(name: &str, arguments: &str) -> Part {
        Part::Call { name: name.into(), arguments: arguments.into() }
    }

    #[test]
    fn parts_are_the_same_however_the_text_comes() {
        let tagged = "Let me look.\n<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": 1}}\n</tool_call>\n<tool_call>{\"name\": \"b\"}</tool_call>";
        let cases = [
            (None, "plain <b>text</b>", vec![Part::Content("plain <b>text</b>".into())]),
            (
                Some(CallStyle::Tagged),
                tagged,
                vec![Part::Content("Let me look.\n".into()), call("a", "{\"x\":1}"), call("b", "{}")],
            ),
            (
                Some(CallStyle::Mistral),
                "[TOOL_CALLS][{\"name\": \"a\", \"arguments\": {}}]",
                vec![call("a", "{}")],
            ),
            (
                Some(CallStyle::Bare),
                "{\"name\": \"a\", \"parameters\": {\"y\": []}}",
                vec![call("a", "{\"y\":[]}")],
            ),
            (Some(CallStyle::Bare), "{\"no\": \"call\"}", vec![Part::Content("{\"no\": \"call\"}".into())]),
            (
                None,
                "<think>\nHm, 1 < 2.\n</think>\n\nYes.",
                vec![Part::Reasoning("Hm, 1 < 2.".into()), Part::Content("Yes.".into())],
            ),
        ];
        for (style, text, expected) in cases {
            for size in [1, 3, 7, 1000] {
                let found = parse(style, false, text, size);
                let trimmed: Vec<Part> = found
                    .into_iter()
                    .map(|part| match part {
                        Part::Reasoning(text) => Part::Reasoning(text.trim_end().to_string()),
                        part => part,
                    })
                    .collect();
                assert_eq!(trimmed, expected, "{text} by {size}");
            }
        }
        let thought = parse(None, true, "so</think>it is", 2);
        assert_eq!(thought, [Part::Reasoning("so".into()), Part::Content("it is".into())]);
        // An answer that ends in the middle of a call.
        let cut = parse(Some(CallStyle::Tagged), false, "<tool_call>{\"na", 4);
        assert_eq!(cut, [Part::Content("<tool_call>{\"na".into())]);
    }
}
