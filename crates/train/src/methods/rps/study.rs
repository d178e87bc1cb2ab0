//! The ways to store few numbers that are compared, and how each of them trains on drawings.

use std::ops::Range;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::workbench::cosine;
use super::demonstrate::Plan;
use super::fold::Fold;
use super::mlp::{Mlp, deviation};
use super::scores::{Rank, greatest, masks};
use crate::diffusion::glyphs::{PIXELS, Prompt, SHAPES, STYLES};
use crate::diffusion::normal;

const MOMENTUM: f32 = 0.9;

/// Deviation of the array, where nothing else is said.
pub(super) const SIGMA: f64 = 0.1;

/// Deviation of what is added to pixels from −1 to 1.
const NOISE: f32 = 0.4;

/// Images, `[count, PIXELS]`, with labels.
#[derive(Debug, Clone, Default)]
pub(super) struct Images {
    pixels: Vec<f32>,
    labels: Vec<u32>,
}

impl Images {
    /// Shapes in any place and style; the label is the shape with the style.
    pub fn draw(count: usize, random: &mut ChaCha8Rng) -> Images {
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
pub(super) enum Way {
    Dense,
    /// A shared array of this deviation, with gradients scaled or not.
    Shared {
        sigma: f64,
        scaled: bool,
    },
    Pruned {
        rank: Rank,
        /// Whether what is left is scaled, matrix by matrix, so that its results are as large as the whole network's at first. Networks that
        /// normalize, as those of these papers do, need no such thing.
        levelled: bool,
    },
    /// Lottery tickets: trained, pruned by magnitude and rewound in turns, then trained from where they were rewound to.
    Tickets,
    Narrow,
}

pub(super) const SHARED: Way = Way::Shared { sigma: SIGMA, scaled: true };

const fn pruned(rank: Rank) -> Way {
    Way::Pruned { rank, levelled: false }
}

/// Ways that are compared at equal numbers.
pub(super) const WAYS: [(&str, Way); 8] = [
    ("shared array", SHARED),
    ("narrower network", Way::Narrow),
    ("SynFlow", pruned(Rank::SynFlow)),
    ("SNIP", pruned(Rank::Snip)),
    ("GraSP", pruned(Rank::Grasp)),
    ("lottery tickets", Way::Tickets),
    ("magnitude at the start", pruned(Rank::Magnitude)),
    ("random weights left", pruned(Rank::Random)),
];

/// What weights are while they are trained.
enum Store {
    Masked(Option<Vec<Vec<bool>>>),
    Shared { fold: Fold, array: Vec<f32>, scaling: Option<Vec<f32>> },
}

pub(super) struct Study<'s> {
    pub plan: &'s Plan,
    pub train: Images,
    pub test: Images,
    pub validation: Images,
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
    pub fn run(&self, way: Way, compression: usize, rate: f64, seed: u64, judged: &Images) -> (f64, usize) {
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
            Way::Pruned { rank, levelled } => {
                let batch = self.train.batch(240, &mut random);
                let known = (batch.pixels.as_slice(), batch.labels.as_slice());
                let whole = levelled.then(|| mlp.sizes(&batch.pixels));
                let store = Store::Masked(Some(masks(rank, &mlp, keep, known, &mut random)));
                store.unfold(&mut mlp);
                if let Some(whole) = whole {
                    mlp.level(&batch.pixels, &whole);
                }
                store
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

    /// The rate that is best on validation images with another seed; what was pruned may be levelled, if that is better.
    pub fn tuned(&self, way: Way, compression: usize, rates: &[f64], seed: u64) -> (Way, f64) {
        let mut ways = vec![way];
        if let Way::Pruned { rank, .. } = way {
            ways.push(Way::Pruned { rank, levelled: true });
        }
        let mut best = (f64::NEG_INFINITY, (way, rates[0]));
        for way in ways {
            for &rate in rates {
                let found = self.run(way, compression, rate, seed + 500, &self.validation).0;
                if found > best.0 {
                    best = (found, (way, rate));
                }
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

#[cfg(test)]
mod tests {
    use super::*;

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
