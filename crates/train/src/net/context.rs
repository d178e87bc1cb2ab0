//! What every part of a forward or backward pass needs besides its own weights.

use ounce_kernels::gemm::Compute;
use ounce_kernels::pool::Pool;

use super::buffers::Buffers;
use super::rotation::Rotation;
use crate::Param;

/// The state of one pass over one batch.
pub(crate) struct Context<'a> {
    /// All weights; parts know theirs by index.
    pub params: &'a mut [Param],
    pub buffers: &'a mut Buffers,
    pub pool: &'a Pool,
    /// How products of linear layers are computed.
    pub compute: Compute,
    /// Tokens of each sequence of the batch.
    pub lengths: &'a [usize],
    /// Cosines and sines of the batch's positions, one set for each kind of rotation.
    pub rotations: &'a [Rotation],
}
