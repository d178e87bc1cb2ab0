//! Every method: it trains as many numbers as its formula says, learns, leaves all else as it was, merges to what it is unmerged, and
//! comes back from its folder.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use ounce_engine::{Engine, Mode};
use ounce_model::weights::MemorySource;
use ounce_model::{Model, Weights};
use ounce_peft::merge::merge_adapted;
use ounce_peft::{Adapted, Folder, Kind, Settings, Targets, beside, merge};
use ounce_train::net::Options;
use ounce_train::optim::{self, Optimizer};
use ounce_train::{Batch, Param, Trainable};

fn golden(name: &str) -> Model {
    Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models").join(name)).unwrap()
}

/// The model with its two layers again on top.
fn deeper(mut model: Model) -> Model {
    let layers = model.spec.layers.clone();
    model.spec.layers.extend(layers);
    let mut source = MemorySource::new("deeper");
    for info in model.spec.tensors() {
        let name = info.name.replace("layers.2.", "layers.0.").replace("layers.3.", "layers.1.");
        source.insert(info.name, model.weights.get(&name).unwrap());
    }
    model.weights = Weights::in_memory(source);
    model
}

fn model(kind: Kind) -> Model {
    match kind {
        Kind::Bitfit => golden("qwen2"),
        Kind::Sherl => deeper(golden("llama")),
        _ => golden("llama"),
    }
}

fn settings(kind: Kind) -> Settings {
    let settings =
        Settings { rank: 3, initial_rank: 4, tokens: 4, reduction: 4, blocks: 2, ..Settings::of(kind) };
    match kind {
        Kind::Svfit => Settings { rank: 0, targets: Targets::parse("query,value").unwrap(), ..settings },
        Kind::Sherl => Settings { layers: 1, ..settings },
        Kind::GatedPrefix => Settings { layers: 1, ..settings },
        _ => settings,
    }
}

fn batch() -> Batch {
    let text = |from: u32, length: u32| -> Vec<u32> {
        (from..from + length).map(|i| (5 * i + i * i) % 96).collect()
    };
    let (a, b) = (text(1, 20), text(9, 13));
    Batch::next_token([a.as_slice(), b.as_slice()])
}

fn learn(adapted: &mut Adapted, steps: u64, rate: f64) -> (f64, f64) {
    let options = optim::Options { weight_decay: 0.0, ..optim::Options::default() };
    let mut optimizer = Optimizer::new(options, adapted.params()).unwrap();
    let before = adapted.loss(&batch()).unwrap().mean();
    for _ in 0..steps {
        adapted.params_mut().iter_mut().for_each(|param: &mut Param| param.grad.fill(0.0));
        let loss = adapted.accumulate(&batch(), 1.0 / batch().counted() as f32).unwrap();
        optimizer.step(adapted.params_mut(), rate, 1.0);
        adapted.stepped(loss.mean());
    }
    (before, adapted.loss(&batch()).unwrap().mean())
}

fn assert_close(what: &str, ours: &[f32], theirs: &[f32], tolerance: f32) {
    let largest = theirs.iter().fold(1e-3f32, |max, it| max.max(it.abs()));
    for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert!((ours - theirs).abs() <= tolerance * largest, "{what}[{at}]: {ours} for {theirs}");
    }
}

