//! Two generated languages for the demonstration: the same events, other words and another order of words, as English and
//! French have names in common and little else. Questions have answers that stand in a text.

use ounce_model::tokenizer::Tokenizer;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::Result;
use crate::data::labelled::questions::Question;

/// Kinds of words, how many there are of each, and whether both languages have the same.
const WORDS: [(&str, usize, bool); 8] = [
    ("person", 24, true),
    ("place", 24, true),
    ("verb", 8, false),
    ("thing", 32, false),
    ("quality", 8, false),
    ("time", 12, false),
    ("animal", 24, false),
    ("colour", 8, false),
];

/// What is asked for: who, where, what, when, which animal, which colour.
const ASKED: [&str; 6] = ["person", "place", "thing", "time", "animal", "colour"];

/// Words that show how a sentence is built.
const FUNCTIONS: [&str; 4] = ["in", "at", "is", "often"];

/// Which language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    /// Plenty of data: who, verb, what, where, when.
    A,
    /// Little data: when, where, what with its quality behind it, who, verb.
    B,
}

impl Language {
    fn letter(self) -> char {
        match self {
            Language::A => 'a',
            Language::B => 'b',
        }
    }

    fn article(self) -> &'static str {
        match self {
            Language::A => "the",
            Language::B => "le",
        }
    }

    /// A word of this language.
    fn word(self, kind: &str, number: usize) -> String {
        let shared = WORDS.iter().any(|(name, _, shared)| *name == kind && *shared);
        if shared { format!("{kind}{number}") } else { format!("{}{kind}{number}", self.letter()) }
    }

    fn function(self, name: &str) -> String {
        format!("{}{name}", self.letter())
    }
}

/// An event and an animal, in words of one language and the order of another.
struct Story {
    words: Language,
    order: Language,
    /// The number of the word of each kind.
    numbers: [usize; 8],
    has_quality: bool,
    has_adverb: bool,
    animal_first: bool,
}

impl Story {
    fn new(words: Language, order: Language, random: &mut ChaCha8Rng) -> Story {
        Story {
            words,
            order,
            numbers: WORDS.map(|(_, count, _)| random.random_range(0..count)),
            has_quality: random.random(),
            has_adverb: random.random(),
            animal_first: random.random(),
        }
    }

    fn word(&self, kind: &str) -> String {
        let number = WORDS.iter().position(|(name, ..)| *name == kind).map_or(0, |index| self.numbers[index]);
        self.words.word(kind, number)
    }

    /// What a question for this kind is answered with.
    fn answer(&self, kind: &str) -> String {
        let article = self.words.article();
        match (kind, self.order) {
            ("thing", Language::A) if self.has_quality => {
                format!("{article} {} {}", self.word("quality"), self.word("thing"))
            }
            ("thing", Language::B) if self.has_quality => {
                format!("{article} {} {}", self.word("thing"), self.word("quality"))
            }
            ("thing" | "animal", _) => format!("{article} {}", self.word(kind)),
            _ => self.word(kind),
        }
    }

    fn text(&self) -> String {
        let [within, at, is, often] = FUNCTIONS.map(|name| self.words.function(name));
        let adverb = if self.has_adverb { format!(" {often}") } else { String::new() };
        let [person, place, thing, time, animal, colour] = ASKED.map(|kind| self.answer(kind));
        let verb = self.word("verb");
        let (event, other) = match self.order {
            Language::A => (
                format!("{person}{adverb} {verb} {thing} {within} {place} {at} {time} ."),
                format!("{animal} {is} {colour} ."),
            ),
            Language::B => (
                format!("{at} {time} {within} {place} {thing} {person} {verb}{adverb} ."),
                format!("{colour} {is} {animal} ."),
            ),
        };
        if self.animal_first { format!("{other} {event}") } else { format!("{event} {other}") }
    }
}

/// A text as there are many.
pub(super) fn document(language: Language, random: &mut ChaCha8Rng) -> String {
    let story = || Story::new(language, language, random).text();
    std::iter::repeat_with(story).take(3).collect::<Vec<_>>().join(" ")
}

/// A question in a language.
pub(super) fn question(language: Language, random: &mut ChaCha8Rng) -> Question {
    let story = Story::new(language, language, random);
    ask(&story, random)
}

