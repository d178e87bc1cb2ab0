//! EfficientQAT (method 075): training at 2 to 4 bits with the memory of one layer, then of the step sizes alone.
//!
//! "EfficientQAT: Efficient Quantization-Aware Training for Large Language Models", arXiv 2407.11062.
//!
//! - [`quantizer`]: `Ŵ = d (c − z)` in ounce's group formats, and how gradients pass it.
//! - [`block_ap`]: all weights, step sizes and zero points of one layer after the other, to give what the original layer gave.
//! - [`end_to_end`]: codes and zero points frozen, all step sizes together, on the next token.
//!
//! Both begin where another quantizer ends, GPTQ as a rule, and give the same formats back.

mod adam;
pub mod block_ap;
pub mod end_to_end;
pub mod memory;
pub mod quantizer;

use serde::Serialize;

use crate::{Error, Result};

/// Where a weight begins, between the original and what it was quantized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the original: only step sizes and zero points are taken over, codes are those nearest to it.
    Weights,
    /// At the stored value.
    Values,
    /// At the original, moved as little as needed to round to the stored code.
    #[default]
    Codes,
}

/// Of so many sequences, how many are held out to judge by.
fn held_out(sequences: usize) -> Result<usize> {
    match sequences {
        0 | 1 => Err(Error::Option(format!(
            "training needs some calibration sequences to learn from and some to judge by, found {sequences}; give a longer \
             text"
        ))),
        _ => Ok((sequences / 10).max(1)),
    }
}

#[cfg(test)]
mod tests;
