//! Operations on images `[images, height, width, channels]`, each with its backward pass.

use candle_core::Tensor;
use ounce_kernels::conv::columns::{self, Batch};
use ounce_kernels::conv::{FloatConv, Layout, Window, weight_gradient};
use ounce_kernels::gemm::{Compute, Operand, Workspace, gemm};
use ounce_kernels::isa::Isa;
use ounce_kernels::pool::Pool;
use rayon::prelude::*;

use crate::graph::ops::{node, read, tensor};
use crate::{Error, Result};

fn shape(x: &Tensor) -> Result<Batch> {
    let (images, height, width, _) = x.dims4()?;
    Ok(Batch { images, height, width })
}

/// `Σ w x` over the window: `x` `[n, h, w, inputs]`, `weights` `[outputs, size · size · inputs]`.
///
/// At stride 1 an image is multiplied where it lies, with a border of zeros: forward as [`FloatConv`] does it, backward to the
/// image by the same with the window turned round, and backward to the weights by [`weight_gradient`]. At other strides
/// windows are unfolded on the way back.
///
/// # Errors
/// If the shapes don't fit.
pub fn convolve(x: &Tensor, weights: &Tensor, window: Window) -> Result<Tensor> {
    let batch = shape(x)?;
    let channels = x.dim(3)?;
    if channels != window.inputs || weights.dims() != [window.outputs, window.depth()] {
        let found = weights.dims();
        return Err(Error::Unsupported(format!(
            "{window:?} over {channels} channels with weights of {found:?}"
        )));
    }
    let (x, weights) = (x.contiguous()?, weights.contiguous()?);
    let result = batch.result(&window);
    let mut out = vec![0.0; result.pixels() * window.outputs];
    read([&x, &weights], |[x, weights]| forward(x, weights, &batch, &window, &mut out))?;
    let shape = (result.images, result.height, result.width, window.outputs);
    let kept = [x.clone(), weights.clone()];
    Ok(node("convolve", &[&x, &weights], out, shape, move |behind| {
        let [x, weights] = &kept;
        let [to_image, to_weights, _] = behind.wanted;
        let (dx, dw) = read([x, weights, &behind.gradient], |[x, weights, dy]| {
            backward(x, weights, dy, &batch, &window, to_image, to_weights)
        })?;
        let dx = dx.map(|dx| tensor(dx, x.shape())).transpose()?;
        let dw = dw.map(|dw| tensor(dw, weights.shape())).transpose()?;
        Ok(vec![dx, dw])
    })?)
}

/// The layout of one image with as much border as a window reads.
fn bordered(batch: &Batch, window: &Window, channels: usize) -> Layout {
    Layout { height: batch.height, width: batch.width, channels, border: window.padding() }
}

/// Copies an image into a border of zeros.
fn surround(image: &[f32], layout: &Layout, room: &mut Vec<f32>) {
    room.clear();
    room.resize(layout.values(), 0.0);
    let row = layout.width * layout.channels;
    for (y, line) in image.chunks(row).enumerate() {
        room[layout.at(y, 0)..][..row].copy_from_slice(line);
    }
}

fn forward(x: &[f32], weights: &[f32], batch: &Batch, window: &Window, out: &mut [f32]) {
    let result = batch.result(window);
    let conv = FloatConv::new(*window, weights, &vec![0.0; window.outputs], false);
    let from = bordered(batch, window, window.inputs);
    let to = Layout { height: result.height, width: result.width, channels: window.outputs, border: 0 };
    let image = batch.height * batch.width * window.inputs;
    out.par_chunks_mut(to.values()).zip(x.par_chunks(image)).for_each_init(Vec::new, |room, (out, image)| {
        surround(image, &from, room);
        conv.run(Isa::current(), (room, from), (out, to), 0);
    });
}

