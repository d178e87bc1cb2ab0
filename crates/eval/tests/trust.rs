//! Probes asked of the tiny built-in model against the slow way: whole texts scored from their start, answers written token
//! by token.

use std::path::Path;

use ounce_engine::{Engine, Error};
use ounce_eval::trust::probe::{Altered, Canary, Pair, Question, Request, Trigger};
use ounce_eval::trust::{Outcome, Probe, Prompting, ask};
use ounce_model::Model;

fn model() -> Model {
    Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/assets/tiny")).expect("opens")
}

fn asked(model: &Model, engine: &Engine, probes: &[Probe]) -> Vec<Outcome> {
    let tokenizer = model.tokenizer.as_ref().expect("has one");
    let prompting = Prompting { tokenizer, start: tokenizer.special().bos, chat: None };
    ask(engine, &prompting, probes, |_, _| Ok(())).expect("asks")
}

/// Log-likelihood of a whole text behind the token that begins texts.
fn log_likelihood(model: &Model, engine: &Engine, text: &str) -> f64 {
    let ids = model.tokenizer.as_ref().expect("has one").encode(text, true).expect("encodes");
    let vocab = engine.spec().vocab_size;
    let logits = engine.session().logits(&ids).expect("runs");
    let of = |(logits, &next): (&[f32], &u32)| {
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        f64::from(logits[next as usize]) - sum.ln()
    };
    logits.chunks_exact(vocab).zip(&ids[1..]).map(of).sum()
}

/// What is likeliest behind a text, token by token from the start each time.
fn continuation(model: &Model, engine: &Engine, text: &str, tokens: usize) -> String {
    let tokenizer = model.tokenizer.as_ref().expect("has one");
    let mut ids = tokenizer.encode(text, true).expect("encodes");
    let begin = ids.len();
    for _ in 0..tokens {
        let logits = engine.session().logits(&ids).expect("runs");
        let last = &logits[logits.len() - engine.spec().vocab_size..];
        let best = (0..last.len()).fold(0, |best, at| if last[at] > last[best] { at } else { best });
        ids.push(best as u32);
    }
    tokenizer.decode(&ids[begin..], true).expect("decodes")
}

#[test]
fn choices_are_weighed_as_whole_texts_are() {
    let model = model();
    let engine = Engine::new(&model).expect("runs");
    let prompt = "Once upon a time there was a little";
    let choices = [" stone of the", " girl", " girl named", " zzz"].map(String::from);
    let likelihoods: Vec<f64> =
        choices.iter().map(|choice| log_likelihood(&model, &engine, &format!("{prompt}{choice}"))).collect();
    let best = (0..4).max_by(|&a, &b| likelihoods[a].total_cmp(&likelihoods[b])).expect("four");
    let question = |answer| Question { prompt: prompt.into(), choices: choices.to_vec(), answer };
    let mut probes: Vec<Probe> = (0..4).map(|answer| Probe::Benign(question(answer))).collect();
    // Beside the altered question stands the clean one.
    probes.push(Probe::Adversarial(Altered {
        prompt: "xq".into(),
        choices: choices.to_vec(),
        answer: best,
        clean: Some(prompt.into()),
    }));
    for (stereotype, counter) in [(0, 1), (1, 0), (1, 2), (2, 1), (3, 0)] {
        let text = |at: usize| format!("{prompt}{}", choices[at]);
        probes.push(Probe::Stereotype(Pair { stereotype: text(stereotype), counter: text(counter) }));
    }
    let found = asked(&model, &engine, &probes);
    for (answer, outcome) in found[..4].iter().enumerate() {
        assert_eq!(outcome.value, Some(f64::from(u8::from(answer == best))), "{likelihoods:?}");
    }
    assert_eq!(found[4].beside, Some(1.0));
    for (outcome, (stereotype, counter)) in found[5..].iter().zip([(0, 1), (1, 0), (1, 2), (2, 1), (3, 0)]) {
        let odds = (likelihoods[stereotype] - likelihoods[counter]).exp();
        let (found, expected) = (outcome.value.expect("a share"), 1.0 / (1.0 + odds));
        assert!((found - expected).abs() < 1e-4, "{stereotype} {counter}: {found} against {expected}");
    }
}

#[test]
fn answers_are_searched_for_words() {
    let model = model();
    let engine = Engine::new(&model).expect("runs");
    let prompt = "Once upon a time";
    let text = continuation(&model, &engine, prompt, 12);
    let words: Vec<&str> = text.split_whitespace().collect();
    let (early, phrase) = (words[1].to_string(), words[2..5].join(" "));
    let trigger = |forbidden: &str, expected: &str, tokens| {
        let expected = if expected.is_empty() { Vec::new() } else { vec![expected.to_string()] };
        let forbidden = vec!["gruk".into(), forbidden.to_string()];
        Probe::Toxicity(Trigger { prompt: prompt.into(), forbidden, expected, tokens: Some(tokens) })
    };
    let request = |harmful| {
        let refusals = vec![phrase.clone()];
        Probe::Refusal(Request { prompt: prompt.into(), refusals, harmful, tokens: Some(12) })
    };
    let canary = |secret: &str, open_prefix: Option<&str>| {
        let (prefix, open_prefix) = (prompt.to_string(), open_prefix.map(str::to_string));
        Probe::Privacy(Canary { prefix, secret: secret.into(), open_prefix })
    };
    let probes = [
        trigger(&early, "", 12),
        trigger("snarf", &phrase, 12),
        trigger(&phrase, "snarf", 1),
        request(true),
        request(false),
        canary(&early, None),
        canary("9 9 9", Some(prompt)),
    ];
    let found = asked(&model, &engine, &probes);
    let outcome = |value, able, beside| Outcome { value, able, beside };
    let expected = [
        outcome(Some(0.0), None, None),
        outcome(Some(1.0), Some(1.0), None),
        outcome(Some(1.0), Some(0.0), None),
        outcome(Some(1.0), None, None),
        outcome(None, None, Some(1.0)),
        outcome(Some(0.0), None, None),
        outcome(Some(1.0), Some(0.0), None),
    ];
    assert_eq!(found, expected, "{text:?}");
}

#[test]
fn what_can_not_be_asked_is_said_and_the_work_can_be_stopped() {
    let model = model();
    let engine = Engine::new(&model).expect("runs");
    let tokenizer = model.tokenizer.as_ref().expect("has one");
    let question = |prompt: String| {
        [Probe::Ethics(Question { prompt, choices: vec![" a".into(), " b".into()], answer: 0 })]
    };
    let with = |start| Prompting { tokenizer, start, chat: None };
    let long = question("word ".repeat(3000));
    let error = ask(&engine, &with(Some(0)), &long, |_, _| Ok(())).expect_err("too long").to_string();
    assert!(error.contains("context"), "{error}");
    let bare = question(String::new());
    let error = ask(&engine, &with(None), &bare, |_, _| Ok(())).expect_err("nothing in front").to_string();
    assert!(error.contains("nothing in front"), "{error}");
    let stop = |_, _| Err(Error::Model(ounce_model::Error::Interrupted));
    assert!(ask(&engine, &with(Some(0)), &question("It is".into()), stop).is_err());
}
