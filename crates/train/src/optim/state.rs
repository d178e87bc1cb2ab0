//! One weight's memory of earlier gradients.

use super::options::{Group, Kind, Options};
use super::rules::{self, Adam, Momentum};
use crate::Param;

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotType {
    /// f32.
    F32,
    /// Bytes: codes of an 8-bit moment.
    U8,
}

/// A part of an optimizer's memory, to be saved.
#[derive(Debug, Clone, Copy)]
pub struct Slot<'s> {
    /// The weight's name.
    pub param: &'s str,
    /// What it is (`m`, `v`).
    pub part: &'static str,
    /// The type of its values.
    pub dtype: SlotType,
    /// Its content.
    pub bytes: &'s [u8],
}

/// A part of an optimizer's memory, to be loaded into.
#[derive(Debug)]
pub struct SlotMut<'s> {
    /// The weight's name with the part's.
    pub name: String,
    /// The type of its values.
    pub dtype: SlotType,
    /// Its content.
    pub bytes: &'s mut [u8],
}

/// The memory of one weight.
#[derive(Debug, Clone)]
pub(super) enum State {
    /// Of a frozen weight, or of SGD without momentum.
    Empty,
    /// Two moments.
    Adam { m: Vec<f32>, v: Vec<f32> },
    /// One.
    Momentum { m: Vec<f32> },
}

impl State {
    pub(super) fn new(options: &Options, group: &Group, param: &Param) -> State {
        let zeros = || vec![0.0f32; param.grad.len()];
        match group.kind {
            _ if !param.is_trainable() => State::Empty,
            Kind::Sgd if options.momentum == 0.0 => State::Empty,
            Kind::AdamW | Kind::AdamW8bit => State::Adam { m: zeros(), v: zeros() },
            Kind::Lion | Kind::Muon | Kind::Sgd => State::Momentum { m: zeros() },
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            State::Empty => 0,
            State::Adam { m, v } => 4 * (m.len() + v.len()),
            State::Momentum { m } => 4 * m.len(),
        }
    }

    /// Moves a weight. `step` counts from 1.
    pub(super) fn step(
        &mut self,
        options: &Options,
        group: &Group,
        param: &mut Param,
        rate: f64,
        scale: f32,
        step: u64,
    ) {
        let (value, grad) = (&mut param.value[..], &param.grad[..]);
        let power = i32::try_from(step).unwrap_or(i32::MAX);
        let adam = Adam {
            rate: rate as f32,
            beta1: options.beta1 as f32,
            beta2: options.beta2 as f32,
            eps: options.eps as f32,
            decay: (rate * group.decay) as f32,
            correction1: (1.0 / (1.0 - options.beta1.powi(power))) as f32,
            correction2: (1.0 / (1.0 - options.beta2.powi(power))) as f32,
            scale,
        };
        let momentum =
            Momentum { rate: adam.rate, momentum: options.momentum as f32, decay: adam.decay, scale };
        match (self, group.kind) {
            (State::Adam { m, v }, _) => rules::adamw(value, grad, m, v, &adam),
            (State::Momentum { m }, Kind::Lion) => rules::lion(value, grad, m, &adam),
            (State::Momentum { m }, Kind::Muon) => {
                rules::muon(value, grad, m, [param.shape[0], param.shape[1]], &momentum);
            }
            (State::Momentum { m }, _) => rules::sgd(value, grad, Some(m), &momentum),
            (State::Empty, _) => rules::sgd(value, grad, None, &momentum),
        }
    }

    pub(super) fn slots<'s>(&'s self, param: &'s Param) -> Vec<Slot<'s>> {
        let slot = |part, values: &'s [f32]| Slot {
            param: &param.name,
            part,
            dtype: SlotType::F32,
            bytes: bytemuck::cast_slice(values),
        };
        match self {
            State::Empty => Vec::new(),
            State::Adam { m, v } => vec![slot("m", m), slot("v", v)],
            State::Momentum { m } => vec![slot("m", m)],
        }
    }

    pub(super) fn slots_mut(&mut self, param: &Param) -> Vec<SlotMut<'_>> {
        let slot = |part: &str, values| SlotMut {
            name: format!("{}.{part}", param.name),
            dtype: SlotType::F32,
            bytes: bytemuck::cast_slice_mut::<f32, u8>(values),
        };
        match self {
            State::Empty => Vec::new(),
            State::Adam { m, v } => vec![slot("m", m), slot("v", v)],
            State::Momentum { m } => vec![slot("m", m)],
        }
    }
}
