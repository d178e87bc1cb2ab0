//! Low rank: a matrix `W`, `[out, in]`, becomes the product of two thin ones, `B A` with `B` `[out, r]` and `A` `[r, in]`.
//!
//! A product with the pair reads and computes `r (out + in)` numbers in place of `out · in`, so it pays where `r` is below
//! `out · in / (out + in)`, the break-even rank. How much is kept is given as the share of a matrix's weights that the pair has
//! (PELA's `1/k`, Greenformers' `ρ`), `r = ⌊share · out · in / (out + in)⌋`, or as a rank.
//!
//! - `svd`: which pair: the best for the weights, or for what the layer gives on calibration text.
//! - `semi_nmf`, `random`: pairs with a factor that has no negative entries, and pairs to train from nothing.
//! - `pela`, `greenformers`: methods that stand on it, with their demonstrations.
//!
//! A factorised layer is part of a model like any other: [`Spec::ranks`](ounce_model::spec::Spec::ranks) names it, `config.json`
//! has it as `ounce_ranks`, the engine and the trainer multiply with both matrices in turn.

pub mod greenformers;
pub mod ofa;
pub mod pela;
mod random;
mod semi_nmf;
pub(crate) mod svd;

use std::collections::HashMap;
use std::sync::PoisonError;

use ounce_engine::Walk;
use ounce_kernels::{DType, quant};
use ounce_model::families::RANKS_KEY;
use ounce_model::spec_tensors::{EXPAND, REDUCE};
use ounce_model::storage::Bytes;
use ounce_model::weights::MemorySource;
use ounce_model::{Model, Tensor, Weights};
use serde::Serialize;
use serde_json::json;

pub use svd::Factors;

use crate::stages::{look, mode, not_empty, stages};
use crate::{Error, Result};

/// How much of a matrix is kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// The share of its weights that both factors have together.
    Share(f64),
    /// The rank, of every matrix.
    Rank(usize),
}

/// How a pair is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Solver {
    /// The best pair: of the weights, or with calibration of what layers give.
    #[default]
    Svd,
    /// `A` has no negative entries; `B` is free.
    SemiNmf,
    /// Random numbers from this seed, whose product varies as the matrix does: a design to be trained from nothing.
    Random(u64),
}

/// What became of a matrix.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Factorised {
    /// The linear layer.
    pub name: String,
    /// Values that it gives.
    pub rows: usize,
    /// Values that it is given.
    pub columns: usize,
    /// Width between both factors.
    pub rank: usize,
    /// The rank at which both have as many weights as the whole.
    pub break_even: usize,
    /// The part of its output's square, on calibration text, that is lost; of its weights' square without such text.
    pub lost: f64,
}

/// Ranks come in multiples of this wherever something is to be quantized, for blocks are as long.
const BLOCK: usize = 32;

/// A rank of 64 or more goes down to the next multiple of 32, so that factors can be quantized in blocks; of smaller ones that would
/// take too much.
fn whole_blocks(rank: usize) -> usize {
    if rank < 2 * BLOCK { rank } else { rank / BLOCK * BLOCK }
}

/// The rank above which two factors have as many weights as the matrix, or more.
pub fn break_even(rows: usize, columns: usize) -> usize {
    rows * columns / (rows + columns).max(1)
}

impl Factorised {
    /// Weights that are saved.
    pub fn saved(&self) -> u64 {
        (self.rows * self.columns - self.rank * (self.rows + self.columns)) as u64
    }
}

impl Amount {
    /// The rank for a matrix; none if its factors would not be smaller.
    pub fn rank(self, rows: usize, columns: usize) -> Option<usize> {
        let even = (rows * columns) as f64 / (rows + columns).max(1) as f64;
        let rank = match self {
            Amount::Share(share) => whole_blocks((share * even).floor() as usize),
            Amount::Rank(rank) => rank,
        };
        (rank >= 1 && rank * (rows + columns) < rows * columns).then_some(rank)
    }

    /// Refuses what keeps nothing or everything.
    ///
    /// # Errors
    /// In one sentence.
    pub fn check(self) -> Result<()> {
        match self {
            Amount::Share(share) if !(share > 0.0 && share < 1.0) => Err(Error::Option(format!(
                "the share of weights that factors keep should be above 0 and below 1, found {share}"
            ))),
            Amount::Rank(0) => Err(Error::Option("a rank should be 1 or more".into())),
            _ => Ok(()),
        }
    }
}