fn check(kind: Kind) {
    let (model, settings) = (model(kind), settings(kind));
    let mut adapted = Adapted::new(&model, &settings, Options::default()).unwrap();
    assert_eq!(adapted.trained(), adapted.parameters(), "{kind}: as many numbers as the formula says");
    let whole = Batch { targets: batch().tokens.clone(), ..batch() };
    let mut plain = ounce_train::net::Net::from_model(&model, Options::default()).unwrap();
    let base = plain.loss(&batch()).unwrap().mean();
    let frozen = adapted.frozen().unwrap();
    let begun = adapted.loss(&batch()).unwrap().mean();
    let changes = [Kind::Prompt, Kind::PTuning, Kind::Prefix, Kind::Mam, Kind::Sherl].contains(&kind);
    // Compacter's first factors are small, not zero.
    let near = if kind == Kind::Compacter { 1e-3 } else { 1e-5 };
    assert!(changes || (begun - base).abs() < near, "{kind}: {begun} for {base} before anything is learned");
    let (before, after) = learn(&mut adapted, 30, 5.0 * kind.facts().rate);
    assert!(after < before - 0.005, "{kind}: {before} to {after}");
    assert_eq!(frozen, adapted.frozen().unwrap(), "{kind}: what is frozen stays as it is");
    let logits = adapted.logits(&whole).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("adapter");
    adapted.save(&place).unwrap();
    let saved = Folder::open(&place).unwrap();
    let mut again = Adapted::open(&model, &saved, Options::default(), &[], false).unwrap();
    assert_close(&format!("{kind} read"), &again.logits(&whole).unwrap(), &logits, 1e-5);
    match merge(&model, &saved, None, false) {
        Ok((merged, told)) => {
            assert!(kind.facts().merges && told.moved > 0.0 && told.lost == 0.0, "{kind}: {told:?}");
            let nothing = Settings { rank: 1, ..Settings::default() };
            let mut plain = Adapted::new(&merged, &nothing, Options::default()).unwrap();
            assert_close(&format!("{kind} merged"), &plain.logits(&whole).unwrap(), &logits, 1e-5);
        }
        Err(error) => assert!(!kind.facts().merges, "{kind}: {error}"),
    }
    // The engine, beside the weights.
    match beside::alone(&model, &saved, false) {
        Ok((base, changes)) => {
            assert!(beside::runs(kind), "{kind}");
            let mut engine = Engine::load(&base, Mode::fast()).unwrap();
            let adapter = engine.adapter(changes).unwrap();
            engine.set_adapter(Some(adapter)).unwrap();
            let mut found = Vec::new();
            let mut start = 0;
            for length in &whole.lengths {
                // In two pieces: what stands in front comes before the first.
                let (first, rest) = whole.tokens[start..start + length].split_at(6);
                let mut session = engine.session();
                found.extend(session.logits(first).unwrap());
                found.extend(session.fork(6).logits(rest).unwrap());
                assert_eq!(session.tokens(), first, "{kind}");
                start += length;
            }
            assert_close(&format!("{kind} in the engine"), &found, &logits, 2e-4);
        }
        Err(error) => assert!(!beside::runs(kind), "{kind}: {error}"),
    }
    let mut other = model.clone();
    other.weights = other
        .weights
        .replaced([("final_norm.weight".to_owned(), ounce_model::Tensor::from_f32(&[32], &[0.5; 32]))])
        .unwrap();
    let error = Adapted::open(&other, &saved, Options::default(), &[], false).unwrap_err().to_string();
    assert!(error.contains("another base"), "{kind}: {error}");
    Adapted::open(&other, &saved, Options::default(), &[], true).unwrap();
}

