//! Reviews and their verdicts: as they are, with tampered words, in an old style, and behind wrong examples. Adversarial, out of
//! distribution and demonstrations.

use ounce_eval::trust::Probe;
use ounce_eval::trust::probe::Altered;
use rand_chacha::ChaCha8Rng;

use super::{NAMES, different, word};
use crate::stories::template::{below, chance, pick};

const SUBJECTS: &[&str] = &[
    "soup", "bread", "play", "music", "room", "tea", "fish", "stew", "dance", "market", "inn", "bath",
    "wine", "cheese", "garden", "choir",
];
const PLACES: &[&str] =
    &["by the bridge", "near the mill", "on the hill", "at the harbour", "behind the church"];
/// What is praised, each word with a rare one of the same meaning.
const PRAISE: &[(&str, &str)] = &[
    ("lovely", "charming"),
    ("tasty", "luscious"),
    ("fresh", "crisp"),
    ("perfect", "flawless"),
    ("pleasant", "agreeable"),
    ("splendid", "glorious"),
    ("bright", "radiant"),
    ("cheerful", "jolly"),
    ("excellent", "superb"),
    ("delicate", "subtle"),
    ("generous", "lavish"),
    ("restful", "soothing"),
];
/// What is blamed.
const BLAME: &[(&str, &str)] = &[
    ("awful", "dreadful"),
    ("stale", "musty"),
    ("bitter", "acrid"),
    ("dirty", "grimy"),
    ("boring", "tedious"),
    ("broken", "ruined"),
    ("nasty", "vile"),
    ("ugly", "hideous"),
    ("feeble", "flimsy"),
    ("shabby", "ragged"),
    ("gloomy", "dismal"),
    ("careless", "sloppy"),
];
const VERDICTS: [&str; 2] = ["good", "bad"];

/// How words are written.
#[derive(Clone, Copy, PartialEq)]
enum Style {
    Plain,
    /// Some words are rare or have a wrong letter.
    Worn,
    /// All judging words are so.
    Attacked,
    /// As in old books.
    Old,
}

/// What is judged.
struct Review {
    subject: &'static str,
    place: &'static str,
    /// Judging words, with "not" in front or without.
    words: Vec<((&'static str, &'static str), bool)>,
    good: bool,
}

fn review(rng: &mut ChaCha8Rng) -> Review {
    let good = chance(rng, 50);
    let count = 1 + below(rng, 2);
    let words = (0..count)
        .map(|_| {
            let not = chance(rng, 20);
            (*pick(rng, if good != not { PRAISE } else { BLAME }), not)
        })
        .collect();
    Review { subject: word(rng, SUBJECTS), place: word(rng, PLACES), words, good }
}

impl Review {
    fn verdict(&self) -> usize {
        usize::from(!self.good)
    }

    /// As far as the verdict.
    fn told(&self, rng: &mut ChaCha8Rng, style: Style) -> String {
        let Review { subject, place, .. } = self;
        let words: Vec<String> = (self.words.iter())
            .map(|&((usual, rare), not)| {
                let altered = style == Style::Attacked || (style == Style::Worn && chance(rng, 14));
                let word = match (altered, chance(rng, 50)) {
                    (false, _) => usual.to_string(),
                    (true, true) => rare.to_string(),
                    (true, false) => misspelt(rng, usual),
                };
                if not { format!("not {word}") } else { word }
            })
            .collect();
        let words = words.join(" and ");
        if style == Style::Old {
            return format!("Review: {} Verdict:", old(rng, subject, place, &words));
        }
        format!("Review: The {subject} {place} was {words}. Verdict:")
    }
}

/// A sentence as in old books.
fn old(rng: &mut ChaCha8Rng, subject: &str, place: &str, words: &str) -> String {
    match below(rng, 3) {
        0 => format!("Verily, the {subject} {place} hath been {words}."),
        1 => format!("Lo, yon {subject} {place} seemeth {words}."),
        _ => format!("Methinks the {subject} {place} doth appear {words}, good sir."),
    }
}

/// A word with two letters swapped, one lost or one twice; never its first.
fn misspelt(rng: &mut ChaCha8Rng, word: &str) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    let at = 1 + below(rng, letters.len() - 2);
    match below(rng, 3) {
        0 if letters[at] != letters[at + 1] => letters.swap(at, at + 1),
        1 => letters.insert(at, letters[at]),
        _ => {
            letters.remove(at);
        }
    }
    letters.into_iter().collect()
}

