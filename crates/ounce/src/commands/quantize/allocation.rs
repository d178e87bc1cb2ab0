//! Formats by sensitivity: the plan with the least loss for a size.

use std::collections::HashMap;
use std::path::Path;

use anyhow::bail;
use ounce_compress::quantize::allocate::{Choice, allocate};
use ounce_compress::quantize::sensitivity::{self, Sensitivity};
use ounce_compress::quantize::{Plan, Unit};
use ounce_engine::{Engine, Mode};
use ounce_eval::divergence::Reference;
use ounce_eval::perplexity::Options;
use ounce_kernels::DType;
use ounce_model::Model;
use ounce_model::formats::{Forecast, WriteOptions};

use super::super::convert::{forecast, is_gguf};
use super::formats::FormatArgs;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit as Counted};
use crate::units as sizes;

/// Tokens on which sensitivities are measured, and memory that the original's logits may take.
const TOKENS: usize = 4096;
const LOGITS: u64 = 4 << 30;

/// Bytes to whose multiples GGUF files pad tensors.
const ALIGNMENT: u64 = 32;

/// How large the result may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// Bytes of the file (of a folder: of its weight files).
    Bytes(u64),
    /// Bits of all tensors for each weight.
    BitsPerWeight(f64),
}

impl Budget {
    /// What of a forecast counts, and the most it may be, both in bytes.
    fn of(self, forecast: &Forecast) -> (u64, u64) {
        match self {
            Budget::Bytes(most) => (forecast.bytes, most),
            Budget::BitsPerWeight(bits) => {
                let values: f64 =
                    forecast.tensors.iter().map(|it| it.shape.iter().product::<usize>() as f64).sum();
                (forecast.tensors.iter().map(|it| it.bytes).sum(), (values * bits / 8.0) as u64)
            }
        }
    }
}

/// Mean squares of the inputs of a model's linear layers on calibration sequences, with a bar.
///
/// # Errors
/// If the model can't be run or the user stops the work.
pub fn look(model: &Model, calibration: &[Vec<u32>]) -> anyhow::Result<HashMap<String, Vec<f32>>> {
    Ok(observe(model, calibration)?.into_iter().map(|(name, (means, _))| (name, means)).collect())
}

/// As [`look`], with the tokens that each layer saw.
///
/// # Errors
/// As [`look`].
pub fn observe(
    model: &Model,
    calibration: &[Vec<u32>],
) -> anyhow::Result<HashMap<String, (Vec<f32>, usize)>> {
    let watch = Watch::start();
    let mut bar = Progress::new("looking at inputs", Counted::Items);
    Ok(sensitivity::observed(model, calibration.to_vec(), |done, total| {
        bar.set(done as u64, total as u64);
        Ok(watch.check()?)
    })?)
}

/// What the sensitivities of a model are measured on and for.
pub struct Table {
    /// Units with their candidates, the coarsest first.
    units: Vec<(Unit, Vec<DType>)>,
    rows: Vec<Sensitivity>,
}

/// The formats among which a unit's is chosen, the coarsest first.
fn candidates(unit: &Unit, gguf: bool) -> Vec<DType> {
    let all: &[DType] = match gguf {
        true if unit.columns.is_multiple_of(256) => &[
            DType::IQ2XXS,
            DType::IQ2XS,
            DType::IQ2S,
            DType::Q2K,
            DType::Q3K,
            DType::IQ4XS,
            DType::Q4K,
            DType::Q5K,
            DType::Q6K,
            DType::Q8_0,
        ],
        true => &[DType::IQ4NL, DType::Q4_1, DType::Q5_0, DType::Q5_1, DType::Q8_0],
        false => &[
            DType::G2x256,
            DType::G2x128,
            DType::G2x64,
            DType::G2x32,
            DType::G3x128,
            DType::G3x64,
            DType::G3x32,
            DType::G4x128,
            DType::G4x64,
            DType::G4x32,
            DType::G8x128,
        ],
    };
    let fits = |dtype: &&DType| unit.columns.is_multiple_of(dtype.block_len());
    all.iter().filter(fits).copied().collect()
}

