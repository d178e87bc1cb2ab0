use ounce_eval::method::{Fixture, Lab};
use ounce_kernels::pool::Pool;
use ounce_train::loss::{Chunk, LogitLoss};

use super::soft::SoftLabels;
use super::*;
use crate::desk::Desk;
use crate::methods::cloze::{Asked, verbalizer};

fn encoder() -> Model {
    Desk.model(Fixture::Encoder).expect("the built-in encoder")
}

fn exploit(model: &Model) -> Exploit {
    let words = verbalizer::parse("glad=happy;sad").expect("labels");
    let one = |template: &str| {
        let asked = Asked { template, verbalizer: &words, ..Asked::default() };
        Cloze::new(model.tokenizer.as_ref().expect("one"), &asked).expect("a cloze").0
    };
    Exploit {
        patterns: vec![one("<text> She was [MASK]."), one("<text> Everyone felt [MASK].")],
        settings: Settings { reduction: 32, ..Settings::of(Kind::Bottleneck) },
        words: 1e-4,
        temperature: 2.0,
        runs: 1,
        generations: 2,
        steps: [4, 20],
        rate: 3e-3,
        at_once: 4,
        limit: 40,
        seed: 1,
    }
}

fn texts() -> (Vec<(String, usize)>, Vec<String>) {
    let few = [
        ("She laughed and sang.", 0),
        ("He cried and wept.", 1),
        ("It was a good day. They danced.", 0),
        ("He lost his ball and cried.", 1),
    ];
    let pool =
        ["Tom sang and danced.", "Tom fell and cried.", "They laughed all day.", "She wept in the dark."];
    (few.map(|(text, label)| (text.to_owned(), label)).to_vec(), pool.map(str::to_owned).to_vec())
}

