//! Measures sharing on drawings of 24 kinds: against networks that are pruned before training and narrower ones of as many stored numbers,
//! and whether its training hangs on the array's deviation.

use std::ops::Range;

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::mean_and_error;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::workbench::cosine;
use super::NUMBER;
use super::fold::Fold;
use super::mlp::{Mlp, deviation};
use super::scores::{Rank, greatest, masks};
use crate::Result;
use crate::diffusion::glyphs::{PIXELS, Prompt, SHAPES, STYLES};
use crate::diffusion::normal;

const MOMENTUM: f32 = 0.9;

/// Deviation of the array, where nothing else is said.
const SIGMA: f64 = 0.1;

/// Deviation of what is added to pixels from −1 to 1.
const NOISE: f32 = 0.4;

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

/// Images, `[count, PIXELS]`, with labels.
#[derive(Debug, Clone, Default)]
struct Images {
    pixels: Vec<f32>,
    labels: Vec<u32>,
}

impl Images {
    /// Shapes in any place and style; the label is the shape with the style.
    fn draw(count: usize, random: &mut ChaCha8Rng) -> Images {
        let mut images = Images::default();
        for _ in 0..count {
            let prompt = Prompt::random(random);
            let drawing = prompt.draw(random);
            let noise = normal(random, PIXELS);
            images.pixels.extend(drawing.iter().zip(noise).map(|(x, noise)| x + NOISE * noise));
            images.labels.push((prompt.shape * STYLES.len() + prompt.style) as u32);
        }
        images
    }

    fn batch(&self, count: usize, random: &mut ChaCha8Rng) -> Images {
        let mut batch = Images::default();
        for _ in 0..count {
            let at = random.random_range(0..self.labels.len());
            batch.pixels.extend(&self.pixels[at * PIXELS..(at + 1) * PIXELS]);
            batch.labels.push(self.labels[at]);
        }
        batch
    }
}

/// A way to store few numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Dense,
    /// A shared array of this deviation, with gradients scaled or not.
    Shared {
        sigma: f64,
        scaled: bool,
    },
    Pruned(Rank),
    /// Lottery tickets: trained, pruned by magnitude and rewound in turns, then trained from where they were rewound to.
    Tickets,
    Narrow,
}

const SHARED: Way = Way::Shared { sigma: SIGMA, scaled: true };

/// Ways that are compared at equal numbers.
const WAYS: [(&str, Way); 8] = [
    ("shared array", SHARED),
    ("narrower network", Way::Narrow),
    ("SynFlow", Way::Pruned(Rank::SynFlow)),
    ("SNIP", Way::Pruned(Rank::Snip)),
    ("GraSP", Way::Pruned(Rank::Grasp)),
    ("lottery tickets", Way::Tickets),
    ("magnitude at the start", Way::Pruned(Rank::Magnitude)),
    ("random weights left", Way::Pruned(Rank::Random)),
];

/// What weights are while they are trained.
enum Store {
    Masked(Option<Vec<Vec<bool>>>),
    Shared { fold: Fold, array: Vec<f32>, scaling: Option<Vec<f32>> },
}

struct Study<'s> {
    plan: &'s Plan,
    train: Images,
    test: Images,
    validation: Images,
}

/// The widths of as many layers with as many numbers at most, in the proportions of the whole network.
fn narrowed(widths: &[usize], most: usize) -> Vec<usize> {
    let of = |part: usize| -> Vec<usize> {
        let whole = widths[1];
        let inner = widths[1..widths.len() - 1].iter().map(|width| (width * part / whole).max(1));
        [widths[0]].into_iter().chain(inner).chain([widths[widths.len() - 1]]).collect()
    };
    let count = |widths: &[usize]| widths.windows(2).map(|pair| pair[0] * pair[1]).sum::<usize>();
    let best = (1..=widths[1]).rev().find(|&part| count(&of(part)) <= most).unwrap_or(1);
    of(best)
}

