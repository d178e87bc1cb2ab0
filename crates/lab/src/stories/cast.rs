//! Draws the people, things and places of one story and puts them into slots.

use super::people::{self, Gender};
use super::template::{Slots, below, chance, pick};
use super::things;
use rand_chacha::ChaCha8Rng;

/// What a plot needs beside its hero, friend, elder and helper, who are always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// A toy: `toy`, `use`, `broken`, `mended`.
    Toy,
    /// A place outside: `place`, `there`, `spot`, `spot2`, `sight`.
    Place,
    /// Something to bake: `food`, `part`.
    Food,
    /// Something to learn: `skill`, `skilling`, `fail`, `tip`, `success`.
    Skill,
    /// Something to fear: `fear`, `why`, `truth`, `calm`.
    Fear,
    /// An animal in need: `patient`, `trouble`, `cure`.
    Patient,
    /// A gift made by hand: `gift`, `material`.
    Gift,
    /// Something magic: `magic`, `power`, `wrong`, `lesson`.
    Magic,
    /// Numbers that add up: `things`, `n`, `m`, `left`, `more`, `total`.
    Numbers,
}

/// Draws the cast, the home, the weather and the colours of a story, then what the plot asks for.
pub fn draw(rng: &mut ChaCha8Rng, wanted: &[Draw]) -> Slots {
    let mut slots = Slots::new();
    cast(rng, &mut slots);
    let (weather, effect) = *pick(rng, things::WEATHERS);
    set(&mut slots, &[("weather", weather), ("effect", effect)]);
    set(&mut slots, &[("daytime", *pick(rng, things::DAYTIMES)), ("colour", *pick(rng, things::COLOURS))]);
    for &one in wanted {
        draw_one(rng, one, &mut slots);
    }
    slots
}

fn set(slots: &mut Slots, pairs: &[(&'static str, &str)]) {
    for &(name, value) in pairs {
        slots.insert(name, value.to_owned());
    }
}

fn gender(rng: &mut ChaCha8Rng) -> Gender {
    if chance(rng, 50) { people::SHE } else { people::HE }
}

fn child_name(rng: &mut ChaCha8Rng, gender: Gender) -> &'static str {
    let names = if gender == people::SHE { people::GIRLS } else { people::BOYS };
    names[below(rng, names.len())]
}

/// Hero and friend are both children or both animals; their names and, for animals, kinds differ.
fn cast(rng: &mut ChaCha8Rng, slots: &mut Slots) {
    let (hero_gender, friend_gender) = (gender(rng), gender(rng));
    if chance(rng, 65) {
        let name = child_name(rng, hero_gender);
        let friend = loop {
            let other = child_name(rng, friend_gender);
            if other != name {
                break other;
            }
        };
        set(
            slots,
            &[
                ("hero", name),
                ("kind", hero_gender.child),
                ("friend", friend),
                ("fkind", friend_gender.child),
            ],
        );
        set(slots, &[("home", *pick(rng, people::HOMES))]);
    } else {
        let (kind, home) = *pick(rng, people::ANIMALS);
        let name = *pick(rng, people::PET_NAMES);
        let (fkind, friend) = loop {
            let (other_kind, other) = (pick(rng, people::ANIMALS).0, *pick(rng, people::PET_NAMES));
            if other_kind != kind && other != name {
                break (other_kind, other);
            }
        };
        set(slots, &[("hero", name), ("kind", kind), ("friend", friend), ("fkind", fkind), ("home", home)]);
    }
    set(slots, &[("he", hero_gender.he), ("him", hero_gender.him), ("his", hero_gender.his)]);
    set(slots, &[("fhe", friend_gender.he), ("fhim", friend_gender.him), ("fhis", friend_gender.his)]);
    let (adjective, habit, praise) = *pick(rng, people::TRAITS);
    set(slots, &[("trait", adjective), ("habit", habit), ("praise", praise)]);
    let (elder, g) = *pick(rng, people::ELDERS);
    set(slots, &[("elder", elder), ("ehe", g.he), ("ehim", g.him), ("ehis", g.his)]);
    let (helper, g) = *pick(rng, people::HELPERS);
    set(slots, &[("helper", helper), ("hhe", g.he), ("hhim", g.him), ("hhis", g.his)]);
}

fn draw_one(rng: &mut ChaCha8Rng, wanted: Draw, slots: &mut Slots) {
    match wanted {
        Draw::Toy => {
            let (toy, used, broken, mended) = *pick(rng, things::TOYS);
            set(slots, &[("toy", toy), ("use", used), ("broken", broken), ("mended", mended)]);
        }
        Draw::Place => {
            let (place, there, spot, spot2, sight) = *pick(rng, things::PLACES);
            set(
                slots,
                &[("place", place), ("there", there), ("spot", spot), ("spot2", spot2), ("sight", sight)],
            );
        }
        Draw::Food => {
            let (food, part) = *pick(rng, things::FOODS);
            set(slots, &[("food", food), ("part", part)]);
        }
        Draw::Skill => {
            let (skill, skilling, fail, tip, success) = *pick(rng, things::SKILLS);
            set(slots, &[("skill", skill), ("skilling", skilling), ("fail", fail), ("tip", tip)]);
            set(slots, &[("success", success)]);
        }
        Draw::Fear => {
            let (fear, why, truth, calm) = *pick(rng, things::FEARS);
            set(slots, &[("fear", fear), ("why", why), ("truth", truth), ("calm", calm)]);
        }
        Draw::Patient => {
            let (patient, trouble, cure) = *pick(rng, things::PATIENTS);
            set(slots, &[("patient", patient), ("trouble", trouble), ("cure", cure)]);
        }
        Draw::Gift => {
            let (gift, material) = *pick(rng, things::GIFTS);
            set(slots, &[("gift", gift), ("material", material)]);
        }
        Draw::Magic => {
            let (magic, power, wrong, lesson) = *pick(rng, things::MAGICS);
            set(slots, &[("magic", magic), ("power", power), ("wrong", wrong), ("lesson", lesson)]);
        }
        Draw::Numbers => numbers(rng, slots),
    }
}

/// `n` things, of which `m` are given away so that `left` remain; with `more` found again there are `total`.
fn numbers(rng: &mut ChaCha8Rng, slots: &mut Slots) {
    let n = 4 + below(rng, 7);
    let m = 1 + below(rng, n - 3);
    let more = 2 + below(rng, 5);
    let left = n - m;
    let word = |k: usize| things::NUMBERS[k];
    set(slots, &[("things", pick(rng, things::COUNTED).0), ("n", word(n)), ("m", word(m))]);
    set(slots, &[("left", word(left)), ("more", word(more)), ("total", word(left + more))]);
}
