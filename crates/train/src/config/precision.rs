//! What products of a training run are computed in.

use ounce_kernels::gemm::Compute;
use serde::{Deserialize, Serialize};

/// What products are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// Operands of linear layers in bf16; weights and sums in f32.
    Bf16,
}

impl Precision {
    /// The same as a network's option.
    pub fn compute(self) -> Compute {
        match self {
            Precision::F32 => Compute::F32,
            Precision::Bf16 => Compute::Bf16,
        }
    }
}
