//! A small classifier that reads shape, place and style off a drawing: the judge of what generated drawings show.

use candle_core::{D, Device, Tensor, Var};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::denoiser::{CHANNELS, GRID, PATCH, POINTS};
use super::glyphs::{KINDS, PIXELS, Prompt, SIZE, WORDS};
use super::normal;
use crate::graph::ops::activation::{self, Activation};
use crate::graph::ops::{Factor, Kernels, linear, patches};
use crate::{Param, ParamKind, Result};

/// Channels behind the convolution, and behind the layer on 2 × 2 of its points.
const WIDTHS: [usize; 2] = [32, 48];

/// The classifier with its weights.
#[derive(Debug, Clone)]
pub struct Reader {
    pub(super) on: Kernels,
    pub(super) params: Vec<Param>,
}

/// What a reader finds in drawings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Share of drawings that show all three words.
    pub agreement: f64,
    /// Share of words that are shown.
    pub words: f64,
    /// Mean surprise at the prompt's words, in nats a drawing.
    pub surprise: f64,
}

/// What a reader finds in one drawing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Read {
    /// Words of the prompt that are shown.
    pub words: usize,
    /// Surprise at the prompt's words, in nats.
    pub surprise: f64,
}

impl Reader {
    /// A reader that knows nothing yet.
    pub fn new(on: Kernels, seed: u64) -> Reader {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let quarter = POINTS / 4;
        let sizes = [(WIDTHS[0], 9 * CHANNELS), (WIDTHS[1], 4 * WIDTHS[0]), (WORDS, quarter * WIDTHS[1])];
        let mut params = Vec::new();
        for (number, (outputs, inputs)) in sizes.into_iter().enumerate() {
            let scale = (inputs as f32).sqrt().recip();
            let values = normal(&mut random, outputs * inputs).into_iter().map(|value| value * scale);
            let (name, shape) = (format!("{number}.weight"), [outputs, inputs]);
            params.push(Param::new(name, &shape, ParamKind::Matrix, values.collect()));
            let (name, zeros) = (format!("{number}.bias"), vec![0.0; outputs]);
            params.push(Param::new(name, &[outputs], ParamKind::Bias, zeros));
        }
        Reader { on, params }
    }

    /// Scores of all words, `[images, WORDS]`, for drawings `[images, pixels]`.
    fn scores(&self, values: &[Tensor], x: &Tensor) -> Result<Tensor> {
        let images = x.dim(0)?;
        let layer = |number: usize, x: &Tensor| {
            linear(self.on, x, &Factor::Dense(values[2 * number].clone()), Some(&values[2 * number + 1]))
        };
        let silu = |x: Tensor| activation::plain(self.on, Activation::Silu, &x);
        let x = x.reshape((images, GRID, PATCH, GRID, PATCH))?.permute((0, 1, 3, 2, 4))?;
        let x = patches(self.on, &x.reshape((images * POINTS, CHANNELS))?, (GRID, GRID), CHANNELS)?;
        let x = silu(layer(0, &x)?)?;
        let half = SIZE / PATCH / 2;
        let x = x.reshape(&[images, half, 2, half, 2, WIDTHS[0]])?.permute(vec![0, 1, 3, 2, 4, 5])?;
        let x = silu(layer(1, &x.reshape((images * half * half, 4 * WIDTHS[0]))?)?)?;
        layer(2, &x.reshape((images, half * half * WIDTHS[1]))?)
    }

    /// The sum over drawings and kinds of words of the surprise at the right word.
    pub(super) fn loss(&self, vars: &[Var], x: &Tensor, prompts: &[Prompt]) -> Result<Tensor> {
        let values: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let scores = self.scores(&values, x)?;
        let (mut sum, mut from) = (None::<Tensor>, 0);
        for (kind, count) in KINDS.into_iter().enumerate() {
            let own = scores.narrow(1, from, count)?.contiguous()?;
            from += count;
            let right: Vec<u32> = prompts.iter().map(|prompt| prompt.choices()[kind] as u32).collect();
            let right = Tensor::from_vec(right, (prompts.len(), 1), &Device::Cpu)?;
            let surprise = (own.log_sum_exp(D::Minus1)?.sum_all()? - own.gather(&right, 1)?.sum_all()?)?;
            sum = Some(match sum {
                Some(sum) => (sum + surprise)?,
                None => surprise,
            });
        }
        sum.ok_or_else(|| crate::Error::Unsupported("there are no kinds of words".to_string()))
    }

    /// Reads drawings, `[prompts, pixels]` one behind the other, and compares with what they should show.
    ///
    /// # Errors
    /// If there are not as many drawings as prompts.
    pub fn read(&self, drawings: &[f32], prompts: &[Prompt]) -> Result<Reading> {
        let each = self.read_each(drawings, prompts)?;
        let count = each.len() as f64;
        let sum = |of: &dyn Fn(&Read) -> f64| each.iter().map(of).sum::<f64>() / count;
        Ok(Reading {
            agreement: sum(&|it| f64::from(u8::from(it.words == KINDS.len()))),
            words: sum(&|it| it.words as f64) / KINDS.len() as f64,
            surprise: sum(&|it| it.surprise),
        })
    }

    /// As [`Reader::read`], drawing by drawing.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn read_each(&self, drawings: &[f32], prompts: &[Prompt]) -> Result<Vec<Read>> {
        let tensor = |param: &Param| Tensor::from_slice(&param.value, param.shape.as_slice(), &Device::Cpu);
        let values: Vec<Tensor> = self.params.iter().map(tensor).collect::<Result<_, _>>()?;
        let x = Tensor::from_slice(drawings, (prompts.len(), PIXELS), &Device::Cpu)?;
        let scores = self.scores(&values, &x)?.to_vec2::<f32>()?;
        let each = scores.iter().zip(prompts).map(|(scores, prompt)| {
            let (mut read, mut from) = (Read::default(), 0);
            for (choice, count) in prompt.choices().into_iter().zip(KINDS) {
                let own = &scores[from..from + count];
                from += count;
                let top = own.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f64 = own.iter().map(|score| f64::from(score - top).exp()).sum();
                read.surprise += sum.ln() - f64::from(own[choice] - top);
                read.words += usize::from(
                    own.iter().enumerate().all(|(at, &score)| at == choice || score < own[choice]),
                );
            }
            read
        });
        Ok(each.collect())
    }
}
