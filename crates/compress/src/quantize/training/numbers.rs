//! The numbers beside the weights of a matrix in blocks: factors, and whole numbers of parts.

use ounce_kernels::quant::grid::{Grid, Scales};

/// The numbers that say where the levels of a matrix are, or their gradients.
#[derive(Debug, Clone)]
pub struct Numbers {
    /// d, `[rows, columns / block]`.
    pub factors: Vec<f32>,
    /// d' with the sign that makes `offset = −d' m`, `[rows, columns / block]`; empty where there is none.
    pub seconds: Vec<f32>,
    /// s, `[rows, columns / part]`; empty where parts have none.
    pub parts: Vec<f32>,
    /// m, or z, `[rows, columns / part]`; empty where there are none.
    pub minimums: Vec<f32>,
}

impl Numbers {
    /// As many zeros.
    pub fn zeros(&self) -> Numbers {
        let zeros = |it: &Vec<f32>| vec![0.0; it.len()];
        Numbers {
            factors: zeros(&self.factors),
            seconds: zeros(&self.seconds),
            parts: zeros(&self.parts),
            minimums: zeros(&self.minimums),
        }
    }

    /// The four kinds.
    pub fn kinds(&self) -> [&Vec<f32>; 4] {
        [&self.factors, &self.seconds, &self.parts, &self.minimums]
    }

    /// The four kinds, to be changed.
    pub fn kinds_mut(&mut self) -> [&mut Vec<f32>; 4] {
        [&mut self.factors, &mut self.seconds, &mut self.parts, &mut self.minimums]
    }

    /// Takes over what a block holds, as far as the format has it.
    pub(super) fn push(&mut self, grid: &Grid, stored: &Scales) {
        let parts = grid.block_len() / grid.part();
        self.factors.push(stored.factor);
        if grid.has_second_factor() {
            self.seconds.push(stored.second);
        }
        if grid.scale_range().is_some() {
            self.parts.extend(stored.scales[..parts].iter().map(|&it| f32::from(it)));
        }
        if grid.minimum_top().is_some() {
            self.minimums.extend(stored.minimums[..parts].iter().map(|&it| f32::from(it)));
        }
    }

    /// The numbers of each block, of so many parts.
    pub(super) fn blocks(&mut self, parts: usize) -> Vec<OfBlock<'_>> {
        let mut seconds = self.seconds.iter_mut();
        let mut scales = self.parts.chunks_exact_mut(parts);
        let mut minimums = self.minimums.chunks_exact_mut(parts);
        (self.factors.iter_mut())
            .map(|factor| OfBlock {
                factor,
                second: seconds.next(),
                parts: scales.next().unwrap_or_default(),
                minimums: minimums.next().unwrap_or_default(),
            })
            .collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.kinds().into_iter().map(Vec::len).sum()
    }
}

/// The numbers of one block.
pub(super) struct OfBlock<'n> {
    pub factor: &'n mut f32,
    pub second: Option<&'n mut f32>,
    pub parts: &'n mut [f32],
    pub minimums: &'n mut [f32],
}
