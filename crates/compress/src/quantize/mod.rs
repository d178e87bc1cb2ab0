//! Fewer bits a number, or cheaper arithmetic on them.

pub mod allocate;
pub mod awq;
pub mod axes;
mod codebook;
pub(crate) mod demonstration;
mod descent;
pub mod efficient_qat;
pub(crate) mod factor;
pub mod fold;
pub mod gptq;
pub mod hqq;
pub mod imatrix;
pub mod l4q;
pub mod l_mul;
pub mod layers;
pub mod mixdq;
pub mod moments;
pub mod plan;
pub mod prepare;
pub mod rotate;
pub mod sensitivity;
pub mod smooth;
mod store;
pub mod training;

pub use layers::{Finished, Method, Quantizer};
pub use plan::{Plan, Unit, units};
pub use prepare::Preparation;
pub use store::Store;

#[cfg(test)]
mod golden_tests;
