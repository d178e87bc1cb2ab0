//! Worth against its formula; memory that is sliced as weights are; a model that ends as small as asked, and learned.

use ounce_train::net::{Net, Options as NetOptions};
use ounce_train::{Batch, Trainable};
use serde_json::json;

use super::fisher::Fisher;
use super::shrink::{Options, allowed, leave, shrink};
use crate::prune::structured::tests::random;
use ounce_train::optim::{self, Optimizer};

fn texts() -> Vec<Vec<u32>> {
    (0..24u32).map(|t| (0..16).map(|i| (3 * i + t % 5 + i * (t % 3)) % 31).collect()).collect()
}

fn options() -> Options {
    Options { steps: 30, pruning: 0.6, every: 4, tokens: 64, multiple: 4, rate: 3e-3, ..Options::default() }
}

#[test]
fn worth_is_the_change_of_a_diagonal_quadratic() {
    let model = random(json!({"model_type": "llama", "tie_word_embeddings": true}));
    let mut net = Net::from_model(&model, NetOptions::default()).unwrap();
    let mut fisher = Fisher::new(&model.spec, net.params(), 0.75);
    let (mut g, mut f): (Vec<Vec<f64>>, Vec<Vec<f64>>) =
        net.params().iter().map(|it| (vec![0.0; it.value.len()], vec![0.0; it.value.len()])).unzip();
    let mut weight = 0.0;
    // Of the factor on one head: d and n d².
    let (mut slope, mut square) = (0.0, 0.0);
    for ids in &texts()[..3] {
        let batch = Batch::next_token([ids.as_slice()]);
        net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        net.accumulate(&batch, 1.0 / batch.counted() as f32).unwrap();
        fisher.see(&model.spec, net.params(), batch.counted());
        weight = 0.75 * weight + 0.25;
        let output = net.params().iter().find(|it| it.name == "layers.1.attention.output.weight").unwrap();
        let width = output.shape[1];
        let own = output.value.iter().zip(&output.grad).enumerate();
        let own = own.filter(|(place, _)| (16..32).contains(&(place % width)));
        let d: f64 = own.map(|(_, (w, g))| f64::from(*w) * f64::from(*g)).sum();
        slope = 0.75 * slope + 0.25 * d;
        square = 0.75 * square + 0.25 * d * d * batch.counted() as f64;
        for (at, param) in net.params().iter().enumerate() {
            for (place, d) in param.grad.iter().enumerate() {
                g[at][place] = 0.75 * g[at][place] + 0.25 * f64::from(*d);
                f[at][place] = 0.75 * f[at][place] + 0.25 * f64::from(*d).powi(2) * batch.counted() as f64;
            }
        }
    }
    let found = fisher.worth(&model.spec, net.params());
    let expected = |pick: &dyn Fn(&str, usize, usize) -> bool| -> f64 {
        let mut sum = 0.0;
        for (at, param) in net.params().iter().enumerate() {
            let width = param.shape.get(1).copied().unwrap_or(1);
            for (place, w) in param.value.iter().enumerate() {
                if pick(&param.name, place / width, place % width) {
                    let w = f64::from(*w);
                    sum += (g[at][place] * w - 0.5 * f[at][place] * w * w) / weight;
                }
            }
        }
        sum.abs()
    };
    let near =
        |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-3, "{found} {expected}");
    near(fisher.worth_of_factors().heads[1][1], (slope.abs() + 0.5 * square) / weight);
    near(
        found.heads[1][1],
        expected(&|name, _, column| name == "layers.1.attention.output.weight" && (16..32).contains(&column)),
    );
    near(
        found.channels[2][7],
        expected(&|name, _, column| name == "layers.2.feed_forward.down.weight" && column == 7),
    );
    let writes = |name: &str| name.ends_with("output.weight") || name.ends_with("down.weight");
    near(
        found.stream[5],
        expected(&|name, row, column| {
            (name == "embed.tokens.weight" && column == 5) || (writes(name) && row == 5)
        }),
    );
}

#[test]
fn the_schedule_falls_fast_and_ends_at_the_target() {
    let course: Vec<u64> = (0..=10).map(|step| allowed(1000, 200, step, 10)).collect();
    assert_eq!((course[0], course[5], course[10]), (1000, 300, 200));
    assert!(course.is_sorted_by(|a, b| a >= b));
    assert_eq!(allowed(1000, 200, 99, 10), 200);
}

