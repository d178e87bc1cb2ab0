//! What was expected of MixDQ before measuring, and what came of it.

use ounce_eval::method::Evidence;
use ounce_train::diffusion::Denoiser;

use super::demonstrate::{
    CONTENT, ERROR, FILE, MIXED, NAIVE, ORIGINAL, RULE, SIMILARITY, SQNR_ONLY, TARGETS, UNIFORM, label,
};
use super::file;
use super::plan::{Plan, Side, Unit, total};
use super::search::allocate_group;
use super::table::Row as Sensitivities;

/// Layers of which every combination of bits is tried.
const FEW: usize = 8;

/// What a file may weigh.
pub(super) struct Budget {
    /// What does not depend on the bits of weights: scales, biases, norms, tables, the header.
    fixed: f64,
    weights: f64,
}

impl Budget {
    pub fn new(net: &Denoiser) -> Budget {
        let weights: usize = net.layers().iter().map(|layer| layer.weights()).sum();
        let layers = net.layers().len();
        let plan = Plan { weights: vec![4; layers], activations: vec![8; layers] };
        let weights = weights as f64;
        Budget { fixed: file::bytes(net, &plan).len() as f64 - weights / 2.0, weights }
    }

    /// Bytes at so many mean bits a weight.
    pub fn bytes(&self, bits: f64) -> f64 {
        self.fixed + self.weights * bits / 8.0
    }
}

/// Adds all expectations.
pub(super) fn check(evidence: &mut Evidence, table: &[Sensitivities], units: &[Unit], budget: &Budget) {
    first_token(evidence);
    for bits in TARGETS {
        order(evidence, bits);
    }
    brute_force(evidence, table, units);
    sizes(evidence, budget);
}

fn value(evidence: &Evidence, row: &str, name: &str) -> f64 {
    evidence.row(row).and_then(|row| row.get(name)).unwrap_or(f64::NAN)
}

fn first_token(evidence: &mut Evidence) {
    let [original, naive, rule] = [ORIGINAL, NAIVE, RULE].map(|row| value(evidence, row, CONTENT));
    let (lost, left) = (original - naive, original - rule);
    let recovered = 1.0 - left / lost;
    evidence.expect(
        "A8: the rule for the first token recovers at least 90 % of the content that is lost without it",
        format!("{lost:.2} points lost without, {left:.2} with it: {:.1} %", recovered * 100.0),
        lost > 0.0 && recovered >= 0.9,
    );
}

fn order(evidence: &mut Evidence, bits: f64) {
    let of = |evidence: &Evidence, name: &str| {
        [MIXED, SQNR_ONLY, UNIFORM].map(|what| value(evidence, &label(what, bits), name))
    };
    let content = of(evidence, CONTENT);
    evidence.expect(
        format!("W{bits} A8: on content MixDQ >= SQNR alone >= uniform, at equal size"),
        content.map(|it| format!("{it:.2} %")).join(", "),
        content.is_sorted_by(|a, b| a >= b),
    );
    let (error, alike) = (of(evidence, ERROR), of(evidence, SIMILARITY));
    evidence.expect(
        format!("W{bits} A8: and MixDQ is no worse than both on quality, by squared error and by SSIM"),
        format!(
            "{} and {}",
            error.map(|it| format!("{it:.4}")).join(", "),
            alike.map(|it| format!("{it:.3}")).join(", ")
        ),
        error[1..].iter().all(|&other| error[0] <= other)
            && alike[1..].iter().all(|&other| alike[0] >= other),
    );
}

/// The measured table of a few layers, allocated and tried in full.
fn brute_force(evidence: &mut Evidence, table: &[Sensitivities], units: &[Unit]) {
    let members: Vec<usize> = (0..FEW.min(units.len())).map(|at| at * units.len() / FEW).collect();
    let (mut equal, mut compared) = (0, 0);
    for step in 0..=24 {
        let (mean, tolerance) = (2.0 + 0.25 * f64::from(step), 0.02);
        let found = allocate_group(table, units, Side::Weights, &members, mean, tolerance, u64::MAX);
        let best = all_combinations(table, units, &members, mean, tolerance);
        let score = found.as_ref().map(|bits| score_of(table, &members, bits));
        compared += 1;
        equal += usize::from(match (score, best) {
            (Some(score), Some(best)) => (score - best).abs() <= 1e-9 * best.abs(),
            (None, None) => true,
            _ => false,
        });
    }
    evidence.expect(
        format!("the solver's result is that of trying all combinations, on {FEW} layers"),
        format!("{equal} of {compared} budgets"),
        equal == compared,
    );
}

fn score_of(table: &[Sensitivities], members: &[usize], bits: &[u32]) -> f64 {
    let own = |(&at, &bits): (&usize, &u32)| {
        table[at].scores.iter().find(|score| score.0 == bits).map_or(f64::NAN, |score| score.1)
    };
    members.iter().zip(bits).map(own).sum()
}

/// The best score of all combinations within the tolerance.
fn all_combinations(
    table: &[Sensitivities],
    units: &[Unit],
    members: &[usize],
    mean: f64,
    tolerance: f64,
) -> Option<f64> {
    let own: Vec<Unit> = members.iter().map(|&at| units[at].clone()).collect();
    let values = own.iter().map(|unit| unit.weights).sum::<u64>() as f64;
    let count: usize = members.iter().map(|&at| table[at].scores.len()).product();
    let mut best: Option<f64> = None;
    for mut number in 0..count {
        let mut choose = |&at: &usize| {
            let scores = &table[at].scores;
            let choice = scores[number % scores.len()];
            number /= scores.len();
            choice
        };
        let choices: Vec<(u32, f64)> = members.iter().map(&mut choose).collect();
        let bits: Vec<u32> = choices.iter().map(|choice| choice.0).collect();
        let taken = total(&bits, Side::Weights, &own) as f64 / values;
        let score: f64 = choices.iter().map(|choice| choice.1).sum();
        if (taken - mean).abs() <= tolerance && best.is_none_or(|best| score > best) {
            best = Some(score);
        }
    }
    best
}

fn sizes(evidence: &mut Evidence, budget: &Budget) {
    let mut away: f64 = 0.0;
    for bits in TARGETS {
        for what in [UNIFORM, SQNR_ONLY, MIXED] {
            let bytes = value(evidence, &label(what, bits), FILE) * 1024.0;
            away = away.max((bytes / budget.bytes(bits) - 1.0).abs());
        }
    }
    evidence.expect(
        "every file is within 2 % of its budget",
        format!("{:.2} % away at most", away * 100.0),
        away <= 0.02,
    );
}

/// What a reader must know.
pub(super) fn notes(evidence: &mut Evidence) {
    evidence.notes.extend([
        "Weights: symmetric, a grid for each output channel from its largest value, to the nearest; no calibration of rounding. \
         Activations: asymmetric, one static range a layer. Both simulated: rounded values computed with in f32, so that speed \
         and memory were not measured."
            .into(),
        "Equal size: the same mean bits of weights, and in the file the same 16-bit scales, biases, norms and tables. Uniform at \
         5 and 4 bits gives all layers 5 and 4; at 3.5 bits layers have 3 and 4 in turns. The others choose among the paper's \
         widths: 2, 4, 8 for the content group, 4, 8 for the quality group."
            .into(),
        "SQNR alone gives out bits over all layers by one measure and judges its plans by the same images as MixDQ.".into(),
        "Claims on SDXL-turbo, on memory and on time weren't measured.".into(),
    ]);
}
