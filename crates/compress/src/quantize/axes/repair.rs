//! What mends a quantized network without training: bias correction and cross-layer equalization (Nagel et al.,
//! "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019).

/// What to add to a layer's bias so that its outputs keep their mean: `(W − Ŵ) E[x]` (equation 17). Both weights are
/// `[outputs, inputs]`, `mean` is of the inputs.
///
/// # Panics
/// If the shapes don't fit.
pub fn bias_correction(weights: &[f32], quantized: &[f32], mean: &[f32]) -> Vec<f32> {
    assert!(
        weights.len() == quantized.len() && weights.len().is_multiple_of(mean.len().max(1)),
        "rows of inputs"
    );
    let rows = weights.chunks(mean.len().max(1)).zip(quantized.chunks(mean.len().max(1)));
    rows.map(|(row, rounded)| row.iter().zip(rounded).zip(mean).map(|((a, b), mean)| (a - b) * mean).sum())
        .collect()
}

/// Scales of the channels between two layers whose nonlinearity keeps factors (ReLU): `s_i = √(r₁ᵢ r₂ᵢ) / r₂ᵢ` with the
/// ranges of row i of the first and column i of the second (equation 11). The first layer's row and bias are divided by it,
/// the second's column multiplied; both ranges are then the same. Returns the scales; channels without weights keep 1.
///
/// `first` is `[channels, inputs]`, `second` `[outputs, channels · taps]` with the taps of a channel `channels` apart (a
/// convolution over NHWC; 1 tap for a linear layer).
///
/// # Panics
/// If the shapes don't fit.
pub fn equalize(first: &mut [f32], bias: &mut [f32], second: &mut [f32]) -> Vec<f32> {
    let channels = bias.len();
    assert!(channels > 0 && first.len().is_multiple_of(channels), "rows of the first layer");
    assert!(second.len().is_multiple_of(channels), "columns of the second layer");
    let inputs = first.len() / channels;
    let most =
        |values: &mut dyn Iterator<Item = f32>| values.fold(0.0f32, |most, value| most.max(value.abs()));
    let mut scales = vec![1.0; channels];
    for (channel, scale) in scales.iter_mut().enumerate() {
        let row = &mut first[channel * inputs..][..inputs];
        let before = most(&mut row.iter().copied());
        let behind = most(&mut second.iter().skip(channel).step_by(channels).copied());
        if before == 0.0 || behind == 0.0 {
            continue;
        }
        *scale = (before * behind).sqrt() / behind;
        row.iter_mut().for_each(|value| *value /= *scale);
        bias[channel] /= *scale;
        second.iter_mut().skip(channel).step_by(channels).for_each(|value| *value *= *scale);
    }
    scales
}

#[cfg(test)]
mod tests {
    use super::super::{Grid, Symmetry, random};
    use super::*;

    fn outputs(weights: &[f32], bias: &[f32], x: &[f32]) -> Vec<f32> {
        let row = |row: &[f32]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
        weights.chunks(x.len()).zip(bias).map(|(weights, bias)| row(weights) + bias).collect()
    }

    #[test]
    fn the_corrected_outputs_keep_their_mean() {
        let mut next = random::normal(1);
        let weights: Vec<f32> = (0..24).map(|_| next()).collect();
        let inputs: Vec<Vec<f32>> = (0..50).map(|_| (0..6).map(|_| next().max(0.0)).collect()).collect();
        let mut rounded = weights.clone();
        Grid::of(&weights, 3, Symmetry::Restricted).simulate(&mut rounded);
        let mean: Vec<f32> = (0..6).map(|at| inputs.iter().map(|x| x[at]).sum::<f32>() / 50.0).collect();
        let bias = bias_correction(&weights, &rounded, &mean);
        let mean_of = |weights: &[f32], bias: &[f32]| {
            inputs.iter().fold([0.0f32; 4], |sum, x| {
                let y = outputs(weights, bias, x);
                std::array::from_fn(|at| sum[at] + y[at] / 50.0)
            })
        };
        let (wanted, found) = (mean_of(&weights, &[0.0; 4]), mean_of(&rounded, &bias));
        let without = mean_of(&rounded, &[0.0; 4]);
        for at in 0..4 {
            assert!((wanted[at] - found[at]).abs() < 1e-5);
        }
        assert!(wanted.iter().zip(without).any(|(a, b)| (a - b).abs() > 1e-2));
    }

    #[test]
    fn equalized_layers_compute_the_same_and_have_equal_ranges() {
        let mut next = random::normal(2);
        let mut first: Vec<f32> = (0..5 * 3).map(|at| next() * (1 + at / 3 * 7) as f32).collect();
        let mut bias: Vec<f32> = (0..5).map(|_| next()).collect();
        // Two taps.
        let mut second: Vec<f32> = (0..4 * 5 * 2).map(|_| next()).collect();
        let (x1, x2) = ([0.3, -0.2, 0.9], [1.0, 0.4, -0.5]);
        let through = |first: &[f32], bias: &[f32], second: &[f32]| {
            let hidden = |x: &[f32]| outputs(first, bias, x).into_iter().map(|it| it.max(0.0));
            let hidden: Vec<f32> = hidden(&x1).chain(hidden(&x2)).collect();
            outputs(second, &[0.0; 4], &hidden)
        };
        let before = through(&first, &bias, &second);
        let scales = equalize(&mut first, &mut bias, &mut second);
        assert!(scales.iter().any(|scale| (scale - 1.0).abs() > 0.1));
        for (a, b) in before.iter().zip(through(&first, &bias, &second)) {
            assert!((a - b).abs() < 1e-3 * (1.0 + a.abs()));
        }
        for channel in 0..5 {
            let most =
                |it: &mut dyn Iterator<Item = &f32>| it.fold(0.0f32, |most, value| most.max(value.abs()));
            let a = most(&mut first[channel * 3..][..3].iter());
            let b = most(&mut second.iter().skip(channel).step_by(5));
            assert!((a / b - 1.0).abs() < 1e-4);
        }
    }
}