impl Table {
    /// Measures a model's units with calibration sequences and what [`look`] found on them.
    ///
    /// # Errors
    /// If the model can't be run or the user stops the work.
    pub fn measure(
        model: &Model,
        units: &[Unit],
        gguf: bool,
        calibration: &[Vec<u32>],
        importance: &HashMap<String, Vec<f32>>,
    ) -> anyhow::Result<Table> {
        if !model.spec.causal {
            bail!(
                "bits are given out by how predictions change, and this model predicts no tokens; choose a --type"
            );
        }
        let units: Vec<(Unit, Vec<DType>)> = units
            .iter()
            .filter(|unit| gguf || !unit.is_outer())
            .map(|unit| (unit.clone(), candidates(unit, gguf)))
            .filter(|(_, candidates)| !candidates.is_empty())
            .collect();
        let watch = Watch::start();
        let count = (TOKENS / calibration.first().map_or(1, Vec::len).max(1)).clamp(1, calibration.len());
        let documents = &calibration[..count];
        let context = documents.iter().map(Vec::len).max().unwrap_or(1);
        let engine = Engine::load(model, Mode::fast())?;
        let options = Options { context, stride: context, prefix: None };
        let reference = Reference::of(&engine, documents, &options, LOGITS, |_, _| Ok(()))?;
        drop(engine);
        let mut bar = Progress::new("measuring sensitivities", Counted::Items);
        let rows = sensitivity::measure(model, &units, importance, &reference, |done, total| {
            bar.set(done as u64, total as u64);
            Ok(watch.check()?)
        })?;
        Ok(Table { units, rows })
    }

    /// The KL that a plan is expected to cost: the sum of what its units cost alone. A format that was not looked at costs what
    /// lies between those with fewer and more bits; none if there are no such.
    pub fn expected(&self, plan: &Plan) -> Option<f64> {
        let mut sum = 0.0;
        for ((unit, _), row) in self.units.iter().zip(&self.rows) {
            let Some(dtype) = unit.matrices.first().and_then(|it| plan.dtype(it)) else { continue };
            sum += between(&row.costs, dtype)?;
        }
        Some(sum)
    }

    /// The plan with the least expected loss within a budget, for the model that was measured or a cut of it. What `formats` keeps is
    /// not chosen.
    ///
    /// # Errors
    /// If even the smallest formats take more, and as [`FormatArgs::plan`].
    pub fn plan(
        &self,
        model: &Model,
        all: &[Unit],
        formats: &FormatArgs,
        target: &Path,
        options: &WriteOptions,
        budget: Budget,
    ) -> anyhow::Result<Plan> {
        let gguf = is_gguf(target);
        formats.check(all, gguf, None)?;
        // The model may be a cut of the one that was measured: its matrices are smaller, and those of layers that left are missing.
        let now = |measured: &Unit| all.iter().find(|unit| unit.matrices == measured.matrices);
        let free: Vec<(&Unit, &Sensitivity)> = self
            .units
            .iter()
            .zip(&self.rows)
            .filter_map(|((unit, _), row)| Some((now(unit)?, row)))
            .filter(|(unit, _)| formats.kept(unit).is_none())
            .collect();
        let choices: Vec<Vec<(Option<DType>, Choice)>> =
            free.iter().map(|(unit, row)| ways(model, unit, row, gguf)).collect();
        let costs: Vec<Vec<Choice>> =
            choices.iter().map(|ways| ways.iter().map(|it| it.1).collect()).collect();
        let plan_of = |chosen: &[usize]| -> anyhow::Result<Plan> {
            let mut formats_of: Vec<(&Unit, Option<DType>)> =
                all.iter().filter_map(|unit| formats.kept(unit).map(|format| (unit, format))).collect();
            for ((unit, _), (ways, &choice)) in free.iter().zip(choices.iter().zip(chosen)) {
                formats_of.push((unit, ways[choice].0));
            }
            Ok(Plan::new(formats_of)?)
        };
        let sum =
            |chosen: &[usize]| -> u64 { costs.iter().zip(chosen).map(|(ways, &it)| ways[it].bytes).sum() };
        // What the file holds besides the units follows from any plan.
        let smallest: Vec<usize> =
            costs.iter().map(|ways| (0..ways.len()).min_by_key(|&it| ways[it].bytes).unwrap_or(0)).collect();
        let least = forecast(&plan_of(&smallest)?.placeholder(model)?, target, options)?;
        let (counted, most) = budget.of(&least);
        let mut besides = counted.saturating_sub(sum(&smallest));
        if counted <= most {
            // Formats change what headers say, so that a plan may come out a little larger than thought, and so may the next one: each
            // time twice as much is left free.
            for attempt in 0..16 {
                let Some(chosen) = allocate(&costs, most.saturating_sub(besides)) else { break };
                let plan = plan_of(&chosen)?;
                let found = budget.of(&forecast(&plan.placeholder(model)?, target, options)?).0;
                if found <= most {
                    return Ok(plan);
                }
                besides += (found - most) << attempt;
            }
        }
        bail!(
            "the smallest that {} can become is {} ({:.2} bits a weight); raise the budget, or name a folder as the \
             target for formats of 2 and 3 bits of any width",
            target.display(),
            sizes::bytes(least.bytes),
            super::closing::bits_per_weight(&least)
        )
    }
}