/// Whether a weight is a matrix of a layer that can be factorised: routers and gates of one value are left alone.
fn suits(name: &str, shape: &[usize]) -> bool {
    let outside = [".router.", ".shared_gate."].iter().any(|part| name.contains(part));
    name.starts_with("layers.") && name.ends_with(".weight") && shape.len() == 2 && !outside
}

/// The matrices that would be factorised, with their ranks.
///
/// # Errors
/// If nothing becomes smaller.
pub fn plan(model: &Model, amount: Amount, only: &dyn Fn(&str) -> bool) -> Result<Vec<(String, usize)>> {
    amount.check()?;
    let tensors = model.spec.tensors();
    let layers = tensors.iter().filter(|it| suits(&it.name, &it.shape));
    let fresh = layers.filter(|it| !ounce_model::spec_tensors::is_factor(&it.name) && only(&it.name));
    let ranked = fresh.filter_map(|it| Some((it.name.clone(), amount.rank(it.shape[0], it.shape[1])?)));
    let plan: Vec<(String, usize)> = ranked.collect();
    match plan.is_empty() {
        true => Err(Error::Option(
            "no matrix becomes smaller: the rank is at or above the break-even of all that were chosen, or it is below 1; \
             choose another share or rank"
                .into(),
        )),
        false => Ok(plan),
    }
}

/// A [`plan`] by share all of whose ranks are multiples of 32, 32 at least, so that every factor can be quantized in blocks. Matrices that
/// would not become smaller so stay whole.
///
/// # Errors
/// If nothing becomes smaller.
pub fn plan_in_blocks(model: &Model, share: f64) -> Result<Vec<(String, usize)>> {
    let found = plan(model, Amount::Share(share), &|_| true)?;
    let sizes: HashMap<String, Vec<usize>> =
        model.spec.tensors().into_iter().map(|it| (it.name, it.shape)).collect();
    let whole = found.into_iter().filter_map(|(name, rank)| {
        let rank = (rank + BLOCK / 2) / BLOCK * BLOCK;
        let shape = sizes.get(&name)?;
        let rank = Amount::Rank(rank.max(BLOCK)).rank(shape[0], shape[1])?;
        Some((name, rank))
    });
    let plan: Vec<(String, usize)> = whole.collect();
    match plan.is_empty() {
        true => {
            Err(Error::Option(format!("no matrix becomes smaller with a rank that is a multiple of {BLOCK}")))
        }
        false => Ok(plan),
    }
}

/// The ranks of a `plan` beside the shapes of its matrices; nothing is lost yet.
pub fn forecast(model: &Model, plan: &[(String, usize)]) -> Vec<Factorised> {
    let tensors = model.spec.tensors();
    let found = plan.iter().filter_map(|(name, rank)| {
        let shape = &tensors.iter().find(|it| it.name == *name)?.shape;
        let (rows, columns) = (shape[0], shape[1]);
        let linear = name.trim_end_matches(".weight").to_owned();
        Some(Factorised {
            name: linear,
            rows,
            columns,
            rank: *rank,
            break_even: break_even(rows, columns),
            lost: 0.0,
        })
    });
    found.collect()
}

