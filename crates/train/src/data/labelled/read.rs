//! Labelled data from files. Columns have the names that published data sets use.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::questions::Question;
use super::tags::Tagged;
use super::texts::Labelled;
use crate::data::readers::{Content, Place, ReadOptions, Record, Records, expand};
use crate::{Error, Result};

/// Columns of a text, of a second text, and of its label.
const TEXT: [&str; 6] = ["text", "sentence", "content", "review", "sentence1", "premise"];
const PAIR: [&str; 3] = ["text_pair", "sentence2", "hypothesis"];
const LABEL: [&str; 4] = ["label", "labels", "category", "class"];

/// Columns of words and of their tags.
const WORDS: [&str; 2] = ["tokens", "words"];
const TAGS: [&str; 5] = ["tags", "ner_tags", "pos_tags", "labels", "ner"];

fn records(paths: &[PathBuf]) -> Result<Records> {
    Records::open(paths, &ReadOptions::default())
}

fn fields(record: Record) -> Result<(Place, Map<String, Value>)> {
    match record.content {
        Content::Fields(fields) => Ok((record.place, fields)),
        Content::Text(_) => Err(Error::data(
            &record.place,
            "is plain text, which has no labels; give JSONL, CSV, TSV or Parquet with the columns text and label",
        )),
    }
}

/// The first of these columns that there is.
fn column<'f>(fields: &'f Map<String, Value>, names: &[&str]) -> Option<&'f Value> {
    names.iter().find_map(|name| fields.get(*name)).filter(|value| !value.is_null())
}

fn text_of(place: &Place, fields: &Map<String, Value>, names: &[&str]) -> Result<String> {
    let value = column(fields, names).and_then(Value::as_str);
    value.map(str::to_string).ok_or_else(|| {
        let found: Vec<&str> = fields.keys().map(String::as_str).collect();
        Error::data(
            place,
            format!("has no text in a column {}; it has {}", names.join(", "), found.join(", ")),
        )
    })
}

/// Labels are texts, numbers or flags.
fn label_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_string()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Texts with labels.
///
/// # Errors
/// If a file can't be read or a record lacks its text or label.
pub fn texts(paths: &[PathBuf]) -> Result<Vec<Labelled>> {
    let text = |record: Result<Record>| {
        let (place, fields) = fields(record?)?;
        let label = column(&fields, &LABEL).and_then(label_of);
        let label = label.ok_or_else(|| {
            Error::data(&place, format!("has no label, a text or a number in a column {}", LABEL.join(", ")))
        })?;
        let pair = column(&fields, &PAIR).and_then(Value::as_str).map(str::to_string);
        Ok(Labelled { text: text_of(&place, &fields, &TEXT)?, pair, label })
    };
    records(paths)?.map(text).collect()
}

/// Words with tags: records with two lists, or CoNLL files (`.conll`, `.txt`, `.bio`, `.iob`, `.conllu` for its first columns):
/// a word and its tag a line, first and last column, sentences between empty lines.
///
/// # Errors
/// If a file can't be read, or a sentence has not as many tags as words.
pub fn tags(paths: &[PathBuf]) -> Result<Vec<Tagged>> {
    let mut all = Vec::new();
    for path in expand(paths)? {
        let kind = path.extension().and_then(|it| it.to_str()).unwrap_or_default().to_ascii_lowercase();
        if ["conll", "txt", "bio", "iob", "iob2"].contains(&kind.as_str()) {
            conll(&path, &mut all)?;
            continue;
        }
        for record in records(&[path])? {
            let (place, fields) = fields(record?)?;
            let list = |names: &[&str]| {
                let list = column(&fields, names).and_then(Value::as_array);
                let list = list.and_then(|list| list.iter().map(label_of).collect::<Option<Vec<String>>>());
                list.ok_or_else(|| {
                    Error::data(
                        &place,
                        format!("has no list of texts or numbers in a column {}", names.join(", ")),
                    )
                })
            };
            let sentence = Tagged { words: list(&WORDS)?, tags: list(&TAGS)? };
            if sentence.words.len() != sentence.tags.len() {
                let (words, tags) = (sentence.words.len(), sentence.tags.len());
                return Err(Error::data(&place, format!("has {words} words but {tags} tags")));
            }
            all.push(sentence);
        }
    }
    Ok(all)
}

fn conll(path: &Path, all: &mut Vec<Tagged>) -> Result<()> {
    let text = std::fs::read_to_string(path).map_err(ounce_model::Error::io(path))?;
    let mut sentence = Tagged::default();
    for (number, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with("-DOCSTART-") {
            if !sentence.words.is_empty() {
                all.push(std::mem::take(&mut sentence));
            }
            continue;
        }
        let mut columns = line.split_whitespace();
        match (columns.next(), columns.next_back()) {
            (Some(word), Some(tag)) => {
                sentence.words.push(word.to_string());
                sentence.tags.push(tag.to_string());
            }
            _ => {
                let place = format!("{}:{}", path.display(), number + 1);
                return Err(Error::data(place, "has a word but no tag behind it"));
            }
        }
    }
    if !sentence.words.is_empty() {
        all.push(sentence);
    }
    Ok(())
}

