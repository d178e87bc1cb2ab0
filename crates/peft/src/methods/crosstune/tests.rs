use ounce_eval::method::{Fixture, Lab};

use super::*;
use crate::desk::Desk;

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    crate::random::uniform(1.0, count, seed, "numbers")
}

/// Texts of three labels, and their labels' states.
fn taught() -> (Taught, Vec<f32>) {
    let targets = vec![1.0, 0.0, 0.0, 0.2, 0.5, 0.3];
    (Taught { states: numbers(2 * 8, 1), targets }, numbers(3 * 8, 2))
}

#[test]
fn a_head_begins_as_the_likeness_of_states() {
    let head = Head::new(8, 4, false, 5).expect("a head");
    let count: usize = head.params.iter().map(|param| param.value.len()).sum();
    assert_eq!(count as u64, Head::parameters(8, 4));
    let (taught, labels) = taught();
    let found = head.probabilities(&taught.states, &labels).expect("probabilities");
    for (state, found) in taught.states.chunks(8).zip(found.chunks(3)) {
        let norm = |x: Vec<f32>| -> Vec<f32> {
            let mean = x.iter().sum::<f32>() / 8.0;
            let deviation = (x.iter().map(|it| (it - mean).powi(2)).sum::<f32>() / 8.0 + 1e-5).sqrt();
            x.iter().map(|it| (it - mean) / deviation).collect()
        };
        let z = norm(norm(state.to_vec()));
        let score =
            |label: &[f32]| (z.iter().zip(label).map(|(a, b)| a * b).sum::<f32>() / 8f32.sqrt()).exp();
        let scores: Vec<f32> = labels.chunks(8).map(score).collect();
        for (found, score) in found.iter().zip(&scores) {
            assert!((found - score / scores.iter().sum::<f32>()).abs() < 1e-4, "{found}");
        }
    }
}

#[test]
fn gradients_are_those_of_the_loss() {
    for by_attention in [false, true] {
        let mut head = Head::new(8, 4, by_attention, 5).expect("a head");
        // Zeros hide what lies behind them.
        for (at, param) in head.params.iter_mut().enumerate() {
            let more = numbers(param.value.len(), 10 + at as u64);
            param.value.iter_mut().zip(more).for_each(|(value, more)| *value += 0.4 * more);
        }
        let (taught, labels) = taught();
        head.loss(&taught, &labels, true).expect("a loss");
        let mut moved = 0;
        for index in 0..head.params.len() {
            for place in [0, head.params[index].value.len() / 2] {
                let found = f64::from(head.params[index].grad[place]);
                let mut loss = |by: f32| {
                    head.params[index].value[place] += by;
                    let loss = head.loss(&taught, &labels, false).expect("a loss");
                    head.params[index].value[place] -= by;
                    loss
                };
                let expected = (loss(1e-2) - loss(-1e-2)) / 2e-2;
                assert!(
                    (found - expected).abs() < 2e-3,
                    "{}[{place}]: {found} {expected}",
                    head.params[index].name
                );
                moved += usize::from(found.abs() > 1e-3);
            }
        }
        assert!(moved >= if by_attention { 2 } else { 12 }, "{moved}");
    }
}

fn cross(template: Option<Template>) -> Cross {
    let text = |words: &str| format!("This is about {words}.");
    Cross {
        labels: vec!["animals".into(), "meals".into()],
        descriptions: vec![text("a dog, a cat and a bird"), text("bread, soup and cake")],
        template,
        width: 16,
        by_attention: false,
        limit: 32,
    }
}

