//! One weight's memory of earlier gradients.

use ounce_kernels::optimizer::adamw::AdamW;
use ounce_kernels::optimizer::adamw8;
use ounce_kernels::optimizer::lion::Lion;
use ounce_kernels::optimizer::muon::{self, Muon};
use ounce_kernels::optimizer::sgd::Sgd;
use ounce_kernels::pool::Pool;

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

/// The memory of one weight.
#[derive(Debug, Clone)]
pub(super) enum State {
    /// Of a frozen weight, or of SGD without momentum.
    Empty,
    /// Two moments.
    Adam { m: Vec<f32>, v: Vec<f32> },
    /// Two moments in 8 bits.
    Adam8(adamw8::State),
    /// One.
    Momentum { m: Vec<f32> },
    /// Two moments of a few directions.
    Projected(Box<Projected>),
}

impl State {
    pub(super) fn new(options: &Options, group: &Group, param: &Param) -> State {
        let zeros = || vec![0.0f32; param.grad.len()];
        match group.kind {
            _ if !param.is_trainable() => State::Empty,
            _ if group.projection != Projection::None => {
                State::Projected(Box::new(Projected::new(options, group, param)))
            }
            Kind::Sgd if options.momentum == 0.0 => State::Empty,
            Kind::AdamW => State::Adam { m: zeros(), v: zeros() },
            Kind::AdamW8bit => State::Adam8(adamw8::State::new(param.grad.len())),
            Kind::Lion | Kind::Muon | Kind::Sgd => State::Momentum { m: zeros() },
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            State::Empty => 0,
            State::Adam { m, v } => 4 * (m.len() + v.len()),
            State::Adam8(it) => it.m.len() + it.v.len() + 4 * (it.m_scales.len() + it.v_scales.len()),
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
            (State::Adam { m, v }, _) => adam.update(pool, value, grad, m, v, scale),
            (State::Adam8(state), _) => adamw8::update(pool, &adam, value, grad, state, scale),
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
        let slot = |part, dtype, bytes| Slot { param: &param.name, part, dtype, bytes };
        let wide = |part, values: &'s [f32]| slot(part, SlotType::F32, bytemuck::cast_slice(values));
        match self {
            State::Empty => Vec::new(),
            State::Adam { m, v } => vec![wide("m", m), wide("v", v)],
            State::Adam8(it) => vec![
                slot("m", SlotType::U8, &it.m),
                wide("m_scales", &it.m_scales),
                slot("v", SlotType::U8, &it.v),
                wide("v_scales", &it.v_scales),
            ],
            State::Momentum { m } => vec![wide("m", m)],
            State::Projected(it) => it.slots(param),
        }
    }

    pub(super) fn slots_mut(&mut self, param: &Param) -> Vec<SlotMut<'_>> {
        let slot =
            |part: &str, dtype, bytes| SlotMut { name: format!("{}.{part}", param.name), dtype, bytes };
        fn wide(values: &mut [f32]) -> &mut [u8] {
            bytemuck::cast_slice_mut(values)
        }
        match self {
            State::Empty => Vec::new(),
            State::Adam { m, v } => {
                vec![slot("m", SlotType::F32, wide(m)), slot("v", SlotType::F32, wide(v))]
            }
            State::Adam8(it) => vec![
                slot("m", SlotType::U8, &mut it.m),
                slot("m_scales", SlotType::F32, wide(&mut it.m_scales)),
                slot("v", SlotType::U8, &mut it.v),
                slot("v_scales", SlotType::F32, wide(&mut it.v_scales)),
            ],
            State::Momentum { m } => vec![slot("m", SlotType::F32, wide(m))],
            State::Projected(it) => it.slots_mut(param),
        }
    }
}
