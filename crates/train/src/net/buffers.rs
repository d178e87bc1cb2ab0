//! Memory that is used again: after the first step of a size a training step allocates nothing.

use ounce_kernels::gemm::Workspace;

/// Buffers that are free at the moment and what kernels keep between calls.
#[derive(Default)]
pub(crate) struct Buffers {
    free: Vec<Vec<f32>>,
    /// Panels of matrix products.
    pub gemm: Workspace,
    /// Panels of attention's backward pass.
    pub attention: Vec<f32>,
    /// Values in buffers that are in use, and the most there were at once.
    used: usize,
    peak: usize,
}

impl Buffers {
    /// A buffer of this length; what it holds is unspecified.
    pub fn take(&mut self, len: usize) -> Vec<f32> {
        self.used += len;
        self.peak = self.peak.max(self.used);
        let fitting = self.free.iter().enumerate().rev().filter(|(_, buffer)| buffer.capacity() >= len);
        // Up to twice the size wastes little; more would take a large buffer from who needs it next.
        let fitting = fitting.filter(|(_, buffer)| buffer.capacity() <= 2 * len.max(1 << 10));
        let mut buffer = match fitting.min_by_key(|(_, buffer)| buffer.capacity()) {
            Some((index, _)) => self.free.swap_remove(index),
            None => Vec::with_capacity(len),
        };
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        } else {
            buffer.truncate(len);
        }
        buffer
    }

    /// Takes a buffer back.
    pub fn give(&mut self, buffer: Vec<f32>) {
        self.used = self.used.saturating_sub(buffer.len());
        if buffer.capacity() > 0 {
            self.free.push(buffer);
        }
    }

    /// The most bytes that were in use at once.
    pub fn peak_bytes(&self) -> usize {
        self.peak * size_of::<f32>()
    }
}

impl std::fmt::Debug for Buffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffers({} free, peak {} bytes)", self.free.len(), self.peak_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_the_peak_is_counted() {
        let mut buffers = Buffers::default();
        let (small, large) = (buffers.take(2000), buffers.take(100_000));
        let places = (small.as_ptr(), large.as_ptr());
        buffers.give(large);
        buffers.give(small);
        let (small, large) = (buffers.take(1999), buffers.take(99_000));
        assert_eq!((small.as_ptr(), large.as_ptr()), places);
        assert_eq!(buffers.peak_bytes(), 4 * 102_000);
    }
}
