//! Beginnings that were computed before. What a finished sequence leaves behind stays until its memory is needed, and a
//! prompt that begins alike goes on from there. Blocks of keys and values are shared, not copied.

use std::sync::Arc;

use ounce_engine::{Adapter, Session};

/// Sequences kept at most; looking through them is quick, but not free.
const KEPT: usize = 64;

/// Common tokens below which sharing is not worth a copy of their block.
const WORTH_SHARING: usize = 16;

/// Whether keys and values that were computed with one adapter are those of the other.
pub fn alike(one: Option<&Arc<Adapter>>, other: Option<&Arc<Adapter>>) -> bool {
    one.map(Arc::as_ptr) == other.map(Arc::as_ptr)
}

/// Finished sequences, the least recently used first.
#[derive(Debug, Default)]
pub struct PrefixCache<'e> {
    kept: Vec<Session<'e>>,
}

impl<'e> PrefixCache<'e> {
    /// Keeps a sequence. Those that are its beginning are not needed any more.
    pub fn keep(&mut self, session: Session<'e>) {
        if session.tokens().len() < WORTH_SHARING || session.cache_bytes() == 0 {
            return;
        }
        let covered = |one: &Session<'_>, other: &Session<'_>| {
            alike(one.adapter(), other.adapter()) && other.tokens().starts_with(one.tokens())
        };
        if self.kept.iter().any(|kept| covered(&session, kept)) {
            return;
        }
        self.kept.retain(|kept| !covered(kept, &session));
        if self.kept.len() == KEPT {
            self.kept.remove(0);
        }
        self.kept.push(session);
    }

    /// A sequence with as much of `prompt` as is known with this adapter, all but its last token at most: of the kept ones, or of those
    /// that `running` lists.
    pub fn find<'s>(
        &mut self,
        prompt: &[u32],
        adapter: Option<&Arc<Adapter>>,
        running: impl Iterator<Item = &'s Session<'e>>,
    ) -> Option<Session<'e>>
    where
        'e: 's,
    {
        let limit = prompt.len().saturating_sub(1);
        let common = |session: &Session<'e>| {
            if !alike(session.adapter(), adapter) {
                return 0;
            }
            let same = session.tokens().iter().zip(prompt).take_while(|(a, b)| a == b).count();
            same.min(limit)
        };
        let kept = self.kept.iter().enumerate().map(|(index, session)| (common(session), index)).max();
        let running = running.map(|session| (common(session), session)).max_by_key(|(common, _)| *common);
        let best = kept.map_or(0, |(common, _)| common);
        match running {
            Some((length, session)) if length > best => {
                (length >= WORTH_SHARING).then(|| session.fork(length))
            }
            _ => {
                let (length, index) = kept.filter(|(length, _)| *length >= WORTH_SHARING)?;
                let session = self.kept.remove(index);
                let fork = session.fork(length);
                self.kept.push(session);
                Some(fork)
            }
        }
    }

    /// Gives up the one that was not used for longest; whether there was one.
    pub fn evict(&mut self) -> bool {
        if self.kept.is_empty() {
            return false;
        }
        self.kept.remove(0);
        true
    }

    /// Bytes held, what is shared with running sequences by parts.
    pub fn bytes(&self) -> usize {
        self.kept.iter().map(Session::own_cache_bytes).sum()
    }
}
