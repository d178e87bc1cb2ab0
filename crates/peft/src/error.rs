//! What can go wrong with adapters.

use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model can't be adapted, or an adapter not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model's files are at fault, or the user stopped the work.
    #[error(transparent)]
    Model(#[from] ounce_model::Error),
    /// The model can't be trained.
    #[error(transparent)]
    Train(#[from] ounce_train::Error),
    /// An option is out of its range, or asks for what can't be.
    #[error("{0}")]
    Option(String),
    /// An adapter's folder is damaged, or belongs to something else.
    #[error("{}: {what}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
}

impl Error {
    /// An [`Error::Folder`].
    pub fn folder(path: impl AsRef<Path>, what: impl Into<String>) -> Error {
        Error::Folder { path: path.as_ref().to_path_buf(), what: what.into() }
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Error {
        Error::Train(error.into())
    }
}

/// For what runs while a network is built or passed through, and may only fail as networks do.
impl From<Error> for ounce_train::Error {
    fn from(error: Error) -> ounce_train::Error {
        match error {
            Error::Model(error) => error.into(),
            Error::Train(error) => error,
            other => ounce_train::Error::Unsupported(other.to_string()),
        }
    }
}
