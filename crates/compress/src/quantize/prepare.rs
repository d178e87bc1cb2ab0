//! What is done to weights before they are rounded: scales or rotations that leave what the model computes as it is, and
//! its weights easier to round. Several may follow each other, and any [`Method`](super::Method) may follow them.
//!
//! Changed matrices are f32 until they are quantized and lie in a folder of their own beside the finished ones, 4 bytes a
//! value, from where they are mapped: memory holds a layer and, for what looks at inputs, its Hessians and the hidden
//! states of calibration. A step that was finished is taken over when the work goes on; one that was cut off is done
//! again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use ounce_engine::Walk;
use ounce_kernels::DType;
use ounce_model::{Model, Weights};
use serde_json::{Value, json};

use super::fold::{Before, Changes, Site, can_change, sites};
use super::moments::Collector;
use super::plan::Plan;
use super::rotate::Rotations;
use super::store::Store;
use super::{awq, rotate, smooth};
use crate::stages::{mode, not_empty};
use crate::{Error, Result};

/// A change of weights ahead of quantization.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Preparation {
    /// Scales by the size of inputs.
    Awq(awq::Options),
    /// Scales that share the difficulty between inputs and weights.
    Smooth(smooth::Options),
    /// A rotated residual stream.
    Rotate(rotate::Options),
}

/// Is told of the layers done and in all; may stop the work.
pub type Progress<'p> = &'p mut dyn FnMut(usize, usize) -> Result<()>;

impl Preparation {
    /// Its name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Preparation::Awq(_) => "awq",
            Preparation::Smooth(_) => "smooth",
            Preparation::Rotate(_) => "rotate",
        }
    }

    /// Whether it looks at inputs.
    pub fn needs_calibration(&self) -> bool {
        !matches!(self, Preparation::Rotate(_))
    }

    /// All that its result depends on besides model, plan and calibration.
    pub fn settings(&self) -> Value {
        match self {
            Preparation::Awq(options) => json!({"awq": {"grid": options.grid, "clip": options.clip}}),
            Preparation::Smooth(options) => json!({"smooth": {"alpha": options.alpha}}),
            Preparation::Rotate(options) => json!({"rotate": {"seed": options.seed}}),
        }
    }

    /// The model with the weights that it will have, still with their old values: plans are made for this one. It differs
    /// from the model where rotation needs an output matrix of its own.
    ///
    /// # Errors
    /// If this can't be done to the model.
    pub fn shaped(&self, model: &Model) -> Result<Model> {
        let spec = &model.spec;
        match self {
            Preparation::Rotate(_) => rotate::untied(model),
            _ if (0..spec.layers.len()).all(|layer| sites(spec, layer).is_empty()) => {
                let what = format!(
                    "no layer of this model has a place for the scales of {}: a norm in front, or channels that go \
                     straight from one linear layer to the next; leave it out",
                    self.name()
                );
                Err(Error::Option(what))
            }
            _ => Ok(model.clone()),
        }
    }

    /// Changes the weights of a model that came from [`Preparation::shaped`], and keeps them in `store`, which is for
    /// nothing else.
    ///
    /// # Errors
    /// If a weight can't be read, would have to be rounded to blocks outside the plan, or becomes infinite; the
    /// calibration is empty where it is needed; the store can't be written, or `progress` stops the work.
    pub fn apply(
        &self,
        model: &Model,
        plan: &Plan,
        calibration: &[Vec<u32>],
        store: &Store,
        progress: Progress<'_>,
    ) -> Result<Model> {
        let work = Work { model, plan, store, progress, names: Vec::new() };
        let weights = match (work.known(), self) {
            (Some(weights), _) => weights,
            (None, Preparation::Rotate(options)) => work.rotate(options)?,
            (None, Preparation::Awq(options)) => {
                let look = Look { pairs: true, norms_only: false, clip: options.clip };
                work.scaled(calibration, look, |layer| layer.awq(options))?
            }
            (None, Preparation::Smooth(options)) => {
                let look = Look { pairs: false, norms_only: true, clip: false };
                work.scaled(calibration, look, |layer| layer.smooth(options))?
            }
        };
        Ok(Model { weights, ..model.clone() })
    }
}

