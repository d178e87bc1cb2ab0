//! The catalogue: every method of the literature that ounce implements or plans to, numbered from 1 to 130.
//!
//! Planned methods stand in the tables here, one file a family. Working ones come from the crate that implements
//! them, through its `METHODS` list, and have no row here. [`markdown`] renders all of it as `docs/catalogue.md`.

pub mod markdown;

mod distillation;
mod federated;
mod generative;
mod language;
mod moe;
mod multimodal;
mod planning;
mod retrieval;
mod runtime;
mod speech;
mod training;
mod vision;

use ounce_eval::method::Method;
use std::sync::LazyLock;

/// Where methods are listed: the technique crates first, then the planned rows by family.
const LISTS: &[&[Method]] = &[
    ounce_compress::METHODS,
    ounce_train::METHODS,
    ounce_peft::METHODS,
    ounce_plan::METHODS,
    distillation::PLANNED,
    moe::PLANNED,
    runtime::PLANNED,
    training::PLANNED,
    planning::PLANNED,
    federated::PLANNED,
    retrieval::PLANNED,
    language::PLANNED,
    multimodal::PLANNED,
    vision::PLANNED,
    generative::PLANNED,
    speech::PLANNED,
];

static SORTED: LazyLock<Vec<&'static Method>> = LazyLock::new(|| {
    let mut all: Vec<&'static Method> = LISTS.iter().copied().flatten().collect();
    all.sort_by_key(|method| method.number);
    all
});

/// Every method, by number.
pub fn methods() -> &'static [&'static Method] {
    &SORTED
}

/// The method of that number.
pub fn method(number: u16) -> Option<&'static Method> {
    SORTED.iter().find(|method| method.number == number).copied()
}

/// Methods in which every word of `words` occurs, the best match first, and by number among equals. Words are
/// compared without regard to case and to their endings; an empty search finds nothing.
pub fn search(words: &str) -> Vec<&'static Method> {
    let wanted: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<(u32, &'static Method)> =
        SORTED.iter().filter_map(|method| Some((score(method, &wanted)?, *method))).collect();
    found.sort_by_key(|(score, method)| (std::cmp::Reverse(*score), method.number));
    found.into_iter().map(|(_, method)| method).collect()
}

/// Sum over the words of the weight of the best field each occurs in; none if a word occurs nowhere.
fn score(method: &Method, wanted: &[String]) -> Option<u32> {
    let number = method.number.to_string();
    let padded = format!("{:03}", method.number);
    let fields = [
        (100, number.as_str()),
        (100, padded.as_str()),
        (100, method.arxiv.unwrap_or_default()),
        (20, method.name),
        (8, method.command.unwrap_or_default()),
        (6, method.paper),
        (5, method.family.title()),
        (3, method.gives),
        (1, method.claim),
    ];
    wanted
        .iter()
        .map(|word| fields.iter().filter_map(|&(weight, text)| weigh(text, word, weight)).max())
        .sum()
}

/// Three times the field's weight for a whole word, once for one that begins as the wanted word does before its
/// ending ("prune" finds "pruning"). Numbers and arXiv identifiers (weight 100) only match whole.
fn weigh(field: &str, word: &str, weight: u32) -> Option<u32> {
    let field = field.to_lowercase();
    if field == word {
        return Some(3 * weight);
    }
    if weight >= 100 {
        return None;
    }
    let stem =
        ["ing", "e", "s"].iter().find_map(|ending| word.strip_suffix(ending)).filter(|stem| stem.len() >= 4);
    field
        .split(|c: char| !c.is_alphanumeric() && c != '-')
        .filter(|part| part.starts_with(stem.unwrap_or(word)))
        .map(|part| if part == word { 3 * weight } else { weight })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ounce_eval::method::{Family, METHOD_COUNT, State};

    #[test]
    fn numbers_are_complete_and_each_occurs_once() {
        let numbers: Vec<u16> = methods().iter().map(|method| method.number).collect();
        assert_eq!(numbers, (1..=METHOD_COUNT).collect::<Vec<u16>>());
    }

    #[test]
    fn every_method_is_described() {
        for method in methods() {
            let number = method.number;
            for (field, text) in [
                ("name", method.name),
                ("paper", method.paper),
                ("gives", method.gives),
                ("claim", method.claim),
            ] {
                assert!(!text.trim().is_empty(), "method {number}: {field} is empty");
                assert!(text.trim() == text && !text.contains("  "), "method {number}: spaces in {field}");
            }
            let gives = method.gives;
            assert!(gives.chars().count() <= 200, "method {number}: gives has more than 200 characters");
            assert!(
                gives.ends_with('.') && !gives.contains(". "),
                "method {number}: gives isn't one sentence"
            );
            assert!(method.claim.ends_with('.'), "method {number}: claim isn't a sentence");
        }
    }

    #[test]
    fn arxiv_identifiers_have_their_form() {
        for method in methods() {
            let Some(id) = method.arxiv else { continue };
            let (month, serial) = id.split_once('.').unwrap_or_default();
            let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            assert!(month.len() == 4 && digits(month), "method {}: {id}", method.number);
            assert!((4..=5).contains(&serial.len()) && digits(serial), "method {}: {id}", method.number);
        }
    }

    #[test]
    fn names_and_papers_are_unique() {
        for (at, method) in methods().iter().enumerate() {
            for earlier in &methods()[..at] {
                assert_ne!(method.name, earlier.name);
                assert_ne!(method.paper, earlier.paper, "methods {} and {}", earlier.number, method.number);
            }
        }
    }

    #[test]
    fn a_method_has_both_a_command_and_a_demonstration_or_neither() {
        for method in methods() {
            let working = method.state() == State::Working;
            assert_eq!(method.command.is_some(), working, "method {}", method.number);
            assert!(
                method.command.is_none_or(|command| command.starts_with("ounce ")),
                "method {}",
                method.number
            );
        }
    }

    #[test]
    fn every_family_has_methods() {
        for family in Family::ALL {
            assert!(methods().iter().any(|method| method.family == family), "{}", family.title());
        }
    }

    #[test]
    fn search_ranks_names_before_descriptions() {
        let first = |words: &str| search(words).first().map(|method| method.number);
        for (words, wanted) in [
            ("l-mul", 20),
            ("L-MUL", 20),
            ("2410.00907", 20),
            ("020", 20),
            ("taid", 37),
            ("roofline", 99),
            ("prune recommender", 122),
            ("dylora", 45),
        ] {
            assert_eq!(first(words), Some(wanted), "{words:?}");
        }
        assert!(search("").is_empty() && search("zzzz").is_empty() && search("taid zzzz").is_empty());
        assert!(search("quantization").len() >= 5);
    }
}
