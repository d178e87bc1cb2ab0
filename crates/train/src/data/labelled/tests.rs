use std::io::Write;
use std::path::{Path, PathBuf};

use ounce_model::tokenizer::Tokenizer;

use super::frame::Framed;
use super::questions::{Asked, Question, best_span};
use super::*;

/// A word-piece tokenizer with the letters and a few words.
fn tokenizer() -> Tokenizer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models/minilm");
    let nothing = serde_json::Value::Null;
    Tokenizer::from_folder(path, &nothing, &nothing).unwrap()
}

fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    (folder, path)
}

#[test]
fn frames_are_the_tokenizers() {
    let tokenizer = tokenizer();
    for (question, text) in
        [(None, "the cat sat"), (Some("is it small"), "the cat"), (None, ""), (Some(""), "a b")]
    {
        let framed = Framed::new(&tokenizer, question, text, true).unwrap();
        let whole = framed.sequence(&(0..framed.pieces.len()));
        let (first, pair) = question.map_or((text, None), |question| (question, Some(text)));
        let expected = tokenizer.encode_with_types(first, pair, true).unwrap();
        assert_eq!(whole, (expected.ids, expected.type_ids), "{question:?} {text:?}");
    }
}

#[test]
fn windows_overlap_and_have_everything() {
    let tokenizer = tokenizer();
    let framed = Framed::new(&tokenizer, Some("is it"), "a b c d e f g h i j", false).unwrap();
    assert_eq!(framed.pieces.len(), 10);
    // Three tokens of the frame and two of the question leave four.
    assert_eq!(framed.windows(9, 2).unwrap(), [0..4, 2..6, 4..8, 6..10]);
    assert_eq!(framed.windows(9, 100).unwrap(), [0..4, 4..8, 8..10]);
    assert_eq!(framed.windows(100, 2).unwrap(), vec![0..10]);
    assert_eq!(framed.windows(5, 2), None);
}

#[test]
fn answers_are_placed_in_the_windows_that_have_them_and_found_again() {
    let tokenizer = tokenizer();
    let context = "a b c d e f g h i j";
    let question = Question {
        question: "is it".into(),
        context: context.into(),
        answers: vec![("e f".into(), context.find("e f").unwrap())],
    };
    let asked = Asked::new(&tokenizer, &question, 9, 2, false).unwrap().unwrap();
    let spans: Vec<&Target> = asked.windows.iter().map(|window| &window.target).collect();
    let nowhere = Target::Span([0, 0]);
    assert_eq!(spans, [&nowhere, &Target::Span([6, 7]), &Target::Span([4, 5]), &nowhere]);
    // Scores that say what the targets say.
    let scores = |window: &Example| {
        let Target::Span([first, last]) = window.target else { unreachable!() };
        let mut scores = vec![0.0; 2 * window.ids.len()];
        scores[2 * first as usize] = 5.0;
        scores[2 * last as usize + 1] = 5.0;
        scores
    };
    let found = asked.answer(&asked.windows.iter().map(scores).collect::<Vec<_>>()).unwrap();
    assert_eq!(&context[found.bytes.clone()], "e f");
    assert!(found.score == 10.0 && found.nothing == 0.0 && found.probability > 0.1, "{found:?}");
}

#[test]
fn the_best_span_ends_behind_its_start_and_stays_inside() {
    let scores = [9.0, 9.0, 0.0, 5.0, 4.0, 0.0, 1.0, 3.0];
    assert_eq!(best_span(&scores, 1..4), Some((2, 3, 7.0)));
    assert_eq!(best_span(&scores, 1..1), None);
    // Not longer than an answer may be.
    let mut long = vec![0.0; 200];
    (long[0], long[2 * 80 + 1]) = (1.0, 1.0);
    assert_eq!(best_span(&long, 0..100).unwrap().2, 1.0);
}

#[test]
fn questions_are_read_from_squads_file_and_from_lines() {
    let squad = r#"{"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": "Été à Paris, Paris.",
        "qas": [{"id": "1", "question": "Où?", "answers": [{"text": "Paris", "answer_start": 13}]},
                {"id": "2", "question": "Qui?", "answers": [], "is_impossible": true}]}]}]}"#;
    let (_folder, path) = file("squad.json", squad);
    let questions = read::questions(&[path]).unwrap();
    assert_eq!(questions.len(), 2);
    // Characters are counted, not bytes.
    assert_eq!(questions[0].answers, [("Paris".to_string(), 16)]);
    assert!(questions[1].answers.is_empty());
    let lines = [
        r#"{"question": "q", "context": "a b c", "answers": {"text": ["b"], "answer_start": [2]}}"#,
        r#"{"question": "q", "context": "a b c", "answers": ["c"]}"#,
        r#"{"question": "q", "context": "a b c", "answer": "a"}"#,
        r#"{"question": "q", "context": "a b c", "answers": [{"text": "b", "answer_start": 0}]}"#,
    ];
    let (_folder, path) = file("lines.jsonl", &lines.join("\n"));
    let starts: Vec<usize> = read::questions(&[path]).unwrap().iter().map(|it| it.answers[0].1).collect();
    assert_eq!(starts, [2, 4, 0, 2]);
    let (_folder, path) = file("wrong.jsonl", r#"{"question": "q", "context": "a b c", "answer": "z"}"#);
    let error = read::questions(&[path]).unwrap_err().to_string();
    assert!(error.contains("wrong.jsonl") && error.contains("does not stand in its context"), "{error}");
}

