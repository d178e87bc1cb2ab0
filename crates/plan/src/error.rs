//! What can go wrong while a forecast is made.

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why there is no forecast.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model, or a file, is at fault.
    #[error(transparent)]
    Model(#[from] ounce_model::Error),
    /// A model did not run.
    #[error(transparent)]
    Engine(#[from] ounce_engine::Error),
    /// Packing or encoding failed.
    #[error("calibration: {0}")]
    Quant(#[from] ounce_kernels::quant::QuantError),
    /// A number is out of its range.
    #[error("{0}")]
    Option(String),
}