/// Gradients of image and weights.
fn backward(
    x: &[f32],
    weights: &[f32],
    dy: &[f32],
    batch: &Batch,
    window: &Window,
    to_image: bool,
    to_weights: bool,
) -> (Option<Vec<f32>>, Option<Vec<f32>>) {
    if window.stride != 1 {
        return unfolded_backward(x, weights, dy, batch, window, to_image, to_weights);
    }
    let (image, gradient) =
        (batch.height * batch.width * window.inputs, batch.height * batch.width * window.outputs);
    let dx = to_image.then(|| {
        // The gradient of the image is a convolution of dy with the window turned round.
        let turned = Window { inputs: window.outputs, outputs: window.inputs, ..*window };
        let taps = window.size * window.size;
        let mut back = vec![0.0; weights.len()];
        for output in 0..window.outputs {
            for tap in 0..taps {
                for input in 0..window.inputs {
                    back[(input * taps + taps - 1 - tap) * window.outputs + output] =
                        weights[(output * taps + tap) * window.inputs + input];
                }
            }
        }
        let mut dx = vec![0.0; x.len()];
        forward(dy, &back, batch, &turned, &mut dx);
        dx
    });
    let dw = to_weights.then(|| {
        let from = bordered(batch, window, window.inputs);
        // Of each image apart, added up in order: threads change nothing.
        let parts: Vec<Vec<f32>> = x
            .par_chunks(image)
            .zip(dy.par_chunks(gradient))
            .map_init(Vec::new, |room, (image, dy)| {
                surround(image, &from, room);
                let mut dw = vec![0.0; weights.len()];
                weight_gradient(Isa::current(), window, (room, from), dy, &mut dw);
                dw
            })
            .collect();
        sum(parts, weights.len())
    });
    (dx, dw)
}

fn sum(parts: Vec<Vec<f32>>, length: usize) -> Vec<f32> {
    let mut sum = vec![0.0; length];
    for part in parts {
        sum.iter_mut().zip(&part).for_each(|(sum, part)| *sum += part);
    }
    sum
}

/// Gradients by unfolded windows, for any stride.
fn unfolded_backward(
    x: &[f32],
    weights: &[f32],
    dy: &[f32],
    batch: &Batch,
    window: &Window,
    to_image: bool,
    to_weights: bool,
) -> (Option<Vec<f32>>, Option<Vec<f32>>) {
    let one = Batch { images: 1, ..*batch };
    let (pixels, depth, outputs) = (one.result(window).pixels(), window.depth(), window.outputs);
    let mut workspace = Workspace::default();
    let mut unfolded = vec![0.0; pixels * depth];
    let mut dx = to_image.then(|| vec![0.0; x.len()]);
    let mut dw = to_weights.then(|| vec![0.0; weights.len()]);
    let image = one.pixels() * window.inputs;
    for (number, (x, dy)) in x.chunks(image).zip(dy.chunks(pixels * outputs)).enumerate() {
        if let Some(dw) = &mut dw {
            columns::unfold(x, &one, window, &mut unfolded);
            let (a, b) = (Operand::columns(dy, outputs), Operand::rows(&unfolded, depth));
            let size = (outputs, depth, pixels);
            gemm(Pool::single(), Compute::F32, size, a, b, true, dw, depth, &mut workspace);
        }
        if let Some(dx) = &mut dx {
            let (a, b) = (Operand::rows(dy, outputs), Operand::rows(weights, depth));
            let size = (pixels, depth, outputs);
            gemm(Pool::single(), Compute::F32, size, a, b, false, &mut unfolded, depth, &mut workspace);
            columns::fold(&unfolded, &one, window, &mut dx[number * image..][..image]);
        }
    }
    (dx, dw)
}

/// What batch norm adds to variances.
pub const EPSILON: f32 = 1e-5;

/// Mean and variance of each channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// μ.
    pub mean: Vec<f32>,
    /// σ², of the values themselves.
    pub variance: Vec<f32>,
}

impl Statistics {
    /// Those of values whose last dimension is the channel.
    pub fn of(x: &[f32], channels: usize) -> Statistics {
        let count = (x.len() / channels.max(1)).max(1) as f64;
        let (sums, squares) = sums(x, x, channels);
        let mean: Vec<f32> = sums.iter().map(|sum| (sum / count) as f32).collect();
        let variance = squares
            .iter()
            .zip(&sums)
            .map(|(square, sum)| (square / count - (sum / count).powi(2)).max(0.0) as f32);
        Statistics { variance: variance.collect(), mean }
    }

    /// `1 / √(σ² + ε)`.
    pub fn inverse(&self) -> Vec<f32> {
        self.variance.iter().map(|variance| 1.0 / (variance + EPSILON).sqrt()).collect()
    }
}

/// `Σ a` and `Σ a b` of each channel: of some pixels in f32, of all in f64.
fn sums(a: &[f32], b: &[f32], channels: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut sums, mut products) = (vec![0.0f64; channels], vec![0.0f64; channels]);
    let (mut sum, mut product) = (vec![0.0f32; channels], vec![0.0f32; channels]);
    let width = channels.max(1);
    for (a, b) in a.chunks(width * 128).zip(b.chunks(width * 128)) {
        sum.fill(0.0);
        product.fill(0.0);
        for (a, b) in a.chunks_exact(width).zip(b.chunks_exact(width)) {
            for (((a, b), sum), product) in a.iter().zip(b).zip(&mut sum).zip(&mut product) {
                *sum += a;
                *product += a * b;
            }
        }
        sums.iter_mut().zip(&sum).for_each(|(all, part)| *all += f64::from(*part));
        products.iter_mut().zip(&product).for_each(|(all, part)| *all += f64::from(*part));
    }
    (sums, products)
}

