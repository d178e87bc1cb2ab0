//! SmoothQuant (Xiao et al., 2022, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
//! Models"): part of the difficulty of quantizing inputs moved into weights.
//!
//! Inputs have few channels with values far above the rest. Each channel j of what a norm gives is divided by
//! `s_j = max|X_j|^α / max|W_j|^(1−α)` (equation 4), and the columns j of all linears that read it are multiplied, so
//! that with α = ½ inputs and weights have equal peaks. `max|X_j|` is the largest absolute value in calibration,
//! `max|W_j|` that of column j over all linears behind the norm, at least 1e-5, as is s_j. As in the paper only norms
//! take scales, so the file stays an ordinary one ([`super::fold`]).
//!
//! What quantizes weights alone gains less by it than by AWQ: weights become harder so that inputs become easier. It is
//! meant for products in int8. Channels that calibration never saw anything in keep the scale 1.

use super::moments::Moments;

/// Options of [`scales`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// α, from 0 (weights keep the difficulty of none) to 1 (they take all of it).
    pub alpha: f32,
}

impl Default for Options {
    fn default() -> Options {
        Options { alpha: 0.5 }
    }
}

/// The least peak and scale; the paper's code.
const LEAST: f32 = 1e-5;

/// The scale of each channel for an input and the matrices that read it, `[rows, width]` each.
///
/// # Panics
/// If a matrix has rows of another width than the input.
pub fn scales(moments: &Moments, matrices: &[&[f32]], options: &Options) -> Vec<f32> {
    let mut peaks = vec![LEAST; moments.width];
    for matrix in matrices {
        assert!(matrix.len().is_multiple_of(moments.width), "whole rows");
        for row in matrix.chunks_exact(moments.width) {
            peaks.iter_mut().zip(row).for_each(|(peak, w)| *peak = peak.max(w.abs()));
        }
    }
    let scale = |(input, weight): (&f32, &f32)| {
        if *input == 0.0 {
            return 1.0;
        }
        (input.powf(options.alpha) / weight.powf(1.0 - options.alpha)).max(LEAST)
    };
    moments.peaks.iter().zip(&peaks).map(scale).collect()
}

#[cfg(test)]
mod tests {
    use ounce_engine::Tap;

    use super::*;
    use crate::quantize::moments::Collector;

    #[test]
    fn at_one_half_inputs_and_weights_have_equal_peaks() {
        let n = 8;
        let x: Vec<f32> =
            (0..n * 20).map(|i| (i as f32 * 0.7).sin() * 10f32.powi((i % n) as i32 - 4)).collect();
        let w: Vec<f32> = (0..n * 6).map(|i| (i as f32 * 0.3).cos() * 0.1).collect();
        let mut collector = Collector::new(false);
        collector.observe(&["a"], &x, n);
        let moments = collector.moments("a").unwrap();
        let found = scales(moments, &[&w[..n * 2], &w[n * 2..]], &Options::default());
        for j in 0..n {
            let peak = w.chunks_exact(n).fold(0.0f32, |peak, row| peak.max(row[j].abs()));
            let (input, weight) = (moments.peaks[j] / found[j], peak * found[j]);
            assert!((input / weight - 1.0).abs() < 1e-4, "{input} {weight}");
        }
        assert_eq!(scales(&Moments::new(3, false), &[&[1.0, 2.0, 3.0]], &Options::default()), [1.0; 3]);
    }
}
