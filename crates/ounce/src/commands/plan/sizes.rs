//! Candidates in which each matrix has its own format, by sensitivity.

use ounce_compress::quantize::Plan;
use ounce_plan::search::{Basis, Expected};
use toml::Value;

use super::super::quantize::allocation::Budget;
use super::super::quantize::formats::FormatArgs;
use super::budget::Asked;
use super::candidates::{Subject, Way};
use super::trial::Trials;
use ounce_model::formats::WriteOptions;

/// Sizes that are looked at, in bits a weight.
const BITS: [f64; 14] = [2.4, 2.7, 3.0, 3.25, 3.5, 3.75, 4.0, 4.25, 4.5, 5.0, 5.5, 6.0, 6.5, 7.5];

/// How many of those that meet the budget are candidates, the largest.
const LARGEST: usize = 3;

/// Adds to the uniform candidates of a base what each is expected to lose, and the candidates by sensitivity: of those that meet the
/// budget the largest, and one that fills it.
///
/// # Errors
/// If a forecast fails.
pub fn add(
    subject: &Subject<'_>,
    trials: &Trials<'_>,
    asked: &Asked,
    base: usize,
    ways: &mut Vec<Way>,
) -> anyhow::Result<()> {
    let of = &subject.bases[base];
    let table = of.table.as_ref().unwrap_or_else(|| trials.table());
    // Errors of cutting and of rounding add up, as those of matrices do.
    let reckoned = |plan: &Plan| {
        let kl = of.kl + table.expected(plan)?;
        Some(Expected { kl, quality: None, basis: Basis::Sensitivities })
    };
    for way in ways.iter_mut() {
        let Some(plan) = &way.plan else { continue };
        way.candidate.expected = reckoned(plan);
    }
    let options = WriteOptions { overwrite: true, ..WriteOptions::default() };
    let planned = |budget: Budget| {
        // Sizes that this model's formats don't reach are no candidates.
        table.plan(&of.model, &of.units, &FormatArgs::default(), &subject.target, &options, budget).ok()
    };
    let mut made: Vec<Way> = Vec::new();
    let mut fitting = 0;
    for bits in BITS.into_iter().rev() {
        let Some(plan) = planned(Budget::BitsPerWeight(bits)) else { continue };
        let step = subject.quantize("bits-per-weight", Value::Float(bits));
        let before = made.len();
        subject.push(&mut made, base, format!("{bits} bits by sensitivity"), Some(plan), Some(step))?;
        made[before..].iter_mut().for_each(|it| it.candidate.judge(&asked.budget));
        if made[before..].iter().any(|it| it.candidate.fits()) {
            fitting += 1;
            if fitting == LARGEST {
                break;
            }
        } else {
            // What is too large says nothing that the uniform formats don't.
            made.truncate(before);
        }
    }
    if let Some(most) = room(&made, asked)
        && let Some(plan) = planned(Budget::Bytes(most))
    {
        let step = subject.quantize("bytes", Value::Integer(i64::try_from(most).unwrap_or(i64::MAX)));
        let name = "fills the budget, by sensitivity".to_owned();
        subject.push(&mut made, base, name, Some(plan), Some(step))?;
    }
    for mut way in made {
        way.candidate.judge(&asked.budget);
        way.candidate.expected = way.plan.as_ref().and_then(reckoned);
        ways.push(way);
    }
    Ok(())
}

/// The bytes of a file that fills the budget: those of the largest that meets it, and what it leaves of memory and disk.
/// Memory grows with the file a little faster than byte by byte, so that a part of the room stays.
fn room(made: &[Way], asked: &Asked) -> Option<u64> {
    const USED: f64 = 0.9;
    let best = made.iter().filter(|it| it.candidate.fits()).max_by_key(|it| it.candidate.costs.disk)?;
    let costs = &best.candidate.costs;
    let left = |limit: Option<u64>, value: u64| limit.map(|it| it.saturating_sub(value));
    let memory = left(asked.budget.memory, costs.memory);
    let disk = left(asked.budget.disk, costs.disk);
    let left = [memory, disk].into_iter().flatten().min()?;
    let more = (left as f64 * USED) as u64;
    (more > costs.disk / 100).then_some(costs.disk + more)
}
