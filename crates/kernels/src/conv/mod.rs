//! Convolutions of images, for inference: f32, and int8 that sums in i32 and comes back to 8 bits in integers.
//!
//! Images are NHWC, one at a time, with a border of pixels around them that convolutions read as padding ([`Layout`]): a
//! row of a window then lies in one piece, and the product of unfolded images (im2col) needs no unfolded copy. Both types go
//! the same way: panels of sixteen outputs, a tile of pixels times panels in registers, the whole depth at once. Bias,
//! ReLU and the way back to 8 bits happen to a tile while it is there, and it may be written between the channels of a
//! wider image, which is what joins two of them.
//!
//! For training, [`weight_gradient`] sums over pixels in the same way, and [`columns`] unfolds images; [`plain`] is the truth of
//! tests.

pub mod columns;
mod gradient;
mod lanes;
pub mod plain;
mod tiles;

#[cfg(test)]
mod tests;

pub use gradient::weight_gradient;

use crate::isa::Isa;
use crate::requantize::Multiplier;
use tiles::Job;

/// Outputs of a panel.
pub const PANEL: usize = 16;

/// How an image lies in memory: rows of pixels of channels, with `border` pixels on every side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Rows, without the border.
    pub height: usize,
    /// Pixels of a row, without the border.
    pub width: usize,
    /// Values of a pixel.
    pub channels: usize,
    /// Pixels around it.
    pub border: usize,
}

impl Layout {
    /// Values, border included.
    pub fn values(&self) -> usize {
        (self.height + 2 * self.border) * self.row()
    }

    /// Values from one row to the next.
    pub fn row(&self) -> usize {
        (self.width + 2 * self.border) * self.channels
    }

    /// Where a pixel's first value is.
    pub fn at(&self, y: usize, x: usize) -> usize {
        (y + self.border) * self.row() + (x + self.border) * self.channels
    }
}

/// What a convolution is: a square window, moved by `stride`, over an image that is padded by half the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Channels that it reads.
    pub inputs: usize,
    /// Channels that it gives.
    pub outputs: usize,
    /// Side of the window, odd.
    pub size: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
}

impl Window {
    /// Pixels of padding on each side.
    pub fn padding(&self) -> usize {
        self.size / 2
    }

    /// Height or width of the result for that of the image.
    pub fn result(&self, side: usize) -> usize {
        (side + 2 * self.padding() - self.size) / self.stride + 1
    }

    /// Values in a window.
    pub fn depth(&self) -> usize {
        self.size * self.size * self.inputs
    }
}

/// Panels of weights: of each sixteen outputs, all steps of the depth; a step is `group` values of each output.
fn panels<T: Copy + Default>(weights: &[T], window: &Window, group: usize) -> Vec<T> {
    let depth = window.depth();
    assert_eq!(weights.len(), window.outputs * depth, "weights of every output");
    let mut packed = Vec::with_capacity(window.outputs.next_multiple_of(PANEL) * depth);
    for first in (0..window.outputs).step_by(PANEL) {
        for step in (0..depth).step_by(group) {
            for output in first..first + PANEL {
                let at = output * depth + step;
                match output < window.outputs {
                    true => packed.extend_from_slice(&weights[at..at + group]),
                    false => packed.extend(std::iter::repeat_n(T::default(), group)),
                }
            }
        }
    }
    packed
}

/// Values for all lanes of all panels.
fn padded<T: Copy>(values: impl Iterator<Item = T>, outputs: usize, fill: T) -> Vec<T> {
    values.chain(std::iter::repeat(fill)).take(outputs.next_multiple_of(PANEL)).collect()
}

/// A convolution in f32 with its bias and, if asked for, ReLU.
#[derive(Debug, Clone)]
pub struct FloatConv {
    window: Window,
    weights: Vec<f32>,
    bias: Vec<f32>,
    relu: bool,
}

impl FloatConv {
    /// From weights `[outputs, size, size, inputs]`.
    ///
    /// # Panics
    /// If the shapes don't fit.
    pub fn new(window: Window, weights: &[f32], bias: &[f32], relu: bool) -> FloatConv {
        assert_eq!(bias.len(), window.outputs, "a bias for each output");
        let bias = padded(bias.iter().copied(), window.outputs, 0.0);
        FloatConv { window, weights: panels(weights, &window, 1), bias, relu }
    }

