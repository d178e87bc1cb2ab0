//! Paragraphs found by headings: by words, or by vectors.

use ounce_model::Model;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::embedder::Embedder;
use crate::data::{BatchSource, Position};
use crate::{Batch, Result};

/// Those among which the right one must be.
pub(super) const AMONG: usize = 10;

/// The part of queries whose passage, the one with the same number, is among the ten that score highest, in per cent.
/// `score` gives a query's scores of all passages.
pub(super) fn recall(queries: usize, mut score: impl FnMut(usize) -> Vec<f64>) -> f64 {
    let mut found = 0;
    for query in 0..queries {
        let scores = score(query);
        // Who scores the same stands in front: nothing is won by giving all the same.
        let before =
            scores.iter().enumerate().filter(|&(at, it)| at != query && *it >= scores[query]).count();
        found += usize::from(before < AMONG);
    }
    100.0 * found as f64 / queries.max(1) as f64
}

/// Recall with an encoder's vectors.
pub(super) fn by_vectors(model: &Model, queries: &[Vec<u32>], passages: &[Vec<u32>]) -> Result<f64> {
    let mut embedder = Embedder::new(model)?;
    let mut vectors = |of: &[Vec<u32>]| -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for some in of.chunks(32) {
            all.extend(embedder.vectors(&Batch::untold(some))?);
        }
        Ok(all)
    };
    let (asked, known) = (vectors(queries)?, vectors(passages)?);
    let width = known.len() / passages.len().max(1);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    Ok(recall(queries.len(), |query| {
        let query = &asked[query * width..][..width];
        known.chunks_exact(width).map(|passage| dot(query, passage)).collect()
    }))
}

/// Headings with their paragraphs, in batches: first all headings, then all paragraphs.
pub(super) struct Pairs {
    pairs: Vec<(Vec<u32>, Vec<u32>)>,
    size: usize,
    random: ChaCha8Rng,
    order: Vec<usize>,
}

impl Pairs {
    pub fn new(pairs: Vec<(Vec<u32>, Vec<u32>)>, size: usize, seed: u64) -> Pairs {
        Pairs { pairs, size, random: ChaCha8Rng::seed_from_u64(seed), order: Vec::new() }
    }
}

impl BatchSource for Pairs {
    fn next(&mut self) -> Result<Option<Batch>> {
        if self.order.len() < self.size {
            self.order = (0..self.pairs.len()).collect();
            self.order.shuffle(&mut self.random);
        }
        let drawn = self.order.split_off(self.order.len().saturating_sub(self.size));
        let first = drawn.iter().map(|&at| &self.pairs[at].0);
        Ok(Some(Batch::untold(first.chain(drawn.iter().map(|&at| &self.pairs[at].1)))))
    }

    fn position(&self) -> Position {
        Position::default()
    }

    fn seek(&mut self, _: &Position) -> Result<()> {
        Ok(())
    }

    fn tokens_per_epoch(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_one_must_be_among_ten() {
        let scores = |query: usize| {
            (0..30).map(|at| if at == query { 0.5 } else { f64::from(at as u32) / 20.0 }).collect()
        };
        // Above or at 0.5 are the numbers from 10 on: twenty of them, less oneself.
        assert_eq!(recall(30, scores), 0.0);
        let only = |query: usize| {
            (0..30).map(|at| f64::from(u8::from(at == query || at > 20 && query < 5))).collect()
        };
        assert!((recall(30, only) - 100.0).abs() < 1e-9);
        assert_eq!(recall(30, |_| vec![1.0; 30]), 0.0);
    }
}