/// The cost of a format; of one that is not in the list by its bits, along the straight line of logarithms.
fn between(costs: &[(DType, f64)], dtype: DType) -> Option<f64> {
    if let Some(known) = costs.iter().find(|it| it.0 == dtype) {
        return Some(known.1);
    }
    let bits = |dtype: DType| dtype.bits_per_value();
    let below =
        costs.iter().filter(|it| bits(it.0) <= bits(dtype)).max_by(|a, b| bits(a.0).total_cmp(&bits(b.0)))?;
    let above =
        costs.iter().filter(|it| bits(it.0) >= bits(dtype)).min_by(|a, b| bits(a.0).total_cmp(&bits(b.0)))?;
    let width = bits(above.0) - bits(below.0);
    let share = if width > 0.0 { (bits(dtype) - bits(below.0)) / width } else { 0.0 };
    let log = |cost: f64| cost.max(f64::MIN_POSITIVE).ln();
    Some((log(below.1) + share * (log(above.1) - log(below.1))).exp())
}

/// What a unit can become: any candidate, or what it is.
fn ways(model: &Model, unit: &Unit, row: &Sensitivity, gguf: bool) -> Vec<(Option<DType>, Choice)> {
    let padded = |bytes: usize| if gguf { (bytes as u64).next_multiple_of(ALIGNMENT) } else { bytes as u64 };
    let stored = unit.matrices.first().and_then(|it| model.weights.info(it)).map_or(DType::F32, |it| it.0);
    let finer = |dtype: DType| dtype.bits_per_value() < stored.bits_per_value();
    let mut ways: Vec<(Option<DType>, Choice)> = row
        .costs
        .iter()
        .filter(|(dtype, _)| finer(*dtype))
        .filter_map(|&(dtype, cost)| Some((Some(dtype), Choice { bytes: padded(unit.bytes(dtype)?), cost })))
        .collect();
    ways.extend(unit.bytes(stored).map(|bytes| (None, Choice { bytes: padded(bytes), cost: 0.0 })));
    ways
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_of_other_formats_lie_between_their_neighbours() {
        let costs = [(DType::Q2K, 0.1), (DType::Q4K, 0.01), (DType::Q8_0, 1e-5)];
        assert_eq!(between(&costs, DType::Q4K), Some(0.01));
        let five = between(&costs, DType::Q5_0).unwrap();
        assert!(five < 0.01 && five > 1e-5, "{five}");
        assert_eq!(between(&costs, DType::F32), None);
    }
}
