//! KV cache: keys and values of every position so far, f32. Layout: per layer `[position][kv head][dim]`.
//! Keys are kept rotated. Knows nothing of tokens or text.

/// Keys and values of one layer.
#[derive(Debug, Clone, Default)]
pub struct LayerCache {
    /// `[positions, kv width]`.
    pub(crate) keys: Vec<f32>,
    /// `[positions, kv width]`.
    pub(crate) values: Vec<f32>,
}

/// Keys and values of all layers of one sequence.
#[derive(Debug, Clone)]
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
    widths: Vec<usize>,
    len: usize,
}

impl KvCache {
    /// An empty cache; `widths` are the layers' key widths, 0 for a layer without attention.
    pub fn new(widths: Vec<usize>) -> KvCache {
        KvCache { layers: vec![LayerCache::default(); widths.len()], widths, len: 0 }
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
        self.layers.iter().map(|layer| (layer.keys.len() + layer.values.len()) * size_of::<f32>()).sum()
    }

    /// Forgets all positions from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        for (layer, width) in self.layers.iter_mut().zip(&self.widths) {
            layer.keys.truncate(self.len * width);
            layer.values.truncate(self.len * width);
        }
    }

    /// Counts positions that all layers have been given.
    pub(crate) fn advance(&mut self, count: usize) {
        self.len += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncating_drops_the_last_positions_of_every_layer() {
        let mut cache = KvCache::new(vec![2, 0, 3]);
        for (layer, width) in [(0, 2), (2, 3)] {
            cache.layers[layer].keys = (0..4 * width).map(|i| i as f32).collect();
            cache.layers[layer].values = vec![1.0; 4 * width];
        }
        cache.advance(4);
        assert_eq!(cache.bytes(), 4 * 2 * 5 * 4);
        cache.truncate(1);
        assert_eq!((cache.len(), cache.bytes()), (1, 2 * 5 * 4));
        assert_eq!(cache.layers[2].keys, [0.0, 1.0, 2.0]);
    }
}
