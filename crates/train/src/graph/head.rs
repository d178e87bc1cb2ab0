//! From the residual stream to logits.

use candle_core::Tensor;
use ounce_model::spec::{Classifier, Spec};

use super::build::{Builder, Place};
use super::norm::{Norm, apply};
use super::ops::activation::{Activation, plain};
use super::ops::{self, Kernels};
use crate::loss::LogitLoss;
use crate::net::{Reads, function};
use crate::{Batch, Loss, Result};

/// The output matrix and what is in front of it.
pub(super) struct Head {
    on: Kernels,
    transform: Option<(Place, Activation, Option<Norm>)>,
    matrix: Place,
    scale: f32,
    softcap: Option<f32>,
    reads: Reads,
    /// How many different labels there are, if it is a classifier's.
    pub labels: Option<usize>,
}

impl Head {
    /// None for bare encoders.
    pub fn build(from: &mut Builder<'_>, spec: &Spec) -> Result<Option<Head>> {
        if let Some(classifier) = spec.classifier {
            return Head::classifier(from, classifier).map(Some);
        }
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
        let (on, scale, softcap) = (from.on, head.scale, head.softcap);
        Ok(Some(Head { on, transform, matrix, scale, softcap, reads: Reads::Targets, labels: None }))
    }

    fn classifier(from: &mut Builder<'_>, classifier: Classifier) -> Result<Head> {
        let (name, reads, dense) = Reads::of(classifier);
        let transform = match dense {
            Some(activation) => Some((from.slot("classifier.dense", true)?, function(activation), None)),
            None => None,
        };
        let matrix = from.slot(name, classifier.bias)?;
        let labels = Some(classifier.labels);
        Ok(Head { on: from.on, transform, matrix, scale: 1.0, softcap: None, reads, labels })
    }

    /// Whether it finds spans.
    pub fn is_span(&self) -> bool {
        self.reads == Reads::All
    }

    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.transform.iter().map(|(dense, ..)| dense).chain([&self.matrix])
    }

    /// What the output matrix is given.
    pub fn transformed(&self, x: Tensor) -> Result<Tensor> {
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
    pub fn loss(&self, x: &Tensor, batch: &Batch, loss: &mut dyn LogitLoss) -> Result<(Tensor, Loss)> {
        let (rows, targets) = self.reads.rows(batch);
        if rows.is_empty() {
            return Ok((ops::tensor(vec![0.0], ())?, Loss::default()));
        }
        let x = match rows.len() == batch.tokens.len() {
            true => x.clone(),
            false => ops::gather(self.on, x, &rows.iter().map(|&row| row as u32).collect(), 1.0, 1.0)?,
        };
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
        let count = if self.is_span() { batch.counted() } else { rows.len() };
        Ok((value, Loss { sum, count }))
    }
}
