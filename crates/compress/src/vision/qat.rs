//! Quantization-aware training of a network of images: fake quantization in the pass, gradients straight through, steps that
//! learn (LSQ).
//!
//! Weights are rounded as they are, before their norm: a symmetric grid for each output gives the same codes before and after
//! the norm's factor is folded in. Steps are kept as logarithms, so that they stay positive at any learning rate.

use candle_core::{Device, Tensor, Var};
use ounce_train::graph::ops::{node, read, tensor};
use ounce_train::vision::{Folded, Hook, Net, Step};
use ounce_train::{Param, ParamKind};

use super::calibrate::camera;
use super::engine::Grids;
use crate::quantize::axes::{Calibration, Grid, Symmetry, channels, learned};

/// `x̂ = s · clamp(round(x / s), low, high)` with `s = exp(steps)`, one for all values or one for each row of `x`; gradients
/// pass inside the range, steps get LSQ's.
fn fake(x: &Tensor, steps: &Tensor, low: i32, high: i32) -> candle_core::Result<Tensor> {
    let x = x.contiguous()?;
    let count = steps.elem_count();
    let row = x.elem_count() / count.max(1);
    let scales: Vec<f32> = steps.to_vec1::<f32>()?.into_iter().map(f32::exp).collect();
    let grids: Vec<Grid> = scales.into_iter().map(|scale| Grid { scale, zero: 0, low, high }).collect();
    let out = read([&x], |[x]| {
        let mut out = x.to_vec();
        out.chunks_mut(row.max(1)).zip(&grids).for_each(|(row, grid)| grid.simulate(row));
        out
    })?;
    let kept = x.clone();
    node("fake quantization", &[&x, steps], out, x.shape(), move |behind| {
        let (dx, dsteps) = read([&kept, &behind.gradient], |[x, dy]| {
            let (mut dx, mut dsteps) = (dy.to_vec(), vec![0.0f32; count]);
            let rows = x.chunks(row).zip(dx.chunks_mut(row)).zip(&grids).zip(&mut dsteps);
            for (((x, dx), grid), dstep) in rows {
                let mut sum = 0.0;
                for (x, dx) in x.iter().zip(dx) {
                    sum += *dx * learned::step_gradient(*x, grid);
                    *dx *= learned::pass_gradient(*x, grid);
                }
                *dstep = sum * grid.scale * learned::gradient_scale(row, grid);
            }
            (dx, dsteps)
        })?;
        Ok(vec![Some(tensor(dx, kept.shape())?), Some(tensor(dsteps, count)?)])
    })
}

/// Steps that learn, in the pass of a [`Net`].
pub struct Qat {
    params: Vec<Param>,
    vars: Vec<Var>,
    /// Of each step and of each value its parameter's number.
    weights: Vec<Option<usize>>,
    values: Vec<Option<usize>>,
    /// The largest codes of weights and of values.
    high: (i32, i32),
}

fn variable(param: &Param) -> candle_core::Result<Var> {
    Var::from_slice(&param.value, param.value.len(), &Device::Cpu)
}

impl Qat {
    /// From the weights of a network and the grids that calibration gave its values. All values but logits have a ReLU in
    /// front of them.
    ///
    /// # Errors
    /// If a tensor can't be made.
    pub fn new(net: &Net, values: &[Grid], calibration: Calibration, bits: (u32, u32)) -> crate::Result<Qat> {
        let high = ((1 << (bits.0 - 1)) - 1, (1 << bits.1) - 1);
        let (mut params, mut weights) = (Vec::new(), Vec::new());
        let mut add = |name: String, scales: Vec<f32>| {
            let logarithms: Vec<f32> = scales.into_iter().map(f32::ln).collect();
            params.push(Param::new(name, &[logarithms.len()], ParamKind::Steps, logarithms));
            params.len() - 1
        };
        let steps = &net.architecture.steps;
        for index in 0..steps.len() {
            weights.push(net.weights(index).map(|(window, matrix)| {
                let grids = channels(&matrix.value, window.depth(), bits.0, calibration);
                add(format!("steps.{index}.weight.step"), grids.iter().map(|grid| grid.scale).collect())
            }));
        }
        let classes = net.architecture.grids();
        let mut own: Vec<Option<usize>> = vec![None; classes.len()];
        for (value, step) in (1..).zip(steps) {
            if matches!(step, Step::Conv { relu: true, .. }) && own[classes[value]].is_none() {
                own[classes[value]] = Some(add(format!("values.{value}.step"), vec![values[value].scale]));
            }
        }
        // Pools, copies and joins pass on what is already rounded.
        let computed = |value: usize| value > 0 && matches!(steps[value - 1], Step::Conv { relu: true, .. });
        let values =
            (0..classes.len()).map(|value| own[classes[value]].filter(|_| computed(value))).collect();
        let vars = params.iter().map(variable).collect::<candle_core::Result<Vec<Var>>>();
        let vars = vars.map_err(ounce_train::Error::from)?;
        Ok(Qat { params, vars, weights, values, high })
    }