macro_rules! methods {
    ($($name:ident $kind:ident),*) => { $(#[test] fn $name() { check(Kind::$kind); })* };
}

methods!(
    lora Lora, lora_fa LoraFa, krona Krona, ssf Ssf, mam Mam, dora Dora, dylora Dylora, adalora Adalora, vera Vera, svfit Svfit, flora Flora, ia3 Ia3, bitfit Bitfit,
    bottleneck Bottleneck, parallel Parallel, compacter Compacter, language Language, prompt Prompt, p_tuning PTuning,
    prefix Prefix, gated_prefix GatedPrefix, sherl Sherl,
    aside Aside
);

#[test]
fn the_fast_network_learns_lora_as_the_network_of_slots_does() {
    let model = golden("llama");
    for checkpointing in [false, true] {
        let options = Options { checkpointing, ..Options::default() };
        let mut slots = Adapted::new(&model, &settings(Kind::Lora), Options::default()).unwrap();
        let mut fast = Adapted::fast(&model, &settings(Kind::Lora), options).unwrap();
        // B away from zero, so that A has a gradient.
        for adapted in [&mut slots, &mut fast] {
            for param in adapted.params_mut().iter_mut().filter(|param| param.name.ends_with(".lora_b")) {
                param.value = ounce_train::net::normal(0.1, param.value.len(), 3, &param.name);
            }
        }
        let (theirs, ours) =
            (slots.accumulate(&batch(), 0.5).unwrap(), fast.accumulate(&batch(), 0.5).unwrap());
        assert!((theirs.sum - ours.sum).abs() < 1e-5 * theirs.sum, "{} for {}", ours.sum, theirs.sum);
        let mut compared = 0;
        for theirs in slots.params().iter().filter(|param| param.is_trainable()) {
            let ours = fast.params().iter().find(|param| param.name == theirs.name).unwrap();
            assert_close(&theirs.name, &ours.grad, &theirs.grad, 1e-4);
            compared += 1;
        }
        assert_eq!(compared, fast.params().iter().filter(|param| param.is_trainable()).count());
        let (theirs, ours) = (slots.merged().unwrap(), fast.merged().unwrap());
        for info in model.spec.tensors() {
            let (theirs, ours) =
                (theirs.weights.f32(&info.name).unwrap(), ours.weights.f32(&info.name).unwrap());
            assert_close(&info.name, &ours, &theirs, 1e-6);
        }
    }
    let fast = Adapted::fast(&model, &settings(Kind::Dora), Options::default()).unwrap();
    assert_eq!(fast.settings().method, Kind::Dora);
}

#[test]
fn pissa_begins_as_the_base_and_is_written_as_lora() {
    let model = golden("llama");
    let settings = Settings { pissa: true, ..settings(Kind::Lora) };
    let mut adapted = Adapted::new(&model, &settings, Options::default()).unwrap();
    let mut plain = ounce_train::net::Net::from_model(&model, Options::default()).unwrap();
    let base = plain.loss(&batch()).unwrap().mean();
    assert!((adapted.loss(&batch()).unwrap().mean() - base).abs() < 1e-5);
    learn(&mut adapted, 10, 1e-3);
    let logits = adapted.logits(&batch()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    adapted.save(&folder.path().join("a")).unwrap();
    let saved = Folder::open(&folder.path().join("a")).unwrap();
    assert_eq!((saved.config["r"].as_u64(), saved.config["lora_alpha"].as_f64()), (Some(6), Some(32.0)));
    let mut again = Adapted::open(&model, &saved, Options::default(), &[], false).unwrap();
    assert_close("pissa", &again.logits(&batch()).unwrap(), &logits, 1e-4);
}

#[test]
fn a_cut_keeps_the_largest_part_of_lora_and_the_first_ranks_of_dylora() {
    let model = golden("llama");
    let folder = tempfile::tempdir().unwrap();
    for kind in [Kind::Lora, Kind::Dylora] {
        let mut adapted = Adapted::new(&model, &settings(kind), Options::default()).unwrap();
        learn(&mut adapted, 10, 3e-3);
        adapted.save(&folder.path().join("whole")).unwrap();
        let whole = Folder::open(&folder.path().join("whole")).unwrap();
        // At its own rank nothing is lost.
        let same = whole.sliced(3, &folder.path().join("same")).unwrap();
        let mut again = Adapted::open(&model, &same, Options::default(), &[], false).unwrap();
        assert_close("same", &again.logits(&batch()).unwrap(), &adapted.logits(&batch()).unwrap(), 1e-4);
        let cut = whole.sliced(1, &folder.path().join("cut")).unwrap();
        cut.write().unwrap();
        let cut = Folder::open(&folder.path().join("cut")).unwrap();
        let mut again = Adapted::open(&model, &cut, Options::default(), &[], false).unwrap();
        assert_eq!(3 * again.trained(), adapted.trained());
        again.logits(&batch()).unwrap();
        assert!(whole.sliced(4, folder.path()).unwrap_err().to_string().contains("1 to 3"));
    }
}

#[test]
fn a_task_adapter_lies_on_a_language_adapter_that_can_be_another() {
    let model = golden("llama");
    let folder = tempfile::tempdir().unwrap();
    let mut saved = Vec::new();
    for seed in [1, 2] {
        let language = Settings { seed, ..settings(Kind::Language) };
        let mut adapted = Adapted::new(&model, &language, Options::default()).unwrap();
        learn(&mut adapted, 10 * seed, 5e-3);
        let place = folder.path().join(seed.to_string());
        adapted.save(&place).unwrap();
        saved.push(Folder::open(&place).unwrap());
    }
    let task = Settings { below: vec![settings(Kind::Language)], ..settings(Kind::Bottleneck) };
    let mut adapted = Adapted::new(&model, &task, Options::default()).unwrap();
    adapted.lay_on(&saved[..1]).unwrap();
    let frozen = adapted.frozen().unwrap();
    let mut language = Adapted::open(&model, &saved[0], Options::default(), &[], false).unwrap();
    assert_close("stacked", &adapted.logits(&batch()).unwrap(), &language.logits(&batch()).unwrap(), 1e-6);
    let (before, after) = learn(&mut adapted, 10, 5e-3);
    assert!(after < before, "{before} to {after}");
    assert_eq!(frozen, adapted.frozen().unwrap());
    let place = folder.path().join("task");
    adapted.save(&place).unwrap();
    let task = Folder::open(&place).unwrap();
    let open = |below: &[Folder]| Adapted::open(&model, &task, Options::default(), below, false);
    let mut own = open(&saved[..1]).unwrap();
    assert_close("read", &own.logits(&batch()).unwrap(), &adapted.logits(&batch()).unwrap(), 1e-6);
    let mut other = open(&saved[1..]).unwrap();
    assert_ne!(other.logits(&batch()).unwrap(), own.logits(&batch()).unwrap());
    assert!(open(&[]).unwrap_err().to_string().contains("--below"));
}

#[test]
fn a_quantized_base_stays_packed_and_the_loss_of_merging_is_told() {
    use ounce_kernels::{DType, quant};
    let model = golden("llama");
    let mut packed = Vec::new();
    for info in model.spec.tensors().into_iter().filter(|it| it.shape.len() == 2) {
        if !info.shape[1].is_multiple_of(32) {
            continue;
        }
        let (mut data, values) = (Vec::new(), model.weights.f32(&info.name).unwrap());
        quant::encode_rows(DType::Q8_0, &values, info.shape[1], &mut data).unwrap();
        let tensor = ounce_model::Tensor { dtype: DType::Q8_0, shape: info.shape.clone(), data: data.into() };
        packed.push((info.name, tensor));
    }
    let packed_names: Vec<String> = packed.iter().map(|it| it.0.clone()).collect();
    assert!(packed_names.contains(&"embed.tokens.weight".to_owned()));
    let model = Model { weights: model.weights.replaced(packed).unwrap(), ..model };
    let targets = Targets::parse("query,value").unwrap();
    let mut adapted =
        Adapted::new(&model, &Settings { targets, ..settings(Kind::Lora) }, Options::default()).unwrap();
    // No matrix of the model is decoded, nor the table of token vectors; what is computed is as if they were.
    let decoded = packed_names.iter().map(|name| {
        let values = model.weights.f32(name).unwrap();
        (name.clone(), ounce_model::Tensor::from_f32(model.weights.info(name).unwrap().1, &values))
    });
    let plain = Model { weights: model.weights.replaced(decoded).unwrap(), ..model.clone() };
    for fast in [false, true] {
        let of = |model: &Model| match fast {
            true => Adapted::fast(model, &settings(Kind::Lora), Options::default()).unwrap(),
            false => Adapted::new(model, &settings(Kind::Lora), Options::default()).unwrap(),
        };
        let mut stored = of(&model);
        assert!(!stored.params().iter().any(|param| packed_names.contains(&param.name)), "decoded");
        let [found, expected] = [stored.loss(&batch()).unwrap(), of(&plain).loss(&batch()).unwrap()];
        assert!((found.sum - expected.sum).abs() < 1e-5 * expected.sum, "{} {}", found.sum, expected.sum);
    }
    let (before, after) = learn(&mut adapted, 10, 5e-3);
    assert!(after < before);
    let (merged, told) = merge_adapted(&adapted, None).unwrap();
    assert_eq!(merged.weights.info("layers.0.attention.query.weight").unwrap().0, DType::Q8_0);
    assert!(told.lost > 0.0 && told.lost < 1.0, "{told:?}");
    let (_, exact) = merge_adapted(&adapted, Some(DType::F32)).unwrap();
    assert!(exact.lost < 1e-9, "{exact:?}");
}

#[test]
fn what_does_not_fit_is_refused_in_a_sentence() {
    let model = golden("llama");
    let refused = |settings: Settings, word: &str| {
        let error = Adapted::new(&model, &settings, Options::default()).unwrap_err().to_string();
        assert!(error.contains(word), "{error} should say {word}");
    };
    refused(Settings { rank: 33, ..Settings::default() }, "33 does not fit");
    refused(Settings { rank: 0, ..Settings::default() }, "does not fit");
    refused(Settings { dropout: 1.0, ..Settings::default() }, "dropout");
    refused(Settings::of(Kind::Bitfit), "no biases");
    refused(Settings { tokens: 0, ..Settings::of(Kind::Prompt) }, "1 vector");
    refused(
        Settings { targets: Targets::Slots(vec!["nothing".into()]), ..Settings::default() },
        "nothing to train",
    );
    refused(Settings { blocks: 5, ..Settings::of(Kind::Compacter) }, "do not divide");
    assert!(Targets::parse("q_proj,elbow").unwrap_err().to_string().contains("elbow"));
    assert!(Kind::parse("lorra").unwrap_err().to_string().contains("there are lora"));
    // A folder with a weight of another method.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/adapters/lora");
    let mut folder = Folder::open(&path).unwrap();
    let mut foreign = folder.tensors[0].clone();
    foreign.name = "base_model.model.model.layers.0.self_attn.q_proj.oft_R".into();
    folder.tensors.push(foreign);
    let error = Adapted::open(&model, &folder, Options::default(), &[], false).unwrap_err().to_string();
    assert!(error.contains("oft_R") && error.contains("another method"), "{error}");
    let other = golden("gpt2");
    let folder = Folder::open(&path).unwrap();
    let error = Adapted::open(&other, &folder, Options::default(), &[], false).unwrap_err().to_string();
    assert!(error.contains("another model"), "{error}");
    assert!(Folder::open(&path.join("nowhere")).unwrap_err().to_string().contains("no adapter"));
}
