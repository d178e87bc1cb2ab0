//! Texts that are the same, or nearly: MinHash with bands (Broder 1997) finds candidates, their Jaccard similarity decides.

use std::collections::{HashMap, HashSet};

use crate::data::mix;

/// Characters of a shingle. Short, because posts are: one other word in ten leaves most of them.
const SHINGLE: usize = 4;
/// Bands, and minima of a band. A pair of similarity 0.8 shares a band with probability 0.9998, one of 0.3 with 0.12.
const BANDS: usize = 16;
const ROWS: usize = 4;

/// The text without what posts differ by without saying anything else: case, links, who is spoken to, blanks.
pub fn normalised(text: &str) -> String {
    let noise =
        |word: &&str| !(word.starts_with('@') || word.starts_with("http://") || word.starts_with("https://"));
    text.to_lowercase().split_whitespace().filter(noise).collect::<Vec<_>>().join(" ")
}

/// Hashes of all runs of four characters of a normalised text, sorted; of the whole if it is shorter.
fn shingles(text: &str) -> Vec<u64> {
    let characters: Vec<u64> = text.chars().map(|it| u64::from(u32::from(it))).collect();
    let length = SHINGLE.min(characters.len().max(1));
    let hash = |run: &[u64]| run.iter().fold(run.len() as u64, |hash, &it| mix(hash, it));
    let mut all: Vec<u64> = characters.windows(length).map(hash).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The part of two sorted sets that is in both.
fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let (mut i, mut j, mut both) = (0, 0, 0usize);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, both) = (i + 1, j + 1, both + 1),
        }
    }
    let any = a.len() + b.len() - both;
    if any == 0 { 1.0 } else { both as f64 / any as f64 }
}

/// How alike two texts are: the Jaccard similarity of their runs of four characters, normalised before.
pub fn similarity(a: &str, b: &str) -> f64 {
    jaccard(&shingles(&normalised(a)), &shingles(&normalised(b)))
}

/// For each text the number of an earlier one that it repeats, if there is one: with a similarity of at least `threshold`.
/// Only texts that repeat none are compared with, so that chains of small changes do not swallow everything.
pub fn repeated<T: AsRef<str>>(texts: &[T], threshold: f64) -> Vec<Option<usize>> {
    let mut exact: HashMap<String, usize> = HashMap::new();
    let mut bands: HashMap<(usize, u64), Vec<usize>> = HashMap::new();
    let mut kept: Vec<Vec<u64>> = Vec::with_capacity(texts.len());
    let mut found = Vec::with_capacity(texts.len());
    for (number, text) in texts.iter().enumerate() {
        let text = normalised(text.as_ref());
        if let Some(&first) = exact.get(&text) {
            found.push(Some(first));
            kept.push(Vec::new());
            continue;
        }
        let own = shingles(&text);
        let keys: Vec<(usize, u64)> = (0..BANDS).map(|band| (band, band_of(&own, band))).collect();
        let mut seen = HashSet::new();
        let candidates = keys.iter().filter_map(|key| bands.get(key)).flatten().copied();
        let near = |other: &usize| seen.insert(*other) && jaccard(&own, &kept[*other]) >= threshold;
        let earlier = candidates.filter(near).min();
        if earlier.is_none() {
            exact.insert(text, number);
            keys.into_iter().for_each(|key| bands.entry(key).or_default().push(number));
        }
        kept.push(if earlier.is_none() { own } else { Vec::new() });
        found.push(earlier);
    }
    found
}

/// A band's minima in one number.
fn band_of(shingles: &[u64], band: usize) -> u64 {
    (0..ROWS).fold(0, |key, row| {
        let salt = (band * ROWS + row + 1) as u64;
        let least = shingles.iter().map(|&it| mix(it, salt)).min().unwrap_or(0);
        mix(key, least)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_else_is_left_out() {
        assert_eq!(normalised("  @Anna Water   NEEDED https://t.co/x "), "water needed");
        assert_eq!(similarity("Water needed!", "@you water needed!"), 1.0);
        assert!(similarity("water needed at the school", "blankets to give away") < 0.1);
        assert_eq!(similarity("", ""), 1.0);
    }

    /// Bands against comparing each with each.
    #[test]
    fn repeats_are_those_of_all_pairs() {
        let words =
            ["water", "food", "boats", "tents", "school", "bridge", "river", "church", "please", "urgent"];
        let text = |n: usize| -> String {
            let pick = |place: usize| words[(n / 3 * 7 + place * 3 + n / 3 * place) % words.len()];
            let end = ["", " now", " http://a.b"][n % 3];
            format!(
                "we are at the {} and the {} by the {} near the {}{end}",
                pick(1),
                pick(2),
                pick(5),
                pick(3)
            )
        };
        let texts: Vec<String> = (0..120).map(text).collect();
        let found = repeated(&texts, 0.8);
        let mut alone: Vec<usize> = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            let earlier: Vec<usize> =
                alone.iter().copied().filter(|&other| similarity(text, &texts[other]) >= 0.8).collect();
            match found[number] {
                Some(of) => assert!(earlier.contains(&of), "{text:?} repeats {:?}", texts[of]),
                None => {
                    assert!(earlier.is_empty(), "{text:?} repeats {:?}", texts[earlier[0]]);
                    alone.push(number);
                }
            }
        }
        assert!(alone.len() > 5 && alone.len() < 100, "{}", alone.len());
    }
}
