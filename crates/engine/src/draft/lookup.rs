//! Prompt look-up: where the text's last tokens occurred before, the tokens that followed are likely to follow again. Good
//! for summaries, code and answers that quote (Saxena 2023, "Prompt lookup decoding").

use std::collections::HashMap;

/// Tokens that have to agree, longest first.
const AGREEING: [usize; 2] = [3, 2];

/// Where each short run of tokens of one text was seen last.
#[derive(Debug, Clone, Default)]
pub struct PromptLookup {
    /// For each of [`AGREEING`]: the run, and the position behind it.
    seen: [HashMap<[u32; 3], usize>; 2],
    /// Positions whose runs are noted.
    noted: usize,
}

impl PromptLookup {
    /// Up to `count` tokens that may follow `text`. The text of an earlier call has to be its beginning.
    pub fn draft(&mut self, text: &[u32], count: usize) -> Vec<u32> {
        self.note(text);
        for (seen, &length) in self.seen.iter().zip(&AGREEING) {
            let Some(run) = run(text, length) else { continue };
            if let Some(&from) = seen.get(&run) {
                return text[from..].iter().copied().take(count).collect();
            }
        }
        Vec::new()
    }

    /// Notes all runs that something follows.
    fn note(&mut self, text: &[u32]) {
        for end in self.noted.max(1)..text.len() {
            for (seen, &length) in self.seen.iter_mut().zip(&AGREEING) {
                if let Some(run) = run(&text[..end], length) {
                    seen.insert(run, end);
                }
            }
        }
        self.noted = self.noted.max(text.len());
    }
}

/// The last `length` tokens of a text.
fn run(text: &[u32], length: usize) -> Option<[u32; 3]> {
    let start = text.len().checked_sub(length)?;
    // Shorter runs are in a map of their own, so that filling them up is no confusion.
    let mut run = [0; 3];
    run[..length].copy_from_slice(&text[start..]);
    Some(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same by looking through the whole text.
    fn slowly(text: &[u32], count: usize) -> Vec<u32> {
        for length in AGREEING {
            if text.len() < length {
                continue;
            }
            let end = &text[text.len() - length..];
            let found = (length..text.len()).rev().find(|&at| &text[at - length..at] == end);
            if let Some(at) = found {
                return text[at..].iter().copied().take(count).collect();
            }
        }
        Vec::new()
    }

    #[test]
    fn guesses_are_what_followed_the_longest_run_last() {
        let mut lookup = PromptLookup::default();
        let mut text = Vec::new();
        let mut state = 12345u32;
        for _ in 0..400 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.push((state >> 24) % 5);
            if text.len().is_multiple_of(3) {
                assert_eq!(lookup.draft(&text, 4), slowly(&text, 4), "{} tokens", text.len());
            }
        }
        assert!(PromptLookup::default().draft(&[1], 4).is_empty());
    }
}
