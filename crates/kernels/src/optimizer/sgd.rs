//! Stochastic gradient descent with momentum, Nesterov's too (Sutskever et al., 2013), as PyTorch writes it.

use crate::grad::split_values;
use crate::pool::{Pool, SharedOut};
use crate::vector::{dispatch, fused};

/// `g ← g + λ w`, `m ← μ m + g`, `w ← w − lr · m`, with Nesterov's momentum `w ← w − lr · (g + μ m)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// μ; with 0 no momentum is read or kept.
    pub momentum: f64,
    /// Whether the step looks ahead by the momentum.
    pub nesterov: bool,
    /// λ, added to the gradient.
    pub weight_decay: f64,
}

/// What a step multiplies with.
#[derive(Clone, Copy)]
struct Factors {
    lr: f32,
    momentum: f32,
    decay: f32,
    grad: f32,
    nesterov: bool,
}

impl Sgd {
    /// One step of parameters, from their gradient times `grad_scale`; `m` begins as zeros and may be empty without
    /// momentum.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn update(&self, pool: &Pool, value: &mut [f32], grad: &[f32], m: &mut [f32], grad_scale: f32) {
        let kept = self.momentum != 0.0;
        assert!(value.len() == grad.len(), "a gradient for every parameter");
        assert!(!kept || m.len() == grad.len(), "a momentum for every parameter");
        let factors = Factors {
            lr: self.lr as f32,
            momentum: self.momentum as f32,
            decay: self.weight_decay as f32,
            grad: grad_scale,
            nesterov: self.nesterov,
        };
        let (value, m) = (SharedOut::new(value), SharedOut::new(m));
        split_values(pool, grad.len(), |range| {
            // SAFETY: threads have disjoint ranges.
            let (value, m) =
                unsafe { (value.part(range.clone()), m.part(if kept { range.clone() } else { 0..0 })) };
            part(factors, value, &grad[range], m);
        });
    }
}

fn part(factors: Factors, value: &mut [f32], grad: &[f32], m: &mut [f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(f: Factors, value: &mut [f32], grad: &[f32], m: &mut [f32]) {
        let slope = |value: f32, grad: f32| fused::<FUSED>(f.decay, value, f.grad * grad);
        if m.is_empty() {
            for (value, grad) in value.iter_mut().zip(grad) {
                *value = fused::<FUSED>(-f.lr, slope(*value, *grad), *value);
            }
            return;
        }
        for ((value, grad), m) in value.iter_mut().zip(grad).zip(m) {
            let grad = slope(*value, *grad);
            *m = fused::<FUSED>(f.momentum, *m, grad);
            let step = if f.nesterov { fused::<FUSED>(f.momentum, *m, grad) } else { *m };
            *value = fused::<FUSED>(-f.lr, step, *value);
        }
    }
    dispatch!(run(factors: Factors, value: &mut [f32], grad: &[f32], m: &mut [f32]))
}
