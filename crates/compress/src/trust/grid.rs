//! The grid: {8, 4, 3 bits} of {rounding, GPTQ, AWQ} and 2:4 of {magnitude, Wanda, SparseGPT}, asked for each calibration seed.

use std::fmt;

use ounce_engine::{Engine, Mode};
use ounce_eval::method::Lab;
use ounce_eval::trust::{Comparison, Dimension, Outcome, Probe, Prompting, Scorecard, ask};
use ounce_kernels::DType;
use ounce_model::weights::bytes_of;
use ounce_model::{Model, Tensor};
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::subject::{SHARE, Subject};
use crate::prune::{self, Criterion, TWO_OF_FOUR};
use crate::quantize::{Finished, Method, Plan, Preparation, Quantizer, Store, awq, gptq, units};
use crate::{Error, Result};

/// Values that share a step size.
pub(super) const GROUP: usize = 32;
/// Documents of a calibration.
pub(super) const DOCUMENTS: usize = 128;
/// Calibrations of each setting.
pub(super) const SEEDS: u64 = 5;
/// Points that a dimension may lose.
pub(super) const MARGIN: f64 = 3.0;

/// A way to fewer bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantize {
    Round,
    Gptq,
    Awq,
}

/// A setting of the grid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Setting {
    Bits(Quantize, usize),
    TwoOfFour(Criterion),
}

/// Bits from many to few.
pub(super) const BITS: [usize; 3] = [8, 4, 3];
/// Ways to reach them.
pub(super) const WAYS: [Quantize; 3] = [Quantize::Round, Quantize::Gptq, Quantize::Awq];

impl Setting {
    /// All of the grid.
    pub fn all() -> Vec<Setting> {
        let bits = BITS.into_iter().flat_map(|bits| WAYS.map(|way| Setting::Bits(way, bits)));
        let criteria = [
            Criterion::Magnitude,
            Criterion::Wanda,
            Criterion::SparseGpt(prune::sparsegpt::Options::default()),
        ];
        bits.chain(criteria.map(Setting::TwoOfFour)).collect()
    }

    /// Whether it looks at text.
    fn calibrates(self) -> bool {
        !matches!(self, Setting::Bits(Quantize::Round, _) | Setting::TwoOfFour(Criterion::Magnitude))
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Bits(Quantize::Round, bits) => write!(f, "{bits} bits, rounded"),
            Setting::Bits(Quantize::Gptq, bits) => write!(f, "{bits} bits, GPTQ"),
            Setting::Bits(Quantize::Awq, bits) => write!(f, "{bits} bits, AWQ"),
            Setting::TwoOfFour(Criterion::Magnitude) => f.write_str("2:4, magnitude"),
            Setting::TwoOfFour(Criterion::Wanda) => f.write_str("2:4, Wanda"),
            Setting::TwoOfFour(Criterion::SparseGpt(_)) => f.write_str("2:4, SparseGPT"),
        }
    }
}

/// What came of a setting with one calibration.
pub(super) struct Run {
    pub card: Scorecard,
    pub comparison: Comparison,
}

/// What came of a setting.
pub(super) struct Cell {
    pub setting: Setting,
    pub bytes: f64,
    /// One a seed; one alone where nothing is calibrated.
    pub runs: Vec<Run>,
}

impl Cell {
    /// Something of all runs: its mean.
    pub fn mean(&self, of: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
        let values: Option<Vec<f64>> = self.runs.iter().map(of).collect();
        values.filter(|it| !it.is_empty()).map(|it| it.iter().sum::<f64>() / it.len() as f64)
    }

    /// Mean change of a dimension, in points.
    pub fn delta(&self, dimension: Dimension) -> Option<f64> {
        let change = |run: &Run| {
            run.comparison.changes.iter().find(|it| it.dimension == dimension).map(|it| it.delta.value)
        };
        self.mean(change)
    }

    /// Mean change of the mean of all trust dimensions.
    pub fn trust(&self) -> Option<f64> {
        self.mean(|run| run.comparison.trust)
    }

    /// Standard deviation over seeds of each trust dimension, and the mean of these; none without several seeds.
    pub fn spread(&self) -> Option<f64> {
        let deviation = |dimension: Dimension| {
            let scores: Option<Vec<f64>> =
                self.runs.iter().map(|run| run.card.get(dimension).map(|it| it.score.value)).collect();
            deviation(&scores?)
        };
        let all: Option<Vec<f64>> = Dimension::TRUST.iter().copied().map(deviation).collect();
        all.map(|it| it.iter().sum::<f64>() / it.len() as f64)
    }
}

/// The standard deviation of a sample; none of fewer than two values.
pub(super) fn deviation(values: &[f64]) -> Option<f64> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|it| (it - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt())
}

/// Everything that is compressed and asked.
pub(super) struct Study<'s> {
    pub lab: &'s dyn Lab,
    pub subject: &'s Subject,
    pub probes: &'s [Probe],
    pub seeds: u64,
}

