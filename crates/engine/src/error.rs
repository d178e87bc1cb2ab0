//! What can go wrong while a model runs.

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model's files are at fault.
    #[error(transparent)]
    Model(#[from] ounce_model::Error),
    /// A token id that the model does not have.
    #[error(
        "token id {id} is not below the model's vocabulary of {vocab_size}; is this the model's own tokenizer?"
    )]
    Token {
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// The file with the token vectors can't be read any more.
    #[error("a token's vector can't be read from the model's file: {0}; was the file changed?")]
    TokenVector(#[source] std::io::Error),
    /// More positions than the model has position vectors for.
    #[error(
        "{wanted} positions are more than the {limit} that this model has; shorten the text or the answer"
    )]
    Positions {
        /// Positions asked for.
        wanted: usize,
        /// Positions there are.
        limit: usize,
    },
    /// Something was asked of a model that is not made for it.
    #[error("{0}")]
    Unsuitable(String),
    /// The numbers broke down.
    #[error(
        "the logits are not finite; the weights are damaged (ounce show --check names the tensor) or overflow f32"
    )]
    NotFinite,
    /// An option is out of its range.
    #[error("{0}")]
    Option(String),
}
