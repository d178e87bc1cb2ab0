//! Fewer numbers. [`structured`] takes whole heads, channels and layers out, which makes a model smaller and faster as it is;
//! here are weights that are set to zero at once, without training, by three scores.
//!
//! - [`magnitude`]: the smallest go.
//! - [`wanda`]: the smallest go, measured by the inputs they meet.
//! - [`sparsegpt`]: the least costly go, and those that stay answer for them.
//!
//! Layers are pruned one behind the other, each on the inputs that the pruned ones before it give, as in
//! [`quantize::layers`](crate::quantize::layers). What is pruned keeps its shape and its number format.

pub mod amoeba;
pub mod beta_rank;
pub mod components;
pub mod compresso;
pub mod dsee;
pub mod dsl;
pub mod echo;
pub mod efficient_llm;
pub mod gradual;
mod learning;
pub mod magnitude;

#[cfg(test)]
mod classifier;
pub mod pst;
pub mod sparsegpt;
pub mod structured;
mod town;
pub mod wanda;
mod workbench;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::PoisonError;

use ounce_engine::Walk;
use ounce_kernels::quant;
use ounce_model::storage::Bytes;
use ounce_model::{Model, Tensor, Weights};
use rayon::prelude::*;

use crate::quantize::gptq::{self, Hessian};
use crate::quantize::moments::Collector;
use crate::quantize::units;
use crate::stages::{look, mode, not_empty, stages};
use crate::{Error, Result};

/// Which weights become zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sparsity {
    /// This share of them, from 0 to below 1, wherever they are.
    Share(f64),
    /// All but `keep` of every `of` that follow each other in a row; two of four is what some processors compute faster.
    Groups {
        /// How many stay.
        keep: usize,
        /// Of how many.
        of: usize,
    },
}

/// Two of every four.
pub const TWO_OF_FOUR: Sparsity = Sparsity::Groups { keep: 2, of: 4 };

impl Sparsity {
    /// Bits a weight of a matrix stored so, each number that stays in `bits`, with what tells its place: its number within its
    /// group, or one bit for each weight.
    pub fn bits_per_weight(self, bits: f64) -> f64 {
        match self {
            Sparsity::Share(share) => (1.0 - share) * bits + 1.0,
            Sparsity::Groups { keep, of } => {
                let place = f64::from(of.next_power_of_two().trailing_zeros());
                keep as f64 * (bits + place) / of as f64
            }
        }
    }

    fn check(self, row: usize) -> Result<(), String> {
        match self {
            Sparsity::Share(share) if !(0.0..1.0).contains(&share) => {
                Err(format!("the share to remove should be from 0 to below 1, found {share}"))
            }
            Sparsity::Groups { keep, of } if keep > of || of == 0 => {
                Err(format!("{keep} of every {of} can't stay; choose fewer, such as 2 of 4"))
            }
            Sparsity::Groups { of, .. } if !row.is_multiple_of(of) => {
                Err(format!("rows of {row} are no whole groups of {of}; leave this matrix as it is"))
            }
            _ => Ok(()),
        }
    }
}

/// How weights are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Criterion {
    /// See [`magnitude`].
    Magnitude,
    /// See [`wanda`].
    Wanda,
    /// See [`sparsegpt`].
    SparseGpt(sparsegpt::Options),
}

/// The matrices that are pruned as a rule: those of the layers.
///
/// # Errors
/// If the model's weights can't be named.
pub fn matrices(model: &Model) -> Result<Vec<String>> {
    let inner = units(model)?.into_iter().filter(|unit| !unit.is_outer());
    Ok(inner.flat_map(|unit| unit.matrices).collect())
}