/// What a method wants to see.
#[derive(Clone, Copy)]
struct Look {
    /// Products of all pairs of columns.
    pairs: bool,
    /// Only places behind norms.
    norms_only: bool,
    /// The inputs of all linears that may be clipped.
    clip: bool,
}

struct Work<'w> {
    model: &'w Model,
    plan: &'w Plan,
    store: &'w Store,
    progress: Progress<'w>,
    names: Vec<String>,
}

impl Work<'_> {
    /// What an earlier run finished.
    fn known(&self) -> Option<Weights> {
        let weights = &self.model.weights;
        let mut tensors = Vec::new();
        for name in self.store.finished()? {
            let (dtype, shape) = weights.info(&name)?;
            let dtype = if self.plan.dtype(&name).is_some() { DType::F32 } else { dtype };
            let (tensor, _) = self.store.get(&name, dtype, shape)?;
            tensors.push((name, tensor));
        }
        weights.replaced(tensors).ok()
    }

    /// Stores what was changed.
    fn keep(&mut self, changes: Changes<'_>, into: Weights) -> Result<Weights> {
        let mut tensors = Vec::new();
        for (name, tensor) in changes.finish(self.plan)? {
            tensors.push((name.clone(), self.store.put(&name, &tensor, None)?));
            self.names.push(name);
        }
        Ok(into.replaced(tensors)?)
    }

    fn rotate(mut self, options: &rotate::Options) -> Result<Weights> {
        let (spec, weights) = (&self.model.spec, &self.model.weights);
        let matrix = |name: &&str| weights.info(name).is_some_and(|(_, shape)| shape.len() == 2);
        if let Some(name) = weights.names().filter(matrix).find(|name| !can_change(name, weights, self.plan))
        {
            let what = "stays in a block format and would have to be rounded to it again once it is rotated; quantize it \
                        too, or start from a model that is not quantized";
            return Err(Error::matrix(name, what));
        }
        let rotations = Rotations::new(spec, options);
        let mut done = weights.clone();
        for index in 0..spec.layers.len() {
            if spec.layers[index].shares.is_none() {
                let mut changes = Changes::new(weights);
                rotations.layer(&mut changes, spec, index)?;
                done = self.keep(changes, done)?;
            }
            (self.progress)(index, spec.layers.len())?;
        }
        let mut changes = Changes::new(weights);
        rotations.outer(&mut changes, spec)?;
        done = self.keep(changes, done)?;
        self.store.finish(&self.names)?;
        Ok(done)
    }

    /// Layer by layer on the inputs of the model as it was; `change` changes one.
    fn scaled(
        mut self,
        calibration: &[Vec<u32>],
        look: Look,
        change: impl Fn(&mut Layer<'_>) -> Result<()>,
    ) -> Result<Weights> {
        not_empty(calibration)?;
        let (spec, weights) = (&self.model.spec, &self.model.weights);
        let mut walk = Walk::begin(self.model, calibration.to_vec(), mode())?;
        let (mut done, layers) = (weights.clone(), spec.layers.len());
        for index in 0..layers {
            let progress = &mut self.progress;
            let mut check = |_| progress(index, layers).map_err(Error::into_engine);
            let open = |site: &Site| {
                site.is_quantized(self.plan)
                    && site.is_open(weights, self.plan)
                    && (!look.norms_only || matches!(site.before, Before::Norm(..)))
            };
            let sites: Vec<Site> = sites(spec, index).into_iter().filter(open).collect();
            let clipped = if look.clip { clippable(self.plan, index) } else { Vec::new() };
            let wanted: HashSet<String> =
                sites.iter().map(|site| site.linears[0].clone()).chain(clipped.iter().cloned()).collect();
            if !wanted.is_empty() {
                let collector = Arc::new(Mutex::new(Collector::of(wanted, None, look.pairs)));
                walk.look(weights, collector.clone(), &mut check)?;
                let collector = collector.lock().unwrap_or_else(PoisonError::into_inner);
                let mut layer = Layer {
                    plan: self.plan,
                    changes: Changes::new(weights),
                    collector: &collector,
                    sites,
                    clipped,
                };
                change(&mut layer)?;
                let changes = layer.changes;
                done = self.keep(changes, done)?;
            }
            let progress = &mut self.progress;
            walk.advance(weights, |_| progress(index, layers).map_err(Error::into_engine))?;
        }
        self.store.finish(&self.names)?;
        Ok(done)
    }
}