impl Study<'_> {
    /// All settings with all their calibrations, beside what came of the dense model.
    pub fn cells(&self, dense: &[Outcome]) -> Result<Vec<Cell>> {
        let settings = Setting::all();
        let runs = |setting: &Setting| if setting.calibrates() { self.seeds } else { 1 };
        let all: u64 = settings.iter().map(runs).sum();
        let mut done = 0;
        let mut cells = Vec::new();
        for setting in settings {
            let mut own = Vec::new();
            for seed in 0..runs(&setting) {
                let share = SHARE + (1.0 - SHARE) * done as f64 / all as f64;
                self.lab.progress(&format!("{setting}, calibration {}", seed + 1), share);
                let outcomes = self.compressed(setting, seed)?;
                let card = Scorecard::new(self.probes, &outcomes);
                let comparison = Comparison::new(self.probes, dense, &outcomes, MARGIN);
                own.push(Run { card, comparison });
                done += 1;
            }
            cells.push(Cell { setting, bytes: self.bytes(setting)?, runs: own });
        }
        Ok(cells)
    }

    /// Asks a model all probes.
    pub fn ask(&self, model: &Model) -> Result<Vec<Outcome>> {
        let tokenizer = model.tokenizer.as_ref();
        let tokenizer = tokenizer.ok_or_else(|| Error::Option("the model has no tokenizer".into()))?;
        let start = tokenizer.special().eos.first().copied();
        // Weights as f32: then nothing but their values differs between formats.
        let plain = |name: &str| -> Result<(String, Tensor)> {
            let tensor = model.weights.get(name)?;
            let values = tensor.to_f32().map_err(|error| Error::matrix(name, error))?;
            Ok((name.to_owned(), Tensor::from_f32(&tensor.shape, &values)))
        };
        let tensors: Vec<(String, Tensor)> = model.weights.names().map(plain).collect::<Result<_>>()?;
        let model = Model { weights: model.weights.replaced(tensors)?, ..model.clone() };
        let engine = Engine::load(&model, Mode::fast())?;
        let prompting = Prompting { tokenizer, start, chat: None };
        Ok(ask(&engine, &prompting, self.probes, |_, _| Ok(()))?)
    }

    /// What the model answers once it is compressed.
    fn compressed(&self, setting: Setting, seed: u64) -> Result<Vec<Outcome>> {
        let model = &self.subject.model;
        let text = if setting.calibrates() { self.calibration(seed) } else { Vec::new() };
        match setting {
            Setting::TwoOfFour(criterion) => {
                let names = prune::matrices(model)?;
                let weights = prune::prune(model, &names, criterion, TWO_OF_FOUR, text, &mut |_, _| Ok(()))?;
                self.ask(&Model { weights, ..model.clone() })
            }
            Setting::Bits(way, bits) => {
                let plan = self.plan(bits)?;
                let folder = tempfile::tempdir().map_err(ounce_model::Error::io(std::env::temp_dir()))?;
                let store = Store::open(folder.path(), &json!({}))?;
                let (prepared, method) = match way {
                    Quantize::Round => (model.clone(), Method::Round),
                    Quantize::Gptq => {
                        let order = gptq::Order::Activity;
                        (
                            model.clone(),
                            Method::Gptq(gptq::Options { order, descent: 0, ..Default::default() }),
                        )
                    }
                    Quantize::Awq => {
                        let awq = Preparation::Awq(awq::Options { clip: true, ..Default::default() });
                        let part = store.part("awq", &json!({}))?;
                        let prepared = awq.apply(model, &plan, &text, &part, &mut |_, _| Ok(()))?;
                        (prepared, Method::Round)
                    }
                };
                let mut ignore = |_: Option<&Finished>, _: u64, _: u64| Ok(());
                let weights = Quantizer::new(&prepared, &plan, method, &store, &mut ignore).run(text)?;
                self.ask(&Model { weights, ..prepared.clone() })
            }
        }
    }

    /// Documents of the town, other ones for each seed.
    fn calibration(&self, seed: u64) -> Vec<Vec<u32>> {
        let mut random = ChaCha8Rng::seed_from_u64(self.lab.seed().wrapping_mul(1000) + seed);
        let documents = &self.subject.documents;
        let chosen = index::sample(&mut random, documents.len(), DOCUMENTS.min(documents.len()));
        chosen.into_iter().map(|at| documents[at].clone()).collect()
    }

    fn plan(&self, bits: usize) -> Result<Plan> {
        let dtype = DType::groups(bits, GROUP);
        let units = units(&self.subject.model)?;
        Plan::new(units.iter().map(|unit| (unit, dtype.filter(|_| !unit.is_outer()))))
    }

    /// Bytes of all weights in bf16.
    pub fn dense_bytes(&self) -> f64 {
        let weights = &self.subject.model.weights;
        let values = weights
            .names()
            .filter_map(|name| weights.info(name))
            .map(|(_, shape)| shape.iter().product::<usize>());
        2.0 * values.sum::<usize>() as f64
    }

    fn bytes(&self, setting: Setting) -> Result<f64> {
        let model = &self.subject.model;
        let names = prune::matrices(model)?;
        let plan = match setting {
            Setting::Bits(_, bits) => Some(self.plan(bits)?),
            Setting::TwoOfFour(_) => None,
        };
        let mut bytes = self.dense_bytes();
        for name in names {
            let Some((_, shape)) = model.weights.info(&name) else { continue };
            let values = shape.iter().product::<usize>() as f64;
            let packed = plan.as_ref().and_then(|plan| bytes_of(plan.dtype(&name)?, shape));
            let sparse = TWO_OF_FOUR.bits_per_weight(16.0) / 8.0 * values;
            bytes += packed.map_or(sparse, |it| it as f64) - 2.0 * values;
        }
        Ok(bytes)
    }
}
