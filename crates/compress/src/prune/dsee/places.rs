//! Where a change has free entries.

use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use crate::lowrank::svd::{factors, product};
use crate::prune::lowest;

/// How places are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// Those that a sparse matrix beside a low-rank one needs.
    Decomposed,
    /// Any, for comparison.
    Random,
}

/// Turns of the decomposition.
const TURNS: usize = 4;

/// `count` places of `w`, `[rows, columns]`, ascending, each `row · columns + column`.
///
/// # Errors
/// In one sentence, if a value is no number.
pub fn places(
    w: &[f32],
    (rows, columns): (usize, usize),
    rank: usize,
    count: usize,
    support: Support,
    random: &mut ChaCha8Rng,
) -> Result<Vec<u32>, String> {
    let count = count.min(w.len());
    let mut found: Vec<u32> = match support {
        Support::Random => index::sample(random, w.len(), count).into_iter().map(|at| at as u32).collect(),
        Support::Decomposed => {
            let mut rest = w.to_vec();
            let mut sparse: Vec<usize> = Vec::new();
            for _ in 0..TURNS {
                let found = factors(&rest, rows, columns, rank.min(rows.min(columns)), None)?;
                let smooth = product(&found.expand, &found.reduce, rows, found.rank, columns);
                let left: Vec<f32> = w.iter().zip(&smooth).map(|(w, smooth)| -(w - smooth).abs()).collect();
                sparse = lowest(&left, count);
                // What the sparse part takes is no longer the low-rank part's.
                rest.copy_from_slice(w);
                sparse.iter().for_each(|at| rest[*at] = smooth[*at]);
            }
            sparse.into_iter().map(|at| at as u32).collect()
        }
    };
    found.sort_unstable();
    Ok(found)
}