/// Factorises the matrices of a `plan`. With `calibration`, token ids of one sequence a list, each pair is the best for what its
/// layer is given, behind layers that are factorised already; without, the best for the weights. `progress` is told the layers
/// done and in all, and may stop the work.
///
/// # Errors
/// If a matrix can't be read or is stored in a block format, calibration is empty, or `progress` stops the work.
pub fn factorise(
    model: &Model,
    plan: &[(String, usize)],
    calibration: Option<Vec<Vec<u32>>>,
    progress: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<(Model, Vec<Factorised>)> {
    factorise_by(Solver::Svd, model, plan, calibration, progress)
}

/// [`factorise`] by any solver. Only [`Solver::Svd`] takes calibration; what other solvers lose is that of the weights' square.
///
/// # Errors
/// As [`factorise`], and if calibration is given to a solver that takes none.
pub fn factorise_by(
    solver: Solver,
    model: &Model,
    plan: &[(String, usize)],
    calibration: Option<Vec<Vec<u32>>>,
    progress: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<(Model, Vec<Factorised>)> {
    if solver != Solver::Svd && calibration.is_some() {
        return Err(Error::Option(
            "only the singular value decomposition takes calibration; leave it out for other solvers".into(),
        ));
    }
    let ranks: HashMap<&str, usize> = plan.iter().map(|(name, rank)| (name.as_str(), *rank)).collect();
    let names: Vec<String> = plan.iter().map(|(name, _)| name.clone()).collect();
    let layers = model.spec.layers.len();
    let mut walk = match calibration {
        Some(calibration) => {
            not_empty(&calibration)?;
            Some(Walk::begin(model, calibration, mode())?)
        }
        None => None,
    };
    let mut weights = model.weights.clone();
    let mut done = Vec::new();
    for index in 0..layers {
        let mut check = || progress(index, layers).map_err(Error::into_engine);
        for stage in stages(&names, index) {
            let seen = match &mut walk {
                Some(walk) => Some(look(walk, &weights, &stage, true, &mut check)?),
                None => None,
            };
            let seen = seen.as_ref().map(|it| it.lock().unwrap_or_else(PoisonError::into_inner));
            let mut pairs = Vec::new();
            for name in &stage {
                let linear = name.trim_end_matches(".weight");
                let moments = seen.as_deref().and_then(|seen| seen.moments(linear));
                let stored = readable(&weights, name)?;
                let values = stored.to_f32().map_err(|error| Error::matrix(name, error.to_string()))?;
                let (rows, columns) = (stored.rows(), stored.row_len());
                let inputs = moments.filter(|it| it.tokens > 0).map(|it| it.products.as_slice());
                let rank = ranks[name.as_str()];
                let factors = match solver {
                    Solver::Svd => svd::factors(&values, rows, columns, rank, inputs),
                    Solver::SemiNmf => semi_nmf::factors(&values, rows, columns, rank, semi_nmf::ROUNDS),
                    Solver::Random(seed) => random::factors(&values, rows, columns, rank, seed, name),
                }
                .map_err(|what| Error::matrix(name, what))?;
                done.push(Factorised {
                    name: linear.to_owned(),
                    rows,
                    columns,
                    rank: factors.rank,
                    break_even: break_even(rows, columns),
                    lost: factors.lost,
                });
                let Factors { rank, reduce, expand, .. } = factors;
                pairs.push((format!("{linear}{REDUCE}"), encoded(&stored, &[rank, columns], &reduce)?));
                pairs.push((format!("{linear}{EXPAND}"), encoded(&stored, &[rows, rank], &expand)?));
            }
            weights = weights.extended(pairs)?;
        }
        match &mut walk {
            Some(walk) => walk.advance(&weights, |_| check())?,
            None => check()?,
        }
    }
    progress(layers, layers)?;
    Ok((with_ranks(model, &weights, &done)?, done))
}

/// A weight that is stored in a plain format.
fn readable(weights: &Weights, name: &str) -> Result<Tensor> {
    let stored = weights.get(name)?;
    if stored.dtype.block_len() > 1 {
        return Err(Error::matrix(
            name,
            format!("is stored in {}; factorise the model before it is quantized", stored.dtype),
        ));
    }
    Ok(stored)
}

/// Values in the format of the matrix that they come from.
fn encoded(like: &Tensor, shape: &[usize], values: &[f32]) -> Result<Tensor> {
    if like.dtype == DType::F32 {
        return Ok(Tensor::from_f32(shape, values));
    }
    let mut data = Vec::new();
    let encoded = quant::encode_rows(like.dtype, values, shape[1], &mut data);
    encoded.map_err(|error| Error::Option(error.to_string()))?;
    Ok(Tensor { dtype: like.dtype, shape: shape.to_vec(), data: Bytes::from(data) })
}

/// The model with factors in the place of matrices, in its spec, its settings and its weights.
fn with_ranks(model: &Model, weights: &Weights, done: &[Factorised]) -> Result<Model> {
    let mut model = model.clone();
    for it in done {
        model.spec.ranks.insert(it.name.clone(), it.rank);
    }
    model.config.map_mut().insert(RANKS_KEY.to_owned(), json!(model.spec.ranks));
    let mut source = MemorySource::new(weights.path());
    for tensor in model.spec.tensors() {
        let stored = weights.get(&tensor.name)?;
        source.insert(tensor.name, stored);
    }
    model.weights = Weights::in_memory(source);
    Ok(model)
}

#[cfg(test)]
mod tests;
