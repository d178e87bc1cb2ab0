//! Batches: several sequences in one step give what each gives alone, and steps allocate nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};

use ounce_engine::{Engine, Mode, Session, Turn, Want};
use ounce_model::Model;

/// Counts the allocations of the thread that asks.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the same contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the same contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn models() -> Vec<(String, Model)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("golden models").map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    let open = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, Model::open(path).unwrap_or_else(|error| panic!("{error}")))
    };
    paths.into_iter().map(open).filter(|(_, model)| model.spec.causal).collect()
}

fn ids(model: &Model) -> Vec<u32> {
    (0..48).map(|i| (i * 37 + 11) % model.spec.vocab_size as u32).collect()
}

fn turn<'s, 'e>(session: &'s mut Session<'e>, ids: &'s [u32], want: Want) -> Turn<'s, 'e> {
    Turn { session, ids, want }
}

#[test]
fn ragged_sequences_in_a_batch_give_what_each_gives_alone() {
    for (name, model) in models() {
        let (ids, vocab) = (ids(&model), model.spec.vocab_size);
        let engine = Engine::load(&model, Mode::fast()).unwrap();
        let texts = [&ids[..5], &ids[3..33], &ids[40..41]];
        let next = [&ids[7..8], &ids[1..4], &ids[20..22]];
        let mut alone = Vec::new();
        for (text, next) in texts.iter().zip(next) {
            let mut session = engine.session();
            let first = session.feed(text, |_| {}).unwrap();
            alone.push((first, session.logits(next).unwrap()));
        }

        let mut sessions = [engine.session(), engine.session(), engine.session()];
        let mut batch = engine.batch();
        let mut turns: Vec<_> =
            sessions.iter_mut().zip(texts).map(|(session, ids)| turn(session, ids, Want::Last)).collect();
        let first = batch.step(&mut turns).unwrap().to_vec();
        let mut turns: Vec<_> =
            sessions.iter_mut().zip(next).map(|(session, ids)| turn(session, ids, Want::All)).collect();
        let second = batch.step(&mut turns).unwrap();
        let expected_first: Vec<f32> = alone.iter().flat_map(|(first, _)| first.clone()).collect();
        let expected_second: Vec<f32> = alone.iter().flat_map(|(_, second)| second.clone()).collect();
        for (found, expected) in [(&first[..], &expected_first), (second, &expected_second)] {
            assert_eq!(found.len(), expected.len(), "{name}");
            let rms = (expected.iter().map(|x| x * x).sum::<f32>() / expected.len() as f32).sqrt();
            let largest = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(largest <= 1e-5 * rms, "{name}: {largest} of {rms}");
        }
        assert_eq!(second.len(), 6 * vocab);
        assert_eq!(sessions.map(|session| session.tokens().len()), [6, 33, 3]);
    }
}

#[test]
fn a_step_that_fails_leaves_every_sequence_as_it_was() {
    let (_, model) = models().remove(0);
    let (engine, ids) = (Engine::load(&model, Mode::fast()).unwrap(), ids(&model));
    let (mut good, mut bad, mut undisturbed) = (engine.session(), engine.session(), engine.session());
    let mut batch = engine.batch();
    let mut turns = [turn(&mut good, &ids[..4], Want::Nothing), turn(&mut bad, &ids[..2], Want::Nothing)];
    assert!(batch.step(&mut turns).unwrap().is_empty());
    let unknown = [model.spec.vocab_size as u32];
    let mut turns = [turn(&mut good, &ids[4..6], Want::Last), turn(&mut bad, &unknown, Want::Last)];
    assert!(batch.step(&mut turns).is_err());
    assert_eq!((good.tokens().len(), bad.tokens().len()), (4, 2));
    undisturbed.feed(&ids[..4], |_| {}).unwrap();
    let expected = undisturbed.feed(&ids[4..6], |_| {}).unwrap();
    assert_eq!(good.feed(&ids[4..6], |_| {}).unwrap(), expected);
}

#[test]
fn a_session_of_another_engine_is_refused() {
    let (_, model) = models().remove(0);
    let engines = [Engine::new(&model).unwrap(), Engine::new(&model).unwrap()];
    let mut session = engines[0].session();
    let mut turns = [turn(&mut session, &[1], Want::Last)];
    let error = engines[1].batch().step(&mut turns).unwrap_err().to_string();
    assert!(error.contains("another engine"), "{error}");
}

