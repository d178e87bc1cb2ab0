//! Languages that are one language spelled otherwise: letters stand for other letters, and some words stay as they are.

/// A spelling. The first is that of the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spelling(pub usize);

const VOWELS: [&str; 3] = ["aeiou", "eioua", "ouaei"];
const CONSONANTS: [&str; 3] = ["bcdfghjklmnpqrstvwxyz", "zbkdvfgrmnlptjsxhcwqy", "dtgkbpvlrznmjxchfwsyq"];

/// One word in so many stays as it is.
const SHARED: u64 = 5;

impl Spelling {
    /// A text in this spelling.
    pub fn write(self, text: &str) -> String {
        let mut written = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let is_word = first.is_alphabetic();
            let end = rest.find(|letter: char| letter.is_alphabetic() != is_word).unwrap_or(rest.len());
            let (part, behind) = rest.split_at(end);
            written += &if is_word { self.word(part) } else { part.to_owned() };
            rest = behind;
        }
        written
    }

    /// A word in this spelling.
    pub fn word(self, word: &str) -> String {
        // FNV-1a of the word in small letters decides what all languages share.
        let hash = word.to_lowercase().bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        if self.0 == 0 || (hash >> 20).is_multiple_of(SHARED) {
            return word.to_owned();
        }
        word.chars().map(|letter| self.letter(letter)).collect()
    }

    fn letter(self, letter: char) -> char {
        let small = letter.to_ascii_lowercase();
        for kinds in [VOWELS, CONSONANTS] {
            if let Some(other) = kinds[0].find(small).and_then(|at| kinds[self.0 % 3].chars().nth(at)) {
                return if letter.is_ascii_uppercase() { other.to_ascii_uppercase() } else { other };
            }
        }
        letter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_one_to_one_and_keep_what_is_no_word() {
        for spelling in [1, 2].map(Spelling) {
            let letters: Vec<char> = ('a'..='z').map(|letter| spelling.letter(letter)).collect();
            let mut sorted = letters.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), 26);
            let text = "Once, a small fox met 3 geese and the old bear.\n\nThey slept.";
            let written = spelling.write(text);
            assert_eq!(written.len(), text.len());
            assert_ne!(written, text);
            for (a, b) in written.chars().zip(text.chars()) {
                assert_eq!(a.is_alphabetic(), b.is_alphabetic());
                assert_eq!(a.is_uppercase(), b.is_uppercase());
            }
        }
        assert_eq!(Spelling(0).write("The fox."), "The fox.");
    }
}
