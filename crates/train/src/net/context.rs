//! What every part of a forward or backward pass needs besides its own weights.

use ounce_kernels::gemm::Compute;
use ounce_kernels::matmul::add_scaled;
use ounce_kernels::pool::Pool;
use ounce_kernels::vector::add;

use super::buffers::Buffers;
use super::rotation::Rotation;
use super::steps::Packed;
use crate::Param;

/// The state of one pass over one batch.
pub(crate) struct Context<'a> {
    /// All weights; parts know theirs by index.
    pub params: &'a mut [Param],
    /// Matrices whose step sizes are trained.
    pub packed: &'a [Packed],
    pub buffers: &'a mut Buffers,
    pub pool: &'a Pool,
    /// How products of linear layers are computed.
    pub compute: Compute,
    /// Tokens of each sequence of the batch.
    pub lengths: &'a [usize],
    /// Cosines and sines of the batch's positions, one set for each kind of rotation.
    pub rotations: &'a [Rotation],
    /// Weight of the loss that keeps experts evenly used.
    pub balance: f32,
}

/// Values that a thread takes at a time in work that is all memory.
const CHUNK: usize = 1 << 14;

impl Context<'_> {
    /// A buffer of zeros.
    pub fn zeros(&mut self, len: usize) -> Vec<f32> {
        let mut buffer = self.buffers.take(len);
        self.pool.split_chunks(&mut buffer, CHUNK, |_, part| part.fill(0.0));
        buffer
    }

    /// A buffer with a copy of `x`.
    pub fn copy(&mut self, x: &[f32]) -> Vec<f32> {
        let mut buffer = self.buffers.take(x.len());
        self.pool.split_chunks(&mut buffer, CHUNK, |chunk, part| {
            part.copy_from_slice(&x[chunk * CHUNK..][..part.len()]);
        });
        buffer
    }

    /// `out += factor · x`.
    pub fn add(&self, factor: f32, x: &[f32], out: &mut [f32]) {
        self.pool.split_chunks(out, CHUNK, |chunk, part| {
            let x = &x[chunk * CHUNK..][..part.len()];
            if factor == 1.0 { add(part, x) } else { add_scaled(factor, x, part) }
        });
    }
}
