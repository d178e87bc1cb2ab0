//! Fewer bits a number, or cheaper arithmetic on them.

mod descent;
pub mod efficient_qat;
mod factor;
pub mod gptq;
pub mod l_mul;
pub mod layers;
pub mod moments;
pub mod plan;
mod store;

pub use layers::{Finished, Method, Quantizer};
pub use plan::{Plan, Unit, units};
pub use store::Store;
