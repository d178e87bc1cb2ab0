//! Texts with a label each.

use ounce_model::tokenizer::Tokenizer;

use super::frame::Framed;
use super::{Example, Target};
use crate::{IGNORE, Result};

/// A text and its label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    /// The text.
    pub text: String,
    /// A second text, for labels of pairs.
    pub pair: Option<String>,
    /// The label's name.
    pub label: String,
}

/// The names of all labels: in the order of their numbers where all are numbers, else of the alphabet.
pub fn names<'l>(labels: impl IntoIterator<Item = &'l str>) -> Vec<String> {
    let mut names: Vec<String> = labels.into_iter().map(str::to_string).collect();
    names.sort_unstable();
    names.dedup();
    let number = |name: &String| name.parse::<i64>().ok();
    if names.iter().all(|name| number(name).is_some()) {
        names.sort_by_key(number);
    }
    names
}

/// The examples of texts, cut at their ends to `limit` tokens, and how many were cut. A label that is none of `labels`
/// counts for nothing.
///
/// # Errors
/// If a text can't be tokenized.
pub fn examples(
    tokenizer: &Tokenizer,
    texts: &[Labelled],
    labels: &[String],
    limit: usize,
    types: bool,
) -> Result<(Vec<Example>, usize)> {
    let mut cut = 0;
    let mut examples = Vec::with_capacity(texts.len());
    for Labelled { text, pair, label } in texts {
        let framed = match pair {
            Some(pair) => Framed::new(tokenizer, Some(text), pair, types)?,
            None => Framed::new(tokenizer, None, text, types)?,
        };
        let (part, was_cut) = framed.beginning(limit)?;
        cut += usize::from(was_cut);
        let (ids, types) = framed.sequence(&part);
        let label = labels.iter().position(|name| name == label).map_or(IGNORE, |label| label as u32);
        if !ids.is_empty() {
            examples.push(Example { ids, types, target: Target::Label(label) });
        }
    }
    Ok((examples, cut))
}
