//! Memory that is used again: after the first step of a size a forward pass allocates nothing.

use ounce_kernels::packed::Activations;

/// Buffers that are free at the moment, and activations in the kernels' forms.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    free: Vec<Vec<f32>>,
    pub(crate) activations: Activations,
}

impl Scratch {
    /// A buffer of this length; what it holds is unspecified.
    pub(crate) fn take(&mut self, len: usize) -> Vec<f32> {
        // The last one given back is the likeliest to be in the cache, if it is large enough.
        let fitting = self.free.iter().rposition(|buffer| buffer.capacity() >= len);
        let mut buffer = match fitting {
            Some(index) => self.free.swap_remove(index),
            None => self.free.pop().unwrap_or_default(),
        };
        buffer.resize(len, 0.0);
        buffer
    }

    /// A buffer with a copy of `x`.
    pub(crate) fn copy(&mut self, x: &[f32]) -> Vec<f32> {
        let mut buffer = self.take(x.len());
        buffer.copy_from_slice(x);
        buffer
    }

    /// Takes a buffer back.
    pub(crate) fn give(&mut self, buffer: Vec<f32>) {
        self.free.push(buffer);
    }
}
