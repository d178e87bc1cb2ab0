//! OFA (method 087): a model's vocabulary grows for other languages; new token vectors begin where word vectors that all languages share
//! say, and the table is stored as two thin matrices.
//!
//! "OFA: A Framework of Initializing Unseen Subword Embeddings for Efficient Large-scale Multilingual Continued Pretraining",
//! arXiv 2311.08849.
//!
//! - **Factors** (section 3.1): the source's table `E ≈ F P`, `F` `[V, D']` coordinates, `P` `[D', D]` primitives, by singular values.
//! - **Token vectors out of word vectors** (section 3.2): a token's vector is the mean of those of all words that are spelled with it.
//! - **Coordinates of new tokens** ([`coordinates`], section 3.3): a token that the source has keeps its own; another is the mean of its
//!   ten nearest source tokens' by `softmax(cos / τ)`, `τ = 0.1`; one without a vector is drawn from the mean and deviation of `F`.
//! - **Training goes on** with `F P` as table and as head; both learn. A table has `V D' + D' D` numbers in place of `V D`.
//!
//! The paper takes word vectors of 1,335 languages (ColexNet+). Here `words` makes them of small texts, and turns those of one language
//! into another's by a few known pairs. `study` is the training of the demonstration.

mod demonstrate;
mod languages;
mod study;
mod words;

use ounce_eval::method::{Family, Method};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const NUMBER: u16 = 87;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "OFA embeddings",
    family: Family::LowRank,
    paper: "OFA: A Framework of Initializing Unseen Subword Embeddings for Efficient Large-scale Multilingual Continued Pretraining",
    arxiv: Some("2311.08849"),
    gives: "New vocabulary entries start from aligned word vectors, and the grown embedding table is stored as two thin matrices.",
    claim: "Faster continued pretraining and better zero-shot transfer over 400k entries with tables of only 100 to 400 dimensions.",
    command: Some("ounce bench method 87"),
    demonstrate: Some(demonstrate::demonstrate),
};

/// What is known of a token of the new vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub enum NewToken {
    /// It is this token of the source.
    Same(usize),
    /// Its vector among the word vectors.
    Near(Vec<f32>),
    /// Nothing.
    Unknown,
}

/// Nearest tokens of the source that a new one is made of.
const NEIGHBOURS: usize = 10;

/// `τ`.
const TEMPERATURE: f64 = 0.1;

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-12)
}

/// A number of the standard normal distribution (Box–Muller).
fn standard(random: &mut ChaCha8Rng) -> f64 {
    let (a, b): (f64, f64) = (random.random(), random.random());
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// Coordinates of new tokens, `[tokens, width]`, from those of the source's, `[source tokens, width]`, whose vectors among the word
/// vectors are `known` where they have one.
pub fn coordinates(
    source: &[f32],
    width: usize,
    known: &[Option<Vec<f32>>],
    tokens: &[NewToken],
    seed: u64,
) -> Vec<f32> {
    let rows = (source.len() / width).max(1) as f64;
    let column = |at: usize| source.iter().skip(at).step_by(width).map(|x| f64::from(*x));
    let means: Vec<f64> = (0..width).map(|at| column(at).sum::<f64>() / rows).collect();
    let square = |at: usize| column(at).map(|x| (x - means[at]).powi(2)).sum::<f64>();
    let deviations: Vec<f64> = (0..width).map(|at| (square(at) / rows).sqrt()).collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut made = Vec::with_capacity(tokens.len() * width);
    for token in tokens {
        let near = match token {
            NewToken::Same(row) => {
                made.extend_from_slice(&source[row * width..(row + 1) * width]);
                continue;
            }
            NewToken::Near(vector) => nearest(vector, known),
            NewToken::Unknown => Vec::new(),
        };
        if near.is_empty() {
            let each = means.iter().zip(&deviations);
            made.extend(each.map(|(mean, deviation)| (mean + deviation * standard(&mut random)) as f32));
            continue;
        }
        let value = |at: usize| {
            near.iter().map(|(row, share)| share * f64::from(source[row * width + at])).sum::<f64>()
        };
        made.extend((0..width).map(|at| value(at) as f32));
    }
    made
}

/// The nearest tokens of the source with their shares, which are 1 together.
fn nearest(vector: &[f32], known: &[Option<Vec<f32>>]) -> Vec<(usize, f64)> {
    let mut near: Vec<(usize, f64)> =
        known.iter().enumerate().filter_map(|(row, it)| Some((row, cosine(vector, it.as_ref()?)))).collect();
    near.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    near.truncate(NEIGHBOURS);
    let top = near.first().map_or(0.0, |it| it.1);
    near.iter_mut().for_each(|(_, near)| *near = ((*near - top) / TEMPERATURE).exp());
    let all: f64 = near.iter().map(|it| it.1).sum();
    near.iter_mut().for_each(|(_, share)| *share /= all);
    near
}

#[cfg(test)]
mod tests {
    use super::super::tests::numbers;
    use super::*;

    #[test]
    fn new_tokens_are_copies_means_or_drawn() {
        let (rows, width) = (400, 3);
        let source: Vec<f32> = numbers(rows * width, 1).iter().map(|x| 0.5 + x).collect();
        let known: Vec<Option<Vec<f32>>> =
            (0..rows).map(|row| (row % 2 == 0).then(|| numbers(6, row as u64 + 9))).collect();
        let vector = numbers(6, 777);
        let mut tokens = vec![NewToken::Same(7), NewToken::Near(vector.clone())];
        tokens.extend(vec![NewToken::Unknown; 600]);
        let made = coordinates(&source, width, &known, &tokens, 5);
        assert_eq!(made.len(), 602 * width);
        assert_eq!(made[..width], source[7 * width..8 * width]);
        // The mean by hand.
        let mut near: Vec<(f64, usize)> = (0..rows)
            .step_by(2)
            .map(|row| (cosine(&vector, known[row].as_ref().expect("known")), row))
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        let weights: Vec<f64> = near[..10].iter().map(|it| (it.0 / 0.1).exp()).collect();
        for at in 0..width {
            let sum: f64 =
                near[..10].iter().zip(&weights).map(|(it, w)| w * f64::from(source[it.1 * width + at])).sum();
            let expected = sum / weights.iter().sum::<f64>();
            assert!((f64::from(made[width + at]) - expected).abs() < 1e-5);
        }
        // What is drawn has the mean and the deviation of the source's.
        let moments = |values: &[f32]| {
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            (mean, (values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / values.len() as f32).sqrt())
        };
        let (a, b) = (moments(&source), moments(&made[2 * width..]));
        assert!((a.0 - b.0).abs() < 0.05 && (a.1 - b.1).abs() < 0.05, "{a:?} {b:?}");
        // Without any known token all are drawn.
        let none = coordinates(&source, width, &vec![None; rows], &tokens[..2], 5);
        assert!(none.iter().all(|x| x.is_finite()));
    }
}
