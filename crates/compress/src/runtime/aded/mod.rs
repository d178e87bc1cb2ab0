//! ADED (Liu et al. 2024, "Adaptive draft-verification for efficient LLM decoding", arXiv 2407.12021): a table of three-token
//! runs drafts continuations by a tree search, the model checks all drafts in one forward pass, and the table follows the
//! model's own probabilities. The table and its search are in [`ounce_engine::draft::tri_gram`]; here is the loop around them.
//!
//! The paths of the draft tree are checked as sequences of a batch that share the keys and values of the text so far: each is a
//! fork of the session, and a path's tokens see exactly their ancestors. What is accepted is what the model would have
//! written: at temperature 0 the likeliest token at each place, one after the other.

mod demonstrate;

use std::time::{Duration, Instant};

use ounce_engine::draft::{PromptLookup, Search, TriGrams};
use ounce_engine::sample::logprobs;
use ounce_engine::{Engine, Session, Turn, Want};
use ounce_eval::method::{Family, Method};

use crate::Result;

/// Its number in the catalogue.
pub const NUMBER: u16 = 56;

/// The catalogue's entry.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "ADED",
    family: Family::Runtime,
    paper: "Adaptive Draft-Verification for Efficient Large Language Model Decoding",
    arxiv: Some("2407.12021"),
    gives: "Decoding gets faster without a draft model: a small table of what was said before proposes tokens and the model checks them.",
    claim: "Clear acceleration over several models and benchmarks, with unchanged output quality.",
    command: Some("ounce serve ./model.gguf"),
    demonstrate: Some(demonstrate::demonstrate),
};

/// Likeliest tokens of the model that the table is told of.
const TOLD: usize = 8;

/// Who guesses.
#[derive(Debug, Clone)]
pub enum Drafter {
    /// Nobody: one token a step.
    Nobody,
    /// What followed the same tokens earlier in the text.
    Lookup {
        /// Where runs were seen.
        lookup: PromptLookup,
        /// Tokens of a draft.
        depth: usize,
    },
    /// The table's likeliest chain.
    Chain {
        /// The table.
        table: TriGrams,
        /// Tokens of a draft.
        depth: usize,
    },
    /// Paths found by a search of the table.
    Tree {
        /// The table.
        table: TriGrams,
        /// How long is searched.
        search: Search,
        /// Whether the table follows the model.
        adapt: bool,
    },
}

impl Drafter {
    /// Paths that may follow a text; none begins another.
    fn draft(&mut self, text: &[u32], seed: u64) -> Vec<Vec<u32>> {
        let [.., a, b] = *text else { return Vec::new() };
        let paths = match self {
            Drafter::Nobody => Vec::new(),
            Drafter::Lookup { lookup, depth } => vec![lookup.draft(text, *depth)],
            Drafter::Chain { table, depth } => vec![table.chain((a, b), *depth, 0.0)],
            Drafter::Tree { table, search, .. } => table.search((a, b), search, seed),
        };
        paths.into_iter().filter(|path| !path.is_empty()).collect()
    }

    /// Takes note of what the model thinks follows `context`.
    fn learn(&mut self, context: (u32, u32), logits: &[f32]) {
        if let Drafter::Tree { table, adapt: true, .. } = self {
            let (_, top) = logprobs(logits, 0, TOLD);
            let told: Vec<(u32, f32)> = top.iter().map(|top| (top.id, top.logprob.exp())).collect();
            table.adapt(context, &told);
        }
    }
}

/// How a text was written.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// The tokens behind the prompt.
    pub tokens: Vec<u32>,
    /// Forward passes behind the prompt.
    pub passes: usize,
    /// Tokens in them.
    pub rows: usize,
    /// Time of all of it, without the prompt.
    pub time: Duration,
    /// Time of the drafter alone.
    pub drafting: Duration,
}

