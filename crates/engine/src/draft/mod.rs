//! Guessing the next tokens cheaply, so that one forward pass checks several (speculative decoding). A guess that is wrong
//! costs its row of the pass; what is generated never changes.
//!
//! - [`lookup`]: what followed the same tokens earlier in the text.
//! - [`tri_gram`]: what usually follows two tokens, learned from what the model writes (method 056, ADED).
//! - [`model`]: what a smaller model would write. [`ahead`]: a text that is written with one beside.
//! - [`pace`]: whether guessing pays, by measured times and shares of right guesses.

pub mod ahead;
pub mod lookup;
pub mod model;
pub mod pace;
pub mod tri_gram;

pub use ahead::Ahead;
pub use lookup::PromptLookup;
pub use model::Drafter;
pub use pace::{DraftPace, Pace, Price, Trust, Worth};
pub use tri_gram::{Search, TriGrams};