/// The quantized linears of a layer but queries and keys.
fn clippable(plan: &Plan, layer: usize) -> Vec<String> {
    let prefix = format!("layers.{layer}.");
    let linears = plan.formats.keys().filter_map(|name| name.strip_suffix(".weight"));
    let is_one =
        |name: &&str| name.starts_with(&prefix) && !name.ends_with(".query") && !name.ends_with(".key");
    linears.filter(is_one).map(str::to_owned).collect()
}

/// A layer that is being changed.
struct Layer<'l> {
    plan: &'l Plan,
    changes: Changes<'l>,
    collector: &'l Collector,
    sites: Vec<Site>,
    clipped: Vec<String>,
}

impl Layer<'_> {
    fn awq(&mut self, options: &awq::Options) -> Result<()> {
        let mut columns: HashMap<String, Vec<f32>> = HashMap::new();
        for site in std::mem::take(&mut self.sites) {
            // An expert that nothing was sent to stays as it is.
            let Some(moments) = self.collector.moments(&site.linears[0]) else { continue };
            let names: Vec<(String, DType)> = (site.linears.iter())
                .map(|linear| format!("{linear}.weight"))
                .filter_map(|name| self.plan.dtype(&name).map(|dtype| (name, dtype)))
                .collect();
            for (name, _) in &names {
                self.changes.edit(name)?;
            }
            let matrices: Vec<awq::Matrix<'_>> =
                names.iter().filter_map(|(name, dtype)| Some((self.changes.get(name)?, *dtype))).collect();
            let found = awq::search(moments, &matrices, options)
                .map_err(|what| Error::matrix(&site.linears[0], what))?;
            tracing::debug!(
                "{}: α {:.2}, error {:.3} of what it was",
                site.linears[0],
                found.alpha,
                found.error / found.plain_error.max(f64::MIN_POSITIVE)
            );
            let taken = self.changes.fold(&site, &found.scales)?;
            columns.extend(site.linears.iter().map(|linear| (linear.clone(), taken.clone())));
        }
        for linear in std::mem::take(&mut self.clipped) {
            let name = format!("{linear}.weight");
            let (Some(moments), Some(dtype)) = (self.collector.moments(&linear), self.plan.dtype(&name))
            else {
                continue;
            };
            let scales = columns.get(&linear).map_or(&[][..], Vec::as_slice);
            awq::clip(moments, self.changes.edit(&name)?, dtype, scales)
                .map_err(|what| Error::matrix(&name, what))?;
        }
        Ok(())
    }

    fn smooth(&mut self, options: &smooth::Options) -> Result<()> {
        for site in std::mem::take(&mut self.sites) {
            let Some(moments) = self.collector.moments(&site.linears[0]) else { continue };
            let names: Vec<String> = site.linears.iter().map(|linear| format!("{linear}.weight")).collect();
            for name in &names {
                self.changes.edit(name)?;
            }
            let matrices: Vec<&[f32]> = names.iter().filter_map(|name| self.changes.get(name)).collect();
            let scales = smooth::scales(moments, &matrices, options);
            self.changes.fold(&site, &scales)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "prepare_tests.rs"]
mod tests;
