//! From the residual stream to logits.

use candle_core::Tensor;
use ounce_model::spec::Spec;

use super::build::{Builder, Place};
use super::norm::{Norm, apply};
use super::ops::activation::{Activation, plain};
use super::ops::{self, Kernels};
use crate::loss::LogitLoss;
use crate::net::function;
use crate::{IGNORE, Loss, Result};

/// The output matrix and what is in front of it.
pub(super) struct Head {
    on: Kernels,
    transform: Option<(Place, Activation, Option<Norm>)>,
    matrix: Place,
    scale: f32,
    softcap: Option<f32>,
}

impl Head {
    /// None for bare encoders.
    pub fn build(from: &mut Builder<'_>, spec: &Spec) -> Result<Option<Head>> {
        let Some(head) = &spec.head else { return Ok(None) };
        let transform = match head.transform {
            Some(spec) => {
                let dense = from.slot("head.dense", true)?;
                Some((dense, function(spec.activation), from.norm("head.norm", Some(spec.norm))?))
            }
            None => None,
        };
        let bias = from.optional("head.bias", head.bias)?;
        let name = if head.tied { "embed.tokens.weight" } else { "head.weight" };
        let matrix = from.slot_of("head", name, bias)?;
        Ok(Some(Head { on: from.on, transform, matrix, scale: head.scale, softcap: head.softcap }))
    }

    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.transform.iter().map(|(dense, ..)| dense).chain([&self.matrix])
    }

    fn transformed(&self, x: Tensor) -> Result<Tensor> {
        match &self.transform {
            Some((dense, function, norm)) => {
                apply(norm, plain(self.on, *function, &dense.slot.forward(&x)?)?)
            }
            None => Ok(x),
        }
    }

    /// Logits of rows, before the cap.
    fn raw(&self, x: Tensor) -> Result<Tensor> {
        let logits = self.matrix.slot.forward(&self.transformed(x)?)?;
        Ok(if self.scale == 1.0 { logits } else { logits.affine(f64::from(self.scale), 0.0)? })
    }

    /// Logits of rows `[rows, hidden]`: `[rows, vocabulary]`.
    pub fn logits(&self, x: Tensor) -> Result<Tensor> {
        let logits = self.raw(x)?;
        Ok(match self.softcap {
            Some(cap) => (logits / f64::from(cap))?.tanh()?.affine(f64::from(cap), 0.0)?,
            None => logits,
        })
    }

    /// The loss of the rows that have a target, as a scalar with its way back and as numbers.
    pub fn loss(&self, x: &Tensor, targets: &[u32], loss: &mut dyn LogitLoss) -> Result<(Tensor, Loss)> {
        let rows: Vec<usize> = (0..targets.len()).filter(|&row| targets[row] != IGNORE).collect();
        if rows.is_empty() {
            return Ok((ops::tensor(vec![0.0], ())?, Loss::default()));
        }
        let x = match rows.len() == targets.len() {
            true => x.clone(),
            false => ops::gather(self.on, x, &rows.iter().map(|&row| row as u32).collect(), 1.0, 1.0)?,
        };
        let targets: Vec<u32> = rows.iter().map(|&row| targets[row]).collect();
        let (value, sum) = match self.matrix.slot.plain() {
            Some(linear) => {
                let head = ops::Head {
                    matrix: linear.factor()?,
                    bias: linear.bias()?,
                    scale: self.scale,
                    softcap: self.softcap,
                };
                ops::linear_loss(self.on, &self.transformed(x)?, &head, &targets, &rows, loss)?
            }
            None => ops::logit_loss(self.on, &self.raw(x)?, self.softcap, &targets, &rows, loss)?,
        };
        Ok((value, Loss { sum, count: rows.len() }))
    }
}
