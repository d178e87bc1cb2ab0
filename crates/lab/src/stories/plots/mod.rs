//! The plots, grouped by where they happen, with the openings and endings that every plot shares.

mod adventure;
mod friends;
mod home;
mod wonder;

use super::Plot;
use super::template::pick;
use rand_chacha::ChaCha8Rng;

/// Every group of plots; each plot is equally likely within its group, each group equally likely.
const GROUPS: &[&[Plot]] = &[home::PLOTS, friends::PLOTS, adventure::PLOTS, wonder::PLOTS];

/// Draws a plot.
pub(super) fn any(rng: &mut ChaCha8Rng) -> &'static Plot {
    let group = *pick(rng, GROUPS);
    pick(rng, group)
}

/// First sentences.
pub(super) const OPENINGS: &[&str] = &[
    "Once upon a time, there was {a:trait} {kind} named {hero}. {he} lived in {home}.",
    "Once upon a time, there was a little {kind} called {hero}. {hero} was very {trait}, and {habit}.",
    "Once upon a time, in {home}, there lived {a:trait} {kind}. {his} name was {hero}.",
    "There once was {a:trait} {kind} named {hero}, and {habit}.",
    "{hero} was {a:trait} {kind} who lived in {home} with {his} {elder}.",
    "Long ago, in {home}, {a:trait} {kind} named {hero} lived with {his} {elder}.",
    "In {home} lived a small {kind} called {hero}. Everyone knew that {hero} was {trait}, because {habit}.",
    "This is the story of {hero}, {a:trait} {kind} from {home}.",
    "A {kind} named {hero} lived in {home}. {he} was {trait}, and {habit}.",
];

/// Last sentences; half of the tales end with their plot.
pub(super) const ENDINGS: &[&str] = &[
    "",
    "",
    "",
    "",
    "",
    "And they all lived happily ever after.",
    "The end.",
    "From that day on, everyone talked about {his} {praise}.",
    "That night {hero} fell asleep with a smile.",
    "And {hero} never forgot that day.",
];
