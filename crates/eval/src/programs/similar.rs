//! How like two pieces of code are: the idea of CodeBLEU (arXiv 2009.10297), smaller. The mean of BLEU-4 over tokens, of the same for
//! single tokens in which names of functions weigh five times as much, and of the part of the reference's brackets that the other
//! has. Data flow is left out: the language has no assignments.

use std::collections::BTreeMap;

/// Words that weigh more.
const KEYWORDS: [&str; 5] = ["min", "max", "abs", "sum", "if"];
const WEIGHT: f64 = 5.0;

/// Words, numbers and signs.
pub fn tokens(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut left = code;
    while let Some(first) = left.chars().next() {
        let whole =
            |same: fn(&char) -> bool| left.chars().take_while(same).map(char::len_utf8).sum::<usize>();
        let length = match first {
            c if c.is_alphabetic() => whole(|c| c.is_alphabetic()),
            c if c.is_ascii_digit() => whole(|c| c.is_ascii_digit()),
            c => c.len_utf8(),
        };
        if !first.is_whitespace() {
            found.push(&left[..length]);
        }
        left = &left[length..];
    }
    found
}

fn counts<'t>(tokens: &[&'t str], length: usize) -> BTreeMap<Vec<&'t str>, f64> {
    let mut counts = BTreeMap::new();
    for window in tokens.windows(length) {
        *counts.entry(window.to_vec()).or_insert(0.0) += 1.0;
    }
    counts
}

/// BLEU over runs of 1 to `longest` tokens, smoothed by one (Lin and Och, 2004) behind the first.
fn bleu(found: &[&str], reference: &[&str], longest: usize, weight: fn(&str) -> f64) -> f64 {
    if found.is_empty() || reference.is_empty() {
        return 0.0;
    }
    let mut log = 0.0;
    for length in 1..=longest {
        let (own, known) = (counts(found, length), counts(reference, length));
        let of = |key: &Vec<&str>| if length == 1 { weight(key[0]) } else { 1.0 };
        let all: f64 = own.iter().map(|(key, count)| of(key) * count).sum();
        let hits: f64 =
            own.iter().map(|(key, count)| of(key) * count.min(known.get(key).copied().unwrap_or(0.0))).sum();
        let smooth = if length == 1 { 0.0 } else { 1.0 };
        if hits + smooth == 0.0 {
            return 0.0;
        }
        log += ((hits + smooth) / (all + smooth)).ln() / longest as f64;
    }
    let short = (1.0 - reference.len() as f64 / found.len() as f64).min(0.0);
    (log + short).exp()
}

/// What stands in each pair of brackets, and the whole.
fn brackets(tokens: &[&str]) -> Vec<String> {
    let (mut open, mut found) = (Vec::new(), vec![tokens.concat()]);
    for (at, token) in tokens.iter().enumerate() {
        match *token {
            "(" => open.push(at),
            ")" => {
                if let Some(start) = open.pop() {
                    // With the function's name in front.
                    found.push(tokens[start.saturating_sub(1)..=at].concat());
                }
            }
            _ => {}
        }
    }
    found
}

/// How like code is to a reference, from 0 to 1.
pub fn likeness(code: &str, reference: &str) -> f64 {
    let (found, known) = (tokens(code), tokens(reference));
    let plain = bleu(&found, &known, 4, |_| 1.0);
    let keyed = bleu(&found, &known, 1, |token| if KEYWORDS.contains(&token) { WEIGHT } else { 1.0 });
    let (mut own, wanted) = (brackets(&found), brackets(&known));
    let mut hits = 0;
    for part in &wanted {
        if let Some(at) = own.iter().position(|it| it == part) {
            own.swap_remove(at);
            hits += 1;
        }
    }
    (plain + keyed + f64::from(hits) / wanted.len().max(1) as f64) / 3.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likeness_is_one_for_the_same_and_falls_with_every_change() {
        let reference = "f(a,b)=max(a,2*b)-12";
        assert_eq!(tokens("max(a, 12)"), ["max", "(", "a", ",", "12", ")"]);
        assert!((likeness(reference, reference) - 1.0).abs() < 1e-12);
        let near = likeness("f(a,b)=max(a,3*b)-12", reference);
        let keyword = likeness("f(a,b)=min(a,2*b)-12", reference);
        let far = likeness("f(a)=a", reference);
        assert!(1.0 > near && near > far && keyword < near, "{near} {keyword} {far}");
        assert_eq!(likeness("", reference), 0.0);
        // By hand: tokens a + b and a - b share 2 of 3; of pairs none of 2, smoothed 1 of 3, of threes 1 of 2, of fours 1 of 1.
        let by_hand = (2.0f64 / 3.0 * (1.0 / 3.0) * 0.5).powf(0.25);
        assert!((bleu(&tokens("a+b"), &tokens("a-b"), 4, |_| 1.0) - by_hand).abs() < 1e-12);
    }
}
