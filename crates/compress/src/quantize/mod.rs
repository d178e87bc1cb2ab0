//! Fewer bits a number, or cheaper arithmetic on them.

pub mod allocate;
mod descent;
mod factor;
pub mod gptq;
pub mod imatrix;
pub mod l_mul;
pub mod layers;
pub mod moments;
pub mod plan;
pub mod sensitivity;
mod store;

pub use layers::{Finished, Method, Quantizer};
pub use plan::{Plan, Unit, units};
pub use store::Store;
