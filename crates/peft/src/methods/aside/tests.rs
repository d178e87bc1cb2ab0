use ounce_eval::method::{Fixture, Lab};
use ounce_train::net::Options;
use ounce_train::{Batch, Trainable};

use super::*;
use crate::desk::Desk;
use crate::retrieval::{Pair, PairStream, Retrieval, collection, mine, ranked};
use crate::{Adapted, Folder, Kind};

const OF: Retrieval = Retrieval { temperature: 0.5, negatives: 1 };

fn encoder() -> Model {
    Desk.model(Fixture::Encoder).expect("the built-in encoder")
}

fn settings() -> Settings {
    Settings { rank: 6, reduction: 32, retrieval: Some(OF), ..Settings::of(Kind::Aside) }
}

/// Two queries, their passages, and a wrong one each.
fn six(model: &Model) -> Batch {
    let texts = [
        "a dog ran",
        "she ate",
        "The dog ran home.",
        "She ate some bread.",
        "A bird sang.",
        "The soup was hot.",
    ];
    let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
    let ids = texts.map(|text| tokenizer.encode(text, true).expect("ids"));
    let mut made = Batch::untold(&ids);
    made.targets[0] = 0;
    made.targets[ids[0].len()] = 0;
    made
}

#[test]
fn it_begins_as_the_base_has_the_numbers_of_its_formula_and_moves_nothing_else() {
    let model = encoder();
    let mut net = Adapted::new(&model, &settings(), Options::default()).expect("adapted");
    let layers = model.spec.layers.len() as u64;
    // d = 128; halves of width 128 with m = 4, modules with r = 6.
    assert_eq!(net.trained(), layers * (2 * 128 * 6 + 36 + 6) + layers * 2 * (2 * 128 * 4 + 128 + 4));
    assert_eq!(net.trained(), net.parameters());
    let batch = six(&model);
    let plain = Settings { retrieval: Some(OF), ..Settings::of(Kind::Bitfit) };
    let mut base = Adapted::new(&model, &plain, Options::default()).expect("adapted");
    assert_eq!(net.vectors(&batch).expect("vectors"), base.vectors(&batch).expect("vectors"));
    // And these are what the engine says of a text.
    let engine = ounce_engine::Engine::new(&model).expect("an engine");
    let first = &batch.tokens[..batch.lengths[0]];
    let types = vec![0; first.len()];
    let expected = engine.embed(first, &types).expect("a vector");
    let found = base.vectors(&batch).expect("vectors");
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
    let frozen = net.frozen().expect("a hash");
    let mut optimizer =
        ounce_train::optim::Optimizer::new(Default::default(), net.params()).expect("an optimizer");
    let before = net.loss(&batch).expect("a loss").mean();
    for _ in 0..12 {
        net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        net.accumulate(&batch, 0.5).expect("a step");
        optimizer.step(net.params_mut(), 1e-2, 1.0);
    }
    assert!(net.loss(&batch).expect("a loss").mean() < 0.5 * before, "{before}");
    assert_eq!(frozen, net.frozen().expect("a hash"));
    let vectors = net.vectors(&batch).expect("vectors");
    let place = tempfile::tempdir().expect("a folder");
    net.save(place.path()).expect("written");
    let folder = Folder::open(place.path()).expect("read");
    let mut again = Adapted::open(&model, &folder, Options::default(), &[], false).expect("the same model");
    assert_eq!(again.vectors(&batch).expect("vectors"), vectors);
}

