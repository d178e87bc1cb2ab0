//! One sequence on an engine: its KV cache and the tokens it holds.

use std::io::{self, Read, Write};
use std::sync::Arc;

use ounce_model::rope::Rope;

use crate::batch::Part;
use crate::beside::{Adapter, check};
use crate::cache::KvCache;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::profile::Profile;
use crate::scratch::Scratch;

/// Positions of a long prompt that are run at once; bounds the memory of a prefill.
pub const PREFILL_CHUNK: usize = 256;

/// One sequence: tokens go in, logits come out.
#[derive(Debug)]
pub struct Session<'e> {
    engine: &'e Engine,
    cache: KvCache,
    /// One for each position; those in front of the text, which an adapter may have, are zeros.
    tokens: Vec<u32>,
    scratch: Scratch,
    adapter: Option<Arc<Adapter>>,
}

impl<'e> Session<'e> {
    pub(crate) fn new(engine: &'e Engine) -> Session<'e> {
        let (cache, scratch) = (engine.new_cache(), Scratch::default());
        Session { engine, cache, tokens: Vec::new(), scratch, adapter: engine.adapter_of_all().cloned() }
    }

    /// Positions in front of the text.
    fn front(&self) -> usize {
        self.adapter.as_ref().map_or(0, |it| it.positions())
    }

    /// The positions of the first `len` tokens, with those in front.
    fn positions(&self, len: usize) -> usize {
        if len == 0 { 0 } else { (self.front() + len).min(self.tokens.len()) }
    }

    /// The same with an adapter beside the weights, or without one. Tokens that it holds are forgotten: they were computed otherwise.
    ///
    /// # Errors
    /// If the adapter was made for another engine.
    pub fn with_adapter(mut self, adapter: Option<Arc<Adapter>>) -> Result<Session<'e>> {
        check(adapter.as_deref(), self.engine)?;
        self.truncate(0);
        self.adapter = adapter;
        Ok(self)
    }

    /// The adapter beside the weights.
    pub fn adapter(&self) -> Option<&Arc<Adapter>> {
        self.adapter.as_ref()
    }

