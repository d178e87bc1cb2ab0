//! What ways of training at few bits share: weights that are seen through rounding, AdamW on plain slices, the loop over
//! sequences, and what it all held in memory.
//!
//! - [`quantizer`]: `Ŵ = step · level + offset` in every block format, and how gradients pass it.
//! - [`next_token`]: any network's parameters, each with a rate of its own, on the next token.
//! - [`memory`]: bytes by what they are for.

pub(crate) mod adam;
pub mod memory;
pub mod next_token;
mod numbers;
pub mod quantizer;

use crate::{Error, Result};

/// Of so many sequences, how many are held out to judge by.
pub(crate) fn held_out(sequences: usize) -> Result<usize> {
    match sequences {
        0 | 1 => Err(Error::Option(format!(
            "training needs some calibration sequences to learn from and some to judge by, found {sequences}; give a longer \
             text"
        ))),
        _ => Ok((sequences / 10).max(1)),
    }
}

/// Mean of absolute values: what rates of step sizes are measured in.
pub(crate) fn mean(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(value.abs())).sum::<f64>() / values.len().max(1) as f64
}
