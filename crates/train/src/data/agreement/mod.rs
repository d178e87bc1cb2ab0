//! Labels by several labellers: what they agree on is kept, the rest is for a person to decide.
//!
//! - [`decide`]: one text's votes to a verdict; [`stratified`]: which of the kept ones a person should look at.
//! - [`kappa`]: how far labellers agree beyond chance, and what an audit of a sample says of the whole.
//! - [`duplicates`]: texts that say the same nearly word by word, of which one is enough.

pub mod duplicates;
pub mod kappa;

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::{Error, Result};

/// What one labeller says of one text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vote {
    /// The label's number.
    pub label: usize,
    /// How sure the labeller is, 0 to 1, if it tells.
    pub confidence: Option<f64>,
}

/// When a label is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// The part of labellers that must give it: 1 for all.
    pub share: f64,
    /// Where not all give it: the mean confidence of those that do must be at least this. Who tells none counts as sure.
    pub confidence: f64,
}

impl Default for Rule {
    fn default() -> Rule {
        Rule { share: 1.0, confidence: 0.0 }
    }
}

impl Rule {
    /// Refuses parts that make no sense.
    ///
    /// # Errors
    /// If the share is not above a half and at most 1, or the confidence not from 0 to 1.
    pub fn check(self) -> Result<()> {
        // At a half or less two labels could win at once.
        if !(self.share > 0.5 && self.share <= 1.0) {
            return Err(Error::Settings(format!(
                "the part of labellers that must agree should be above 0.5 and at most 1, found {}",
                self.share
            )));
        }
        if !(0.0..=1.0).contains(&self.confidence) {
            return Err(Error::Settings(format!(
                "the least mean confidence should be from 0 to 1, found {}",
                self.confidence
            )));
        }
        Ok(())
    }
}

/// What comes of a text's votes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Verdict {
    /// The label that most give, the lower number among equals.
    pub label: usize,
    /// The part of labellers that give it.
    pub agreement: f64,
    /// Whether it is kept; else a person should decide.
    pub kept: bool,
}

/// The verdict on a text; none without votes.
pub fn decide(votes: &[Vote], rule: Rule) -> Option<Verdict> {
    let mut counts = BTreeMap::new();
    votes.iter().for_each(|vote| *counts.entry(vote.label).or_insert(0usize) += 1);
    let (label, count) = counts.into_iter().max_by(|(a, of_a), (b, of_b)| of_a.cmp(of_b).then(b.cmp(a)))?;
    let for_it = votes.iter().filter(|vote| vote.label == label);
    let confidence = for_it.map(|vote| vote.confidence.unwrap_or(1.0)).sum::<f64>() / count as f64;
    let agreement = count as f64 / votes.len() as f64;
    // Two of three fulfil a share that was written as 0.667.
    let enough = agreement + 1e-3 >= rule.share;
    let kept = count == votes.len() || (enough && confidence >= rule.confidence);
    Some(Verdict { label, agreement, kept })
}

/// A random sample with at most `each` of every label; the numbers of the chosen ones, ascending.
pub fn stratified(labels: &[usize], each: usize, seed: u64) -> Vec<usize> {
    let mut by_label: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    labels.iter().enumerate().for_each(|(number, label)| by_label.entry(*label).or_default().push(number));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut chosen = Vec::new();
    for numbers in by_label.values_mut() {
        let (some, _) = numbers.partial_shuffle(&mut random, each);
        chosen.extend_from_slice(some);
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn votes(of: &[(usize, Option<f64>)]) -> Vec<Vote> {
        of.iter().map(|&(label, confidence)| Vote { label, confidence }).collect()
    }

    #[test]
    fn votes_decide_by_the_rule() {
        let two_thirds = Rule { share: 2.0 / 3.0, confidence: 0.6 };
        let all = Rule::default();
        let cases = [
            (vec![(1, None), (1, None), (1, None)], all, (1, 1.0, true)),
            (vec![(1, None), (1, None), (2, None)], all, (1, 2.0 / 3.0, false)),
            (vec![(1, None), (1, None), (2, None)], two_thirds, (1, 2.0 / 3.0, true)),
            (vec![(1, Some(0.5)), (1, Some(0.6)), (2, None)], two_thirds, (1, 2.0 / 3.0, false)),
            (vec![(1, Some(0.5)), (1, Some(0.7)), (2, None)], two_thirds, (1, 2.0 / 3.0, true)),
            // All together need no confidence.
            (vec![(0, Some(0.1)), (0, Some(0.1))], two_thirds, (0, 1.0, true)),
            (vec![(2, None), (1, None)], two_thirds, (1, 0.5, false)),
        ];
        for (given, rule, (label, agreement, kept)) in cases {
            let found = decide(&votes(&given), rule).expect("votes");
            assert_eq!(found, Verdict { label, agreement, kept }, "{given:?} by {rule:?}");
        }
        assert_eq!(decide(&[], all), None);
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        assert!(Rule { share: 0.5, confidence: 0.0 }.check().is_err());
        assert!(Rule { share: f64::NAN, confidence: 0.0 }.check().is_err());
        assert!(Rule { share: 0.7, confidence: 1.5 }.check().is_err());
        Rule { share: 0.667, confidence: 0.5 }.check().expect("sound");
    }

    #[test]
    fn a_sample_has_each_label_as_often() {
        let labels: Vec<usize> =
            (0..300).map(|n| usize::from(n % 10 == 0) + 2 * usize::from(n == 7)).collect();
        let chosen = stratified(&labels, 20, 5);
        let of = |label: usize| chosen.iter().filter(|&&number| labels[number] == label).count();
        assert_eq!((of(0), of(1), of(2)), (20, 20, 1));
        assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
        assert_ne!(chosen, stratified(&labels, 20, 6));
    }
}
