//! Generated manuals of invented programs: paragraphs with names of programs, options and paths, and headings that ask for them in
//! other words.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::data::labelled::tags::Tagged;
use crate::methods::workbench::one_of;

/// Tags of words.
pub(super) const TAGS: [&str; 4] = ["O", "TOOL", "OPTION", "PATH"];

/// What a program can be told: how a heading says it, how a paragraph says it, the option's name.
const TOPICS: [[&str; 3]; 30] = [
    ["limit retries", "bounds how often a failed call is made again", "max-attempts"],
    ["make it quiet", "suppresses all messages but errors", "silent"],
    ["save memory", "keeps fewer pages resident", "page-budget"],
    ["run in parallel", "starts several workers at once", "jobs"],
    ["encrypt traffic", "wraps the connection with a certificate", "tls"],
    ["rotate logs", "begins a new journal when the old one is full", "journal-size"],
    ["undo a change", "restores the previous revision", "rollback"],
    ["check before writing", "only shows what would happen", "dry-run"],
    ["speed up startup", "defers loading of modules", "lazy-init"],
    ["restrict access", "rejects users outside the group", "allow-group"],
    ["schedule work", "delays execution until the given hour", "start-at"],
    ["cap bandwidth", "throttles transfers to a rate", "rate"],
    ["compress output", "packs results with gzip", "zip-level"],
    ["skip broken items", "ignores records that do not parse", "lenient"],
    ["change colours", "selects a palette for the terminal", "theme"],
    ["wait longer", "extends the deadline of each request", "timeout"],
    ["keep history", "stores past commands in a database", "record"],
    ["clean the cache", "removes stale entries on exit", "purge"],
    ["pick a language", "translates messages to a locale", "locale"],
    ["follow links", "resolves symbolic references", "dereference"],
    ["mirror data", "copies every block to a second volume", "replica"],
    ["trace problems", "prints each step with its duration", "profile-steps"],
    ["sort results", "orders lines by a key", "order-by"],
    ["merge files", "joins inputs that share a prefix", "concat"],
    ["avoid duplicates", "drops rows seen before", "unique"],
    ["protect secrets", "masks passwords in reports", "redact"],
    ["use a proxy", "routes requests through another host", "gateway"],
    ["verify downloads", "compares checksums after fetching", "digest"],
    ["lower priority", "yields the processor to other tasks", "nice-level"],
    ["send mail", "notifies the administrator by letter", "notify"],
];
const SYLLABLES: [&str; 16] = [
    "vex", "tar", "lum", "grid", "mon", "quo", "pak", "sil", "dor", "fen", "rax", "bri", "nol", "zet", "cal",
    "wik",
];
const ENDINGS: [&str; 6] = ["ctl", "d", "", "fs", "sh", "mk"];
const FOLDERS: [&str; 5] = ["/etc", "/usr/lib", "/var/spool", "/opt", "/run"];
const FILES: [&str; 5] = ["main.conf", "rules.d", "state.db", "defaults.ini", "socket"];
const PEOPLE: [&str; 4] = ["wrote", "maintains", "reviewed", "documented"];

/// How many topics there are.
pub(super) const COUNT: usize = TOPICS.len();

/// The name of a program; the same number has the same name.
pub(super) fn tool(number: usize) -> String {
    let (first, second) = (number % SYLLABLES.len(), number / SYLLABLES.len() * 5 + number * 7 + 3);
    format!("{}{}{}", SYLLABLES[first], SYLLABLES[second % SYLLABLES.len()], ENDINGS[number % ENDINGS.len()])
}

/// A paragraph on a topic of a program, its words tagged.
pub(super) fn paragraph(tool: &str, topic: usize, random: &mut ChaCha8Rng) -> Tagged {
    let [_, says, option] = TOPICS[topic];
    let path = format!("{}/{tool}/{}", one_of(random, &FOLDERS), one_of(random, &FILES));
    let pattern = one_of(
        random,
        &[
            "the option -- {o} of {t} {s} . its value is read from {f} .",
            "{t} {s} when {o} is set in {f} .",
            "with {o} the program {t} {s} ; see {f} .",
            "{n} {v} the part of {t} that {s} ; name it {o} in {f} .",
            "{s} : {o} . {t} looks into {f} first , as {n} {v} .",
        ],
    );
    let mut tagged = Tagged::default();
    let mut push = |words: &str, tag: &str| {
        for word in words.split(' ') {
            tagged.words.push(word.to_string());
            tagged.tags.push(tag.to_string());
        }
    };
    for part in pattern.split(' ') {
        match part {
            "{o}" => push(option, "OPTION"),
            "{t}" => push(tool, "TOOL"),
            "{f}" => push(&path, "PATH"),
            "{s}" => push(says, "O"),
            // A person's name is made as a program's is: only the words around tell them apart.
            "{n}" => push(&format!("{}{}", one_of(random, &SYLLABLES), one_of(random, &SYLLABLES)), "O"),
            "{v}" => push(one_of(random, &PEOPLE), "O"),
            word => push(word, "O"),
        }
    }
    tagged
}

/// A heading that asks for a topic.
pub(super) fn heading(tool: &str, topic: usize, random: &mut ChaCha8Rng) -> String {
    let [asks, ..] = TOPICS[topic];
    one_of(random, &["how to {a} in {t}", "{a} with {t}", "{t} : {a}"])
        .replace("{a}", asks)
        .replace("{t}", tool)
}

/// Paragraphs with headings, as many of every topic, of some programs.
#[derive(Debug)]
pub(super) struct Manual {
    pub headings: Vec<String>,
    pub paragraphs: Vec<Tagged>,
}

impl Manual {
    pub fn new(tools: std::ops::Range<usize>, each: usize, seed: u64) -> Manual {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (mut headings, mut paragraphs) = (Vec::new(), Vec::new());
        for number in tools {
            let name = tool(number);
            for topic in (0..COUNT).cycle().take(each * COUNT) {
                headings.push(heading(&name, topic, &mut random));
                paragraphs.push(paragraph(&name, topic, &mut random));
            }
        }
        Manual { headings, paragraphs }
    }

    /// The paragraphs as text.
    pub fn texts(&self) -> Vec<String> {
        self.paragraphs.iter().map(|it| it.words.join(" ")).collect()
    }
}

/// A number of a range, for samples.
pub(super) fn some<T: Clone>(of: &[T], count: usize, seed: u64) -> Vec<T> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| of[random.random_range(0..of.len())].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_have_names_of_their_own_and_words_have_tags() {
        let mut names: Vec<String> = (0..60).map(tool).collect();
        names.sort();
        names.dedup();
        assert!(names.len() > 50, "{}", names.len());
        let manual = Manual::new(0..2, 1, 4);
        assert_eq!((manual.headings.len(), manual.paragraphs.len()), (2 * COUNT, 2 * COUNT));
        for it in &manual.paragraphs {
            assert_eq!(it.words.len(), it.tags.len());
            assert!(
                ["TOOL", "OPTION", "PATH"].iter().all(|tag| it.tags.iter().any(|own| own == tag)),
                "{it:?}"
            );
            assert!(!it.words.iter().any(|word| word.contains('{')), "{it:?}");
        }
    }
}
