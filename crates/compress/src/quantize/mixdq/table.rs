//! Sensitivities: one layer quantized at a time, everything else as it was, and a look at what the whole network gives.
//!
//! Two measures stand apart. `SQNR = 10 log₁₀(‖y‖² / ‖y − ŷ‖²)` of the denoiser's output sees every change, texture as much
//! as structure; `SSIM` of the images sees what is shown. Section 3.2: one measure for all would spend the bits of layers that
//! decide what an image shows on those that decide how it looks.

use serde::Serialize;

use super::plan::{Group, Plan, Side, Unit};
use crate::Result;

/// A network that can be run with some of its layers quantized.
pub trait Subject {
    /// Its layers, in the order in which plans name them.
    fn units(&self) -> &[Unit];

    /// What the network gives to a fixed input.
    ///
    /// # Errors
    /// If it can't be run.
    fn output(&mut self, plan: &Plan) -> Result<Vec<f32>>;

    /// The images that it makes.
    ///
    /// # Errors
    /// If it can't be run.
    fn images(&mut self, plan: &Plan) -> Result<Vec<f32>>;

    /// The mean similarity of images with others, 1 for equal ones.
    fn similarity(&self, images: &[f32], others: &[f32]) -> f64;
}

/// Measures of sensitivity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Of the network's output, in dB.
    Sqnr,
    /// Of the images.
    Ssim,
}

impl Group {
    /// The measure of this group.
    pub fn metric(self) -> Metric {
        match self {
            Group::Quality => Metric::Sqnr,
            Group::Content => Metric::Ssim,
        }
    }
}

/// The most that [`sqnr`] gives, for what did not change.
pub const MOST_SQNR: f64 = 150.0;

/// `10 log₁₀(‖y‖² / ‖y − ŷ‖²)` in dB, at most [`MOST_SQNR`].
pub fn sqnr(y: &[f32], rounded: &[f32]) -> f64 {
    let signal: f64 = y.iter().map(|y| f64::from(*y).powi(2)).sum();
    let noise: f64 = y.iter().zip(rounded).map(|(y, z)| f64::from(y - z).powi(2)).sum();
    (10.0 * (signal / noise).log10()).min(MOST_SQNR)
}

/// The mean squared difference.
pub fn squared_error(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    sum / a.len().max(1) as f64
}

/// What the network gives when nothing is quantized.
#[derive(Debug, Clone)]
pub struct Originals {
    /// To the fixed input.
    pub output: Vec<f32>,
    /// Images.
    pub images: Vec<f32>,
}

impl Originals {
    /// Of a network.
    ///
    /// # Errors
    /// If it can't be run.
    pub fn of(subject: &mut dyn Subject) -> Result<Originals> {
        let full = Plan::full(subject.units().len());
        Ok(Originals { output: subject.output(&full)?, images: subject.images(&full)? })
    }

    /// How good a plan is by a measure; more is better.
    ///
    /// # Errors
    /// If the network can't be run.
    pub fn score(&self, subject: &mut dyn Subject, plan: &Plan, metric: Metric) -> Result<f64> {
        Ok(match metric {
            Metric::Sqnr => sqnr(&self.output, &subject.output(plan)?),
            Metric::Ssim => {
                let images = subject.images(plan)?;
                subject.similarity(&images, &self.images)
            }
        })
    }
}

/// A layer's row: its score with each number of bits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The layer's name.
    pub unit: String,
    /// By which measure.
    pub metric: Metric,
    /// Bits and scores.
    pub scores: Vec<(u32, f64)>,
}

/// Measures every layer on one side. `rule` says for a layer's group the bits that are tried and the measure; `progress` is
/// told layers done and in all.
///
/// # Errors
/// If the network can't be run.
pub fn measure(
    subject: &mut dyn Subject,
    originals: &Originals,
    side: Side,
    rule: &dyn Fn(Group) -> (Vec<u32>, Metric),
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Row>> {
    let units = subject.units().to_vec();
    let mut table = Vec::with_capacity(units.len());
    for (index, unit) in units.iter().enumerate() {
        progress(index, units.len());
        let (tried, metric) = rule(unit.group);
        let mut scores = Vec::with_capacity(tried.len());
        for bits in tried {
            let full = Plan::full(units.len());
            let mut own = full.side(side).to_vec();
            own[index] = bits;
            scores.push((bits, originals.score(subject, &full.with(side, own), metric)?));
        }
        table.push(Row { unit: unit.name.clone(), metric, scores });
    }
    Ok(table)
}
