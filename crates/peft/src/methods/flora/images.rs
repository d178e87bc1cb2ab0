//! Small pictures of figures, and a convolutional network that tells them apart.

use candle_core::{D, Device, Tensor, Var};
use ounce_train::net::normal;
use ounce_train::{Param, ParamKind};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Sides of pictures.
const SIDE: usize = 16;
/// Figures of each kind of picture.
pub(super) const CLASSES: usize = 4;
/// The network's channels, from the picture on, and its steps from pixel to pixel.
const CHANNELS: [usize; 4] = [1, 16, 32, 64];
const STRIDES: [usize; 3] = [1, 2, 2];

/// Sizes of the convolutions' weights, `[out, in, height, width]`.
pub(super) fn sizes() -> [[usize; 4]; 3] {
    std::array::from_fn(|layer| [CHANNELS[layer + 1], CHANNELS[layer], 3, 3])
}

/// Which figures there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum World {
    /// Bright figures on a dark ground.
    First,
    /// Other figures, dark on a bright ground.
    Second,
}

/// Pictures with their classes.
pub(super) struct Pictures {
    /// `[pictures, 1, side, side]`.
    pub pixels: Tensor,
    /// `[pictures, classes]`, 1 where it is.
    pub right: Tensor,
}

/// Whether a figure covers a place; `x` and `y` are from its middle, in its radius.
fn covers(world: World, class: usize, x: f32, y: f32) -> bool {
    let (ax, ay) = (x.abs(), y.abs());
    match (world, class) {
        (World::First, 0) => ax.max(ay) <= 1.0 && ax.max(ay) > 0.6,
        (World::First, 1) => x * x + y * y <= 1.0,
        (World::First, 2) => ax.min(ay) <= 0.25 && ax.max(ay) <= 1.0,
        (World::First, _) => ax <= 1.0 && ay <= 1.0 && (2.0 * (y + 1.0)).rem_euclid(2.0) < 1.0,
        (World::Second, 0) => (-0.8..=0.8).contains(&y) && ax <= (y + 0.8) / 1.6,
        (World::Second, 1) => ax + ay <= 1.0 && ax + ay > 0.55,
        (World::Second, 2) => (ax - ay).abs() <= 0.3 && ax <= 1.0,
        (World::Second, _) => ax <= 1.0 && ay <= 1.0 && (2.0 * (x + 1.0)).rem_euclid(2.0) < 1.0,
    }
}

/// So many pictures at random places and sizes, with noise.
pub(super) fn pictures(world: World, count: usize, seed: u64) -> candle_core::Result<Pictures> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let noise = normal(0.25, count * SIDE * SIDE, seed, "noise");
    let (mut pixels, mut right) = (noise, vec![0.0f32; count * CLASSES]);
    for (picture, own) in pixels.chunks_exact_mut(SIDE * SIDE).enumerate() {
        let class = random.random_range(0..CLASSES);
        right[picture * CLASSES + class] = 1.0;
        let radius: f32 = random.random_range(3.0..5.5);
        let mut middle = || random.random_range(radius..SIDE as f32 - radius);
        let (cx, cy) = (middle(), middle());
        for (at, value) in own.iter_mut().enumerate() {
            let (x, y) = (at % SIDE, at / SIDE);
            let drawn = covers(world, class, (x as f32 + 0.5 - cx) / radius, (y as f32 + 0.5 - cy) / radius);
            let bright = drawn == (world == World::First);
            *value += if bright { 1.0 } else { 0.0 };
        }
    }
    Ok(Pictures {
        pixels: Tensor::from_vec(pixels, (count, 1, SIDE, SIDE), &Device::Cpu)?,
        right: Tensor::from_vec(right, (count, CLASSES), &Device::Cpu)?,
    })
}

/// The weights of a network: a matrix and a bias a convolution, and those of the head.
pub(super) fn fresh(seed: u64) -> Vec<Param> {
    let mut params = Vec::new();
    for (layer, size) in sizes().into_iter().enumerate() {
        let inputs = (size[1] * 9) as f32;
        let name = format!("conv.{layer}");
        let values = normal((2.0 / inputs).sqrt(), size.iter().product(), seed, &name);
        params.push(Param::new(name.as_str(), &size, ParamKind::Matrix, values));
        params.push(Param::new(format!("{name}.bias"), &[size[0]], ParamKind::Bias, vec![0.0; size[0]]));
    }
    params.extend(head(seed));
    params
}

/// A new head.
pub(super) fn head(seed: u64) -> [Param; 2] {
    let width = CHANNELS[3];
    let values = normal((1.0 / width as f32).sqrt(), CLASSES * width, seed, "head");
    [
        Param::new("head", &[CLASSES, width], ParamKind::Head, values),
        Param::new("head.bias", &[CLASSES], ParamKind::Bias, vec![0.0; CLASSES]),
    ]
}

/// From pictures to scores, `[pictures, classes]`, with something added to the weight of each convolution.
pub(super) fn scores(
    weights: &[Tensor],
    added: &[Option<Tensor>],
    x: &Tensor,
) -> candle_core::Result<Tensor> {
    let mut x = x.clone();
    for (layer, stride) in STRIDES.into_iter().enumerate() {
        let mut w = weights[2 * layer].clone();
        if let Some(added) = &added[layer] {
            w = (w + added)?;
        }
        let bias = weights[2 * layer + 1].reshape((1, (), 1, 1))?;
        x = x.conv2d(&w, 1, stride, 1, 1)?.broadcast_add(&bias)?.relu()?;
    }
    let pooled = x.mean(D::Minus1)?.mean(D::Minus1)?;
    pooled.matmul(&weights[6].t()?)?.broadcast_add(&weights[7])
}

/// The mean cross-entropy.
pub(super) fn loss(scores: &Tensor, right: &Tensor) -> candle_core::Result<Tensor> {
    let shifted = scores.broadcast_sub(&scores.max_keepdim(1)?)?;
    let logs = shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(1)?.log()?)?;
    (logs * right)?.sum(1)?.mean_all()?.neg()
}

/// The share of pictures whose greatest score is the right one's, in percent.
pub(super) fn accuracy(scores: &Tensor, right: &Tensor) -> candle_core::Result<f64> {
    let (found, right) = (scores.argmax(1)?.to_vec1::<u32>()?, right.argmax(1)?.to_vec1::<u32>()?);
    let equal = found.iter().zip(&right).filter(|(a, b)| a == b).count();
    Ok(100.0 * equal as f64 / found.len().max(1) as f64)
}

/// The values of parameters as tensors; those that are trained as variables.
pub(super) fn tensors(params: &[Param]) -> candle_core::Result<Vec<Tensor>> {
    let tensor = |param: &Param| {
        let tensor = Tensor::from_vec(param.value.clone(), param.shape.as_slice(), &Device::Cpu)?;
        Ok(if param.is_trainable() { Var::from_tensor(&tensor)?.into_inner() } else { tensor })
    };
    params.iter().map(tensor).collect()
}
