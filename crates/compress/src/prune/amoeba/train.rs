//! Training of all shapes at once: sandwich sampling, in-place distillation, losses of one size (section 4.3).

use std::collections::HashMap;

use ounce_model::{Model, Tensor};
use ounce_train::loss::{Chunk, CrossEntropy, Distillation, LogitLoss, Predictions};
use ounce_train::net::{Net, Options as NetOptions};
use ounce_train::{Batch, Trainable};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::elastic::{Elastic, Shape};
use super::smol::{self, Choice, Slopes, Smol};
use crate::Result;
use crate::prune::learning::{Shuffled, finite, mean_loss};
use crate::prune::structured::groups::layer_of;
use crate::quantize::training::adam::cosine;
use crate::stages::not_empty;

/// The most by which a small loss is raised to the size of the largest shape's.
const MOST_BALANCE: f64 = 10.0;

/// Which shapes learn in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// The largest, which learns the text, and the smallest and so many at random, which learn its prediction.
    Sandwich(usize),
    /// One alone, which learns the text: for comparison.
    One(Shape),
}

/// How shapes are trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Steps.
    pub steps: u64,
    /// Tokens of a step, at least; whole sequences. Every shape of a step sees the same.
    pub tokens: usize,
    /// The highest learning rate; it falls along half a cosine.
    pub rate: f64,
    /// How adapters are made.
    pub adapters: smol::Options,
    /// Which shapes learn.
    pub course: Course,
    /// Whether losses are brought to the size of the largest shape's.
    pub balance: bool,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            steps: 400,
            tokens: 2048,
            rate: 2e-3,
            adapters: smol::Options::default(),
            course: Course::Sandwich(2),
            balance: true,
            seed: 0,
        }
    }
}

/// A model of many shapes with trained adapters.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The model.
    pub elastic: Elastic,
    /// Adapters and gate.
    pub smol: Smol,
}

/// Whether a matrix gets adapters: those of the layers do.
fn is_adapted(name: &str, shape: &[usize]) -> bool {
    name.starts_with("layers.") && name.ends_with(".weight") && shape.len() == 2
}

impl Trained {
    /// New adapters, which change nothing yet.
    ///
    /// # Errors
    /// If the options can't be.
    pub fn begin(elastic: Elastic, options: smol::Options, seed: u64) -> Result<Trained> {
        smol::check(&options)?;
        let tensors = elastic.model.spec.tensors().into_iter();
        let matrices: Vec<(String, [usize; 2])> = tensors
            .filter(|tensor| is_adapted(&tensor.name, &tensor.shape))
            .map(|tensor| (tensor.name, [tensor.shape[0], tensor.shape[1]]))
            .collect();
        let features = elastic.features(Shape { removed: 0, width: 0 }).len();
        Ok(Trained { smol: Smol::new(matrices, features, options, seed), elastic })
    }

    /// The matrices of a shape's layers before the cut, with what was taken of the adapters.
    pub(super) fn tensors(&self, shape: Shape, choice: &Choice) -> Result<Vec<(String, Tensor)>> {
        let gone = &self.elastic.sets[shape.removed].removed;
        let adapters = self.smol.adapters.iter().enumerate();
        let needed = adapters.filter(|(_, it)| layer_of(&it.name).is_none_or(|layer| !gone.contains(&layer)));
        needed
            .map(|(at, adapters)| {
                let mut values = self.elastic.base(shape, &adapters.name)?;
                self.smol.add(at, choice, &mut values);
                Ok((adapters.name.clone(), Tensor::from_f32(&adapters.shape, &values)))
            })
            .collect()
    }

    /// The model of a shape: adapters merged, and cut.
    ///
    /// # Errors
    /// If it can't be cut.
    pub fn extract(&self, shape: Shape) -> Result<Model> {
        let choice = self.smol.choose(&self.elastic.features(shape), None);
        self.elastic.at(shape, self.tensors(shape, &choice)?)
    }

    /// The whole model with zeros where the shape's cut takes something out: what it is compared with.
    ///
    /// # Errors
    /// As [`Trained::extract`].
    pub fn masked(&self, shape: Shape) -> Result<Model> {
        let choice = self.smol.choose(&self.elastic.features(shape), None);
        let whole = self.elastic.whole(shape, self.tensors(shape, &choice)?)?;
        Ok(Model { weights: self.elastic.cut(shape).masked(&whole)?, ..whole })
    }

    /// Nats a token of each shape on sequences, in the order of [`Elastic::shapes`].
    ///
    /// # Errors
    /// As [`Trained::extract`].
    pub fn losses(&self, sequences: &[Vec<u32>]) -> Result<Vec<f64>> {
        self.elastic.shapes().into_iter().map(|shape| mean_loss(&self.extract(shape)?, sequences)).collect()
    }

