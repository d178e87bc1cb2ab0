//! Snippets of a made-up language with defects, and what a reviewer says of them: three tasks, each a question in letters with its
//! answer.

use ounce_train::{Batch, IGNORE};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Letters there are: ASCII.
pub(super) const VOCABULARY: usize = 128;

/// What a reviewer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// Whether a snippet needs a review.
    Necessity,
    /// What is to be said of it.
    Comment,
    /// The snippet as it should be.
    Refine,
}

/// All tasks.
pub(super) const TASKS: [Task; 3] = [Task::Necessity, Task::Comment, Task::Refine];

const NAMES: [&str; 6] = ["a", "b", "n", "x", "sum", "top"];
const DEFECTS: [&str; 6] = ["unused", "off by one", "no check", "shadows", "magic", "wrong name"];

/// A snippet, what is wrong with it, and how it should be.
struct Snippet {
    code: String,
    defect: Option<usize>,
    clean: String,
}

fn snippet(random: &mut ChaCha8Rng) -> Snippet {
    let first = random.random_range(0..NAMES.len());
    let second = (first + random.random_range(1..NAMES.len())) % NAMES.len();
    let third = (0..NAMES.len()).find(|at| *at != first && *at != second).unwrap_or(0);
    let (x, y, z) = (NAMES[first], NAMES[second], NAMES[third]);
    let size = random.random_range(2..9);
    let clean = format!("let {x}=LEN;if {x}{{for {y}<{x}{{use {y}}}}}");
    let defect = random.random_bool(0.5).then(|| random.random_range(0..DEFECTS.len()));
    let code = match defect {
        None => clean.clone(),
        Some(0) => format!("let {z}=1;{clean}"),
        Some(1) => clean.replace(&format!("{y}<{x}"), &format!("{y}<={x}")),
        Some(2) => format!("let {x}=LEN;for {y}<{x}{{use {y}}}"),
        Some(3) => format!("let {x}=LEN;if {x}{{for {x}<{x}{{use {x}}}}}"),
        Some(4) => clean.replace("LEN", &size.to_string()),
        Some(_) => format!("let {x}=LEN;if {x}{{for {y}<{x}{{use {z}}}}}"),
    };
    // What is shadowed can't be told from the snippet: it gets the next name.
    let clean = match defect {
        Some(3) => {
            let y = NAMES[(first + 1) % NAMES.len()];
            format!("let {x}=LEN;if {x}{{for {y}<{x}{{use {y}}}}}")
        }
        _ => clean,
    };
    Snippet { code, defect, clean }
}

/// A question with its answer.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    text: Vec<u32>,
    /// Letters of the question.
    question: usize,
    /// Whether it is asked if a review is needed, and it is.
    pub needed: bool,
}

fn asked(question: &str, answer: &str, needed: bool) -> Asked {
    let text = format!("{question}{answer}\n").bytes().map(u32::from).collect();
    Asked { text, question: question.len(), needed }
}

/// Clean snippets, to learn the language from.
pub(super) fn clean(random: &mut ChaCha8Rng, count: usize) -> Vec<Vec<u32>> {
    (0..count).map(|_| format!("{}\n", snippet(random).clean).bytes().map(u32::from).collect()).collect()
}

/// General instructions on snippets: the first stage.
pub(super) fn instructions(random: &mut ChaCha8Rng, count: usize) -> Vec<Asked> {
    let of = |random: &mut ChaCha8Rng| {
        let it = snippet(random);
        match random.random_range(0..3) {
            0 => asked(&format!("copy|{}|", it.code), &it.code, false),
            1 => asked(&format!("length|{}|", it.code), &format!("{:02}", it.code.len()), false),
            _ => {
                let first: String = it.code.chars().skip(4).take_while(|c| *c != '=').collect();
                asked(&format!("first name|{}|", it.code), &first, false)
            }
        }
    };
    (0..count).map(|_| of(random)).collect()
}

/// Questions of a task; comments and refinements are asked of what has a defect.
pub(super) fn questions(task: Task, random: &mut ChaCha8Rng, count: usize) -> Vec<Asked> {
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let it = snippet(random);
        match (task, it.defect) {
            (Task::Necessity, defect) => {
                let answer = if defect.is_some() { "yes" } else { "no" };
                all.push(asked(&format!("review?|{}|", it.code), answer, defect.is_some()));
            }
            (Task::Comment, Some(defect)) => {
                all.push(asked(&format!("comment|{}|", it.code), DEFECTS[defect], false));
            }
            (Task::Refine, Some(_)) => all.push(asked(&format!("refine|{}|", it.code), &it.clean, false)),
            _ => {}
        }
    }
    all
}

/// The batch of some questions; answers alone are learned.
pub(super) fn batch<'a>(asked: impl Iterator<Item = &'a Asked>) -> Batch {
    let mut batch = Batch::default();
    for it in asked {
        let targets = it.text[1..].iter().enumerate();
        batch.tokens.extend(&it.text[..it.text.len() - 1]);
        batch.targets.extend(targets.map(|(at, id)| if at + 1 < it.question { IGNORE } else { *id }));
        batch.lengths.push(it.text.len() - 1);
    }
    batch
}

/// Of every question whether its whole answer is the likeliest, letter by letter: what writing greedily would give.
pub(super) fn right(logits: &[f32], batch: &Batch) -> Vec<bool> {
    let mut found = Vec::new();
    let mut start = 0;
    for &length in &batch.lengths {
        let likeliest = |row: usize| {
            let logits = &logits[row * VOCABULARY..(row + 1) * VOCABULARY];
            (0..VOCABULARY).fold(0, |best, id| if logits[id] > logits[best] { id } else { best }) as u32
        };
        let mut rows = (start..start + length).filter(|row| batch.targets[*row] != IGNORE);
        found.push(rows.all(|row| likeliest(row) == batch.targets[row]));
        start += length;
    }
    found
}
