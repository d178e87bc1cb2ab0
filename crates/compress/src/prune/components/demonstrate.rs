//! Sweeps a text encoder and a denoiser of glyphs that are trained for it, by five criteria, one by one and together.

use std::collections::HashMap;

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::mean_and_error;
use ounce_kernels::gemm::Compute;
use ounce_kernels::pool::Pool;
use ounce_train::diffusion::{Denoiser, Options, Reader, fit};
use ounce_train::graph::ops::Kernels;

use super::NUMBER;
use super::cliff::{Bench, Cliff, MOST, Pair};
use super::criterion::{CRITERIA, masked};
use super::pictures::{PARTS, Pictures};
use super::subject::Subject;
use crate::Result;
use crate::prune::gradual::packed::pack;
use crate::prune::workbench::listed;

/// The share of quality that may be lost.
const ALLOWED: f64 = 0.05;
/// Sparsities of the printed curves.
const CURVE: [f64; 7] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8];
/// Steps around cliffs in which a split is looked for.
const STEPS: [f64; 5] = [-0.15, -0.1, -0.05, 0.0, 0.05];
/// How far behind the cliff the fall is measured.
const BEHIND: f64 = 0.1;

/// How much is done.
pub(super) struct Plan {
    pub seeds: u64,
    pub network: Options,
    pub denoiser: fit::Options,
    pub reader: fit::Options,
    pub tolerance: f64,
}

impl Plan {
    fn full() -> Plan {
        Plan {
            seeds: 3,
            network: Options { width: 32, heads: 2, word_width: 32, blocks: 2, outlier: 1.0, text_layers: 2 },
            denoiser: fit::Options { steps: 900, drawings: 32, rate: 3e-3 },
            reader: fit::Options { steps: 500, drawings: 64, rate: 3e-3 },
            tolerance: 0.02,
        }
    }
}

/// The demonstration of the catalogue's entry.
pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, &Plan::full())
        .map_err(DemonstrationError::step(NUMBER, "sweeping a text encoder and a denoiser"))
}

/// What is found with one seed.
struct Found {
    whole: f64,
    /// Of each criterion, of text encoder and denoiser.
    cliffs: Vec<[Cliff; 2]>,
    curves: [Vec<f64>; 2],
    one_rate: Cliff,
    split: Pair,
    /// The share that one rate and the split lose on drawings with other noise.
    tested: [f64; 2],
    /// How much is lost a unit of sparsity before the denoiser's cliff and behind it.
    slopes: [f64; 2],
    /// Bytes of the split's matrices, one bit a weight and the values that stay, by dense ones.
    bytes: f64,
    weights: [u64; 2],
    evaluations: usize,
}

