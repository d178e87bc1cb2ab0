//! Passages found by the words of a query.

use std::collections::BTreeMap;

/// BM25 (Robertson and others, 1994) with its usual constants.
#[derive(Debug, Clone)]
pub struct Bm25 {
    /// How often a word stands in each passage that has it.
    words: BTreeMap<String, BTreeMap<usize, f64>>,
    lengths: Vec<f64>,
    mean: f64,
}

const SATURATION: f64 = 1.2;
const LENGTH: f64 = 0.75;

impl Bm25 {
    /// Of passages, in which words stand between spaces.
    pub fn new(passages: &[String]) -> Bm25 {
        let mut words: BTreeMap<String, BTreeMap<usize, f64>> = BTreeMap::new();
        let mut lengths = Vec::with_capacity(passages.len());
        for (number, passage) in passages.iter().enumerate() {
            for word in passage.split_whitespace() {
                *words.entry(word.to_string()).or_default().entry(number).or_default() += 1.0;
            }
            lengths.push(passage.split_whitespace().count() as f64);
        }
        let mean = lengths.iter().sum::<f64>() / lengths.len().max(1) as f64;
        Bm25 { words, lengths, mean }
    }

    /// Scores of all passages.
    pub fn scores(&self, query: &str) -> Vec<f64> {
        let mut scores = vec![0.0; self.lengths.len()];
        for word in query.split_whitespace() {
            let Some(places) = self.words.get(word) else { continue };
            let (all, with) = (self.lengths.len() as f64, places.len() as f64);
            let rare = ((all - with + 0.5) / (with + 0.5) + 1.0).ln();
            for (&number, &count) in places {
                let length = 1.0 - LENGTH + LENGTH * self.lengths[number] / self.mean;
                scores[number] += rare * count * (SATURATION + 1.0) / (count + SATURATION * length);
            }
        }
        scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_words_count_more_and_long_passages_less() {
        let passages = ["the cat sat", "the dog sat", "the dog sat on the cat and on the mat"];
        let known = Bm25::new(&passages.map(str::to_owned));
        let scores = known.scores("the cat");
        assert!(scores[0] > scores[2] && scores[2] > scores[1], "{scores:?}");
        assert_eq!(known.scores("nothing"), [0.0; 3]);
    }

    /// The formula, on a case by hand.
    #[test]
    fn bm25_weighs_rare_words_and_short_passages() {
        let passages = ["a b", "a c c d", "a d"].map(String::from);
        let found = Bm25::new(&passages).scores("a c");
        let of = |all: f64, with: f64, count: f64, length: f64| {
            ((all - with + 0.5) / (with + 0.5) + 1.0).ln() * count * 2.2
                / (count + 1.2 * (0.25 + 0.75 * length / (8.0 / 3.0)))
        };
        let expected =
            [of(3.0, 3.0, 1.0, 2.0), of(3.0, 3.0, 1.0, 4.0) + of(3.0, 1.0, 2.0, 4.0), of(3.0, 3.0, 1.0, 2.0)];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }
}
