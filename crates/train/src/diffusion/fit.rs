//! Training of the denoiser and of the reader, with AdamW on drawings that are never used twice.
//!
//! The denoiser learns to give the drawing itself, `E |f(cos φ · x + sin φ · noise, φ, words) − x|²`, at the two levels of
//! noise at which it will be asked, and at levels between.

use candle_core::{Device, Tensor, Var};
use ounce_kernels::pool::Pool;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::denoiser::{Denoiser, Plain, stream};
use super::glyphs::{PIXELS, Prompt};
use super::normal;
use super::reader::Reader;
use super::request::STEPS;
use crate::graph::ops::read;
use crate::optim::norm::{clip_factor, global_norm};
use crate::optim::{self, Optimizer};
use crate::schedule::{Schedule, Shape};
use crate::{Error, Param, Result};

/// How long and how fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Steps of AdamW.
    pub steps: u64,
    /// Drawings of a step.
    pub drawings: usize,
    /// The highest learning rate.
    pub rate: f64,
}

impl Options {
    /// What the denoiser of the usual size needs.
    pub fn denoiser() -> Options {
        Options { steps: 1500, drawings: 32, rate: 2e-3 }
    }

    /// What the reader needs.
    pub fn reader() -> Options {
        Options { steps: 800, drawings: 64, rate: 3e-3 }
    }
}

/// Trains the denoiser; gives the mean loss of the last tenth of the steps, a pixel. `progress` is told steps done.
///
/// # Errors
/// If the loss is no number.
pub fn denoiser(
    net: &mut Denoiser,
    options: &Options,
    seed: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<f64> {
    let mut random = stream(seed, 1);
    let mut batches = Batches { random: &mut random, drawings: options.drawings };
    let (pool, mut params) = (net.on.pool, std::mem::take(&mut net.params));
    let frame = net.clone();
    let trained = descend(pool, options, &mut params, progress, &mut |vars| batches.error(&frame, vars));
    net.params = params;
    trained
}

/// The gradient of the denoiser's loss by the matrix of each layer, on so many new drawings.
///
/// # Errors
/// If memory does not suffice.
pub fn gradients(net: &Denoiser, drawings: usize, seed: u64) -> Result<Vec<Vec<f32>>> {
    let mut random = stream(seed, 3);
    let mut batches = Batches { random: &mut random, drawings };
    let var = |param: &Param| Var::from_slice(&param.value, param.shape.as_slice(), &Device::Cpu);
    let vars: Vec<Var> = net.params.iter().map(var).collect::<Result<_, _>>()?;
    let found = batches.error(net, &vars)?.backward()?;
    let of_layer = |layer: &super::Layer| match found.get(&vars[layer.weight]) {
        Some(gradient) => Ok(gradient.flatten_all()?.to_vec1::<f32>()?),
        None => Ok(vec![0.0; layer.weights()]),
    };
    net.layers().iter().map(of_layer).collect()
}

/// Trains the reader on drawings with some noise; gives the mean surprise a drawing in the last tenth of the steps.
///
/// # Errors
/// If the loss is no number.
pub fn reader(
    reader: &mut Reader,
    options: &Options,
    seed: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<f64> {
    let mut random = stream(seed, 2);
    let mut batches = Batches { random: &mut random, drawings: options.drawings };
    let (frame, mut params) = (reader.clone(), std::mem::take(&mut reader.params));
    let trained = descend(frame.on.pool, options, &mut params, progress, &mut |vars| {
        let (prompts, x) = batches.next()?;
        let noise = normal(batches.random, options.drawings * PIXELS);
        let noise = (Tensor::from_vec(noise, x.shape(), &Device::Cpu)? * 0.2)?;
        Ok((frame.loss(vars, &(x + noise)?, &prompts)? / options.drawings as f64)?)
    });
    reader.params = params;
    trained
}

/// New drawings for every step.
struct Batches<'r> {
    random: &'r mut ChaCha8Rng,
    drawings: usize,
}

impl Batches<'_> {
    fn next(&mut self) -> Result<(Vec<Prompt>, Tensor)> {
        let prompts: Vec<Prompt> = (0..self.drawings).map(|_| Prompt::random(self.random)).collect();
        let pixels: Vec<f32> = prompts.iter().flat_map(|prompt| prompt.draw(self.random)).collect();
        let x = Tensor::from_vec(pixels, (self.drawings, PIXELS), &Device::Cpu)?;
        Ok((prompts, x))
    }

    /// The denoiser's squared error on new drawings, a pixel.
    fn error(&mut self, net: &Denoiser, vars: &[Var]) -> Result<Tensor> {
        let (prompts, x) = self.next()?;
        let noise = Tensor::from_vec(normal(self.random, self.drawings * PIXELS), x.shape(), &Device::Cpu)?;
        let angles: Vec<f32> = (0..prompts.len())
            .map(|at| match at % 4 {
                0 | 1 => STEPS[0],
                2 => STEPS[1],
                _ => self.random.random_range(STEPS[1]..STEPS[0]),
            })
            .collect();
        let factor = |of: fn(f32) -> f32| {
            Tensor::from_iter(angles.iter().map(|&angle| of(angle)), &Device::Cpu)?.reshape((angles.len(), 1))
        };
        let seen = (x.broadcast_mul(&factor(f32::cos)?)? + noise.broadcast_mul(&factor(f32::sin)?)?)?;
        let found = net.tracked(vars).forward(&seen, &angles, &prompts, &mut Plain)?;
        Ok((found - x)?.sqr()?.mean_all()?)
    }
}

/// Steps of AdamW down a loss; a warm-up, then half a cosine.
fn descend(
    pool: &'static Pool,
    options: &Options,
    params: &mut [Param],
    progress: &mut dyn FnMut(u64),
    loss: &mut dyn FnMut(&[Var]) -> Result<Tensor>,
) -> Result<f64> {
    let Options { steps, rate, .. } = *options;
    let shape = Shape::Cosine { floor: rate / 50.0 };
    let schedule = Schedule { peak: rate, warmup: steps / 20, total: steps, shape };
    let settings = optim::Options { weight_decay: 0.01, beta2: 0.99, ..optim::Options::default() };
    let mut optimizer = Optimizer::new(settings, params)?;
    optimizer.set_pool(pool);
    let (mut sum, mut count) = (0.0, 0);
    for step in 0..steps {
        let var = |param: &Param| Var::from_slice(&param.value, param.shape.as_slice(), &Device::Cpu);
        let vars: Vec<Var> = params.iter().map(var).collect::<Result<_, _>>()?;
        let loss = loss(&vars)?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        if !value.is_finite() {
            return Err(Error::Diverged(format!("the loss of step {step} is no number; lower the rate")));
        }
        let mut gradients = loss.backward()?;
        for (var, param) in vars.iter().zip(params.iter_mut()) {
            match gradients.remove(var) {
                Some(gradient) => {
                    read([&gradient.contiguous()?], |[gradient]| param.grad.copy_from_slice(gradient))?;
                }
                None => param.grad.fill(0.0),
            }
        }
        let clip = clip_factor(global_norm(pool, params), Some(1.0));
        optimizer.step(params, schedule.rate(step), clip);
        if step >= steps - steps.div_ceil(10) {
            (sum, count) = (sum + value, count + 1);
        }
        progress(step + 1);
    }
    Ok(sum / f64::from(count.max(1)))
}
