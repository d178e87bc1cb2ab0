//! The head: a text's state asks those of all labels, and what comes of it is compared with each.

use candle_core::{D, Device, Tensor, Var};
use ounce_kernels::pool::Pool;
use ounce_train::graph::ops::read;
use ounce_train::methods::workbench::cosine;
use ounce_train::optim::norm::{clip_factor, global_norm};
use ounce_train::optim::{self, Optimizer};
use ounce_train::{Param, ParamKind};

use crate::few::Dice;
use crate::random::kaiming;
use crate::{Error, Result};

/// What keeps the norm of a constant from being a division by zero.
const SMALL: f64 = 1e-5;
/// Cross-attention's heads, where they divide its width.
const HEADS: usize = 4;

/// The trained part.
#[derive(Debug, Clone)]
pub struct Head {
    /// `q, k, v` `[p, d]`, `o` `[d, p]`, `norm` `[d]` twice with `shift`, `up` `[p, d]` and `down` `[d, p]` with biases, `score` `[d, d]`.
    pub params: Vec<Param>,
    width: usize,
    heads: usize,
    by_attention: bool,
}

const Q: usize = 0;
const K: usize = 1;
const V: usize = 2;
const O: usize = 3;
const NORM: usize = 4;
const UP: usize = 8;
const DOWN: usize = 10;
const SCORE: usize = 12;

/// How a head is trained.
#[derive(Debug, Clone, Copy)]
pub struct Course {
    /// Steps of AdamW.
    pub steps: u64,
    /// Highest learning rate.
    pub rate: f64,
    /// Texts of a step.
    pub at_once: usize,
    /// Decides the order.
    pub seed: u64,
}

/// Texts' states `[texts, d]` with what is right `[texts, labels]`.
#[derive(Debug, Clone, Default)]
pub struct Taught {
    /// States, one behind the other.
    pub states: Vec<f32>,
    /// Probabilities of labels.
    pub targets: Vec<f32>,
}

impl Head {
    /// A new head of inner width `inner` for states of `width`: `o` and `down` begin as zeros and `score` as the identity, so that labels are
    /// told by the likeness of states at first.
    ///
    /// # Errors
    /// If a width is 0.
    pub fn new(width: usize, inner: usize, by_attention: bool, seed: u64) -> Result<Head> {
        if width == 0 || inner == 0 {
            return Err(Error::Option("the width of the head should be 1 or more".into()));
        }
        let param = |name: &str, shape: &[usize], kind, values: Vec<f32>| {
            Param::new(format!("crosstune.{name}"), shape, kind, values)
        };
        let drawn = |name: &str| {
            let values = kaiming(width, inner * width, seed, name);
            param(name, &[inner, width], ParamKind::Matrix, values)
        };
        let filled = |name: &str, shape: &[usize], kind, value: f32| {
            param(name, shape, kind, vec![value; shape.iter().product()])
        };
        let identity = (0..width * width).map(|at| f32::from(u8::from(at / width == at % width))).collect();
        let params = vec![
            drawn("query"),
            drawn("key"),
            drawn("value"),
            filled("output", &[width, inner], ParamKind::Matrix, 0.0),
            filled("norm", &[width], ParamKind::Norm, 1.0),
            filled("norm_shift", &[width], ParamKind::Bias, 0.0),
            filled("last_norm", &[width], ParamKind::Norm, 1.0),
            filled("last_norm_shift", &[width], ParamKind::Bias, 0.0),
            drawn("up"),
            filled("up_bias", &[inner], ParamKind::Bias, 0.0),
            filled("down", &[width, inner], ParamKind::Matrix, 0.0),
            filled("down_bias", &[width], ParamKind::Bias, 0.0),
            param("score", &[width, width], ParamKind::Matrix, identity),
        ];
        let heads = if inner.is_multiple_of(HEADS) { HEADS } else { 1 };
        Ok(Head { params, width, heads, by_attention })
    }

    /// How many numbers a head has.
    pub fn parameters(width: usize, inner: usize) -> u64 {
        (6 * inner * width + width * width + inner + 5 * width) as u64
    }

    /// Logarithms of the labels' probabilities `[texts, labels]`, for states `x` `[texts, d]` and labels `[labels, d]`.
    fn logarithms(&self, vars: &[Tensor], x: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let (texts, count, heads) = (x.dims2()?.0, labels.dims2()?.0, self.heads);
        let inner = vars[Q].dims2()?.0;
        let each = inner / heads;
        let split = |it: Tensor, rows: usize| it.reshape((rows, heads, each))?.transpose(0, 1)?.contiguous();
        let q = split(x.matmul(&vars[Q].t()?)?, texts)?;
        let k = split(labels.matmul(&vars[K].t()?)?, count)?;
        let v = split(labels.matmul(&vars[V].t()?)?, count)?;
        let scores = (q.matmul(&k.transpose(1, 2)?.contiguous()?)? / (each as f64).sqrt())?;
        let weights = log_softmax(&scores)?.exp()?;
        if self.by_attention {
            return Ok((weights.mean(0)? + 1e-9)?.log()?);
        }
        let mixed = weights.matmul(&v)?.transpose(0, 1)?.contiguous()?.reshape((texts, inner))?;
        let z = normed((x + mixed.matmul(&vars[O].t()?)?)?, &vars[NORM], &vars[NORM + 1])?;
        let wide = z.matmul(&vars[UP].t()?)?.broadcast_add(&vars[UP + 1])?.relu()?;
        let more = wide.matmul(&vars[DOWN].t()?)?.broadcast_add(&vars[DOWN + 1])?;
        let z = normed((z + more)?, &vars[NORM + 2], &vars[NORM + 3])?;
        let known = labels.matmul(&vars[SCORE].t()?)?;
        Ok(log_softmax(&(z.matmul(&known.t()?)? / (self.width as f64).sqrt())?)?)
    }

