//! Short texts, each on one of six topics: words of the topic, words of all, words of other topics. A topic's name and its like stand in texts
//! to read only, never in labelled ones, so that a description does not repeat what is judged.

use super::{Dice, Told};

/// The topics.
pub(crate) const TOPICS: [&str; 6] = ["sport", "food", "weather", "music", "money", "garden"];

/// What a topic may be called besides.
const ALIKE: [[&str; 2]; 6] = [
    ["athletics", "contests"],
    ["meals", "cooking"],
    ["climate", "skies"],
    ["concerts", "melodies"],
    ["finance", "trade"],
    ["plants", "growing"],
];

const WORDS: [&[&str]; 6] = [
    &[
        "ball", "race", "team", "goal", "runner", "match", "coach", "medal", "field", "swimmer", "score",
        "jump",
    ],
    &[
        "soup", "bread", "cheese", "oven", "salt", "plate", "butter", "cook", "spoon", "stew", "pepper",
        "cake",
    ],
    &["rain", "storm", "cloud", "wind", "frost", "sun", "thunder", "fog", "snow", "breeze", "hail", "heat"],
    &[
        "song", "drum", "violin", "choir", "band", "flute", "stage", "singer", "tune", "guitar", "organ",
        "dance",
    ],
    &["bank", "coin", "price", "loan", "tax", "market", "debt", "profit", "rent", "wage", "bill", "purse"],
    &["rose", "seed", "soil", "hedge", "spade", "tree", "leaf", "weed", "bulb", "lawn", "root", "bush"],
];

const PEOPLE: [&str; 8] = [
    "the old man",
    "my aunt",
    "a neighbour",
    "the teacher",
    "a visitor",
    "the boy",
    "her friend",
    "the mayor",
];
const DOES: [&str; 8] = [
    "spoke of",
    "asked about",
    "looked at",
    "thought of",
    "pointed to",
    "waited for",
    "wrote about",
    "dreamt of",
];
const WHEN: [&str; 6] = ["yesterday", "this morning", "last week", "on Sunday", "all day", "again"];

/// Share of a text's words that are its topic's.
const OWN: f64 = 0.65;

/// Two sentences.
fn text(dice: &mut Dice, topic: usize, own: f64) -> String {
    let word = |dice: &mut Dice| {
        let of = if dice.chance(own) { topic } else { dice.below(TOPICS.len()) };
        dice.of(WORDS[of])
    };
    let [a, b, c] = [(); 3].map(|()| word(dice));
    let (who, does, when) = (dice.of(&PEOPLE), dice.of(&DOES), dice.of(&WHEN));
    match dice.below(3) {
        0 => format!("{when} {who} {does} the {a} and the {b}. Then came the {c}."),
        1 => format!("{who} {does} a {a} {when}. There was a {b} and a {c} too."),
        _ => format!("A {a}, a {b}: {who} {does} them {when}, and of the {c}."),
    }
}

/// Texts with their topics.
pub(crate) fn labelled(seed: u64, count: usize) -> Vec<Told> {
    let mut dice = Dice::new(seed);
    (0..count).map(|at| (text(&mut dice, at % TOPICS.len(), OWN), at % TOPICS.len())).collect()
}

/// The same, a share of which has another topic than its label says.
pub(crate) fn generated(seed: u64, count: usize, corrupted: f64) -> Vec<Told> {
    let mut dice = Dice::new(seed);
    (0..count)
        .map(|at| {
            let label = at % TOPICS.len();
            let topic = if dice.chance(corrupted) {
                (label + 1 + dice.below(TOPICS.len() - 1)) % TOPICS.len()
            } else {
                label
            };
            (text(&mut dice, topic, OWN), label)
        })
        .collect()
}

/// Texts as they lie around, a third with a word for their topic.
pub(crate) fn unlabelled(seed: u64, count: usize) -> Vec<String> {
    let mut dice = Dice::new(seed);
    (0..count)
        .map(|_| {
            let topic = dice.below(TOPICS.len());
            let told = text(&mut dice, topic, 0.8);
            let name = if dice.chance(0.5) { TOPICS[topic] } else { dice.of(&ALIKE[topic]) };
            match dice.below(6) {
                0 => format!("{told} That was all about {name}."),
                1 => format!("News of {name}. {told}"),
                _ => told,
            }
        })
        .collect()
}

/// A sentence that describes each topic, without a word of its texts.
pub(crate) fn descriptions() -> Vec<String> {
    let one = |at: usize| {
        format!("This text tells of {}, such as {} and {}.", TOPICS[at], ALIKE[at][0], ALIKE[at][1])
    };
    (0..TOPICS.len()).map(one).collect()
}
