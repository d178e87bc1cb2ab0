//! Normalisation of one vector. Sums are f32 over sixteen lanes, joined in f64.

use crate::vector::{dispatch, fused};

/// Σ of a function of each value.
#[inline(always)]
fn lane_sum(x: &[f32], add: impl Fn(f32, f32) -> f32) -> f64 {
    let (chunks, rest) = x.as_chunks::<16>();
    let mut sums = [0.0f32; 16];
    for chunk in chunks {
        for lane in 0..16 {
            sums[lane] = add(sums[lane], chunk[lane]);
        }
    }
    for (lane, &x) in rest.iter().enumerate() {
        sums[lane] = add(sums[lane], x);
    }
    sums.iter().map(|&sum| f64::from(sum)).sum()
}

/// RMSNorm, `x / sqrt(mean(x²) + eps) · (weight + offset)`, in place. `x` and `weight` have one length;
/// `offset` is 1 where weights are stored as differences to one.
pub fn rms_norm(x: &mut [f32], weight: &[f32], offset: f32, eps: f32) {
    #[inline(always)]
    fn run<const FUSED: bool>(x: &mut [f32], weight: &[f32], offset: f32, eps: f32) {
        let squares = lane_sum(x, |sum, x| fused::<FUSED>(x, x, sum));
        let scale = (1.0 / (squares / x.len() as f64 + f64::from(eps)).sqrt()) as f32;
        for (x, weight) in x.iter_mut().zip(weight) {
            *x = *x * scale * (weight + offset);
        }
    }
    dispatch!(run(x: &mut [f32], weight: &[f32], offset: f32, eps: f32))
}

/// LayerNorm, `(x − mean) / sqrt(var + eps) · (weight + offset) + bias`, in place.
pub fn layer_norm(x: &mut [f32], weight: &[f32], offset: f32, bias: Option<&[f32]>, eps: f32) {
    #[inline(always)]
    fn run<const FUSED: bool>(x: &mut [f32], weight: &[f32], offset: f32, bias: Option<&[f32]>, eps: f32) {
        let n = x.len() as f64;
        let mean = (lane_sum(x, |sum, x| sum + x) / n) as f32;
        let variance = lane_sum(x, |sum, x| fused::<FUSED>(x - mean, x - mean, sum)) / n;
        let scale = (1.0 / (variance + f64::from(eps)).sqrt()) as f32;
        for (x, weight) in x.iter_mut().zip(weight) {
            *x = (*x - mean) * scale * (weight + offset);
        }
        if let Some(bias) = bias {
            for (x, bias) in x.iter_mut().zip(bias) {
                *x += bias;
            }
        }
    }
    dispatch!(run(x: &mut [f32], weight: &[f32], offset: f32, bias: Option<&[f32]>, eps: f32))
}

/// Scales `x` to Euclidean length one; a zero vector stays zero.
pub fn l2_normalise(x: &mut [f32]) {
    let length = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if length > 0.0 {
        x.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_norm_gives_mean_zero_and_variance_one() {
        let mut x: Vec<f32> = (0..49).map(|i| (i as f32).sin() * 3.0 + 5.0).collect();
        layer_norm(&mut x, &[1.0; 49], 0.0, None, 0.0);
        let mean = x.iter().sum::<f32>() / 49.0;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 49.0;
        assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "{mean} {variance}");
    }

    #[test]
    fn rms_norm_with_offset_is_rms_norm_with_shifted_weight() {
        let (mut one, mut other) = ([1.0f32, -2.0, 3.0], [1.0f32, -2.0, 3.0]);
        rms_norm(&mut one, &[0.5, 0.0, -0.5], 1.0, 1e-6);
        rms_norm(&mut other, &[1.5, 1.0, 0.5], 0.0, 1e-6);
        assert_eq!(one, other);
        assert!((one[1] + 2.0 / (14.0f32 / 3.0).sqrt()).abs() < 1e-5);
    }
}
