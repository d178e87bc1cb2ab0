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
    /// Training data that can't be used.
    #[error("{place}: {what}")]
    Data {
        /// The file, with the line, row or document if there is one.
        place: String,
        /// What is wrong and what to do.
        what: String,
    },
    /// A model's file.
    #[error(transparent)]
    Model(#[from] ounce_model::Error),
}

impl Error {
    /// An [`Error::Data`] at a place.
    pub fn data(place: impl std::fmt::Display, what: impl Into<String>) -> Error {
        Error::Data { place: place.to_string(), what: what.into() }
    }

    /// An [`Error::Data`] about a whole file.
    pub fn file(path: &std::path::Path, what: impl Into<String>) -> Error {
        Error::data(path.display(), what)
    }
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