/// A question of language A as a machine translates it to B: word by word, in A's order, one word in five wrong.
pub(super) fn translated(random: &mut ChaCha8Rng) -> Question {
    let story = Story::new(Language::B, Language::A, random);
    let mut question = ask(&story, random);
    let wrong = Story::new(Language::B, Language::A, random);
    let (answer, start) = question.answers[0].clone();
    let mut context = String::new();
    let mut moved = start;
    for word in question.context.split(' ') {
        let at = context.len();
        let inside = at >= moved && at < moved + answer.len();
        let replaced = if !inside && random.random_range(0..5) == 0 {
            wrong.word(kind_of(word))
        } else {
            word.to_string()
        };
        if at < moved {
            moved = moved + replaced.len() - word.len();
        }
        context += &replaced;
        context.push(' ');
    }
    question.context = context.trim_end().to_string();
    question.answers = vec![(answer, moved)];
    question
}

/// The kind of a word, for a wrong one in its place; words without a kind become verbs.
fn kind_of(word: &str) -> &'static str {
    let kinds = WORDS.iter().map(|(kind, ..)| *kind);
    kinds.into_iter().find(|kind| word.contains(kind)).unwrap_or("verb")
}

fn ask(story: &Story, random: &mut ChaCha8Rng) -> Question {
    let kind = ASKED[random.random_range(0..ASKED.len())];
    let (context, answer) = (story.text(), story.answer(kind));
    let start = context.find(&answer).expect("a text has what it tells");
    let asking = story.words.function(&format!("which{kind}"));
    let question = match story.order {
        Language::A => format!("{asking} {} ?", story.word("verb")),
        Language::B => format!("{} {asking} ?", story.word("verb")),
    };
    Question { question, context, answers: vec![(answer, start)] }
}

/// What who does not read the question answers: always the person.
pub(super) fn person(question: &Question) -> &str {
    question.context.split(' ').find(|word| word.starts_with("person")).unwrap_or_default()
}

/// A tokenizer for both languages, one token a word.
pub(super) fn tokenizer() -> Result<Tokenizer> {
    let mut words: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "the", "le"].map(String::from).to_vec();
    for language in [Language::A, Language::B] {
        words.extend(FUNCTIONS.map(|name| language.function(name)));
        words.extend(ASKED.map(|kind| language.function(&format!("which{kind}"))));
        for (kind, count, shared) in WORDS {
            if !shared || language == Language::A {
                words.extend((0..count).map(|number| language.word(kind, number)));
            }
        }
    }
    let vocab: serde_json::Map<_, _> =
        words.iter().enumerate().map(|(id, word)| (word.clone(), json!(id))).collect();
    let special = |id: usize| {
        json!({"id": id, "content": words[id], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let piece = |kind: &str, id: &str, of: u32| json!({kind: {"id": id, "type_id": of}});
    let one =
        [piece("SpecialToken", "[CLS]", 0), piece("Sequence", "A", 0), piece("SpecialToken", "[SEP]", 0)];
    let two = [&one[..], &[piece("Sequence", "B", 1), piece("SpecialToken", "[SEP]", 1)]].concat();
    let known = |name: &str, id: u32| json!({"id": name, "ids": [id], "tokens": [name]});
    let whole = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
        "added_tokens": (0..5).map(special).collect::<Vec<_>>(),
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {"type": "TemplateProcessing", "single": one, "pair": two,
            "special_tokens": {"[CLS]": known("[CLS]", 2), "[SEP]": known("[SEP]", 3)}},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    });
    Ok(Tokenizer::from_json_bytes(whole.to_string().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn answers_stand_where_they_are_said_to_and_words_are_known() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let tokenizer = tokenizer().unwrap();
        let special = tokenizer.special();
        assert_eq!((special.cls, special.sep, special.mask), (Some(2), Some(3), Some(4)));
        for index in 0..300 {
            let asked = match index % 3 {
                0 => question(Language::A, &mut random),
                1 => question(Language::B, &mut random),
                _ => translated(&mut random),
            };
            let (answer, start) = &asked.answers[0];
            assert!(asked.context[*start..].starts_with(answer.as_str()), "{asked:?}");
            assert!(index % 3 == 2 || person(&asked).starts_with("person"));
            for text in [&asked.question, &asked.context] {
                assert!(!tokenizer.encode(text, true).unwrap().contains(&1), "{text}");
                assert!(!text.contains("  "), "{text}");
            }
        }
        assert_eq!(document(Language::B, &mut random).matches(" .").count(), 6);
    }
}
