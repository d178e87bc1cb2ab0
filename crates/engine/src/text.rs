//! From a stream of ids to a stream of text: whole characters only, cut at the first stop string. Text that
//! may still become a stop string is held back until that is decided.

use ounce_model::tokenizer::{DetokenStream, Tokenizer};

use crate::error::{Error, Result};

/// Turns ids into text as they come.
#[derive(Debug)]
pub struct TextStream {
    detokenizer: DetokenStream,
    stops: StopFilter,
}

/// Text handed out after one id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What can be shown now.
    pub text: String,
    /// Whether a stop string was met; what follows it is dropped.
    pub stopped: bool,
}

impl TextStream {
    /// A stream for the answer of a generation. `continuing` keeps the space before its first word: the text
    /// goes on from the prompt's.
    ///
    /// # Errors
    /// If a stop string is empty.
    pub fn new(tokenizer: &Tokenizer, stops: Vec<String>, continuing: bool) -> Result<TextStream> {
        TextStream::of(tokenizer, stops, continuing, true)
    }

    /// As [`TextStream::new`], with special tokens such as `<|im_end|>` as part of the text.
    ///
    /// # Errors
    /// If a stop string is empty.
    pub fn with_special(tokenizer: &Tokenizer, stops: Vec<String>, continuing: bool) -> Result<TextStream> {
        TextStream::of(tokenizer, stops, continuing, false)
    }

    fn of(tokenizer: &Tokenizer, stops: Vec<String>, continuing: bool, skip: bool) -> Result<TextStream> {
        let detokenizer = if continuing { tokenizer.stream_continuing(skip) } else { tokenizer.stream(skip) };
        Ok(TextStream { detokenizer, stops: StopFilter::new(stops)? })
    }

    /// Takes one id.
    ///
    /// # Errors
    /// If the tokenizer can't decode it.
    pub fn push(&mut self, id: u32) -> Result<Piece> {
        let text = self.detokenizer.push(id)?.unwrap_or_default();
        Ok(self.stops.push(&text))
    }

    /// The stop string that was met.
    pub fn met(&self) -> Option<&str> {
        self.stops.met.map(|index| self.stops.stops[index].as_str())
    }

    /// Hands out what was held back.
    ///
    /// # Errors
    /// If the tokenizer can't decode the rest.
    pub fn finish(mut self) -> Result<String> {
        let rest = self.detokenizer.finish()?.unwrap_or_default();
        let piece = self.stops.push(&rest);
        Ok(piece.text + &self.stops.rest())
    }
}

/// Cuts a stream of text at the first stop string.
#[derive(Debug)]
struct StopFilter {
    stops: Vec<String>,
    held: String,
    /// The stop string that was met.
    met: Option<usize>,
}

impl StopFilter {
    fn new(stops: Vec<String>) -> Result<StopFilter> {
        if stops.iter().any(String::is_empty) {
            return Err(Error::Option("a stop string is empty; every text contains it at once".to_string()));
        }
        Ok(StopFilter { stops, held: String::new(), met: None })
    }

    fn push(&mut self, text: &str) -> Piece {
        if self.met.is_some() {
            return Piece { text: String::new(), stopped: true };
        }
        self.held.push_str(text);
        let found = |(index, stop): (usize, &String)| Some((self.held.find(stop)?, index));
        if let Some((at, index)) = self.stops.iter().enumerate().filter_map(found).min() {
            self.met = Some(index);
            self.held.truncate(at);
            return Piece { text: std::mem::take(&mut self.held), stopped: true };
        }
        let keep = self.stops.iter().map(|stop| open_end(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Piece { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest end of `text` that is a beginning of `stop`.
fn open_end(text: &str, stop: &str) -> usize {
    let starts = stop.char_indices().map(|(at, _)| at).skip(1);
    starts.filter(|&at| text.ends_with(&stop[..at])).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut filter =
            StopFilter::new(stops.iter().map(|stop| stop.to_string()).collect()).expect("no empty stop");
        let mut out: Vec<String> = pieces.iter().map(|piece| filter.push(piece).text).collect();
        out.push(filter.rest());
        (out, filter.met.is_some())
    }

    #[test]
    fn text_that_may_become_a_stop_string_is_held_back() {
        assert_eq!(
            run(&["###"], &["a#", "#b", "#", "##c"]),
            (["a", "##b", "", "", ""].map(String::from).to_vec(), true)
        );
        assert_eq!(run(&["END"], &["the E", "N"]), (["the ", "", "EN"].map(String::from).to_vec(), false));
    }

    #[test]
    fn the_first_of_several_stops_cuts_and_characters_stay_whole() {
        assert_eq!(run(&["ß!", "é"], &["caf", "é ß", "!"]).0.concat(), "caf");
        assert!(StopFilter::new(vec![String::new()]).is_err());
    }
}
