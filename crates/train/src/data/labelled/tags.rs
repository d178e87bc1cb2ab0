//! Words with a tag each (names of people and places, parts of speech).

use ounce_model::tokenizer::Tokenizer;

use super::frame::Framed;
use super::{Example, Target};
use crate::{IGNORE, Result};

/// Words and their tags, as many.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tagged {
    /// The words.
    pub words: Vec<String>,
    /// Their tags.
    pub tags: Vec<String>,
}

/// The examples of sentences, words put together with spaces, and how many were cut at `limit` tokens. The first token of a
/// word has its tag; others count for nothing.
///
/// # Errors
/// If a sentence can't be tokenized.
pub fn examples(
    tokenizer: &Tokenizer,
    sentences: &[Tagged],
    labels: &[String],
    limit: usize,
    types: bool,
) -> Result<(Vec<Example>, usize)> {
    let mut cut = 0;
    let mut examples = Vec::with_capacity(sentences.len());
    for Tagged { words, tags } in sentences {
        let framed = Framed::new(tokenizer, None, &words.join(" "), types)?;
        let (part, was_cut) = framed.beginning(limit)?;
        cut += usize::from(was_cut);
        let (ids, types) = framed.sequence(&part);
        let mut targets = vec![IGNORE; ids.len()];
        let (mut word, mut end) = (0, words.first().map_or(0, String::len));
        let mut taken = false;
        for (index, (_, bytes)) in framed.pieces[part].iter().enumerate() {
            // A token may begin with the space before its word.
            while bytes.end > end && word + 1 < words.len() {
                word += 1;
                end += 1 + words[word].len();
                taken = false;
            }
            if !taken && !bytes.is_empty() {
                let tag = labels.iter().position(|name| *name == tags[word]);
                targets[framed.head() + index] = tag.map_or(IGNORE, |tag| tag as u32);
                taken = true;
            }
        }
        if !ids.is_empty() {
            examples.push(Example { ids, types, target: Target::Tokens(targets) });
        }
    }
    Ok((examples, cut))
}
