//! Short texts that aren't tales: counting, sums in words, lists, opposites, sounds, comparisons, questions.

use super::people::{BOYS, GIRLS};
use super::template::{below, chance, pick};
use super::things::{COUNTED, NUMBERS};
use rand_chacha::ChaCha8Rng;

const DAYS: &[&str] = &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const SEASONS: &[&str] = &["spring", "summer", "autumn", "winter"];
const OPPOSITES: &[(&str, &str)] = &[
    ("big", "small"),
    ("hot", "cold"),
    ("up", "down"),
    ("day", "night"),
    ("fast", "slow"),
    ("happy", "sad"),
    ("open", "closed"),
    ("full", "empty"),
    ("old", "young"),
    ("light", "dark"),
    ("hard", "soft"),
    ("wet", "dry"),
    ("loud", "quiet"),
    ("first", "last"),
];
const SOUNDS: &[(&str, &str)] = &[
    ("cat", "meow"),
    ("dog", "woof"),
    ("cow", "moo"),
    ("duck", "quack"),
    ("sheep", "baa"),
    ("bee", "buzz"),
    ("frog", "croak"),
    ("owl", "hoo"),
    ("pig", "oink"),
    ("lion", "roar"),
];
const COLOURED: &[(&str, &str)] = &[
    ("grass", "green"),
    ("sky", "blue"),
    ("snow", "white"),
    ("sun", "yellow"),
    ("night", "black"),
    ("blood", "red"),
    ("chocolate", "brown"),
    ("carrot", "orange"),
    ("elephant", "gray"),
    ("tomato", "red"),
];
const BY_SIZE: &[&str] = &["ant", "mouse", "rabbit", "dog", "sheep", "horse", "elephant", "whale"];

/// One drill, of two to six sentences.
pub fn drill(rng: &mut ChaCha8Rng) -> String {
    const KINDS: &[fn(&mut ChaCha8Rng) -> String] =
        &[counting, sums, differences, days, opposites, sounds, colours, sizes, shopping, questions];
    pick(rng, KINDS)(rng)
}

fn counting(rng: &mut ChaCha8Rng) -> String {
    let (from, length) = (1 + below(rng, 8), 4 + below(rng, 7));
    let mut numbers = NUMBERS[from..(from + length).min(NUMBERS.len())].to_vec();
    let (word, order) = if chance(rng, 30) {
        numbers.reverse();
        ("down", "back")
    } else {
        ("up", "on")
    };
    let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
    format!(
        "Let us count {word} from {first} to {last}: {}. Now we count {order} no more.",
        numbers.join(", ")
    )
}

fn sums(rng: &mut ChaCha8Rng) -> String {
    sentences(rng, |rng| {
        let (a, b) = (below(rng, 11), below(rng, 10));
        format!("{} and {} make {}.", NUMBERS[a], NUMBERS[b], NUMBERS[a + b])
    })
}

fn differences(rng: &mut ChaCha8Rng) -> String {
    sentences(rng, |rng| {
        let a = 1 + below(rng, 15);
        let b = below(rng, a + 1);
        format!("{} take away {} leaves {}.", NUMBERS[a], NUMBERS[b], NUMBERS[a - b])
    })
}

fn days(rng: &mut ChaCha8Rng) -> String {
    match below(rng, 3) {
        0 => format!("The days of the week are {} and {}.", DAYS[..6].join(", "), DAYS[6]),
        1 => format!("The seasons are {} and {}.", SEASONS[..3].join(", "), SEASONS[3]),
        _ => sentences(rng, |rng| {
            let at = below(rng, 7);
            if chance(rng, 50) {
                format!("After {} comes {}.", DAYS[at], DAYS[(at + 1) % 7])
            } else {
                format!("Before {} comes {}.", DAYS[(at + 1) % 7], DAYS[at])
            }
        }),
    }
}

fn opposites(rng: &mut ChaCha8Rng) -> String {
    sentences(rng, |rng| {
        let (a, b) = *pick(rng, OPPOSITES);
        let (a, b) = if chance(rng, 50) { (a, b) } else { (b, a) };
        format!("The opposite of {a} is {b}.")
    })
}

fn sounds(rng: &mut ChaCha8Rng) -> String {
    sentences(rng, |rng| {
        let (animal, sound) = *pick(rng, SOUNDS);
        format!("The {animal} says {sound}.")
    })
}

fn colours(rng: &mut ChaCha8Rng) -> String {
    sentences(rng, |rng| {
        let (thing, colour) = *pick(rng, COLOURED);
        format!("The {thing} is {colour}.")
    })
}

fn sizes(rng: &mut ChaCha8Rng) -> String {
    sentences(rng, |rng| {
        let small = below(rng, BY_SIZE.len() - 1);
        let big = small + 1 + below(rng, BY_SIZE.len() - small - 1);
        if chance(rng, 50) {
            format!("The {} is bigger than the {}.", BY_SIZE[big], BY_SIZE[small])
        } else {
            format!("The {} is smaller than the {}.", BY_SIZE[small], BY_SIZE[big])
        }
    })
}

fn shopping(rng: &mut ChaCha8Rng) -> String {
    let (girl, things) = (chance(rng, 50), pick(rng, COUNTED).0);
    let (name, he) = if girl { (*pick(rng, GIRLS), "She") } else { (*pick(rng, BOYS), "He") };
    let (a, b) = (2 + below(rng, 8), 1 + below(rng, 9));
    let total = NUMBERS[a + b];
    let (a, b) = (NUMBERS[a], NUMBERS[b]);
    format!(
        "{name} has {a} {things}. {he} gets {b} more.\nQuestion: How many {things} does {name} have now?\n\
         Answer: {name} has {total} {things}."
    )
}

fn questions(rng: &mut ChaCha8Rng) -> String {
    let (thing, colour) = *pick(rng, COLOURED);
    let (animal, sound) = *pick(rng, SOUNDS);
    let (a, b) = *pick(rng, OPPOSITES);
    match below(rng, 3) {
        0 => format!("Question: What color is the {thing}?\nAnswer: The {thing} is {colour}."),
        1 => format!("Question: What does the {animal} say?\nAnswer: The {animal} says {sound}."),
        _ => format!("Question: What is the opposite of {a}?\nAnswer: The opposite of {a} is {b}."),
    }
}

/// Three to six sentences of one kind, each beginning with a capital letter.
fn sentences(rng: &mut ChaCha8Rng, mut one: impl FnMut(&mut ChaCha8Rng) -> String) -> String {
    let count = 3 + below(rng, 4);
    let all: Vec<String> = (0..count).map(|_| one(rng)).collect();
    super::template::capitalize(&all.join(" "))
}
