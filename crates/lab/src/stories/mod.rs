//! Simple tales for children, generated: the text the built-in model learns and is measured on.
//!
//! A seeded random generator goes in, English text comes out; the same seed gives the same text on every machine.
//! A tale is a plot (a list of beats, each with several wordings) told about a cast that is drawn once, so names,
//! pronouns, things and their troubles stay consistent from the first sentence to the last. About one text in
//! four is something else: counting, small sums in words, lists of days and colours (`drills`), or rounds and talks
//! that can only be continued by looking back (`recall`); and some tales end with questions and answers about what
//! happened.
//!
//! **Seeds.** Seeds below [`FIRST_HELD_OUT_SEED`] are for training; that seed and all above are held out: text for
//! measuring must come from there. The grammar is the same, so held-out text measures how well the language was
//! learnt and not how well a model generalises to other writing.

mod cast;
mod drills;
mod people;
mod plots;
mod recall;
pub(crate) mod template;
mod things;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use template::{Slots, capitalize, chance, expand, pick};

/// The first seed whose text no model of this project is trained on.
pub const FIRST_HELD_OUT_SEED: u64 = 1000;

/// The line between two documents of [`documents`].
pub const SEPARATOR: &str = "<|endoftext|>";

/// Share of documents with several texts, in percent.
const JOINED_PERCENT: usize = 8;
/// Share of drills among the texts, in percent.
const DRILL_PERCENT: usize = 9;
/// Share of texts that must look back, in percent.
const RECALL_PERCENT: usize = 20;
/// Share of the tales that are followed by questions, in percent.
const QUESTION_PERCENT: usize = 12;

/// A way to tell a tale.
struct Plot {
    /// What must be drawn beside the cast.
    draws: &'static [cast::Draw],
    /// The beats in order, each a list of wordings; an empty wording leaves the beat out.
    beats: &'static [&'static [&'static str]],
    /// Questions about the tale with their answers.
    questions: &'static [(&'static str, &'static str)],
}

/// One text: a tale of 60 to 200 words or, now and then, a drill or a text to look back in. It holds no blank line and doesn't end in one.
pub fn story(rng: &mut ChaCha8Rng) -> String {
    if chance(rng, DRILL_PERCENT) {
        return drills::drill(rng);
    }
    if chance(rng, RECALL_PERCENT) {
        return recall::recall(rng);
    }
    let plot = plots::any(rng);
    let slots = cast::draw(rng, plot.draws);
    let mut text = tell(rng, plot, &slots);
    if chance(rng, QUESTION_PERCENT) {
        let (question, answer) = *pick(rng, plot.questions);
        text.push_str(&format!("\nQuestion: {}", line(rng, question, &slots)));
        text.push_str(&format!("\nAnswer: {}", line(rng, answer, &slots)));
    }
    text
}

/// Texts joined by blank lines, cut after the first text that reaches `bytes` bytes; so a little longer than asked.
pub fn corpus(seed: u64, bytes: usize) -> String {
    joined(seed, bytes, story)
}

/// What `write` gives, joined and cut as [`corpus`] is.
pub(crate) fn joined(seed: u64, bytes: usize, write: fn(&mut ChaCha8Rng) -> String) -> String {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut text = String::new();
    while text.len() < bytes {
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str(&write(&mut rng));
    }
    text
}

/// [`corpus`] as documents between lines [`SEPARATOR`]. Most hold one text, some several with blank lines between them,
/// so that a model learns both where a text ends and how plain text with several of them goes on.
pub fn documents(seed: u64, bytes: usize) -> String {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut text = String::new();
    while text.len() < bytes {
        if !text.is_empty() {
            text.push_str(&format!("\n{SEPARATOR}\n"));
        }
        let more = if chance(&mut rng, JOINED_PERCENT) { 1 + usize::from(chance(&mut rng, 50)) } else { 0 };
        text.push_str(&story(&mut rng));
        for _ in 0..more {
            text.push_str("\n\n");
            text.push_str(&story(&mut rng));
        }
    }
    text.push('\n');
    text
}

/// Beats in order, in one paragraph or in three: the opening, the middle, the end.
fn tell(rng: &mut ChaCha8Rng, plot: &Plot, slots: &Slots) -> String {
    let paragraphs = chance(rng, 40);
    let last = plot.beats.len();
    let opening = pick(rng, plots::OPENINGS);
    let ending = pick(rng, plots::ENDINGS);
    let mut text = line(rng, opening, slots);
    for (at, &beat) in plot.beats.iter().enumerate() {
        let wording = pick(rng, beat);
        let told = line(rng, wording, slots);
        if told.is_empty() {
            continue;
        }
        text.push(if paragraphs && (at == 0 || at + 1 == last) { '\n' } else { ' ' });
        text.push_str(&told);
    }
    let told = line(rng, ending, slots);
    if !told.is_empty() {
        text.push(' ');
        text.push_str(&told);
    }
    text
}

fn line(rng: &mut ChaCha8Rng, template: &str, slots: &Slots) -> String {
    let mut out = String::new();
    expand(template, slots, rng, &mut out);
    capitalize(&out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_gives_the_same_text_and_another_seed_another() {
        assert_eq!(corpus(5, 4000), corpus(5, 4000));
        assert_ne!(corpus(5, 4000), corpus(FIRST_HELD_OUT_SEED, 4000));
        let longer = corpus(5, 8000);
        assert!(longer.starts_with(&corpus(5, 4000)), "a longer corpus must begin with the shorter one");
    }

    #[test]
    fn documents_hold_one_text_or_some_and_end_with_a_line() {
        let text = documents(5, 400_000);
        assert!(text.ends_with('\n'));
        let all: Vec<&str> = text.trim_end().split("\n<|endoftext|>\n").collect();
        let joined = all.iter().filter(|document| document.contains("\n\n")).count();
        assert!((all.len() * 4..all.len() * 14).contains(&(joined * 100)), "{joined} of {}", all.len());
        assert!(all.iter().all(|document| (1..=3).contains(&document.split("\n\n").count())));
    }

    #[test]
    fn text_has_no_open_slot_and_no_double_space() {
        for text in corpus(6, 400_000).split("\n\n") {
            assert!(!text.contains(['{', '}', '[', ']', '|']), "unfilled: {text}");
            assert!(!text.contains("  ") && !text.contains(" .") && !text.contains(".."), "spacing: {text}");
            assert!(text.is_ascii() && text.ends_with(['.', '!', '?', '"']), "form: {text}");
            assert_eq!(text.matches('"').count() % 2, 0, "quotes: {text}");
        }
    }

    #[test]
    fn tales_have_the_promised_length_and_rich_words() {
        let text = corpus(7, 1_000_000);
        let mut words = BTreeSet::new();
        for tale in text.split("\n\n") {
            let count = tale.split_whitespace().count();
            assert!((4..=230).contains(&count), "{count} words: {tale}");
            for word in tale.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()) {
                words.insert(word.to_lowercase());
            }
        }
        assert!((1000..2000).contains(&words.len()), "{} distinct words", words.len());
        let distinct: BTreeSet<&str> = text.split("\n\n").collect();
        let all = text.split("\n\n").count();
        assert!(distinct.len() * 100 > all * 95, "{} of {all} texts are distinct", distinct.len());
    }
}
