//! Trained variants: the same sequences in the same order for the same number of steps.

use ounce_model::{Model, Weights};
use ounce_train::graph::{GraphNet, Linear, Slot};
use ounce_train::net::Options as NetOptions;
use ounce_train::{Error as TrainError, Trainable};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::super::adapter::Adapter;
use super::super::lsq::Codes;
use super::super::merged::Start;
use super::super::train::{self, Options, SEED};
use super::slots::{Lora, Whole};
use crate::quantize::Plan;
use crate::quantize::training::mean;
use crate::quantize::training::next_token::{self, Schedule};
use crate::{Error, Result};

/// Rate of an adapter alone.
const ADAPTER_RATE: f64 = 5e-3;

/// Share of a matrix's mean step that AdamW moves a weight by, where all are trained.
const WEIGHT_RATE: f64 = 0.01;

/// What training cost.
#[derive(Debug, Clone, Copy)]
pub struct Learned {
    /// Numbers.
    pub trained: usize,
    /// Bytes of gradients and moments.
    pub held: usize,
}

pub struct Arms {
    pub learn: Vec<Vec<u32>>,
    pub options: Options,
}

impl Arms {
    fn schedule(&self) -> Schedule {
        Schedule { epochs: self.options.epochs, tokens: self.options.tokens, seed: SEED }
    }

    fn run(
        &self,
        mut net: GraphNet,
        rates: &[f64],
        moved: &mut dyn FnMut(&mut GraphNet),
    ) -> Result<(Model, Learned)> {
        let course = next_token::train(
            &mut net,
            &self.learn,
            &self.schedule(),
            rates,
            &mut next_token::usual,
            moved,
            &mut |_| Ok(()),
        )?;
        let learned = Learned { trained: course.trained, held: course.gradients + course.optimizer };
        Ok((net.model()?, learned))
    }

    /// Adapters beside the frozen matrices of those names, packed or not, and merged into them in the end.
    pub fn adapter(&self, model: &Model, names: &[String]) -> Result<(Model, Learned)> {
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let size = (self.options.rank, self.options.scale);
        let mut wrap = |name: &str, linear: Linear| -> ounce_train::Result<Box<dyn Slot>> {
            if !names.contains(&format!("{name}.weight")) {
                return Ok(Box::new(linear));
            }
            let adapter = Adapter::new(name, &linear, size, &mut random)?;
            Ok(Box::new(Lora { base: linear, adapter }))
        };
        let net = GraphNet::with_frozen(model, NetOptions::default(), &|_| false, &mut wrap)?;
        let rates = vec![ADAPTER_RATE; net.params().len()];
        self.run(net, &rates, &mut |_| {})
    }

    /// All weights of the plan's matrices, with their steps and offsets; begins at the codes of `blocks`.
    pub fn whole(&self, model: &Model, plan: &Plan, blocks: Option<&Weights>) -> Result<(Model, Learned)> {
        let near = blocks.map(|blocks| train::beside_codes(model, plan, blocks)).transpose()?;
        let model = near.as_ref().unwrap_or(model);
        let mut wrap = |name: &str, linear: Linear| -> ounce_train::Result<Box<dyn Slot>> {
            match plan.dtype(&format!("{name}.weight")) {
                None => Ok(Box::new(linear)),
                Some(dtype) => {
                    let stored = blocks.map(|it| it.get(&format!("{name}.weight"))).transpose()?;
                    let start = stored.as_ref().map_or(Start::Extremes, |it| Start::Blocks(&it.data));
                    match Whole::new(name, linear, dtype, start) {
                        Ok(slot) => Ok(Box::new(slot)),
                        Err(error) => Err(TrainError::Unsupported(error.to_string())),
                    }
                }
            }
        };
        let trains = |name: &str| plan.dtype(name).is_some();
        let net = GraphNet::with_frozen(model, NetOptions::default(), &trains, &mut wrap)?;
        let matrices: Result<Vec<(Codes, [usize; 3])>> = (plan.formats.keys())
            .map(|name| {
                let layer = name.trim_end_matches(".weight");
                let codes = plan.dtype(name).and_then(Codes::of);
                let place = |name: String| net.params().iter().position(|param| param.name == name);
                let places = [name.clone(), format!("{layer}.steps"), format!("{layer}.offsets")].map(place);
                match (codes, places) {
                    (Some(codes), [Some(weight), Some(steps), Some(offsets)]) => {
                        Ok((codes, [weight, steps, offsets]))
                    }
                    _ => Err(Error::matrix(name, "is not in training")),
                }
            })
            .collect();
        let matrices = matrices?;
        let mut rates = vec![0.0; net.params().len()];
        for (_, [weight, steps, offsets]) in &matrices {
            let step = mean(&net.params()[*steps].value);
            rates[*weight] = WEIGHT_RATE * step;
            (rates[*steps], rates[*offsets]) =
                (self.options.step_rate * step, self.options.offset_rate * step);
        }
        self.run(net, &rates, &mut |net| {
            for (codes, [_, steps, offsets]) in &matrices {
                train::confine(*codes, net.params_mut(), *steps, *offsets);
            }
        })
    }

    /// L4Q, begun at the codes of `blocks` or as in the paper; also gives the nats a token that training saw on the judging sequences.
    pub fn l4q(&self, model: &Model, plan: &Plan, blocks: Option<&Weights>) -> Result<(Model, Learned, f64)> {
        let (weights, trained) =
            train::train(model, plan, blocks, &self.learn, &self.options, &mut |_| Ok(()))?;
        let learned =
            Learned { trained: trained.trained, held: trained.memory.gradients + trained.memory.optimizer };
        Ok((Model { weights, ..model.clone() }, learned, trained.after))
    }
}