    /// Writes the result of `image` between the channels of `out`, from `channel` on.
    ///
    /// # Panics
    /// If layouts don't fit the window or the slices.
    pub fn run(&self, isa: Isa, image: (&[f32], Layout), out: (&mut [f32], Layout), channel: usize) {
        let job = Job { window: &self.window, weights: &self.weights, image, channel };
        let least = if self.relu { 0.0 } else { f32::NEG_INFINITY };
        let finish = tiles::Floats { bias: &self.bias, least };
        tiles::run(isa, &job, &finish, out);
    }
}

/// A convolution of codes: `y = z + M (Σ q_w q_x + bias)`, clipped, with a dyadic M for each output.
#[derive(Debug, Clone)]
pub struct IntConv {
    window: Window,
    weights: Vec<i8>,
    /// Bias, and what the zero point of the image takes off.
    bias: Vec<i32>,
    factors: Vec<i32>,
    shifts: Vec<u32>,
    scales: Vec<f32>,
    output: Codes,
}

/// Codes of a result: what stands for 0, the least (the zero itself behind a ReLU) and the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codes {
    /// The code of 0.
    pub zero: i32,
    /// The least.
    pub low: i32,
    /// The largest.
    pub high: i32,
}

/// What is needed beside the weights' codes.
#[derive(Debug, Clone)]
pub struct Scales<'a> {
    /// Step of each output's weights, which are symmetric.
    pub weights: &'a [f32],
    /// Bias of each output, in real numbers.
    pub bias: &'a [f32],
    /// Step of the image.
    pub image: f32,
    /// The image's code of 0, with which its border must be filled.
    pub zero: u8,
    /// Step of the result.
    pub result: f32,
    /// Codes of the result.
    pub codes: Codes,
}

/// Bytes that are multiplied at once: pixels must have whole groups of them.
pub const GROUP: usize = 4;

impl IntConv {
    /// From codes `[outputs, size, size, inputs]`; inputs are a multiple of [`GROUP`].
    ///
    /// # Panics
    /// If the shapes don't fit, or codes of results aren't bytes.
    pub fn new(window: Window, codes: &[i8], scales: &Scales<'_>) -> IntConv {
        assert!(window.inputs.is_multiple_of(GROUP), "channels in groups of {GROUP}");
        assert!(
            scales.bias.len() == window.outputs && scales.weights.len() == window.outputs,
            "scales of each output"
        );
        let Codes { low, high, zero } = scales.codes;
        assert!(0 <= low && low <= high && high <= 255 && (0..=255).contains(&zero), "codes are bytes");
        let steps: Vec<f64> =
            scales.weights.iter().map(|&it| f64::from(it) * f64::from(scales.image)).collect();
        let rows = codes.chunks(window.depth().max(1));
        let bias = rows.zip(scales.bias).zip(&steps).map(|((row, &bias), step)| {
            let sum: i32 = row.iter().map(|&code| i32::from(code)).sum();
            (f64::from(bias) / step).round() as i32 - i32::from(scales.zero) * sum
        });
        let bias = padded(bias, window.outputs, 0);
        let multipliers: Vec<Multiplier> =
            steps.iter().map(|step| Multiplier::new(step / f64::from(scales.result))).collect();
        IntConv {
            window,
            weights: panels(codes, &window, GROUP),
            bias,
            factors: padded(multipliers.iter().map(|it| it.factor), window.outputs, 0),
            shifts: padded(multipliers.iter().map(|it| it.shift), window.outputs, 1),
            scales: padded(steps.iter().map(|&step| step as f32), window.outputs, 0.0),
            output: scales.codes,
        }
    }

    /// Bytes of weights, biases and multipliers without the filling of panels.
    pub fn bytes(&self) -> usize {
        self.window.outputs * (self.window.depth() + 12)
    }

    /// Writes the codes of the result of `image` between the channels of `out`, from `channel` on.
    ///
    /// # Panics
    /// If layouts don't fit the window or the slices.
    pub fn run(&self, isa: Isa, image: (&[u8], Layout), out: (&mut [u8], Layout), channel: usize) {
        let job = Job { window: &self.window, weights: &self.weights, image, channel };
        let finish = tiles::ToCodes {
            bias: &self.bias,
            factors: &self.factors,
            shifts: &self.shifts,
            codes: self.output,
        };
        tiles::run(isa, &job, &finish, out);
    }

    /// As [`IntConv::run`], with results in real numbers: for the last layer.
    ///
    /// # Panics
    /// As [`IntConv::run`].
    pub fn run_to_floats(&self, isa: Isa, image: (&[u8], Layout), out: (&mut [f32], Layout), channel: usize) {
        let job = Job { window: &self.window, weights: &self.weights, image, channel };
        let finish = tiles::ToFloats { bias: &self.bias, scales: &self.scales };
        tiles::run(isa, &job, &finish, out);
    }
}
