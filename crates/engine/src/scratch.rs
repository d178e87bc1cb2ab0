//! Memory that is used again: after the first step of a size a forward pass allocates nothing.

use ounce_kernels::packed::Activations;

use crate::beside::Beside;
use crate::profile::Meter;
use crate::rotation::Rotation;
use crate::tap::SharedTap;

/// Buffers that are free at the moment, activations in the kernels' forms, rotations of the batch at hand, and the
/// meter of those who ask where time goes.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    free: Vec<Vec<f32>>,
    pub(crate) activations: Activations,
    pub(crate) rotations: Vec<Rotation>,
    pub(crate) meter: Meter,
    /// Who watches what linears are given.
    pub(crate) tap: Option<SharedTap>,
    /// Whether the one who watches has seen enough of this pass.
    pub(crate) enough: bool,
    /// The queries of the last layer that had its own, where layers behind it copy its attention.
    pub(crate) echo: Vec<f32>,
    /// What is added beside linears, by rows of the pass at hand.
    pub(crate) beside: Beside,
}

impl Scratch {
    /// A buffer of this length; what it holds is unspecified.
    pub(crate) fn take(&mut self, len: usize) -> Vec<f32> {
        // The tightest fit leaves the large ones to those who need them; the last one given back is the likeliest to
        // be in the cache.
        let fitting = self.free.iter().enumerate().rev().filter(|(_, buffer)| buffer.capacity() >= len);
        let mut buffer = match fitting.min_by_key(|(_, buffer)| buffer.capacity()) {
            Some((index, _)) => self.free.swap_remove(index),
            None => Vec::with_capacity(len),
        };
        // Longer than needed costs nothing; only what was never written has to be.
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        } else {
            buffer.truncate(len);
        }
        buffer
    }

    /// A buffer with a copy of `x`.
    pub(crate) fn copy(&mut self, x: &[f32]) -> Vec<f32> {
        let mut buffer = self.take(x.len());
        buffer.copy_from_slice(x);
        buffer
    }

    /// Bytes of the buffers that are free, and of activations in the kernels' forms.
    pub(crate) fn bytes(&self) -> usize {
        let free: usize = self.free.iter().map(|buffer| buffer.capacity() * size_of::<f32>()).sum();
        free + self.activations.bytes()
    }

    /// Lets go of the free buffers: those of sizes that came once would stay for ever.
    pub(crate) fn renew(&mut self) {
        self.free.clear();
    }

    /// Takes a buffer back.
    pub(crate) fn give(&mut self, buffer: Vec<f32>) {
        if buffer.capacity() > 0 {
            self.free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_free_buffer_is_taken() {
        let mut scratch = Scratch::default();
        let (small, large) = (scratch.take(10), scratch.take(1000));
        let places = (small.as_ptr(), large.as_ptr());
        scratch.give(large);
        scratch.give(small);
        let (small, large) = (scratch.take(5), scratch.take(500));
        assert_eq!((small.as_ptr(), large.as_ptr()), places);
    }
}
