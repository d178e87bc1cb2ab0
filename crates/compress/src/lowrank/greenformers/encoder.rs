//! A small encoder that sorts sequences: whole matrices or factors, attention over all keys or over projected ones. Layers are
//! `x + O attend(N x)` and `x + D gelu(U N x)`; the label comes from the mean of the last stream.

use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use ounce_kernels::pool::Pool;
use ounce_model::spec::Norm;
use ounce_train::graph::ops::activation::{self, Activation};
use ounce_train::graph::ops::{Factor, Kernels, gather, linear, logit_loss, norm, read};
use ounce_train::loss::CrossEntropy;
use ounce_train::net::normal;
use ounce_train::optim::norm::{clip_factor, global_norm};
use ounce_train::optim::{Optimizer, Options};
use ounce_train::{Param, ParamKind, Result};

use super::super::Factorised;
use super::super::random::deviation;
use super::super::{Solver, break_even, semi_nmf, svd};
use super::linformer::{attend, project};
use super::task::{GROUPS, Samples, VOCABULARY};

/// Standard deviation of random matrices and tables.
const DEVIATION: f64 = 0.02;

/// Matrices of a layer with their sides as multiples of the width, `[out, in]`.
const MATRICES: [(&str, usize, usize); 6] =
    [("query", 1, 1), ("key", 1, 1), ("value", 1, 1), ("output", 1, 1), ("up", 4, 1), ("down", 1, 4)];

/// How matrices of layers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Whole,
    /// Factors of this rank. `corrected`: their product varies as a whole matrix would; else each factor does.
    Factors {
        rank: usize,
        corrected: bool,
    },
}

/// Sizes of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub width: usize,
    pub layers: usize,
    pub heads: usize,
    /// Words of every sequence.
    pub length: usize,
    pub form: Form,
    /// Projected keys; none for all.
    pub keys: Option<usize>,
}

/// An encoder with its weights.
#[derive(Debug, Clone)]
pub(super) struct Encoder {
    pub shape: Shape,
    pub params: Vec<Param>,
}

fn factor(layer: usize, matrix: &str, end: &str) -> String {
    format!("{layer}.{matrix}.{end}")
}

impl Encoder {
    /// Random weights.
    pub fn random(shape: Shape, seed: u64) -> Encoder {
        let Shape { width, layers, length, form, keys, .. } = shape;
        let mut params = Vec::new();
        let mut add = |name: String, sides: [usize; 2], deviation: f64| {
            let values = normal(deviation as f32, sides[0] * sides[1], seed, &name);
            params.push(Param::new(name, &sides, ParamKind::Matrix, values));
        };
        add("words".into(), [VOCABULARY, width], DEVIATION);
        add("places".into(), [length, width], DEVIATION);
        add("head".into(), [GROUPS, width], DEVIATION);
        for layer in 0..layers {
            for (matrix, out, inputs) in MATRICES {
                let (rows, columns) = (out * width, inputs * width);
                match form {
                    Form::Whole => add(format!("{layer}.{matrix}"), [rows, columns], DEVIATION),
                    Form::Factors { rank, corrected } => {
                        let each = if corrected { deviation(DEVIATION, rank) } else { DEVIATION };
                        add(factor(layer, matrix, "reduce"), [rank, columns], each);
                        add(factor(layer, matrix, "expand"), [rows, rank], each);
                    }
                }
            }
            for projection in ["keys", "values"].into_iter().filter(|_| keys.is_some()) {
                // A projected key is then about as long as a key.
                let few = keys.unwrap_or(0);
                add(format!("{layer}.{projection}"), [few, length], (length as f64).sqrt().recip());
            }
        }
        for layer in 0..=layers {
            for norm in [format!("{layer}.norm"), format!("{layer}.second norm")] {
                params.push(Param::new(norm, &[width], ParamKind::Norm, vec![1.0; width]));
            }
        }
        Encoder { shape, params }
    }

    /// This encoder with each matrix of a layer as factors of a rank, and what they lose.
    pub fn factorised(&self, rank: usize, solver: Solver) -> crate::Result<(Encoder, Vec<Factorised>)> {
        let mut thin = Encoder::random(
            Shape { form: Form::Factors { rank, corrected: true }, ..self.shape },
            match solver {
                Solver::Random(seed) => seed,
                Solver::Svd | Solver::SemiNmf => 0,
            },
        );
        let mut done = Vec::new();
        for param in &self.params {
            if let Some(same) = thin.params.iter_mut().find(|it| it.name == param.name) {
                same.value.clone_from(&param.value);
                continue;
            }
            let (rows, columns) = (param.shape[0], param.shape[1]);
            let found = match solver {
                Solver::Svd => svd::factors(&param.value, rows, columns, rank, None),
                Solver::SemiNmf => semi_nmf::factors(&param.value, rows, columns, rank, semi_nmf::ROUNDS),
                Solver::Random(_) => continue,
            };
            let found = found.map_err(|what| crate::Error::matrix(&param.name, what))?;
            for (end, values) in [("reduce", found.reduce), ("expand", found.expand)] {
                let name = format!("{}.{end}", param.name);
                if let Some(own) = thin.params.iter_mut().find(|it| it.name == name) {
                    own.value = values;
                }
            }
            let break_even = break_even(rows, columns);
            done.push(Factorised {
                name: param.name.clone(),
                rows,
                columns,
                rank,
                break_even,
                lost: found.lost,
            });
        }
        Ok((thin, done))
    }

