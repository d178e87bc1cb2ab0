//! What can go wrong while training.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A batch does not fit the network.
    #[error("{0}")]
    Batch(String),
    /// The network can't be trained as asked.
    #[error("{0}")]
    Unsupported(String),
    /// Settings that make no sense.
    #[error("{0}")]
    Settings(String),
    /// A model's file.
    #[error(transparent)]
    Model(#[from] ounce_model::Error),
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
