//! A language model whose components are pruned, judged by the probability of a text.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ounce_engine::Walk;
use ounce_model::{Model, Tensor};
use ounce_train::net::{Net, Options};
use ounce_train::{Batch, Trainable};

use super::criterion::Matrix;
use super::subject::{Component, Subject, components};
use crate::quantize::moments::Collector;
use crate::stages::{mode, not_empty};
use crate::{Error, Result};

/// A language model, and the texts that it is judged by. An item is a text; its number, nats a token; quality, one over the perplexity.
#[derive(Debug)]
pub struct Language {
    model: Model,
    matrices: Vec<Matrix>,
    components: Vec<Component>,
    judged: Vec<Vec<u32>>,
}

impl Language {
    /// A model with components by patterns of its matrices' names (without `.weight`), `(name, pattern)` each; calibration texts show inputs and
    /// gradients, others judge. `progress` is told the share that is done.
    ///
    /// # Errors
    /// If there is no text, a matrix is stored in blocks or fits no pattern, the model can't be trained, or `progress` stops the work.
    pub fn new(
        model: &Model,
        patterns: &[(String, String)],
        calibration: &[Vec<u32>],
        judged: Vec<Vec<u32>>,
        progress: &mut dyn FnMut(f64) -> Result<()>,
    ) -> Result<Language> {
        not_empty(calibration)?;
        let judged: Vec<Vec<u32>> = judged.into_iter().filter(|ids| ids.len() > 1).collect();
        not_empty(&judged)?;
        let names = crate::prune::matrices(model)?;
        let layers = model.spec.layers.len();
        let collector = Arc::new(Mutex::new(Collector::new(false)));
        let mut walk = Walk::begin(model, calibration.to_vec(), mode())?;
        for layer in 0..layers {
            let done = 0.5 * layer as f64 / layers as f64;
            walk.watch(&model.weights, collector.clone(), |_| progress(done).map_err(Error::into_engine))?;
        }
        let seen = collector.lock().unwrap_or_else(PoisonError::into_inner);
        let mut net = Net::with_frozen(model, Options::default(), &|name| names.iter().any(|it| it == name))?;
        for (done, ids) in calibration.iter().enumerate() {
            progress(0.5 + 0.5 * done as f64 / calibration.len() as f64)?;
            let batch = Batch::next_token([ids.as_slice()]);
            if batch.counted() > 0 {
                net.accumulate(&batch, 1.0 / batch.counted() as f32)?;
            }
        }
        let mut matrices = Vec::new();
        for full in names {
            let stored = model.weights.get(&full)?;
            if stored.dtype.block_len() > 1 {
                let what = format!("is stored in {}; sweep the model before it is quantized", stored.dtype);
                return Err(Error::matrix(full, what));
            }
            let name = full.trim_end_matches(".weight").to_owned();
            let values = stored.to_f32().map_err(|error| Error::matrix(&full, error))?;
            let columns = stored.row_len();
            let inputs = seen.moments(&name).map_or_else(|| vec![0.0; columns], |it| it.importance());
            let param = net.params().iter().find(|param| param.name == full);
            let gradient = param.map(|param| param.grad.clone()).unwrap_or_default();
            matrices.push(Matrix { name, columns, values, inputs, gradient });
        }
        let components = components(&matrices, patterns)?;
        progress(1.0)?;
        Ok(Language { model: model.clone(), matrices, components, judged })
    }

    /// The model with sparsities of its components, as a model.
    ///
    /// # Errors
    /// If a matrix can't be put in its place.
    pub fn with(&self, pruned: &HashMap<usize, Vec<f32>>) -> Result<Model> {
        let tensors = pruned.iter().map(|(&at, values)| {
            let Matrix { name, columns, .. } = &self.matrices[at];
            let shape = [values.len() / (*columns).max(1), *columns];
            (format!("{name}.weight"), Tensor::from_f32(&shape, values))
        });
        Ok(Model { weights: self.model.weights.replaced(tensors)?, ..self.model.clone() })
    }
}

impl Subject for Language {
    fn matrices(&self) -> &[Matrix] {
        &self.matrices
    }

    fn components(&self) -> &[Component] {
        &self.components
    }

    fn items(&mut self, pruned: &HashMap<usize, Vec<f32>>) -> Result<Vec<f64>> {
        let mut net = Net::with_frozen(&self.with(pruned)?, Options::default(), &|_| false)?;
        let loss = |ids: &Vec<u32>| Ok(net.loss(&Batch::next_token([ids.as_slice()]))?.mean());
        self.judged.iter().map(loss).collect()
    }

    fn quality(&self, items: &mut dyn Iterator<Item = f64>) -> f64 {
        let (mut sum, mut count) = (0.0, 0u32);
        items.for_each(|item| (sum, count) = (sum + item, count + 1));
        (-sum / f64::from(count.max(1))).exp()
    }
}
