//! Steps of optimizers: what a parameter, its gradient and its state become, in one pass over memory.
//!
//! Every step takes a factor on the gradient, which is how a limit on the gradients' norm is applied without a pass
//! of its own: [`norm::sum_of_squares`] gives the norm.

pub mod adamw;
pub mod adamw8;
pub mod lion;
pub mod muon;
pub mod norm;
pub mod sgd;
#[cfg(test)]
mod tests;

pub use adamw::AdamW;
pub use lion::Lion;
pub use muon::Muon;
pub use sgd::Sgd;