    /// The engine it runs on.
    pub fn engine(&self) -> &'e Engine {
        self.engine
    }

    /// Takes logits back that [`Session::feed`] gave, to be written again in place of new memory.
    pub fn reuse(&mut self, logits: Vec<f32>) {
        self.scratch.give(logits);
    }

    /// Begins to measure where time goes; see [`Session::profile`].
    pub fn measure(&mut self) {
        self.scratch.meter.enable();
    }

    /// Where time went since [`Session::measure`].
    pub fn profile(&self) -> Option<&Profile> {
        self.scratch.meter.profile()
    }

    /// The tokens held so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens[self.front().min(self.tokens.len())..]
    }

    /// Bytes of the KV cache.
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Bytes of the KV cache; what forks share counts for each by its part, so that the sum is what they hold together.
    pub fn own_cache_bytes(&self) -> usize {
        self.cache.own_bytes()
    }

    /// Bytes that appending `count` tokens will add to the KV cache.
    pub fn cache_growth(&self, count: usize) -> usize {
        let front = if self.cache.is_empty() { self.front() } else { 0 };
        self.cache.growth(front + count)
    }

    /// A sequence with the first `len` tokens of this one. Their keys and values are shared, not copied; where a sequence
    /// writes to a shared block, it gets its own.
    ///
    /// Where rotations depend on a text's length, the fork is empty: what a longer text left behind would be wrong for it.
    pub fn fork(&self, len: usize) -> Session<'e> {
        let len =
            if self.engine.spec().ropes().any(Rope::depends_on_length) { 0 } else { self.positions(len) };
        Session {
            engine: self.engine,
            cache: self.cache.fork(len),
            tokens: self.tokens[..len].to_vec(),
            scratch: Scratch::default(),
            adapter: self.adapter.clone(),
        }
    }

    /// Writes keys and values, so that [`Session::restore`] can go on without computing them again.
    ///
    /// # Errors
    /// What `out` returns.
    pub fn save(&self, out: &mut impl Write) -> io::Result<()> {
        self.cache.save(out)
    }

    /// Takes up what a session of the same engine with the same adapter has saved while it held `tokens`.
    ///
    /// # Errors
    /// If the bytes can't be read; then it holds nothing.
    pub fn restore(&mut self, tokens: &[u32], input: &mut impl Read) -> io::Result<()> {
        self.truncate(0);
        if tokens.is_empty() {
            return Ok(());
        }
        self.cache.restore(self.front() + tokens.len(), input)?;
        self.tokens = [&vec![0; self.front()][..], tokens].concat();
        Ok(())
    }

    /// Bytes of the buffers that steps have left behind to be used again, besides logits that were not taken back.
    pub fn buffer_bytes(&self) -> usize {
        self.scratch.bytes()
    }

    /// Makes room for this many positions, so that steps up to there allocate nothing.
    pub fn reserve(&mut self, positions: usize) {
        let positions = self.front() + positions;
        self.cache.reserve(positions);
        self.tokens.reserve(positions.saturating_sub(self.tokens.len()));
    }

    /// Forgets all tokens from `len` on. Where the longer text turned by other frequencies, what stays is run again with the next tokens.
    pub fn truncate(&mut self, len: usize) {
        let (now, len) = (self.tokens.len(), self.positions(len));
        let stale =
            (1..now).contains(&len) && self.engine.spec().ropes().any(|rope| rope.changes_between(len, now));
        self.cache.truncate(if stale { 0 } else { len });
        self.tokens.truncate(len);
    }

    /// Appends tokens and gives the logits after the last one, `[vocab]`. A long prompt is run in chunks;
    /// `progress` is told the tokens done after each.
    ///
    /// # Errors
    /// If there are no tokens, the model is an encoder, or an id is out of range.
    pub fn feed(&mut self, ids: &[u32], mut progress: impl FnMut(usize)) -> Result<Vec<f32>> {
        self.check(ids)?;
        let width = self.engine.spec().hidden_size;
        let (mut hidden, mut done) = (Vec::new(), 0);
        for chunk in self.chunks(ids) {
            self.scratch.give(hidden);
            hidden = self.run(chunk)?;
            done += chunk.len();
            progress(done);
        }
        let logits = self.engine.logits(&hidden[hidden.len() - width..], &mut self.scratch);
        self.scratch.give(hidden);
        logits
    }

    /// Appends tokens and hands `each` the logits after every one of them, `[chunk, vocab]`, in order.
    ///
    /// # Errors
    /// As [`Session::feed`], and what `each` returns.
    pub fn feed_all(&mut self, ids: &[u32], mut each: impl FnMut(&[f32]) -> Result<()>) -> Result<()> {
        self.check(ids)?;
        for chunk in self.chunks(ids) {
            let hidden = self.run(chunk)?;
            let logits = self.engine.logits(&hidden, &mut self.scratch)?;
            each(&logits)?;
            self.scratch.give(logits);
            self.scratch.give(hidden);
        }
        Ok(())
    }

    /// Appends tokens and gives the logits after every one of them, `[ids, vocab]`.
    ///
    /// # Errors
    /// As [`Session::feed`].
    pub fn logits(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        self.feed_all(ids, |logits| {
            all.extend_from_slice(logits);
            Ok(())
        })?;
        Ok(all)
    }

    /// Appends tokens, all at once, and gives their hidden states behind the last norm.
    pub(crate) fn hidden(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        self.check(ids)?;
        self.run(ids)
    }

    pub(crate) fn check(&self, ids: &[u32]) -> Result<()> {
        if !self.engine.spec().causal {
            return Err(Error::Unsuitable(
                "this model is an encoder and writes no text; use ounce embed or ounce logits".to_string(),
            ));
        }
        if ids.is_empty() {
            return Err(Error::Unsuitable("there are no tokens to run; give a prompt".to_string()));
        }
        Ok(())
    }

    /// Chunks of a prompt. Rotations that depend on the sequence's length must see it whole.
    fn chunks<'t>(&self, ids: &'t [u32]) -> std::slice::Chunks<'t, u32> {
        let whole = self.engine.spec().ropes().any(Rope::depends_on_length);
        ids.chunks(if whole { ids.len() } else { PREFILL_CHUNK })
    }

    /// Runs a chunk and gives its hidden states; on an error nothing of it stays in the cache.
    fn run(&mut self, chunk: &[u32]) -> Result<Vec<f32>> {
        let before = self.begin(chunk);
        let Session { engine, cache, tokens, scratch, adapter } = self;
        let from = cache.len();
        let part = Part::new(cache, &tokens[from..], &[], engine.spec().causal);
        let part = Part { adapter: adapter.as_ref(), ..part };
        match engine.hidden(&mut [part], scratch) {
            Ok(mut hidden) => {
                let earlier = hidden.len() - chunk.len() * self.engine.spec().hidden_size;
                hidden.drain(..earlier);
                Ok(hidden)
            }
            Err(error) => {
                self.roll_back(before);
                Err(error)
            }
        }
    }

    /// Takes note of new tokens; [`Session::part`] then runs them. Where the longer sequence turns by other
    /// frequencies, all of it is run again: a text gives the same logits whether it comes at once or token by token.
    /// Gives the length to go back to if that fails.
    pub(crate) fn begin(&mut self, chunk: &[u32]) -> usize {
        let before = self.tokens.len();
        if before == 0 {
            self.tokens.resize(self.front(), 0);
        }
        self.tokens.extend_from_slice(chunk);
        let again = before > 0
            && self.engine.spec().ropes().any(|rope| rope.changes_between(before, self.tokens.len()));
        if again {
            self.cache.truncate(0);
        }
        if let Some(adapter) = &self.adapter {
            adapter.begin(&mut self.cache);
        }
        self.cache.len()
    }

    /// The tokens that the cache does not hold yet.
    pub(crate) fn part(&mut self) -> Part<'_> {
        let from = self.cache.len();
        let part = Part::new(&mut self.cache, &self.tokens[from..], &[], self.engine.spec().causal);
        Part { adapter: self.adapter.as_ref(), ..part }
    }

    /// Forgets all from `len` on, of a step that failed halfway too.
    pub(crate) fn roll_back(&mut self, len: usize) {
        self.cache.truncate(len);
        self.tokens.truncate(len);
    }
}
