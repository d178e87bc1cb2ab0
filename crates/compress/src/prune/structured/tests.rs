//! Cut models compute what masked ones do; scores are what slow ways find; cuts are as large as asked.

use std::collections::HashMap;

use ounce_engine::Engine;
use ounce_kernels::DType;
use ounce_model::formats::{WriteOptions, gguf_model, hf};
use ounce_model::model::{Format, Origin};
use ounce_model::weights::MemorySource;
use ounce_model::{Config, Model, Spec, Tensor, Weights, families};
use ounce_train::net::{Net, Options};
use ounce_train::{Batch, Trainable};
use serde_json::{Map, Value, json};

use super::choose::{choose_stream, keep_layers};
use super::cut::Keep;
use super::groups::{attention, mlp, query_range, slices};
use super::*;
use crate::quantize::sensitivity;

/// A small model of random weights; one more number for each name.
pub(crate) fn random(keys: Value) -> Model {
    let mut map = json!({
        "hidden_size": 24, "head_dim": 8, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 31, "max_position_embeddings": 64, "rms_norm_eps": 1e-3,
    });
    map.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let config = Config::new("config.json", map.as_object().unwrap().clone());
    let (_, spec) = families::spec_of(&config).unwrap();
    let mut source = MemorySource::new("memory");
    for tensor in spec.tensors() {
        let mut state =
            tensor.name.bytes().fold(1u64, |s, b| (s ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let count = tensor.shape.iter().product();
        let values: Vec<f32> = (0..count)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1 << 24) as f32 - 0.4
            })
            .collect();
        source.insert(tensor.name, Tensor::from_f32(&tensor.shape, &values));
    }
    Model {
        spec,
        weights: Weights::in_memory(source),
        tokenizer: None,
        chat: None,
        config,
        generation: Config::new("generation_config.json", Map::new()),
        origin: Origin { path: "memory".into(), format: Format::HuggingFace, name: None },
        extras: Vec::new(),
    }
}

fn llama() -> Model {
    random(json!({"model_type": "llama"}))
}

fn ids() -> Vec<u32> {
    (0..20).map(|i| i * 7 % 31).collect()
}

fn logits(model: &Model) -> Vec<f32> {
    Engine::new(model).unwrap().session().logits(&ids()).unwrap()
}

fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0f32, |scale, x| scale.max(x.abs()));
    found.iter().zip(expected).fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / scale
}

fn heads(layer: usize, kv_head: usize) -> Unit {
    Unit::Heads { layer, kv_head }
}

fn channels(layer: usize, those: &[usize]) -> Vec<Unit> {
    those.iter().map(|&channel| Unit::Channel { layer, channel }).collect()
}

fn stream(those: &[usize]) -> Vec<Unit> {
    those.iter().map(|&channel| Unit::Stream { channel }).collect()
}

/// Which places of a tensor's group are meant, and how.
type Chosen<'c> = dyn Fn(&str) -> Option<Vec<(usize, bool)>> + 'c;

