//! What can go wrong while a technique is applied.

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a technique can't be applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model's files are at fault, or the user stopped the work.
    #[error(transparent)]
    Model(#[from] ounce_model::Error),
    /// The model can't be run.
    #[error(transparent)]
    Engine(#[from] ounce_engine::Error),
    /// The model can't be trained.
    #[error(transparent)]
    Train(#[from] ounce_train::Error),
    /// A weight can't be put into its new form.
    #[error("{matrix}: {what}")]
    Matrix {
        /// Its name.
        matrix: String,
        /// What is wrong and what to do.
        what: String,
    },
    /// An option is out of its range, or asks for what can't be.
    #[error("{0}")]
    Option(String),
}

impl Error {
    /// For what runs inside the engine's loops and may only fail as they do.
    pub(crate) fn into_engine(self) -> ounce_engine::Error {
        match self {
            Error::Model(error) => error.into(),
            Error::Engine(error) => error,
            other => ounce_engine::Error::Option(other.to_string()),
        }
    }

    /// An [`Error::Matrix`].
    pub fn matrix(matrix: impl Into<String>, what: impl ToString) -> Error {
        Error::Matrix { matrix: matrix.into(), what: what.to_string() }
    }
}
