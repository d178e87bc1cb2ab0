//! Sequences carried through a model layer by layer: for techniques that change a layer and want the next one to see what
//! the changed layer gives.
//!
//! Only one layer's weights are in use at a time, so that a model larger than memory can be walked through. The hidden
//! states of all tokens are held: `tokens · hidden size · 4` bytes; where a layer is gone through in steps
//! ([`Walk::look_on`]), also what its next linear layers are given, and the hidden states there.

use ounce_model::{Model, Weights};

use crate::arithmetic::Mode;
use crate::batch::{Part, Span};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::layer::{Layer, Way};
use crate::scratch::Scratch;
use crate::tap::SharedTap;

/// Tokens that are run at once, at least where sequences are shorter.
const STEP_TOKENS: usize = 2048;

/// Sequences on their way through a model.
pub struct Walk {
    /// Everything but layers.
    shell: Engine,
    sequences: Vec<Vec<u32>>,
    /// Hidden states of all tokens, `[tokens, hidden]`, sequence behind sequence.
    x: Vec<f32>,
    mode: Mode,
    layer: usize,
    /// How far the steps' tokens have come into the next layer; empty if they stand before it.
    ways: Vec<Way>,
    scratch: Scratch,
}

/// What becomes of the way into a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All stays where it was.
    Before,
    /// Where the tap had enough.
    Within,
    /// Behind the layer.
    Behind,
}

impl Walk {
    /// Embeds the sequences. `mode` is how layers will be computed.
    ///
    /// # Errors
    /// If a tensor can't be read, or an id is out of range or has no position.
    pub fn begin(model: &Model, sequences: Vec<Vec<u32>>, mode: Mode) -> Result<Walk> {
        if model.spec.copying_layers() > 0 {
            return Err(Error::Unsuitable(
                "layers of this model copy the attention of layers before them, so they can't be looked at one by one; do this to the model that \
                 it was made of"
                    .into(),
            ));
        }
        let shell = Engine::load_shell(model, mode)?;
        let mut scratch = Scratch::default();
        let mut x = Vec::new();
        for ids in &sequences {
            let embedded = shell.embedded(ids, &[], 0, &mut scratch)?;
            x.extend_from_slice(&embedded);
            scratch.give(embedded);
        }
        Ok(Walk { shell, sequences, x, mode, layer: 0, ways: Vec::new(), scratch })
    }

