//! One layer of a model on its own, forward and backward: for techniques that train a model layer behind layer and hold no
//! more than one of them.

use ounce_kernels::pool::Pool;
use ounce_model::Model;

use super::Options;
use super::buffers::Buffers;
use super::build::Builder;
use super::context::Context;
use super::layer::Layer;
use super::rotation::Rotations;
use crate::{Param, Result};

/// A layer with its weights and gradients.
#[derive(Debug)]
pub struct OneLayer {
    layer: Layer,
    params: Vec<Param>,
    rotations: Rotations,
    buffers: Buffers,
    options: Options,
    pool: &'static Pool,
}

impl OneLayer {
    /// Takes the weights of one layer of a model; those for whose names `trains` is false stay as they are stored.
    ///
    /// # Errors
    /// If a weight can't be read.
    ///
    /// # Panics
    /// If the model has no such layer.
    pub fn new(
        model: &Model,
        index: usize,
        options: Options,
        trains: &dyn Fn(&str) -> bool,
    ) -> Result<OneLayer> {
        let spec = &model.spec;
        let mut from = Builder::new(&model.weights, trains);
        let mut rotations = Rotations::default();
        let layer =
            Layer::build(&mut from, spec.owner(index), &spec.layers[index], spec.causal, &mut rotations)?;
        let (params, buffers, pool) = (from.params, Buffers::default(), Pool::global());
        Ok(OneLayer { layer, params, rotations, buffers, options, pool })
    }

    /// Its weights, but for frozen matrices.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Its weights, to be changed.
    pub fn params_mut(&mut self) -> &mut [Param] {
        &mut self.params
    }

    /// The most bytes of buffers that a pass has used so far.
    pub fn peak_buffer_bytes(&self) -> usize {
        self.buffers.peak_bytes()
    }

    /// Shows `see` the stream behind the layer, `[tokens, hidden]`, given that before it: sequences of these lengths, one behind
    /// the other.
    ///
    /// # Panics
    /// If `x` is not so many tokens.
    pub fn forward<T>(&mut self, x: &[f32], lengths: &[usize], see: impl FnOnce(&[f32]) -> T) -> T {
        let (layer, mut cx) = self.context(lengths, 0.0);
        let x = cx.copy(x);
        let (out, saved) = layer.forward(x, &mut cx);
        let input = saved.into_input(&mut cx);
        let found = see(&out);
        [input, out].into_iter().for_each(|buffer| cx.buffers.give(buffer));
        found
    }

    /// As [`OneLayer::forward`]; `loss` leaves the gradient of a loss in the stream's place, and the weights' gradients are
    /// added to their own.
    ///
    /// # Panics
    /// If `x` is not so many tokens.
    pub fn accumulate<T>(&mut self, x: &[f32], lengths: &[usize], loss: impl FnOnce(&mut [f32]) -> T) -> T {
        let balance = self.options.balance;
        let (layer, mut cx) = self.context(lengths, balance);
        let x = cx.copy(x);
        let (mut out, saved) = layer.forward(x, &mut cx);
        let found = loss(&mut out);
        let d = layer.backward(saved, out, &mut cx);
        cx.buffers.give(d);
        found
    }

    fn context<'a>(&'a mut self, lengths: &'a [usize], balance: f32) -> (&'a Layer, Context<'a>) {
        self.rotations.fill(lengths);
        let cx = Context {
            params: &mut self.params,
            packed: &[],
            buffers: &mut self.buffers,
            pool: self.pool,
            compute: self.options.compute,
            lengths,
            rotations: &self.rotations.values,
            balance,
        };
        (&self.layer, cx)
    }
}
