//! Guessing the next tokens cheaply, so that one forward pass checks several (speculative decoding). A guess that is wrong
//! costs its row of the pass; what is generated never changes.
//!
//! - [`lookup`]: what followed the same tokens earlier in the text.
//! - [`tri_gram`]: what usually follows two tokens, learned from what the model writes (method 056, ADED).

pub mod lookup;
pub mod tri_gram;

pub use lookup::PromptLookup;
pub use tri_gram::{Search, TriGrams};
