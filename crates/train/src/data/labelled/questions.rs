//! Questions whose answers stand in a text, and how an answer is found by the scores of its first and last token (BERT,
//! arXiv 1810.04805, section 4.2). A text that is too long is looked at in windows that overlap.

use std::ops::Range;

use ounce_model::tokenizer::Tokenizer;

use super::frame::Framed;
use super::{Example, Target};
use crate::{IGNORE, Result};

/// Tokens of an answer at most, as such models are usually scored.
pub const LONGEST: usize = 30;

/// A question with its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub question: String,
    /// The text that has the answer.
    pub context: String,
    /// What is right, each with the byte at which it begins in the text; empty where the text has no answer. The first is
    /// learned.
    pub answers: Vec<(String, usize)>,
}

/// A question as its windows, one example each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Tokens in front of the text.
    head: usize,
    /// Bytes of each token of the text.
    offsets: Vec<Range<usize>>,
    /// The part of the text that each window has.
    parts: Vec<Range<usize>>,
    /// The windows.
    pub windows: Vec<Example>,
}

impl Asked {
    /// The windows of a question: at most `limit` tokens each, `stride` tokens from one's start to the next's. None if the
    /// question alone is too long. Where a window does not have the answer, its first token stands for that.
    ///
    /// # Errors
    /// If it can't be tokenized.
    pub fn new(
        tokenizer: &Tokenizer,
        question: &Question,
        limit: usize,
        stride: usize,
        types: bool,
    ) -> Result<Option<Asked>> {
        let framed = Framed::new(tokenizer, Some(&question.question), &question.context, types)?;
        let Some(parts) = framed.windows(limit, stride) else { return Ok(None) };
        let answer = question
            .answers
            .first()
            .and_then(|(text, start)| tokens_of(&framed, *start..*start + text.len()));
        let (head, begins) = (framed.head(), framed.head() > 0);
        let window = |part: &Range<usize>| {
            let (ids, types) = framed.sequence(part);
            let inside =
                answer.as_ref().filter(|answer| answer.start >= part.start && answer.end <= part.end);
            let span = match inside {
                Some(answer) => {
                    [answer.start, answer.end - 1].map(|token| (head + token - part.start) as u32)
                }
                // An answer that can't be placed teaches nothing; one that is elsewhere teaches that.
                None if begins && (answer.is_some() || question.answers.is_empty()) => [0, 0],
                None => [IGNORE, IGNORE],
            };
            Example { ids, types, target: Target::Span(span) }
        };
        let windows = parts.iter().map(window).collect();
        let offsets = framed.pieces.iter().map(|(_, bytes)| bytes.clone()).collect();
        Ok(Some(Asked { head, offsets, parts, windows }))
    }

    /// The likeliest answer by the scores `[tokens, 2]` of each window: its bytes of the text, its score (a sum of two
    /// logits) and the best score of "no answer" (the least over the windows). None for an empty text.
    pub fn answer(&self, scores: &[Vec<f32>]) -> Option<Found> {
        let mut best: Option<(Found, [f32; 2])> = None;
        let mut nothing = f32::INFINITY;
        // Sums of both ends' exponentials over all tokens that may be ends, kept below overflow by the greatest.
        let inside = |scores: &[f32], part: &Range<usize>, side: usize| {
            let ends = scores[2 * self.head..2 * (self.head + part.len())].iter().skip(side).step_by(2);
            ends.copied().collect::<Vec<f32>>()
        };
        let mut all = [Vec::new(), Vec::new()];
        for (part, scores) in self.parts.iter().zip(scores) {
            nothing = nothing.min(scores[0] + scores[1]);
            all.iter_mut().enumerate().for_each(|(side, all)| all.extend(inside(scores, part, side)));
            let Some((first, last, score)) = best_span(scores, self.head..self.head + part.len()) else {
                continue;
            };
            if best.as_ref().is_none_or(|(best, _)| score > best.score) {
                let token = |at: usize| &self.offsets[part.start + at - self.head];
                let bytes = token(first).start..token(last).end.max(token(first).start);
                let ends = [scores[2 * first], scores[2 * last + 1]];
                best = Some((Found { bytes, score, nothing, probability: 0.0 }, ends));
            }
        }
        let (found, ends) = best?;
        let share = |side: usize| {
            let total: f64 = all[side].iter().map(|&score| f64::from(score - ends[side]).exp()).sum();
            1.0 / total
        };
        Some(Found { nothing, probability: (share(0) * share(1)) as f32, ..found })
    }
}

/// An answer that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its bytes of the text.
    pub bytes: Range<usize>,
    /// The sum of its ends' logits.
    pub score: f32,
    /// The product of its ends' probabilities among all tokens of the text.
    pub probability: f32,
    /// That of the first token, which stands for "no answer here", in the window where it is least.
    pub nothing: f32,
}

/// First token, last token and score of the best span among `allowed` tokens by scores `[tokens, 2]`: the last is not before
/// the first and less than [`LONGEST`] behind it.
pub fn best_span(scores: &[f32], allowed: Range<usize>) -> Option<(usize, usize, f32)> {
    let allowed = allowed.start..allowed.end.min(scores.len() / 2);
    let mut best: Option<(usize, usize, f32)> = None;
    for first in allowed.clone() {
        for last in first..allowed.end.min(first + LONGEST) {
            let score = scores[2 * first] + scores[2 * last + 1];
            if best.is_none_or(|(.., best)| score > best) {
                best = Some((first, last, score));
            }
        }
    }
    best
}

/// The tokens that have something of these bytes.
fn tokens_of(framed: &Framed, bytes: Range<usize>) -> Option<Range<usize>> {
    let first = framed.pieces.iter().position(|(_, own)| own.end > bytes.start && !own.is_empty())?;
    let last = framed.pieces.iter().rposition(|(_, own)| own.start < bytes.end && !own.is_empty())?;
    (first <= last).then_some(first..last + 1)
}
