//! Adapters beside frozen weights: a sequence gets what a model with the adapter in its weights gives, alone and in a batch with others.

use std::path::Path;
use std::sync::Arc;

use ounce_engine::{Adapter, Around, Changes, Engine, Front, Look, LowRank, Mode, Narrow, Turn, Want};
use ounce_model::spec::Activation;
use ounce_model::{Model, Tensor};

fn model() -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models/llama");
    Model::open(folder).expect("a golden model")
}

/// Changes of every matrix of the layers, large enough to matter.
fn changes(model: &Model, seed: f32) -> Vec<LowRank> {
    let wave = |count: usize, by: f32| (0..count).map(|at| 0.3 * (seed + by * at as f32).sin()).collect();
    let tensors = model.spec.tensors().into_iter();
    let layers = tensors.filter(|it| it.name.starts_with("layers.") && it.shape.len() == 2);
    layers
        .map(|it| LowRank {
            name: it.name.trim_end_matches(".weight").to_owned(),
            rank: 3,
            reduce: wave(3 * it.shape[1], 0.71),
            expand: wave(3 * it.shape[0], 1.3),
            scale: 0.5,
        })
        .collect()
}

/// The model with the changes in its weights.
fn merged(model: &Model, changes: &[LowRank]) -> Model {
    let tensors = changes.iter().map(|it| {
        let name = format!("{}.weight", it.name);
        let mut values = model.weights.f32(&name).expect("a matrix");
        let input = it.reduce.len() / it.rank;
        for (row, b) in values.chunks_exact_mut(input).zip(it.expand.chunks_exact(it.rank)) {
            for (b, a) in b.iter().zip(it.reduce.chunks_exact(input)) {
                row.iter_mut().zip(a).for_each(|(w, a)| *w += it.scale * b * a);
            }
        }
        (name, Tensor::from_f32(&[it.expand.len() / it.rank, input], &values))
    });
    let weights = model.weights.replaced(tensors.collect::<Vec<_>>()).expect("replaced");
    Model { weights, ..model.clone() }
}

fn adapter(engine: &Engine, changes: Vec<LowRank>) -> Arc<Adapter> {
    engine.adapter(changes).expect("an adapter")
}

#[test]
fn beside_the_weights_is_as_in_them() {
    let model = model();
    let ids: Vec<u32> = (0..40).map(|at| (at * 37 + 11) % model.spec.vocab_size as u32).collect();
    for mode in [Mode::Reference, Mode::fast()] {
        let engine = Engine::load(&model, mode).expect("an engine");
        let plain = engine.session().logits(&ids).expect("logits");
        let changes = changes(&model, 1.0);
        let whole = Engine::load(&merged(&model, &changes), mode).expect("an engine");
        let expected = whole.session().logits(&ids).expect("logits");
        let with = engine.session().with_adapter(Some(adapter(&engine, changes))).expect("a session");
        let found = { with }.logits(&ids).expect("logits");
        let top = expected.iter().fold(0.0f32, |top, it| top.max(it.abs()));
        let off =
            |a: &[f32]| a.iter().zip(&expected).fold(0.0f32, |off, (a, b)| off.max((a - b).abs())) / top;
        assert!(off(&found) < 1e-4, "{mode:?}: {}", off(&found));
        assert!(off(&plain) > 0.05, "the adapter changes something: {}", off(&plain));
    }
}