#[test]
fn texts_and_tags_are_read_and_labelled() {
    let (_folder, path) = file("texts.csv", "text,label\nthe cat,10\na dog,9\n");
    let texts = read::texts(&[path]).unwrap();
    let names = texts::names(texts.iter().map(|it| it.label.as_str()));
    assert_eq!(names, ["9", "10"]);
    let (examples, cut) = texts::examples(&tokenizer(), &texts, &names, 4, true).unwrap();
    assert_eq!((examples[0].target.clone(), examples[0].ids.len()), (Target::Label(1), 4));
    // Both words are several pieces or one; nothing is longer than four tokens.
    assert!(examples.iter().all(|it| it.ids.len() <= 4) && cut <= 2);
    let (_folder, path) = file("texts.jsonl", "{\"text\": \"a\"}\n");
    assert!(read::texts(&[path]).unwrap_err().to_string().contains("has no label"));

    let (_folder, path) = file("tags.conll", "-DOCSTART- O\n\nthe DT O\nqzx NN B-X\n\ncat NN O\n");
    let tagged = read::tags(&[path]).unwrap();
    assert_eq!(tagged.len(), 2);
    let names = texts::names(tagged.iter().flat_map(|it| &it.tags).map(String::as_str));
    let (examples, _) = tags::examples(&tokenizer(), &tagged, &names, 40, false).unwrap();
    // `qzx` is three pieces, of which the first has the tag.
    let pieces = tokenizer().encode("qzx", false).unwrap().len();
    assert!(pieces > 1);
    let mut expected = vec![IGNORE, 1, 0];
    expected.extend(vec![IGNORE; pieces - 1 + 1]);
    assert_eq!(examples[0].target, Target::Tokens(expected));
    let (_folder, path) = file("tags.jsonl", r#"{"tokens": ["a", "b"], "ner_tags": [1]}"#);
    assert!(read::tags(&[path]).unwrap_err().to_string().contains("2 words but 1 tags"));
}

#[test]
fn a_stream_gives_each_example_once_an_epoch_and_goes_on_where_it_stood() {
    let example = |id: u32| Example { ids: vec![id; 3], types: Vec::new(), target: Target::Label(id % 2) };
    let settings = LabelledSettings { examples: 3, seed: 1, shuffle: true, epochs: Some(2) };
    let examples: Vec<Example> = (0..7).map(example).collect();
    let mut stream = LabelledStream::new(examples.clone(), settings).unwrap();
    let all: Vec<Batch> = std::iter::from_fn(|| stream.next().unwrap()).collect();
    let mut seen: Vec<u32> = all.iter().flat_map(|batch| batch.tokens.iter().step_by(3).copied()).collect();
    assert_eq!(all.iter().map(|batch| batch.lengths.len()).collect::<Vec<_>>(), [3, 3, 3, 3, 2]);
    seen[..7].sort_unstable();
    assert_eq!(seen[..7], [0, 1, 2, 3, 4, 5, 6]);
    let mut first = LabelledStream::new(examples.clone(), settings).unwrap();
    first.next().unwrap();
    first.next().unwrap();
    first.next().unwrap();
    let mut second = LabelledStream::new(examples.clone(), settings).unwrap();
    second.seek(&first.position()).unwrap();
    assert_eq!(second.next().unwrap(), Some(all[3].clone()));
    let mut other = LabelledStream::new(examples[1..].to_vec(), settings).unwrap();
    assert!(other.seek(&first.position()).is_err());
    let nothing = Example { target: Target::Label(IGNORE), ..example(0) };
    assert!(LabelledStream::new(vec![nothing], settings).is_err());
}

#[test]
fn equal_texts_are_held_out_together() {
    let texts: Vec<String> = (0..200).map(|n| format!("text {}", n / 2)).collect();
    let (kept, held) = split(texts.clone(), 0.2, 1, String::clone).unwrap();
    assert!(held.len() > 10 && held.len() < 80, "{}", held.len());
    assert!(held.iter().all(|text| !kept.contains(text)));
    assert!(split(texts[..2].to_vec(), 0.2, 1, String::clone).is_err());
    assert!(split(texts, 0.0, 1, String::clone).is_err());
}
