//! The accountant's figures are the engine's own: operations and bytes that the meter counts, packed weights, caches, buffers.

use std::path::Path;

use ounce_engine::{Engine, Mode, Operator, Turn, Want};
use ounce_kernels::DType;
use ounce_kernels::attention::KvType;
use ounce_model::Model;
use ounce_model::account::pass::{Held, Pass, costs};
use ounce_model::account::{Formats, buffers, cache, sizes};
use ounce_model::spec::{FeedForwardKind, Spec};

/// The golden models, of every family.
fn models() -> Vec<(String, Model)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models");
    let entries = std::fs::read_dir(folder).expect("golden models");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), Model::open(path).expect("a golden model"))).collect()
}

fn ids(model: &Model, count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| (i * 37 + 11) % model.spec.vocab_size as u32).collect()
}

fn has_experts(spec: &Spec) -> bool {
    let kinds = spec.layers.iter().filter_map(|layer| layer.feed_forward.as_ref());
    kinds.into_iter().any(|it| matches!(it.kind, FeedForwardKind::Experts(_)))
}

fn held(formats: &Formats, kv: KvType) -> Held<'_> {
    Held { formats, packed: true, quantize: None, kv }
}

/// What a pass of so many tokens behind so many others counts, by kind of work: bytes and operations.
fn counted(engine: &Engine, model: &Model, start: usize, tokens: usize) -> Vec<(Operator, f64, f64)> {
    let ids = ids(model, start + tokens);
    let mut session = engine.session();
    if start > 0 {
        session.feed(&ids[..start], |_| {}).expect("a pass");
    }
    session.measure();
    session.feed(&ids[start..], |_| {}).expect("a pass");
    let profile = session.profile().expect("a measured session");
    profile.costs().map(|(operator, cost)| (operator, cost.bytes as f64, cost.operations as f64)).collect()
}

#[test]
fn operations_and_bytes_of_a_pass_are_those_that_the_meter_counts() {
    for (name, model) in models() {
        let spec = &model.spec;
        let long = spec.ropes();
        if !spec.causal || long.into_iter().any(|rope| rope.depends_on_length()) {
            continue;
        }
        let engine = Engine::load(&model, Mode::fast()).unwrap();
        let formats = Formats::of(&model.weights);
        for (start, tokens) in [(0, 1), (0, 24), (20, 1), (13, 5)] {
            let pass = Pass { sequences: 1, start, tokens, logits: 1 };
            let expected = costs(spec, pass, &held(&formats, KvType::F32)).unwrap();
            let found = counted(&engine, &model, start, tokens);
            for (operator, bytes, operations) in found {
                let what = format!("{name}: {start}+{tokens}, {}", operator.name());
                let (_, cost) = expected.iter().find(|(it, _)| *it == operator).expect(&what);
                let near = (cost.operations - operations).abs() <= 1e-9 * operations;
                assert!(near, "{what}: {} of {operations} operations", cost.operations);
                // Which experts several tokens choose is theirs; the meter counts a cache's room for more.
                let even = tokens == 1 || !has_experts(spec);
                if operator != Operator::Attention && even {
                    assert!((cost.weight_bytes - bytes).abs() <= 1e-9 * bytes, "{what}: {cost:?}, {bytes}");
                }
            }
        }
    }
}

#[test]
fn packed_weights_have_the_bytes_that_were_told() {
    for (name, model) in models() {
        let formats = Formats::of(&model.weights);
        for quantize in [None, Some(DType::BF16), Some(DType::Q8_0), Some(DType::Q4K)] {
            let engine = Engine::load(&model, Mode::Fast { quantize }).unwrap();
            let told = sizes::packed_bytes(&model.spec, &formats, quantize);
            assert_eq!(told, engine.packed_bytes() as u64, "{name} {quantize:?}");
        }
    }
}

#[test]
fn caches_have_the_bytes_that_were_told() {
    for (name, model) in models().into_iter().filter(|(_, model)| model.spec.causal) {
        let mut engine = Engine::load(&model, Mode::fast()).unwrap();
        for kv in KvType::ALL {
            engine.set_kv_type(kv);
            let mut session = engine.session();
            let mut pushes = Vec::new();
            for tokens in [5, 1, 30, 1] {
                session.feed(&ids(&model, tokens), |_| {}).unwrap();
                pushes.push(tokens);
                // Rotations that change with the length run a text again.
                if session.cache_bytes() as u64 != cache::held_bytes(&model.spec, kv, pushes.iter().copied())
                {
                    assert!(name.contains("rope") || name.contains("longrope"), "{name} {kv:?} {pushes:?}");
                }
            }
        }
    }
}

#[test]
fn buffers_have_the_bytes_that_were_told() {
    for (name, model) in models() {
        let spec = &model.spec;
        let long = spec.ropes();
        if !spec.causal || has_experts(spec) || long.into_iter().any(|rope| rope.depends_on_length()) {
            continue;
        }
        let engine = Engine::load(&model, Mode::fast()).unwrap();
        let formats = Formats::of(&model.weights);
        let mut session = engine.session();
        for ids in [&ids(&model, 40)[..], &[1]] {
            let logits = session.feed(ids, |_| {}).unwrap();
            session.reuse(logits);
        }
        let pass = |start, tokens| Pass { sequences: 1, start, tokens, logits: 1 };
        let told = buffers::bytes(spec, &[pass(0, 40), pass(40, 1)], &held(&formats, KvType::F32)).unwrap();
        let (told, found) = (told as f64, session.buffer_bytes() as f64);
        // Vectors that grow may hold more than they were asked for.
        assert!((told - found).abs() <= 0.02 * found, "{name}: {told} of {found}");
    }
}

#[test]
fn a_batch_counts_its_sequences() {
    for (name, model) in models().into_iter().filter(|(name, _)| ["llama", "gemma2"].contains(&name.as_str()))
    {
        let engine = Engine::load(&model, Mode::fast()).unwrap();
        let formats = Formats::of(&model.weights);
        let mut sessions: Vec<_> = (0..3).map(|_| engine.session()).collect();
        for session in &mut sessions {
            session.feed(&ids(&model, 7), |_| {}).unwrap();
        }
        let mut batch = engine.batch();
        batch.measure();
        let mut turns: Vec<_> =
            sessions.iter_mut().map(|session| Turn { session, ids: &[3], want: Want::Last }).collect();
        batch.step(&mut turns).unwrap();
        let pass = Pass { sequences: 3, start: 7, tokens: 1, logits: 3 };
        let expected = costs(&model.spec, pass, &held(&formats, KvType::F32)).unwrap();
        for (operator, found) in batch.profile().unwrap().costs() {
            let (_, cost) = expected.iter().find(|(it, _)| *it == operator).unwrap();
            assert_eq!(cost.operations, found.operations as f64, "{name}: {}", operator.name());
        }
    }
}
