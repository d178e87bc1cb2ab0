//! What can go wrong while training.

use std::path::{Path, PathBuf};

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
    /// Points that no law can be fitted to.
    #[error("{0}")]
    Fit(String),
    /// Training went wrong: the loss is no number, or spikes do not end.
    #[error("{0}")]
    Diverged(String),
    /// A checkpoint that is damaged or belongs to another run.
    #[error("{}: {what}", path.display())]
    Checkpoint {
        /// Its folder or file.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// The system refuses a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A model's file.
    #[error(transparent)]
    Model(#[from] ounce_model::Error),
    /// An operation on tensors.
    #[error(transparent)]
    Tensor(Box<candle_core::Error>),
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Error {
        Error::Tensor(Box::new(error))
    }
}

impl Error {
    /// An [`Error::Data`] at a place.
    pub fn data(place: impl std::fmt::Display, what: impl Into<String>) -> Error {
        Error::Data { place: place.to_string(), what: what.into() }
    }

    /// An [`Error::Data`] about a whole file.
    pub fn file(path: &Path, what: impl Into<String>) -> Error {
        Error::data(path.display(), what)
    }

    /// Makes an I/O error name its file.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { path, source }
    }

    /// A checkpoint's fault.
    pub fn checkpoint(path: impl AsRef<Path>, what: impl Into<String>) -> Error {
        Error::Checkpoint { path: path.as_ref().to_path_buf(), what: what.into() }
    }
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
