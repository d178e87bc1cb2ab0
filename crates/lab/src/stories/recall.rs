//! Short texts that can only be continued by looking back: rounds in which everybody does the same, talk in turns,
//! and who has what. They teach a small model to repeat names and to look facts up long before tales alone do.

use super::people::{BOYS, GIRLS, PET_NAMES};
use super::template::{below, chance, pick};
use super::things::{COLOURS, COUNTED, TOYS};
use rand_chacha::ChaCha8Rng;

const ACTIONS: &[&str] = &[
    "runs", "jumps", "sings", "dances", "swims", "laughs", "reads", "sleeps", "paints", "climbs", "smiles",
    "waits", "waves", "eats", "hides", "counts",
];

/// One such text, of four to sixteen sentences.
pub fn recall(rng: &mut ChaCha8Rng) -> String {
    match below(rng, 3) {
        0 => rounds(rng),
        1 => talk(rng),
        _ => belongings(rng),
    }
}

/// So many different names.
fn names(rng: &mut ChaCha8Rng, count: usize) -> Vec<&'static str> {
    let mut found: Vec<&'static str> = Vec::new();
    while found.len() < count {
        let table = *pick(rng, &[GIRLS, BOYS, PET_NAMES]);
        let name = *pick(rng, table);
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

/// Everybody does one thing, then everybody the next.
fn rounds(rng: &mut ChaCha8Rng) -> String {
    let people = 2 + below(rng, 3);
    let people = names(rng, people);
    let rounds = 2 + below(rng, 3);
    let mut sentences = Vec::new();
    for _ in 0..rounds {
        let action = *pick(rng, ACTIONS);
        sentences.extend(people.iter().map(|name| format!("{name} {action}.")));
    }
    sentences.join(" ")
}

/// Two take turns to say what they like.
fn talk(rng: &mut ChaCha8Rng) -> String {
    let people = names(rng, 2);
    let turns = 2 + below(rng, 3);
    let mut lines = Vec::new();
    for _ in 0..turns {
        let thing = pick(rng, COUNTED).0;
        lines.push(format!("{}: Do you like {thing}, {}?", people[0], people[1]));
        lines.push(format!("{}: Yes, {}, I like {thing}.", people[1], people[0]));
    }
    lines.join("\n")
}

/// Everybody has something of their own colour, and some of it is asked for.
fn belongings(rng: &mut ChaCha8Rng) -> String {
    let people = 2 + below(rng, 3);
    let people = names(rng, people);
    let mut things: Vec<String> = Vec::new();
    while things.len() < people.len() {
        let colour = *pick(rng, COLOURS);
        let thing = format!("{colour} {}", pick(rng, TOYS).0);
        if !things.contains(&thing) {
            things.push(thing);
        }
    }
    let article = |thing: &str| if thing.starts_with("orange") { "an" } else { "a" };
    let mut text: Vec<String> = Vec::new();
    text.extend(
        people.iter().zip(&things).map(|(name, thing)| format!("{name} has {} {thing}.", article(thing))),
    );
    let mut text = text.join(" ");
    for _ in 0..1 + below(rng, 3) {
        let at = below(rng, people.len());
        let (name, thing) = (people[at], &things[at]);
        text.push_str(&if chance(rng, 50) {
            format!("\nQuestion: Who has the {thing}?\nAnswer: {name} has the {thing}.")
        } else {
            format!("\nQuestion: What does {name} have?\nAnswer: {name} has {} {thing}.", article(thing))
        });
    }
    text
}