#[test]
fn what_training_remembers_is_sliced_as_the_weights_are() {
    let model = random(json!({"model_type": "llama", "tie_word_embeddings": true}));
    let options = Options { correct: false, ..options() };
    let mut net = Net::from_model(&model, NetOptions::default()).unwrap();
    let mut optimizer = Optimizer::new(optim::Options::default(), net.params()).unwrap();
    let mut fisher = Fisher::new(&model.spec, net.params(), options.decay);
    let text = texts();
    let batch = Batch::next_token(text.iter().map(Vec::as_slice));
    net.accumulate(&batch, 1.0 / batch.counted() as f32).unwrap();
    fisher.see(&model.spec, net.params(), batch.counted());
    optimizer.step(net.params_mut(), 1e-3, 1.0);
    let most = model.spec.parameters() / 2;
    let (small, memory, averages) = leave(&net, &optimizer, &fisher, &text, most, &options).unwrap();
    assert!(small.skeleton().spec.parameters() <= most && memory.steps() == 1);
    // Every moment that is left is one that was there, at the place where its weight was: weights tell the places apart.
    let values = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(4).map(|it| f32::from_le_bytes([it[0], it[1], it[2], it[3]])).collect()
    };
    let mut seen = 0;
    for (slot, new) in memory.slots(small.params()).iter().zip(small.params().iter().flat_map(|it| [it, it]))
    {
        assert_eq!(slot.param, new.name);
        if new.shape.len() < 2 {
            continue;
        }
        let (at, old) = net.params().iter().enumerate().find(|(_, it)| it.name == new.name).unwrap();
        let old_slot = optimizer
            .slots(net.params())
            .into_iter()
            .find(|it| it.param == slot.param && it.part == slot.part);
        let (old_moments, moments) = (values(old_slot.unwrap().bytes), values(slot.bytes));
        for (value, moment) in new.value.iter().zip(&moments) {
            let place = old.value.iter().position(|it| it == value).expect("a weight that was there");
            assert_eq!(old_moments[place], *moment, "{}", new.name);
            seen += 1;
        }
        let new_at = small.params().iter().position(|it| it.name == new.name).unwrap();
        assert_eq!(averages.first[new_at].is_empty(), fisher.first[at].is_empty());
        assert!(averages.first[new_at].is_empty() || averages.first[new_at].len() == new.value.len());
    }
    let spec = &small.skeleton().spec;
    let worth = averages.worth_of_factors();
    assert_eq!(worth.stream.len(), spec.hidden_size);
    let old: Vec<f64> = fisher.worth_of_factors().channels.concat();
    for (layer, channels) in worth.channels.iter().enumerate() {
        assert_eq!(channels.len(), crate::prune::structured::groups::mlp(spec, layer).unwrap().width);
        assert!(channels.iter().all(|it| old.contains(it)));
    }
    assert!(seen > 1000, "{seen}");
}

#[test]
fn a_model_ends_as_small_as_asked_and_learns_on_the_way() {
    let model = random(json!({"model_type": "llama", "tie_word_embeddings": true}));
    let target = model.spec.parameters() * 2 / 5;
    let (small, events) = shrink(&model, &texts(), target, &options(), &mut |_, _| Ok(())).unwrap();
    assert!(small.spec.parameters() <= target);
    assert!(events.len() >= 2 && events.is_sorted_by(|a, b| a.parameters > b.parameters), "{events:?}");
    let loss = |model: &ounce_model::Model| {
        let text = texts();
        let mut net = Net::from_model(model, NetOptions::default()).unwrap();
        net.loss(&Batch::next_token(text.iter().map(Vec::as_slice))).unwrap().mean()
    };
    assert!(loss(&small) < loss(&model), "{} {}", loss(&small), loss(&model));
    let again = shrink(&model, &texts(), target, &options(), &mut |_, _| Ok(())).unwrap();
    assert_eq!(again.1, events);
    let too_small = shrink(&model, &texts(), 100, &options(), &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(too_small.contains("too few"), "{too_small}");
    let larger = shrink(&model, &texts(), 1 << 40, &options(), &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(larger.contains("no more than"), "{larger}");
}