#[test]
fn a_cut_model_computes_what_the_masked_one_does() {
    let models = [
        ("llama", llama()),
        (
            "tied",
            random(json!({"model_type": "llama", "tie_word_embeddings": true, "num_key_value_heads": 4})),
        ),
        ("qwen2", random(json!({"model_type": "qwen2"}))),
        ("qwen3", random(json!({"model_type": "qwen3"}))),
        ("phi3", random(json!({"model_type": "phi3"}))),
        ("mistral", random(json!({"model_type": "mistral", "sliding_window": 6}))),
        ("gemma2", random(json!({"model_type": "gemma2", "sliding_window": 6}))),
        ("olmo2", random(json!({"model_type": "olmo2"}))),
        ("smollm3", random(json!({"model_type": "smollm3"}))),
        ("stablelm", random(json!({"model_type": "stablelm", "qk_layernorm": true, "use_qkv_bias": true}))),
        (
            "gpt_neox",
            random(
                json!({"model_type": "gpt_neox", "num_key_value_heads": 4, "head_dim": 6, "rotary_pct": 1.0}),
            ),
        ),
        (
            "gpt2",
            random(
                json!({"model_type": "gpt2", "n_embd": 24, "n_head": 4, "n_layer": 3, "n_inner": 20, "n_positions": 64}),
            ),
        ),
        (
            "mixtral",
            random(json!({"model_type": "mixtral", "num_local_experts": 3, "num_experts_per_tok": 2})),
        ),
    ];
    for (name, model) in &models {
        let whole = logits(model);
        let together: Vec<Unit> =
            [vec![heads(0, 1)], vec![Unit::Layer { layer: 1 }], channels(2, &[0, 7, 8, 19])].concat();
        let cuts = [
            ("heads", vec![heads(0, 1), heads(2, 0)]),
            ("channels", [channels(0, &[0, 3, 4, 11, 19]), channels(1, &[5])].concat()),
            ("an attention", vec![heads(1, 0), heads(1, 1)]),
            ("a half", channels(2, &(0..20).collect::<Vec<_>>())),
            ("layer", vec![Unit::Layer { layer: 1 }]),
            ("two layers", vec![Unit::Layer { layer: 0 }, Unit::Layer { layer: 2 }]),
            ("stream", stream(&[0, 5, 6, 23])),
            ("all kinds", together.clone()),
            ("all kinds and the stream", [together, stream(&[1, 2, 10])].concat()),
        ];
        for (what, units) in cuts {
            let all = attention(&model.spec, 1).unwrap().kv_heads;
            let cut = match Cut::without(&model.spec, &units) {
                Ok(cut) => cut,
                Err(error) => {
                    // Only what can't be cut exactly is refused.
                    let error = error.to_string();
                    let layer_norms =
                        ["stablelm", "gpt_neox", "gpt2"].contains(name) && what.contains("stream");
                    let together = *name == "olmo2" && error.contains("norms all its heads together");
                    let experts = *name == "mixtral" && error.contains("has no Channel");
                    assert!(layer_norms || together || experts, "{name}, {what}: {error}");
                    continue;
                }
            };
            let cut = match cut.apply(model) {
                Ok(small) => {
                    let expected = if what == "a half" || what == "an attention" {
                        // With more key/value heads not all of them are out.
                        all.min(4)
                    } else {
                        0
                    };
                    assert!(small.spec.parameters() < model.spec.parameters(), "{name}, {what}, {expected}");
                    let masked = Model { weights: cut.masked(model).unwrap(), ..model.clone() };
                    let (found, expected) = (logits(&small), logits(&masked));
                    let off = difference(&found, &expected);
                    // The norms of single heads get the stream's epsilon, which is larger for a narrower one.
                    let most = if *name == "qwen3" && what.contains("stream") { 3e-4 } else { 2e-5 };
                    assert!(off < most, "{name}, {what}: {off}");
                    assert!(difference(&expected, &whole) > 1e-3, "{name}, {what}: the mask does nothing");
                    small
                }
                Err(error) => {
                    let factor = *name == "gemma2" && what.contains("stream");
                    assert!(factor, "{name}, {what}: {error}");
                    continue;
                }
            };
            round_trips(name, what, &cut);
        }
    }
}

/// Written and read again it is the same, in a folder and in a GGUF file where there is one for it.
fn round_trips(name: &str, what: &str, model: &Model) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy");
    hf::write_model(model, &path, &WriteOptions::default(), &mut |_, _| Ok(())).unwrap();
    let copy = Model::open(&path).unwrap_or_else(|error| panic!("{name}, {what}: {error}"));
    assert_eq!(copy.spec.layers, model.spec.layers, "{name}, {what}");
    assert_eq!(logits(&copy), logits(model), "{name}, {what}");
    if model.spec.layers.len() < 3 {
        return;
    }
    let file = folder.path().join("copy.gguf");
    if gguf_model::write_model(model, &file, &WriteOptions::default(), &mut |_, _| Ok(())).is_ok() {
        let copy = Model::open(&file).unwrap_or_else(|error| panic!("{name}, {what}: {error}"));
        assert_eq!(copy.spec.layers, model.spec.layers, "{name}, {what}");
        let off = difference(&logits(&copy), &logits(model));
        assert!(off < 1e-5, "{name}, {what}, GGUF: {off}");
    }
}

