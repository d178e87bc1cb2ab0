//! How far an encoder's sentence vectors are from those of the original that it was made from.
//!
//! What counts for a user is what is found with them: the cosine of a text's two vectors, and for how many texts the
//! nearest of the others is still the same one.

use ounce_engine::{Engine, Error, Result};
use rayon::prelude::*;
use serde::Serialize;

/// A text as an encoder takes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ids {
    /// Token ids, special ones included.
    pub ids: Vec<u32>,
    /// Token types, one an id; empty for models without.
    pub types: Vec<u32>,
}

/// How vectors of texts differ.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Report {
    /// Texts compared.
    pub texts: usize,
    /// Mean of the cosine of a text's two vectors.
    pub mean_cosine: f64,
    /// The least of them.
    pub least_cosine: f64,
    /// Share of the texts whose nearest other text is the same by both models' vectors.
    pub same_nearest: f64,
}

/// Compares the vectors that two encoders give the same texts. `progress` is told how many vectors there are so far, and of
/// how many; it may stop the work.
///
/// # Errors
/// If there are fewer than two texts, a text does not fit the models, or `progress` stops the work.
pub fn compare(
    original: &Engine,
    model: &Engine,
    texts: &[Ids],
    mut progress: impl FnMut(usize, usize) -> Result<()>,
) -> Result<Report> {
    if texts.len() < 2 {
        return Err(Error::Unsuitable("sentence vectors are compared on two texts at least".to_string()));
    }
    let mut vectors = [Vec::new(), Vec::new()];
    let piece = rayon::current_num_threads().max(1) * 4;
    for (index, texts_here) in texts.chunks(piece).enumerate() {
        progress(2 * index * piece, 2 * texts.len())?;
        for (engine, vectors) in [original, model].into_iter().zip(&mut vectors) {
            let found: Result<Vec<Vec<f32>>> =
                texts_here.par_iter().map(|text| engine.embed(&text.ids, &text.types)).collect();
            vectors.extend(found?);
        }
    }
    progress(2 * texts.len(), 2 * texts.len())?;
    Ok(report(&vectors[0], &vectors[1]))
}

fn report(before: &[Vec<f32>], after: &[Vec<f32>]) -> Report {
    let cosine = |(a, b): (&Vec<f32>, &Vec<f32>)| cosine((a, norm(a)), (b, norm(b)));
    let own: Vec<f64> = before.iter().zip(after).map(cosine).collect();
    let (before, after) = (cosines(before), cosines(after));
    let same = (0..own.len()).filter(|&at| nearest(&before[at], at) == nearest(&after[at], at)).count();
    let count = own.len() as f64;
    Report {
        texts: own.len(),
        mean_cosine: own.iter().sum::<f64>() / count,
        least_cosine: own.iter().fold(f64::INFINITY, |least, &cosine| least.min(cosine)),
        same_nearest: same as f64 / count,
    }
}

/// Which other text is nearest to a text, by its cosines to all; the first of several.
fn nearest(cosines: &[f64], at: usize) -> Option<usize> {
    let others = cosines.iter().enumerate().filter(|it| it.0 != at);
    others.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|it| it.0)
}

/// Cosines of every vector to every other, 0 where one of the two is nothing but zeros.
pub fn cosines(vectors: &[impl AsRef<[f32]>]) -> Vec<Vec<f64>> {
    let measured: Vec<(&[f32], f64)> = vectors.iter().map(|it| (it.as_ref(), norm(it.as_ref()))).collect();
    measured.iter().map(|&a| measured.iter().map(|&b| cosine(a, b)).collect()).collect()
}

/// The cosine of two vectors with their norms.
fn cosine((a, norm_a): (&[f32], f64), (b, norm_b): (&[f32], f64)) -> f64 {
    let product = norm_a * norm_b;
    if product == 0.0 { 0.0 } else { dot(a, b) / product }
}

fn norm(x: &[f32]) -> f64 {
    dot(x, x).sqrt()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_and_neighbours_are_those_of_the_definition() {
        let before = vec![vec![1.0, 0.0], vec![0.9, 0.1], vec![0.0, 1.0], vec![0.2, 1.0]];
        let same = report(&before, &before);
        assert!((same.mean_cosine - 1.0).abs() < 1e-12 && same.same_nearest == 1.0);
        // The second turns from the first to the third: its neighbour and the first's change.
        let mut after = before.clone();
        after[1] = vec![0.1, 0.9];
        let found = report(&before, &after);
        let turned = 2.0 * 0.9 * 0.1 / (0.81 + 0.01);
        assert!((found.least_cosine - turned).abs() < 1e-6, "{found:?}");
        assert!((found.mean_cosine - (3.0 + turned) / 4.0).abs() < 1e-6);
        // Before 0-1, 1-0, 2-3, 3-2; after 0-3, 1-3 or 2, 2-1, 3-1.
        assert_eq!(found.same_nearest, 0.0);
    }
}
