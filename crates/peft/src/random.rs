//! Numbers that adapters begin with, each from a stream that hangs on the seed and the weight's name.

use ounce_train::net::normal;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Uniform between `-limit` and `limit`.
pub(crate) fn uniform(limit: f32, count: usize, seed: u64, name: &str) -> Vec<f32> {
    // The stream of normal numbers is named by the same seed and name; a draw of it seeds this one.
    let first = normal(1.0, 1, seed, name)[0];
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ (u64::from(first.to_bits()) << 17));
    (0..count).map(|_| random.random_range(-limit..limit)).collect()
}

/// As `torch.nn.Linear` begins: Kaiming's bound with a slope of √5, `1/√inputs`.
pub(crate) fn kaiming(inputs: usize, count: usize, seed: u64, name: &str) -> Vec<f32> {
    uniform(1.0 / (inputs.max(1) as f32).sqrt(), count, seed, name)
}
