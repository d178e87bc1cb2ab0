//! A model with its change, from stage to stage.

use std::collections::BTreeMap;
use std::sync::Arc;

use ounce_model::{Model, Tensor};
use ounce_train::data::BatchSource;
use ounce_train::graph::{GraphNet, NoHook, Pass, Slot, Weight};
use ounce_train::methods::workbench::cosine;
use ounce_train::net::Options as NetOptions;
use ounce_train::optim::{self, Optimizer};
use ounce_train::{Param, ParamKind, Trainable};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::places::{Support, places};
use super::slot::{Change, DseeSlot};
use crate::prune::gradual::packed::pack;
use crate::prune::learning::{check_share, descend, finite, is_head, silence};
use crate::prune::lowest;
use crate::prune::structured::groups::{attention, layer_of};
use crate::prune::structured::{Cut, Unit};
use crate::{Error, Result};

/// What a change is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// `r`.
    pub rank: usize,
    /// `N`: free entries of a matrix; none for LoRA.
    pub entries: usize,
    /// How their places are chosen.
    pub support: Support,
    /// `α`.
    pub scale: f64,
    /// Whether heads and neurons get coefficients.
    pub coefficients: bool,
    /// Seed of what is drawn.
    pub seed: u64,
}

/// How a stage of learning goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// Steps.
    pub steps: u64,
    /// The highest learning rate; it falls along half a cosine.
    pub rate: f64,
    /// `λ`, on the sum of the sizes of coefficients.
    pub penalty: f64,
}

/// The numbers of one matrix's change.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Numbers {
    /// U, `[rows, rank]`.
    pub u: Vec<f32>,
    /// V, `[rank, columns]`.
    pub v: Vec<f32>,
    pub entries: Vec<f32>,
    /// Ascending, each `row · columns + column`.
    pub places: Arc<[u32]>,
    pub rows: usize,
    pub columns: usize,
}

/// A model with a change beside it.
#[derive(Debug, Clone)]
pub struct Adapted {
    /// The weights below the change, and the head that learns.
    pub(super) model: Model,
    /// By layer (`layers.3.attention.query`).
    pub(super) changes: BTreeMap<String, Numbers>,
    /// Of heads, by the matrix they enter (`layers.3.attention.output`), and of neurons (`layers.3.feed_forward.down`).
    pub(super) coefficients: BTreeMap<String, Vec<f32>>,
    rank: usize,
    scale: f64,
}

fn is_changed(linear: &str) -> bool {
    linear.ends_with(".attention.query") || linear.ends_with(".attention.value")
}

fn is_inner(name: &str, shape: &[usize]) -> bool {
    name.starts_with("layers.") && shape.len() > 1
}

const COEFFICIENTS: &str = ".coefficients";

impl Adapted {
    /// A change that changes nothing yet.
    ///
    /// # Errors
    /// If a weight can't be read, or the rank is 0.
    pub fn new(model: &Model, options: &Options) -> Result<Adapted> {
        if options.rank == 0 {
            return Err(Error::Option("the rank of a change should be 1 at least".into()));
        }
        let mut random = ChaCha8Rng::seed_from_u64(options.seed);
        let (mut changes, mut coefficients) = (BTreeMap::new(), BTreeMap::new());
        for tensor in model.spec.tensors() {
            let Some(linear) = tensor.name.strip_suffix(".weight") else { continue };
            if is_changed(linear) {
                let (rows, columns, rank) = (tensor.shape[0], tensor.shape[1], options.rank);
                let w = model.weights.f32(&tensor.name)?;
                let found = places(&w, (rows, columns), rank, options.entries, options.support, &mut random)
                    .map_err(|what| Error::matrix(&tensor.name, what))?;
                let reach = (3.0 / rank as f32).sqrt();
                let numbers = Numbers {
                    u: (0..rows * rank).map(|_| random.random_range(-reach..reach)).collect(),
                    v: vec![0.0; rank * columns],
                    entries: vec![0.0; found.len()],
                    places: found.into(),
                    rows,
                    columns,
                };
                changes.insert(linear.to_owned(), numbers);
            }
            if options.coefficients && tensor.name.starts_with("layers.") {
                let layer = layer_of(linear).unwrap_or(0);
                let heads = attention(&model.spec, layer).map_or(1, |it| it.kv_heads);
                if linear.ends_with(".attention.output") {
                    coefficients.insert(linear.to_owned(), vec![1.0; heads]);
                } else if linear.ends_with(".feed_forward.down") {
                    coefficients.insert(linear.to_owned(), vec![1.0; tensor.shape[1]]);
                }
            }
        }
        Ok(Adapted { model: model.clone(), changes, coefficients, rank: options.rank, scale: options.scale })
    }

    /// Numbers of the change that learn, without coefficients and head.
    pub fn trained(&self) -> usize {
        self.changes.values().map(|it| it.u.len() + it.v.len() + it.entries.len()).sum()
    }