fn sweep(lab: &dyn Lab, plan: &Plan, net: &Denoiser, reader: &Reader, seed: u64, done: f64) -> Result<Found> {
    let pass = net.pass()?;
    let gradients = fit::gradients(net, 128, seed)?;
    let shown = Pictures::every(1, seed + 10);
    let new = |noise: u64| Pictures::new(&pass, reader, gradients.clone(), &shown, Pictures::every(1, noise));
    let mut pictures = new(seed + 20)?;
    let weights = [pictures.weights(0), pictures.weights(1)];
    let mut bench = Bench::new(&mut pictures, ALLOWED, plan.tolerance, seed)?;
    let magnitude = CRITERIA[0];
    let mut cliffs = Vec::new();
    for criterion in CRITERIA {
        lab.progress(&format!("seed {}: {}", seed, criterion.name()), done);
        cliffs.push([bench.cliff(criterion, &[0])?, bench.cliff(criterion, &[1])?]);
    }
    let curves = [bench.curve(magnitude, &[0], &CURVE)?, bench.curve(magnitude, &[1], &CURVE)?];
    let [text, denoiser] = cliffs[0].map(|cliff| cliff.sparsity);
    let one_rate = bench.cliff(magnitude, &[0, 1])?;
    // One rate for both is a split as well, and keeps to what is allowed.
    let same = Pair {
        sparsities: vec![one_rate.sparsity; 2],
        total: one_rate.sparsity,
        lost: bench.lost(magnitude, &[(0, one_rate.sparsity), (1, one_rate.sparsity)])?,
    };
    let split = bench.best_split(magnitude, &[(0, text), (1, denoiser)], &STEPS)?;
    let split = split.filter(|it| it.total > same.total).unwrap_or(same);
    let [at, behind] = [denoiser, (denoiser + BEHIND).min(MOST)];
    let lost = bench.curve(magnitude, &[1], &[at, behind])?;
    let slopes = [lost[0].max(0.0) / at.max(1e-9), (lost[1] - lost[0]) / (behind - at).max(1e-9)];
    let evaluations = bench.evaluations();
    drop(bench);
    let (mut packed, mut dense) = (0, 0);
    for (component, sparsity) in pictures.components().iter().zip(&split.sparsities) {
        let own: Vec<_> = component.matrices.iter().map(|&at| &pictures.matrices()[at]).collect();
        for values in masked(magnitude, &own, *sparsity)? {
            packed += pack(&values).len();
            dense += 4 * values.len();
        }
    }
    let mut fresh = new(seed + 30)?;
    let whole = fresh.items(&HashMap::new())?;
    let whole = fresh.quality(&mut whole.into_iter());
    let mut test = Bench::new(&mut fresh, ALLOWED, plan.tolerance, seed)?;
    let mut tested = [0.0; 2];
    for (lost, sparsities) in tested.iter_mut().zip([&[one_rate.sparsity; 2][..], &split.sparsities]) {
        *lost = test.lost(magnitude, &[(0, sparsities[0]), (1, sparsities[1])])?;
    }
    let bytes = packed as f64 / f64::from(dense.max(1) as u32);
    Ok(Found { whole, cliffs, curves, one_rate, split, tested, slopes, bytes, weights, evaluations })
}