#[test]
fn steps_of_a_dense_decoder_allocate_nothing_but_cache() {
    let (name, model) = models().into_iter().find(|(name, _)| name == "llama").expect("a llama");
    let (engine, ids) = (Engine::load(&model, Mode::fast()).unwrap(), ids(&model));
    let mut session = engine.session();
    session.reserve(64);
    let warm = session.feed(&ids[..4], |_| {}).unwrap();
    session.reuse(warm);
    let mut step = |id: u32| {
        let before = ALLOCATIONS.with(Cell::get);
        let logits = session.feed(&[id], |_| {}).unwrap();
        session.reuse(logits);
        ALLOCATIONS.with(Cell::get) - before
    };
    step(ids[5]);
    let allocations: Vec<usize> = ids[6..30].iter().map(|&id| step(id)).collect();
    assert!(allocations.iter().all(|&count| count == 0), "{name}: {allocations:?}");
}

#[test]
fn forks_share_what_they_hold_and_write_apart() {
    for (name, model) in models() {
        let (ids, engine) = (ids(&model), Engine::load(&model, Mode::fast()).unwrap());
        let mut first = engine.session();
        first.feed(&ids[..30], |_| {}).unwrap();
        let alone = first.cache_bytes();
        let mut fork = first.fork(20);
        // Where rotations depend on the length nothing can be shared.
        let held = fork.tokens().len();
        assert!(held == 20 || name.contains("longrope") || name.contains("dynamic"), "{name}: {held}");
        if held > 0 {
            assert_eq!(first.own_cache_bytes() + fork.own_cache_bytes(), alone, "{name}");
        }
        let other = [&ids[..20], &ids[40..46]].concat();
        let growth = fork.cache_growth(6);
        let together = first.own_cache_bytes() + fork.own_cache_bytes();
        let forked = fork.feed(&other[held..], |_| {}).unwrap();
        if held > 0 {
            assert_eq!(first.own_cache_bytes() + fork.own_cache_bytes(), together + growth, "{name}");
        }
        let mut fresh = engine.session();
        assert_close(&name, &forked, &fresh.feed(&other, |_| {}).unwrap());
        // The one that was forked goes on as if nothing had been.
        let mut undisturbed = engine.session();
        undisturbed.feed(&ids[..30], |_| {}).unwrap();
        let expected = undisturbed.feed(&ids[30..33], |_| {}).unwrap();
        assert_close(&name, &first.feed(&ids[30..33], |_| {}).unwrap(), &expected);
    }
}

#[test]
fn the_growth_of_a_cache_is_told_before() {
    let (_, model) = models().into_iter().find(|(name, _)| name == "llama").expect("a llama");
    let engine = Engine::load(&model, Mode::fast()).unwrap();
    let mut session = engine.session();
    for (step, count) in [1, 3, 40, 1, 30, 1, 1].into_iter().enumerate() {
        let ids: Vec<u32> = (0..count).map(|id| (id * 7 + step as u32) % 50).collect();
        let (before, growth) = (session.cache_bytes(), session.cache_growth(ids.len()));
        session.feed(&ids, |_| {}).unwrap();
        assert_eq!(session.cache_bytes(), before + growth, "step {step}");
    }
}

fn assert_close(name: &str, found: &[f32], expected: &[f32]) {
    let rms = (expected.iter().map(|x| x * x).sum::<f32>() / expected.len() as f32).sqrt();
    let largest = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest <= 1e-4 * rms, "{name}: {largest} of {rms}");
}

#[test]
fn a_text_that_was_cut_goes_on_as_if_it_had_never_been_longer() {
    for (name, model) in models() {
        let ids = ids(&model);
        let engine = Engine::load(&model, Mode::fast()).unwrap();
        let mut cut = engine.session();
        cut.feed(&ids, |_| {}).unwrap();
        cut.truncate(9);
        let mut fresh = engine.session();
        fresh.feed(&ids[..9], |_| {}).unwrap();
        for next in [&ids[20..21], &ids[30..34]] {
            let (found, expected) = (cut.logits(next).unwrap(), fresh.logits(next).unwrap());
            let top = expected.iter().fold(0.0f32, |top, it| top.max(it.abs()));
            let off = found.iter().zip(&expected).fold(0.0f32, |off, (a, b)| off.max((a - b).abs()));
            assert!(off <= 1e-3 * top, "{name}: {off} of {top}");
        }
        assert_eq!(cut.tokens(), fresh.tokens(), "{name}");
    }
}
