//! Two thin matrices that stand beside a layer's own and are trained while that is not: `y = W x + b + s · B (A x)` (LoRA, arXiv
//! 2106.09685). What lies between them is thin and computed again on the way back.

use super::context::Context;
use super::linear::Linear;
use crate::Param;

/// The thin matrices of a layer.
#[derive(Debug, Clone)]
pub struct Pair {
    /// `A`, `[rank, input]`.
    pub a: Param,
    /// `B`, `[output, rank]`.
    pub b: Param,
    /// s.
    pub scale: f32,
}

/// A pair in a network.
#[derive(Debug)]
pub(crate) struct Beside {
    pub reduce: Linear,
    pub expand: Linear,
    pub scale: f32,
}

impl Beside {
    /// `s · A x`.
    fn middle(&self, x: &[f32], cx: &mut Context<'_>) -> Vec<f32> {
        let mut middle = self.reduce.apply(x, cx);
        middle.iter_mut().for_each(|value| *value *= self.scale);
        middle
    }

    /// `s · dy B`.
    fn dmiddle(&self, dy: &[f32], cx: &mut Context<'_>) -> Vec<f32> {
        let mut dmiddle = cx.buffers.take(dy.len() / self.expand.output * self.expand.input);
        self.expand.backward_input(dy, &mut dmiddle, false, cx);
        dmiddle.iter_mut().for_each(|value| *value *= self.scale);
        dmiddle
    }

    /// `out += s · B (A x)`.
    pub fn forward(&self, x: &[f32], out: &mut [f32], cx: &mut Context<'_>) {
        let middle = self.middle(x, cx);
        self.expand.forward(&middle, out, true, cx);
        cx.buffers.give(middle);
    }

    /// Adds to the gradients of both.
    pub fn backward_weights(&self, x: &[f32], dy: &[f32], cx: &mut Context<'_>) {
        let middle = self.middle(x, cx);
        self.expand.backward_weights(&middle, dy, cx);
        cx.buffers.give(middle);
        let dmiddle = self.dmiddle(dy, cx);
        self.reduce.backward_weights(x, &dmiddle, cx);
        cx.buffers.give(dmiddle);
    }

    /// `dx += s · dy B A`.
    pub fn backward_input(&self, dy: &[f32], dx: &mut [f32], cx: &mut Context<'_>) {
        let dmiddle = self.dmiddle(dy, cx);
        self.reduce.backward_input(&dmiddle, dx, true, cx);
        cx.buffers.give(dmiddle);
    }
}
