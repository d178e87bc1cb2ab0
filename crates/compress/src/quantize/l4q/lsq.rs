//! Steps and offsets (LSQ+, arXiv 2004.09576) where ounce's quantizer has step sizes and zero points.
//!
//! The quantizer gives `d (c − z)`, codes from 0. With `d = s` and `z = −Qn − b/s` that is `s w + b`, codes from `Qn`, and gradients
//! follow by the chain rule: `dL/db = −dL/dz / s` and `dL/ds = dL/dd + dL/dz · b/s²`.

use ounce_kernels::DType;

use crate::quantize::training::quantizer::{LEAST_STEP, Numbers, Quantized};

/// The codes of a format: from `Qn = −2^(N−1)` to `Qp = 2^(N−1) − 1`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Codes {
    /// −Qn.
    half: f32,
}

impl Codes {
    /// Those of a format; none if it has no groups.
    pub fn of(dtype: DType) -> Option<Codes> {
        dtype.group_shape().map(|(bits, _)| Codes { half: (1 << (bits - 1)) as f32 })
    }

    /// The step with which every weight of a group is in range at an offset of 0, `max(|min W / Qn|, |max W / Qp|)`: where the
    /// paper begins.
    pub fn widest(self, group: &[f32]) -> f32 {
        let (least, most) = group.iter().fold((0.0f32, 0.0f32), |(low, high), &w| (low.min(w), high.max(w)));
        (-least / self.half).max(most / (self.half - 1.0))
    }

    /// z of every step and offset.
    pub fn zeros(self, steps: &[f32], offsets: &[f32]) -> Vec<f32> {
        steps.iter().zip(offsets).map(|(step, offset)| self.half - offset / step).collect()
    }

    /// b of a step size and a zero point.
    pub fn offset(self, step: f32, zero: f32) -> f32 {
        step * (self.half - zero)
    }

    /// dL/ds and dL/db of every group from what the quantizer's way back gave.
    pub fn gradients(self, quantized: &Quantized, scales: &Numbers) -> impl Iterator<Item = (f32, f32)> {
        scales.factors.iter().zip(&scales.minimums).enumerate().map(move |(group, (of_step, of_zero))| {
            let (step, zero) = quantized.group(group);
            let of_offset = -of_zero / step;
            // b/s as it is stored is −(Qn + z).
            (of_step - self.offset(1.0, zero) * of_offset, of_offset)
        })
    }

    /// Brings steps and offsets back to where they can be stored: steps above zero, zero points among the codes.
    pub fn confine(self, steps: &mut [f32], offsets: &mut [f32]) {
        for (step, offset) in steps.iter_mut().zip(offsets) {
            *step = step.max(LEAST_STEP);
            *offset = offset.clamp(-*step * (self.half - 1.0), *step * self.half);
        }
    }
}
