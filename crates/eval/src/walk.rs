//! How a model is led over texts: windows of all documents in order, and the logits of every predicted token.

use ounce_engine::{Engine, Error, Result, Session};

use crate::perplexity::{Options, Window, windows};

/// Tokens run at once; the logits of so many are in memory.
const CHUNK: usize = 256;

/// Documents with their prefix, and the windows over them.
#[derive(Debug)]
pub(crate) struct Plan {
    documents: Vec<Vec<u32>>,
    /// A document's number and a window over it.
    windows: Vec<(usize, Window)>,
    /// Tokens that are predicted in all.
    pub tokens: usize,
}

impl Plan {
    /// Lays windows over documents.
    ///
    /// # Errors
    /// If an option is out of its range.
    pub fn new(documents: &[Vec<u32>], options: &Options) -> Result<Plan> {
        let documents: Vec<Vec<u32>> =
            documents.iter().map(|ids| options.prefix.iter().chain(ids).copied().collect()).collect();
        let mut all = Vec::new();
        for (number, ids) in documents.iter().enumerate() {
            all.extend(windows(ids.len(), options)?.into_iter().map(|window| (number, window)));
        }
        let tokens = documents.iter().map(|ids| ids.len().saturating_sub(1)).sum();
        Ok(Plan { documents, windows: all, tokens })
    }

    /// Each window with its document's tokens.
    pub fn windows(&self) -> impl Iterator<Item = (&[u32], Window)> {
        self.windows.iter().map(|&(number, window)| (self.documents[number].as_slice(), window))
    }
}

/// A model on its way through one window.
#[derive(Debug)]
pub(crate) struct Walk<'e, 't> {
    session: Session<'e>,
    given: std::slice::Chunks<'t, u32>,
    /// Positions to come that predict nothing.
    skip: usize,
    /// Tokens that are still to be predicted.
    targets: &'t [u32],
}

impl<'e, 't> Walk<'e, 't> {
    /// Starts a window over `ids`. `whole` makes one chunk of it, as [`runs_whole`] demands; walks of the same
    /// window with the same `whole` take the same steps.
    ///
    /// # Errors
    /// If a token is unknown to the model, or the model is an encoder.
    pub fn new(engine: &'e Engine, ids: &'t [u32], window: Window, whole: bool) -> Result<Walk<'e, 't>> {
        let mut session = engine.session();
        let mut given = &ids[window.start..window.end - 1];
        // Positions before the one that predicts the first token need no logits.
        let mut skip = window.first - 1 - window.start;
        if skip > 0 && !whole {
            session.feed(&given[..skip], |_| {})?;
            given = &given[skip..];
            skip = 0;
        }
        let given = given.chunks(if whole { given.len().max(1) } else { CHUNK });
        Ok(Walk { session, given, skip, targets: &ids[window.first..window.end] })
    }

    /// Runs the next chunk and hands `each` its predicted tokens with their logits, `[tokens, vocab]`, in one or
    /// more pieces. False when nothing was left to run.
    ///
    /// # Errors
    /// As [`Walk::new`], and what `each` returns.
    pub fn step(&mut self, mut each: impl FnMut(&[u32], &[f32]) -> Result<()>) -> Result<bool> {
        let Walk { session, given, skip, targets } = self;
        let vocab = session.engine().spec().vocab_size;
        let Some(chunk) = given.next() else { return Ok(false) };
        session.feed_all(chunk, |logits| {
            let skipped = (*skip).min(logits.len() / vocab);
            *skip -= skipped;
            let logits = &logits[skipped * vocab..];
            let (now, later) = targets.split_at(logits.len() / vocab);
            *targets = later;
            if let Some(&id) = now.iter().find(|&&id| id as usize >= vocab) {
                return Err(Error::Token { id, vocab_size: vocab });
            }
            each(now, logits)
        })?;
        Ok(true)
    }
}

/// Whether a sequence must be run at once, because its rotation depends on its length.
pub(crate) fn runs_whole(engine: &Engine) -> bool {
    engine.spec().ropes().any(ounce_model::rope::Rope::depends_on_length)
}