    /// Numbers that are stored.
    pub fn parameters(&self) -> usize {
        self.params.iter().map(|it| it.value.len()).sum()
    }

    /// The weights as tensors, to compute with.
    pub fn tensors(&self) -> Result<Tensors<'_>> {
        let plain = |it: &Param| Tensor::from_slice(&it.value, it.shape.as_slice(), &Device::Cpu);
        let values = self.params.iter().map(plain).collect::<candle_core::Result<_>>()?;
        Ok(Tensors { encoder: self, values, on: Kernels::default() })
    }

    /// Adds to the weights' gradients; gives the mean loss of the samples in nats.
    pub fn accumulate(&mut self, samples: &Samples) -> Result<f64> {
        let variable = |it: &Param| {
            let tensor = Tensor::from_slice(&it.value, it.shape.as_slice(), &Device::Cpu)?;
            Var::from_tensor(&tensor)
        };
        let variables: Vec<Var> = self.params.iter().map(variable).collect::<candle_core::Result<_>>()?;
        let values = variables.iter().map(|it| it.as_tensor().clone()).collect();
        let (loss, sum) = {
            let with = Tensors { encoder: self, values, on: Kernels::default() };
            let logits = with.logits(&samples.words)?;
            let numbers: Vec<usize> = (0..samples.labels.len()).collect();
            logit_loss(with.on, &logits, None, &samples.labels, &numbers, &mut CrossEntropy)?
        };
        let count = samples.labels.len();
        let gradients = (loss / count as f64)?.backward()?;
        for (param, variable) in self.params.iter_mut().zip(&variables) {
            if let Some(gradient) = gradients.get(variable) {
                read([&gradient.contiguous()?], |[gradient]| {
                    param.grad.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
                })?;
            }
        }
        Ok(sum / count as f64)
    }

    /// One step of training.
    pub fn step(&mut self, optimizer: &mut Optimizer, samples: &Samples, rate: f64) -> Result<f64> {
        self.params.iter_mut().for_each(|it| it.grad.fill(0.0));
        let loss = self.accumulate(samples)?;
        let clip = clip_factor(global_norm(Pool::global(), &self.params), Some(1.0));
        optimizer.step(&mut self.params, rate, clip);
        Ok(loss)
    }

    /// AdamW without decay.
    pub fn optimizer(&self) -> Result<Optimizer> {
        Optimizer::new(Options { weight_decay: 0.0, ..Options::default() }, &self.params)
    }

    /// Mean loss in nats, and the part of right labels.
    pub fn judged(&self, samples: &Samples) -> Result<(f64, f64)> {
        let with = self.tensors()?;
        let (mut sum, mut right) = (0.0, 0);
        let length = self.shape.length;
        for (words, labels) in samples.words.chunks(32 * length).zip(samples.labels.chunks(32)) {
            let logits = with.logits(words)?.to_vec2::<f32>().map_err(ounce_train::Error::from)?;
            for (row, &label) in logits.iter().zip(labels) {
                let all: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
                sum += all.ln() - f64::from(row[label as usize]);
                let best = (0..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best });
                right += usize::from(best == label as usize);
            }
        }
        let count = samples.labels.len().max(1) as f64;
        Ok((sum / count, right as f64 / count))
    }
}

/// An encoder's weights as tensors.
pub(super) struct Tensors<'e> {
    encoder: &'e Encoder,
    values: Vec<Tensor>,
    on: Kernels,
}

