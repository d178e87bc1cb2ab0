//! Answers compared with the expected ones, as extractive question answering is scored (SQuAD, arXiv 1606.05250; FQuAD for
//! French): exact match and F1 over words, both on normalised text.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Whose articles are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Articles {
    /// a, an, the.
    #[default]
    English,
    /// le, la, les, l', un, une, des, du.
    French,
    /// None are left out.
    None,
}

impl Articles {
    fn words(self) -> &'static [&'static str] {
        match self {
            Articles::English => &["a", "an", "the"],
            Articles::French => &["le", "la", "les", "l", "un", "une", "des", "du"],
            Articles::None => &[],
        }
    }
}

/// The words of an answer that count: lower case, without punctuation and articles. Accents stay: they tell words apart.
pub fn words(text: &str, articles: Articles) -> Vec<String> {
    let elides = articles == Articles::French;
    let lower = text.to_lowercase();
    let plain: String = lower
        .chars()
        // An elided article is a word of its own.
        .map(|c| if elides && matches!(c, '\'' | '’') { ' ' } else { c })
        .filter(|c| !is_punctuation(*c))
        .collect();
    let words = plain.split_whitespace().filter(|word| !articles.words().contains(word));
    words.map(str::to_string).collect()
}

/// ASCII punctuation and the marks of other languages' texts.
fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation()
        || matches!(c, '«' | '»' | '“' | '”' | '„' | '‘' | '’' | '…' | '–' | '—' | '¿' | '¡')
}

/// How an answer compares with an expected one.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Match {
    /// 1 if the words are the same in the same order, else 0.
    pub exact: f64,
    /// Harmonic mean of precision and recall over words, 0 to 1.
    pub f1: f64,
}

/// Compares an answer with one expected answer. Two without words are the same.
pub fn compare(answer: &str, expected: &str, articles: Articles) -> Match {
    let (ours, theirs) = (words(answer, articles), words(expected, articles));
    let exact = f64::from(ours == theirs);
    if ours.is_empty() || theirs.is_empty() {
        return Match { exact, f1: exact };
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    theirs.iter().for_each(|word| *left.entry(word).or_default() += 1);
    let mut common = 0usize;
    for word in &ours {
        if let Some(count) = left.get_mut(word.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    Match { exact, f1: 2.0 * common as f64 / (ours.len() + theirs.len()) as f64 }
}

/// The best of several expected answers; an empty list expects no answer.
pub fn best<S: AsRef<str>>(answer: &str, expected: &[S], articles: Articles) -> Match {
    if expected.is_empty() {
        return compare(answer, "", articles);
    }
    let each = expected.iter().map(|expected| compare(answer, expected.as_ref(), articles));
    each.fold(Match::default(), |best, it| Match { exact: best.exact.max(it.exact), f1: best.f1.max(it.f1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_punctuation_and_case_do_not_count() {
        assert_eq!(words("The  Eiffel-Tower, a  tower.", Articles::English), ["eiffeltower", "tower"]);
        assert_eq!(words("L'été à la «Grande Île»", Articles::French), ["été", "à", "grande", "île"]);
        assert_eq!(words("l’ami des amis", Articles::French), ["ami", "amis"]);
        // Another language's articles are words.
        assert_eq!(words("la tour", Articles::English), ["la", "tour"]);
        assert_eq!(compare("été", "ete", Articles::French).exact, 0.0);
    }

    #[test]
    fn words_are_counted_as_often_as_they_are_there() {
        let found = compare("red red fish", "red fish", Articles::English);
        assert!((found.f1 - 0.8).abs() < 1e-12 && found.exact == 0.0, "{found:?}");
        assert_eq!(compare("the cat", "a cat", Articles::English), Match { exact: 1.0, f1: 1.0 });
        assert_eq!(compare("cat", "dog", Articles::English), Match::default());
        assert_eq!(best("in Paris", &["Lyon", "Paris"], Articles::English).f1, 2.0 / 3.0);
    }

    #[test]
    fn no_answer_is_right_only_where_none_is_expected() {
        assert_eq!(best::<&str>("", &[], Articles::English).exact, 1.0);
        assert_eq!(best::<&str>("x", &[], Articles::English).exact, 0.0);
        assert_eq!(compare("", "x", Articles::English), Match::default());
    }
}
