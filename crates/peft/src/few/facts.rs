//! Passages on people of a town, and questions for them in other words.

use super::Dice;
use crate::retrieval::Pair;

const NAMES: [&str; 24] = [
    "Anna", "Bert", "Clara", "David", "Ella", "Frank", "Greta", "Hugo", "Irma", "Jonas", "Karla", "Leo",
    "Marta", "Nils", "Olga", "Paul", "Rosa", "Sven", "Tilda", "Udo", "Vera", "Willi", "Zita", "Emil",
];

/// What people sell, in the words of passages and in those of questions.
const GOODS: [[&str; 2]; 12] = [
    ["bread", "loaves"],
    ["shoes", "boots"],
    ["hats", "caps"],
    ["fish", "trout"],
    ["books", "novels"],
    ["clocks", "watches"],
    ["flowers", "roses"],
    ["pots", "pans"],
    ["chairs", "stools"],
    ["wine", "drinks"],
    ["toys", "dolls"],
    ["lamps", "lights"],
];

const PLACES: [[&str; 2]; 10] = [
    ["bridge", "crossing"],
    ["church", "chapel"],
    ["mill", "wheel"],
    ["harbour", "port"],
    ["school", "classroom"],
    ["wood", "forest"],
    ["hill", "slope"],
    ["market", "square"],
    ["well", "spring"],
    ["gate", "wall"],
];

const DAYS: [[&str; 2]; 6] = [
    ["Monday", "the first day"],
    ["Friday", "the fifth day"],
    ["Sunday", "the holy day"],
    ["morning", "early hours"],
    ["evening", "late hours"],
    ["winter", "cold months"],
];

/// Who sells what, where and when.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Fact([usize; 4]);

/// All there are, in an order of their own; a passage has one.
fn facts(seed: u64, count: usize) -> Vec<Fact> {
    let mut dice = Dice::new(seed);
    let mut all: Vec<Fact> = Vec::new();
    let mut known = std::collections::HashSet::new();
    while all.len() < count.min(FACTS) {
        let fact = Fact([NAMES.len(), GOODS.len(), PLACES.len(), DAYS.len()].map(|kinds| dice.below(kinds)));
        // Goods, place and day are what is asked for: they are one passage's.
        if known.insert((fact.0[1], fact.0[2], fact.0[3])) {
            all.push(fact);
        }
    }
    all
}

/// The most facts that differ in what is asked for.
const FACTS: usize = GOODS.len() * PLACES.len() * DAYS.len();

fn passage(dice: &mut Dice, Fact([who, goods, place, day]): Fact) -> String {
    let (who, goods, place, day) = (NAMES[who], GOODS[goods][0], PLACES[place][0], DAYS[day][0]);
    match dice.below(3) {
        0 => format!("{who} sells {goods} near the {place}, open on {day}."),
        1 => format!("Near the {place} there is the shop of {who} with {goods}; {day} is its time."),
        _ => format!("On {day} you find {who} near the {place} with {goods} to sell."),
    }
}

fn question(dice: &mut Dice, Fact([_, goods, place, day]): Fact) -> String {
    let (goods, place, day) = (GOODS[goods][1], PLACES[place][1], DAYS[day][1]);
    match dice.below(2) {
        0 => format!("Who offers {goods} by the {place} in {day}?"),
        _ => format!("Where by the {place} can one buy {goods} in {day}?"),
    }
}

/// Pairs to learn from, pairs to choose by, pairs to be judged by, and passages that answer nobody's question; no fact comes twice.
pub(crate) fn pairs(seed: u64, [learn, choose, judge, more]: [usize; 4]) -> ([Vec<Pair>; 3], Vec<String>) {
    let mut dice = Dice::new(seed ^ 0xfac7);
    let all = facts(seed, learn + choose + judge + more);
    let mut made = all.iter().map(|&fact| (question(&mut dice, fact), passage(&mut dice, fact)));
    let mut take = |count: usize| -> Vec<Pair> {
        let some = made.by_ref().take(count);
        some.map(|(query, passage)| Pair { query, passage, negatives: Vec::new() }).collect()
    };
    let parts = [take(learn), take(choose), take(judge)];
    (parts, made.map(|(_, passage)| passage).collect())
}