    /// The network, and its coefficients.
    pub(super) fn network(&self) -> Result<(GraphNet, Vec<Weight>)> {
        let mut found = Vec::new();
        let net =
            GraphNet::with_frozen(&self.model, NetOptions::default(), &is_head, &mut |name, linear| {
                if !name.starts_with("layers.") {
                    return Ok(Box::new(linear) as Box<dyn Slot>);
                }
                let named = |part: &str, shape: &[usize], values: &[f32]| {
                    Weight::new(&format!("{name}{part}"), shape, ParamKind::Matrix, values.to_vec())
                };
                let change = match self.changes.get(name) {
                    Some(it) => Some(Change {
                        low_rank: [
                            named(".change_out", &[it.rows, self.rank], &it.u)?,
                            named(".change_in", &[self.rank, it.columns], &it.v)?,
                        ],
                        sparse: match it.entries.is_empty() {
                            true => None,
                            false => Some((
                                named(".entries", &[it.entries.len()], &it.entries)?,
                                it.places.clone(),
                            )),
                        },
                        scale: self.scale,
                    }),
                    None => None,
                };
                let coefficients = match self.coefficients.get(name) {
                    Some(values) => Some(named(COEFFICIENTS, &[values.len()], values)?),
                    None => None,
                };
                found.extend(coefficients.clone());
                let base = linear.dense()?.detach();
                Ok(Box::new(DseeSlot { linear, base, change, coefficients }))
            })?;
        Ok((net, found))
    }

    /// Takes the numbers of a network back.
    fn take(&mut self, net: &GraphNet) -> Result<()> {
        let mut head = Vec::new();
        for Param { name, shape, value, .. } in net.params() {
            if is_head(name) {
                head.push((name.clone(), Tensor::from_f32(shape, value)));
            } else if let Some(linear) = name.strip_suffix(COEFFICIENTS) {
                self.coefficients.insert(linear.to_owned(), value.clone());
            } else if let Some((linear, part)) = name.rsplit_once('.') {
                let Some(numbers) = self.changes.get_mut(linear) else { continue };
                match part {
                    "change_out" => numbers.u.clone_from(value),
                    "change_in" => numbers.v.clone_from(value),
                    "entries" => numbers.entries.clone_from(value),
                    _ => {}
                }
            }
        }
        self.model.weights = self.model.weights.replaced(head)?;
        Ok(())
    }

