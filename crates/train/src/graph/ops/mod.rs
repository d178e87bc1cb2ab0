//! Operations on candle's tensors, computed by ounce's kernels, each with its backward pass.
//!
//! An operation is a function: it computes its result at once and hands it, with a closure for the way back, to
//! [`node()`]. Results are f32 and lie in one piece; `x` may have any rank, its last dimension is what an operation
//! works along. Inputs that nothing trainable led to cost no gradient.
//!
//! - [`linear()`]: products with a dense matrix or with one as it is stored, quantized or not.
//! - [`norm()`], [`rotate`], [`attention()`], [`activation`], [`softmax()`]: the rest of a layer.
//! - [`gather`], [`scatter`]: rows by number; [`patches()`]: what a convolution sees.
//! - [`linear_loss`], [`logit_loss`]: the loss without all logits at once, and on logits that are there.

pub mod activation;
mod attention;
mod embedding;
mod linear;
mod loss;
mod node;
mod norm;
mod patches;
mod rope;
mod softmax;

use std::cell::RefCell;

use candle_core::Tensor;
use ounce_kernels::gemm::{Compute, Operand, Workspace, gemm};
use ounce_kernels::pool::Pool;

pub use self::attention::attention;
pub use self::embedding::{gather, scatter};
pub use self::linear::{Factor, linear};
pub use self::loss::{Head, linear_loss, logit_loss};
pub use self::node::{Behind, node, read, tensor};
pub use self::norm::norm;
pub use self::patches::patches;
pub use self::rope::rotate;
pub use self::softmax::softmax;
use crate::{Error, Result};

/// What operations compute with.
#[derive(Debug, Clone, Copy)]
pub struct Kernels {
    /// The threads to use.
    pub pool: &'static Pool,
    /// How products are computed.
    pub compute: Compute,
}

impl Default for Kernels {
    fn default() -> Kernels {
        Kernels { pool: Pool::global(), compute: Compute::default() }
    }
}

thread_local! {
    /// Panels of products, used again from one to the next.
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

impl Kernels {
    /// `out = a · b` of `size = (m, n, k)`, added to what `out` holds if `accumulate`.
    fn product(
        self,
        size: (usize, usize, usize),
        a: Operand<'_>,
        b: Operand<'_>,
        accumulate: bool,
        out: &mut [f32],
    ) {
        WORKSPACE.with_borrow_mut(|workspace| {
            gemm(self.pool, self.compute, size, a, b, accumulate, out, size.1, workspace);
        });
    }
}

/// The last dimension of a tensor.
fn last(x: &Tensor) -> usize {
    x.dims().last().copied().unwrap_or(1)
}

/// Refuses a tensor whose last dimension is not `width`.
fn check_last(what: &str, x: &Tensor, width: usize) -> Result<()> {
    if last(x) == width && width > 0 && x.rank() > 0 {
        return Ok(());
    }
    Err(Error::Unsupported(format!(
        "{what}: a tensor of shape {:?} where rows of {width} are needed",
        x.dims()
    )))
}

/// The shape of `x` with another last dimension.
fn with_last(x: &Tensor, width: usize) -> Vec<usize> {
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = width;
    }
    shape
}
