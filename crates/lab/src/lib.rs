//! The catalogue of methods, fixtures, demonstrations and the evidence store.

pub mod stories;
