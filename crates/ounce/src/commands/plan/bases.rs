//! What is made of a model before it is quantized: its loss is measured, and it gets candidates of its own.

use ounce_engine::Mode;
use ounce_model::Model;
use ounce_model::account::Formats;
use ounce_plan::recipe::Step;
use ounce_plan::search::Expected;

use super::super::quantize::allocation::{Table, look};
use super::budget::Asked;
use super::candidates::{Base, Subject, Way};
use super::sizes;
use super::trial::Trials;
use crate::compute;

/// How many candidates of one stay, those that are expected to lose least.
const KEPT: usize = 3;

/// What is expected to lose more than this times the best is left out.
const TIMES: f64 = 3.0;

/// Adds the candidates of a model that was made of the subject by a step, which people call that. False, and nothing is added, if it loses
/// more before it is quantized than another that meets the budget does behind: it would never be taken.
///
/// # Errors
/// If it can't be run or forecast, or the user stops the work.
pub fn enter(
    subject: &mut Subject<'_>,
    trials: &Trials<'_>,
    asked: &Asked,
    ways: &mut Vec<Way>,
    left: Model,
    (step, name): (Step, String),
) -> anyhow::Result<bool> {
    let kv = asked.kv.unwrap_or_else(|| compute::usual_kv_type(&Formats::of(&left.weights), Mode::fast()));
    let quality = trials.judge(&left, kv)?;
    let best = best_loss(ways);
    if best.is_some_and(|best| quality.kl > best) {
        return Ok(false);
    }
    let importance = look(&left, trials.learn())?;
    let mut base = Base { kl: quality.kl, importance, ..Base::new(left, Some((step, name)))? };
    let measured = |unit: &ounce_compress::quantize::Unit| {
        subject.bases[0].units.iter().any(|it| it.matrices == unit.matrices)
    };
    if !base.units.iter().all(measured) {
        // Its matrices are others, whose sensitivities nobody measured.
        let (learn, importance) = (trials.learn(), &base.importance);
        base.table = Some(Table::measure(&base.model, &base.units, subject.is_gguf(), learn, importance)?);
    }
    subject.bases.push(base);
    let place = subject.bases.len() - 1;
    let mut made = subject.uniform(place)?;
    let alone = made.iter_mut().filter(|it| it.plan.is_none() && it.kv == kv);
    alone.for_each(|it| it.candidate.expected = Some(Expected::tried(quality)));
    made.iter_mut().for_each(|it| it.candidate.judge(&asked.budget));
    sizes::add(subject, trials, asked, place, &mut made)?;
    ways.extend(promising(made, best));
    Ok(true)
}

/// The least expected loss of those that are expected to meet the budget.
pub fn best_loss(ways: &[Way]) -> Option<f64> {
    let fitting = ways.iter().filter(|it| it.candidate.fits());
    fitting.filter_map(|it| Some(it.candidate.expected?.kl)).min_by(f64::total_cmp)
}

/// Of the candidates those worth a trial; where none meets the budget the one that misses it by least.
fn promising(mut made: Vec<Way>, best: Option<f64>) -> Vec<Way> {
    let loss = |way: &Way| way.candidate.expected.map_or(f64::INFINITY, |it| it.kl);
    if !made.iter().any(|it| it.candidate.fits()) {
        let worst = |way: &Way| way.candidate.misses.iter().map(|it| it.times).fold(1.0, f64::max);
        let nearest = made.into_iter().min_by(|a, b| worst(a).total_cmp(&worst(b)));
        return nearest.into_iter().collect();
    }
    made.retain(|it| it.candidate.fits() && best.is_none_or(|best| loss(it) <= TIMES * best));
    made.sort_by(|a, b| loss(a).total_cmp(&loss(b)));
    made.truncate(KEPT);
    made
}
