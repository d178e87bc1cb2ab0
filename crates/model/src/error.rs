//! What can be wrong with a model's files: every message says where, what, and what to do about it.

use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// A file's content breaks its format.
    #[error("{}: {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, where, and what to do.
        what: String,
    },
    /// A tensor is missing, has the wrong shape or bad content.
    #[error("{}: tensor {tensor}: {what}", path.display())]
    Tensor {
        /// The file or folder it should be in.
        path: PathBuf,
        /// Its name in that file.
        tensor: String,
        /// What is wrong and what to do.
        what: String,
    },
    /// The model, option or format is known but not supported, or not known at all.
    #[error("{what}")]
    Unsupported {
        /// What it is and what is possible instead.
        what: String,
    },
    /// The caller asked to stop; nothing was left half-written.
    #[error("interrupted; nothing was left half-written")]
    Interrupted,
    /// Tokenizer or chat template trouble.
    #[error("{what}")]
    Text {
        /// What is wrong.
        what: String,
    },
}

impl Error {
    /// An [`Error::Io`] for `path`; for use in `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { path, source }
    }

    /// An [`Error::Format`] for `path`.
    pub fn format(path: impl AsRef<Path>, what: impl Into<String>) -> Error {
        Error::Format { path: path.as_ref().to_path_buf(), what: what.into() }
    }

    /// An [`Error::Tensor`] for `tensor` in `path`.
    pub fn tensor(path: impl AsRef<Path>, tensor: impl Into<String>, what: impl Into<String>) -> Error {
        Error::Tensor { path: path.as_ref().to_path_buf(), tensor: tensor.into(), what: what.into() }
    }

    /// An [`Error::Unsupported`].
    pub fn unsupported(what: impl Into<String>) -> Error {
        Error::Unsupported { what: what.into() }
    }

    /// An [`Error::Text`].
    pub fn text(what: impl Into<String>) -> Error {
        Error::Text { what: what.into() }
    }
}