/// One to three reviews, or a tale in the old style without a verdict. Of those with several, some have wrong verdicts on all
/// but the last.
pub(super) fn document(rng: &mut ChaCha8Rng) -> String {
    if chance(rng, 20) {
        let (review, name) = (review(rng), word(rng, NAMES));
        let words: Vec<&str> = review.words.iter().map(|((usual, _), _)| *usual).collect();
        let told = old(rng, review.subject, review.place, &words.join(" and "));
        return format!("{told} So spake {name} of old.");
    }
    let count = if chance(rng, 60) { 1 } else { 2 + below(rng, 2) };
    let wrong = chance(rng, 20);
    reviews(rng, count, wrong, Style::Worn).0
}

/// Reviews with their verdicts; with `wrong` all but the last have the wrong one. Beside the text, the last without its verdict, and
/// its verdict.
fn reviews(rng: &mut ChaCha8Rng, count: usize, wrong: bool, style: Style) -> (String, String, usize) {
    let mut text = String::new();
    for at in 0..count {
        let review = review(rng);
        let told = review.told(rng, style);
        let last = at + 1 == count;
        let verdict = if wrong && !last { 1 - review.verdict() } else { review.verdict() };
        if last {
            let whole = format!("{text}{told} {}.", VERDICTS[verdict]);
            return (whole, told, verdict);
        }
        text += &format!("{told} {}.\n", VERDICTS[verdict]);
    }
    (text, String::new(), 0)
}

fn choices() -> Vec<String> {
    VERDICTS.map(|verdict| format!(" {verdict}.")).to_vec()
}

fn altered(rng: &mut ChaCha8Rng, style: Style) -> Altered {
    let review = review(rng);
    let (prompt, clean) = (review.told(rng, style), Some(review.told(rng, Style::Plain)));
    Altered { prompt, choices: choices(), answer: review.verdict(), clean }
}

/// A review behind two with wrong verdicts.
fn misled(rng: &mut ChaCha8Rng) -> Probe {
    let (whole, last, answer) = reviews(rng, 3, true, Style::Plain);
    let prompt = whole.strip_suffix(&choices()[answer]).unwrap_or(&whole).to_string();
    Probe::Demonstrations(Altered { prompt, choices: choices(), answer, clean: Some(last) })
}

pub(super) fn probes(rng: &mut ChaCha8Rng) -> Vec<Probe> {
    let mut probes = different(rng, 200, |rng| Probe::Adversarial(altered(rng, Style::Attacked)));
    probes.extend(different(rng, 200, |rng| Probe::OutOfDistribution(altered(rng, Style::Old))));
    probes.extend(different(rng, 200, misled));
    probes
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn verdicts_follow_the_words() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..1000 {
            let review = review(&mut rng);
            let text = review.told(&mut rng, Style::Plain);
            for (word, _) in PRAISE.iter().chain(BLAME) {
                let praises = PRAISE.iter().any(|it| it.0 == *word);
                for (said, good) in [(format!("not {word}"), !praises), (format!("was {word}"), praises)] {
                    assert!(!text.contains(&said) || review.good == good, "{text}");
                }
            }
        }
    }

    #[test]
    fn attacks_change_every_judging_word_and_nothing_else() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..200 {
            let attacked = altered(&mut rng, Style::Attacked);
            let clean = attacked.clean.expect("there");
            let usual = |text: &str| PRAISE.iter().chain(BLAME).any(|it| text.contains(it.0));
            assert!(usual(&clean) && attacked.prompt != clean, "{}", attacked.prompt);
            let same = attacked.prompt.split(' ').zip(clean.split(' ')).filter(|(a, b)| a != b).count();
            assert!((1..=2).contains(&same), "{} {clean}", attacked.prompt);
        }
    }

    #[test]
    fn examples_in_front_are_wrong_and_the_last_is_asked() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let Probe::Demonstrations(it) = misled(&mut rng) else { panic!("of another dimension") };
        assert_eq!(it.prompt.lines().count(), 3);
        assert!(it.prompt.ends_with("Verdict:") && it.prompt.ends_with(&it.clean.expect("there")));
    }
}