    /// The loss `−Σ t ln p` of texts, as their mean; with `gradients` these are added to the parameters'.
    ///
    /// # Errors
    /// If states or targets have another size.
    pub fn loss(&mut self, taught: &Taught, labels: &[f32], gradients: bool) -> Result<f64> {
        let (x, labels) = (self.rows(&taught.states)?, self.rows(labels)?);
        let count = labels.dims2()?.0;
        let targets = Tensor::from_slice(&taught.targets, (x.dims2()?.0, count), &Device::Cpu)?;
        let vars: Vec<Var> = self
            .params
            .iter()
            .map(|param| Var::from_slice(&param.value, param.shape.as_slice(), &Device::Cpu))
            .collect::<candle_core::Result<_>>()?;
        let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let logarithms = self.logarithms(&tensors, &x, &labels)?;
        let value = ((targets * logarithms)?.sum_all()? * (-1.0 / x.dims2()?.0 as f64))?;
        let found = f64::from(value.to_scalar::<f32>()?);
        if gradients {
            let all = value.backward()?;
            for (var, param) in vars.iter().zip(&mut self.params) {
                if let Some(gradient) = all.get(var) {
                    read([&gradient.contiguous()?], |[from]| {
                        param.grad.iter_mut().zip(from).for_each(|(sum, it)| *sum += it);
                    })?;
                }
            }
        }
        Ok(found)
    }

    /// Probabilities of labels `[texts, labels]`.
    ///
    /// # Errors
    /// If states have another width.
    pub fn probabilities(&self, states: &[f32], labels: &[f32]) -> Result<Vec<f32>> {
        let tensors: Vec<Tensor> = self
            .params
            .iter()
            .map(|param| Tensor::from_slice(&param.value, param.shape.as_slice(), &Device::Cpu))
            .collect::<candle_core::Result<_>>()?;
        let found = self.logarithms(&tensors, &self.rows(states)?, &self.rows(labels)?)?;
        Ok(found.exp()?.flatten_all()?.to_vec1()?)
    }

    fn rows(&self, values: &[f32]) -> Result<Tensor> {
        if values.is_empty() || !values.len().is_multiple_of(self.width) {
            return Err(Error::Option(format!(
                "states of {} numbers do not have a width of {}",
                values.len(),
                self.width
            )));
        }
        Ok(Tensor::from_slice(values, (values.len() / self.width, self.width), &Device::Cpu)?)
    }

    /// Trains on texts; keeps what was best for `judge`, asked ten times, which gives how good the head is.
    ///
    /// # Errors
    /// If there is nothing to learn.
    pub fn train(
        &mut self,
        taught: &Taught,
        labels: &[f32],
        course: Course,
        judge: &mut dyn FnMut(&Head) -> Result<f64>,
    ) -> Result<()> {
        let (texts, count) = (taught.states.len() / self.width, labels.len() / self.width);
        if texts == 0 {
            return Err(Error::Option("there are no texts to learn labels from".into()));
        }
        let options = optim::Options { weight_decay: 0.01, ..optim::Options::default() };
        let mut optimizer = Optimizer::new(options, &self.params)?;
        let (schedule, mut dice) = (cosine(course.rate, course.steps), Dice::new(course.seed));
        let mut order: Vec<usize> = Vec::new();
        let mut best = (judge(self)?, self.params.clone());
        let every = (course.steps / 10).max(1);
        for step in 0..course.steps {
            if order.len() < course.at_once.min(texts) {
                order = (0..texts).collect();
                dice.shuffle(&mut order);
            }
            let chosen = order.split_off(order.len() - course.at_once.min(texts));
            let mut batch = Taught::default();
            for at in chosen {
                batch.states.extend(&taught.states[at * self.width..][..self.width]);
                batch.targets.extend(&taught.targets[at * count..][..count]);
            }
            self.params.iter_mut().for_each(|param| param.grad.fill(0.0));
            self.loss(&batch, labels, true)?;
            let clip = clip_factor(global_norm(Pool::global(), &self.params), Some(1.0));
            optimizer.step(&mut self.params, schedule.rate(step), clip);
            if (step + 1) % every == 0 {
                let found = judge(self)?;
                // Of equals the later one, which has seen more.
                if found >= best.0 {
                    best = (found, self.params.clone());
                }
            }
        }
        self.params = best.1;
        Ok(())
    }
}

fn log_softmax(scores: &Tensor) -> candle_core::Result<Tensor> {
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?;
    let sums = scores.exp()?.sum_keepdim(D::Minus1)?.log()?;
    scores.broadcast_sub(&sums)
}

/// `(x − mean) / deviation · weight + shift` along rows.
fn normed(x: Tensor, weight: &Tensor, shift: &Tensor) -> candle_core::Result<Tensor> {
    let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let deviation = (x.sqr()?.mean_keepdim(D::Minus1)? + SMALL)?.sqrt()?;
    x.broadcast_div(&deviation)?.broadcast_mul(weight)?.broadcast_add(shift)
}