impl Tensors<'_> {
    fn find(&self, name: &str) -> Option<&Tensor> {
        let at = self.encoder.params.iter().position(|it| it.name == name)?;
        self.values.get(at)
    }

    fn get(&self, name: &str) -> Result<&Tensor> {
        self.find(name)
            .ok_or_else(|| ounce_train::Error::Settings(format!("the encoder has no weight {name}")))
    }

    fn linear(&self, layer: usize, matrix: &str, x: &Tensor) -> Result<Tensor> {
        let times = |x: &Tensor, weight: &Tensor| linear(self.on, x, &Factor::Dense(weight.clone()), None);
        match self.find(&format!("{layer}.{matrix}")) {
            Some(whole) => times(x, whole),
            None => {
                let middle = times(x, self.get(&factor(layer, matrix, "reduce"))?)?;
                times(&middle, self.get(&factor(layer, matrix, "expand"))?)
            }
        }
    }

    fn norm(&self, layer: usize, which: &str, x: &Tensor) -> Result<Tensor> {
        norm(self.on, x, self.get(&format!("{layer}.{which}"))?, None, &Norm::rms(1e-6))
    }

    /// Scores of the labels, `[sequences, labels]`.
    pub fn logits(&self, words: &[u32]) -> Result<Tensor> {
        let Shape { width, layers, heads, length, keys, .. } = self.encoder.shape;
        let sequences = words.len() / length;
        let words: Arc<[u32]> = words.into();
        let places: Arc<[u32]> = (0..words.len()).map(|at| (at % length) as u32).collect();
        let words = gather(self.on, self.get("words")?, &words, 1.0, 1.0)?;
        let mut x = (words + gather(self.on, self.get("places")?, &places, 1.0, 1.0)?)?;
        for layer in 0..layers {
            let inner = self.norm(layer, "norm", &x)?;
            let part = |matrix: &str| -> Result<Tensor> {
                Ok(self.linear(layer, matrix, &inner)?.reshape((sequences, length, width))?)
            };
            let (query, mut key, mut value) = (part("query")?, part("key")?, part("value")?);
            if keys.is_some() {
                key = project(self.on, self.get(&format!("{layer}.keys"))?, &key)?;
                value = project(self.on, self.get(&format!("{layer}.values"))?, &value)?;
            }
            let seen = attend(self.on, &query, &key, &value, heads)?.reshape((sequences * length, width))?;
            x = (x + self.linear(layer, "output", &seen)?)?;
            let inner = self.norm(layer, "second norm", &x)?;
            let up = activation::plain(self.on, Activation::GeluTanh, &self.linear(layer, "up", &inner)?)?;
            x = (x + self.linear(layer, "down", &up)?)?;
        }
        let x = self.norm(layers, "norm", &x)?.reshape((sequences, length, width))?.mean(1)?;
        linear(self.on, &x, &Factor::Dense(self.get("head")?.clone()), None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::task::draw;
    use super::*;

    const SMALL: Shape = Shape { width: 8, layers: 1, heads: 2, length: 12, form: Form::Whole, keys: None };

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let forms =
            [SMALL, Shape { form: Form::Factors { rank: 3, corrected: true }, keys: Some(4), ..SMALL }];
        let samples = draw(1, 6, SMALL.length);
        for shape in forms {
            let mut encoder = Encoder::random(shape, 2);
            // As large as trained ones, so that slopes stand out of rounding.
            for param in encoder.params.iter_mut().filter(|it| it.kind == ParamKind::Matrix) {
                param.value.iter_mut().for_each(|x| *x *= 12.0);
            }
            encoder.accumulate(&samples).expect("gradients");
            let mut seen = 0;
            for index in 0..encoder.params.len() {
                let gradient = &encoder.params[index].grad;
                let steepest = |best: usize, at: usize| {
                    if gradient[at].abs() > gradient[best].abs() { at } else { best }
                };
                let place = (0..gradient.len()).fold(0, steepest);
                let found = f64::from(gradient[place]);
                let mut moved = |by: f32| {
                    let was = encoder.params[index].value[place];
                    encoder.params[index].value[place] = was + by;
                    let loss = encoder.judged(&samples).expect("a loss").0;
                    encoder.params[index].value[place] = was;
                    loss
                };
                let expected = (moved(2.5e-4) - moved(-2.5e-4)) / 5e-4;
                let name = &encoder.params[index].name;
                assert!(
                    (found - expected).abs() < 0.02 * expected.abs() + 1e-3,
                    "{name}: {found} {expected}"
                );
                seen += usize::from(found.abs() > 1e-3);
            }
            assert!(seen > 8, "{seen}");
        }
    }

    #[test]
    fn projecting_onto_all_keys_is_attention_over_all_and_whole_rank_factors_are_the_matrix() {
        let samples = draw(2, 3, SMALL.length);
        let whole = Encoder::random(SMALL, 5);
        let scores = |encoder: &Encoder| -> Vec<Vec<f32>> {
            encoder
                .tensors()
                .expect("tensors")
                .logits(&samples.words)
                .expect("scores")
                .to_vec2()
                .expect("rows")
        };
        let near = |a: &[Vec<f32>], b: &[Vec<f32>]| {
            a.iter().flatten().zip(b.iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-5)
        };
        let expected = scores(&whole);
        let mut projected = Encoder::random(Shape { keys: Some(SMALL.length), ..SMALL }, 5);
        for param in &mut projected.params {
            match whole.params.iter().find(|it| it.name == param.name) {
                Some(same) => param.value.clone_from(&same.value),
                None => param
                    .value
                    .iter_mut()
                    .enumerate()
                    .for_each(|(at, x)| *x = f32::from(u8::from(at % (SMALL.length + 1) == 0))),
            }
        }
        assert!(near(&scores(&projected), &expected));
        let (factors, done) = whole.factorised(8, Solver::Svd).expect("factorised");
        assert!(done.len() == 6 && done.iter().all(|it| it.lost < 1e-6), "{done:?}");
        assert!(near(&scores(&factors), &expected));
        let (random, _) = whole.factorised(8, Solver::Random(1)).expect("factorised");
        assert!(!near(&scores(&random), &expected));
    }
}