/// Batch norm (Ioffe & Szegedy, 2015), with ReLU behind it if asked for: `γ (x − μ) / √(σ² + ε) + β`, μ and σ² of the batch
/// itself, or given ones that count as constants. `gamma` and `beta` are `[channels]`.
///
/// # Errors
/// If the shapes don't fit.
pub fn normalize(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    given: Option<&Statistics>,
    relu: bool,
) -> Result<(Tensor, Statistics)> {
    let x = x.contiguous()?;
    let (gamma, beta) = (gamma.contiguous()?, beta.contiguous()?);
    let channels = gamma.elem_count();
    if x.dim(3)? != channels || beta.elem_count() != channels {
        let found = x.dims();
        return Err(Error::Unsupported(format!(
            "a norm of {channels} channels for values of shape {found:?}"
        )));
    }
    let of_batch = given.is_none();
    let statistics = match given {
        Some(given) => given.clone(),
        None => read([&x], |[x]| Statistics::of(x, channels))?,
    };
    let inverse = statistics.inverse();
    let mean = statistics.mean.clone();
    let out = read([&x, &gamma, &beta], |[x, gamma, beta]| {
        // One factor and one term a channel.
        let factor: Vec<f32> = gamma.iter().zip(&inverse).map(|(gamma, inverse)| gamma * inverse).collect();
        let term: Vec<f32> =
            beta.iter().zip(&mean).zip(&factor).map(|((beta, mean), factor)| beta - mean * factor).collect();
        let least = if relu { 0.0 } else { f32::NEG_INFINITY };
        let mut out = vec![0.0; x.len()];
        for (out, x) in out.chunks_mut(channels).zip(x.chunks(channels)) {
            for (((out, x), factor), term) in out.iter_mut().zip(x).zip(&factor).zip(&term) {
                *out = (x * factor + term).max(least);
            }
        }
        out
    })?;
    let kept = [x.clone(), gamma.clone()];
    let shape = x.shape().clone();
    let normalized = node("normalize", &[&x, &gamma, &beta], out, shape, move |behind| {
        let [x, gamma] = &kept;
        let (dx, dgamma, dbeta) = read([x, gamma, &behind.gradient, behind.result], |[x, gamma, dy, y]| {
            let mut dy = dy.to_vec();
            if relu {
                dy.iter_mut().zip(y).for_each(|(dy, y)| *dy = if *y > 0.0 { *dy } else { 0.0 });
            }
            let (dbeta, products) = sums(&dy, x, channels);
            // Σ dy (x − μ) / σ.
            let dgamma: Vec<f32> = (products.iter().zip(&dbeta))
                .zip(mean.iter().zip(&inverse))
                .map(|((product, sum), (mean, inverse))| {
                    ((product - f64::from(*mean) * sum) * f64::from(*inverse)) as f32
                })
                .collect();
            let dbeta: Vec<f32> = dbeta.into_iter().map(|it| it as f32).collect();
            // dx = a dy + b x + c, channel by channel.
            let count = (x.len() / channels) as f32;
            let a: Vec<f32> = gamma.iter().zip(&inverse).map(|(gamma, inverse)| gamma * inverse).collect();
            let (mut b, mut c) = (vec![0.0; channels], vec![0.0; channels]);
            if of_batch {
                for channel in 0..channels {
                    b[channel] = -a[channel] * inverse[channel] * dgamma[channel] / count;
                    c[channel] = -a[channel] * dbeta[channel] / count - b[channel] * mean[channel];
                }
            }
            for (dy, x) in dy.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                for ((((dy, x), a), b), c) in dy.iter_mut().zip(x).zip(&a).zip(&b).zip(&c) {
                    *dy = a * *dy + b * x + c;
                }
            }
            (dy, dgamma, dbeta)
        })?;
        Ok(vec![
            Some(tensor(dx, x.shape())?),
            Some(tensor(dgamma, channels)?),
            Some(tensor(dbeta, channels)?),
        ])
    })?;
    Ok((normalized, statistics))
}

