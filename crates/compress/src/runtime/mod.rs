//! Techniques that change how a model runs, not what it is.
//!
//! - [`aded`]: tokens are guessed by a table that learns what the model says, and checked several at once.

pub mod aded;
