//! Generated choices of users among items: few items are popular, users have a few tastes, and the rest is chance.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::bpr::Triple;

/// How much is generated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    /// Users.
    pub users: usize,
    /// Items.
    pub items: usize,
    /// Genres that tastes are made of.
    pub genres: usize,
    /// Items that a user chooses, on average.
    pub choices: usize,
    /// How strongly tastes move choices, in nats.
    pub taste: f64,
    /// Popularity falls as this power of an item's rank.
    pub skew: f64,
}

/// Who chose what: most of it to learn from, the rest to be judged by.
#[derive(Debug, Clone)]
pub struct Choices {
    /// Of each user the items to learn from, ascending.
    pub seen: Vec<Vec<u32>>,
    /// Of each user the items held out, ascending.
    pub held_out: Vec<Vec<u32>>,
    /// Items in all.
    pub items: usize,
}

/// Of so many choices of a user, one is held out.
const HELD_OUT: usize = 5;

/// A standard normal number (Box and Muller).
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let (a, b): (f64, f64) = (random.random(), random.random());
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// `count` weights on different genres that add up to 1.
fn weights(random: &mut ChaCha8Rng, genres: usize, count: usize) -> Vec<f64> {
    let mut all: Vec<usize> = (0..genres).collect();
    all.shuffle(random);
    let mut out = vec![0.0; genres];
    let draws: Vec<f64> = (0..count).map(|_| 0.2 + random.random::<f64>()).collect();
    let sum: f64 = draws.iter().sum();
    all.iter().zip(draws).for_each(|(genre, draw)| out[*genre] = draw / sum);
    out
}

impl Choices {
    /// Item `i` has the popularity `rank_i^−skew` and one or two genres; a user has one to five genres that they like, and chooses without
    /// repeats, with probabilities `∝ popularity · e^(taste · genres + chance)`. Few users choose much: their numbers fall as a power too.
    pub fn generate(size: &Size, seed: u64) -> Choices {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut ranks: Vec<usize> = (1..=size.items).collect();
        ranks.shuffle(&mut random);
        let popularity: Vec<f64> = ranks.iter().map(|rank| -size.skew * (*rank as f64).ln()).collect();
        let genres: Vec<Vec<f64>> = (0..size.items)
            .map(|_| {
                let count = random.random_range(1..=2);
                weights(&mut random, size.genres, count)
            })
            .collect();
        // A power of the user's rank, scaled to the mean: the busiest choose some ten times what the median does.
        let mut activity: Vec<f64> =
            (1..=size.users).map(|rank| (rank as f64 / size.users as f64).powf(-0.4)).collect();
        activity.shuffle(&mut random);
        let mean = activity.iter().sum::<f64>() / size.users.max(1) as f64;
        let (mut seen, mut held_out) = (Vec::new(), Vec::new());
        for activity in activity {
            let count = random.random_range(1..=5);
            let taste = weights(&mut random, size.genres, count);
            let most = size.items / 4;
            let wanted =
                ((activity / mean * size.choices as f64).round() as usize).clamp(HELD_OUT.min(most), most);
            let mut scored: Vec<(f64, u32)> = (0..size.items)
                .map(|item| {
                    let likes: f64 = taste.iter().zip(&genres[item]).map(|(a, b)| a * b).sum();
                    // How well an item fits counts by its root: one of three tastes is worth more than a third.
                    let score = popularity[item] + size.taste * likes.sqrt() + 0.3 * normal(&mut random);
                    // Gumbel's trick: the highest are a draw without repeats.
                    let uniform: f64 = random.random::<f64>().max(1e-300);
                    (score - (-uniform.ln()).ln(), item as u32)
                })
                .collect();
            scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
            let mut chosen: Vec<u32> = scored[..wanted].iter().map(|it| it.1).collect();
            chosen.shuffle(&mut random);
            let mut later = chosen.split_off(chosen.len() - chosen.len() / HELD_OUT);
            chosen.sort_unstable();
            later.sort_unstable();
            seen.push(chosen);
            held_out.push(later);
        }
        Choices { seen, held_out, items: size.items }
    }

    /// Choices to learn from.
    pub fn count(&self) -> usize {
        self.seen.iter().map(Vec::len).sum()
    }

    /// How often each item was chosen, among those to learn from.
    pub fn popularity(&self) -> Vec<usize> {
        let mut counts = vec![0; self.items];
        self.seen.iter().flatten().for_each(|item| counts[*item as usize] += 1);
        counts
    }

    /// All choices once in a random order, each with an item that its user did not choose.
    pub fn epoch(&self, random: &mut ChaCha8Rng) -> Vec<Triple> {
        let mut all: Vec<Triple> = Vec::with_capacity(self.count());
        for (user, seen) in self.seen.iter().enumerate() {
            for chosen in seen {
                let other = loop {
                    let other = random.random_range(0..self.items as u32);
                    if seen.binary_search(&other).is_err() {
                        break other;
                    }
                };
                all.push([user as u32, *chosen, other]);
            }
        }
        all.shuffle(random);
        all
    }
}
