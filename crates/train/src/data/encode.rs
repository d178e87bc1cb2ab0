//! Examples to token ids, with a mark on those that are to be learned.

use std::ops::Range;

use ounce_model::chat::{ChatTemplate, Message, RenderOptions};
use ounce_model::tokenizer::Tokenizer;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::form::Example;
use crate::{Error, Result};

/// A text is tokenized in pieces of about so many bytes that end where a line does.
const PIECE: usize = 1 << 17;

/// How examples are cut and ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The most ids of an example with answers; a longer one is cut at its end. Text is not cut here.
    pub max_length: usize,
    /// Whether texts begin and end as the tokenizer has it; off for masked language models, which do that for each piece.
    pub ends: bool,
    /// Whether questions are learned too.
    pub learn_questions: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_length: 2048, ends: true, learn_questions: false }
    }
}

/// The ids of one example.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Whether each is to be learned; empty if all are.
    pub counts: Vec<bool>,
    /// Whether it was cut.
    pub truncated: bool,
}

impl Sequence {
    /// Whether there is anything to predict: a second token, and one that counts behind the first.
    pub fn is_usable(&self) -> bool {
        self.ids.len() > 1 && (self.counts.is_empty() || self.counts[1..].contains(&true))
    }
}

/// Turns examples into ids.
#[derive(Debug, Clone)]
pub struct Encoder {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    limits: Limits,
    begin: Option<u32>,
    end: Option<u32>,
}

/// A text with the parts of it that are answers.
#[derive(Default)]
struct Script {
    text: String,
    answers: Vec<Range<usize>>,
}

impl Script {
    fn given(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn learned(&mut self, text: &str) {
        let start = self.text.len();
        self.text.push_str(text);
        self.answers.push(start..self.text.len());
    }
}

impl Encoder {
    /// An encoder. With a template, instructions and conversations are written as it says, else in the form that Alpaca
    /// has made usual.
    ///
    /// # Errors
    /// If the limits make no sense.
    pub fn new(tokenizer: Tokenizer, template: Option<ChatTemplate>, limits: Limits) -> Result<Encoder> {
        if limits.max_length < 2 {
            return Err(Error::Settings("an example needs a length of 2 tokens at least".into()));
        }
        let begin = tokenizer.special().bos.filter(|_| limits.ends && tokenizer.adds_bos());
        let end = tokenizer.special().eos.first().copied().filter(|_| limits.ends);
        Ok(Encoder { tokenizer, template, limits, begin, end })
    }

    /// The tokenizer in use.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// How examples are cut and ended.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The template in use.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// The ids of an example: one sequence, or two for a choice.
    ///
    /// # Errors
    /// If the tokenizer or the template fails.
    pub fn encode(&self, example: &Example) -> Result<Vec<Sequence>> {
        match example {
            Example::Text(text) => Ok(vec![self.text(text)?]),
            Example::Preference(pair) => {
                let [chosen, rejected] = pair.as_ref();
                Ok(vec![self.answer(chosen)?, self.answer(rejected)?])
            }
            single => Ok(vec![self.answer(single)?]),
        }
    }

    fn text(&self, text: &str) -> Result<Sequence> {
        let pieces: Vec<&str> = pieces(text, PIECE).collect();
        // Texts are encoded side by side already; only a large one is worth cutting up.
        let encoded = pieces.par_iter().map(|piece| self.tokenizer.encode(piece, false));
        let encoded: Vec<Vec<u32>> = encoded.collect::<Result<_, _>>()?;
        let ids = self.begin.into_iter().chain(encoded.into_iter().flatten()).chain(self.end).collect();
        Ok(Sequence { ids, ..Sequence::default() })
    }

