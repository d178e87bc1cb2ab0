//! Scales of channels that cost nothing when the model runs: what AWQ and SmoothQuant stand on.
//!
//! A linear layer gives the same for `x / s` and `W · diag(s)` as for x and W, with one scale for each of its input
//! channels. Dividing x is free where what stands before can be divided instead ([`Site`]):
//!
//! - a norm: its weight (with the one that Gemma adds) and its bias, which all linears that read it must answer;
//! - the rows of another linear and its bias, where every channel goes straight from one to the other: from value to
//!   output if there are as many key/value heads as query heads, since attention only weighs values, and from up to
//!   down, which a gate multiplies channel by channel or a ReLU lets through (`relu(x / s) = relu(x) / s`). Other
//!   nonlinearities bend what is scaled, so without a gate nothing can be folded there.
//!
//! Norms are stored in the format they had. The rounding of a divided norm is no error: linears are multiplied by the
//! quotient of the old weight and the one that is stored. Biases and matrices that stay plain are rounded to their
//! format.

use std::collections::BTreeMap;

use ounce_kernels::{DType, quant};
use ounce_model::spec::{Activation, FeedForward, FeedForwardKind, Mlp, Norm, Residual, Spec};
use ounce_model::storage::Bytes;
use ounce_model::{Tensor, Weights};
use rayon::prelude::*;

use super::plan::Plan;
use crate::{Error, Result};

/// A place where scales can be folded.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// What gives the input.
    pub before: Before,
    /// All linears that read it, without `.weight`; the first sees every token.
    pub linears: Vec<String>,
    /// Channels.
    pub width: usize,
}

/// What stands before linears.
#[derive(Debug, Clone, PartialEq)]
pub enum Before {
    /// A norm: its name, and what it computes.
    Norm(String, Norm),
    /// A linear of that name, whose rows are the channels.
    Rows(String),
}

impl Site {
    /// All matrices that folding here changes.
    pub fn matrices(&self) -> impl Iterator<Item = String> {
        let before = match &self.before {
            Before::Norm(..) => None,
            Before::Rows(linear) => Some(linear),
        };
        before.into_iter().chain(&self.linears).map(|linear| format!("{linear}.weight"))
    }

    /// Whether its matrices can be changed: none of them stays in a block format, into which it would have to be
    /// rounded again.
    pub fn is_open(&self, weights: &Weights, plan: &Plan) -> bool {
        self.matrices().all(|name| can_change(&name, weights, plan))
    }

    /// Whether the plan quantizes any of its linears.
    pub fn is_quantized(&self, plan: &Plan) -> bool {
        self.linears.iter().any(|linear| plan.dtype(&format!("{linear}.weight")).is_some())
    }
}

/// Whether a weight may take other values without being rounded to blocks outside the plan.
pub(super) fn can_change(name: &str, weights: &Weights, plan: &Plan) -> bool {
    let plain = |(dtype, _): (DType, &[usize])| !dtype.is_block();
    plan.dtype(name).is_some() || weights.info(name).is_some_and(plain)
}

/// The linears that read what is given to the feed-forward half of this name; the first sees every token.
pub(super) fn inputs(name: &str, feed_forward: &FeedForward) -> Vec<String> {
    let mut linears = Vec::new();
    let experts = match &feed_forward.kind {
        FeedForwardKind::Dense(_) => None,
        FeedForwardKind::Experts(experts) => Some(experts),
    };
    if let Some(experts) = experts {
        linears.push(format!("{name}.router"));
        linears.extend(experts.shared_gate.then(|| format!("{name}.shared_gate")));
    }
    for (part, mlp) in mlps(name, feed_forward) {
        linears.extend(mlp.gated.then(|| format!("{part}.gate")));
        linears.push(format!("{part}.up"));
    }
    linears
}

/// The multilayer perceptrons of a feed-forward half with their names.
pub(super) fn mlps<'s>(name: &str, feed_forward: &'s FeedForward) -> Vec<(String, &'s Mlp)> {
    match &feed_forward.kind {
        FeedForwardKind::Dense(mlp) => vec![(name.to_owned(), mlp)],
        FeedForwardKind::Experts(experts) => {
            let each = (0..experts.count).map(|e| (format!("{name}.experts.{e}"), &experts.expert));
            let shared = experts.shared.as_ref().map(|mlp| (format!("{name}.shared"), mlp));
            each.chain(shared).collect()
        }
    }
}

