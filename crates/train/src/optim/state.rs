//! One weight's memory of earlier gradients.

use ounce_kernels::optimizer::adamw::AdamW;
use ounce_kernels::optimizer::lion::Lion;
use ounce_kernels::optimizer::muon::{self, Muon};
use ounce_kernels::optimizer::sgd::Sgd;
use ounce_kernels::pool::Pool;

use super::moments::{Moments, NAMES};
use super::options::{Group, Kind, Options, Projection};
use super::projected::Projected;
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

/// A part of a weight's memory: its name, the type of its values, its content.
pub(super) type Part<B> = (&'static str, SlotType, B);

/// The memory of one weight.
#[derive(Debug, Clone)]
pub(super) enum State {
    /// Of a frozen weight, or of SGD without momentum.
    Empty,
    /// Two moments.
    Adam(Moments),
    /// One.
    Momentum { m: Vec<f32> },
    /// Two moments of a few directions.
    Projected(Box<Projected>),
}

impl State {
    pub(super) fn new(options: &Options, group: &Group, param: &Param) -> State {
        match group.kind {
            _ if !param.is_trainable() => State::Empty,
            _ if group.projection != Projection::None => {
                State::Projected(Box::new(Projected::new(options, group, param)))
            }
            Kind::Sgd if options.momentum == 0.0 => State::Empty,
            Kind::AdamW | Kind::AdamW8bit => State::Adam(Moments::new(group.kind, param.grad.len())),
            Kind::Lion | Kind::Muon | Kind::Sgd => State::Momentum { m: vec![0.0; param.grad.len()] },
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            State::Empty => 0,
            State::Adam(moments) => moments.bytes(),
            State::Momentum { m } => 4 * m.len(),
            State::Projected(it) => it.bytes(),
        }
    }

    /// Moves a weight. `step` counts from 1.
    pub(super) fn step(
        &mut self,
        pool: &Pool,
        options: &Options,
        group: &Group,
        param: &mut Param,
        lr: f64,
        scale: f32,
        step: u64,
        scratch: &mut muon::Workspace,
    ) {
        let Options { beta1, beta2, eps, momentum, .. } = *options;
        let weight_decay = group.decay;
        let shape = (param.shape[0], param.shape.iter().skip(1).product::<usize>());
        let (value, grad) = (&mut param.value[..], &param.grad[..]);
        let adam = AdamW { lr, beta1, beta2, eps, weight_decay, step };
        let sgd = Sgd { lr, momentum, nesterov: false, weight_decay };
        match (self, group.kind) {
            (State::Adam(moments), _) => moments.update(pool, &adam, value, grad, scale),
            (State::Projected(it), _) => it.step(pool, options, &adam, param, scale),
            (State::Momentum { m }, Kind::Lion) => {
                Lion { lr, beta1, beta2, weight_decay }.update(pool, value, grad, m, scale);
            }
            (State::Momentum { m }, Kind::Muon) => {
                let size = muon::Size::LikeAdamW;
                let compute = Default::default();
                let muon = Muon { lr, momentum, nesterov: true, weight_decay, size, compute };
                muon.update(pool, shape, value, grad, m, scale, scratch);
            }
            (State::Momentum { m }, _) => sgd.update(pool, value, grad, m, scale),
            (State::Empty, _) => Sgd { momentum: 0.0, ..sgd }.update(pool, value, grad, &mut [], scale),
        }
    }

    pub(super) fn slots<'s>(&'s self, param: &'s Param) -> Vec<Slot<'s>> {
        let mut parts = Vec::new();
        match self {
            State::Empty => {}
            State::Adam(moments) => moments.slots(NAMES, &mut parts),
            State::Momentum { m } => parts.push((NAMES[0], SlotType::F32, bytemuck::cast_slice(m))),
            State::Projected(it) => it.slots(&mut parts),
        }
        let slot = |(part, dtype, bytes)| Slot { param: &param.name, part, dtype, bytes };
        parts.into_iter().map(slot).collect()
    }

    pub(super) fn slots_mut(&mut self, param: &Param) -> Vec<SlotMut<'_>> {
        let mut parts = Vec::new();
        match self {
            State::Empty => {}
            State::Adam(moments) => moments.slots_mut(NAMES, &mut parts),
            State::Momentum { m } => parts.push((NAMES[0], SlotType::F32, bytemuck::cast_slice_mut(m))),
            State::Projected(it) => it.slots_mut(&mut parts),
        }
        let name = |part: &str| format!("{}.{part}", param.name);
        parts.into_iter().map(|(part, dtype, bytes)| SlotMut { name: name(part), dtype, bytes }).collect()
    }
}
