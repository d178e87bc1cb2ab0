//! Measures sharing on drawings of 24 kinds: against networks that are pruned before training and narrower ones of as many stored numbers,
//! and whether its training hangs on the array's deviation.

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::mean_and_error;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::NUMBER;
use super::study::{Images, SHARED, SIGMA, Study, WAYS, Way};
use crate::Result;
use crate::diffusion::glyphs::{SHAPES, STYLES};

const DENSE: &str = "all weights";

/// How much is done.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub seeds: u64,
    pub hidden: [usize; 2],
    pub steps: u64,
    pub batch: usize,
    pub train: usize,
    pub test: usize,
    pub compressions: Vec<usize>,
    pub rates: Vec<f64>,
    pub sigmas: Vec<f64>,
}

impl Plan {
    fn full() -> Plan {
        Plan {
            seeds: 3,
            hidden: [384, 192],
            steps: 250,
            batch: 64,
            train: 6000,
            test: 1500,
            compressions: vec![2, 10, 50, 100],
            rates: vec![0.03, 0.1, 0.3],
            sigmas: vec![1e-3, 1e-2, 1e-1, 1.0],
        }
    }
}

/// The demonstration of the catalogue's entry.
pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, &Plan::full()).map_err(DemonstrationError::step(NUMBER, "training on drawings"))
}

