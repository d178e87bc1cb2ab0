//! From sensitivities to a plan: an exact allocation in each group, the budget split between the groups in many ways, and
//! the best of the plans that come of it.
//!
//! Section 3.3: of binary `c[l, b]`, maximize `Σ c[l, b] s[l, b]` subject to `Σ_b c[l, b] = 1` and `Σ c[l, b] b w_l` within a
//! tolerance of the group's mean bits times `Σ w_l`. With `R` the content group's values by the quality group's and `k =
//! b_c / b_q`, a mean of `B` over both gives `b_q = B (1 + R) / (k R + 1)` and `b_c = k b_q`.

use super::plan::{Group, Plan, Side, Unit, total};
use super::table::{Originals, Row, Subject, squared_error};
use crate::quantize::allocate::{Choice, allocate_between};
use crate::{Error, Result};

/// How many splits and budgets are tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// The least and the largest ratio of the groups' bits.
    pub ratios: (f64, f64),
    /// Ratios between them, both included.
    pub splits: usize,
    /// Budgets, from the target down.
    pub budgets: usize,
    /// Bits from one to the next.
    pub step: f64,
    /// How far from its mean bits an allocation may be.
    pub tolerance: f64,
}

impl Default for Options {
    fn default() -> Options {
        Options { ratios: (0.46, 1.36), splits: 10, budgets: 10, step: 0.01, tolerance: 0.02 }
    }
}

impl Options {
    fn ratios(&self) -> impl Iterator<Item = f64> {
        let (from, to) = self.ratios;
        let steps = self.splits.max(2) - 1;
        (0..=steps).map(move |step| from + (to - from) * step as f64 / steps as f64)
    }

    fn budgets(&self, target: f64) -> impl Iterator<Item = f64> {
        let step = self.step;
        (0..self.budgets).map(move |number| target - step * number as f64)
    }
}

/// What the search found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The plan with the least error of the images.
    pub plan: Plan,
    /// That error, mean squared.
    pub error: f64,
    /// Different plans that were tried.
    pub candidates: usize,
}

/// Bits for the layers named by `members`, within the tolerance of `mean` and within `most` in all; none if no choice is.
pub fn allocate_group(
    table: &[Row],
    units: &[Unit],
    side: Side,
    members: &[usize],
    mean: f64,
    tolerance: f64,
    most: u64,
) -> Option<Vec<u32>> {
    let values: u64 = members.iter().map(|&at| units[at].values(side)).sum();
    let bound = |mean: f64| mean * values as f64;
    let choices = |&at: &usize| -> Vec<Choice> {
        let way = |&(bits, score): &(u32, f64)| Choice {
            bytes: u64::from(bits) * units[at].values(side),
            cost: -score,
        };
        table[at].scores.iter().map(way).collect()
    };
    let ways: Vec<Vec<Choice>> = members.iter().map(choices).collect();
    let least = bound(mean - tolerance).max(0.0).ceil() as u64;
    let most = (bound(mean + tolerance).max(0.0).floor() as u64).min(most);
    let chosen = allocate_between(&ways, least, most)?;
    Some(members.iter().zip(chosen).map(|(&at, choice)| table[at].scores[choice].0).collect())
}

/// Layers of each group: quality, content.
fn groups(units: &[Unit]) -> [Vec<usize>; 2] {
    [Group::Quality, Group::Content]
        .map(|group| (0..units.len()).filter(|&at| units[at].group == group).collect())
}

/// Plans with the groups apart, none above `target` mean bits on `side`; the other side is as in `base`.
pub fn decoupled(
    table: &[Row],
    units: &[Unit],
    side: Side,
    target: f64,
    base: &Plan,
    options: &Options,
) -> Vec<Plan> {
    let groups = groups(units);
    let [quality, content] =
        groups.each_ref().map(|group| group.iter().map(|&at| units[at].values(side)).sum::<u64>() as f64);
    let share = content / quality;
    let most = (target * (quality + content)).floor() as u64;
    let mut plans = Vec::new();
    for budget in options.budgets(target) {
        for ratio in options.ratios() {
            let first = budget * (1.0 + share) / (ratio * share + 1.0);
            let mut bits = vec![0; units.len()];
            let complete = groups.iter().zip([first, ratio * first]).all(|(members, mean)| {
                let found = allocate_group(table, units, side, members, mean, options.tolerance, most);
                let Some(found) = found else { return false };
                members.iter().zip(found).for_each(|(&at, own)| bits[at] = own);
                true
            });
            let plan = base.clone().with(side, bits);
            if complete && total(plan.side(side), side, units) <= most && !plans.contains(&plan) {
                plans.push(plan);
            }
        }
    }
    plans
}

/// Plans of one allocation over all layers, for one measure throughout; otherwise as [`decoupled`].
pub fn together(
    table: &[Row],
    units: &[Unit],
    side: Side,
    target: f64,
    base: &Plan,
    options: &Options,
) -> Vec<Plan> {
    let members: Vec<usize> = (0..units.len()).collect();
    let values: u64 = units.iter().map(|unit| unit.values(side)).sum();
    let most = (target * values as f64).floor() as u64;
    let mut plans = Vec::new();
    for budget in options.budgets(target) {
        if let Some(bits) = allocate_group(table, units, side, &members, budget, options.tolerance, most) {
            let plan = base.clone().with(side, bits);
            if !plans.contains(&plan) {
                plans.push(plan);
            }
        }
    }
    plans
}

/// The plan whose images differ least from the original's.
///
/// # Errors
/// If there is no plan, or the network can't be run.
pub fn best(
    subject: &mut dyn Subject,
    originals: &Originals,
    plans: Vec<Plan>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Found> {
    let candidates = plans.len();
    let mut best: Option<(f64, Plan)> = None;
    for (number, plan) in plans.into_iter().enumerate() {
        progress(number, candidates);
        let error = squared_error(&subject.images(&plan)?, &originals.images);
        if best.as_ref().is_none_or(|best| error < best.0) {
            best = Some((error, plan));
        }
    }
    let Some((error, plan)) = best else {
        return Err(Error::Option(
            "no choice of bits comes to this mean within the tolerance; name another mean, or allow more numbers of bits"
                .into(),
        ));
    };
    Ok(Found { plan, error, candidates })
}

/// The layers that lose most at their fewest bits, by a table of one measure: `share` of all, one at least. Their activations
/// stay as they are.
pub fn most_sensitive(table: &[Row], share: f64) -> Vec<usize> {
    let worst = |row: &Row| row.scores.iter().map(|score| score.1).fold(f64::INFINITY, f64::min);
    let mut order: Vec<usize> = (0..table.len()).collect();
    order.sort_by(|&a, &b| worst(&table[a]).total_cmp(&worst(&table[b])));
    order.truncate(((share * table.len() as f64).round() as usize).max(1));
    order
}