#[test]
fn sequences_of_a_batch_have_their_own_adapters() {
    let model = model();
    let vocab = model.spec.vocab_size;
    let engine = Engine::load(&model, Mode::fast()).expect("an engine");
    let one = adapter(&engine, changes(&model, 1.0));
    // One that changes a single layer.
    let other = adapter(&engine, changes(&model, 2.0).drain(2..3).collect());
    let of = [None, Some(one.clone()), Some(other), Some(one), None];
    let ids: Vec<u32> = (0..60).map(|at| (at * 31 + 5) % vocab as u32).collect();
    let texts = [&ids[..7], &ids[3..30], &ids[20..21], &ids[9..14], &ids[40..60]];
    let mut sessions: Vec<_> =
        of.iter().map(|it| engine.session().with_adapter(it.clone()).expect("a session")).collect();
    let mut batch = engine.batch();
    let mut turns: Vec<Turn<'_, '_>> = (sessions.iter_mut().zip(texts))
        .map(|(session, ids)| Turn { session, ids, want: Want::Last })
        .collect();
    let together = batch.step(&mut turns).expect("a step").to_vec();
    for ((adapter, text), together) in of.iter().zip(texts).zip(together.chunks_exact(vocab)) {
        let mut alone = engine.session().with_adapter(adapter.clone()).expect("a session");
        assert_eq!(alone.feed(text, |_| {}).expect("logits"), together);
        // A fork goes on with the same adapter.
        let mut fork = alone.fork(text.len());
        assert_eq!(fork.logits(&[3]).expect("logits"), alone.logits(&[3]).expect("logits"));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = model();
    let engine = Engine::load(&model, Mode::fast()).expect("an engine");
    let good = changes(&model, 1.0).remove(0);
    let refused = |change: LowRank| engine.adapter(vec![change]).expect_err("refused").to_string();
    assert!(refused(LowRank { rank: 4, ..good.clone() }).contains("rank 4"));
    assert!(refused(LowRank { name: "head".into(), ..good.clone() }).contains("merge it"));
    assert!(refused(LowRank { scale: f32::NAN, ..good.clone() }).contains("no numbers"));
    assert!(engine.adapter(vec![good.clone(), good.clone()]).is_err());
    let twin = Engine::load(&model, Mode::fast()).expect("an engine");
    assert!(twin.session().with_adapter(Some(adapter(&engine, vec![good]))).is_err());
}

#[test]
fn networks_fronts_and_looks_that_do_not_fit_are_refused() {
    let model = model();
    let engine = Engine::load(&model, Mode::fast()).expect("an engine");
    let refused = |changes: Changes| engine.adapter(changes).expect_err("refused").to_string();
    let width = model.spec.hidden_size;
    let network = |name: &str, width: usize, inner: usize| Narrow {
        name: name.to_owned(),
        width: inner,
        reduce: vec![0.1; inner * width],
        reduce_bias: vec![0.0; inner],
        expand: vec![0.1; inner * width],
        expand_bias: vec![0.0; width],
        activation: Activation::Relu,
        scale: 1.0,
    };
    let narrow = |it: Narrow| Changes { narrow: vec![it], ..Changes::default() };
    assert!(engine.adapter(narrow(network("layers.0.feed_forward", width, 3))).is_ok());
    assert!(refused(narrow(network("layers.9.feed_forward", width, 3))).contains("stands at no layer"));
    assert!(refused(narrow(network("layers.0.feed_forward.down", width + 1, 3))).contains("values"));
    let mut damaged = network("layers.0.feed_forward.down", width, 2);
    damaged.expand[0] = f32::INFINITY;
    assert!(refused(narrow(damaged)).contains("no numbers"));
    let front = |it: Front| Changes { front: Some(it), ..Changes::default() };
    assert!(refused(front(Front::Vectors(vec![0.0; width + 1]))).contains("vectors have"));
    assert!(refused(front(Front::Vectors(vec![f32::NAN; width]))).contains("no numbers"));
    let prefix = Front::KeysAndValues { count: 2, layers: vec![[vec![0.0; 2], vec![0.0; 2]]] };
    assert!(refused(front(prefix)).contains("width of the layers' keys"));
    let look = Look { layer: 0, keys: vec![0.0; 3], values: vec![0.0; 3], gate: 1.0 };
    assert!(refused(Changes { looks: vec![look], ..Changes::default() }).contains("another width"));
    let around = Around { first: network("f", width / 2, 2), second: network("g", width, 2) };
    assert!(refused(Changes { around: vec![around], ..Changes::default() }).contains("values"));
}

/// Vectors in front of one text of a batch move nothing in another.
#[test]
fn what_stands_in_front_of_one_text_is_not_seen_by_others() {
    let model = model();
    let engine = Engine::load(&model, Mode::fast()).expect("an engine");
    let vectors: Vec<f32> = (0..3 * model.spec.hidden_size).map(|at| (at as f32 * 0.7).sin()).collect();
    let changes = Changes { front: Some(Front::Vectors(vectors)), ..Changes::default() };
    let guide = engine.adapter(changes).expect("an adapter");
    let of = [Some(guide.clone()), None, Some(guide)];
    let ids: Vec<u32> = (0..40).map(|at| (at * 31 + 5) % model.spec.vocab_size as u32).collect();
    let texts = [&ids[..5], &ids[5..20], &ids[20..40]];
    let session = |it: &Option<Arc<Adapter>>| engine.session().with_adapter(it.clone()).expect("a session");
    let mut sessions: Vec<_> = of.iter().map(session).collect();
    let mut batch = engine.batch();
    for (from, to) in [(0, 4), (4, 5)] {
        let mut turns: Vec<Turn<'_, '_>> = (sessions.iter_mut().zip(texts))
            .map(|(session, ids)| Turn { session, ids: &ids[from..to], want: Want::Last })
            .collect();
        let together = batch.step(&mut turns).expect("a step").to_vec();
        for ((adapter, text), together) in
            of.iter().zip(texts).zip(together.chunks_exact(model.spec.vocab_size))
        {
            let mut alone = session(adapter);
            let found = alone.logits(&text[..to]).expect("logits");
            let found = &found[found.len() - together.len()..];
            let off = found.iter().zip(together).fold(0.0f32, |off, (a, b)| off.max((a - b).abs()));
            assert!(off < 1e-4, "{off}");
            assert_eq!(alone.tokens(), &text[..to]);
        }
    }
    for (session, text) in sessions.iter_mut().zip(texts) {
        // Back to its beginning, and on from there.
        session.truncate(2);
        assert_eq!(session.tokens(), &text[..2]);
        session.truncate(0);
        assert!(session.tokens().is_empty());
        session.logits(text).expect("logits");
    }
}
