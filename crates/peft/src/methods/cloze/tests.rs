use ounce_eval::method::{Fixture, Lab};
use ounce_model::Model;
use ounce_train::data::labelled::batch;
use ounce_train::net::Options;
use ounce_train::optim::{self, Optimizer};
use ounce_train::{Batch, Trainable};

use super::*;
use crate::{Adapted, Folder, Kind, Settings};

fn encoder() -> Model {
    crate::desk::Desk.model(Fixture::Encoder).expect("the built-in encoder")
}

fn words() -> Vec<(String, Vec<String>)> {
    verbalizer::parse("glad=happy,glad; sad").expect("labels")
}

fn cloze(model: &Model, template: &str, free: usize, soft: bool) -> Result<Cloze> {
    let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
    Ok(Cloze::new(tokenizer, &Asked { template, free, verbalizer: &words(), soft, seed: 3 })?.0)
}

fn examples(model: &Model, cloze: &Cloze) -> Batch {
    let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
    let texts = [
        ("The dog ran home and sang.", "glad"),
        ("Nobody came. She cried.", "sad"),
        ("It was a good day.", "glad"),
    ];
    let all = texts.map(|(text, label)| {
        let label = cloze.label(label).expect("known");
        cloze.template.example(tokenizer, text, Some(label), 40, true).expect("room").0
    });
    batch(&all)
}

fn settings(cloze: Cloze) -> Settings {
    Settings { cloze: Some(cloze), ..Settings::of(Kind::Cloze) }
}

#[test]
fn a_template_keeps_its_place_and_only_texts_are_cut() {
    let model = encoder();
    let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
    let it = cloze(&model, "<text> {She was} [MASK].", 2, true).expect("a cloze");
    assert_eq!(it.template.soft().count(), tokenizer.encode(" She was", false).expect("ids").len() + 2);
    let (whole, cut) = it.template.example(tokenizer, "The dog ran home.", Some(1), 40, true).expect("room");
    assert!(!cut && whole.ids.len() < 40);
    let (short, cut) =
        it.template.example(tokenizer, &"The dog ran home. ".repeat(20), Some(1), 16, true).expect("room");
    assert!(cut && short.ids.len() == 16);
    let tail = it.template.after.len();
    assert_eq!(short.ids[16 - tail..], whole.ids[whole.ids.len() - tail..]);
    assert_eq!(batch([&short]).counted(), 1);
    let error =
        it.template.example(tokenizer, "a", None, it.template.len(), true).expect_err("no room").to_string();
    assert!(error.contains("leaves no room"), "{error}");
    // The blank in front of the gap is the word's, not a token of its own.
    let after: Vec<u32> = it.template.after.iter().map(|piece| piece.id).collect();
    let gap = after.iter().position(|id| *id == it.template.mask).expect("a gap");
    assert!(it.template.gap_blank && tokenizer.piece(after[gap + 1]).is_some_and(|piece| piece == "."));
}

#[test]
fn what_does_not_fit_is_refused_in_a_sentence() {
    let model = encoder();
    for (template, part) in [
        ("It was [MASK].", "has 0 and 1"),
        ("<text> <text> [MASK]", "has 2 and 1"),
        ("<text> {a [MASK]", "no } closes"),
    ] {
        let error = cloze(&model, template, 0, true).expect_err(template).to_string();
        assert!(error.contains(part), "{error}");
    }
    for (labels, part) in [("good=great", "has 1 labels"), ("a=x;a=y", "twice")] {
        let error = verbalizer::parse(labels).expect_err(labels).to_string();
        assert!(error.contains(part), "{error}");
    }
    let it = cloze(&model, "<text> [MASK]", 0, false).expect("a cloze");
    let error = it.label("angry").expect_err("no words").to_string();
    assert!(error.contains("\"angry\"") && error.contains("glad, sad"), "{error}");
    let error =
        Adapted::new(&model, &settings(it), Options::default()).expect_err("nothing to train").to_string();
    assert!(error.contains("nothing to train; put words"), "{error}");
    let same = [("a".to_owned(), vec!["sad".to_owned()]), ("b".to_owned(), vec!["sad".to_owned()])];
    let asked = Asked { template: "<text> [MASK]", verbalizer: &same, ..Asked::default() };
    let error = Cloze::new(model.tokenizer.as_ref().expect("one"), &asked).expect_err("alike").to_string();
    assert!(error.contains("the same words"), "{error}");
    let decoder = crate::desk::Desk.model(Fixture::Tiny).expect("the tiny model");
    let other = settings(cloze(&model, "<text> [MASK]", 1, true).expect("a cloze"));
    let error = Adapted::new(&decoder, &other, Options::default()).expect_err("a decoder").to_string();
    assert!(error.contains("a masked language model"), "{error}");
}