    /// The steps, to be moved by an optimizer; [`Qat::refresh`] follows.
    pub fn params(&mut self) -> &mut [Param] {
        &mut self.params
    }

    /// Takes over the parameters' values.
    ///
    /// # Errors
    /// If a tensor can't be made.
    pub fn refresh(&mut self) -> crate::Result<()> {
        let vars = self.params.iter().map(variable).collect::<candle_core::Result<Vec<Var>>>();
        self.vars = vars.map_err(ounce_train::Error::from)?;
        Ok(())
    }

    /// The grids that were learned, for the folded network.
    pub fn grids(&self, folded: &Folded) -> Grids {
        let weights = self.weights.iter().zip(&folded.convs).map(|(place, conv)| {
            let steps = self.params[(*place)?].value.iter().zip(&conv.as_ref()?.factors);
            // A norm's factor of zero leaves no weight; any step will do.
            let scale = |(step, factor): (&f32, &f32)| (step.exp() * factor.abs()).max(f32::MIN_POSITIVE);
            let grid = |it| Grid { scale: scale(it), zero: 0, low: -self.high.0, high: self.high.0 };
            Some(steps.map(grid).collect())
        });
        let classes = folded.architecture.grids();
        let mut of_class: Vec<Grid> = vec![camera(); classes.len()];
        for (value, place) in self.values.iter().enumerate() {
            if let Some(place) = place {
                let scale = self.params[*place].value[0].exp();
                of_class[classes[value]] = Grid { scale, zero: 0, low: 0, high: self.high.1 };
            }
        }
        Grids { weights: weights.collect(), values: classes.iter().map(|&class| of_class[class]).collect() }
    }
}

impl Hook for Qat {
    fn weights(&mut self, step: usize, weights: Tensor) -> ounce_train::Result<Tensor> {
        match self.weights[step] {
            Some(place) => Ok(fake(&weights, self.vars[place].as_tensor(), -self.high.0, self.high.0)?),
            None => Ok(weights),
        }
    }

    fn value(&mut self, value: usize, x: Tensor) -> ounce_train::Result<Tensor> {
        match self.values[value] {
            Some(place) => Ok(fake(&x, self.vars[place].as_tensor(), 0, self.high.1)?),
            None => Ok(x),
        }
    }

    fn learned(&mut self) -> Vec<(&mut Param, &Var)> {
        self.params.iter_mut().zip(&self.vars).collect()
    }
}

/// bf16 in the place of f32, emulated: weights and values are rounded, and so are the gradients on their way back. Master
/// weights stay f32, as mixed-precision training keeps them; bf16 has the range of f32, so that losses need no scale.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bf16;

/// The nearest bf16.
pub fn bf16(value: f32) -> f32 {
    half::bf16::from_f32(value).to_f32()
}

fn half(x: &Tensor) -> candle_core::Result<Tensor> {
    let x = x.contiguous()?;
    let round = |values: &[f32]| values.iter().map(|&value| bf16(value)).collect::<Vec<f32>>();
    let out = read([&x], |[x]| round(x))?;
    let shape = x.shape().clone();
    node("bf16", &[&x], out, x.shape(), move |behind| {
        Ok(vec![Some(tensor(read([&behind.gradient], |[dy]| round(dy))?, &shape)?)])
    })
}

impl Hook for Bf16 {
    fn weights(&mut self, _: usize, weights: Tensor) -> ounce_train::Result<Tensor> {
        Ok(half(&weights)?)
    }

    fn value(&mut self, _: usize, x: Tensor) -> ounce_train::Result<Tensor> {
        Ok(half(&x)?)
    }
}

/// The grid of values of a ReLU whose largest is `most`.
pub fn unsigned(most: f32, bits: u32) -> Grid {
    Grid::new(0.0, most, bits, Symmetry::Asymmetric)
}
