//! Lion (Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, algorithm 2).

use crate::grad::split_values;
use crate::pool::{Pool, SharedOut};
use crate::vector::{dispatch, fused};

/// Steps of one size in the sign of a mean of gradients: `c = β₁ m + (1 − β₁) g`,
/// `w ← w − lr · (sign(c) + λ w)`, `m ← β₂ m + (1 − β₂) g`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lion {
    /// Learning rate; about a third to a tenth of AdamW's.
    pub lr: f64,
    /// What the mean keeps where it decides the sign.
    pub beta1: f64,
    /// What the mean keeps in a step.
    pub beta2: f64,
    /// λ.
    pub weight_decay: f64,
}

/// What a step multiplies with.
#[derive(Clone, Copy)]
struct Factors {
    keep: f32,
    lr: f32,
    betas: (f32, f32),
    grads: (f32, f32),
}

impl Lion {
    /// One step of parameters, from their gradient times `grad_scale`; `m` begins as zeros.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn update(&self, pool: &Pool, value: &mut [f32], grad: &[f32], m: &mut [f32], grad_scale: f32) {
        assert!(value.len() == grad.len() && m.len() == grad.len(), "a state for every parameter");
        let scaled = |beta: f64| ((1.0 - beta) * f64::from(grad_scale)) as f32;
        let factors = Factors {
            keep: (1.0 - self.lr * self.weight_decay) as f32,
            lr: self.lr as f32,
            betas: (self.beta1 as f32, self.beta2 as f32),
            grads: (scaled(self.beta1), scaled(self.beta2)),
        };
        let (value, m) = (SharedOut::new(value), SharedOut::new(m));
        split_values(pool, grad.len(), |range| {
            // SAFETY: threads have disjoint ranges.
            let (value, m) = unsafe { (value.part(range.clone()), m.part(range.clone())) };
            part(factors, value, &grad[range], m);
        });
    }
}

fn part(factors: Factors, value: &mut [f32], grad: &[f32], m: &mut [f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(f: Factors, value: &mut [f32], grad: &[f32], m: &mut [f32]) {
        for ((value, grad), m) in value.iter_mut().zip(grad).zip(m) {
            let mixed = fused::<FUSED>(f.betas.0, *m, f.grads.0 * grad);
            // 0 where it is 0, and NaN where it is none.
            let sign = if mixed == 0.0 { mixed } else { 1.0f32.copysign(mixed) + 0.0 * mixed };
            *value = fused::<FUSED>(-f.lr, sign, *value * f.keep);
            *m = fused::<FUSED>(f.betas.1, *m, f.grads.1 * grad);
        }
    }
    dispatch!(run(factors: Factors, value: &mut [f32], grad: &[f32], m: &mut [f32]))
}
