//! Adam's two moments of some numbers, in f32 or in 8 bits.

use ounce_kernels::optimizer::adamw::AdamW;
use ounce_kernels::optimizer::adamw8;
use ounce_kernels::pool::Pool;

use super::options::Kind;
use super::state::{Part, SlotType};

/// Names of parts: mean, its scales, mean square, its scales.
pub(super) const NAMES: [&str; 4] = ["m", "m_scales", "v", "v_scales"];

/// Two moments.
#[derive(Debug, Clone)]
pub(super) enum Moments {
    Wide { m: Vec<f32>, v: Vec<f32> },
    Bytes(adamw8::State),
}

impl Moments {
    pub fn new(kind: Kind, count: usize) -> Moments {
        match kind {
            Kind::AdamW8bit => Moments::Bytes(adamw8::State::new(count)),
            _ => Moments::Wide { m: vec![0.0; count], v: vec![0.0; count] },
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            Moments::Wide { m, v } => 4 * (m.len() + v.len()),
            Moments::Bytes(it) => it.m.len() + it.v.len() + 4 * (it.m_scales.len() + it.v_scales.len()),
        }
    }

    /// Moves values by their gradient, which is multiplied by `scale`.
    pub fn update(&mut self, pool: &Pool, adam: &AdamW, value: &mut [f32], grad: &[f32], scale: f32) {
        match self {
            Moments::Wide { m, v } => adam.update(pool, value, grad, m, v, scale),
            Moments::Bytes(state) => adamw8::update(pool, adam, value, grad, state, scale),
        }
    }

    /// What Adam adds for this gradient: minus the rate times the mean over the root of the mean square.
    pub fn step(&mut self, pool: &Pool, adam: &AdamW, grad: &[f32]) -> Vec<f32> {
        let mut step = vec![0.0; grad.len()];
        self.update(pool, adam, &mut step, grad, 1.0);
        step
    }

    /// Replaces both.
    pub fn change(&mut self, by: impl FnOnce(&[f32], &[f32]) -> (Vec<f32>, Vec<f32>)) {
        match self {
            Moments::Wide { m, v } => (*m, *v) = by(m, v),
            Moments::Bytes(state) => {
                let (m, v) = state.decode();
                let (m, v) = by(&m, &v);
                state.encode(&m, &v);
            }
        }
    }

    /// Their parts, called so.
    pub fn slots<'s>(&'s self, names: [&'static str; 4], slots: &mut Vec<Part<&'s [u8]>>) {
        match self {
            Moments::Wide { m, v } => slots.extend([
                (names[0], SlotType::F32, bytemuck::cast_slice(m)),
                (names[2], SlotType::F32, bytemuck::cast_slice(v)),
            ]),
            Moments::Bytes(it) => slots.extend([
                (names[0], SlotType::U8, &it.m[..]),
                (names[1], SlotType::F32, bytemuck::cast_slice(&it.m_scales)),
                (names[2], SlotType::U8, &it.v[..]),
                (names[3], SlotType::F32, bytemuck::cast_slice(&it.v_scales)),
            ]),
        }
    }

    /// As [`Moments::slots`], to be loaded into.
    pub fn slots_mut<'s>(&'s mut self, names: [&'static str; 4], slots: &mut Vec<Part<&'s mut [u8]>>) {
        match self {
            Moments::Wide { m, v } => slots.extend([
                (names[0], SlotType::F32, bytemuck::cast_slice_mut(m)),
                (names[2], SlotType::F32, bytemuck::cast_slice_mut(v)),
            ]),
            Moments::Bytes(it) => slots.extend([
                (names[0], SlotType::U8, &mut it.m[..]),
                (names[1], SlotType::F32, bytemuck::cast_slice_mut(&mut it.m_scales)),
                (names[2], SlotType::U8, &mut it.v[..]),
                (names[3], SlotType::F32, bytemuck::cast_slice_mut(&mut it.v_scales)),
            ]),
        }
    }
}