    /// The next layer's number; as many as the model has layers when all are behind.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// Tokens on their way.
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(Vec::len).sum()
    }

    /// Hidden states of all tokens where they stand, `[tokens, hidden]`, sequence behind sequence.
    pub fn hidden(&self) -> &[f32] {
        &self.x
    }

    /// Shows `tap` what the next layer's linears are given, without going on. Of every step no more is computed than the tap
    /// wants to see.
    ///
    /// # Errors
    /// If a tensor can't be read, and what `progress` returns; it is told the tokens done.
    ///
    /// # Panics
    /// If no layer is left.
    pub fn look(
        &mut self,
        weights: &Weights,
        tap: SharedTap,
        progress: impl FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        self.watched(weights, tap, End::Before, progress)
    }

    /// As [`Walk::look`], from the place within the layer where the call before ended, for a tap that wants to see linear
    /// layers behind it. [`Walk::advance`] goes on from there too: weights that were used on the way must stay as they are,
    /// or [`Walk::forget`] be called.
    ///
    /// # Errors
    /// As [`Walk::look`].
    ///
    /// # Panics
    /// If no layer is left.
    pub fn look_on(
        &mut self,
        weights: &Weights,
        tap: SharedTap,
        progress: impl FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        self.watched(weights, tap, End::Within, progress)
    }

    /// Forgets how far [`Walk::look_on`] came into the next layer.
    pub fn forget(&mut self) {
        self.ways.clear();
    }

    /// Goes through the next layer with these weights.
    ///
    /// # Errors
    /// As [`Walk::look`].
    ///
    /// # Panics
    /// If no layer is left.
    pub fn advance(&mut self, weights: &Weights, progress: impl FnMut(usize) -> Result<()>) -> Result<()> {
        self.run(weights, End::Behind, progress)?;
        self.layer += 1;
        Ok(())
    }

    /// Goes through the next layer with these weights and shows `tap` what its linears are given; it must not have enough.
    ///
    /// # Errors
    /// As [`Walk::look`].
    ///
    /// # Panics
    /// If no layer is left.
    pub fn watch(
        &mut self,
        weights: &Weights,
        tap: SharedTap,
        progress: impl FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        self.forget();
        self.watched(weights, tap, End::Behind, progress)?;
        self.layer += 1;
        Ok(())
    }

    /// Shows `tap` what the head is given; all layers must be behind.
    ///
    /// # Errors
    /// If the model has no head, or its logits are not finite.
    pub fn look_at_head(&mut self, tap: SharedTap) -> Result<()> {
        let hidden = self.shell.spec().hidden_size;
        self.scratch.tap = Some(tap);
        let mut done = Ok(());
        for x in self.x.chunks(STEP_TOKENS * hidden) {
            let normed = self.shell.final_normed(x, &mut self.scratch);
            self.scratch.enough = false;
            let logits = self.shell.logits(&normed, &mut self.scratch);
            self.scratch.give(normed);
            // What was not computed need not be finite.
            if !std::mem::take(&mut self.scratch.enough) {
                match logits {
                    Ok(logits) => self.scratch.give(logits),
                    Err(error) => done = Err(error),
                }
            }
        }
        self.scratch.tap = None;
        done
    }

    fn watched(
        &mut self,
        weights: &Weights,
        tap: SharedTap,
        end: End,
        progress: impl FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        self.scratch.tap = Some(tap);
        let done = self.run(weights, end, progress);
        self.scratch.tap = None;
        done
    }

    fn run(
        &mut self,
        weights: &Weights,
        end: End,
        mut progress: impl FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let Walk { shell, sequences, x, mode, layer: index, ways, scratch } = self;
        // After an error the ways of some steps are behind those of others: the layer is gone through from its beginning.
        let mut earlier = std::mem::take(ways).into_iter();
        let mut later = Vec::new();
        let spec = shell.spec();
        let owner = spec.layers[*index].shares.unwrap_or(*index);
        let layer = Layer::load(weights, owner, &spec.layers[owner], false, *mode)?;
        let hidden = spec.hidden_size;
        let (mut rest, mut done, mut first) = (&mut x[..], 0, 0);
        while first < sequences.len() {
            let (mut last, mut tokens) = (first, 0);
            while last < sequences.len() && (last == first || tokens + sequences[last].len() <= STEP_TOKENS) {
                tokens += sequences[last].len();
                last += 1;
            }
            let batch = &sequences[first..last];
            let mut caches: Vec<_> = batch.iter().map(|_| shell.new_cache()).collect();
            let mut parts: Vec<Part<'_>> = (caches.iter_mut().zip(batch))
                .map(|(cache, ids)| Part::new(cache, ids, &[], spec.causal))
                .collect();
            let spans: Vec<Span> = parts.iter().map(|part| part.span).collect();
            let (own, more) = std::mem::take(&mut rest).split_at_mut(tokens * hidden);
            let mut rotations = std::mem::take(&mut scratch.rotations);
            let rotation = shell.rotations(&spans, *index, &mut rotations);
            scratch.enough = false;
            match end {
                End::Before => {
                    let mut x = scratch.copy(own);
                    layer.forward(&mut x, hidden, *index, &mut parts, rotation, scratch);
                    scratch.give(x);
                }
                End::Within | End::Behind => {
                    let mut way = earlier.next().unwrap_or_default();
                    let behind = layer.go_on(own, hidden, *index, &mut parts, rotation, &mut way, scratch);
                    if let (End::Behind, Some(x)) = (end, &behind) {
                        own.copy_from_slice(x);
                    }
                    behind.into_iter().for_each(|x| scratch.give(x));
                    later.push(way);
                }
            }
            scratch.enough = false;
            scratch.rotations = rotations;
            (rest, first) = (more, last);
            done += tokens;
            progress(done)?;
        }
        if end == End::Within {
            *ways = later;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Walk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Walk({} tokens before layer {})", self.tokens(), self.layer)
    }
}