/// A soft verbalizer begins with the scores of the given words, and soft words begin as the words they are.
#[test]
fn what_is_soft_begins_as_what_was_given() {
    let model = encoder();
    let hard = cloze(&model, "<text> She was [MASK].", 0, false).expect("a cloze");
    let soft = cloze(&model, "<text> {She was} [MASK].", 0, true).expect("a cloze");
    // Something has to be trained where the cloze itself is given.
    let under = Settings { cloze: Some(hard.clone()), ..Settings::of(Kind::Bottleneck) };
    let mut hard_net = Adapted::new(&model, &under, Options::default()).expect("adapted");
    let mut soft_net = Adapted::new(&model, &settings(soft.clone()), Options::default()).expect("adapted");
    let expected = hard_net.scores(&examples(&model, &hard)).expect("scores");
    let found = soft_net.scores(&examples(&model, &soft)).expect("scores");
    assert_eq!(expected.len(), 6);
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-3, "{found} {expected}");
    }
    // By hand: the mean of the words' logits at the gap.
    let batch = examples(&model, &hard);
    let mut engine_logits = Vec::new();
    let engine = ounce_engine::Engine::new(&model).expect("an engine");
    let mut start = 0;
    for &length in &batch.lengths {
        let ids = &batch.tokens[start..start + length];
        let gap = ids.iter().position(|id| *id == hard.template.mask).expect("a gap");
        let logits = engine.masked_logits(ids, &vec![0; length]).expect("logits");
        engine_logits.push(logits[gap * model.spec.vocab_size..][..model.spec.vocab_size].to_vec());
        start += length;
    }
    for (row, logits) in expected.chunks(2).zip(&engine_logits) {
        for (score, label) in row.iter().zip(&hard.labels) {
            let word =
                |ids: &Vec<u32>| ids.iter().map(|&id| logits[id as usize]).sum::<f32>() / ids.len() as f32;
            let by_hand = label.words.iter().map(word).sum::<f32>() / label.words.len() as f32;
            assert!((score - by_hand).abs() < 2e-3, "{score} {by_hand}");
        }
    }
}

/// As many numbers as the formula says; gradients are differences; nothing else moves; a folder brings it back.
#[test]
fn it_learns_a_few_thousand_numbers_and_nothing_else() {
    let model = encoder();
    let it = cloze(&model, "<text> {She was} [MASK].", 3, true).expect("a cloze");
    let batch = examples(&model, &it);
    let tokens = it.template.soft().count();
    let mut net = Adapted::new(&model, &settings(it), Options::default()).expect("adapted");
    assert_eq!(net.trained(), (tokens * 128 + 2 * 129) as u64);
    assert_eq!(net.trained(), net.parameters());
    let frozen = net.frozen().expect("a hash");
    net.accumulate(&batch, 1.0).expect("a step");
    let trained: Vec<usize> = (0..net.params().len()).filter(|&at| net.params()[at].is_trainable()).collect();
    assert_eq!(trained.len(), 3);
    for index in trained {
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
        let expected = (loss(4e-3) - loss(-4e-3)) / 8e-3;
        let found = f64::from(gradient[largest]);
        assert!((found - expected).abs() < 2e-2 * expected.abs().max(0.1), "{index}: {found} {expected}");
    }
    let options = optim::Options { weight_decay: 0.0, ..optim::Options::default() };
    let mut optimizer = Optimizer::new(options, net.params()).expect("an optimizer");
    let before = net.loss(&batch).expect("a loss").mean();
    for _ in 0..15 {
        net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        net.accumulate(&batch, 1.0 / 3.0).expect("a step");
        optimizer.step(net.params_mut(), 1e-2, 1.0);
    }
    assert!(net.loss(&batch).expect("a loss").mean() < 0.5 * before);
    assert_eq!(frozen, net.frozen().expect("a hash"));
    let scores = net.scores(&batch).expect("scores");
    let place = tempfile::tempdir().expect("a folder");
    net.save(place.path()).expect("written");
    let folder = Folder::open(place.path()).expect("read");
    let mut again = Adapted::open(&model, &folder, Options::default(), &[], false).expect("the same model");
    assert_eq!(again.scores(&batch).expect("scores"), scores);
}

/// The loss on words under a template of given words has the gradient of its differences, cap and averages included.
#[test]
fn words_scores_have_the_gradients_of_their_differences() {
    use ounce_train::loss::{Chunk, LogitLoss};
    let weights = vec![vec![(0, 0.5), (2, 0.5)], vec![(1, 1.0)], vec![(2, 0.25), (4, 0.75)]];
    let logits = vec![0.3f32, -1.2, 2.0, 0.1, 0.7];
    let run = |values: &[f32], scale: Option<f32>| {
        let mut values = values.to_vec();
        let chunk = Chunk {
            pool: ounce_kernels::pool::Pool::global(),
            logits: &mut values,
            width: 5,
            targets: &[2],
            rows: &[0],
            softcap: Some(1.5),
        };
        let sum = Verbalized { weights: &weights, scores: Vec::new() }.chunk(chunk, scale);
        (sum, values)
    };
    let (_, gradient) = run(&logits, Some(2.0));
    for at in 0..5 {
        let moved = |by: f32| {
            let mut values = logits.clone();
            values[at] += by;
            run(&values, None).0
        };
        let expected = 2.0 * (moved(1e-2) - moved(-1e-2)) / 2e-2;
        assert!((f64::from(gradient[at]) - expected).abs() < 1e-3, "{at}: {} {expected}", gradient[at]);
    }
}

#[test]
fn a_small_study_gives_sound_evidence() {
    let scale = demonstrate::Scale { shots: [1, 2, 3], steps: 1, judged: 8, seeds: 1 };
    let evidence = demonstrate::measure(&crate::desk::Desk, &scale).expect("measured");
    evidence.check().expect("sound");
    assert_eq!((evidence.rows.len(), evidence.expectations.len()), (8, 4));
}

/// The study at its full size: `cargo test -p ounce-peft --lib cloze -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes"]
fn the_whole_study() {
    let evidence = METHOD.demonstrate.expect("there")(&crate::desk::Desk).expect("measured");
    println!("{evidence:#?}");
}
