//! The tokens that a tokenizer puts around a text, or around a question and a text, and windows of a text that is too long.

use std::ops::Range;

use ounce_model::tokenizer::Tokenizer;

use crate::{Error, Result};

/// A text's tokens with those around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Framed {
    /// What stands in front: the token that begins a sequence, the question.
    head: Vec<u32>,
    head_types: Vec<u32>,
    /// The text's tokens, each with its bytes of the text.
    pub pieces: Vec<(u32, Range<usize>)>,
    tail: Vec<u32>,
    /// Type of the text and of what is behind it.
    kind: u32,
    types: bool,
}

impl Framed {
    /// A text, behind a question if there is one, as the tokenizer puts it; one that adds nothing, but has tokens to begin
    /// and to end sequences, gets them. `types` says whether the model has token types.
    ///
    /// # Errors
    /// If the text can't be tokenized.
    pub fn new(tokenizer: &Tokenizer, question: Option<&str>, text: &str, types: bool) -> Result<Framed> {
        let pieces = tokenizer.encode_with_offsets(text)?;
        let (first, pair) = question.map_or((text, None), |question| (question, Some(text)));
        let whole = tokenizer.encode_with_types(first, pair, true)?;
        let length = pieces.len();
        let same = |start: &usize| {
            let own = &whole.ids[*start..*start + length];
            own.iter().zip(&pieces).all(|(id, (piece, _))| id == piece)
        };
        // The text is the last thing, behind at most a few tokens that end it.
        let starts = (0..=whole.ids.len().saturating_sub(length)).rev();
        let start = starts.filter(|start| start + length <= whole.ids.len()).find(same).ok_or_else(|| {
            Error::Settings("the tokenizer takes a text apart differently beside a question".to_string())
        })?;
        let end = start + length;
        let mut framed = Framed {
            head: whole.ids[..start].to_vec(),
            head_types: whole.type_ids[..start].to_vec(),
            pieces,
            tail: whole.ids[end..].to_vec(),
            kind: whole.type_ids[start..].first().copied().unwrap_or(0),
            types,
        };
        let special = tokenizer.special();
        let bare = !framed.head.iter().chain(&framed.tail).any(|&id| tokenizer.is_special(id));
        if let (true, Some(begin), Some(end)) = (bare, special.cls, special.sep) {
            framed.head.insert(0, begin);
            framed.head.extend(question.map(|_| end));
            framed.head_types = vec![0; framed.head.len()];
            framed.tail = vec![end];
            framed.kind = u32::from(question.is_some());
        }
        Ok(framed)
    }

    /// Tokens in front of the text.
    pub fn head(&self) -> usize {
        self.head.len()
    }

    /// The parts of the text that are looked at one by one where it has no room in `limit` tokens: each begins `stride`
    /// tokens behind the one before, and all together are the whole. None if what is around the text has no room itself.
    pub fn windows(&self, limit: usize, stride: usize) -> Option<Vec<Range<usize>>> {
        let room = limit.checked_sub(self.head.len() + self.tail.len()).filter(|&room| room > 0)?;
        let stride = stride.clamp(1, room);
        let mut windows = Vec::new();
        let mut start = 0;
        loop {
            let end = (start + room).min(self.pieces.len());
            windows.push(start..end);
            if end == self.pieces.len() {
                return Some(windows);
            }
            start += stride;
        }
    }

    /// Ids and types of a part of the text with what is around it.
    pub fn sequence(&self, part: &Range<usize>) -> (Vec<u32>, Vec<u32>) {
        let mut ids = self.head.clone();
        ids.extend(self.pieces[part.clone()].iter().map(|(id, _)| *id));
        ids.extend(&self.tail);
        let mut types = Vec::new();
        if self.types {
            types.clone_from(&self.head_types);
            types.resize(ids.len(), self.kind);
        }
        (ids, types)
    }

    /// As much of the text's beginning as has room, and whether something was cut.
    ///
    /// # Errors
    /// If what is around the text has no room.
    pub fn beginning(&self, limit: usize) -> Result<(Range<usize>, bool)> {
        let windows = self.windows(limit, limit);
        let first = windows.and_then(|windows| windows.into_iter().next()).ok_or_else(|| {
            Error::Settings(format!(
                "a sequence of {limit} tokens has no room for a text; raise data.context"
            ))
        })?;
        let cut = first.end < self.pieces.len();
        Ok((first, cut))
    }
}
