//! KV cache of one sequence: keys and values of every position so far, a [`LayerCache`] a layer. Keys are kept
//! rotated. Knows nothing of tokens or text.

use std::io::{self, Read, Write};

use ounce_kernels::attention::LayerCache;

/// Keys and values of all layers of one sequence.
#[derive(Debug, Clone)]
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
    len: usize,
}

impl KvCache {
    /// A cache of these layers, all empty.
    pub(crate) fn new(layers: Vec<LayerCache>) -> KvCache {
        KvCache { layers, len: 0 }
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(LayerCache::bytes).sum()
    }

    /// Bytes in use; what several caches share counts for each by its part.
    pub fn own_bytes(&self) -> usize {
        self.layers.iter().map(LayerCache::own_bytes).sum()
    }

    /// Bytes that `count` more positions will add.
    pub fn growth(&self, count: usize) -> usize {
        self.layers.iter().map(|layer| layer.growth(count)).sum()
    }

    /// A cache with the first `len` positions, which it shares with this one until one of both writes to them.
    pub fn fork(&self, len: usize) -> KvCache {
        let len = len.min(self.len);
        KvCache { layers: self.layers.iter().map(|layer| layer.fork(len)).collect(), len }
    }

    /// Makes room for this many positions.
    pub(crate) fn reserve(&mut self, positions: usize) {
        self.layers.iter_mut().for_each(|layer| layer.reserve(positions));
    }

    /// Forgets all positions from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.layers.iter_mut().for_each(|layer| layer.truncate(len));
    }

    /// Writes what is held; see [`LayerCache::save`].
    pub(crate) fn save(&self, out: &mut impl Write) -> io::Result<()> {
        self.layers.iter().try_for_each(|layer| layer.save(out))
    }

    /// Takes up `len` positions that were saved; on an error nothing is held.
    pub(crate) fn restore(&mut self, len: usize, input: &mut impl Read) -> io::Result<()> {
        let outcome = self.layers.iter_mut().try_for_each(|layer| layer.restore(len, input));
        self.len = len;
        if outcome.is_err() {
            self.truncate(0);
        }
        outcome
    }

    /// Counts positions that all layers have been given.
    pub(crate) fn advance(&mut self, count: usize) {
        self.len += count;
    }
}
