//! Losses on one logit an image or a pixel.

use candle_core::Tensor;

use crate::graph::ops::{node, read, tensor};
use crate::{Error, Result};

/// Binary cross-entropy, the mean over all logits, and `dice` times the soft Dice loss `1 − (2 Σ p t + 1) / (Σ p + Σ t + 1)`
/// of all of them together (Milletari et al., 2016), with `p = σ(logit)`.
///
/// # Errors
/// If there are not as many targets as logits.
pub fn binary(logits: &Tensor, targets: &[f32], dice: f32) -> Result<Tensor> {
    let logits = logits.contiguous()?;
    if logits.elem_count() != targets.len() || targets.is_empty() {
        let (found, wanted) = (targets.len(), logits.elem_count());
        return Err(Error::Batch(format!("{found} targets for {wanted} logits")));
    }
    let count = targets.len() as f64;
    let (value, gradient) = read([&logits], |[logits]| {
        let (mut entropy, mut both, mut sum) = (0.0f64, 0.0f64, 0.0f64);
        for (&logit, &target) in logits.iter().zip(targets) {
            let (x, t) = (f64::from(logit), f64::from(target));
            entropy += x.max(0.0) - x * t + (-x.abs()).exp().ln_1p();
            let p = 1.0 / (1.0 + (-x).exp());
            both += p * t;
            sum += p + t;
        }
        let (above, below) = (2.0 * both + 1.0, sum + 1.0);
        let gradient: Vec<f32> = logits
            .iter()
            .zip(targets)
            .map(|(&logit, &target)| {
                let (p, t) = (1.0 / (1.0 + (-f64::from(logit)).exp()), f64::from(target));
                let of_dice = -(2.0 * t * below - above) / (below * below) * p * (1.0 - p);
                ((p - t) / count + f64::from(dice) * of_dice) as f32
            })
            .collect();
        (entropy / count + f64::from(dice) * (1.0 - above / below), gradient)
    })?;
    let shape = logits.shape().clone();
    Ok(node("binary loss", &[&logits], vec![value as f32], (), move |behind| {
        let outer = behind.gradient.to_scalar::<f32>()?;
        Ok(vec![Some(tensor(gradient.iter().map(|it| it * outer).collect(), &shape)?)])
    })?)
}