/// Questions with answers: SQuAD's JSON (`data`, `paragraphs`, `qas`), or records with `question`, `context` and `answers`
/// (or `answer`), texts, or objects with `text` and `answer_start`.
///
/// # Errors
/// If a file can't be read, or an answer does not stand in its text.
pub fn questions(paths: &[PathBuf]) -> Result<Vec<Question>> {
    let mut all = Vec::new();
    for path in expand(paths)? {
        if path.extension().is_some_and(|it| it.eq_ignore_ascii_case("json")) && squad(&path, &mut all)? {
            continue;
        }
        for record in records(&[path])? {
            let (place, fields) = fields(record?)?;
            let context = text_of(&place, &fields, &["context"])?;
            let value = column(&fields, &["answers", "answer"]);
            let answers = answers_of(&place, value, &context)?;
            all.push(Question { question: text_of(&place, &fields, &["question"])?, context, answers });
        }
    }
    Ok(all)
}

/// Reads a file in SQuAD's layout; false if it has another.
fn squad(path: &Path, all: &mut Vec<Question>) -> Result<bool> {
    let text = std::fs::read_to_string(path).map_err(ounce_model::Error::io(path))?;
    let Ok(Value::Object(whole)) = serde_json::from_str::<Value>(&text) else { return Ok(false) };
    let Some(articles) = whole.get("data").and_then(Value::as_array) else { return Ok(false) };
    let wrong = |what: &str| Error::data(path.display(), what.to_string());
    for article in articles {
        let paragraphs = article.get("paragraphs").and_then(Value::as_array);
        for paragraph in paragraphs.ok_or_else(|| wrong("has an article without paragraphs"))? {
            let context = paragraph.get("context").and_then(Value::as_str);
            let context = context.ok_or_else(|| wrong("has a paragraph without context"))?;
            let asked = paragraph.get("qas").and_then(Value::as_array);
            for asked in asked.ok_or_else(|| wrong("has a paragraph without qas"))? {
                let question = asked.get("question").and_then(Value::as_str);
                let question =
                    question.ok_or_else(|| wrong("has an entry of qas without question"))?.to_string();
                let place = format!("{}, question {question:?}", path.display());
                let answers = answers_of(&place, asked.get("answers"), context)?;
                all.push(Question { question, context: context.to_string(), answers });
            }
        }
    }
    Ok(true)
}

/// Answers with the bytes at which they begin.
fn answers_of(
    place: &(impl std::fmt::Display + ?Sized),
    value: Option<&Value>,
    context: &str,
) -> Result<Vec<(String, usize)>> {
    let mut found: Vec<(&str, Option<u64>)> = Vec::new();
    let object = |answer: &'_ Value| {
        Some((answer.get("text")?.as_str()?.to_string(), answer.get("answer_start")?.as_u64()))
    };
    let mut owned: Vec<(String, Option<u64>)> = Vec::new();
    match value {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => found.push((text.as_str(), None)),
        Some(Value::Object(lists)) if lists.get("text").is_some_and(Value::is_array) => {
            // As the data sets library stores them: a list of texts beside a list of starts.
            let starts = lists.get("answer_start").and_then(Value::as_array);
            for (index, text) in lists["text"].as_array().into_iter().flatten().enumerate() {
                let start = starts.and_then(|starts| starts.get(index)?.as_u64());
                let text =
                    text.as_str().ok_or_else(|| Error::data(place, "has an answer that is no text"))?;
                found.push((text, start));
            }
        }
        Some(Value::Array(list)) => {
            for answer in list {
                match (answer.as_str(), object(answer)) {
                    (Some(text), _) => owned.push((text.to_string(), None)),
                    (None, Some(answer)) => owned.push(answer),
                    (None, None) => {
                        let what =
                            "has an answer that is neither a text nor an object with text and answer_start";
                        return Err(Error::data(place, what));
                    }
                }
            }
        }
        Some(Value::Object(_)) => {
            let answer = value.and_then(object);
            owned.push(
                answer.ok_or_else(|| Error::data(place, "has an answer without text and answer_start"))?,
            );
        }
        Some(_) => return Err(Error::data(place, "has answers that are no list")),
    }
    let all = found.into_iter().chain(owned.iter().map(|(text, start)| (text.as_str(), *start)));
    let all = all.filter(|(text, _)| !text.trim().is_empty());
    all.map(|(text, start)| {
        let start = byte_of(context, text, start).ok_or_else(|| {
            Error::data(place, format!("has the answer {text:?}, which does not stand in its context"))
        })?;
        Ok((text.to_string(), start))
    })
    .collect()
}

/// The byte at which an answer begins: at the character that is said if it stands there, else where it stands first.
fn byte_of(context: &str, text: &str, start: Option<u64>) -> Option<usize> {
    let said = start.and_then(|start| context.char_indices().nth(start as usize)).map(|(byte, _)| byte);
    said.filter(|&byte| context[byte..].starts_with(text)).or_else(|| context.find(text))
}