#[test]
fn what_a_cut_keeps_is_what_the_slices_of_its_units_leave() {
    let model = random(json!({"model_type": "stablelm", "qk_layernorm": true, "use_qkv_bias": true}));
    let wide = random(json!({"model_type": "qwen3", "mlp_bias": true, "attention_bias": true}));
    for model in [&model, &wide] {
        let spec = &model.spec;
        let mut units = vec![heads(0, 1), Unit::Channel { layer: 2, channel: 7 }, Unit::Layer { layer: 1 }];
        if spec.family == "qwen3" {
            units.push(Unit::Stream { channel: 3 });
        }
        for unit in units {
            let cut = Cut::without(spec, &[unit]).unwrap();
            let mut gone: HashMap<String, Vec<bool>> = HashMap::new();
            for slice in slices(spec, unit).unwrap() {
                let shape = spec.tensors().into_iter().find(|it| it.name == slice.tensor).unwrap().shape;
                let width: usize = shape.iter().skip(1).product();
                let all = gone.entry(slice.tensor).or_insert_with(|| vec![false; shape.iter().product()]);
                for (place, gone) in all.iter_mut().enumerate() {
                    let at = if slice.axis == Axis::Rows { place / width } else { place % width };
                    *gone |= slice.range.contains(&at);
                }
            }
            for tensor in spec.tensors() {
                let count = tensor.shape.iter().product();
                let mut stays = vec![true; count];
                match cut.keep(spec, &tensor.name) {
                    Some(keep) => keep.mask(&mut stays, &tensor.shape),
                    None => stays.fill(false),
                }
                let gone = gone.remove(&tensor.name).unwrap_or(vec![false; count]);
                assert!(
                    stays.iter().zip(&gone).all(|(stays, gone)| stays != gone),
                    "{unit:?}: {}",
                    tensor.name
                );
            }
            assert!(gone.is_empty(), "{unit:?}: {gone:?}");
        }
    }
}

#[test]
fn numbers_are_taken_with_their_rows_and_columns() {
    let values: Vec<u32> = (0..12).collect();
    let keep = Keep { rows: Some(vec![0, 2]), columns: Some(vec![1, 3]) };
    assert_eq!(keep.take(&values, &[3, 4]), [1, 3, 9, 11]);
    assert_eq!(keep.shape(&[3, 4]), [2, 2]);
    let rows = Keep { rows: Some(vec![1, 2]), columns: None };
    assert_eq!(rows.take(&values[..3], &[3]), [1, 2]);
    let mut masked = values.clone();
    keep.mask(&mut masked, &[3, 4]);
    assert_eq!(masked, [0, 1, 0, 3, 0, 0, 0, 0, 0, 9, 0, 11]);
}

