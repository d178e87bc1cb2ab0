//! Two generated languages for the demonstration: the same facts, other words and another order of words, as English and
//! French have names in common and little else. Questions have answers that stand in a text.

use ounce_model::tokenizer::Tokenizer;
use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::Result;
use crate::data::labelled::questions::Question;

const NAMES: usize = 24;
const VERBS: usize = 6;
const NOUNS: usize = 30;
const ADJECTIVES: usize = 8;

/// Which language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    /// Plenty of data; article, adjective, noun behind the verb.
    A,
    /// Little data; the thing first, its adjective behind it, the verb last.
    B,
}

/// Somebody does something with a thing that may have a quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fact {
    name: usize,
    verb: usize,
    noun: usize,
    adjective: Option<usize>,
}

impl Fact {
    /// The thing as words of a language, with its article; `order` decides where the adjective stands.
    fn thing(self, words: Language, order: Language) -> String {
        let letter = words.letter();
        let noun = format!("{letter}noun{}", self.noun);
        let Some(adjective) = self.adjective else { return format!("{} {noun}", words.article()) };
        let adjective = format!("{letter}adjective{adjective}");
        match order {
            Language::A => format!("{} {adjective} {noun}", words.article()),
            Language::B => format!("{} {noun} {adjective}", words.article()),
        }
    }

    /// The fact as a sentence, words of one language in the order of another.
    fn sentence(self, words: Language, order: Language) -> String {
        let (verb, thing) = (format!("{}verb{}", words.letter(), self.verb), self.thing(words, order));
        match order {
            Language::A => format!("name{} {verb} {thing} .", self.name),
            Language::B => format!("{thing} name{} {verb} .", self.name),
        }
    }
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
}

/// Two who each do two things, in any order.
fn facts(random: &mut ChaCha8Rng) -> Vec<Fact> {
    let pick = |count: usize, of: usize, random: &mut ChaCha8Rng| -> Vec<usize> {
        let all: Vec<usize> = (0..of).collect();
        all.sample(random, count).copied().collect()
    };
    let (names, verbs) = (pick(2, NAMES, random), pick(2, VERBS, random));
    let nouns = pick(4, NOUNS, random);
    let mut facts: Vec<Fact> = (0..4)
        .map(|index| Fact {
            name: names[index / 2],
            verb: verbs[index % 2],
            noun: nouns[index],
            adjective: random.random::<bool>().then(|| random.random_range(0..ADJECTIVES)),
        })
        .collect();
    facts.shuffle(random);
    facts
}

fn text(facts: &[Fact], words: Language, order: Language) -> String {
    facts.iter().map(|fact| fact.sentence(words, order)).collect::<Vec<_>>().join(" ")
}

/// A text as there are many: facts, of which some are told a second time.
pub(super) fn document(language: Language, random: &mut ChaCha8Rng) -> String {
    let mut told = facts(random);
    let again: Vec<Fact> = told.sample(random, 2).copied().collect();
    told.extend(again);
    text(&told, language, language)
}

/// A question in a language.
pub(super) fn question(language: Language, random: &mut ChaCha8Rng) -> Question {
    ask(&facts(random), language, language, 0.0, random)
}

/// A question of language A as a machine translates it to B: word by word, one word in ten wrong, in A's order.
pub(super) fn translated(random: &mut ChaCha8Rng) -> Question {
    ask(&facts(random), Language::B, Language::A, 0.1, random)
}

fn ask(facts: &[Fact], words: Language, order: Language, wrong: f64, random: &mut ChaCha8Rng) -> Question {
    let mut told = facts.to_vec();
    for fact in &mut told {
        if random.random::<f64>() < wrong {
            fact.noun = random.random_range(0..NOUNS);
        }
        if random.random::<f64>() < wrong {
            fact.adjective = fact.adjective.map(|_| random.random_range(0..ADJECTIVES));
        }
    }
    let index = random.random_range(0..told.len());
    let asked = told[index];
    let before: usize = told[..index].iter().map(|fact| fact.sentence(words, order).len() + 1).sum();
    let sentence = asked.sentence(words, order);
    let answer = asked.thing(words, order);
    let start = before + sentence.find(&answer).expect("a sentence has its thing");
    let letter = words.letter();
    let question = match order {
        Language::A => format!("{letter}what {letter}verb{} name{} ?", asked.verb, asked.name),
        Language::B => format!("name{} {letter}what {letter}verb{} ?", asked.name, asked.verb),
    };
    Question { question, context: text(&told, words, order), answers: vec![(answer, start)] }
}

/// What who knows only the form of texts answers: the thing of a text's first sentence.
pub(super) fn first_thing(question: &Question) -> &str {
    let sentence = question.context.split(" .").next().unwrap_or_default();
    let start = sentence.find("le ").unwrap_or(0);
    let thing = &sentence[start..];
    thing.split(" name").next().unwrap_or(thing)
}

/// A tokenizer for both languages, one token a word.
pub(super) fn tokenizer() -> Result<Tokenizer> {
    let mut words: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "the", "le", "awhat", "bwhat"]
            .map(String::from)
            .to_vec();
    words.extend((0..NAMES).map(|index| format!("name{index}")));
    for letter in ['a', 'b'] {
        for (kind, count) in [("verb", VERBS), ("noun", NOUNS), ("adjective", ADJECTIVES)] {
            words.extend((0..count).map(|index| format!("{letter}{kind}{index}")));
        }
    }
    let vocab: serde_json::Map<_, _> =
        words.iter().enumerate().map(|(id, word)| (word.clone(), json!(id))).collect();
    let special = |id: usize| {
        json!({"id": id, "content": words[id], "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true})
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
        for index in 0..200 {
            let asked = match index % 3 {
                0 => question(Language::A, &mut random),
                1 => question(Language::B, &mut random),
                _ => translated(&mut random),
            };
            let (answer, start) = &asked.answers[0];
            assert!(asked.context[*start..].starts_with(answer.as_str()), "{asked:?}");
            assert!(asked.context.contains(first_thing(&asked)));
            for text in [&asked.question, &asked.context] {
                assert!(!tokenizer.encode(text, true).unwrap().contains(&1), "{text}");
            }
        }
        let document = document(Language::B, &mut random);
        assert_eq!(document.matches(" .").count(), 6);
    }
}
