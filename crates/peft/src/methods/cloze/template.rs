//! A text with a gap: what stands around the text that is to be labelled, and where the word is asked for.

use std::ops::Range;

use ounce_model::tokenizer::Tokenizer;
use ounce_train::IGNORE;
use ounce_train::data::labelled::{Example, Target};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Where the text goes in a template.
const TEXT: &str = "<text>";
/// Where the word goes.
const GAP: &str = "[MASK]";

/// A token of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Its number; of a soft one that of the token whose vector it begins with.
    pub id: u32,
    /// Whether its vector is trained.
    pub soft: bool,
}

/// `[CLS] before <text> after [SEP]`, with the gap before or behind the text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// In front of the text, with what begins a sequence.
    pub before: Vec<Piece>,
    /// Behind it, with what ends a sequence.
    pub after: Vec<Piece>,
    /// The token that is the gap.
    pub mask: u32,
    /// Whether there is a blank in front of the text.
    pub text_blank: bool,
    /// Whether there is a blank in front of the gap, which label words then have too.
    pub gap_blank: bool,
}

/// A part of a template.
enum Part<'t> {
    Words(&'t str, bool),
    Text,
    Gap,
}

/// Takes a template apart: words, `{soft words}`, the text, the gap.
fn parts<'t>(template: &'t str, gap: &str) -> Result<Vec<Part<'t>>> {
    let mut parts = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let next = rest.match_indices(['<', '[', '{']).find(|(at, _)| {
            rest[*at..].starts_with(TEXT)
                || rest[*at..].starts_with(GAP)
                || rest[*at..].starts_with(gap)
                || rest[*at..].starts_with('{')
        });
        let (words, found) = next.map_or((rest, ""), |(at, _)| rest.split_at(at));
        if !words.is_empty() {
            parts.push(Part::Words(words, false));
        }
        rest = if let Some(behind) = found.strip_prefix(TEXT) {
            parts.push(Part::Text);
            behind
        } else if let Some(behind) = found.strip_prefix(GAP).or_else(|| found.strip_prefix(gap)) {
            parts.push(Part::Gap);
            behind
        } else if let Some(inside) = found.strip_prefix('{') {
            let (soft, behind) = inside.split_once('}').ok_or_else(|| {
                Error::Option(format!("the template {template:?} has a {{ that no }} closes"))
            })?;
            parts.push(Part::Words(soft, true));
            behind
        } else {
            ""
        };
    }
    Ok(parts)
}

impl Template {
    /// A template as a user writes it: `<text> {It was} [MASK].`, words in braces soft; `free` soft tokens more stand in front of the gap and
    /// begin as tokens drawn from the vocabulary.
    ///
    /// # Errors
    /// If text or gap are not there once, or the tokenizer is not one of a masked language model.
    pub fn parse(tokenizer: &Tokenizer, template: &str, free: usize, seed: u64) -> Result<Template> {
        let special = tokenizer.special();
        let (Some(mask), Some(begin), Some(end)) = (special.mask, special.cls, special.sep) else {
            return Err(Error::Option(
                "this tokenizer has no [MASK] between a [CLS] and a [SEP]; templates are for masked language models"
                    .into(),
            ));
        };
        let gap = tokenizer.piece(mask).unwrap_or_else(|| GAP.to_owned());
        let parts = parts(template, &gap)?;
        let count = |wanted: fn(&Part<'_>) -> bool| parts.iter().filter(|part| wanted(part)).count();
        let (texts, gaps) = (count(|it| matches!(it, Part::Text)), count(|it| matches!(it, Part::Gap)));
        if texts != 1 || gaps != 1 {
            return Err(Error::Option(format!(
                "a template has {TEXT} once, where the text goes, and {GAP} once, where the label's word goes; {template:?} has {texts} and {gaps}"
            )));
        }
        let given = |id| Piece { id, soft: false };
        let mut sides = [vec![given(begin)], Vec::new()];
        let (mut side, mut blank, mut text_blank, mut gap_blank) = (0, false, false, false);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for part in parts {
            match part {
                // A blank belongs to the word behind it.
                Part::Words(words, soft) => {
                    let stem = words.trim_end_matches(' ');
                    let whole = if blank { format!(" {stem}") } else { stem.to_owned() };
                    blank = stem.len() < words.len() || (blank && stem.is_empty());
                    if !stem.is_empty() {
                        let ids = tokenizer.encode(&whole, false)?;
                        sides[side].extend(ids.into_iter().map(|id| Piece { id, soft }));
                    }
                }
                Part::Text => (side, text_blank, blank) = (1, blank, false),
                Part::Gap => {
                    let limit = tokenizer.vocab_size().max(1) as u32;
                    sides[side]
                        .extend((0..free).map(|_| Piece { id: random.random_range(0..limit), soft: true }));
                    sides[side].push(given(mask));
                    (gap_blank, blank) = (blank, false);
                }
            }
        }
        let [before, mut after] = sides;
        after.push(given(end));
        Ok(Template { before, after, mask, text_blank, gap_blank })
    }

    /// The soft tokens, in their order.
    pub fn soft(&self) -> impl Iterator<Item = Piece> + '_ {
        self.before.iter().chain(&self.after).copied().filter(|piece| piece.soft)
    }

    /// The rows of the soft tokens in a sequence of so many tokens, of which the first `virtual_tokens` are none of the template's.
    pub(super) fn soft_rows(&self, length: usize, virtual_tokens: usize) -> impl Iterator<Item = usize> + '_ {
        let behind = length - self.after.len();
        let front = self.before.iter().enumerate().map(move |(at, piece)| (virtual_tokens + at, piece.soft));
        let back = self.after.iter().enumerate().map(move |(at, piece)| (behind + at, piece.soft));
        front.chain(back).filter(|(_, soft)| *soft).map(|(row, _)| row)
    }

    /// Tokens around the text.
    pub fn len(&self) -> usize {
        self.before.len() + self.after.len()
    }

    /// Never: there is a gap.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// A text in the template, its end cut where `limit` tokens have no room for it (the template itself stays whole), with the number of
    /// its label as the gap's target; and whether it was cut. `types` says whether the model has token types.
    ///
    /// # Errors
    /// If the template leaves no room, or the text can't be tokenized.
    pub fn example(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
        label: Option<usize>,
        limit: usize,
        types: bool,
    ) -> Result<(Example, bool)> {
        let room = limit.checked_sub(self.len()).filter(|&room| room > 0).ok_or_else(|| {
            Error::Option(format!(
                "the template takes {} of {limit} tokens and leaves no room for a text; shorten it or raise --context",
                self.len()
            ))
        })?;
        let own =
            tokenizer.encode(&if self.text_blank { format!(" {text}") } else { text.to_owned() }, false)?;
        let part: Range<usize> = 0..own.len().min(room);
        let cut = part.end < own.len();
        let mut ids: Vec<u32> = self.before.iter().map(|piece| piece.id).collect();
        ids.extend(&own[part]);
        let behind = ids.len();
        ids.extend(self.after.iter().map(|piece| piece.id));
        let find = |pieces: &[Piece]| pieces.iter().position(|piece| piece.id == self.mask && !piece.soft);
        let gap = find(&self.before).or_else(|| find(&self.after).map(|at| behind + at));
        let mut targets = vec![IGNORE; ids.len()];
        if let (Some(gap), Some(label)) = (gap, label) {
            targets[gap] = label as u32;
        }
        let types = if types { vec![0; ids.len()] } else { Vec::new() };
        Ok((Example { ids, types, target: Target::Tokens(targets) }, cut))
    }
}
