//! How far a student's prediction `q` is from a teacher's `p`, one row at a time, with the gradient on the student's logits.
//!
//! For any loss `L(q)` with `g = ∂L/∂q`, the gradient on the logits whose softmax is `q` is `q (g − Σ q g)`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::adaptive::Adaptive;
use super::taid::{Taid, TaidOptions};
use crate::{Error, Result};

/// A loss of a student's prediction given a teacher's, which may change from step to step.
pub trait Divergence: std::fmt::Debug + Send + Sync {
    /// The loss of one row in nats. `p` and `q` are logarithms of the teacher's and the student's probabilities; `gradient`
    /// becomes the loss's gradient on the student's logits.
    fn row(&self, p: &[f32], q: &[f32], gradient: Option<&mut [f32]>) -> f64;

    /// Told after each step what its loss was, as a mean over targets.
    fn stepped(&mut self, _loss: f64) {}

    /// What it has learnt of the steps so far, for a checkpoint; null if nothing.
    fn memory(&self) -> Value {
        Value::Null
    }

    /// Takes up what `Divergence::memory` gave.
    ///
    /// # Errors
    /// If that is of another loss.
    fn remember(&mut self, memory: &Value) -> Result<()> {
        match memory {
            Value::Null => Ok(()),
            _ => Err(Error::Settings("the checkpoint was made with another loss; name that one".into())),
        }
    }

    /// How far the target has moved from the student (0) to the teacher (1), where it moves.
    fn share(&self) -> Option<f64> {
        None
    }
}

/// The divergences there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `Σ p ln(p/q)`: the student covers all that the teacher does ("Distilling the Knowledge in a Neural Network", arXiv
    /// 1503.02531).
    Kl,
    /// `Σ q ln(q/p)`: the student keeps to what the teacher finds likely (MiniLLM, arXiv 2306.08543).
    ReverseKl,
    /// `KL(p ‖ α p + (1 − α) q)`, α = 0.1 (DistiLLM, arXiv 2402.03898).
    SkewKl,
    /// `KL(q ‖ (1 − α) p + α q)`, α = 0.1 (DistiLLM).
    SkewReverseKl,
    /// Jensen and Shannon's: half of the KL of each to their mean.
    Js,
    /// Total variation, `½ Σ |p − q|`.
    Tvd,
    /// Forward and reverse KL, each as far as head or tail of the teacher's prediction are off (arXiv 2404.02657).
    AdaptiveKl,
    /// KL to a target that moves from the student to the teacher (TAID, arXiv 2501.16937).
    Taid,
}

/// The teacher's or student's part in the skewed divergences: what DistiLLM found best.
const SKEW: f64 = 0.1;

impl Kind {
    /// All, in the order in which they are explained.
    pub const ALL: [Kind; 8] = [
        Kind::Kl,
        Kind::ReverseKl,
        Kind::SkewKl,
        Kind::SkewReverseKl,
        Kind::Js,
        Kind::Tvd,
        Kind::AdaptiveKl,
        Kind::Taid,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kl => "kl",
            Kind::ReverseKl => "reverse-kl",
            Kind::SkewKl => "skew-kl",
            Kind::SkewReverseKl => "skew-reverse-kl",
            Kind::Js => "js",
            Kind::Tvd => "tvd",
            Kind::AdaptiveKl => "adaptive-kl",
            Kind::Taid => "taid",
        }
    }

    /// The loss of a run with so many steps.
    ///
    /// # Errors
    /// If TAID's numbers make no sense.
    pub fn divergence(self, taid: TaidOptions, steps: u64) -> Result<Box<dyn Divergence>> {
        Ok(match self {
            Kind::Kl => Box::new(ForwardKl),
            Kind::ReverseKl => Box::new(ReverseKl),
            Kind::SkewKl => Box::new(SkewKl { skew: SKEW }),
            Kind::SkewReverseKl => Box::new(SkewReverseKl { skew: SKEW }),
            Kind::Js => Box::new(Js),
            Kind::Tvd => Box::new(Tvd),
            Kind::AdaptiveKl => Box::new(Adaptive::default()),
            Kind::Taid => Box::new(Taid::new(taid, steps)?),
        })
    }
}

/// `Σ p ln(p/q)`; gradient `q − p`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ForwardKl;

impl Divergence for ForwardKl {
    fn row(&self, p: &[f32], q: &[f32], gradient: Option<&mut [f32]>) -> f64 {
        if let Some(gradient) = gradient {
            each(p, q, gradient, |p, q| q.exp() - p.exp());
        }
        sum(p, q, |p, q| p.exp() * (p - q))
    }
}

