//! Bits where they matter: one choice for each unit, the least cost within a budget of bytes.
//!
//! This is MixDQ's allocation (Zhao et al., 2024, "MixDQ: Memory-Efficient Few-Step Text-to-Image Diffusion Models with
//! Metric-Decoupled Mixed Precision Quantization", section 3.3): binary `c[u, t]` with `Σ_t c[u, t] = 1`, the sum of
//! sensitivities least under `Σ c[u, t] · bytes[u, t] ≤ budget`, a multiple-choice knapsack. Where the paper hands it to
//! an integer-programming solver, it is solved here exactly: units are added one by one, of partial choices only those
//! stay that no other beats in both bytes and cost, and those that even the linear relaxation of the rest can't bring
//! below the best known answer are dropped.

/// A way to store a unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Bytes it takes.
    pub bytes: u64,
    /// What it costs, by any measure that adds up.
    pub cost: f64,
}

/// A partial choice: bytes and cost so far, the one it grew from, and the last unit's choice.
#[derive(Debug, Clone, Copy)]
struct State {
    bytes: u64,
    cost: f64,
    parent: u32,
    choice: u32,
}

/// The choice for each unit with the least total cost within `budget` bytes; none if even the smallest ones take more.
///
/// # Panics
/// If a unit has no choices, or a cost is no number.
pub fn allocate(units: &[Vec<Choice>], budget: u64) -> Option<Vec<usize>> {
    assert!(units.iter().all(|choices| !choices.is_empty()), "every unit has a choice");
    assert!(units.iter().flatten().all(|choice| !choice.cost.is_nan()), "costs are numbers");
    let rest = Relaxation::of_suffixes(units);
    if rest[0].smallest > budget {
        return None;
    }
    // A first answer: along the relaxation, as far as whole steps go.
    let known = greedy(units, budget);
    search(units, &rest, 0, budget, known)
}

/// The choice for each unit with the least total cost that takes from `least` to `most` bytes; none if no choice does.
/// Where a lower cost would take less than `least`, all sums of bytes that can come of the units are looked at: there
/// should not be very many.
///
/// # Panics
/// As [`allocate`].
pub fn allocate_between(units: &[Vec<Choice>], least: u64, most: u64) -> Option<Vec<usize>> {
    let chosen = allocate(units, most)?;
    let bytes: u64 = chosen.iter().zip(units).map(|(&choice, choices)| choices[choice].bytes).sum();
    if bytes >= least {
        return Some(chosen);
    }
    search(units, &Relaxation::of_suffixes(units), least, most, f64::INFINITY)
}

/// Adds unit by unit. `known` is the cost of an answer; `rest` belongs to `units`.
fn search(
    units: &[Vec<Choice>],
    rest: &[Relaxation],
    least: u64,
    budget: u64,
    known: f64,
) -> Option<Vec<usize>> {
    // A hair above the known answer is kept, for the rounding of sums: of costs as large as there are, since what is left of them in
    // the bounds may be nothing.
    let all: f64 = units.iter().map(|ways| ways.iter().map(|way| way.cost.abs()).fold(0.0, f64::max)).sum();
    let known = known + 1e-12 * all;
    let mut largest = vec![0; units.len() + 1];
    for (index, choices) in units.iter().enumerate().rev() {
        largest[index] = largest[index + 1] + choices.iter().map(|way| way.bytes).max().unwrap_or(0);
    }
    let mut stages: Vec<Vec<State>> = vec![vec![State { bytes: 0, cost: 0.0, parent: 0, choice: 0 }]];
    for (index, choices) in units.iter().enumerate() {
        let before = &stages[index];
        let mut grown = Vec::with_capacity(before.len() * choices.len());
        for (parent, state) in before.iter().enumerate() {
            for (choice, way) in choices.iter().enumerate() {
                let (bytes, cost) = (state.bytes + way.bytes, state.cost + way.cost);
                let bound = rest[index + 1].least_cost(budget, bytes).map(|bound| cost + bound);
                if bound.is_some_and(|bound| bound <= known) && bytes + largest[index + 1] >= least {
                    grown.push(State { bytes, cost, parent: parent as u32, choice: choice as u32 });
                }
            }
        }
        grown.sort_by(|a, b| a.bytes.cmp(&b.bytes).then(a.cost.total_cmp(&b.cost)));
        let (mut cheapest, mut last) = (f64::INFINITY, None);
        grown.retain(|state| {
            // What takes fewer bytes is better only where fewer are as good as more.
            let better = state.cost < cheapest || (least > 0 && last != Some(state.bytes));
            last = Some(state.bytes);
            cheapest = cheapest.min(state.cost);
            better
        });
        stages.push(grown);
    }
    let last = stages.last()?;
    let mut at = last.iter().enumerate().min_by(|a, b| a.1.cost.total_cmp(&b.1.cost))?.0;
    let mut chosen = vec![0; units.len()];
    for (index, chosen) in chosen.iter_mut().enumerate().rev() {
        let state = stages[index + 1][at];
        *chosen = state.choice as usize;
        at = state.parent as usize;
    }
    Some(chosen)
}

