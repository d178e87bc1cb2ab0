//! Learning with exploration.

use ounce_kernels::optimizer::adamw::AdamW;
use ounce_kernels::pool::Pool;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::bpr::{Slopes, accumulate};
use super::implicit::Choices;
use super::light_gcn::{self, Graph};
use super::table::{Growth, Learned, SparseTable};
use crate::{Error, Result};

/// How places are explored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exploration {
    /// Where weights enter.
    pub growth: Growth,
    /// `r₀`: the share of weights that leaves at first.
    pub first: f64,
    /// Whether that falls along half a cosine; else it stays.
    pub falls: bool,
    /// Steps from one exploration to the next.
    pub every: u64,
    /// Over how many batches before it gradients are summed.
    pub look: u64,
    /// The part of all steps after which places stay.
    pub until: f64,
}

impl Default for Exploration {
    fn default() -> Exploration {
        Exploration { growth: Growth::Gradient, first: 0.3, falls: true, every: 120, look: 30, until: 0.75 }
    }
}

impl Exploration {
    /// The share `r_t` of weights that leaves after `step` steps, if places are explored then.
    pub fn share(&self, step: u64, steps: u64) -> Option<f64> {
        let last = self.until * steps as f64;
        if step == 0 || !step.is_multiple_of(self.every.max(1)) || step as f64 >= last {
            return None;
        }
        let falling = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / last).cos());
        Some(if self.falls { self.first * falling } else { self.first })
    }

    /// Whether the batch of this step is one that an exploration looks at.
    fn looks(&self, step: u64, steps: u64) -> bool {
        let next = (step / self.every.max(1) + 1) * self.every.max(1);
        next - step <= self.look && self.share(next, steps).is_some()
    }
}

/// How a model learns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Width of embeddings.
    pub width: usize,
    /// The part of both tables' numbers that exists, above 0 and at most 1.
    pub density: f64,
    /// How their places are explored; none leaves them where they were at first.
    pub exploration: Option<Exploration>,
    /// Times that embeddings are spread along the graph of choices before they are compared (LightGCN); 0 for matrix factorisation.
    pub spread: usize,
    /// Passes over all choices.
    pub epochs: u64,
    /// Triples of a step.
    pub batch: usize,
    /// Learning rate of Adam.
    pub rate: f64,
    /// Weight decay, on the rows of a batch.
    pub decay: f32,
    /// First weights are drawn evenly from `±reach`.
    pub reach: f32,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            width: 64,
            density: 1.0,
            exploration: None,
            spread: 0,
            epochs: 60,
            batch: 1024,
            rate: 3e-3,
            decay: 5e-2,
            reach: 0.05,
            seed: 0,
        }
    }
}

/// A recommender, and what it took.
#[derive(Debug, Clone)]
pub struct Recommender {
    /// Vectors of users.
    pub users: Learned,
    /// Vectors of items.
    pub items: Learned,
    /// Products made while it learned.
    pub macs: u64,
    /// The fewest and the most weights that existed after any step.
    pub stored: [usize; 2],
    /// Steps of the optimizer so far.
    steps: u64,
    random: ChaCha8Rng,
}

impl Recommender {
    /// Weights in random places.
    ///
    /// # Errors
    /// If density or width is out of its range.
    pub fn new(choices: &Choices, options: &Options) -> Result<Recommender> {
        if !(options.density > 0.0 && options.density <= 1.0) {
            let found = options.density;
            return Err(Error::Option(format!("the density should be above 0 and at most 1, found {found}")));
        }
        if options.width == 0 || options.width > usize::from(u16::MAX) {
            let found = options.width;
            return Err(Error::Option(format!("the width should be from 1 to {}, found {found}", u16::MAX)));
        }
        let mut random = ChaCha8Rng::seed_from_u64(options.seed);
        let mut table = |rows: usize| {
            let count = (options.density * (rows * options.width) as f64).round() as usize;
            Learned::new(SparseTable::random(rows, options.width, count, options.reach, &mut random))
        };
        let (users, items) = (table(choices.seen.len()), table(choices.items));
        let stored = [users.table.stored() + items.table.stored(); 2];
        Ok(Recommender { users, items, macs: 0, stored, steps: 0, random })
    }

    /// Weights that exist.
    pub fn count(&self) -> usize {
        self.users.table.stored() + self.items.table.stored()
    }

    /// Keeps the largest weights, as many of each table as a density gives.
    pub fn prune(&mut self, density: f64) {
        for table in [&mut self.users, &mut self.items] {
            let all = table.table.rows() * table.table.width();
            table.prune((density * all as f64).round() as usize);
        }
        self.stored = [self.count(); 2];
    }

    /// Learns for `options.epochs`. `progress` is told the share that is done.
    ///
    /// # Errors
    /// If there are no choices, the loss is no number, or `progress` stops the work.
    pub fn learn(
        &mut self,
        choices: &Choices,
        options: &Options,
        progress: &mut dyn FnMut(f64) -> Result<()>,
    ) -> Result<()> {
        let batch = options.batch.max(1);
        let epoch = choices.count().div_ceil(batch) as u64;
        if epoch == 0 {
            return Err(Error::Option("there are no choices to learn from".into()));
        }
        let total = options.epochs * epoch;
        let mut slopes = Slopes::new(&self.users, &self.items);
        let graph = (options.spread > 0).then(|| Graph::new(choices, options.spread));
        let mut step = 0;
        for _ in 0..options.epochs {
            progress(step as f64 / total as f64)?;
            let triples = choices.epoch(&mut self.random);
            for own in triples.chunks(batch) {
                let looks = options
                    .exploration
                    .is_some_and(|it| it.growth == Growth::Gradient && it.looks(step, total));
                let (decay, slopes_now) = (options.decay, looks.then_some(&mut slopes));
                let Recommender { users, items, macs, .. } = self;
                let loss = match &graph {
                    Some(graph) => light_gcn::accumulate([users, items], graph, own, decay, slopes_now, macs),
                    None => accumulate(users, items, own, decay, slopes_now, macs),
                };
                if !loss.is_finite() {
                    return Err(Error::Option("the loss is no number; lower the learning rate".into()));
                }
                self.steps += 1;
                adam(&mut self.users, options.rate, self.steps);
                adam(&mut self.items, options.rate, self.steps);
                step += 1;
                if let Some((it, share)) =
                    options.exploration.and_then(|it| Some((it, it.share(step, total)?)))
                {
                    for (table, slopes) in
                        [(&mut self.users, &mut slopes.users), (&mut self.items, &mut slopes.items)]
                    {
                        let count = (share * table.table.stored() as f64) as usize;
                        table.explore(count, it.growth, slopes, &mut self.random);
                        slopes.fill(0.0);
                    }
                }
                self.stored = [self.stored[0].min(self.count()), self.stored[1].max(self.count())];
            }
        }
        progress(1.0)
    }
}

/// One step of Adam on what is stored; its gradient is zero afterwards.
fn adam(table: &mut Learned, rate: f64, step: u64) {
    let adam = AdamW { lr: rate, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, step };
    let Learned { table, gradient, m, v } = table;
    adam.update(Pool::global(), &mut table.values, gradient, m, v, 1.0);
    gradient.fill(0.0);
}