/// Prunes these matrices of a model's layers and gives its new weights. `calibration` are token ids, one list a sequence;
/// magnitudes do without. `progress` is told the layers done and in all, and may stop the work.
///
/// # Errors
/// If a matrix can't be read, is stored in a block format, is of no layer or has rows that don't fit; calibration is empty where it
/// is needed; or `progress` stops the work.
pub fn prune(
    model: &Model,
    names: &[String],
    criterion: Criterion,
    sparsity: Sparsity,
    calibration: Vec<Vec<u32>>,
    progress: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Weights> {
    let layers = model.spec.layers.len();
    if let Some(name) = names.iter().find(|name| !name.starts_with("layers.")) {
        return Err(Error::matrix(name, "is no matrix of a layer; only those are pruned"));
    }
    let looks = criterion != Criterion::Magnitude;
    if looks {
        not_empty(&calibration)?;
    }
    let mut weights = model.weights.clone();
    let mut walk = if looks { Some(Walk::begin(model, calibration, mode())?) } else { None };
    for index in 0..layers {
        let mut check = || progress(index, layers).map_err(Error::into_engine);
        for stage in stages(names, index) {
            let seen = match &mut walk {
                Some(walk) => {
                    let pairs = matches!(criterion, Criterion::SparseGpt(_));
                    Some(look(walk, &weights, &stage, pairs, &mut check)?)
                }
                None => None,
            };
            let seen = seen.as_ref().map(|it| it.lock().unwrap_or_else(PoisonError::into_inner));
            let mut hessians = HashMap::new();
            let mut pruned = Vec::new();
            for name in &stage {
                let new = matrix(&weights, name, criterion, sparsity, seen.as_deref(), &mut hessians)
                    .map_err(|what| Error::matrix(model.weights.file_name(name).unwrap_or(name), what))?;
                pruned.push((name.clone(), new));
            }
            weights = weights.replaced(pruned)?;
        }
        match &mut walk {
            Some(walk) => walk.advance(&weights, |_| check())?,
            None => check()?,
        }
    }
    progress(layers, layers)?;
    Ok(weights)
}

/// Prunes one matrix; `hessians` keeps those of inputs that several matrices share.
fn matrix(
    weights: &Weights,
    name: &str,
    criterion: Criterion,
    sparsity: Sparsity,
    seen: Option<&Collector>,
    hessians: &mut HashMap<usize, Hessian>,
) -> Result<Tensor, String> {
    let stored = weights.get(name).map_err(|error| error.to_string())?;
    if stored.dtype.block_len() > 1 {
        return Err(format!("is stored in {}; prune the model before it is quantized", stored.dtype));
    }
    let mut values = stored.to_f32().map_err(|error| error.to_string())?;
    if let Some(place) = values.iter().position(|x| !x.is_finite()) {
        return Err(format!("value {place} is {}; repair the weights first", values[place]));
    }
    let row = stored.row_len();
    sparsity.check(row)?;
    let linear = name.trim_end_matches(".weight");
    match (criterion, seen.and_then(|seen| seen.place(linear).zip(seen.moments(linear)))) {
        (Criterion::Wanda, Some((_, moments))) => {
            wanda::prune(&mut values, row, &moments.importance(), sparsity)
        }
        (Criterion::SparseGpt(options), Some((place, moments))) => {
            let hessian = match hessians.entry(place) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let damping = options.damping;
                    let options = gptq::Options { damping, order: gptq::Order::Stored, descent: 0 };
                    entry.insert(Hessian::new(moments, &options)?)
                }
            };
            sparsegpt::prune(&mut values, hessian, sparsity, &options);
        }
        // An expert that nothing was sent to has no inputs to be measured by.
        _ => magnitude::prune(&mut values, row, sparsity),
    }
    let mut bytes = Vec::new();
    quant::encode_rows(stored.dtype, &values, row, &mut bytes).map_err(|error| error.to_string())?;
    Ok(Tensor { data: Bytes::from(bytes), ..stored })
}

/// Sets to zero the weights of the lowest scores among each row of `width`. Of equal ones the later go first.
fn remove_lowest(weights: &mut [f32], scores: &[f32], width: usize, sparsity: Sparsity) {
    let (group, gone) = match sparsity {
        Sparsity::Share(share) => (width, (share * width as f64) as usize),
        Sparsity::Groups { keep, of } => (of, of - keep),
    };
    weights.par_chunks_exact_mut(group).zip(scores.par_chunks_exact(group)).for_each(|(weights, scores)| {
        lowest(scores, gone).into_iter().for_each(|at| weights[at] = 0.0);
    });
}

/// Places of the `count` lowest scores; of equal ones the later.
fn lowest(scores: &[f32], count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..scores.len()).collect();
    let by_score = |a: &usize, b: &usize| scores[*a].total_cmp(&scores[*b]).then(b.cmp(a));
    if count < places.len() && count > 0 {
        places.select_nth_unstable_by(count - 1, by_score);
    }
    places.truncate(count);
    places
}

#[cfg(test)]
mod tests;
