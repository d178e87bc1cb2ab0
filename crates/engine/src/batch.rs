//! Several sequences in one forward pass: weights are read once for all of them. Each gets what it would get alone.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::beside::Adapter;
use crate::cache::KvCache;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::profile::Profile;
use crate::scratch::Scratch;
use crate::session::Session;

/// Where the new positions of a sequence stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// Position of the first vector.
    pub start: usize,
    /// Number of vectors.
    pub count: usize,
    /// Whether a position sees only itself and what is before it.
    pub causal: bool,
}

/// What a forward pass needs of one sequence.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub cache: &'a mut KvCache,
    pub ids: &'a [u32],
    /// Token types, one an id, or empty for all zero.
    pub types: &'a [u32],
    pub span: Span,
    /// What is added beside the weights for it.
    pub adapter: Option<&'a Arc<Adapter>>,
}

impl<'a> Part<'a> {
    /// Tokens behind what a cache holds.
    pub(crate) fn new(cache: &'a mut KvCache, ids: &'a [u32], types: &'a [u32], causal: bool) -> Part<'a> {
        let span = Span { start: cache.len(), count: ids.len(), causal };
        Part { cache, ids, types, span, adapter: None }
    }
}

/// For which of a turn's tokens logits are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// None: more of the prompt is to come.
    Nothing,
    /// The last one's: to choose the next token.
    Last,
    /// Every one's: to check drafted tokens, or to score a text.
    All,
}

/// One sequence's turn in a step: tokens that it appends.
#[derive(Debug)]
pub struct Turn<'s, 'e> {
    /// The sequence.
    pub session: &'s mut Session<'e>,
    /// Its next tokens; any number from one on, and another number for each sequence.
    pub ids: &'s [u32],
    /// The logits it wants.
    pub want: Want,
}

/// Sequences of a step that need no allocation.
const SEQUENCES: usize = 16;

/// Steps after which buffers are allocated anew. Steps of a server are of all sizes, and each that is larger than those before leaves a
/// buffer behind.
const RENEWAL: usize = 1024;

/// Runs steps of several sequences on one engine, with buffers that are kept from step to step.
#[derive(Debug)]
pub struct Batch<'e> {
    engine: &'e Engine,
    scratch: Scratch,
    logits: Vec<f32>,
    steps: usize,
}

impl<'e> Batch<'e> {
    pub(crate) fn new(engine: &'e Engine) -> Batch<'e> {
        Batch { engine, scratch: Scratch::default(), logits: Vec::new(), steps: 0 }
    }

    /// Appends every turn's tokens to its sequence. Gives the wanted logits, `[wanted tokens, vocab]`, turn by turn and
    /// token by token.
    ///
    /// A long prompt is run whole: who wants to bound the time of a step gives it in pieces.
    ///
    /// # Errors
    /// If a session belongs to another engine, a turn has no tokens, or an id is out of range; then no sequence has
    /// changed.
    pub fn step(&mut self, turns: &mut [Turn<'_, 'e>]) -> Result<&[f32]> {
        for turn in turns.iter() {
            if !std::ptr::eq(turn.session.engine(), self.engine) {
                let what = "a sequence of the batch belongs to another engine".to_string();
                return Err(Error::Unsuitable(what));
            }
            turn.session.check(turn.ids)?;
        }
        self.scratch.give(std::mem::take(&mut self.logits));
        self.steps += 1;
        if self.steps.is_multiple_of(RENEWAL) {
            self.scratch.renew();
        }
        let before: SmallVec<[usize; SEQUENCES]> =
            turns.iter_mut().map(|turn| turn.session.begin(turn.ids)).collect();
        let mut parts: SmallVec<[Part<'_>; SEQUENCES]> =
            turns.iter_mut().map(|turn| turn.session.part()).collect();
        let counts: SmallVec<[usize; SEQUENCES]> = parts.iter().map(|part| part.span.count).collect();
        let hidden = self.engine.hidden(&mut parts, &mut self.scratch);
        drop(parts);
        let logits = hidden.and_then(|hidden| {
            let rows = wanted(turns, &counts, &hidden, self.engine.spec().hidden_size, &mut self.scratch);
            self.scratch.give(hidden);
            let logits = match rows.is_empty() {
                true => Ok(Vec::new()),
                false => self.engine.logits(&rows, &mut self.scratch),
            };
            self.scratch.give(rows);
            logits
        });
        self.logits = logits.inspect_err(|_| {
            turns.iter_mut().zip(&before).for_each(|(turn, &before)| turn.session.roll_back(before));
        })?;
        Ok(&self.logits)
    }

    /// Begins to measure where time goes; see [`Batch::profile`].
    pub fn measure(&mut self) {
        self.scratch.meter.enable();
    }

    /// Where time went since [`Batch::measure`].
    pub fn profile(&self) -> Option<&Profile> {
        self.scratch.meter.profile()
    }
}

/// Copies the hidden states whose logits are wanted. Of a sequence that was run again from its start, the turn's own
/// tokens are the last ones.
fn wanted(
    turns: &[Turn<'_, '_>],
    counts: &[usize],
    hidden: &[f32],
    width: usize,
    scratch: &mut Scratch,
) -> Vec<f32> {
    let wanted = |turn: &Turn<'_, '_>| match turn.want {
        Want::Nothing => 0,
        Want::Last => 1,
        Want::All => turn.ids.len(),
    };
    let mut rows = scratch.take(turns.iter().map(wanted).sum::<usize>() * width);
    let (mut at, mut end) = (0, 0);
    for (turn, count) in turns.iter().zip(counts) {
        end += count * width;
        let own = &hidden[end - wanted(turn) * width..end];
        rows[at..at + own.len()].copy_from_slice(own);
        at += own.len();
    }
    rows
}
