//! The network of any model on candle's tensors and autograd: slower than [`crate::net`], but every linear layer is a
//! slot that any differentiable code can take, and every block has hooks.
//!
//! - [`GraphNet`] builds the network; [`Pass`] is one batch on its way through it.
//! - [`Slot`] is a linear layer: [`Linear`], or what wraps it.
//! - [`Hook`] sees, and may change, what goes into and comes out of blocks.
//! - [`Weight`] is what a slot trains; between passes its values are those of its [`crate::Param`].
//! - [`ops`]: operations with backward passes on ounce's kernels.
//!
//! `docs/adding-a-trainable-part.md` shows how to add to it.

mod attention;
mod build;
mod embedding;
mod experts;
mod feed_forward;
mod head;
mod hook;
mod layer;
mod net;
mod norm;
pub mod ops;
mod pass;
mod slot;
mod weight;

pub use self::build::Wrap;
pub use self::hook::{Hook, NoHook};
pub use self::net::{GraphNet, Objective};
pub use self::pass::Pass;
pub use self::slot::{Linear, Matrix, Slot};
pub use self::weight::Weight;