/// The loss by its formula, and its gradients by differences, through the whole chain.
#[test]
fn the_loss_is_its_formula_and_gradients_are_its_differences() {
    let model = encoder();
    let mut net = Adapted::new(&model, &settings(), Options::default()).expect("adapted");
    for (at, param) in net.params_mut().iter_mut().enumerate().filter(|(_, param)| param.is_trainable()) {
        let more = crate::random::uniform(0.1, param.value.len(), at as u64, "more");
        param.value.iter_mut().zip(more).for_each(|(value, more)| *value += more);
    }
    let batch = six(&model);
    let vectors = net.vectors(&batch).expect("vectors");
    let dot = |a: usize, b: usize| -> f64 {
        (0..128).map(|k| f64::from(vectors[a * 128 + k] * vectors[b * 128 + k])).sum::<f64>() / 0.5
    };
    let one = |query: usize| {
        let all: f64 = (2..6).map(|passage| dot(query, passage).exp()).sum();
        all.ln() - dot(query, 2 + query)
    };
    let loss = net.loss(&batch).expect("a loss");
    assert!((loss.sum - one(0) - one(1)).abs() < 1e-4 && loss.count == 2, "{loss:?}");
    net.accumulate(&batch, 1.0).expect("a step");
    let mut moved = 0;
    let asides: Vec<usize> =
        (0..net.params().len()).filter(|&at| net.params()[at].name.starts_with("aside.")).collect();
    assert_eq!(asides.len(), 4 * model.spec.layers.len());
    for index in asides {
        let gradient = net.params()[index].grad.clone();
        let largest = (0..gradient.len())
            .max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs()))
            .expect("numbers");
        let mut loss = |by: f32| {
            net.params_mut()[index].value[largest] += by;
            let loss = net.loss(&batch).expect("a loss").sum;
            net.params_mut()[index].value[largest] -= by;
            loss
        };
        let (expected, found) = ((loss(2e-3) - loss(-2e-3)) / 4e-3, f64::from(gradient[largest]));
        assert!(
            (found - expected).abs() < 5e-2 * expected.abs().max(0.02),
            "{}: {found} {expected}",
            net.params()[index].name
        );
        moved += usize::from(found.abs() > 1e-3);
    }
    assert!(moved > 10, "{moved}");
}

#[test]
fn pairs_are_mined_streamed_and_ranked() {
    let pair = |query: &str, passage: &str| Pair {
        query: query.into(),
        passage: passage.into(),
        negatives: Vec::new(),
    };
    let mut pairs = vec![
        pair("the red dog", "a red dog ran"),
        pair("a blue bird", "a blue bird sang"),
        pair("the cat", "a cat, not a dog, slept"),
    ];
    mine(&mut pairs, 1);
    // It shares a word that nobody else has.
    assert_eq!(pairs[0].negatives, ["a cat, not a dog, slept"]);
    assert!(pairs.iter().all(|pair| pair.negatives.len() == 1 && pair.negatives[0] != pair.passage));
    let model = encoder();
    let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
    let mut stream = PairStream::new(tokenizer, &pairs, (2, 1), 16, 3, None).expect("pairs");
    let first = ounce_train::data::BatchSource::next(&mut stream).expect("a batch").expect("one");
    assert_eq!((first.lengths.len(), first.counted()), (6, 2));
    let error = PairStream::new(tokenizer, &pairs, (2, 2), 16, 3, None).expect_err("too few").to_string();
    assert!(error.contains("has 1 wrong passages and 2 are asked for"), "{error}");
    assert!(PairStream::new(tokenizer, &pairs[..1], (2, 0), 16, 3, None).is_err());
    let (passages, wanted) = collection(&pairs, ["more", "a red dog ran"]);
    assert_eq!((passages.len(), wanted), (4, vec![0, 1, 2]));
    let found =
        ranked(
            &[0, 1],
            4,
            |query| if query == 0 { vec![9.0, 1.0, 2.0, 3.0] } else { vec![9.0, 1.0, 0.0, 3.0] },
        );
    assert!(
        (found.mrr_10 - (1.0 + 1.0 / 3.0) / 2.0).abs() < 1e-12
            && found.recall_1 == 0.5
            && found.recall_10 == 1.0
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let error = Adapted::new(&encoder(), &Settings { rank: 0, ..settings() }, Options::default());
    assert!(error.expect_err("no width").to_string().contains("--rank from 1 to 128"));
    let mut net = Adapted::new(&encoder(), &settings(), Options::default()).expect("adapted");
    let mut odd = six(&encoder());
    let last = odd.lengths.pop().expect("six");
    odd.tokens.truncate(odd.tokens.len() - last);
    odd.targets.truncate(odd.tokens.len());
    let error = net.loss(&odd).expect_err("five").to_string();
    assert!(error.contains("5 sequences is no queries with a passage and 1 wrong ones"), "{error}");
}

#[test]
fn a_small_study_gives_sound_evidence() {
    let scale = demonstrate::Scale { pairs: [12, 4, 4, 4], steps: 2, every: 1, seeds: 1 };
    let evidence = demonstrate::measure(&Desk, &scale).expect("measured");
    evidence.check().expect("sound");
    assert_eq!((evidence.rows.len(), evidence.expectations.len()), (7, 4));
}

/// The study at its full size: `cargo test -p ounce-peft --lib aside -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes"]
fn the_whole_study() {
    let evidence = METHOD.demonstrate.expect("there")(&Desk).expect("measured");
    println!("{evidence:#?}");
}