#[test]
fn the_change_of_the_loss_is_its_slope_and_the_fisher_information() {
    let model = llama();
    let ids = ids();
    let scores = saliency::taylor(&model, std::slice::from_ref(&ids), true, &mut |_, _| Ok(())).unwrap();
    let loss = |name: &Chosen<'_>, step: f32| -> f64 {
        // Entrances with the named rows (true) or columns scaled by 1 + step.
        let scaled = model.spec.tensors().into_iter().filter_map(|tensor| {
            let places = name(&tensor.name)?;
            let mut values = model.weights.f32(&tensor.name).unwrap();
            for (place, value) in values.iter_mut().enumerate() {
                let (row, column) = (place / tensor.shape[1], place % tensor.shape[1]);
                if places.iter().any(|&(at, is_row)| if is_row { at == row } else { at == column }) {
                    *value *= 1.0 + step;
                }
            }
            Some((tensor.name, Tensor::from_f32(&tensor.shape, &values)))
        });
        let weights = model.weights.replaced(scaled.collect::<Vec<_>>()).unwrap();
        let mut net = Net::from_model(&Model { weights, ..model.clone() }, Options::default()).unwrap();
        net.loss(&Batch::next_token([ids.as_slice()])).unwrap().mean()
    };
    let slope = |name: &Chosen<'_>| {
        let step = 1e-2;
        ((loss(name, step) - loss(name, -step)) / (2.0 * f64::from(step))).abs()
    };
    let near = |found: f64, slope: f64, what: &str| {
        let expected = slope + 0.5 * (ids.len() - 1) as f64 * slope * slope;
        assert!((found - expected).abs() < 2e-3 * expected.abs().max(0.02), "{what}: {found} {expected}");
    };
    for kv_head in 0..2 {
        let columns = query_range(attention(&model.spec, 1).unwrap(), kv_head);
        let of = |name: &str| {
            (name == "layers.1.attention.output.weight")
                .then(|| columns.clone().map(|it| (it, false)).collect())
        };
        near(scores.heads[1][kv_head], slope(&of), "head");
    }
    for channel in [0, 7, 19] {
        let of = |name: &str| (name == "layers.2.feed_forward.down.weight").then(|| vec![(channel, false)]);
        near(scores.channels[2][channel], slope(&of), "channel");
    }
    for channel in [0, 13] {
        let of = |name: &str| match name {
            "embed.tokens.weight" => Some(vec![(channel, false)]),
            _ if name.ends_with("output.weight") || name.ends_with("down.weight") => {
                Some(vec![(channel, true)])
            }
            _ => None,
        };
        near(scores.stream[channel], slope(&of), "stream");
    }
    // The same text twice says nothing new; sequences whose slopes differ in sign leave their curvature.
    let twice = saliency::taylor(&model, &[ids.clone(), ids.clone()], false, &mut |_, _| Ok(())).unwrap();
    assert!((twice.channels[0][3] / scores.channels[0][3] - 1.0).abs() < 1e-9);
}

#[test]
fn sizes_of_results_and_norms_are_sums_over_the_units_weights() {
    let model = llama();
    let (spec, texts) = (&model.spec, vec![ids(), ids()[3..].to_vec()]);
    let inputs = sensitivity::importance(&model, texts.clone(), |_, _| Ok(())).unwrap();
    let found = saliency::activation(&model, texts, &mut |_, _| Ok(())).unwrap();
    let norms = saliency::magnitude(&model, true).unwrap();
    let square = |model: &Model, unit| saliency::sum_over(model, unit, &|_, _, w| f64::from(w * w)).unwrap();
    for layer in 0..3 {
        let sizes = |name: &str, columns: std::ops::Range<usize>| -> f64 {
            let w = model.weights.f32(&format!("layers.{layer}.{name}.weight")).unwrap();
            let x = &inputs[&format!("layers.{layer}.{name}.weight")];
            let of =
                columns.flat_map(|c| w.chunks_exact(x.len()).map(move |row| (row[c], c)).collect::<Vec<_>>());
            of.map(|(w, c)| f64::from(w * w * x[c])).sum::<f64>().sqrt()
        };
        for kv_head in 0..2 {
            let range = query_range(attention(spec, layer).unwrap(), kv_head);
            let expected = sizes("attention.output", range);
            assert!((found.heads[layer][kv_head] / expected - 1.0).abs() < 2e-2, "bf16 inputs");
            let norm = square(&model, heads(layer, kv_head)).sqrt();
            assert!((norms.heads[layer][kv_head] / norm - 1.0).abs() < 1e-6);
        }
        for channel in [0, 11] {
            let expected = sizes("feed_forward.down", channel..channel + 1);
            assert!((found.channels[layer][channel] / expected - 1.0).abs() < 2e-2, "bf16 inputs");
            let norm = square(&model, Unit::Channel { layer, channel }).sqrt();
            assert!((norms.channels[layer][channel] / norm - 1.0).abs() < 1e-6);
        }
    }
    // Norms are vectors, which no norm of matrices counts.
    let slow = saliency::sum_over(&model, Unit::Stream { channel: 5 }, &|name, _, w| {
        if name.contains("norm") { 0.0 } else { f64::from(w * w) }
    });
    assert!((norms.stream[5] / slow.unwrap().sqrt() - 1.0).abs() < 1e-6);
}

