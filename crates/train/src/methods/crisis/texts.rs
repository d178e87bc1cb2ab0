//! Generated posts of disasters: requests, offers, and what looks like one of them and is neither.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::methods::workbench::one_of;

/// Names of labels, by their numbers.
pub(super) const LABELS: [&str; 3] = ["request", "offer", "neither"];
pub(super) const REQUEST: usize = 0;
pub(super) const OFFER: usize = 1;
pub(super) const NEITHER: usize = 2;

pub(super) const NEED: [&str; 12] = [
    "need",
    "require",
    "are short of",
    "are desperate for",
    "could use",
    "are out of",
    "beg for",
    "lack",
    "run low on",
    "wait for",
    "are missing",
    "have no",
];
pub(super) const HAVE: [&str; 12] = [
    "have",
    "can bring",
    "give away",
    "can spare",
    "offer",
    "can drop off",
    "got spare",
    "hand out",
    "donate",
    "share our",
    "lend",
    "stocked up on extra",
];
const THINGS: [&str; 24] = [
    "water",
    "food",
    "blankets",
    "tents",
    "a boat",
    "diapers",
    "insulin",
    "a generator",
    "fuel",
    "sandbags",
    "clothes",
    "a ride",
    "medicine",
    "batteries",
    "baby formula",
    "shelter",
    "a doctor",
    "bread",
    "a pump",
    "flashlights",
    "beds",
    "soap",
    "a truck",
    "masks",
];
const WE: [&str; 6] =
    ["we", "my parents", "people here", "our neighbours", "the kids here", "me and two friends"];
const URGENT: [&str; 6] = ["urgent", "asap", "right now", "please hurry", "sos", "it is getting dark"];
const STREETS: [&str; 6] = ["bridge", "school", "church", "station", "harbour", "market"];
/// Disasters, each with places of its own.
const EVENTS: [(&str, [&str; 3]); 12] = [
    ("stormada", ["milton", "oakdale", "fairview"]),
    ("floodwest", ["riverton", "marsh end", "lowell"]),
    ("quake24", ["sanvito", "alta", "monterra"]),
    ("firecrest", ["pine ridge", "cedarville", "ashby"]),
    ("cyclonebo", ["port elu", "kamora", "tiani"]),
    ("slide77", ["hohberg", "steinach", "altdorf"]),
    ("tornadomay", ["wheatley", "garner", "elk city"]),
    ("bigfreeze", ["norrland", "iskov", "vinter bay"]),
    ("surgelea", ["westkap", "duinen", "zandvoort"]),
    ("quakelima", ["tarapa", "iquo", "chalena"]),
    ("hurricanejo", ["bayou vert", "st clair", "grand isle"]),
    ("heatdome", ["redrock", "mesa", "dry creek"]),
];
/// Of these, posts to be judged by come.
pub(super) const TEST_EVENTS: std::ops::Range<usize> = 8..12;
pub(super) const TRAIN_EVENTS: std::ops::Range<usize> = 0..8;

/// Ways to say things: `{w}` who, `{n}` needs, `{h}` has, `{t}` a thing, `{p}` a place, `{u}` a call.
const SAYS: [&[&str]; 3] = [
    &[
        "{w} {n} {t} at {p}",
        "{u} {p} : {w} {n} {t}",
        "{w} in {p} {n} {t} and {t} {u}",
        "can anyone bring {t} to {p}",
        "please send {t} to {p} {u}",
        "{t} wanted at {p} {u}",
        "stuck near {p} without {t} , help",
    ],
    &[
        "{w} {h} {t} at {p}",
        "{p} : {w} {h} {t} , come by",
        "{w} {h} {t} and {t} for {p}",
        "free {t} at {p} for whoever needs it",
        "message me if you need {t} in {p} , {w} {h} some",
        "happy to deliver {t} around {p}",
        "{t} available at {p} , just ask",
    ],
    &[
        "praying for all who {n} {t} in {p}",
        "my heart is with {p} tonight",
        "keep {t} ready if you live near {p}",
        "tip : if you {n} {t} never wait until {p} floods",
        "officials say hundreds {n} {t} in {p}",
        "the paper reports shops in {p} {h} {t}",
        "update : {w} no longer {n} {t} at {p}",
        "yesterday {w} could {h} {t} , all gone now in {p}",
    ],
];
/// How often each label comes, in per cent.
const SHARES: [u32; 3] = [30, 25, 45];

/// A post with what is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Post {
    pub text: String,
    pub label: usize,
}

/// Posts of some disasters.
pub(super) fn posts(count: usize, events: std::ops::Range<usize>, seed: u64) -> Vec<Post> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| post(events.clone(), &mut random)).collect()
}

fn post(events: std::ops::Range<usize>, random: &mut ChaCha8Rng) -> Post {
    let (tag, places) = EVENTS[random.random_range(events)];
    let draw = random.random_range(0..100);
    let label = if draw < SHARES[0] { REQUEST } else { OFFER + usize::from(draw >= SHARES[0] + SHARES[1]) };
    let mut text = String::new();
    let mut rest = one_of(random, SAYS[label]);
    while let Some((before, after)) = rest.split_once('{') {
        text += before;
        let place;
        text += match after.as_bytes().first() {
            Some(b'w') => one_of(random, &WE),
            Some(b'n') => one_of(random, &NEED),
            Some(b'h') => one_of(random, &HAVE),
            Some(b't') => one_of(random, &THINGS),
            Some(b'u') => one_of(random, &URGENT),
            _ => {
                place = format!("{} {}", one_of(random, &places), one_of(random, &STREETS));
                &place
            }
        };
        rest = &after[2..];
    }
    text += rest;
    let mut words: Vec<String> = text.split(' ').map(|word| noisy(word, random)).collect();
    if random.random_bool(0.3) {
        words.insert(0, format!("@{}{}", one_of(random, &WE[..1]), random.random_range(1..99)));
    }
    if random.random_bool(0.4) {
        words.push(format!("#{tag}"));
    }
    if random.random_bool(0.2) {
        words.push(format!("https://t.co/{}", random.random_range(1000..9999)));
    }
    Post { text: words.join(" "), label }
}

/// Now and then two letters change places, or a word is shouted.
fn noisy(word: &str, random: &mut ChaCha8Rng) -> String {
    if word.len() > 3 && word.is_ascii() && random.random_bool(0.04) {
        let at = random.random_range(0..word.len() - 1);
        let mut letters = word.as_bytes().to_vec();
        letters.swap(at, at + 1);
        return String::from_utf8_lossy(&letters).into_owned();
    }
    if random.random_bool(0.04) { word.to_uppercase() } else { word.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn posts_have_all_labels_and_places_of_their_events() {
        let posts = posts(600, TEST_EVENTS, 3);
        for label in 0..LABELS.len() {
            assert!(posts.iter().filter(|post| post.label == label).count() > 100);
        }
        let all: String = posts.iter().map(|post| post.text.to_lowercase() + "\n").collect();
        assert!(all.contains("#heatdome") && !all.contains("#quake24") && !all.contains('{'), "{all}");
    }
}