/// Writes `count` tokens behind a prompt, the likeliest one at each place, with drafts checked ahead.
///
/// # Errors
/// If the prompt does not fit the model.
pub fn write(engine: &Engine, prompt: &[u32], count: usize, drafter: &mut Drafter) -> Result<Written> {
    let mut session = engine.session();
    let vocab = engine.spec().vocab_size;
    let mut batch = engine.batch();
    let mut text = prompt.to_vec();
    let first = session.feed(prompt, |_| {})?;
    text.push(likeliest(&first));
    let start = Instant::now();
    let mut written = Written::default();
    while text.len() < prompt.len() + count {
        let drafting = Instant::now();
        let mut paths = drafter.draft(&text, text.len() as u64);
        // The model's own token is always among what comes of a step.
        let room = prompt.len() + count - text.len() - 1;
        paths.iter_mut().for_each(|path| path.truncate(room));
        paths.retain(|path| !path.is_empty());
        written.drafting += drafting.elapsed();
        if paths.is_empty() {
            paths.push(Vec::new());
        }
        let held = session.tokens().len();
        let ids: Vec<Vec<u32>> = paths.iter().map(|path| [&text[held..], path].concat()).collect();
        let mut forks: Vec<Session<'_>> = (1..paths.len()).map(|_| session.fork(held)).collect();
        let mut turns: Vec<Turn<'_, '_>> = [&mut session]
            .into_iter()
            .chain(&mut forks)
            .zip(&ids)
            .map(|(session, ids)| Turn { session, ids, want: Want::All })
            .collect();
        let logits = batch.step(&mut turns)?;
        written.passes += 1;
        written.rows += ids.iter().map(Vec::len).sum::<usize>();
        // Where each path's logits begin, and how many of its tokens the model agrees with.
        let (mut from, mut best) = (0, (0, 0, 0));
        for (path, draft) in paths.iter().enumerate() {
            let rows = logits[from..from + ids[path].len() * vocab].chunks_exact(vocab);
            let right = rows.zip(draft).take_while(|(row, token)| likeliest(row) == **token).count();
            if path == 0 || right > best.1 {
                best = (path, right, from);
            }
            from += ids[path].len() * vocab;
        }
        let (path, right, from) = best;
        for row in logits[from..].chunks_exact(vocab).take(right + 1) {
            let drafting = Instant::now();
            drafter.learn((text[text.len() - 2], text[text.len() - 1]), row);
            written.drafting += drafting.elapsed();
            text.push(likeliest(row));
        }
        if path > 0 {
            session = forks.swap_remove(path - 1);
        }
        // Keys and values of the accepted path only.
        session.truncate(held + 1 + right);
    }
    written.time = start.elapsed();
    written.tokens = text[prompt.len()..].to_vec();
    Ok(written)
}

/// The first of the greatest values.
fn likeliest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, value) in logits.iter().enumerate() {
        if *value > logits[best] {
            best = index;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ounce_engine::Mode;
    use ounce_model::Model;

    use super::*;

    #[test]
    fn whoever_guesses_the_text_is_the_same_and_takes_fewer_passes() {
        let model = Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/assets/tiny")).unwrap();
        let engine = Engine::load(&model, Mode::fast()).unwrap();
        let tokenizer = model.tokenizer.as_ref().unwrap();
        let prompt =
            tokenizer.encode("Once upon a time there was a little girl. The little girl", true).unwrap();
        let plain = write(&engine, &prompt, 60, &mut Drafter::Nobody).unwrap();
        assert_eq!((plain.tokens.len(), plain.passes), (60, 59));
        let mut table = TriGrams::new(0.3);
        table.count(&plain.tokens);
        let search = Search { paths: 4, ..Search::default() };
        let drafters = [
            Drafter::Lookup { lookup: PromptLookup::default(), depth: 4 },
            Drafter::Chain { table: table.clone(), depth: 4 },
            Drafter::Tree { table: TriGrams::new(0.3), search, adapt: true },
            Drafter::Tree { table, search, adapt: false },
        ];
        for mut drafter in drafters {
            let written = write(&engine, &prompt, 60, &mut drafter).unwrap();
            assert_eq!(written.tokens, plain.tokens, "{drafter:?}");
            assert!(written.passes <= plain.passes);
        }
    }
}
