//! A network's weights, and how they learn.

use candle_core::{Device, Tensor, Var};
use ounce_kernels::conv::Window;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::architecture::{Architecture, Step};
use super::ops::{self, Statistics};
use crate::optim::Optimizer;
use crate::{Error, Param, ParamKind, Result};

/// Which statistics batch norms use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norms {
    /// Those of the batch, of which running means are kept.
    Batch,
    /// The running means, which stay.
    Running,
}

/// Where other code sees what a network computes with; what comes back is used in its place.
pub trait Hook {
    /// The weights of the convolution in step `step`, `[outputs, depth]`.
    ///
    /// # Errors
    /// Whatever the hook finds wrong; ends the pass.
    fn weights(&mut self, _step: usize, weights: Tensor) -> Result<Tensor> {
        Ok(weights)
    }

    /// Value `value`; 0 is the image.
    ///
    /// # Errors
    /// As [`Hook::weights`].
    fn value(&mut self, _value: usize, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }

    /// Parameters of the hook's own, with their variables, that learn with the network.
    fn learned(&mut self) -> Vec<(&mut Param, &Var)> {
        Vec::new()
    }
}

/// Leaves everything as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHook;

impl Hook for NoHook {}

/// What a step of training gave.
#[derive(Debug, Clone, Copy)]
pub struct Trained {
    /// The loss before the step.
    pub loss: f32,
}

/// A network with its weights.
#[derive(Debug, Clone)]
pub struct Net {
    /// What it is.
    pub architecture: Architecture,
    /// Weights: of each convolution its matrix, then γ and β or the bias.
    pub params: Vec<Param>,
    /// Running statistics, by step; those of steps without a norm are empty.
    pub running: Vec<Statistics>,
    /// Of each step the number of its first parameter.
    places: Vec<Option<usize>>,
}

/// How much of a batch's statistics comes into the running ones.
const MOMENTUM: f32 = 0.1;

impl Net {
    /// A network with random weights (He et al., 2015: variance 2 / depth).
    ///
    /// # Errors
    /// If steps don't fit each other.
    pub fn new(architecture: Architecture, seed: u64) -> Result<Net> {
        architecture.shapes()?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut params, mut running, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for (index, step) in architecture.steps.iter().enumerate() {
            let Step::Conv { window, norm, .. } = *step else {
                running.push(Statistics { mean: Vec::new(), variance: Vec::new() });
                places.push(None);
                continue;
            };
            places.push(Some(params.len()));
            let name = |part: &str| format!("steps.{index}.{part}");
            // Even numbers of the same variance.
            let reach = (6.0 / window.depth() as f32).sqrt();
            let values =
                (0..window.outputs * window.depth()).map(|_| (2.0 * rng.random::<f32>() - 1.0) * reach);
            let shape = [window.outputs, window.depth()];
            params.push(Param::new(name("weight"), &shape, ParamKind::Matrix, values.collect()));
            let row = |part: &str, kind, value: f32| {
                Param::new(name(part), &[window.outputs], kind, vec![value; window.outputs])
            };
            if norm {
                params.push(row("gamma", ParamKind::Norm, 1.0));
                params.push(row("beta", ParamKind::Bias, 0.0));
                running.push(Statistics {
                    mean: vec![0.0; window.outputs],
                    variance: vec![1.0; window.outputs],
                });
            } else {
                params.push(row("bias", ParamKind::Bias, 0.0));
                running.push(Statistics { mean: Vec::new(), variance: Vec::new() });
            }
        }
        Ok(Net { architecture, params, running, places })
    }

    /// The window and weights of the convolution in a step.
    pub fn weights(&self, step: usize) -> Option<(Window, &Param)> {
        let Step::Conv { window, .. } = *self.architecture.steps.get(step)? else { return None };
        Some((window, &self.params[self.places[step]?]))
    }

    /// As [`Net::weights`], to be changed.
    pub fn weights_mut(&mut self, step: usize) -> Option<&mut Param> {
        let place = (*self.places.get(step)?)?;
        Some(&mut self.params[place])
    }

    /// γ and β of a step's norm, to be changed.
    pub fn norm_mut(&mut self, step: usize) -> Option<(&mut Param, &mut Param)> {
        let Step::Conv { norm: true, .. } = self.architecture.steps.get(step)? else { return None };
        let place = (*self.places.get(step)?)?;
        match &mut self.params[place + 1..place + 3] {
            [gamma, beta] => Some((gamma, beta)),
            _ => None,
        }
    }

    /// What stands behind the weights of a step: γ and β, or the bias.
    pub(super) fn behind(&self, step: usize) -> &[Param] {
        match (self.places[step], self.architecture.steps[step]) {
            (Some(place), Step::Conv { norm: true, .. }) => &self.params[place + 1..place + 3],
            (Some(place), _) => &self.params[place + 1..place + 2],
            _ => &[],
        }
    }