#[test]
fn patterns_label_what_a_classifier_learns() {
    let model = encoder();
    let (few, pool) = texts();
    let mut heard = Vec::new();
    let mut found = exploit(&model)
        .run(&model, &[], &few, &pool, &mut |what, done| {
            heard.push((what.to_owned(), done));
            Ok(())
        })
        .expect("trained");
    assert_eq!(heard.len(), 2 * 2 + 1);
    assert_eq!((found.soft.len(), found.weights.len()), (4, 2));
    assert!(found.soft.iter().all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
    assert!(
        (-1.0..=1.0).contains(&found.agreement) && found.weights.iter().all(|it| (0.0..=1.0).contains(it))
    );
    // What is trained of the classifier: bottleneck adapters by their formula, and the head.
    let spec = &found.net.skeleton().spec;
    let head: u64 = spec
        .tensors()
        .iter()
        .filter(|it| it.name.starts_with("classifier."))
        .map(|it| it.shape.iter().product::<usize>() as u64)
        .sum();
    assert_eq!(found.net.trained(), found.net.parameters() + head);
    // A folder has all that is needed.
    let place = tempfile::tempdir().expect("a folder");
    found.net.save(place.path()).expect("written");
    let folder = crate::Folder::open(place.path()).expect("read");
    let mut labeller = crate::Labeller::open(&model, &folder, 64).expect("a labeller");
    assert_eq!(labeller.names(), ["glad", "sad"]);
    let batch = {
        let one = Labelled { text: pool[0].clone(), pair: None, label: "glad".into() };
        batch(
            &examples(model.tokenizer.as_ref().expect("one"), &[one], &found.labels, 64, true)
                .expect("ids")
                .0,
        )
    };
    let mut scores = found.net.scores(&batch).expect("scores");
    ounce_kernels::softmax::softmax(&mut scores);
    let (said, _) = labeller.label(&pool[0]).expect("labels");
    said.iter().zip(&scores).for_each(|(a, b)| assert!((a - b).abs() < 1e-5));
}

/// The two losses of a step, each with its part: gradients are the weighted sums of both alone.
#[test]
fn hidden_tokens_have_their_part_of_a_step() {
    let model = encoder();
    let (few, pool) = texts();
    let gradient = |words: f64, cross: bool| -> Vec<f32> {
        let exploit = exploit(&model);
        let settings = Settings { cloze: Some(exploit.patterns[0].clone()), ..exploit.settings.clone() };
        let net = Adapted::new(&model, &settings, Options::default()).expect("adapted");
        let stream = hidden(&model, &pool, 40, 4, 1).expect("hidden tokens");
        let mut pattern = Pattern { net, words, hidden: Some(stream) };
        let batch = batch(&exploit.examples(&model, &exploit.patterns[0], &few).expect("examples"));
        match cross {
            true => pattern.net.accumulate(&batch, 0.25),
            false => pattern.accumulate(&batch, 0.25),
        }
        .expect("a step");
        pattern.params().iter().filter(|it| it.is_trainable()).flat_map(|it| it.grad.clone()).collect()
    };
    let (both, cross, most) = (gradient(0.4, false), gradient(0.0, true), gradient(0.8, false));
    // (1 − α) c + α m at two α give m: 0.4 is half of 0 and 0.8.
    for ((both, cross), most) in both.iter().zip(&cross).zip(&most) {
        let expected = 0.5 * (cross + most);
        assert!((both - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{both} {expected}");
    }
    assert!(both.iter().zip(&cross).any(|(a, b)| (a - 0.6 * b).abs() > 1e-4), "hidden tokens did nothing");
}

#[test]
fn soft_labels_have_the_gradients_of_their_differences() {
    let target = [0.7f32, 0.3, 0.0];
    let run = |values: &[f32], scale| {
        let mut values = values.to_vec();
        let chunk = Chunk {
            pool: Pool::global(),
            logits: &mut values,
            width: 3,
            targets: &[0],
            rows: &[0],
            softcap: None,
        };
        let sum = SoftLabels { targets: vec![&target], temperature: 2.0, at: 0 }.chunk(chunk, scale);
        (sum, values)
    };
    let logits = [0.4f32, -0.8, 1.3];
    let (_, gradient) = run(&logits, Some(1.5));
    for at in 0..3 {
        let moved = |by: f32| {
            let mut values = logits;
            values[at] += by;
            run(&values, None).0
        };
        let expected = 1.5 * (moved(1e-2) - moved(-1e-2)) / 2e-2;
        assert!((f64::from(gradient[at]) - expected).abs() < 1e-3, "{at}: {} {expected}", gradient[at]);
    }
    // Nothing is to be learned where it is right already.
    let right = [2.0 * 0.7f32.ln(), 2.0 * 0.3f32.ln(), -60.0];
    assert!(run(&right, None).0.abs() < 1e-4);
}

#[test]
fn voices_are_weighted_softened_and_the_surest_are_chosen() {
    let model = encoder();
    let it = exploit(&model);
    let scores = vec![vec![vec![4.0, 0.0], vec![0.0, 2.0]], vec![vec![0.0, 4.0], vec![0.0, 6.0]]];
    let found = it.joined(&scores, &[0.75, 0.25], None);
    // Means of 3 and 1, of 0 and 3; by T = 2.
    let two = |a: f64, b: f64| (a.exp() / (a.exp() + b.exp())) as f32;
    assert!((found[0][0] - two(1.5, 0.5)).abs() < 1e-6 && (found[1][1] - two(1.5, 0.0)).abs() < 1e-6);
    assert!((it.joined(&scores, &[0.75, 0.25], Some(0))[0][1] - two(2.0, 0.0)).abs() < 1e-6);
    assert!((it.joined(&scores, &[0.0, 0.0], None)[0][0] - 0.5).abs() < 1e-6);
    let soft = vec![vec![0.6, 0.4], vec![0.9, 0.1], vec![0.2, 0.8], vec![0.7, 0.3]];
    let pool = ["a", "b", "c", "d"].map(str::to_owned);
    let chosen = it.surest(&soft, &pool, 2, 1);
    assert_eq!(chosen, [("b".to_owned(), 0), ("d".to_owned(), 0), ("c".to_owned(), 1)]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = encoder();
    let (few, pool) = texts();
    let mut silent = |_: &str, _: f64| Ok(());
    let mut refused = |it: Exploit, few: &Few, part: &str| {
        let error = it.run(&model, &[], few, &pool, &mut silent).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(Exploit { patterns: Vec::new(), ..exploit(&model) }, &few, "there are no patterns");
    refused(exploit(&model), &[], "some labelled texts");
    refused(Exploit { words: 1.0, ..exploit(&model) }, &few, "from 0 to below 1");
    refused(Exploit { settings: Settings::of(Kind::Cloze), ..exploit(&model) }, &few, "nothing soft");
}

#[test]
fn a_small_study_gives_sound_evidence() {
    let scale = demonstrate::Scale { shots: [4, 8], near: 3, pool: 6, judged: 6, steps: [1, 1], seeds: 2 };
    let evidence = demonstrate::measure(&Desk, &scale).expect("measured");
    evidence.check().expect("sound");
    assert_eq!((evidence.rows.len(), evidence.expectations.len()), (7, 5));
}

/// The study at its full size: `cargo test -p ounce-peft --lib patterns -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes"]
fn the_whole_study() {
    let evidence = METHOD.demonstrate.expect("there")(&Desk).expect("measured");
    println!("{evidence:#?}");
}