#[test]
fn the_encoder_is_asked_once_for_each_text_and_label_and_a_folder_brings_the_head_back() {
    let model = Desk.model(Fixture::Encoder).expect("the built-in encoder");
    let template = Template::parse(model.tokenizer.as_ref().expect("one"), "<text> It is [MASK].", 0, 1)
        .expect("a template");
    for template in [None, Some(template)] {
        let mut encoder = Frozen::new(&model, template.clone(), 32).expect("an encoder");
        let mut taught = Taught::default();
        for (text, label) in
            [("The dog ran.", 0), ("She ate bread.", 1), ("A bird sang.", 0), ("The soup was hot.", 1)]
        {
            taught.states.extend(encoder.encode(text).expect("a state"));
            taught.targets.extend([1.0 - label as f32, label as f32]);
        }
        let mut made = CrossTune::new(&mut encoder, cross(template), &taught.states, 1).expect("a head");
        assert_eq!(encoder.calls, 4 + 2);
        let course = Course { steps: 40, rate: 3e-3, at_once: 4, seed: 1 };
        made.train(&taught, &Taught::default(), course).expect("trained");
        assert_eq!(encoder.calls, 6, "training does not ask again");
        let found = made.probabilities(&taught.states).expect("probabilities");
        assert!((accuracy(&found, &taught.targets, 2) - 1.0).abs() < 1e-9);
        let place = tempfile::tempdir().expect("a folder");
        made.folder(place.path(), &model).expect("made").write().expect("written");
        let folder = Folder::open(place.path()).expect("read");
        assert_eq!(
            CrossTune::open(&model, &folder)
                .expect("opened")
                .probabilities(&taught.states)
                .expect("probabilities"),
            found
        );
        let mut labeller = crate::Labeller::open(&model, &folder, 512).expect("a labeller");
        let (said, cut) = labeller.label("The dog ran.").expect("labels");
        assert!(!cut && said[0] > 0.5, "{said:?}");
        assert!(labeller.label(&"The dog ran. ".repeat(20)).expect("labels").1);
        let other = Desk.model(Fixture::Tiny).expect("another model");
        assert!(CrossTune::open(&other, &folder).expect_err("another").to_string().contains("another base"));
    }
    let mut encoder = Frozen::new(&model, None, 32).expect("an encoder");
    let one = Cross { labels: vec!["a".into()], descriptions: vec!["b".into()], ..cross(None) };
    let error = CrossTune::new(&mut encoder, one, &[0.0; 128], 1).expect_err("one label").to_string();
    assert!(error.contains("descriptions of 1 labels"), "{error}");
}

#[test]
fn the_switch_is_on_only_where_it_helps_and_drops_what_the_teacher_doubts() {
    let told = |text: &str, label| (text.to_owned(), label);
    let (few, held) = ([told("a", 0), told("b", 1)], [told("c", 0), told("d", 1)]);
    let generated = [told("e", 0), told("f", 1), told("d", 1)];
    // A teacher that knows what it was shown and says 0 otherwise; of "f" it says 0 for its texts are wrong.
    let mut teach = |texts: &[(String, usize)]| -> Result<Teacher<'static>> {
        let texts = texts.to_vec();
        Ok(Box::new(move |text: &str| {
            let known = texts.iter().find(|it| it.0 == text && text != "f").map_or(0, |it| it.1);
            Ok(vec![1.0 - known as f32, known as f32])
        }))
    };
    let found = switch(&few, &generated, &held, &mut teach).expect("decided");
    assert!(found.on && found.accuracies == [0.5, 1.0], "{found:?}");
    assert_eq!((found.kept.len(), found.dropped), (2, 1));
    let found = switch(&few, &generated[..2], &held, &mut teach).expect("decided");
    assert!(!found.on && found.kept.is_empty(), "{found:?}");
}

#[test]
fn a_small_study_gives_sound_evidence() {
    let scale = demonstrate::Scale {
        shots: [1, 2],
        judged: 12,
        generated: 2,
        corrupted: 0.3,
        head_steps: 2,
        teacher_steps: 1,
        prompts: 2,
        seeds: 1,
    };
    let evidence = demonstrate::measure(&Desk, &scale).expect("measured");
    evidence.check().expect("sound");
    assert_eq!((evidence.rows.len(), evidence.expectations.len()), (8, 4));
}

/// The study at its full size: `cargo test -p ounce-peft --lib crosstune -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes"]
fn the_whole_study() {
    let evidence = METHOD.demonstrate.expect("there")(&Desk).expect("measured");
    println!("{evidence:#?}");
}