impl Study<'_> {
    fn widths(&self) -> Vec<usize> {
        let [first, second] = self.plan.hidden;
        vec![PIXELS, first, second, SHAPES.len() * STYLES.len()]
    }

    /// Trains, and gives the part of right labels and the numbers that are stored.
    fn run(&self, way: Way, compression: usize, rate: f64, seed: u64, judged: &Images) -> (f64, usize) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut mlp = Mlp::random(&self.widths(), &mut random);
        let keep = mlp.parameters() / compression;
        let mut store = match way {
            Way::Dense => Store::Masked(None),
            Way::Tickets => Store::Masked(None),
            Way::Narrow => {
                mlp = Mlp::random(&narrowed(&mlp.widths, keep), &mut random);
                Store::Masked(None)
            }
            Way::Pruned(rank) => {
                let batch = self.train.batch(240, &mut random);
                let known = (batch.pixels.as_slice(), batch.labels.as_slice());
                Store::Masked(Some(masks(rank, &mlp, keep, known, &mut random)))
            }
            Way::Shared { sigma, scaled } => {
                let matrices: Vec<(usize, f64)> = mlp
                    .weights
                    .iter()
                    .zip(&mlp.widths)
                    .map(|(it, &inputs)| (it.len(), deviation(inputs)))
                    .collect();
                let fold = Fold::new(&matrices, keep, sigma, seed);
                let array = fold.begin(&mlp.weights.iter().map(Vec::as_slice).collect::<Vec<_>>());
                let scaling = scaled.then(|| fold.scaling());
                Store::Shared { fold, array, scaling }
            }
        };
        if way == Way::Tickets {
            let Some(mask) = self.ticket(&mut mlp, keep, rate, &mut random) else { return (0.0, keep) };
            store = Store::Masked(Some(mask));
        }
        let stored = match &store {
            Store::Masked(None) => mlp.parameters(),
            Store::Masked(Some(mask)) => mask.iter().flatten().filter(|kept| **kept).count(),
            Store::Shared { array, .. } => array.len(),
        };
        let steps = if way == Way::Tickets { self.rewound()..self.plan.steps } else { 0..self.plan.steps };
        match self.train(&mut mlp, &mut store, rate, steps, &mut random) {
            true => (mlp.accuracy(&judged.pixels, &judged.labels), stored),
            false => (0.0, stored),
        }
    }

    /// Trains over these steps of the schedule; whether the loss stayed a number.
    fn train(
        &self,
        mlp: &mut Mlp,
        store: &mut Store,
        rate: f64,
        steps: Range<u64>,
        random: &mut ChaCha8Rng,
    ) -> bool {
        store.unfold(mlp);
        let size = match &*store {
            Store::Masked(_) => mlp.parameters(),
            Store::Shared { array, .. } => array.len(),
        };
        let mut velocity = vec![0.0f32; size];
        let schedule = cosine(rate, self.plan.steps);
        for step in steps {
            let batch = self.train.batch(self.plan.batch, random);
            let (loss, gradients) = mlp.gradients(&batch.pixels, &batch.labels);
            if !loss.is_finite() {
                return false;
            }
            store.step(mlp, &gradients, &mut velocity, schedule.rate(step) as f32);
        }
        true
    }

    /// The step to which tickets are rewound.
    fn rewound(&self) -> u64 {
        self.plan.steps / 20
    }

    /// A lottery ticket with rewinding (arXiv 1903.01611): the network trains a twentieth of the steps, which it is rewound to from then on;
    /// then it trains to the end, half of its weights leave by magnitude, and so on until `keep` are left. Leaves the network as it was then.
    fn ticket(
        &self,
        mlp: &mut Mlp,
        keep: usize,
        rate: f64,
        random: &mut ChaCha8Rng,
    ) -> Option<Vec<Vec<bool>>> {
        let mut store = Store::Masked(None);
        let kept = |ok: bool| ok.then_some(());
        kept(self.train(mlp, &mut store, rate, 0..self.rewound(), random))?;
        let begin = mlp.clone();
        let mut left = mlp.parameters();
        loop {
            kept(self.train(mlp, &mut store, rate, self.rewound()..self.plan.steps, random))?;
            left = (left / 2).max(keep);
            // What is out is zero, and so the smallest.
            let sizes: Vec<Vec<f32>> =
                mlp.weights.iter().map(|it| it.iter().map(|x| x.abs()).collect()).collect();
            let mask = greatest(&sizes, left);
            *mlp = begin.clone();
            if left == keep {
                return Some(mask);
            }
            store = Store::Masked(Some(mask));
        }
    }

    /// The rate that is best on validation images with another seed.
    fn rate(&self, way: Way, compression: usize, rates: &[f64], seed: u64) -> f64 {
        let mut best = (f64::NEG_INFINITY, rates[0]);
        for &rate in rates {
            let found = self.run(way, compression, rate, seed + 500, &self.validation).0;
            if found > best.0 {
                best = (found, rate);
            }
        }
        best.1
    }
}

