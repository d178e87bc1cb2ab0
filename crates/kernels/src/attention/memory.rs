//! Zeroed memory that begins at a cache line, as bytes or as numbers.

use bytemuck::{Pod, Zeroable};

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; Lines::ALIGN]);

// SAFETY: bytes only, without padding: size and alignment are both 64.
unsafe impl Zeroable for Line {}
// SAFETY: as above; any bytes are a line.
unsafe impl Pod for Line {}

/// Whole cache lines.
#[derive(Clone, Default)]
pub(crate) struct Lines(Vec<Line>);

impl Lines {
    /// Bytes of a line; what begins at a multiple of it is aligned.
    pub(crate) const ALIGN: usize = 64;

    /// Zeros, at least this many bytes.
    pub(crate) fn zeroed(bytes: usize) -> Lines {
        Lines(vec![Line([0; Lines::ALIGN]); bytes.div_ceil(Lines::ALIGN)])
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.0.capacity() * Lines::ALIGN
    }

    /// Makes it hold at least this many f32; what it held may stay.
    pub(crate) fn grow(&mut self, floats: usize) {
        let lines = (floats * size_of::<f32>()).div_ceil(Lines::ALIGN);
        if lines > self.0.len() {
            self.0.resize(lines, Line([0; Lines::ALIGN]));
        }
    }

    pub(crate) fn as_slice<E: Pod>(&self) -> &[E] {
        bytemuck::cast_slice(&self.0)
    }

    pub(crate) fn as_mut_slice<E: Pod>(&mut self) -> &mut [E] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lines({} bytes)", self.bytes())
    }
}