    fn answer(&self, example: &Example) -> Result<Sequence> {
        let (script, from_template) = match (example, &self.template) {
            (Example::Alpaca { instruction, input, output }, Some(template)) => {
                let gap = if input.is_empty() { "" } else { "\n\n" };
                let question = Message::new("user", format!("{instruction}{gap}{input}"));
                (conversation(template, &[question, Message::new("assistant", output)], 0)?, true)
            }
            (Example::Alpaca { instruction, input, output }, None) => {
                (alpaca(instruction, input, output), false)
            }
            (Example::Chat { messages, first }, Some(template)) => {
                (conversation(template, messages, *first)?, true)
            }
            (Example::Chat { messages, first }, None) => (self.plain_conversation(messages, *first), false),
            (Example::Completion { prompt, answer }, _) => {
                let mut script = Script::default();
                script.given(prompt);
                script.learned(answer);
                (script, false)
            }
            (Example::Text(_) | Example::Preference(_), _) => {
                return Err(Error::Settings(
                    "a text or a choice within a choice has no single answer".into(),
                ));
            }
        };
        let encoded = self.tokenizer.encode_with_offsets(&script.text)?;
        // A token that holds any of an answer is learned, even where it begins with the space before it.
        let holds = |span: &Range<usize>| {
            script.answers.iter().any(|answer| span.end > answer.start && span.start < answer.end)
        };
        let (mut ids, mut counts): (Vec<u32>, Vec<bool>) =
            encoded.into_iter().map(|(id, span)| (id, holds(&span))).unzip();
        if !from_template {
            if let Some(begin) = self.begin {
                ids.insert(0, begin);
                counts.insert(0, false);
            }
            // The end is what teaches a model to stop.
            if let Some(end) = self.end.filter(|end| ids.last() != Some(end)) {
                ids.push(end);
                counts.push(true);
            }
        }
        if self.limits.learn_questions {
            counts.fill(true);
        }
        let truncated = ids.len() > self.limits.max_length;
        ids.truncate(self.limits.max_length);
        counts.truncate(self.limits.max_length);
        Ok(Sequence { ids, counts, truncated })
    }

    /// A conversation for a model without a template: the form of Alpaca, turn by turn.
    fn plain_conversation(&self, messages: &[Message], first: usize) -> Script {
        let end = self.end.and_then(|id| self.tokenizer.piece(id)).unwrap_or_default();
        let mut script = Script::default();
        for (i, message) in messages.iter().enumerate() {
            let text = message.text();
            match message.role.as_str() {
                "assistant" => {
                    script.given("### Response:\n");
                    let text = format!("{text}{end}");
                    if i >= first {
                        script.learned(&text)
                    } else {
                        script.given(&text)
                    }
                    if i + 1 < messages.len() {
                        script.given("\n\n");
                    }
                }
                "user" => script.given(&format!("### Instruction:\n{text}\n\n")),
                _ => script.given(&format!("{text}\n\n")),
            }
        }
        script
    }
}

/// Renders a conversation as a whole, and the beginnings of it to see where answers begin and end.
fn conversation(template: &ChatTemplate, messages: &[Message], first: usize) -> Result<Script> {
    // Some templates print the date; the data must not change from day to day.
    let options = |prompt| RenderOptions {
        add_generation_prompt: prompt,
        now_unix_seconds: Some(1_735_689_600),
        ..RenderOptions::default()
    };
    let whole = template.render(messages, &options(false))?;
    let mut answers = Vec::new();
    for i in (first..messages.len()).filter(|&i| messages[i].role == "assistant") {
        let last = i + 1 == messages.len();
        let until = if last { whole.clone() } else { template.render(&messages[..=i], &options(false))? };
        let question =
            if i == 0 { String::new() } else { template.render(&messages[..i], &options(true))? };
        let question = match until.strip_prefix(&question) {
            Some(_) => question,
            // Templates that invite answers with more than a message begins with, such as an open tag to think in.
            None if i > 0 => template.render(&messages[..i], &options(false))?,
            None => question,
        };
        if !until.starts_with(&question) || !whole.starts_with(&until) {
            return Err(Error::Settings(
                "the chat template writes earlier messages differently once others follow, so answers can't be told \
                 apart; train on conversations of one question each, or learn questions too"
                    .into(),
            ));
        }
        answers.push(question.len()..until.len());
    }
    Ok(Script { text: whole, answers })
}

fn alpaca(instruction: &str, input: &str, output: &str) -> Script {
    let mut script = Script::default();
    if input.is_empty() {
        script.given(
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n",
        );
        script.given(&format!("### Instruction:\n{instruction}\n\n### Response:\n"));
    } else {
        script.given(
            "Below is an instruction that describes a task, paired with an input that provides further context. Write a \
             response that appropriately completes the request.\n\n",
        );
        script.given(&format!("### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"));
    }
    script.learned(output);
    script
}

/// The text in pieces that end with the first end of a line after `least` bytes, where no white space follows: there
/// every usual tokenizer splits anyway. One that puts a space in front of a text puts one in front of each piece.
pub(crate) fn pieces(text: &str, least: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let bytes = rest.as_bytes();
        let cut = (least..bytes.len()).find(|&at| {
            bytes[at - 1] == b'\n' && !bytes[at].is_ascii_whitespace() && rest.is_char_boundary(at)
        });
        let (piece, after) = rest.split_at(cut.unwrap_or(rest.len()));
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests;