impl Store {
    /// Gives the network its weights.
    fn unfold(&self, mlp: &mut Mlp) {
        match self {
            Store::Masked(None) => {}
            Store::Masked(Some(mask)) => {
                let weights = mlp.weights.iter_mut().flatten().zip(mask.iter().flatten());
                weights.filter(|(_, kept)| !**kept).for_each(|(x, _)| *x = 0.0);
            }
            Store::Shared { fold, array, .. } => {
                let mut rows: Vec<&mut [f32]> = mlp.weights.iter_mut().map(Vec::as_mut_slice).collect();
                fold.gather(array, &mut rows);
            }
        }
    }

    /// Gradient descent with momentum on what is stored.
    fn step(&mut self, mlp: &mut Mlp, gradients: &[Vec<f32>], velocity: &mut [f32], rate: f32) {
        let moved = |x: &mut f32, v: &mut f32, slope: f32| {
            *v = MOMENTUM * *v + slope;
            *x -= rate * *v;
        };
        match self {
            Store::Masked(_) => {
                let weights = mlp.weights.iter_mut().flatten().zip(velocity);
                weights.zip(gradients.iter().flatten()).for_each(|((x, v), g)| moved(x, v, *g));
            }
            Store::Shared { fold, array, scaling } => {
                let mut slope = vec![0.0; array.len()];
                fold.scatter(&gradients.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut slope);
                if let Some(scaling) = scaling {
                    slope.iter_mut().zip(scaling).for_each(|(slope, scaling)| *slope *= *scaling);
                }
                array.iter_mut().zip(velocity).zip(slope).for_each(|((x, v), slope)| moved(x, v, slope));
            }
        }
        self.unfold(mlp);
    }
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
        evidence.rows.push(
            Row::new(label)
                .with("stored numbers", stored as f64, "")
                .with("accuracy", mean, "%")
                .with("standard error", error, "points")
                .with("learning rate", rate, ""),
        );
        mean
    };
    tell(DENSE);
    let rate = study.rate(Way::Dense, 1, &plan.rates, seed);
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
            let rate = study.rate(way, compression, &plan.rates, seed);
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
    let plain = study.rate(Way::Shared { sigma: SIGMA, scaled: false }, 10, &lower, seed);
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
        "Pruned networks count only weights that are left, not where they are, which favours them. Lottery tickets (half of \
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

    #[test]
    fn narrower_networks_have_at_most_as_many_numbers() {
        let whole = [256, 384, 192, 24];
        for most in [200_000, 17_000, 1_800] {
            let found = narrowed(&whole, most);
            let count = |widths: &[usize]| widths.windows(2).map(|pair| pair[0] * pair[1]).sum::<usize>();
            assert!(count(&found) <= most, "{found:?}");
            let wider = [256, found[1] + 2, (found[1] + 2) / 2, 24];
            assert!(most == 200_000 || count(&wider) > most, "{found:?}");
        }
        assert_eq!(narrowed(&whole, 1_000_000), whole);
    }
}
