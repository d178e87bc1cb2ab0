//! AdamW (Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019, algorithm 2).

use crate::grad::split_values;
use crate::pool::{Pool, SharedOut};
use crate::vector::{dispatch, fused};

/// Adam with weight decay beside the gradient. With `g` the gradient and `t` the step:
/// `w ← w − lr · λ · w`, `m ← m + (1 − β₁)(g − m)`, `v ← β₂ v + (1 − β₂) g²`,
/// `w ← w − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)`: the order of PyTorch's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// What the mean of gradients keeps in a step.
    pub beta1: f64,
    /// What the mean of squared gradients keeps in a step.
    pub beta2: f64,
    /// Added to the root of the mean square.
    pub eps: f64,
    /// λ.
    pub weight_decay: f64,
    /// Number of this step; the first is 1.
    pub step: u64,
}

/// What a step multiplies with, as f32.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    keep: f32,
    toward: f32,
    beta2: f32,
    square: f32,
    step_size: f32,
    root: f32,
    eps: f32,
    grad: f32,
}

impl AdamW {
    /// The factors, computed in f64.
    pub(super) fn factors(&self, grad_scale: f32) -> Factors {
        let correction = |beta: f64| 1.0 - beta.powf(self.step as f64);
        Factors {
            keep: (1.0 - self.lr * self.weight_decay) as f32,
            toward: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            square: (1.0 - self.beta2) as f32,
            step_size: (self.lr / correction(self.beta1)) as f32,
            root: correction(self.beta2).sqrt() as f32,
            eps: self.eps as f32,
            grad: grad_scale,
        }
    }

    /// One step of parameters, from their gradient times `grad_scale`; `m` and `v` begin as zeros.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn update(
        &self,
        pool: &Pool,
        value: &mut [f32],
        grad: &[f32],
        m: &mut [f32],
        v: &mut [f32],
        grad_scale: f32,
    ) {
        let length = grad.len();
        assert!(
            value.len() == length && m.len() == length && v.len() == length,
            "a state for every parameter"
        );
        let factors = self.factors(grad_scale);
        let (value, m, v) = (SharedOut::new(value), SharedOut::new(m), SharedOut::new(v));
        split_values(pool, length, |range| {
            // SAFETY: threads have disjoint ranges.
            let (value, m, v) =
                unsafe { (value.part(range.clone()), m.part(range.clone()), v.part(range.clone())) };
            part(factors, value, &grad[range], m, v);
        });
    }
}

/// One parameter's step: its new value and state.
#[inline(always)]
fn one<const FUSED: bool>(f: &Factors, value: f32, grad: f32, m: f32, v: f32) -> (f32, f32, f32) {
    let grad = grad * f.grad;
    let m = fused::<FUSED>(grad - m, f.toward, m);
    let v = fused::<FUSED>(f.square * grad, grad, v * f.beta2);
    let value = value * f.keep - f.step_size * m / (v.sqrt() / f.root + f.eps);
    (value, m, v)
}

/// Some parameters' step.
pub(super) fn part(factors: Factors, value: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(
        factors: Factors,
        value: &mut [f32],
        grad: &[f32],
        m: &mut [f32],
        v: &mut [f32],
    ) {
        for (((value, grad), m), v) in value.iter_mut().zip(grad).zip(m).zip(v) {
            (*value, *m, *v) = one::<FUSED>(&factors, *value, *grad, *m, *v);
        }
    }
    dispatch!(run(factors: Factors, value: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]))
}