    /// Results for images `[n, height, width, channels]`, with running statistics.
    ///
    /// # Errors
    /// If images don't fit, or the hook finds something wrong.
    pub fn forward(&self, images: &[f32], hook: &mut dyn Hook) -> Result<Vec<f32>> {
        let weights =
            self.params.iter().map(|it| Tensor::from_slice(&it.value, it.shape.as_slice(), &Device::Cpu));
        let weights = weights.collect::<candle_core::Result<Vec<Tensor>>>()?;
        let (out, _) = self.pass(&weights, images, Norms::Running, hook)?;
        Ok(out.flatten_all()?.to_vec1()?)
    }

    /// Loss and gradients of a batch, which are added to those of the parameters and of the hook's. With [`Norms::Batch`] the
    /// running statistics follow.
    ///
    /// # Errors
    /// As [`Net::forward`], or if the loss can't be computed.
    pub fn accumulate(
        &mut self,
        images: &[f32],
        norms: Norms,
        hook: &mut dyn Hook,
        loss: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<f32> {
        let vars = self.params.iter().map(|it| Var::from_slice(&it.value, it.shape.as_slice(), &Device::Cpu));
        let vars = vars.collect::<candle_core::Result<Vec<Var>>>()?;
        let weights: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let (out, seen) = self.pass(&weights, images, norms, hook)?;
        let loss = loss(&out)?;
        let gradients = loss.backward()?;
        let own = self.params.iter_mut().zip(&vars);
        for (param, var) in own.chain(hook.learned()) {
            let Some(gradient) = gradients.get(var.as_tensor()).filter(|_| param.is_trainable()) else {
                continue;
            };
            let values: Vec<f32> = gradient.flatten_all()?.to_vec1()?;
            param.grad.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        for (running, seen) in self.running.iter_mut().zip(seen) {
            let Some(seen) = seen else { continue };
            let toward = |old: &mut [f32], new: &[f32]| {
                old.iter_mut().zip(new).for_each(|(old, new)| *old += MOMENTUM * (new - *old));
            };
            toward(&mut running.mean, &seen.mean);
            toward(&mut running.variance, &seen.variance);
        }
        Ok(loss.to_scalar::<f32>()?)
    }

    /// [`Net::accumulate`] from zero and one step of the optimizer at learning rate `rate`.
    ///
    /// # Errors
    /// As [`Net::accumulate`].
    pub fn learn(
        &mut self,
        optimizer: &mut Optimizer,
        rate: f64,
        images: &[f32],
        norms: Norms,
        hook: &mut dyn Hook,
        loss: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Trained> {
        self.params.iter_mut().for_each(|param| param.grad.fill(0.0));
        let loss = self.accumulate(images, norms, hook, loss)?;
        if !loss.is_finite() {
            return Err(Error::Diverged(format!("the loss is {loss}; try a lower learning rate")));
        }
        optimizer.step(&mut self.params, rate, 1.0);
        Ok(Trained { loss })
    }

    fn pass(
        &self,
        weights: &[Tensor],
        images: &[f32],
        norms: Norms,
        hook: &mut dyn Hook,
    ) -> Result<(Tensor, Vec<Option<Statistics>>)> {
        let Architecture { side: (height, width), channels, ref steps } = self.architecture;
        let one = height * width * channels;
        if images.is_empty() || !images.len().is_multiple_of(one) {
            let count = images.len();
            return Err(Error::Batch(format!(
                "{count} values are no images of {height} x {width} x {channels}"
            )));
        }
        let shape = (images.len() / one, height, width, channels);
        let mut values = vec![hook.value(0, Tensor::from_slice(images, shape, &Device::Cpu)?)?];
        let mut seen = Vec::with_capacity(steps.len());
        for (index, step) in steps.iter().enumerate() {
            let mut statistics = None;
            let out = match *step {
                Step::Conv { from, window, norm, relu } => {
                    let place = self.places[index].unwrap_or_default();
                    let matrix = hook.weights(index, weights[place].clone())?;
                    let y = ops::convolve(&values[from], &matrix, window)?;
                    if norm {
                        let given = (norms == Norms::Running).then_some(&self.running[index]);
                        let (y, found) =
                            ops::normalize(&y, &weights[place + 1], &weights[place + 2], given, relu)?;
                        statistics = (norms == Norms::Batch).then_some(found);
                        y
                    } else {
                        ops::add_bias(&y, &weights[place + 1], relu)?
                    }
                }
                Step::Pool { from } => ops::pool(&values[from])?,
                Step::Grow { from } => ops::grow(&values[from])?,
                Step::Join { from: [a, b] } => ops::join(&values[a], &values[b])?,
                Step::Mean { from } => ops::mean(&values[from])?,
            };
            values.push(hook.value(index + 1, out)?);
            seen.push(statistics);
        }
        match values.pop() {
            Some(out) => Ok((out, seen)),
            None => Err(Error::Unsupported("a network without steps".into())),
        }
    }
}
