//! Candidates that are cut before they are quantized: heads and channels leave wherever they matter least.
//!
//! What a cut loses is measured on the text that trials are judged on; formats of what it leaves are reckoned by the sensitivities
//! of the whole model.

use std::time::{Duration, Instant};

use ounce_compress::prune::structured::{Limits, Scores, Target, choose, compensate, saliency};
use ounce_kernels::attention::KvType;
use ounce_model::Model;
use ounce_plan::search::Candidate;
use toml::Value;

use super::super::prune::structured::with_bar;
use super::bases::{self, best_loss};
use super::budget::Asked;
use super::candidates::{Base, Subject, Way};
use super::trial::Trials;
use crate::units as sizes_of;

/// Shares of the layers' weights that leave.
const SHARES: [f64; 6] = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5];

/// Gradients take at least so many times as long as predictions.
const GRADIENTS: f64 = 3.0;

/// All that is done for cutting, in times of what finding the parts' worth takes.
const ALL: f64 = 2.0;

/// Bytes for each weight while the parts' worth is found: values and gradients in f32.
const BYTES: u64 = 8;

/// The share of the time for trials that may go into finding what to cut.
const SHARE_OF_TIME: f64 = 0.25;

/// The same where nothing meets the budget without a cut.
const SHARE_IN_NEED: f64 = 10.0;

/// What may leave: formats with blocks of 256 want channels in such multiples, and heads would break their rows.
fn limits(subject: &Subject<'_>) -> Limits {
    let wide = |unit: &ounce_compress::quantize::Unit| unit.is_outer() || unit.columns.is_multiple_of(256);
    match subject.is_gguf() && subject.bases[0].units.iter().all(wide) {
        true => Limits { heads: false, multiple: 256, ..Limits::default() },
        false => Limits::default(),
    }
}

/// The step that does it.
fn step(subject: &Subject<'_>, share: f64) -> ounce_plan::recipe::Step {
    let limits = limits(subject);
    let mut step = subject.step("prune", [("ratio", Value::Float(share))]);
    if !limits.heads {
        step.flags.insert("method".to_owned(), Value::String("channels".to_owned()));
        step.flags.insert("multiple".to_owned(), Value::Integer(limits.multiple as i64));
    }
    step
}

/// What the largest cut leaves, in the smallest format: whether it is expected to meet the budget. None where nothing can be cut.
/// Nothing is computed, for the shape says it.
///
/// # Errors
/// If a forecast fails.
pub fn smallest(subject: &Subject<'_>, asked: &Asked) -> anyhow::Result<Option<Candidate>> {
    let model = subject.model;
    let scores = Scores::zeros(&model.spec, true);
    let cut = SHARES.iter().rev().find_map(|&share| {
        let cut = choose(&model.spec, &scores, Target::Share(share), &limits(subject)).ok()?;
        Some((share, cut.apply(model).ok()?))
    });
    let Some((share, model)) = cut else { return Ok(None) };
    let base = Base::new(model, Some((step(subject, share), name(share))))?;
    let Some((format, plan, quantize)) = subject.smallest(&base) else { return Ok(None) };
    let kv = asked.kv.unwrap_or(KvType::Q8_0);
    let name = format!("{}, {format}", name(share));
    let (mut candidate, _) = subject.candidate(&base, name, Some(&plan), Some(kv), Some(quantize))?;
    candidate.judge(&asked.budget);
    Ok(Some(candidate))
}

fn name(share: f64) -> String {
    format!("{:.0} % cut", share * 100.0)
}

/// Adds candidates that are cut first; `time` is what trials may take. Gives the reason if nothing was cut.
///
/// # Errors
/// If a cut model can't be made or run, or the user stops the work.
pub fn add(
    subject: &mut Subject<'_>,
    trials: &Trials<'_>,
    asked: &Asked,
    ways: &mut Vec<Way>,
    time: Duration,
) -> anyhow::Result<Option<String>> {
    if best_loss(ways) == Some(0.0) {
        // The model meets the budget as it is.
        return Ok(None);
    }
    let model = subject.model;
    let learn = trials.learn();
    let limits = limits(subject);
    if let Err(error) =
        choose(&model.spec, &Scores::zeros(&model.spec, true), Target::Share(SHARES[0]), &limits)
            .and_then(|cut| cut.apply(model))
    {
        return Ok(Some(format!("nothing is cut: {error}")));
    }
    let wanted = BYTES * model.spec.parameters();
    if wanted > subject.memory() / 2 {
        let wanted = sizes_of::bytes(wanted);
        return Ok(Some(format!(
            "nothing is cut: finding what to cut wants {wanted} of memory, more than half of this machine's"
        )));
    }
    let share = if ways.iter().any(|it| it.candidate.fits()) { SHARE_OF_TIME } else { SHARE_IN_NEED };
    let too_long = |seconds: f64| {
        let wanted = sizes_of::time(seconds / share);
        (seconds > time.as_secs_f64() * share)
            .then(|| format!("nothing is cut: finding what to cut wants --time {wanted} or more"))
    };
    let tokens: usize = learn.iter().map(Vec::len).sum();
    if let Some(reason) = too_long(tokens as f64 * trials.pace() * GRADIENTS * ALL) {
        return Ok(Some(reason));
    }
    // One sequence says how long all of them take.
    let start = Instant::now();
    saliency::taylor(model, &learn[..1], false, &mut |_, _| Ok(()))?;
    if let Some(reason) = too_long(start.elapsed().as_secs_f64() * learn.len() as f64 * ALL) {
        return Ok(Some(reason));
    }
    let scores =
        with_bar("looking at gradients", |progress| saliency::taylor(model, learn, false, progress))?;
    for share in SHARES {
        let Ok(cut) = choose(&model.spec, &scores, Target::Share(share), &limits) else { break };
        let weights = with_bar("fitting what stays", |progress| {
            compensate::compensate(model, &cut, learn.to_vec(), progress)
        })?;
        let left = cut.apply(&Model { weights, ..model.clone() })?;
        if !bases::enter(subject, trials, asked, ways, left, (step(subject, share), name(share)))? {
            let first = share == SHARES[0];
            return Ok(first.then(|| {
                "nothing is cut: the least cut alone loses more than another that fits".to_owned()
            }));
        }
    }
    Ok(None)
}
