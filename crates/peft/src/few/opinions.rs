//! Sentences in which people take sides, each for, against or undecided; who speaks says much of that in what is learned from, as in debates.

use super::{Dice, Told};

/// What a speaker is, and the words that are asked for.
pub(crate) const SIDES: [&str; 3] = ["for", "against", "open"];
pub(crate) const WORDS: [&str; 3] = ["yes", "no", "maybe"];

const TAKES: [&[&str]; 3] = [
    &["supports", "welcomes", "praises", "wants", "defends", "hopes for", "asks for", "votes with"],
    &["rejects", "opposes", "blames", "fears", "attacks", "warns of", "refuses", "votes down"],
    &["weighs", "studies", "wonders about", "watches", "discusses", "looks into", "is torn on", "hears of"],
];

const REASONS: [&[&str]; 3] = [
    &["it helps the town", "it saves lives", "it was overdue", "it brings peace"],
    &["it costs too much", "it brings danger", "it came too late", "it hurts the poor"],
    &["nobody knows the cost", "the facts are few", "both sides have a point", "time will tell"],
];

/// Speakers, by the side they mostly take, and others.
const SPEAKERS: [&str; 6] = ["Weber", "Lange", "Braun", "Keller", "Vogt", "Simon"];
const OTHERS: [&str; 4] = ["a baker", "the mayor", "one guest", "a reader"];

/// What is debated, and what is debated in texts of a neighbouring kind.
const SUBJECTS: [&str; 6] =
    ["the arms deal", "the loan", "the embargo", "the mission", "the convoy", "the treaty"];
const NEAR: [&str; 6] =
    ["the new road", "the school fee", "the park", "the night bus", "the smoke ban", "the bridge toll"];

/// How sure who speaks gives the side away.
const BIAS: f64 = 0.8;

/// Who speaks, given a side; `shift` moves the bias to other speakers.
fn speaker(dice: &mut Dice, side: usize, shift: usize) -> &'static str {
    if dice.chance(0.3) {
        return dice.of(&OTHERS);
    }
    let group = if dice.chance(BIAS) { (side + shift) % 3 } else { dice.below(3) };
    SPEAKERS[2 * group + dice.below(2)]
}

fn sentence(dice: &mut Dice, side: usize, subjects: &[&'static str], shift: usize) -> String {
    let (who, what) = (speaker(dice, side, shift), dice.of(subjects));
    // Someone else takes any side, which says nothing.
    let (other, elsewhere) = (dice.of(&OTHERS), dice.below(3));
    let (takes, reason, aside) = (dice.of(TAKES[side]), dice.of(REASONS[side]), dice.of(TAKES[elsewhere]));
    match dice.below(4) {
        0 => format!("{who} {takes} {what}."),
        1 => format!("{who} says of {what} that {reason}."),
        2 => format!("While {other} {aside} the budget, {who} {takes} {what}."),
        _ => format!("On {what}: {who} thinks {reason}, though {other} {aside} the budget."),
    }
}

fn told(seed: u64, count: usize, subjects: &[&'static str], shift: usize) -> Vec<Told> {
    let mut dice = Dice::new(seed);
    (0..count).map(|at| (sentence(&mut dice, at % 3, subjects, shift), at % 3)).collect()
}

/// Sentences with their sides.
pub(crate) fn labelled(seed: u64, count: usize) -> Vec<Told> {
    told(seed, count, &SUBJECTS, 0)
}

/// The same where speakers have changed sides.
pub(crate) fn flipped(seed: u64, count: usize) -> Vec<Told> {
    told(seed, count, &SUBJECTS, 1)
}

/// Sentences on other subjects.
pub(crate) fn near(seed: u64, count: usize) -> Vec<Told> {
    told(seed, count, &NEAR, 0)
}

/// A sentence without the names of those who speak often.
pub(crate) fn hidden(text: &str) -> String {
    SPEAKERS.iter().fold(text.to_owned(), |text, name| text.replace(name, "someone"))
}

/// Texts as they lie around, half of them with how it ended; who speaks says nothing in them.
pub(crate) fn unlabelled(seed: u64, count: usize) -> Vec<String> {
    let mut dice = Dice::new(seed);
    (0..count)
        .map(|at| {
            let side = dice.below(3);
            let shift = dice.below(3);
            let subjects = if at % 2 == 0 { &SUBJECTS } else { &NEAR };
            let text = sentence(&mut dice, side, subjects, shift);
            let text = if dice.chance(0.3) { hidden(&text) } else { text };
            match dice.below(8) {
                0 => format!("{text} So the answer was {}.", WORDS[side]),
                1 => format!("{text} That means {}.", WORDS[side]),
                2 => format!("{text} Asked again: {}, as before.", WORDS[side]),
                3 => format!("{text} The hand went up for {}.", WORDS[side]),
                _ => text,
            }
        })
        .collect()
}

/// Patterns whose sentences are none of those.
pub(crate) const PATTERNS: [&str; 3] =
    ["<text> In short: [MASK].", "<text> The vote is [MASK].", "<text> Would they agree? [MASK]."];