/// A norm with its name, if there is one, and the linears that read what it gives.
pub(super) type Readers = (Option<(String, Norm)>, Vec<String>);

/// The linears of a layer that read the residual stream, by the norm through which they do.
pub(super) fn readers(spec: &Spec, layer: usize) -> Vec<Readers> {
    let Some(own) = spec.layers.get(layer) else { return Vec::new() };
    let (attention_name, name) =
        (format!("layers.{layer}.attention"), format!("layers.{layer}.feed_forward"));
    let named = |part: &str, norm: Option<Norm>| norm.map(|norm| (format!("{part}.before_norm"), norm));
    let mut readers: Vec<Readers> = Vec::new();
    if let Some(attention) = &own.attention {
        let linears = ["query", "key", "value"].map(|part| format!("{attention_name}.{part}"));
        readers.push((named(&attention_name, attention.norms.before), linears.to_vec()));
    }
    if let Some(feed_forward) = &own.feed_forward {
        let linears = inputs(&name, feed_forward);
        match readers.first_mut().filter(|_| own.residual == Residual::ParallelSharedNorm) {
            Some((_, first)) => first.extend(linears),
            None => readers.push((named(&name, feed_forward.norms.before), linears)),
        }
    }
    readers
}

/// Where scales can be folded in a layer. Layers that share weights have no sites of their own, and neither have those
/// whose weights others share: no one scale would suit all places.
pub fn sites(spec: &Spec, layer: usize) -> Vec<Site> {
    let Some(own) = spec.layers.get(layer) else { return Vec::new() };
    if own.shares.is_some() || spec.layers.iter().any(|other| other.shares == Some(layer)) {
        return Vec::new();
    }
    let behind_norm = |(norm, linears): Readers| {
        let (name, norm) = norm?;
        Some(Site { before: Before::Norm(name, norm), linears, width: spec.hidden_size })
    };
    let mut sites: Vec<Site> = readers(spec, layer).into_iter().filter_map(behind_norm).collect();
    let straight = |from: String, to: String, width: usize| Site {
        before: Before::Rows(from),
        linears: vec![to],
        width,
    };
    if let Some(attention) = own.attention.as_ref().filter(|it| it.heads == it.kv_heads) {
        let name = format!("layers.{layer}.attention");
        sites.push(straight(format!("{name}.value"), format!("{name}.output"), attention.query_width()));
    }
    if let Some(feed_forward) = &own.feed_forward {
        for (part, mlp) in mlps(&format!("layers.{layer}.feed_forward"), feed_forward) {
            if mlp.gated || mlp.activation == Activation::Relu {
                sites.push(straight(format!("{part}.up"), format!("{part}.down"), mlp.width));
            }
        }
    }
    sites
}

/// Weights that are being changed, as f32.
#[derive(Debug)]
pub struct Changes<'w> {
    weights: &'w Weights,
    values: BTreeMap<String, Vec<f32>>,
}

impl<'w> Changes<'w> {
    /// Nothing changed yet.
    pub fn new(weights: &'w Weights) -> Changes<'w> {
        Changes { weights, values: BTreeMap::new() }
    }

    /// A weight as it is now, to be changed.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn edit(&mut self, name: &str) -> Result<&mut Vec<f32>> {
        match self.values.entry(name.to_owned()) {
            std::collections::btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => Ok(entry.insert(self.weights.f32(name)?)),
        }
    }

    /// A weight as it is now, if it was read before.
    pub fn get(&self, name: &str) -> Option<&[f32]> {
        self.values.get(name).map(Vec::as_slice)
    }