    /// One shape on one batch: its loss, a mean, and the gradients of the whole model's matrices for that mean. With the teacher's predictions it learns those;
    /// without, the text, and its predictions are collected if `ask`.
    pub(super) fn pass(
        &self,
        shape: Shape,
        choice: &Choice,
        batch: &Batch,
        teacher: Option<&Predictions>,
        ask: bool,
    ) -> Result<Passed> {
        let cut = self.elastic.cut(shape);
        let whole = self.elastic.whole(shape, self.tensors(shape, choice)?)?;
        let small = cut.apply(&whole)?;
        let mut net = Net::with_frozen(&small, NetOptions::default(), &|name| {
            name.starts_with("layers.") && name.ends_with(".weight") && !name.contains("norm")
        })?;
        let scale = 1.0 / batch.counted().max(1) as f32;
        let mut said = Predictions::default();
        let loss = match teacher {
            Some(teacher) => net.run(batch, Some(scale), &mut Distillation::new(teacher))?,
            None if ask => net.run(batch, Some(scale), &mut Told(&mut said))?,
            None => net.run(batch, Some(scale), &mut CrossEntropy)?,
        };
        finite(&loss)?;
        let holes = small.spec.layers.len() == whole.spec.layers.len();
        let of: HashMap<&str, &ounce_train::Param> = net
            .params()
            .iter()
            .filter(|param| param.is_trainable())
            .map(|param| (param.name.as_str(), param))
            .collect();
        let mut gradients = Vec::new();
        for moved in cut.moved(&whole.spec, holes)? {
            let at = self.smol.adapters.iter().position(|it| it.name == moved.from);
            let (Some(at), Some(param)) = (at, of.get(moved.name.as_str())) else { continue };
            let shape = self.smol.adapters[at].shape;
            let places: Vec<u32> = (0..(shape[0] * shape[1]) as u32).collect();
            let mut gradient = vec![0.0; places.len()];
            let places = moved.keep.take(&places, &shape);
            places.iter().zip(&param.grad).for_each(|(place, g)| gradient[*place as usize] = *g);
            gradients.push((at, gradient));
        }
        Ok(Passed { loss: loss.mean(), gradients, said })
    }

    /// The gradients of one step.
    fn slopes(&self, batch: &Batch, options: &Options, random: &mut ChaCha8Rng) -> Result<Slopes> {
        let mut slopes = self.smol.slopes();
        let mut learn = |shape: Shape,
                         teacher: Option<(&Predictions, f64)>,
                         ask: bool,
                         random: &mut ChaCha8Rng|
         -> Result<Passed> {
            let choice = self.smol.choose(&self.elastic.features(shape), Some(random));
            let mut passed = self.pass(shape, &choice, batch, teacher.map(|it| it.0), ask)?;
            if let (Some((said, size)), true) = (teacher, options.balance) {
                // A cross-entropy is as large as another. By the KL alone, which falls to nothing where all shapes predict the same, those
                // that learn from the largest would pull everything to where that is easy: to no prediction at all.
                let cross_entropy = passed.loss + said.entropy();
                let factor = (size / cross_entropy.max(1e-9)).min(MOST_BALANCE) as f32;
                passed.gradients.iter_mut().flat_map(|it| &mut it.1).for_each(|g| *g *= factor);
            }
            self.smol.backward(&choice, &passed.gradients, &mut slopes);
            Ok(passed)
        };
        let shapes = self.elastic.shapes();
        match options.course {
            Course::One(shape) => {
                learn(shape, None, false, random)?;
            }
            Course::Sandwich(others) => {
                let largest = learn(shapes[0], None, true, random)?;
                let smallest = shapes.len() - 1;
                let mut chosen = if smallest > 0 { vec![smallest] } else { Vec::new() };
                if smallest > 1 {
                    chosen.extend((0..others).map(|_| random.random_range(1..smallest)));
                }
                for at in chosen {
                    learn(shapes[at], Some((&largest.said, largest.loss)), false, random)?;
                }
            }
        }
        Ok(slopes)
    }
}

/// Cross-entropy, and what was predicted.
struct Told<'p>(&'p mut Predictions);

impl LogitLoss for Told<'_> {
    fn chunk(&mut self, chunk: Chunk<'_>, scale: Option<f32>) -> f64 {
        let mut logits = chunk.logits.to_vec();
        let Chunk { pool, width, targets, rows, softcap, .. } = chunk;
        self.0.chunk(Chunk { pool, logits: &mut logits, width, targets, rows, softcap }, None);
        CrossEntropy.chunk(chunk, scale)
    }
}

/// What a pass of a shape gives.
pub(super) struct Passed {
    pub loss: f64,
    /// Of the adapters' matrices by their place, `[rows, columns]`, zero where something left.
    pub gradients: Vec<(usize, Vec<f32>)>,
    pub said: Predictions,
}

/// Trains adapters for all shapes on token ids, one list a sequence. `progress` is told the steps done and in all.
///
/// # Errors
/// If there is no text, the model can't be trained or cut, the loss is no number, or `progress` stops the work.
pub fn train(
    elastic: Elastic,
    sequences: &[Vec<u32>],
    options: &Options,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Trained> {
    not_empty(sequences)?;
    let mut trained = Trained::begin(elastic, options.adapters, options.seed)?;
    let mut text = Shuffled::new(sequences, options.seed);
    let mut random = ChaCha8Rng::seed_from_u64(options.seed ^ 0x5eed);
    let mut memory = trained.smol.memory();
    for step in 0..options.steps {
        progress(step, options.steps)?;
        let batch = Batch::next_token(text.next(options.tokens));
        let mut slopes = trained.slopes(&batch, options, &mut random)?;
        trained.smol.clip(&mut slopes, 1.0);
        // A warm-up of a twentieth: moments know nothing of the first gradients' size.
        let warm = (20.0 * (step + 1) as f64 / options.steps as f64).min(1.0);
        let rate = options.rate * warm * cosine(step, options.steps);
        trained.smol.step(&slopes, &mut memory, rate, step + 1);
    }
    progress(options.steps, options.steps)?;
    Ok(trained)
}
