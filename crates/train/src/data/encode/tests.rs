use std::collections::BTreeMap;
use std::path::Path;

use super::*;

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                      {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn tokenizer() -> Tokenizer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/assets/builtin");
    Tokenizer::from_folder(path, &serde_json::Value::Null, &serde_json::Value::Null).unwrap()
}

fn encoder(template: Option<&str>, limits: Limits) -> Encoder {
    let template = template.map(|source| ChatTemplate::new(source, BTreeMap::new()).unwrap());
    Encoder::new(tokenizer(), template, limits).unwrap()
}

/// All text, and the text of what counts.
fn read(sequence: &Sequence) -> (String, String) {
    let counted = sequence.ids.iter().zip(&sequence.counts).filter(|(_, counts)| **counts);
    let counted: Vec<u32> = counted.map(|(id, _)| *id).collect();
    let text = |ids: &[u32]| {
        let bytes = ids.iter().flat_map(|id| tokenizer().piece_bytes(*id)).collect();
        String::from_utf8(bytes).unwrap()
    };
    (text(&sequence.ids), text(&counted))
}

fn talk() -> Vec<Message> {
    vec![
        Message::new("system", "Be kind."),
        Message::new("user", "Hi?"),
        Message::new("assistant", "Hello."),
        Message::new("user", "Who?"),
        Message::new("assistant", "Me."),
    ]
}

#[test]
fn texts_begin_and_end_as_the_tokenizer_has_it() {
    let text = Example::Text("Once upon".into());
    let ids = encoder(None, Limits::default()).encode(&text).unwrap().remove(0).ids;
    let bare =
        encoder(None, Limits { ends: false, ..Limits::default() }).encode(&text).unwrap().remove(0).ids;
    assert_eq!(ids, [&[0], bare.as_slice(), &[0]].concat());
}

#[test]
fn a_long_text_is_tokenized_as_if_it_were_whole() {
    let line = "Once upon a time,  there was\n\n a cat. \n";
    let text = format!("{}ü", line.repeat(40).replace(". \n", ".\n"));
    for least in [1, 7, 100] {
        assert_eq!(pieces(&text, least).collect::<String>(), text);
        assert!(pieces(&text, least).count() > 5);
        let apart: Vec<u32> =
            pieces(&text, least).flat_map(|p| tokenizer().encode(p, false).unwrap()).collect();
        assert_eq!(apart, tokenizer().encode(&text, false).unwrap());
    }
}

#[test]
fn only_answers_count() {
    let encoder = encoder(None, Limits::default());
    let alpaca = |input: &str| Example::Alpaca {
        instruction: "Add.".into(),
        input: input.into(),
        output: "Five.".into(),
    };
    for (input, says) in
        [("", "### Response:\nFive."), ("2 + 3", "### Input:\n2 + 3\n\n### Response:\nFive.")]
    {
        let sequence = encoder.encode(&alpaca(input)).unwrap().remove(0);
        let (whole, counted) = read(&sequence);
        assert!(whole.contains(says), "{whole}");
        assert_eq!(counted, "Five.<|endoftext|>");
        assert!(sequence.is_usable());
    }
    let completion = Example::Completion { prompt: "one, two,".into(), answer: " three".into() };
    assert_eq!(read(&encoder.encode(&completion).unwrap()[0]).1, " three<|endoftext|>");
}

#[test]
fn every_answer_of_a_conversation_counts() {
    let example = Example::Chat { messages: talk(), first: 0 };
    let (whole, counted) = read(&encoder(Some(CHATML), Limits::default()).encode(&example).unwrap()[0]);
    assert!(whole.starts_with("<|im_start|>system\nBe kind.<|im_end|>\n"), "{whole}");
    assert_eq!(counted, "Hello.<|im_end|>\nMe.<|im_end|>\n");

    let (whole, counted) = read(&encoder(None, Limits::default()).encode(&example).unwrap()[0]);
    assert!(whole.contains("### Instruction:\nHi?\n\n### Response:\nHello.<|endoftext|>\n\n###"), "{whole}");
    assert_eq!(counted, "Hello.<|endoftext|>Me.<|endoftext|>");

    let learn = Limits { learn_questions: true, ..Limits::default() };
    assert!(encoder(None, learn).encode(&example).unwrap()[0].counts.iter().all(|counts| *counts));
}

#[test]
fn a_template_that_rewrites_the_past_is_refused() {
    let last_only = "{% for m in messages %}{% if loop.last or m.role == 'user' %}[{{ m.content }}]{% endif %}{% endfor %}";
    let example = Example::Chat { messages: talk(), first: 0 };
    let error = encoder(Some(last_only), Limits::default()).encode(&example).unwrap_err().to_string();
    assert!(error.contains("answers can't be told apart"), "{error}");
}

#[test]
fn choices_give_two_sequences() {
    let answer = |text: &str| Example::Completion { prompt: "Hi?".into(), answer: text.into() };
    let pair = Example::Preference(Box::new([answer(" Yes"), answer(" No")]));
    let sequences = encoder(None, Limits::default()).encode(&pair).unwrap();
    let counted: Vec<String> = sequences.iter().map(|sequence| read(sequence).1).collect();
    assert_eq!(counted, [" Yes<|endoftext|>", " No<|endoftext|>"]);
}

#[test]
fn cut_answers_are_told() {
    let example = Example::Completion { prompt: "one two three four".into(), answer: " five six".into() };
    let whole = encoder(None, Limits::default()).encode(&example).unwrap().remove(0);
    assert!(!whole.truncated);
    let max_length = whole.ids.len() - 1;
    let cut = encoder(None, Limits { max_length, ..Limits::default() }).encode(&example).unwrap().remove(0);
    assert!(cut.truncated && cut.is_usable());
    assert_eq!(cut.ids, whole.ids[..max_length]);
    let cut =
        encoder(None, Limits { max_length: 2, ..Limits::default() }).encode(&example).unwrap().remove(0);
    assert!(cut.truncated && !cut.is_usable());
    assert!(Encoder::new(tokenizer(), None, Limits { max_length: 1, ..Limits::default() }).is_err());
}
