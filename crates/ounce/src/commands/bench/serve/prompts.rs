//! Prompts that no server has seen.

use std::path::Path;

use anyhow::{Context, bail};
use ounce_lab::stories;

/// Letters of a token, about.
const LETTERS: usize = 4;

/// Gives prompts, each once.
pub(super) struct Prompts {
    /// Prompts that are taken as they are, the next one last.
    whole: Option<Vec<String>>,
    text: Option<Vec<char>>,
    /// Letters of a prompt, and of what all of one call share.
    letters: usize,
    shared: usize,
    /// How often a prompt says its piece.
    repeat: usize,
    given: u64,
}

impl Prompts {
    /// Prompts of so many tokens, of which the first ones are shared; from a text if there is one.
    pub fn new(text: Option<&str>, tokens: usize, shared: usize, repeat: usize) -> anyhow::Result<Prompts> {
        let text: Option<Vec<char>> = text.map(|text| text.chars().collect());
        let letters = LETTERS * tokens;
        if shared >= tokens {
            bail!("--shared should be below --prompt: something of each prompt is its own");
        }
        if let Some(text) = text.as_ref().filter(|text| text.len() < 2 * letters) {
            bail!(
                "the text has {} letters; prompts of {tokens} tokens want {} at least",
                text.len(),
                2 * letters
            );
        }
        Ok(Prompts { whole: None, text, letters, shared: LETTERS * shared, repeat, given: 0 })
    }

    /// The `prompt` of each line of a file of JSON objects.
    pub fn of_file(path: &Path) -> anyhow::Result<Prompts> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
        let mut whole = Vec::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let found = serde_json::from_str::<serde_json::Value>(line).ok();
            let prompt = found.as_ref().and_then(|it| it["prompt"].as_str());
            let Some(prompt) = prompt.filter(|it| !it.is_empty()) else {
                bail!("{}, line {}: not a JSON object with a text as its \"prompt\"", path.display(), at + 1);
            };
            whole.push(prompt.to_owned());
        }
        whole.reverse();
        Ok(Prompts { whole: Some(whole), text: None, letters: 0, shared: 0, repeat: 1, given: 0 })
    }

    /// So many letters of the next tale, or of the text from the next place on.
    fn piece(&mut self, letters: usize) -> String {
        self.given += 1;
        match &self.text {
            Some(text) => {
                // Steps of a prime number of letters: no two prompts begin at one place before all places were used.
                let start = (self.given as usize).wrapping_mul(7919) % (text.len() - letters);
                text[start..start + letters].iter().collect()
            }
            None => stories::corpus(0x5eed + self.given, letters + 64).chars().take(letters).collect(),
        }
    }

    /// The next prompts.
    ///
    /// # Errors
    /// If a file has no more.
    pub fn next(&mut self, count: usize) -> anyhow::Result<Vec<String>> {
        if let Some(whole) = &mut self.whole {
            let Some(at) = whole.len().checked_sub(count) else {
                bail!(
                    "the file of prompts has {} left and {count} are needed, since none is asked twice; give more of them, or fewer --requests and --turns",
                    whole.len()
                );
            };
            let mut taken = whole.split_off(at);
            taken.reverse();
            return Ok(taken);
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
