//! A JSON file that is one array, or one object of objects by their names (as PubMedQA has it): its items are found by
//! brackets and quotes and parsed one at a time.

use super::input::Input;
use super::{MAX_RECORD, Record, Unit, lines};
use crate::{Error, Result};

/// The items of the array or object.
pub(super) struct Items {
    input: Input,
    items: u64,
    state: State,
    named: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The opening bracket is to come.
    Before,
    /// An item or the closing bracket is to come.
    Open,
    /// A comma or the closing bracket is to come.
    AfterItem,
    Closed,
}

impl Items {
    pub(super) fn new(input: Input) -> Items {
        Items { input, items: 0, state: State::Before, named: false }
    }

    /// The items of an object.
    pub(super) fn named(input: Input) -> Items {
        Items { named: true, ..Items::new(input) }
    }

    /// The next byte that is no white space, not taken yet.
    fn next_byte(&mut self) -> Result<Option<u8>> {
        loop {
            let bytes = self.input.peek()?;
            if bytes.is_empty() {
                return Ok(None);
            }
            match bytes.iter().position(|byte| !byte.is_ascii_whitespace()) {
                Some(at) => {
                    let byte = bytes[at];
                    self.input.consume(at);
                    return Ok(Some(byte));
                }
                None => {
                    let count = bytes.len();
                    self.input.consume(count);
                }
            }
        }
    }

    fn item(&mut self) -> Result<Option<Record>> {
        let (opening, closing) = if self.named { (b'{', b'}') } else { (b'[', b']') };
        while self.state != State::Closed {
            let place = self.input.place(self.items + 1, Unit::Item);
            let Some(byte) = self.next_byte()? else {
                return Err(Error::data(place, "the file ends before its last bracket; it is cut off"));
            };
            match (self.state, byte) {
                (State::Before, byte) if byte == opening => {
                    self.state = State::Open;
                    self.input.consume(1);
                }
                (State::Open | State::AfterItem, byte) if byte == closing => {
                    self.input.consume(1);
                    self.state = State::Closed;
                    if self.next_byte()?.is_some() {
                        return Err(Error::data(
                            place,
                            "something follows the last bracket; a file has one array or object",
                        ));
                    }
                }
                (State::AfterItem, b',') => {
                    self.state = State::Open;
                    self.input.consume(1);
                }
                (State::Open, _) => {
                    let bytes = self.bytes()?;
                    self.items += 1;
                    self.state = State::AfterItem;
                    return if self.named {
                        lines::parse_named(&bytes, place)
                    } else {
                        lines::parse(&bytes, place)
                    }
                    .map(Some);
                }
                _ => {
                    return Err(Error::data(place, "not valid JSON (a comma is missing before this record)"));
                }
            }
        }
        Ok(None)
    }

    /// The bytes up to the comma or bracket that ends an item.
    fn bytes(&mut self) -> Result<Vec<u8>> {
        let place = self.input.place(self.items + 1, Unit::Item);
        let mut item = Vec::new();
        let (mut depth, mut quoted, mut escaped) = (0u32, false, false);
        loop {
            let bytes = self.input.peek()?;
            if bytes.is_empty() {
                return Err(Error::data(place, "the file ends inside this record; it is cut off"));
            }
            let mut end = None;
            for (at, &byte) in bytes.iter().enumerate() {
                if quoted {
                    match byte {
                        _ if escaped => escaped = false,
                        b'\\' => escaped = true,
                        b'"' => quoted = false,
                        _ => {}
                    }
                    continue;
                }
                match byte {
                    b'"' => quoted = true,
                    b'{' | b'[' => depth += 1,
                    b',' | b']' | b'}' if depth == 0 => {
                        end = Some(at);
                        break;
                    }
                    b']' | b'}' => depth -= 1,
                    _ => {}
                }
            }
            let taken = end.unwrap_or(bytes.len());
            item.extend_from_slice(&bytes[..taken]);
            self.input.consume(taken);
            if end.is_some() {
                return Ok(item);
            }
            if item.len() as u64 > MAX_RECORD {
                return Err(Error::data(place, format!("the record has more than {MAX_RECORD} bytes")));
            }
        }
    }
}

impl Iterator for Items {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        self.item().transpose()
    }
}
