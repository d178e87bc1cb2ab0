//! Small convolutional networks: for each pixel or for the whole image, on candle's autograd with ounce's kernels.
//!
//! - [`Architecture`]: a network as a list of steps, which training and deployment both read; a classifier and a U-Net.
//! - [`Net`]: its weights, trained; [`Hook`] sees, and may change, what weights and values are computed with.
//! - [`ops`]: convolution, batch norm, pooling and their gradients; [`loss`]: cross-entropy and Dice on single logits.
//! - [`fold`](fn@fold): batch norms folded into the convolutions before them.
//! - [`scenes`]: generated pictures of the ground from above, some of them on fire, with masks.
//!
//! Images are NHWC.

mod architecture;
mod fold;
pub mod loss;
mod net;
pub mod ops;
pub mod scenes;

pub use architecture::{Architecture, Step};
pub use fold::{Folded, FoldedConv, fold};
pub use net::{Hook, Net, NoHook, Norms, Trained};

#[cfg(test)]
mod tests;