pub(super) fn measure(lab: &dyn Lab, plan: &Plan) -> Result<Evidence> {
    let mut random = ChaCha8Rng::seed_from_u64(lab.seed());
    let train = Images::draw(plan.train, &mut random);
    let validation = Images::draw(plan.test, &mut random);
    let test = Images::draw(plan.test, &mut random);
    let study = Study { plan, train, test, validation };
    let mut evidence = Evidence::new(NUMBER, lab.seed(), DENSE);
    let all = 2 + WAYS.len() * plan.compressions.len() + 2 * plan.sigmas.len();
    let mut done = 0;
    let mut tell = |what: &str| {
        lab.progress(what, done as f64 / all as f64);
        done += 1;
    };
    let seed = 1000 * lab.seed();
    // The mean of all seeds, as a row.
    let runs = |evidence: &mut Evidence, label: &str, way: Way, compression: usize, rate: f64| -> f64 {
        let mut stored = 0;
        let found: Vec<f64> = (0..plan.seeds)
            .map(|number| {
                let (accuracy, numbers) = study.run(way, compression, rate, seed + number, &study.test);
                stored = numbers;
                100.0 * accuracy
            })
            .collect();
        let (mean, error) = mean_and_error(&found);
        let mut row = Row::new(label)
            .with("stored numbers", stored as f64, "")
            .with("accuracy", mean, "%")
            .with("standard error", error, "points")
            .with("learning rate", rate, "");
        if let Way::Pruned { levelled, .. } = way {
            row = row.with("levelled", f64::from(u8::from(levelled)), "");
        }
        evidence.rows.push(row);
        mean
    };
    tell(DENSE);
    let rate = study.tuned(Way::Dense, 1, &plan.rates, seed).1;
    let dense = runs(&mut evidence, DENSE, Way::Dense, 1, rate);
    tell("shared array, 1 times fewer");
    let unshared = runs(&mut evidence, "shared array, 1 times fewer", SHARED, 1, rate);
    evidence.expect(
        "An array as large as the network is within 0.3 points of it.",
        format!("{unshared:.2} % against {dense:.2} %"),
        (unshared - dense).abs() <= 0.3,
    );
    let mut shared_rate = rate;
    for &compression in &plan.compressions {
        let mut found = Vec::new();
        for (name, way) in WAYS {
            let label = format!("{name}, {compression} times fewer");
            tell(&label);
            let (way, rate) = study.tuned(way, compression, &plan.rates, seed);
            if way == SHARED && compression == 10 {
                shared_rate = rate;
            }
            found.push(runs(&mut evidence, &label, way, compression, rate));
        }
        if compression >= 50 {
            let beaten = found[0] >= found[1] && found[0] >= found[2] && found[0] >= found[3];
            evidence.expect(
                format!("{compression} times fewer: the shared array is at least as accurate as a narrower network, SynFlow and SNIP."),
                format!("{:.2} % against {:.2} %, {:.2} % and {:.2} %", found[0], found[1], found[2], found[3]),
                beaten,
            );
            evidence.expect(
                format!("{compression} times fewer: the shared array is at least as accurate as GraSP and lottery tickets."),
                format!("{:.2} % against {:.2} % and {:.2} %", found[0], found[4], found[5]),
                found[0] >= found[4] && found[0] >= found[5],
            );
        }
    }
    let lower: Vec<f64> = [0.01, 0.1].iter().map(|by| by * plan.rates[0]).chain(plan.rates.clone()).collect();
    let plain = study.tuned(Way::Shared { sigma: SIGMA, scaled: false }, 10, &lower, seed).1;
    for (scaled, rate) in [(true, shared_rate), (false, plain)] {
        let name = if scaled { "scaled" } else { "not scaled" };
        let mut found = Vec::new();
        for &sigma in &plan.sigmas {
            let label = format!("shared array, 10 times fewer, gradients {name}, deviation {sigma}");
            tell(&label);
            found.push(runs(&mut evidence, &label, Way::Shared { sigma, scaled }, 10, rate));
        }
        let most = found.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let spread = most - found.iter().copied().fold(f64::INFINITY, f64::min);
        let said = found.iter().map(|it| format!("{it:.2} %")).collect::<Vec<_>>().join(", ");
        match scaled {
            true => evidence.expect(
                "With scaled gradients accuracies are within one point for all deviations of the array.",
                said,
                spread <= 1.0,
            ),
            false => evidence.expect(
                "Without scaling they are not: more than ten points apart, at the rate that is best for a deviation of 0.1.",
                said,
                spread > 10.0,
            ),
        }
    }
    evidence.notes = vec![
        format!(
            "Noisy drawings of 16 × 16 pixels, {} kinds in nine places; a network of two inner layers ({} and {} wide) without biases, {} steps of {} \
             drawings by SGD with momentum, means of {} seeds. Each way and size has the best of the rates {:?} on other drawings with another seed.",
            SHAPES.len() * STYLES.len(),
            plan.hidden[0],
            plan.hidden[1],
            plan.steps,
            plan.batch,
            plan.seeds,
            plan.rates
        ),
        "Pruned networks count only weights that are left, not where they are, which favours them. What is left of them may be scaled, matrix by \
         matrix, to the size of results before (levelled), if that is better on the other drawings: this network has no normalization, and GraSP keeps \
         what makes gradients, and so results, large. Lottery tickets (half of \
         the weights leave in each round, then the rest is rewound to a twentieth of the steps) take as many more trainings as there are rounds. \
         Sharing spares stored numbers, no operations."
            .into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

#[cfg(test)]
mod tests {
    use super::super::super::tiny::Desk;
    use super::*;

    #[test]
    fn a_small_run_gives_sound_evidence() {
        let plan = Plan {
            seeds: 1,
            hidden: [16, 8],
            steps: 6,
            batch: 8,
            train: 60,
            test: 30,
            compressions: vec![10, 50],
            rates: vec![0.03],
            sigmas: vec![0.01, 1.0],
        };
        let evidence = measure(&Desk, &plan).expect("measured");
        evidence.check().expect("sound");
        assert_eq!((evidence.rows.len(), evidence.expectations.len()), (22, 5));
        let stored =
            |label: &str| evidence.row(label).and_then(|row| row.get("stored numbers")).expect("there");
        assert_eq!(stored("shared array, 10 times fewer"), stored("SNIP, 10 times fewer"));
        assert!(stored("narrower network, 10 times fewer") <= stored("SNIP, 10 times fewer"));
        // An array without sharing is the network, up to rounding.
        assert!(evidence.expectations[0].holds, "{:?}", evidence.expectations[0]);
    }
}