/// A step of the relaxation: so many bytes more for so much less cost.
#[derive(Debug, Clone, Copy)]
struct Step {
    bytes: u64,
    gain: f64,
}

impl Step {
    fn slope(&self) -> f64 {
        self.gain / self.bytes as f64
    }
}

/// The linear relaxation of some units: the least cost as a function of bytes, falling and convex.
struct Relaxation {
    smallest: u64,
    cost_of_smallest: f64,
    /// Sums of bytes and gains of the steps, the steepest first.
    steps: Vec<(u64, f64)>,
}

impl Relaxation {
    /// Of the units from each index on.
    fn of_suffixes(units: &[Vec<Choice>]) -> Vec<Relaxation> {
        (0..=units.len()).map(|from| Relaxation::of(&units[from..])).collect()
    }

    fn of(units: &[Vec<Choice>]) -> Relaxation {
        let (mut smallest, mut cost_of_smallest, mut steps) = (0, 0.0, Vec::new());
        for choices in units {
            let hull = hull(choices);
            smallest += hull[0].1.bytes;
            cost_of_smallest += hull[0].1.cost;
            steps.extend(hull.windows(2).map(|pair| Step {
                bytes: pair[1].1.bytes - pair[0].1.bytes,
                gain: pair[0].1.cost - pair[1].1.cost,
            }));
        }
        steps.sort_by(|a, b| b.slope().total_cmp(&a.slope()));
        let sums = steps.iter().scan((0u64, 0.0), |sum, step| {
            *sum = (sum.0 + step.bytes, sum.1 + step.gain);
            Some(*sum)
        });
        Relaxation { smallest, cost_of_smallest, steps: sums.collect() }
    }

    /// A bound of what these units cost when `used` bytes of the budget are gone; none if they don't fit.
    fn least_cost(&self, budget: u64, used: u64) -> Option<f64> {
        let room = budget.checked_sub(used)?.checked_sub(self.smallest)?;
        let whole = self.steps.partition_point(|step| step.0 <= room);
        let (bytes, gain) = whole.checked_sub(1).map_or((0, 0.0), |last| self.steps[last]);
        let part = self
            .steps
            .get(whole)
            .map_or(0.0, |next| (next.1 - gain) * ((room - bytes) as f64 / (next.0 - bytes) as f64));
        Some(self.cost_of_smallest - gain - part)
    }
}

/// The choices on the lower convex hull, by rising bytes, with their places.
fn hull(choices: &[Choice]) -> Vec<(usize, Choice)> {
    let mut sorted: Vec<(usize, Choice)> = choices.iter().copied().enumerate().collect();
    sorted.sort_by(|a, b| a.1.bytes.cmp(&b.1.bytes).then(a.1.cost.total_cmp(&b.1.cost)));
    let mut hull: Vec<(usize, Choice)> = Vec::new();
    for (place, choice) in sorted {
        if hull.last().is_some_and(|last| last.1.cost <= choice.cost) {
            continue;
        }
        let slope = |a: &Choice, b: &Choice| (a.cost - b.cost) / (b.bytes - a.bytes) as f64;
        while let [.., before, last] = hull.as_slice()
            && slope(&before.1, &last.1) <= slope(&last.1, &choice)
        {
            hull.pop();
        }
        hull.push((place, choice));
    }
    hull
}

