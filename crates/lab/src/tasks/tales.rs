//! Questions about generated tales, from seeds that no model of this project is trained on.

use ounce_eval::tasks::Document;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::stories::template::below;
use crate::stories::{FIRST_HELD_OUT_SEED, story};

/// Questions of a task.
const COUNT: usize = 200;
/// Words that a text has at least to be a tale.
const WORDS: usize = 60;
/// Choices of a question.
const CHOICES: usize = 4;

/// What stands between a tale and a question about it.
const QUESTION: &str = "\nQuestion: ";
const ANSWER: &str = "\nAnswer: ";

/// Texts that are tales.
fn tales(seed: u64) -> impl Iterator<Item = String> {
    let mut random = ChaCha8Rng::seed_from_u64(FIRST_HELD_OUT_SEED + seed);
    std::iter::repeat_with(move || story(&mut random)).filter(|text| text.split_whitespace().count() >= WORDS)
}

fn document(fields: Value) -> Document {
    match fields {
        Value::Object(fields) => fields,
        _ => Document::new(),
    }
}

/// Tales without questions behind them.
pub(super) fn texts() -> Vec<Document> {
    let plain = tales(1).filter(|text| !text.contains(QUESTION));
    plain.take(COUNT).map(|text| document(json!({"text": text}))).collect()
}

/// A tale's beginning, its next sentence, and three sentences of other tales that begin with the same word.
pub(super) fn continuations() -> Vec<Document> {
    let mut random = ChaCha8Rng::seed_from_u64(FIRST_HELD_OUT_SEED + 2);
    let plain = tales(3).filter(|text| !text.contains(QUESTION));
    let all: Vec<String> = plain.take(3 * COUNT).collect();
    let sentences: Vec<Vec<&str>> = all.iter().map(|text| sentences(text)).collect();
    let first_word = |sentence: &str| sentence.split(' ').next().unwrap_or_default().to_string();
    let mut documents = Vec::new();
    for (at, tale) in sentences.iter().enumerate().take_while(|(at, _)| *at < 2 * COUNT) {
        if tale.len() < 6 || documents.len() == COUNT {
            continue;
        }
        let next = 3 + below(&mut random, tale.len() - 4);
        let right = tale[next];
        let begins_alike = |other: &&str| first_word(other) == first_word(right) && **other != *right;
        let mut wrong: Vec<&str> = Vec::new();
        // Other tales in order from here on, so that no sentence serves everywhere.
        for other in sentences.iter().cycle().skip(at + 1).take(sentences.len() - 1) {
            if let Some(found) = other.iter().find(|it| begins_alike(it) && !wrong.contains(it)) {
                wrong.push(found);
            }
            if wrong.len() == CHOICES - 1 {
                break;
            }
        }
        if wrong.len() < CHOICES - 1 {
            continue;
        }
        let label = below(&mut random, CHOICES);
        wrong.insert(label, right);
        let begin = tale[..next].join(" ");
        documents.push(document(json!({"begin": begin, "choices": wrong, "label": label})));
    }
    documents
}

/// Tales with a question and its answer.
pub(super) fn answers() -> Vec<Document> {
    let asked = tales(4).filter_map(|text| {
        let (tale, rest) = text.split_once(QUESTION)?;
        let (question, answer) = rest.split_once(ANSWER)?;
        // More questions may follow.
        let answer = answer.lines().next()?;
        Some(document(json!({"tale": tale, "question": question, "answer": answer})))
    });
    asked.take(COUNT).collect()
}

/// Sentences of a text; what somebody says stays in one.
fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut start, mut quoted) = (0, false);
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        quoted ^= *byte == b'"';
        let behind = |at: usize| bytes.get(at).is_some_and(|byte| matches!(byte, b'.' | b'!' | b'?' | b'"'));
        // Behind what somebody says, "said Ruby" goes on.
        let begins = bytes.get(at + 1).is_some_and(|byte| !byte.is_ascii_lowercase());
        let ends = matches!(byte, b' ' | b'\n') && !quoted && begins && at > 0 && behind(at - 1);
        if ends {
            found.push(&text[start..at]);
            start = at + 1;
        }
    }
    if start < text.len() {
        found.push(&text[start..]);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_keep_what_is_said() {
        let text = "A cat sat. \"Go! Now,\" he said. \"No.\"\nIt ran";
        assert_eq!(sentences(text), ["A cat sat.", "\"Go! Now,\" he said.", "\"No.\"", "It ran"]);
    }

    #[test]
    fn questions_have_one_right_answer() {
        let all = continuations();
        assert_eq!(all.len(), COUNT);
        let mut right = [0; CHOICES];
        for question in &all {
            let choices = question["choices"].as_array().expect("choices");
            let label = question["label"].as_u64().expect("a place") as usize;
            right[label] += 1;
            assert_eq!(choices.len(), CHOICES);
            for (at, choice) in choices.iter().enumerate() {
                assert!(!choices[..at].contains(choice), "{question:?}");
            }
        }
        // No place is right so often that guessing it would help.
        assert!(right.iter().all(|count| (30..75).contains(count)), "{right:?}");
        assert_eq!(all, continuations());
    }

    #[test]
    fn answers_are_short_and_the_tale_ends_before_the_question() {
        let all = answers();
        assert_eq!(all.len(), COUNT);
        for question in all {
            let text = |key: &str| question[key].as_str().expect("a text").to_string();
            assert!(!text("answer").contains('\n'), "{question:?}");
            assert!(!text("tale").contains(QUESTION), "{question:?}");
            assert!(text("question").ends_with('?'), "{question:?}");
        }
    }
}
