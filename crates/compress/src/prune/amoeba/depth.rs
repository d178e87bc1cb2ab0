//! Which layers leave, for every number of them, by dynamic programming (section 4.1).
//!
//! `d[n][m]` is the best set of `m` layers among the first `n` that were considered: either that of `d[n − 1][m]`, or that of
//! `d[n − 1][m − 1]` with the `n`-th layer besides, whichever leaves the lower loss. Some `n · m` evaluations in the place of all
//! sets; exact where what layers are worth adds up, a heuristic where it doesn't, since a set is found without those that come later.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Layers that leave together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DepthSet {
    /// Their numbers, rising.
    pub removed: Vec<usize>,
    /// The loss without them, on calibration text.
    pub loss: f64,
}

/// The set of each size from 0 to `most`, of the candidates in the order in which they are considered. `evaluate` gives the loss without some
/// layers, whose numbers rise.
///
/// # Errors
/// If there are not so many candidates, a loss is no number, or `evaluate` fails.
pub fn choose(
    candidates: &[usize],
    most: usize,
    evaluate: &mut dyn FnMut(&[usize]) -> Result<f64>,
) -> Result<Vec<DepthSet>> {
    if most > candidates.len() {
        return Err(Error::Option(format!(
            "{most} layers can't leave where {} may; let fewer leave",
            candidates.len()
        )));
    }
    let mut judged = |removed: Vec<usize>| -> Result<DepthSet> {
        let loss = evaluate(&removed)?;
        match loss.is_finite() {
            true => Ok(DepthSet { removed, loss }),
            false => Err(Error::Option(format!(
                "the loss without layers {removed:?} is no number; the model's weights are damaged"
            ))),
        }
    };
    let mut table: Vec<Option<DepthSet>> = vec![None; most + 1];
    table[0] = Some(judged(Vec::new())?);
    for &layer in candidates {
        // From the top, so that the entry below is still that of the layers before.
        for count in (1..=most).rev() {
            let Some(fewer) = &table[count - 1] else { continue };
            let mut removed = fewer.removed.clone();
            let place = removed.partition_point(|&it| it < layer);
            removed.insert(place, layer);
            let found = judged(removed)?;
            if table[count].as_ref().is_none_or(|best| found.loss < best.loss) {
                table[count] = Some(found);
            }
        }
    }
    Ok(table.into_iter().flatten().collect())
}

/// The layers that may leave, in the order in which they are considered: from the last to the first, without the last `protected`.
pub fn candidates(layers: usize, protected: usize) -> Vec<usize> {
    (0..layers.saturating_sub(protected)).rev().collect()
}

/// For comparison: one layer after the other, each time the one without which the loss is lowest.
///
/// # Errors
/// As [`choose`].
pub fn greedy(
    candidates: &[usize],
    most: usize,
    evaluate: &mut dyn FnMut(&[usize]) -> Result<f64>,
) -> Result<Vec<DepthSet>> {
    let mut sets = choose(candidates, 0, evaluate)?;
    for _ in 0..most.min(candidates.len()) {
        let before = sets.last().map(|it| it.removed.clone()).unwrap_or_default();
        let mut best: Option<DepthSet> = None;
        for &layer in candidates.iter().filter(|layer| !before.contains(layer)) {
            let mut removed = before.clone();
            removed.push(layer);
            removed.sort_unstable();
            let loss = evaluate(&removed)?;
            if best.as_ref().is_none_or(|best| loss < best.loss) {
                best = Some(DepthSet { removed, loss });
            }
        }
        sets.extend(best);
    }
    Ok(sets)
}
