//! Three labellers with mistakes of different kinds: two sets of rules, and a small model that learned from a few posts.

use std::collections::{BTreeMap, BTreeSet};

use super::texts::{HAVE, LABELS, NEED, NEITHER, OFFER, Post, REQUEST};
use crate::data::agreement::duplicates::normalised;

/// What they are called.
pub(super) const NAMES: [&str; 3] = ["keywords", "a part of the lexicon", "naive Bayes"];

/// The three.
pub(super) struct Labellers {
    bayes: Bayes,
}

impl Labellers {
    /// The third learns from these posts.
    pub fn new(seen: &[Post]) -> Labellers {
        Labellers { bayes: Bayes::new(seen) }
    }

    /// What each says of a post.
    pub fn votes(&self, text: &str) -> [usize; 3] {
        let text = format!(" {} ", normalised(text));
        [keywords(&text), part_of_the_lexicon(&text), self.bayes.label(&text)]
    }
}

/// Where the first of some words stands.
fn first(text: &str, words: &[&str]) -> Option<usize> {
    words.iter().filter_map(|word| text.find(&format!(" {word} "))).min()
}

/// Whichever is asked for or offered first.
fn nearer(request: Option<usize>, offer: Option<usize>) -> usize {
    match (request, offer) {
        (Some(request), Some(offer)) => {
            if offer < request {
                OFFER
            } else {
                REQUEST
            }
        }
        (Some(_), None) => REQUEST,
        (None, Some(_)) => OFFER,
        (None, None) => NEITHER,
    }
}

/// Knows every word for needing and having, but not what makes a post advice or out of date.
fn keywords(text: &str) -> usize {
    if first(text, &["praying", "heart", "officials", "no longer", "reports"]).is_some() {
        return NEITHER;
    }
    let asked =
        first(text, &NEED).into_iter().chain(first(text, &["wanted", "send", "anyone bring", "stuck"])).min();
    let offered = first(text, &HAVE).into_iter().chain(first(text, &["free", "available", "deliver"])).min();
    // "have no" begins as "have" does.
    nearer(asked, if text.contains(" have no ") { None } else { offered })
}

/// Knows near misses, and two of three words for needing and having.
fn part_of_the_lexicon(text: &str) -> usize {
    let near =
        ["praying", "heart", "officials", "no longer", "tip", "keep", "reports", "yesterday", "update"];
    if first(text, &near).is_some() {
        return NEITHER;
    }
    let known = |words: &[&'static str]| -> Vec<&'static str> {
        words.iter().enumerate().filter(|(at, _)| at % 3 > 0).map(|(_, word)| *word).collect()
    };
    let asked =
        first(text, &known(&NEED)).into_iter().chain(first(text, &["send", "bring", "help", "wanted"])).min();
    let offered = first(text, &known(&HAVE)).into_iter().chain(first(text, &["free", "happy"])).min();
    nearer(asked, offered)
}

/// Naive Bayes on words, with one added to every count.
struct Bayes {
    /// Logarithms of a word's part of each label's words.
    words: BTreeMap<String, [f64; 3]>,
    /// For words that were not seen.
    unknown: [f64; 3],
    prior: [f64; 3],
}

impl Bayes {
    fn new(seen: &[Post]) -> Bayes {
        let mut counts: BTreeMap<String, [f64; 3]> = BTreeMap::new();
        let (mut totals, mut posts) = ([0.0; 3], [1.0; 3]);
        for post in seen {
            posts[post.label] += 1.0;
            for word in words(&normalised(&post.text)) {
                counts.entry(word).or_insert([0.0; 3])[post.label] += 1.0;
                totals[post.label] += 1.0;
            }
        }
        let size = counts.len() as f64 + 1.0;
        let of = |label: usize, count: f64| ((count + 1.0) / (totals[label] + size)).ln();
        let all: f64 = posts.iter().sum();
        Bayes {
            unknown: std::array::from_fn(|label| of(label, 0.0)),
            words: counts
                .into_iter()
                .map(|(word, counts)| (word, std::array::from_fn(|label| of(label, counts[label]))))
                .collect(),
            prior: posts.map(|count| (count / all).ln()),
        }
    }

    fn label(&self, text: &str) -> usize {
        let mut scores = self.prior;
        for word in words(text) {
            let of = self.words.get(&word).unwrap_or(&self.unknown);
            scores.iter_mut().zip(of).for_each(|(score, of)| *score += of);
        }
        (0..LABELS.len()).fold(0, |best, label| if scores[label] > scores[best] { label } else { best })
    }
}

/// The different words of a text.
fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::super::texts::{TRAIN_EVENTS, posts};
    use super::*;

    #[test]
    fn labellers_are_right_mostly_and_wrong_differently() {
        let labellers = Labellers::new(&posts(80, TRAIN_EVENTS, 1));
        let posts = posts(2_000, TRAIN_EVENTS, 2);
        let votes: Vec<[usize; 3]> = posts.iter().map(|post| labellers.votes(&post.text)).collect();
        for labeller in 0..3 {
            let right =
                votes.iter().zip(&posts).filter(|(votes, post)| votes[labeller] == post.label).count();
            let part = right as f64 / posts.len() as f64;
            assert!((0.75..0.95).contains(&part), "{}: {part}", NAMES[labeller]);
        }
        let all_wrong = votes.iter().zip(&posts).filter(|(votes, post)| !votes.contains(&post.label)).count();
        assert!(all_wrong * 20 < posts.len(), "{all_wrong}");
    }
}