    /// Lets the change, coefficients and the head learn. `progress` is told the steps done and in all.
    ///
    /// # Errors
    /// If the data ends or doesn't fit, the loss is no number, or `progress` stops the work.
    pub fn tune(
        &mut self,
        source: &mut dyn BatchSource,
        tuning: &Tuning,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        let (mut net, coefficients) = self.network()?;
        let plain = optim::Options { weight_decay: 0.0, ..Default::default() };
        let mut optimizer = Optimizer::new(plain, net.params())?;
        let rates = cosine(tuning.rate, tuning.steps);
        for step in 0..tuning.steps {
            progress(step, tuning.steps)?;
            let Some(batch) = source.next()? else {
                return Err(Error::Option(format!("the data ends after {step} of {} steps", tuning.steps)));
            };
            silence(&mut net);
            let count = batch.counted().max(1);
            // The loss is a sum over the batch, so is the penalty.
            let penalty = tuning.penalty * count as f64;
            let mut objective = |pass: &Pass<'_>| {
                let (mut value, loss) = pass.usual_loss(&pass.hidden(&mut NoHook)?)?;
                for weight in coefficients.iter().filter(|_| penalty > 0.0) {
                    value = (value + (weight.tensor()?.abs()?.sum_all()? * penalty)?)?;
                }
                Ok((value, loss))
            };
            let loss = net.run(&batch, Some(1.0 / count as f32), &mut objective)?;
            finite(&loss)?;
            descend(&mut net, &mut optimizer, rates.rate(step));
        }
        progress(tuning.steps, tuning.steps)?;
        self.take(&net)
    }

    /// `W + α (U V + S₂)` of a matrix, without coefficients.
    fn whole(&self, name: &str) -> Result<Vec<f32>> {
        let mut w = self.model.weights.f32(name)?;
        if let Some(it) = name.strip_suffix(".weight").and_then(|linear| self.changes.get(linear)) {
            let scale = self.scale as f32;
            for (row, u) in w.chunks_exact_mut(it.columns).zip(it.u.chunks_exact(self.rank)) {
                for (factor, v) in u.iter().zip(it.v.chunks_exact(it.columns)) {
                    row.iter_mut().zip(v).for_each(|(w, v)| *w += scale * factor * v);
                }
            }
            it.places.iter().zip(&it.entries).for_each(|(place, value)| w[*place as usize] += scale * value);
        }
        Ok(w)
    }

    /// Sets the share of the layers' weights to zero that is smallest with the change added, over all matrices together:
    /// `⌊share · count⌋` of them.
    ///
    /// # Errors
    /// If the share is out of its range, or a weight can't be read.
    pub fn prune_weights(&mut self, share: f64) -> Result<()> {
        check_share(share)?;
        let inner: Vec<_> =
            self.model.spec.tensors().into_iter().filter(|it| is_inner(&it.name, &it.shape)).collect();
        let mut sizes = Vec::new();
        for tensor in &inner {
            sizes.extend(self.whole(&tensor.name)?.into_iter().map(f32::abs));
        }
        let mut out = vec![false; sizes.len()];
        lowest(&sizes, (share * sizes.len() as f64) as usize).into_iter().for_each(|at| out[at] = true);
        let mut rest = &out[..];
        let mut pruned = Vec::new();
        for tensor in inner {
            let mut values = self.model.weights.f32(&tensor.name)?;
            let (own, more) = rest.split_at(values.len());
            rest = more;
            values.iter_mut().zip(own).filter(|(_, out)| **out).for_each(|(value, _)| *value = 0.0);
            pruned.push((tensor.name, Tensor::from_f32(&tensor.shape, &values)));
        }
        self.model.weights = self.model.weights.replaced(pruned)?;
        Ok(())
    }

    /// Takes the share of heads and of neurons out of each layer whose coefficients are smallest; those of the others go into
    /// the matrices that they enter.
    ///
    /// # Errors
    /// If there are no coefficients, a layer would lose all heads, or the family can't be cut so.
    pub fn prune_parts(&mut self, heads: f64, neurons: f64) -> Result<()> {
        if self.coefficients.is_empty() {
            return Err(Error::Option("parts are chosen by coefficients; let them learn first".into()));
        }
        let (mut units, mut folded) = (Vec::new(), Vec::new());
        for (linear, values) in &self.coefficients {
            let layer = layer_of(linear).unwrap_or(0);
            let of_heads = linear.ends_with(".attention.output");
            let share = if of_heads { heads } else { neurons };
            let sizes: Vec<f32> = values.iter().map(|value| value.abs()).collect();
            let out = lowest(&sizes, (share * sizes.len() as f64) as usize);
            units.extend(out.into_iter().map(|at| match of_heads {
                true => Unit::Heads { layer, kv_head: at },
                false => Unit::Channel { layer, channel: at },
            }));
            let name = format!("{linear}.weight");
            let tensor = self.model.weights.get(&name)?;
            let mut w = self.model.weights.f32(&name)?;
            let columns = tensor.row_len();
            let each = columns / values.len();
            for row in w.chunks_exact_mut(columns) {
                row.iter_mut().enumerate().for_each(|(column, w)| *w *= values[column / each]);
            }
            folded.push((name, Tensor::from_f32(&tensor.shape, &w)));
        }
        units.sort_unstable();
        self.model.weights = self.model.weights.replaced(folded)?;
        let cut = Cut::without(&self.model.spec, &units)?;
        for (linear, numbers) in &mut self.changes {
            let Some(keep) = cut.keep(&self.model.spec, &format!("{linear}.weight")) else { continue };
            // Queries and values lose rows alone.
            let Some(rows) = keep.rows else { continue };
            let (rank, columns) = (self.rank, numbers.columns);
            numbers.u =
                rows.iter().flat_map(|row| numbers.u[row * rank..(row + 1) * rank].to_vec()).collect();
            let kept = numbers.places.iter().zip(&numbers.entries).filter_map(|(place, value)| {
                let (row, column) = (*place as usize / columns, *place as usize % columns);
                let row = rows.binary_search(&row).ok()?;
                Some(((row * columns + column) as u32, *value))
            });
            let (places, entries): (Vec<u32>, Vec<f32>) = kept.unzip();
            (numbers.places, numbers.entries, numbers.rows) = (places.into(), entries, rows.len());
        }
        self.model = cut.apply(&self.model)?;
        self.coefficients.clear();
        Ok(())
    }

    /// One model that computes the same; weights that were zero are so no longer where a change is.
    ///
    /// # Errors
    /// If a weight can't be read.
    pub fn merged(&self) -> Result<Model> {
        Ok(self.network()?.0.model()?)
    }

    /// Bytes of the layers' matrices and of the change, apart: values that are not zero with a bit a weight for their places, or all
    /// where that is less; U, V and entries with four bytes for each place.
    ///
    /// # Errors
    /// If a weight can't be read.
    pub fn bytes(&self) -> Result<usize> {
        let mut bytes = 0;
        for tensor in self.model.spec.tensors().iter().filter(|it| is_inner(&it.name, &it.shape)) {
            let values = self.model.weights.f32(&tensor.name)?;
            bytes += pack(&values).len().min(4 * values.len());
        }
        let change = |it: &Numbers| 4 * (it.u.len() + it.v.len() + 2 * it.entries.len());
        Ok(bytes + self.changes.values().map(change).sum::<usize>())
    }
}