pub(super) fn measure(lab: &dyn Lab, plan: &Plan) -> Result<Evidence> {
    // Short products: a second thread costs more than it gives.
    let on = Kernels { pool: Pool::single(), compute: Compute::default() };
    let mut reader = Reader::new(on, lab.seed() + 100);
    lab.progress("training the reader", 0.0);
    fit::reader(&mut reader, &plan.reader, lab.seed() + 100, &mut |_| ())?;
    let mut found = Vec::new();
    for number in 0..plan.seeds {
        let seed = lab.seed() + number;
        let done = |at: f64| 0.05 + 0.95 * (number as f64 + at) / plan.seeds as f64;
        let mut net = Denoiser::new(plan.network, on, seed);
        fit::denoiser(&mut net, &plan.denoiser, seed, &mut |step| {
            lab.progress(
                "training text encoder and denoiser",
                done(0.6 * step as f64 / plan.denoiser.steps as f64),
            );
        })?;
        found.push(sweep(lab, plan, &net, &reader, seed, done(0.7))?);
    }
    let mut evidence = Evidence::new(NUMBER, lab.seed(), "both at one rate, magnitude");
    rows(&mut evidence, &found);
    expect(&mut evidence, &found);
    let [text, denoiser] = found[0].weights;
    evidence.notes = vec![
        format!(
            "A text encoder of {text} weights and a denoiser of {denoiser} that draws 16 × 16 glyphs in two steps, trained together for {} steps of {} drawings; \
             {} seeds, each with networks of its own. Quality is the share of words that a reader finds, which was trained on drawings alone ({} of the whole \
             networks, on test noise). Every prompt once chooses; every prompt with other noise tests. Nothing is trained after pruning. {} measurements a seed.",
            plan.denoiser.steps,
            plan.denoiser.drawings,
            plan.seeds,
            listed(&found.iter().map(|it| it.whole).collect::<Vec<_>>()),
            found[0].evaluations,
        ),
        format!("A cliff is the largest sparsity at which at most {:.0} % of quality is lost, by bisection to {}.", ALLOWED * 100.0, plan.tolerance),
        "The distance of distributions of drawings (FID) and speed with sparse kernels weren't measured; all that the denoiser learns of a prompt goes through the text encoder.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn rows(evidence: &mut Evidence, found: &[Found]) {
    let both = |of: &dyn Fn(&Found) -> f64| mean_and_error(&found.iter().map(of).collect::<Vec<_>>());
    for (place, criterion) in CRITERIA.iter().enumerate() {
        for (part, (name, _)) in PARTS.iter().enumerate() {
            let (mean, error) = both(&|it| it.cliffs[place][part].sparsity);
            let [low, high] = [0, 1].map(|end| both(&|it| it.cliffs[place][part].interval[end]).0);
            evidence.rows.push(
                Row::new(format!("{name} alone, {}", criterion.name()))
                    .with("cliff", mean, "")
                    .with("standard error", error, "")
                    .with("low end", low, "")
                    .with("high end", high, ""),
            );
        }
    }
    let (mean, error) = both(&|it| it.one_rate.sparsity);
    evidence.rows.push(
        Row::new("both at one rate, magnitude")
            .with("cliff", mean, "")
            .with("standard error", error, "")
            .with("low end", both(&|it| it.one_rate.interval[0]).0, "")
            .with("high end", both(&|it| it.one_rate.interval[1]).0, "")
            .with("lost on test noise", both(&|it| it.tested[0]).0, ""),
    );
    let (mean, error) = both(&|it| it.split.total);
    evidence.rows.push(
        Row::new("both, best split, magnitude")
            .with("cliff", mean, "")
            .with("standard error", error, "")
            .with("lost on test noise", both(&|it| it.tested[1]).0, "")
            .with("of the text encoder", both(&|it| it.split.sparsities[0]).0, "")
            .with("of the denoiser", both(&|it| it.split.sparsities[1]).0, "")
            .with("bytes of dense matrices", both(&|it| it.bytes).0, ""),
    );
    for (at, sparsity) in CURVE.into_iter().enumerate() {
        evidence.rows.push(
            Row::new(format!("magnitude, {:.0} %", sparsity * 100.0))
                .with("lost by the text encoder", both(&|it| it.curves[0][at]).0, "")
                .with("lost by the denoiser", both(&|it| it.curves[1][at]).0, ""),
        );
    }
}

fn expect(evidence: &mut Evidence, found: &[Found]) {
    let each = |of: &dyn Fn(&Found) -> f64| found.iter().map(of).collect::<Vec<_>>();
    let mean = |of: &dyn Fn(&Found) -> f64| mean_and_error(&each(of)).0;
    let cliff = |criterion: usize, part: usize| mean(&|it| it.cliffs[criterion][part].sparsity);
    evidence.expect(
        "the text encoder stands at least the denoiser's sparsity (magnitude)",
        format!("{:.3} against {:.3}", cliff(0, 0), cliff(0, 1)),
        cliff(0, 0) >= cliff(0, 1),
    );
    let slopes = [0, 1].map(|side| mean(&|it| it.slopes[side]));
    evidence.expect(
        "the denoiser's curve is flat and then falls: at least five times as steep behind the cliff as before it",
        format!("{:.2} against {:.2} of the quality a unit of sparsity", slopes[1], slopes[0]),
        slopes[1] >= 5.0 * slopes[0],
    );
    evidence.expect(
        "a split by component reaches a higher total sparsity than one rate, within the same loss",
        format!(
            "{} against {}",
            listed(&each(&|it| it.split.total)),
            listed(&each(&|it| it.one_rate.sparsity))
        ),
        found.iter().all(|it| it.split.total > it.one_rate.sparsity),
    );
    evidence.expect(
        "on other noise, the split still loses at most 5 % of the quality",
        listed(&each(&|it| it.tested[1])),
        found.iter().all(|it| it.tested[1] <= ALLOWED),
    );
    evidence.expect(
        "magnitude stands at least twice the sparsity of chance, in both components",
        format!(
            "{:.3} and {:.3} against {:.3} and {:.3}",
            cliff(0, 0),
            cliff(0, 1),
            cliff(4, 0),
            cliff(4, 1)
        ),
        (0..2).all(|part| cliff(0, part) >= 2.0 * cliff(4, part)),
    );
    evidence.expect(
        "in the denoiser magnitude stands at least as much as Wanda, as the paper finds",
        format!(
            "{:.3} against {:.3}; Taylor {:.3}, magnitude with one threshold {:.3}",
            cliff(0, 1),
            cliff(2, 1),
            cliff(3, 1),
            cliff(1, 1)
        ),
        cliff(0, 1) >= cliff(2, 1),
    );
}
