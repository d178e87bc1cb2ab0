//! Notes on patients, each of which belongs to a ward: symptoms, most of them the ward's own, some shared, some of others.

use super::{Dice, Told};

/// Wards, and the words that are asked for.
pub(crate) const WARDS: [&str; 4] = ["heart", "lung", "bone", "skin"];

const SYMPTOMS: [&[&str]; 4] = [
    &[
        "a racing pulse",
        "swollen ankles",
        "pressure in the chest",
        "a weak beat",
        "fainting spells",
        "high pressure",
        "short breath",
        "cold hands",
        "a murmur",
        "pain down the arm",
    ],
    &[
        "a dry cough",
        "wheezing",
        "short breath",
        "thick phlegm",
        "a whistling chest",
        "night coughing",
        "blood in the phlegm",
        "pressure in the chest",
        "a hoarse voice",
        "shallow breathing",
    ],
    &[
        "a stiff knee",
        "a sore hip",
        "a broken wrist",
        "pain on walking",
        "swollen ankles",
        "a bent back",
        "a cracked rib",
        "stiff fingers",
        "pain down the arm",
        "a limp",
    ],
    &[
        "a red rash",
        "dry patches",
        "itching",
        "small blisters",
        "cold hands",
        "a dark mole",
        "flaking",
        "burning spots",
        "stiff fingers",
        "pale marks",
    ],
];

const OTHER: [&str; 6] = ["poor sleep", "a mild fever", "a headache", "little hunger", "tiredness", "worry"];

const WHO: [&str; 8] = [
    "an old man",
    "a young woman",
    "a farmer",
    "a teacher",
    "a retired nurse",
    "a tall boy",
    "a mother of two",
    "a driver",
];

/// Share of symptoms that are the ward's own; of the rest half say nothing and half are another ward's.
const OWN: f64 = 0.6;

/// A note without a word of its ward.
fn note(dice: &mut Dice, ward: usize) -> String {
    let symptom = |dice: &mut Dice| {
        if dice.chance(OWN) {
            dice.of(SYMPTOMS[ward])
        } else if dice.chance(0.5) {
            dice.of(&OTHER)
        } else {
            let other = dice.below(WARDS.len());
            dice.of(SYMPTOMS[other])
        }
    };
    let who = dice.of(&WHO);
    let [a, b, c, d] = [(); 4].map(|()| symptom(dice));
    match dice.below(3) {
        0 => format!("Seen today: {who} with {a} and {b}. There is also {c}."),
        1 => format!("{who} came in with {a}. The note speaks of {b}, {c} and {d}."),
        _ => format!("Complaint: {a}, {b}. Since last week {who} has had {c} and {d}."),
    }
}

/// Notes with their wards.
pub(crate) fn labelled(seed: u64, count: usize) -> Vec<Told> {
    let mut dice = Dice::new(seed);
    (0..count).map(|at| (note(&mut dice, at % WARDS.len()), at % WARDS.len())).collect()
}

/// Notes as they lie around: half of them say in some words where the patient went.
pub(crate) fn unlabelled(seed: u64, count: usize) -> Vec<String> {
    let mut dice = Dice::new(seed);
    (0..count)
        .map(|_| {
            let ward = dice.below(WARDS.len());
            let (text, name) = (note(&mut dice, ward), WARDS[ward]);
            if dice.chance(0.5) {
                return text;
            }
            match dice.below(4) {
                0 => format!("{text} The patient was sent to the {name} ward."),
                1 => format!("{text} A bed is free in the {name} ward."),
                2 => format!("{text} Our {name} team took over."),
                _ => format!("{text} Next visit: the {name} doctor."),
            }
        })
        .collect()
}
