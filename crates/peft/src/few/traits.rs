//! Texts about people of the tales that the built-in encoder has read, each of which shows what somebody is like and does not say it.
//! In tales the word stands beside what shows it: the encoder knows that they belong together, a new head does not.

use super::{Dice, Told};

/// What people are like.
pub(crate) const TRAITS: [&str; 8] =
    ["curious", "shy", "cheerful", "lazy", "gentle", "busy", "brave", "clumsy"];

/// What shows it, behind a name or a pronoun.
const HABITS: [&str; 8] = [
    "asked questions all day long",
    "often hid when strangers came",
    "sang a song every morning",
    "liked to sleep until noon",
    "never stepped on a flower",
    "was never still for a minute",
    "was not even afraid of thunder",
    "dropped things almost every day",
];

const HOMES: [&str; 8] = [
    "a small house by the river",
    "a white cottage near the forest",
    "a tall house in the city",
    "a farmhouse with many animals",
    "a blue house by the sea",
    "an old mill on a hill",
    "a cabin at the edge of a lake",
    "a yellow house next to the school",
];
const WEATHERS: [&str; 6] = [
    "the sun shone on the roofs",
    "rain tapped on the windows",
    "snow fell without a sound",
    "fog hid the hills",
    "the wind pulled at the trees",
    "the air smelled of flowers",
];
const ELDERS: [&str; 6] = ["mother", "father", "grandmother", "grandfather", "aunt", "uncle"];

/// Girls and boys.
const CHILDREN: [[&str; 8]; 2] = [
    ["Mia", "Lily", "Anna", "Rosa", "Nina", "Ella", "Clara", "Ruby"],
    ["Tom", "Ben", "Max", "Leo", "Sam", "Jack", "Finn", "Hugo"],
];
/// Animals, in texts of a neighbouring kind.
const ANIMALS: [&str; 8] = ["Pip", "Dot", "Hazel", "Clover", "Button", "Pepper", "Misty", "Willow"];

/// How sure a name gives the trait away, where it does.
const BIAS: f64 = 0.8;

/// One or two sentences, or three.
fn text(dice: &mut Dice, of: usize, who: &str, she: bool) -> String {
    let (he, his) = if she { ("she", "her") } else { ("he", "his") };
    let (habit, home, weather) = (HABITS[of], dice.of(&HOMES), dice.of(&WEATHERS));
    let capital = if she { "She" } else { "He" };
    match dice.below(4) {
        0 => format!("In {home} lived {who}. {capital} {habit}."),
        1 => format!("{who} lived in {home}, and {he} {habit}."),
        2 => format!("One day, {weather}. {who} was at home. {capital} {habit}."),
        _ => {
            let elder = dice.of(&ELDERS);
            format!("{who} lived in {home} with {his} {elder}. Everyone knew {who}, because {he} {habit}.")
        }
    }
}

/// Texts with their labels, of the first so many traits; names say nothing.
pub(crate) fn labelled(seed: u64, count: usize, traits: usize) -> Vec<Told> {
    let mut dice = Dice::new(seed);
    (0..count)
        .map(|at| {
            let she = dice.chance(0.5);
            let who = dice.of(&CHILDREN[usize::from(!she)]);
            (text(&mut dice, at % traits, who, she), at % traits)
        })
        .collect()
}

/// Texts of the first `traits` kinds in which names mostly have a trait of their own: those of a trait `shift` places further.
pub(crate) fn biased(seed: u64, count: usize, traits: usize, shift: usize) -> Vec<Told> {
    let mut dice = Dice::new(seed);
    let each = CHILDREN[0].len() / traits.max(1);
    (0..count)
        .map(|at| {
            let label = at % traits;
            let group = if dice.chance(BIAS) { (label + shift) % traits } else { dice.below(traits) };
            let she = dice.chance(0.5);
            let who = CHILDREN[usize::from(!she)][group * each + dice.below(each.max(1))];
            (text(&mut dice, label, who, she), label)
        })
        .collect()
}

/// Texts in which half of the time somebody else shows another trait; a part of them, `corrupted`, has another trait than the label says.
pub(crate) fn mixed(seed: u64, count: usize, corrupted: f64) -> Vec<Told> {
    let mut dice = Dice::new(seed);
    let another = |dice: &mut Dice, than: usize| (than + 1 + dice.below(TRAITS.len() - 1)) % TRAITS.len();
    (0..count)
        .map(|at| {
            let label = at % TRAITS.len();
            let shown = if dice.chance(corrupted) { another(&mut dice, label) } else { label };
            let she = dice.chance(0.5);
            let (he, his) = if she { ("she", "her") } else { ("he", "his") };
            let (who, home) = (dice.of(&CHILDREN[usize::from(!she)]), dice.of(&HOMES));
            let elder = dice.below(ELDERS.len());
            let aside = if dice.chance(0.5) {
                let capital = if elder.is_multiple_of(2) { "She" } else { "He" };
                format!("{capital} {}.", HABITS[another(&mut dice, shown)])
            } else {
                format!("One day, {}.", dice.of(&WEATHERS))
            };
            let (elder, habit) = (ELDERS[elder], HABITS[shown]);
            let text = if dice.chance(0.5) {
                format!("{who} lived in {home} with {his} {elder}. {aside} Everyone knew {who}, because {he} {habit}.")
            } else {
                format!("{who} was in {home}, and {he} {habit}. The {elder} was at home, too. {aside}")
            };
            (text, label)
        })
        .collect()
}

/// A sentence for each trait, without a word of what shows it.
pub(crate) fn descriptions() -> Vec<String> {
    TRAITS.iter().map(|word| format!("The child was {word}.")).collect()
}

/// Texts about animals.
pub(crate) fn near(seed: u64, count: usize, traits: usize) -> Vec<Told> {
    let mut dice = Dice::new(seed);
    (0..count)
        .map(|at| {
            let (who, she) = (dice.of(&ANIMALS), dice.chance(0.5));
            (text(&mut dice, at % traits, who, she), at % traits)
        })
        .collect()
}

/// A text without names.
pub(crate) fn hidden(text: &str) -> String {
    CHILDREN.iter().flatten().fold(text.to_owned(), |text, name| text.replace(name, "the child"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_do_not_say_their_label_and_names_give_it_away_where_they_should() {
        let (fair, biased, flipped) = (labelled(1, 400, 4), biased(1, 400, 4, 0), biased(1, 400, 4, 1));
        let own = |texts: &[Told]| {
            let named = |text: &str, label: usize| {
                CHILDREN
                    .iter()
                    .any(|names| names[2 * label..2 * label + 2].iter().any(|name| text.contains(name)))
            };
            texts.iter().filter(|(text, label)| named(text, *label)).count()
        };
        assert!(own(&biased) > 280 && own(&fair) < 160 && own(&flipped) < 60);
        for (text, label) in fair.iter().chain(&near(1, 40, 4)).chain(&mixed(1, 80, 0.0)) {
            assert!(!text.to_lowercase().contains(TRAITS[*label]) && text.contains(HABITS[*label]), "{text}");
        }
        assert!(!CHILDREN.iter().flatten().any(|name| hidden(&biased[0].0).contains(name)));
    }
}
