//! Prompts that no server has seen.

use std::path::Path;

use anyhow::bail;
use ounce_lab::stories;
use ounce_train::data::readers::{Content, ReadOptions, Record, Records};
use serde_json::Value;

/// Letters of a token, about.
const LETTERS: usize = 4;

/// Where prompts come from.
enum Source {
    /// Made-up tales.
    Tales,
    /// Pieces of a text.
    Text(Vec<char>),
    /// Prompts that are taken as they are.
    Whole(std::vec::IntoIter<String>),
}

/// Gives prompts, each once.
pub(super) struct Prompts {
    source: Source,
    /// Letters of a prompt, and of what all of one call share; not for whole ones.
    letters: usize,
    shared: usize,
    /// How often a prompt says its piece.
    repeat: usize,
    given: u64,
}

impl Prompts {
    /// Prompts of so many tokens, of which the first ones are shared; from a text if there is one.
    pub fn new(text: Option<&str>, tokens: usize, shared: usize, repeat: usize) -> anyhow::Result<Prompts> {
        let letters = LETTERS * tokens;
        if shared >= tokens {
            bail!("--shared should be below --prompt: something of each prompt is its own");
        }
        let source = text.map_or(Source::Tales, |text| Source::Text(text.chars().collect()));
        if let Source::Text(text) = &source
            && text.len() < 2 * letters
        {
            bail!(
                "the text has {} letters; prompts of {tokens} tokens want {} at least",
                text.len(),
                2 * letters
            );
        }
        Ok(Prompts { source, letters, shared: LETTERS * shared, repeat, given: 0 })
    }

    /// The `prompt` of each record of a file, or each document of a text.
    pub fn of_file(path: &Path) -> anyhow::Result<Prompts> {
        let mut whole = Vec::new();
        for record in Records::open(&[path.to_path_buf()], &ReadOptions::default())? {
            let Record { place, content } = record?;
            let prompt = match &content {
                Content::Text(text) => Some(text.as_str()),
                Content::Fields(fields) => fields.get("prompt").and_then(Value::as_str),
            };
            let Some(prompt) = prompt.filter(|it| !it.is_empty()) else {
                bail!("{place}: there is no \"prompt\" with a text");
            };
            whole.push(prompt.to_owned());
        }
        Ok(Prompts { source: Source::Whole(whole.into_iter()), letters: 0, shared: 0, repeat: 1, given: 0 })
    }

    /// So many letters of the next tale, or of the text from the next place on.
    fn piece(&mut self, letters: usize) -> String {
        self.given += 1;
        match &self.source {
            Source::Text(text) => {
                // Steps of a prime number of letters: no two prompts begin at one place before all places were used.
                let start = (self.given as usize).wrapping_mul(7919) % (text.len() - letters);
                text[start..start + letters].iter().collect()
            }
            _ => stories::corpus(0x5eed + self.given, letters + 64).chars().take(letters).collect(),
        }
    }

    /// The next prompts.
    ///
    /// # Errors
    /// If a file has no more.
    pub fn next(&mut self, count: usize) -> anyhow::Result<Vec<String>> {
        if let Source::Whole(whole) = &mut self.source {
            if whole.len() < count {
                bail!(
                    "the file of prompts has {} left and {count} are needed, since none is asked twice; give more of them, or fewer --requests and --turns",
                    whole.len()
                );
            }
            return Ok(whole.take(count).collect());
        }
        let (own, shared) = (self.letters - self.shared, self.shared);
        let beginning = if shared > 0 { self.piece(shared) } else { String::new() };
        // A number in front of what is its own, since tales begin alike.
        let prompts = (0..count).map(|_| {
            let piece = vec![self.piece(own / self.repeat); self.repeat].join("\n");
            format!("{beginning}{} {piece}", self.given)
        });
        Ok(prompts.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prompt_comes_twice_and_what_is_shared_is_shared() {
        let text: String = (0..4000).map(|at| char::from(b'a' + (at * at % 26) as u8)).collect();
        for text in [None, Some(text.as_str())] {
            let mut prompts = Prompts::new(text, 40, 20, 1).expect("long enough");
            let (first, second) = (prompts.next(6).expect("made"), prompts.next(6).expect("made"));
            let mut all: Vec<&String> = first.iter().chain(&second).collect();
            all.sort();
            all.dedup();
            assert_eq!(all.len(), 12);
            let beginning: String = first[0].chars().take(80).collect();
            assert!(first.iter().all(|it| it.starts_with(&beginning)));
            assert!(!second[0].starts_with(&beginning));
            assert!(first.iter().all(|it| (160..170).contains(&it.chars().count())));
        }
        let file = std::env::temp_dir().join(format!("ounce-prompts-{}.jsonl", std::process::id()));
        std::fs::write(&file, "{\"prompt\": \"one\"}\n\n{\"prompt\": \"two\", \"completion\": \"x\"}\n{\"prompt\": \"three\"}\n")
            .expect("written");
        let mut prompts = Prompts::of_file(&file).expect("read");
        assert_eq!(prompts.next(2).expect("there"), ["one", "two"]);
        assert!(prompts.next(2).is_err());
        std::fs::write(&file, "{\"text\": \"one\"}").expect("written");
        assert!(Prompts::of_file(&file).is_err());
        std::fs::remove_file(&file).expect("removed");
        assert!(Prompts::new(Some("short"), 40, 0, 1).is_err());
        assert!(Prompts::new(None, 40, 40, 1).is_err());
    }
}