fn removed(spec: &Spec, cut: &Cut) -> u64 {
    spec.parameters() - cut.spec(spec, false).unwrap().parameters()
}

/// Scores without ties.
fn scores(model: &Model) -> Scores {
    let mut scores = saliency::magnitude(model, true).unwrap();
    scores.comparable = true;
    scores
}

#[test]
fn the_least_worthy_leave_until_enough_is_gone() {
    let model = llama();
    let (spec, scores) = (&model.spec, scores(&model));
    let limits = Limits { multiple: 4, ..Limits::default() };
    for share in [0.05, 0.3, 0.6] {
        let target = Target::Share(share);
        let wanted = target.weights_to_remove(spec).unwrap();
        let cut = choose(spec, &scores, target, &limits).unwrap();
        let gone = removed(spec, &cut);
        // Never more than a block too much: a head is the largest.
        assert!(gone >= wanted && gone < wanted + 8 * 24 * 6, "{share}: {gone} of {wanted}");
        for (layer, left) in cut.layers.iter().enumerate() {
            let (kv_heads, width) = left.as_ref().unwrap().counts(spec, layer);
            assert!(kv_heads >= 1 && width >= 4 && width.is_multiple_of(4), "{share}: {kv_heads} {width}");
            let kept = left.as_ref().unwrap().channels.clone().unwrap_or((0..20).collect());
            let worth = |at: &usize| scores.channels[layer][*at];
            let least = kept.iter().map(worth).fold(f64::INFINITY, f64::min);
            let most = (0..20).filter(|it| !kept.contains(it)).map(|it| worth(&it)).fold(0.0, f64::max);
            assert!(most <= least, "{share}: a worthier channel left");
        }
    }
    let exact = choose(spec, &scores, Target::Parameters(spec.parameters() - 1000), &limits).unwrap();
    assert!(removed(spec, &exact) >= 1000);
}

#[test]
fn layers_that_are_to_be_alike_are_and_no_better_pair_was_left_out() {
    let model = llama();
    let (spec, scores) = (&model.spec, scores(&model));
    let limits = Limits { multiple: 4, uniform: true, ..Limits::default() };
    let target = Target::Share(0.4);
    let cut = choose(spec, &scores, target, &limits).unwrap();
    let shapes: Vec<_> = (0..3).map(|it| cut.layers[it].as_ref().unwrap().counts(spec, it)).collect();
    assert!(shapes.iter().all(|shape| *shape == shapes[0]), "{shapes:?}");
    let small = cut.apply(&model).unwrap();
    assert!(small.config.get("ounce_layers").is_none());
    let worth = |kv_heads: usize, width: usize| -> f64 {
        let lowest = |list: &[f64], kept: usize| {
            let mut list = list.to_vec();
            list.sort_by(f64::total_cmp);
            list[..list.len() - kept].iter().sum::<f64>()
        };
        (0..3).map(|it| lowest(&scores.heads[it], kv_heads) + lowest(&scores.channels[it], width)).sum()
    };
    let wanted = target.weights_to_remove(spec).unwrap();
    let sizes = (2 * 16 * 24 + 2 * 8 * 24, 3 * 24);
    for kv_heads in 1..=2 {
        for width in [4, 8, 12, 16, 20] {
            let gone = 3 * ((2 - kv_heads) * sizes.0 + (20 - width) * sizes.1);
            if gone as u64 >= wanted {
                assert!(
                    worth(shapes[0].0, shapes[0].1) <= worth(kv_heads, width) + 1e-9,
                    "{kv_heads} {width}"
                );
            }
        }
    }
}

