//! AdamW on plain slices: each kind of number has a rate of its own here, measured in step sizes of its matrix.

use ounce_kernels::optimizer::adamw::AdamW;
use ounce_kernels::pool::Pool;

/// Decay of the moments: those of language models, quick enough for some hundred steps.
const BETAS: (f64, f64) = (0.9, 0.95);

/// What AdamW keeps of some numbers.
#[derive(Debug)]
pub(crate) struct Adam {
    m: Vec<f32>,
    v: Vec<f32>,
}

impl Adam {
    pub fn new(count: usize) -> Adam {
        Adam { m: vec![0.0; count], v: vec![0.0; count] }
    }

    /// Moves numbers against their gradients, without decay; `step` counts from 1.
    pub fn step(&mut self, values: &mut [f32], gradients: &[f32], rate: f64, step: u64) {
        let (beta1, beta2) = BETAS;
        let adam = AdamW { lr: rate, beta1, beta2, eps: 1e-8, weight_decay: 0.0, step };
        adam.update(Pool::global(), values, gradients, &mut self.m, &mut self.v, 1.0);
    }

    pub fn bytes(&self) -> usize {
        4 * (self.m.len() + self.v.len())
    }
}

/// Half a cosine from 1 down to a twentieth.
pub(crate) fn cosine(step: u64, total: u64) -> f64 {
    let share = step as f64 / total.max(1) as f64;
    0.05 + 0.95 * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
}