/// `Σ q ln(q/p)`; gradient `q (ln(q/p) − loss)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReverseKl;

impl Divergence for ReverseKl {
    fn row(&self, p: &[f32], q: &[f32], gradient: Option<&mut [f32]>) -> f64 {
        let loss = sum(p, q, |p, q| q.exp() * (q - p));
        if let Some(gradient) = gradient {
            each(p, q, gradient, |p, q| q.exp() * (q - p - loss));
        }
        loss
    }
}

/// `KL(p ‖ m)`, `m = α p + (1 − α) q`; `g = −(1 − α) p / m`.
#[derive(Debug, Clone, Copy)]
pub struct SkewKl {
    /// α.
    pub skew: f64,
}

impl Divergence for SkewKl {
    fn row(&self, p: &[f32], q: &[f32], gradient: Option<&mut [f32]>) -> f64 {
        let mixed = |p: f64, q: f64| ln_mix(self.skew, p, q);
        if let Some(gradient) = gradient {
            through_softmax(p, q, gradient, |p, q| -(1.0 - self.skew) * (p - mixed(p, q)).exp());
        }
        sum(p, q, |p, q| p.exp() * (p - mixed(p, q)))
    }
}

/// `KL(q ‖ m)`, `m = (1 − α) p + α q`; `g = ln(q/m) + 1 − α q / m`.
#[derive(Debug, Clone, Copy)]
pub struct SkewReverseKl {
    /// α.
    pub skew: f64,
}

impl Divergence for SkewReverseKl {
    fn row(&self, p: &[f32], q: &[f32], gradient: Option<&mut [f32]>) -> f64 {
        let mixed = |p: f64, q: f64| ln_mix(1.0 - self.skew, p, q);
        if let Some(gradient) = gradient {
            through_softmax(p, q, gradient, |p, q| {
                let over = q - mixed(p, q);
                over + 1.0 - self.skew * over.exp()
            });
        }
        sum(p, q, |p, q| q.exp() * (q - mixed(p, q)))
    }
}

/// `½ KL(p ‖ m) + ½ KL(q ‖ m)`, `m = ½ (p + q)`; `g = ½ ln(q/m)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Js;

impl Divergence for Js {
    fn row(&self, p: &[f32], q: &[f32], gradient: Option<&mut [f32]>) -> f64 {
        let mixed = |p: f64, q: f64| ln_mix(0.5, p, q);
        if let Some(gradient) = gradient {
            through_softmax(p, q, gradient, |p, q| 0.5 * (q - mixed(p, q)));
        }
        sum(p, q, |p, q| {
            let middle = mixed(p, q);
            0.5 * (p.exp() * (p - middle) + q.exp() * (q - middle))
        })
    }
}

/// `½ Σ |p − q|`; `g = ½ sign(q − p)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tvd;

impl Divergence for Tvd {
    fn row(&self, p: &[f32], q: &[f32], gradient: Option<&mut [f32]>) -> f64 {
        if let Some(gradient) = gradient {
            through_softmax(p, q, gradient, |p, q| if q > p { 0.5 } else { -0.5 });
        }
        sum(p, q, |p, q| 0.5 * (p.exp() - q.exp()).abs())
    }
}

/// `ln(share eᵃ + (1 − share) eᵇ)`, also where both are too small to be numbers.
fn ln_mix(share: f64, a: f64, b: f64) -> f64 {
    let greatest = a.max(b);
    greatest + (share * (a - greatest).exp() + (1.0 - share) * (b - greatest).exp()).ln()
}

/// The sum of a function of both logarithms.
pub(super) fn sum(p: &[f32], q: &[f32], of: impl Fn(f64, f64) -> f64) -> f64 {
    p.iter().zip(q).map(|(&p, &q)| of(f64::from(p), f64::from(q))).sum()
}

/// Fills the gradient with a function of both logarithms.
pub(super) fn each(p: &[f32], q: &[f32], gradient: &mut [f32], of: impl Fn(f64, f64) -> f64) {
    for ((gradient, &p), &q) in gradient.iter_mut().zip(p).zip(q) {
        *gradient = of(f64::from(p), f64::from(q)) as f32;
    }
}

/// From `g = ∂L/∂q` to the gradient on the logits, `q (g − Σ q g)`.
fn through_softmax(p: &[f32], q: &[f32], gradient: &mut [f32], g: impl Fn(f64, f64) -> f64) {
    let mean = sum(p, q, |p, q| q.exp() * g(p, q));
    each(p, q, gradient, |p, q| q.exp() * (g(p, q) - mean));
}
