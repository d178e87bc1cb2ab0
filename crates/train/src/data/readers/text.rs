//! Plain text.

use super::input::{self, Input};
use super::{Content, Record, Separator, Unit};
use crate::Result;

/// A document that has become this long ends at the next line's end, so that files of any size can be read.
const LONG: usize = 64 << 20;

/// The documents of a text file. Empty ones are left out.
pub(super) struct Texts {
    input: Input,
    separator: Separator,
    documents: u64,
    done: bool,
}

impl Texts {
    pub(super) fn new(input: Input, separator: Separator) -> Texts {
        Texts { input, separator, documents: 0, done: false }
    }

    fn document(&mut self) -> Result<Option<Record>> {
        let mut bytes = Vec::new();
        while !self.done {
            let place = self.input.place(self.documents + 1, Unit::Item);
            let start = bytes.len();
            self.done = !self.input.line(&mut bytes, &place)?;
            let line = bytes[start..].trim_ascii();
            let separates = match &self.separator {
                Separator::Line(text) => line == text.trim().as_bytes(),
                Separator::BlankLines => line.is_empty(),
                Separator::Never => false,
            };
            if separates {
                bytes.truncate(start);
            } else if !self.done && bytes.len() < LONG {
                continue;
            }
            let text = input::text(&bytes, &place)?;
            // A document's last line end belongs to the separator, or to the file.
            let ends = separates || self.done && self.separator != Separator::Never;
            let text = if ends { text.trim_end_matches(['\n', '\r']) } else { text };
            if text.trim().is_empty() {
                bytes.clear();
                continue;
            }
            self.documents += 1;
            return Ok(Some(Record { place, content: Content::Text(text.to_string()) }));
        }
        Ok(None)
    }
}

impl Iterator for Texts {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        self.document().transpose()
    }
}
