//! What a layer is worth: how far it turns the stream.
//!
//! Block influence (ShortGPT, arXiv 2403.03853): `1 − E[cos(x, x')]` with the stream `x` before the layer and `x'` behind it, over
//! tokens. A layer that hardly turns it is hardly missed.

use ounce_engine::Walk;
use ounce_model::Model;

use crate::stages::{mode, not_empty};
use crate::{Error, Result};

/// The influence of each layer on sequences of token ids. `progress` is told the layers done and in all.
///
/// # Errors
/// If there is no text, a weight can't be read, or `progress` stops the work.
pub fn influence(
    model: &Model,
    sequences: Vec<Vec<u32>>,
    progress: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Vec<f64>> {
    not_empty(&sequences)?;
    let layers = model.spec.layers.len();
    let mut walk = Walk::begin(model, sequences, mode())?;
    let mut found = Vec::with_capacity(layers);
    for layer in 0..layers {
        let before = walk.hidden().to_vec();
        walk.advance(&model.weights, |_| progress(layer, layers).map_err(Error::into_engine))?;
        found.push(turned(&before, walk.hidden(), model.spec.hidden_size));
    }
    progress(layers, layers)?;
    Ok(found)
}

/// One less the mean cosine between the rows of two matrices of this width.
fn turned(before: &[f32], after: &[f32], width: usize) -> f64 {
    let pairs = before.chunks_exact(width).zip(after.chunks_exact(width));
    let count = pairs.len().max(1) as f64;
    let cosines = pairs.map(|(a, b)| {
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let lengths = (dot(a, a) * dot(b, b)).sqrt();
        if lengths > 0.0 { dot(a, b) / lengths } else { 1.0 }
    });
    1.0 - cosines.sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_stays_has_no_influence_and_one_that_turns_around_has_two() {
        let x = [3.0, 4.0, 0.5, -1.0];
        let scaled: Vec<f32> = x.iter().map(|x| 2.0 * x).collect();
        let back: Vec<f32> = x.iter().map(|x| -x).collect();
        assert!(turned(&x, &scaled, 2).abs() < 1e-12);
        assert!((turned(&x, &back, 2) - 2.0).abs() < 1e-12);
        assert!((turned(&x, &[4.0, -3.0, 1.0, 0.5], 2) - 1.0).abs() < 1e-12);
    }
}