    /// The changed weights: those that the plan quantizes as f32, the others in the format they had.
    ///
    /// # Errors
    /// If a value is not finite, or too large for its format.
    pub fn finish(self, plan: &Plan) -> Result<Vec<(String, Tensor)>> {
        let weights = self.weights;
        let stored = |(name, values): (String, Vec<f32>)| -> Result<(String, Tensor)> {
            let missing = || Error::matrix(&name, "is no weight of this model");
            let (dtype, shape) = weights.info(&name).ok_or_else(missing)?;
            if let Some(place) = values.iter().position(|x| !x.is_finite()) {
                let what = format!("value {place} would become {}; repair the weights first", values[place]);
                return Err(Error::matrix(&name, what));
            }
            let dtype = if plan.dtype(&name).is_some() { DType::F32 } else { dtype };
            let tensor = rounded(dtype, shape, &values).map_err(|what| Error::matrix(&name, what))?;
            Ok((name, tensor))
        };
        self.values.into_iter().map(stored).collect()
    }

    /// Divides the input of a site by `scales`, one a channel, and multiplies its linears' columns; gives the scales
    /// that were taken, which differ by what rounding a norm changed.
    ///
    /// # Errors
    /// If a weight can't be read.
    ///
    /// # Panics
    /// If there are not as many scales as the site has channels.
    pub fn fold(&mut self, site: &Site, scales: &[f32]) -> Result<Vec<f32>> {
        assert_eq!(scales.len(), site.width, "a scale for each channel");
        let taken = match &site.before {
            Before::Norm(name, norm) => self.divide_norm(name, norm, scales)?,
            Before::Rows(linear) => {
                let rows = self.edit(&format!("{linear}.weight"))?;
                let columns = rows.len() / scales.len();
                rows.par_chunks_exact_mut(columns).zip(scales).for_each(|(row, scale)| {
                    row.iter_mut().for_each(|x| *x /= scale);
                });
                self.divide(&format!("{linear}.bias"), scales)?;
                scales.to_vec()
            }
        };
        for linear in &site.linears {
            self.multiply_columns(linear, &taken)?;
        }
        Ok(taken)
    }

    /// Multiplies the columns of a linear.
    pub(super) fn multiply_columns(&mut self, linear: &str, scales: &[f32]) -> Result<()> {
        let matrix = self.edit(&format!("{linear}.weight"))?;
        matrix.par_chunks_exact_mut(scales.len()).for_each(|row| {
            row.iter_mut().zip(scales).for_each(|(x, scale)| *x *= scale);
        });
        Ok(())
    }

    /// Divides a norm as it is stored, and its bias.
    fn divide_norm(&mut self, name: &str, norm: &Norm, scales: &[f32]) -> Result<Vec<f32>> {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let dtype = self.weights.info(&weight).map_or(DType::F32, |(dtype, _)| dtype);
        let values = self.edit(&weight)?;
        let one = if norm.plus_one { 1.0 } else { 0.0 };
        let wanted: Vec<f32> = values.iter().zip(scales).map(|(w, s)| (w + one) / s - one).collect();
        let stored = rounded(dtype, &[wanted.len()], &wanted)
            .and_then(|tensor| tensor.to_f32().map_err(|error| error.to_string()))
            .map_err(|what| Error::matrix(&weight, what))?;
        let taken: Vec<f32> = (values.iter().zip(&stored).zip(scales))
            .map(|((old, new), scale)| {
                let quotient = (old + one) / (new + one);
                // A channel that the norm silences has no quotient.
                if quotient.is_finite() && quotient > 0.0 { quotient } else { *scale }
            })
            .collect();
        *values = stored;
        self.divide(&bias, &taken)?;
        Ok(taken)
    }

    /// Divides a bias, if there is one.
    fn divide(&mut self, name: &str, scales: &[f32]) -> Result<()> {
        if self.weights.contains(name) {
            self.edit(name)?.iter_mut().zip(scales).for_each(|(x, scale)| *x /= scale);
        }
        Ok(())
    }
}

fn rounded(dtype: DType, shape: &[usize], values: &[f32]) -> Result<Tensor, String> {
    let mut bytes = Vec::new();
    let row = shape.last().copied().unwrap_or(1);
    quant::encode_rows(dtype, values, row, &mut bytes).map_err(|error| error.to_string())?;
    Ok(Tensor { dtype, shape: shape.to_vec(), data: Bytes::from(bytes) })
}