/// `x + b` with a bias `[channels]`, and ReLU behind it if asked for.
///
/// # Errors
/// If the shapes don't fit.
pub fn add_bias(x: &Tensor, bias: &Tensor, relu: bool) -> Result<Tensor> {
    let y = x.broadcast_add(bias)?;
    Ok(if relu { y.relu()? } else { y })
}

/// The largest of each 2 × 2 pixels; of equal ones the first takes the gradient.
///
/// # Errors
/// If height or width are no pairs.
pub fn pool(x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (batch, channels) = (shape(&x)?, x.dim(3)?);
    if batch.height % 2 + batch.width % 2 != 0 {
        return Err(Error::Unsupported(format!("{} x {} pixels are no pairs", batch.height, batch.width)));
    }
    let (rows, width) = (batch.images * batch.height / 2, batch.width / 2);
    let line = batch.width * channels;
    let mut out = vec![0.0; rows * width * channels];
    read([&x], |[x]| {
        for (out, pair) in out.chunks_exact_mut(width * channels).zip(x.chunks_exact(2 * line)) {
            let (top, bottom) = pair.split_at(line);
            let four = top.chunks_exact(2 * channels).zip(bottom.chunks_exact(2 * channels));
            for (out, (top, bottom)) in out.chunks_exact_mut(channels).zip(four) {
                let ((a, b), (c, d)) = (top.split_at(channels), bottom.split_at(channels));
                for ((((out, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                    *out = a.max(*b).max(c.max(*d));
                }
            }
        }
    })?;
    let (shape, own) = ((batch.images, batch.height / 2, width, channels), x.clone());
    Ok(node("pool", &[&x], out, shape, move |behind| {
        let mut dx = vec![0.0; own.elem_count()];
        // What the pixels before have not taken.
        let mut left = vec![0.0; channels];
        read([&own, behind.result, &behind.gradient], |[x, y, dy]| {
            for (row, (dx, x)) in dx.chunks_exact_mut(2 * line).zip(x.chunks_exact(2 * line)).enumerate() {
                for column in 0..width {
                    let at = (row * width + column) * channels;
                    let (y, dy) = (&y[at..at + channels], &dy[at..at + channels]);
                    left.copy_from_slice(dy);
                    for offset in [0, channels, line, line + channels] {
                        let place = 2 * column * channels + offset;
                        let (dx, x) = (&mut dx[place..place + channels], &x[place..place + channels]);
                        for (((dx, x), y), left) in dx.iter_mut().zip(x).zip(y).zip(&mut left) {
                            let own = if x == y { *left } else { 0.0 };
                            *dx = own;
                            *left -= own;
                        }
                    }
                }
            }
        })?;
        Ok(vec![Some(tensor(dx, own.shape())?)])
    })?)
}

/// Each pixel four times.
///
/// # Errors
/// If `x` is no batch of images.
pub fn grow(x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (batch, channels) = (shape(&x)?, x.dim(3)?);
    let line = batch.width * channels;
    let mut out = Vec::with_capacity(4 * x.elem_count());
    read([&x], |[x]| {
        for row in x.chunks(line) {
            for _ in 0..2 {
                for pixel in row.chunks(channels) {
                    out.extend_from_slice(pixel);
                    out.extend_from_slice(pixel);
                }
            }
        }
    })?;
    let whole = x.shape().clone();
    let shape = (batch.images, 2 * batch.height, 2 * batch.width, channels);
    Ok(node("grow", &[&x], out, shape, move |behind| {
        let mut dx = vec![0.0; whole.elem_count()];
        read([&behind.gradient], |[dy]| {
            for (dx, dy) in dx.chunks_mut(line).zip(dy.chunks(4 * line)) {
                for dy in dy.chunks(2 * line) {
                    for (dx, dy) in dx.chunks_mut(channels).zip(dy.chunks(2 * channels)) {
                        for (channel, dx) in dx.iter_mut().enumerate() {
                            *dx += dy[channel] + dy[channels + channel];
                        }
                    }
                }
            }
        })?;
        Ok(vec![Some(tensor(dx, &whole)?)])
    })?)
}

/// The mean of all pixels, `[n, 1, 1, channels]`.
///
/// # Errors
/// If `x` is no batch of images.
pub fn mean(x: &Tensor) -> Result<Tensor> {
    let (images, _, _, channels) = x.dims4()?;
    Ok(x.mean((1, 2))?.reshape((images, 1, 1, channels))?)
}

/// The channels of `a`, then those of `b`.
///
/// # Errors
/// If the images differ in size.
pub fn join(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(Tensor::cat(&[a, b], 3)?.contiguous()?)
}
