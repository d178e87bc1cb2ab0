//! Prompts that no server has seen.

use anyhow::bail;
use ounce_lab::stories;

/// Letters of a token, about.
const LETTERS: usize = 4;

/// Gives prompts, each once.
pub(super) struct Prompts {
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
        Ok(Prompts { text, letters, shared: LETTERS * shared, repeat, given: 0 })
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
    pub fn next(&mut self, count: usize) -> Vec<String> {
        let (own, shared) = (self.letters - self.shared, self.shared);
        let beginning = if shared > 0 { self.piece(shared) } else { String::new() };
        // A number in front of what is its own, since tales begin alike.
        (0..count)
            .map(|_| {
                let piece = vec![self.piece(own / self.repeat); self.repeat].join("\n");
                format!("{beginning}{} {piece}", self.given)
            })
            .collect()
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
            let (first, second) = (prompts.next(6), prompts.next(6));
            let mut all: Vec<&String> = first.iter().chain(&second).collect();
            all.sort();
            all.dedup();
            assert_eq!(all.len(), 12);
            let beginning: String = first[0].chars().take(80).collect();
            assert!(first.iter().all(|it| it.starts_with(&beginning)));
            assert!(!second[0].starts_with(&beginning));
            assert!(first.iter().all(|it| (160..170).contains(&it.chars().count())));
        }
        assert!(Prompts::new(Some("short"), 40, 0, 1).is_err());
        assert!(Prompts::new(None, 40, 40, 1).is_err());
    }
}