#[test]
fn layers_and_the_stream_leave_by_their_worth() {
    let model = llama();
    let spec = &model.spec;
    let cut = choose_layers(spec, &[0.3, 0.1, 0.2], Target::Share(0.4)).unwrap();
    assert_eq!(cut.kept_layers(), [0]);
    assert_eq!(keep_layers(spec, &[0.3, 0.1, 0.2], 2).unwrap().kept_layers(), [0, 2]);
    let worth: Vec<f64> = (0..24).map(|it| f64::from(it % 7)).collect();
    let cut = choose_stream(spec, &worth, Target::Share(0.2), 4).unwrap();
    let kept = cut.stream.clone().unwrap();
    assert_eq!(kept.len(), 16);
    assert!(!kept.contains(&0) && !kept.contains(&7) && kept.contains(&6));
}

#[test]
fn the_answer_of_what_stays_comes_nearer_to_the_whole_model() {
    let model = llama();
    let texts: Vec<Vec<u32>> =
        (0..40u32).map(|t| (0..24).map(|i| (i * (t % 7 + 2) + t * i * i) % 31).collect()).collect();
    let limits = Limits { multiple: 4, ..Limits::default() };
    let scores = saliency::activation(&model, texts.clone(), &mut |_, _| Ok(())).unwrap();
    let cut = choose(&model.spec, &scores, Target::Share(0.3), &limits).unwrap();
    let weights = compensate::compensate(&model, &cut, texts, &mut |_, _| Ok(())).unwrap();
    let whole = logits(&model);
    let plain = difference(&logits(&cut.apply(&model).unwrap()), &whole);
    let fitted = Model { weights, ..model.clone() };
    let small = cut.apply(&fitted).unwrap();
    assert!(difference(&logits(&small), &whole) < 0.9 * plain, "{plain}");
    // What leaves is zero in the fitted weights, so cutting it changes nothing.
    assert!(difference(&logits(&small), &logits(&fitted)) < 2e-5);
}

#[test]
fn what_can_not_be_is_said() {
    let model = llama();
    let (spec, scores) = (&model.spec, scores(&model));
    let limits = Limits { multiple: 4, ..Limits::default() };
    let said = |target| choose(spec, &scores, target, &limits).unwrap_err().to_string();
    assert!(said(Target::Share(0.99)).contains("at most 0."), "{}", said(Target::Share(0.99)));
    assert!(said(Target::Share(0.0)).contains("above 0"));
    assert!(said(Target::Parameters(10)).contains("are too few"), "{}", said(Target::Parameters(10)));
    assert!(said(Target::Parameters(1 << 40)).contains("no more than"));
    let all: Vec<Unit> = (0..3).map(|layer| Unit::Layer { layer }).collect();
    let cut = Cut::without(spec, &all).unwrap();
    assert!(cut.apply(&model).unwrap_err().to_string().contains("keep one at least"));
    assert!(choose_layers(spec, &[1.0; 3], Target::Share(0.9)).is_err());
    let none = saliency::taylor(&model, &[], false, &mut |_, _| Ok(())).unwrap_err();
    assert!(none.to_string().contains("calibration text is empty"), "{none}");
    assert!(Cut::without(spec, &[heads(0, 2)]).is_err() && mlp(spec, 9).is_none());
    // Blocks of a quantized matrix are not broken.
    let mut quantized = model.clone();
    let name = "layers.0.feed_forward.down.weight";
    let values = vec![0.5; 24 * 32];
    let mut bytes = Vec::new();
    ounce_kernels::quant::encode_rows(DType::Q8_0, &values, 32, &mut bytes).unwrap();
    let wide = random(json!({"model_type": "llama", "intermediate_size": 32}));
    let tensor = Tensor { dtype: DType::Q8_0, shape: vec![24, 32], data: bytes.into() };
    quantized.weights = wide.weights.replaced([(name.to_string(), tensor)]).unwrap();
    quantized.spec = wide.spec.clone();
    quantized.config = wide.config.clone();
    let cut = Cut::without(&wide.spec, &channels(0, &[3])).unwrap();
    let error = cut.apply(&quantized).unwrap_err().to_string();
    assert!(error.contains("before it is quantized"), "{error}");
}
