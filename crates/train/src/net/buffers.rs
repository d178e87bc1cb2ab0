//! Memory that is used again: after the first steps a training step allocates nothing, or next to nothing where steps differ in size.

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
    /// What buffers in use could hold.
    out: usize,
}

/// How much more than the most that was in use at once may be held, so that steps of other sizes find what fits.
const SPARE: f64 = 1.25;

/// The length to allocate for one: rounded up by an eighth at most, so that the next step's, a few tokens longer, fits too. What
/// is not used of it is never touched, and takes no memory.
fn roomy(len: usize) -> usize {
    len.next_multiple_of(1 << len.max(1).ilog2().saturating_sub(3))
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
            None => {
                self.make_room(len);
                Vec::with_capacity(roomy(len))
            }
        };
        self.out += buffer.capacity();
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        } else {
            buffer.truncate(len);
        }
        buffer
    }

    /// Gives up buffers that nothing fits any more, before another one of `len` is allocated: those a little too small
    /// first, which it stands in for.
    fn make_room(&mut self, len: usize) {
        let most = (SPARE * self.peak as f64) as usize;
        let mut held = self.out + len + self.free.iter().map(Vec::capacity).sum::<usize>();
        while held > most {
            let too_small = self.free.iter().enumerate().filter(|(_, buffer)| buffer.capacity() < len);
            let next = too_small.max_by_key(|(_, buffer)| buffer.capacity());
            let next =
                next.or_else(|| self.free.iter().enumerate().min_by_key(|(_, buffer)| buffer.capacity()));
            let Some((index, _)) = next else { break };
            held -= self.free.swap_remove(index).capacity();
        }
    }

    /// Takes a buffer back.
    pub fn give(&mut self, buffer: Vec<f32>) {
        self.used = self.used.saturating_sub(buffer.len());
        self.out = self.out.saturating_sub(buffer.capacity());
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

    #[test]
    fn steps_of_other_sizes_hold_little_more() {
        let mut buffers = Buffers::default();
        let mut allocated = Vec::new();
        for step in 0..60 {
            let tokens = 900 + step * 37 % 200;
            let out: Vec<_> = (1..9).map(|width| buffers.take(tokens * width * 16)).collect();
            out.into_iter().for_each(|buffer| buffers.give(buffer));
            let held: usize = buffers.free.iter().map(Vec::capacity).sum();
            assert!(held as f64 <= 1.4 * buffers.peak as f64, "{step}: {held} of {}", buffers.peak);
            allocated.push(
                buffers
                    .free
                    .iter()
                    .map(|buffer| buffer.as_ptr() as usize)
                    .collect::<std::collections::BTreeSet<_>>(),
            );
        }
        // In the end all that is asked for is there.
        assert_eq!(allocated[58], allocated[59]);
    }
}
