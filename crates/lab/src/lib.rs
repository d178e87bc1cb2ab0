//! The catalogue of methods, fixtures, demonstrations and the evidence store.
//!
//! - [`catalogue`]: every method, working or planned, and the page that lists them.
//! - [`mod@bench`]: gives demonstrations what they need, runs them and measures their cost.
//! - [`store`]: evidence on disk, one file a method.
//! - [`stories`]: generated text to train and measure on.
//! - [`tasks`]: evaluation tasks, about generated tales and for data that users bring.
//! - [`town`]: text with habits, good and bad, and the trust probes on it.
//! - [`builtin`]: the language model that is part of the program.

pub mod bench;
pub mod builtin;
pub mod catalogue;
pub mod store;
pub mod stories;
pub mod tasks;
pub mod town;

pub use ounce_plan::shapes;
