//! JSON, one object a line.

use serde_json::Value;

use super::array::Items;
use super::input::{self, Input};
use super::{Content, Place, Record, Unit};
use crate::{Error, Result};

/// The objects of a JSON file: of its array if it begins with `[`; of the object that it is if `{` stands alone in its first
/// line; else one a line.
pub(super) fn json(mut input: Input) -> Result<Box<dyn Iterator<Item = Result<Record>> + Send>> {
    let begin = input.peek()?.trim_ascii_start();
    let alone = begin.split(|&byte| byte == b'\n').next().is_some_and(|line| line.trim_ascii() == b"{");
    Ok(match begin.first() {
        Some(b'[') => Box::new(Items::new(input)),
        Some(b'{') if alone && begin.len() > 2 => Box::new(Items::named(input)),
        _ => Box::new(Lines { input, line: 0 }),
    })
}

struct Lines {
    input: Input,
    line: u64,
}

impl Lines {
    fn object(&mut self) -> Result<Option<Record>> {
        let mut bytes = Vec::new();
        loop {
            self.line += 1;
            let place = self.input.place(self.line, Unit::Line);
            bytes.clear();
            if !self.input.line(&mut bytes, &place)? {
                return Ok(None);
            }
            if !bytes.trim_ascii().is_empty() {
                return parse(&bytes, place).map(Some);
            }
        }
    }
}

impl Iterator for Lines {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        self.object().transpose()
    }
}

/// A name and its object: the object, with the name as `id` unless it has one.
pub(super) fn parse_named(bytes: &[u8], place: Place) -> Result<Record> {
    let text = input::text(bytes, &place)?;
    let entry = serde_json::from_str::<serde_json::Map<String, Value>>(&format!("{{{text}}}"))
        .map_err(|error| Error::data(place.clone(), format!("not valid JSON ({error})")))?;
    match entry.into_iter().next() {
        Some((name, Value::Object(mut fields))) => {
            fields.entry("id").or_insert(Value::String(name));
            Ok(Record { place, content: Content::Fields(fields) })
        }
        _ => Err(Error::data(
            place,
            "not a JSON object; a file that is one object has an object for each record, as in {\"1\": {\"text\": \"…\"}}",
        )),
    }
}

/// One object.
pub(super) fn parse(bytes: &[u8], place: Place) -> Result<Record> {
    let text = input::text(bytes, &place)?;
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(Record { place, content: Content::Fields(fields) }),
        Ok(Value::String(text)) => Ok(Record { place, content: Content::Text(text) }),
        Ok(_) => {
            Err(Error::data(place, "not a JSON object; each record is an object such as {\"text\": \"…\"}"))
        }
        Err(error) => {
            // The line that the parser counts begins with the record, not with the file.
            let said = error.to_string();
            let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
            Err(Error::data(
                place,
                if error.is_eof() {
                    format!(
                        "not valid JSON ({said}); records are objects of one line each, or the items of an array"
                    )
                } else {
                    format!("not valid JSON ({said} at character {})", error.column())
                },
            ))
        }
    }
}
