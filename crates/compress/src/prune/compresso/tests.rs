//! Expected sizes against counted ones, slopes against differences, and a model that ends as small as asked.

use ounce_engine::Engine;
use ounce_model::Model;
use ounce_train::net::{Net, Options as NetOptions};
use ounce_train::{Batch, Trainable};
use serde_json::json;

use super::gated::Gated;
use super::size::{Places, gated_weights, sparsity};
use super::{Heals, Options, adapt, prune};
use crate::prune::structured::tests::random;
use crate::prune::structured::{Cut, Unit};

fn texts() -> Vec<Vec<u32>> {
    (0..24u32).map(|t| (0..16).map(|i| (3 * i + t % 5 + i * (t % 3)) % 31).collect()).collect()
}

fn model() -> Model {
    random(json!({"model_type": "llama", "tie_word_embeddings": true}))
}

#[test]
fn the_expected_size_of_gates_that_are_sure_is_the_size_of_the_cut() {
    for (stream, tied) in [(true, true), (true, false), (false, true)] {
        let model = random(json!({"model_type": "llama", "tie_word_embeddings": tied}));
        let spec = &model.spec;
        let places = Places::of(spec, stream);
        let mut log_alpha = vec![40.0; places.count()];
        let mut units = vec![Unit::Heads { layer: 1, kv_head: 0 }];
        log_alpha[places.heads[1].start] = -40.0;
        for channel in [0, 3, 19] {
            units.push(Unit::Channel { layer: 2, channel });
            log_alpha[places.channels[2].start + channel] = -40.0;
        }
        for channel in places.stream.clone().take(5) {
            units.push(Unit::Stream { channel: channel - places.stream.start });
            log_alpha[channel] = -40.0;
        }
        let left = Cut::without(spec, &units).unwrap().spec(spec, false).unwrap().parameters();
        let gone = (spec.parameters() - left) as f64;
        let found = sparsity(spec, &places, &log_alpha).share * gated_weights(spec, &places);
        assert!((found - gone).abs() < 1e-2, "{stream} {tied}: {found} {gone}");
        assert!(stream == (gated_weights(spec, &places) == spec.parameters() as f64));
        // Slopes where nothing is sure.
        let unsure: Vec<f32> = (0..places.count()).map(|at| (at as f32 * 0.7).sin() - 1.0).collect();
        let slopes = sparsity(spec, &places, &unsure).slopes;
        for at in [0, 3, places.channels[0].start, places.channels[2].start + 7, places.count() - 1] {
            let moved = |step: f32| {
                let mut moved = unsure.clone();
                moved[at] += step;
                sparsity(spec, &places, &moved).share
            };
            let slope = (moved(0.05) - moved(-0.05)) / 0.1;
            assert!((f64::from(slopes[at]) / slope - 1.0).abs() < 2e-2, "{at}: {} {slope}", slopes[at]);
        }
    }
}

#[test]
fn slopes_of_gates_are_differences_of_the_loss() {
    let model = model();
    let options = Options::default();
    let mut gated = Gated::new(&model, true, model.spec.parameters() / 2, &options).unwrap();
    let text = texts();
    let batch = Batch::next_token(text[..4].iter().map(Vec::as_slice));
    let z: Vec<f32> = (0..gated.places.count()).map(|at| 0.6 + 0.3 * (at as f32).sin()).collect();
    let mut loss = |z: &[f32]| {
        gated.write(z);
        gated.net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        let loss = gated.net.accumulate(&batch, 1.0 / batch.counted() as f32).unwrap().mean();
        (loss, gated.slopes(z))
    };
    let (_, slopes) = loss(&z);
    for at in [0, 3, 6, 20, 65, z.len() - 1, z.len() - 20] {
        let mut moved = |step: f32| {
            let mut moved = z.clone();
            moved[at] += step;
            loss(&moved).0
        };
        let slope = (moved(0.02) - moved(-0.02)) / 0.04;
        assert!(
            (f64::from(slopes[at]) - slope).abs() < 2e-3 * slope.abs().max(0.05),
            "{at}: {} {slope}",
            slopes[at]
        );
    }
}

#[test]
fn a_model_is_cut_to_the_size_and_computes_what_the_masked_one_does() {
    let model = model();
    let options = Options { gate_steps: 40, heal_steps: 10, tokens: 64, rank: 2, ..Options::default() };
    let target = model.spec.parameters() * 7 / 10;
    let found = prune(&model, &texts(), target, &options, &mut |_, _| Ok(())).unwrap();
    let left = found.model.spec.parameters();
    assert!(left <= target && left as f64 >= 0.97 * target as f64, "{left} of {target}");
    let whole = Options { multiple: 8, ..options.clone() };
    let blocks = prune(&model, &texts(), target, &whole, &mut |_, _| Ok(())).unwrap().model.spec;
    assert!(blocks.parameters() <= target && blocks.hidden_size.is_multiple_of(8));
    for layer in 0..blocks.layers.len() {
        let width = crate::prune::structured::groups::mlp(&blocks, layer).unwrap().width;
        assert!(width.is_multiple_of(8), "{layer}: {width}");
    }
    let logits = |model: &Model| Engine::new(model).unwrap().session().logits(&texts()[3]).unwrap();
    let [masked, cut] = [&found.halves[0], &found.halves[1]].map(logits);
    let scale = masked.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let off = masked.iter().zip(&cut).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(off < 2e-5 * scale, "{off} {scale}");
    let loss = |model: &Model| {
        let text = texts();
        let mut net = Net::from_model(model, NetOptions::default()).unwrap();
        net.loss(&Batch::next_token(text.iter().map(Vec::as_slice))).unwrap().mean()
    };
    assert!(loss(&found.model) < loss(&found.halves[1]));
    // Least squares, gates that begin apart, and all weights learning: as small, no worse, and still what the masked model computes.
    let more = Options { answer: true, head_start: 1.0, heals: Heals::All(5e-3), ..options.clone() };
    let better = prune(&model, &texts(), target, &more, &mut |_, _| Ok(())).unwrap();
    assert!(better.model.spec.parameters() <= target);
    let [masked, cut] = [&better.halves[0], &better.halves[1]].map(logits);
    let off = masked.iter().zip(&cut).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(off < 2e-5 * scale.max(1.0), "{off}");
    assert!(loss(&better.model) < loss(&better.halves[1]));
    let adapted =
        adapt(&model, &texts(), &Options { heal_steps: 20, ..options.clone() }, &mut |_, _| Ok(())).unwrap();
    assert!(loss(&adapted) < loss(&model));
    let said =
        |target| prune(&model, &texts(), target, &options, &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(said(1 << 40).contains("no more than"));
}

#[test]
fn the_prompt_is_seen_and_not_learned() {
    let model = model();
    let options =
        Options { gate_steps: 2, heal_steps: 1, tokens: 32, prompt: vec![1, 2, 3], ..Options::default() };
    let target = model.spec.parameters() * 9 / 10;
    let with = prune(&model, &texts(), target, &options, &mut |_, _| Ok(())).unwrap();
    let without = Options { prompt: Vec::new(), ..options };
    let without = prune(&model, &texts(), target, &without, &mut |_, _| Ok(())).unwrap();
    let name = "layers.0.attention.query.weight";
    assert_ne!(with.model.weights.f32(name).unwrap(), without.model.weights.f32(name).unwrap());
}