/// The cost of an answer: the smallest choices, then whole steps of the hulls as long as they fit.
fn greedy(units: &[Vec<Choice>], budget: u64) -> f64 {
    let hulls: Vec<_> = units.iter().map(|choices| hull(choices)).collect();
    let mut at = vec![0; units.len()];
    let mut room = budget - hulls.iter().map(|hull| hull[0].1.bytes).sum::<u64>();
    let mut steps: Vec<(usize, usize, Step)> = Vec::new();
    for (unit, hull) in hulls.iter().enumerate() {
        for (index, pair) in hull.windows(2).enumerate() {
            let step =
                Step { bytes: pair[1].1.bytes - pair[0].1.bytes, gain: pair[0].1.cost - pair[1].1.cost };
            steps.push((unit, index, step));
        }
    }
    steps.sort_by(|a, b| b.2.slope().total_cmp(&a.2.slope()));
    for (unit, index, step) in steps {
        if at[unit] == index && step.bytes <= room {
            (at[unit], room) = (index + 1, room - step.bytes);
        }
    }
    hulls.iter().zip(at).map(|(hull, at)| hull[at].1.cost).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every combination.
    fn brute_force(units: &[Vec<Choice>], budget: u64) -> Option<f64> {
        brute_force_between(units, 0, budget)
    }

    fn brute_force_between(units: &[Vec<Choice>], least: u64, budget: u64) -> Option<f64> {
        let mut best: Option<f64> = None;
        let count: usize = units.iter().map(Vec::len).product();
        for mut number in 0..count {
            let (mut bytes, mut cost) = (0, 0.0);
            for choices in units {
                let choice = choices[number % choices.len()];
                number /= choices.len();
                (bytes, cost) = (bytes + choice.bytes, cost + choice.cost);
            }
            if (least..=budget).contains(&bytes) && best.is_none_or(|best| cost < best) {
                best = Some(cost);
            }
        }
        best
    }

    fn random(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        move |below| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 20) % below
        }
    }

    #[test]
    fn where_everything_fits_nothing_is_lost() {
        for seed in 0..300 {
            let mut next = random(seed + 1);
            let unit = |_| {
                let mut ways: Vec<Choice> =
                    (1..5).map(|bytes| Choice { bytes, cost: next(1000) as f64 / 7e5 }).collect();
                ways.push(Choice { bytes: 8, cost: 0.0 });
                ways
            };
            let units: Vec<Vec<Choice>> = (0..12).map(unit).collect();
            let chosen = allocate(&units, 8 * 12).unwrap();
            let cost: f64 = chosen.iter().zip(&units).map(|(&choice, ways)| ways[choice].cost).sum();
            assert_eq!(cost, 0.0, "seed {seed}");
        }
    }

    #[test]
    fn the_answer_is_that_of_brute_force() {
        for seed in 0..300 {
            let mut next = random(seed + 1);
            let units: Vec<Vec<Choice>> = (0..1 + next(8))
                .map(|_| {
                    let way = |_| Choice { bytes: 1 + next(40), cost: next(1000) as f64 / 7.0 };
                    (0..4).map(way).collect()
                })
                .collect();
            let budget = 5 + next(200);
            let found = allocate(&units, budget);
            let expected = brute_force(&units, budget);
            let cost = found.as_ref().map(|chosen| {
                let ways = chosen.iter().zip(&units).map(|(&choice, choices)| choices[choice]);
                let (bytes, cost) = ways.fold((0, 0.0), |sum, way| (sum.0 + way.bytes, sum.1 + way.cost));
                assert!(bytes <= budget);
                cost
            });
            match (cost, expected) {
                (Some(cost), Some(expected)) => {
                    assert!((cost - expected).abs() < 1e-9, "{seed}: {cost} {expected}")
                }
                (None, None) => {}
                other => panic!("{seed}: {other:?}"),
            }
        }
    }

    /// Scores to be made large, of any sign, in a narrow window.
    #[test]
    fn between_two_bounds_the_answer_is_that_of_brute_force() {
        let (mut found_some, mut found_none) = (0, 0);
        for seed in 0..300 {
            let mut next = random(seed + 1000);
            let units: Vec<Vec<Choice>> = (0..1 + next(8))
                .map(|_| {
                    let way = |_| Choice { bytes: 1 + next(40), cost: next(1000) as f64 / 7.0 - 70.0 };
                    (0..3).map(way).collect()
                })
                .collect();
            let least = 5 + next(200);
            let most = least + next(4);
            let found = allocate_between(&units, least, most);
            let expected = brute_force_between(&units, least, most);
            assert_eq!(found.is_some(), expected.is_some(), "{seed}");
            let (Some(found), Some(expected)) = (found, expected) else {
                found_none += 1;
                continue;
            };
            found_some += 1;
            let ways: Vec<Choice> = found.iter().zip(&units).map(|(&at, choices)| choices[at]).collect();
            let bytes: u64 = ways.iter().map(|way| way.bytes).sum();
            let cost: f64 = ways.iter().map(|way| way.cost).sum();
            assert!((least..=most).contains(&bytes) && (cost - expected).abs() < 1e-9, "{seed}: {cost}");
        }
        assert!(found_some > 50 && found_none > 50, "{found_some} {found_none}");
    }

    #[test]
    fn hundreds_of_units_are_no_trouble() {
        let mut next = random(5);
        let units: Vec<Vec<Choice>> = (0..400)
            .map(|_| {
                let size = 1000 + 16 * next(200);
                let weight = 1.0 + next(1000) as f64;
                (2..9)
                    .map(|bits| Choice { bytes: size * bits, cost: weight * 0.25f64.powi(bits as i32) })
                    .collect()
            })
            .collect();
        let smallest: u64 = units.iter().map(|choices| choices[0].bytes).sum();
        let chosen = allocate(&units, smallest * 2).unwrap();
        let bytes: u64 = chosen.iter().zip(&units).map(|(&choice, choices)| choices[choice].bytes).sum();
        assert!(bytes <= smallest * 2 && bytes + 4000 > smallest * 2, "{bytes} of {}", smallest * 2);
        assert!(allocate(&units, smallest - 1).is_none());
    }
}
