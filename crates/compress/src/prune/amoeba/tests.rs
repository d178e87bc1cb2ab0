//! Depth against all sets, fluctuation against its formula, gradients against differences, shapes against masks, files against what they hold.

use std::collections::HashMap;

use ounce_engine::Engine;
use ounce_model::Model;
use ounce_train::Batch;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::elastic::{Elastic, Settings, Shape, Way};
use super::smol::{self, Smol};
use super::train::{Course, Options, Trained, train};
use super::{depth, file, width};
use crate::prune::learning::mean_loss;
use crate::prune::structured::tests::random;

fn texts() -> Vec<Vec<u32>> {
    (0..24u32).map(|t| (0..16).map(|i| (3 * i + t % 5 + i * (t % 3)) % 31).collect()).collect()
}

fn model() -> Model {
    random(json!({"model_type": "llama", "tie_word_embeddings": true, "num_hidden_layers": 4}))
}

fn settings() -> Settings {
    Settings { widths: vec![1.0, 0.5], most_removed: 2, protected: 1, multiple: 4, way: Way::Alike }
}

fn elastic() -> Elastic {
    Elastic::find(&model(), &settings(), &texts(), &mut |_| Ok(())).unwrap()
}

fn options() -> smol::Options {
    smol::Options { experts: 3, taken: 2, rank: 2, scale: 1.0 }
}

/// Every set of a size.
fn sets(candidates: &[usize], count: usize) -> Vec<Vec<usize>> {
    let all = 0..1usize << candidates.len();
    all.filter(|bits| bits.count_ones() as usize == count)
        .map(|bits| {
            let mut own: Vec<usize> =
                candidates.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|it| *it.1).collect();
            own.sort_unstable();
            own
        })
        .collect()
}

#[test]
fn where_worths_add_up_the_sets_are_the_best_of_all() {
    let worth = [0.9, 0.3, 0.5, 0.1, 0.7, 0.2];
    let loss = |removed: &[usize]| 1.0 + removed.iter().map(|it| worth[*it]).sum::<f64>();
    let candidates = depth::candidates(6, 1);
    assert_eq!(candidates, [4, 3, 2, 1, 0]);
    let found = depth::choose(&candidates, 4, &mut |removed| Ok(loss(removed))).unwrap();
    assert_eq!(found.len(), 5);
    for (count, found) in found.iter().enumerate() {
        let best = sets(&candidates, count).into_iter().map(|it| loss(&it)).fold(f64::MAX, f64::min);
        assert_eq!(found.removed.len(), count);
        assert!((found.loss - best).abs() < 1e-12, "{found:?} {best}");
    }
}

/// `d[n][m]` as the paper defines it, with nothing remembered.
fn recursive(
    candidates: &[usize],
    n: usize,
    m: usize,
    loss: &dyn Fn(&[usize]) -> f64,
) -> Option<(f64, Vec<usize>)> {
    if m == 0 {
        return Some((loss(&[]), Vec::new()));
    }
    if n < m {
        return None;
    }
    let keep = recursive(candidates, n - 1, m, loss);
    let mut removed = recursive(candidates, n - 1, m - 1, loss)?.1;
    removed.push(candidates[n - 1]);
    removed.sort_unstable();
    let remove = Some((loss(&removed), removed));
    match (keep, remove) {
        (Some(keep), Some(remove)) => Some(if remove.0 < keep.0 { remove } else { keep }),
        (keep, remove) => keep.or(remove),
    }
}

#[test]
fn the_table_is_the_recursion_for_any_loss() {
    // A loss of pairs as well: layers that are missed together.
    let loss = |removed: &[usize]| {
        let alone: f64 = removed.iter().map(|it| ((it * 7 + 3) % 11) as f64).sum();
        let pairs = removed.iter().flat_map(|a| removed.iter().map(move |b| (a * 5 + b * 5 + a * b) % 13));
        alone + 0.4 * pairs.sum::<usize>() as f64
    };
    let candidates = depth::candidates(8, 1);
    let mut asked = 0;
    let found = depth::choose(&candidates, 5, &mut |removed| {
        asked += 1;
        Ok(loss(removed))
    })
    .unwrap();
    for (m, found) in found.iter().enumerate() {
        let (least, removed) = recursive(&candidates, candidates.len(), m, &loss).unwrap();
        assert_eq!((found.loss, &found.removed), (least, &removed));
    }
    assert!(asked <= 1 + candidates.len() * 5, "{asked}");
    let greedy = depth::greedy(&candidates, 1, &mut |removed| Ok(loss(removed))).unwrap();
    assert_eq!(greedy[1], found[1]);
    let said = depth::choose(&candidates, 8, &mut |_| Ok(1.0)).unwrap_err().to_string();
    assert!(said.contains("8 layers can't leave where 7 may"), "{said}");
    assert!(
        depth::choose(&candidates, 1, &mut |_| Ok(f64::NAN)).unwrap_err().to_string().contains("no number")
    );
}

#[test]
fn constant_inputs_are_worth_nothing_and_their_mean_stays() {
    let model = model();
    let seen = width::fluctuation(&model, texts(), &mut |_, _| Ok(())).unwrap();
    // By the products of pairs that another collector keeps: Var = E[x²] − E[x]².
    let squares =
        crate::prune::structured::saliency::activation(&model, texts(), &mut |_, _| Ok(())).unwrap();
    for layer in 0..4 {
        let name = format!("layers.{layer}.feed_forward.down.weight");
        let values = model.weights.f32(&name).unwrap();
        let means = &seen.means[&name];
        for (channel, score) in seen.scores.channels[layer].iter().enumerate() {
            let size: f64 = (0..24).map(|row| f64::from(values[row * 20 + channel]).powi(2)).sum();
            let expected = squares.channels[layer][channel].powi(2) - size * means[channel].powi(2);
            assert!(
                (score - expected).abs() < 2e-2 * squares.channels[layer][channel].powi(2),
                "{score} {expected}"
            );
        }
    }
    // W [2, 3] with the middle column gone.
    let lost = width::lost_mean(&[1.0, 2.0, 3.0, -1.0, 4.0, 0.5], &[10.0, 0.5, -1.0], &[0, 2]);
    assert_eq!(lost, [1.0, 2.0]);
}

#[test]
fn a_shape_computes_what_the_masked_model_does_and_biases_come_nearer() {
    let mut trained = Trained::begin(elastic(), options(), 3).unwrap();
    // Adapters that change something.
    for (at, adapters) in trained.smol.adapters.iter_mut().enumerate() {
        adapters.b.iter_mut().enumerate().for_each(|(i, b)| *b = ((i * 37 + at) % 11) as f32 * 0.01 - 0.05);
    }
    let logits = |model: &Model| Engine::new(model).unwrap().session().logits(&texts()[3]).unwrap();
    let shapes = trained.elastic.shapes();
    assert_eq!(shapes.len(), 6);
    let mut sizes = Vec::new();
    for &shape in &shapes {
        let [cut, masked] = [trained.extract(shape).unwrap(), trained.masked(shape).unwrap()];
        assert_eq!(cut.spec.parameters(), trained.elastic.parameters(shape).unwrap());
        sizes.push(cut.spec.parameters());
        let [cut, masked] = [logits(&cut), logits(&masked)];
        let scale = masked.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let off = masked.iter().zip(&cut).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(off < 2e-5 * scale, "{shape:?}: {off} {scale}");
    }
    assert!(sizes[0] > sizes[1] && sizes[0] > sizes[2] && sizes[5] < sizes[3], "{sizes:?}");
    // The mean of what left, left out: farther from the whole model.
    let narrow = Shape { removed: 0, width: 1 };
    let whole = logits(&elastic().at(shapes[0], Vec::new()).unwrap());
    let off = |model: &Model| -> f32 { logits(model).iter().zip(&whole).map(|(a, b)| (a - b).powi(2)).sum() };
    let with = off(&elastic().at(narrow, Vec::new()).unwrap());
    let without = off(&elastic().without_answers().at(narrow, Vec::new()).unwrap());
    assert!(with < without, "{with} {without}");
}

#[test]
fn gradients_of_gate_and_adapters_are_those_of_the_loss() {
    let mut trained = Trained::begin(elastic(), options(), 5).unwrap();
    for adapters in &mut trained.smol.adapters {
        adapters.b.iter_mut().enumerate().for_each(|(i, b)| *b = ((i * 29) % 13) as f32 * 0.02 - 0.12);
    }
    let gate = &mut trained.smol.gate;
    gate[2].iter_mut().enumerate().for_each(|(i, w)| *w = (i % 3) as f32 * 0.2 - 0.1);
    let text = texts();
    let batch = Batch::next_token(text[..6].iter().map(Vec::as_slice));
    let shape = Shape { removed: 1, width: 1 };
    let features = trained.elastic.features(shape);
    let choice = |smol: &Smol| smol.choose(&features, Some(&mut ChaCha8Rng::seed_from_u64(11)));
    let base = choice(&trained.smol);
    let passed = trained.pass(shape, &base, &batch, None, true).unwrap();
    assert_eq!(passed.said.values.len(), batch.counted() * 31);
    let mut slopes = trained.smol.slopes();
    trained.smol.backward(&base, &passed.gradients, &mut slopes);
    let taken = base.taken[0].0;
    let gone = trained.elastic.sets[1].removed[0];
    let other = (0..4).find(|layer| *layer != gone).unwrap();
    let at = |name: String| trained.smol.adapters.iter().position(|it| it.name == name).unwrap();
    let down = at(format!("layers.{other}.feed_forward.down.weight"));
    let query = at(format!("layers.{other}.attention.query.weight"));
    let absent = at(format!("layers.{gone}.attention.query.weight"));
    let width = features.len() + 1;
    let rows = [0, 1].map(|layer| trained.smol.adapters[[down, query][layer]].shape);
    let places = [
        (0, 3),
        (0, width + 1),
        (1, taken * 16 + 2),
        (2, taken * width),
        (3 + 2 * down, taken * 2 * rows[0][1] + 1),
        (4 + 2 * down, taken * rows[0][0] * 2 + 3),
        (3 + 2 * query, taken * 2 * rows[1][1] + 4),
        (4 + 2 * query, taken * rows[1][0] * 2 + 1),
    ];
    for (part, place) in places {
        let moved = |step: f32| {
            let mut moved = trained.clone();
            *moved.smol.number(part, place) += step;
            let choice = choice(&moved.smol);
            assert_eq!(choice.taken[0].0, base.taken[0].0, "the same adapters");
            moved.pass(shape, &choice, &batch, None, false).unwrap().loss
        };
        let slope = (moved(0.02) - moved(-0.02)) / 0.04;
        let found = f64::from(Smol::slope(&slopes, part, place));
        assert!((found - slope).abs() < 3e-3 * slope.abs().max(0.02), "{part} {place}: {found} {slope}");
    }
    assert_eq!(Smol::slope(&slopes, 4 + 2 * absent, 0), 0.0);
    let weights: f32 = base.taken.iter().map(|it| it.1).sum();
    assert!((weights - 1.0).abs() < 1e-6 && base.taken.len() == 2);
}

#[test]
fn all_shapes_learn_and_a_file_gives_them_back() {
    let elastic = elastic();
    let before: Vec<f64> = elastic
        .shapes()
        .into_iter()
        .map(|it| mean_loss(&elastic.at(it, Vec::new()).unwrap(), &texts()).unwrap())
        .collect();
    let options = Options { steps: 60, tokens: 96, rate: 1e-2, adapters: options(), ..Options::default() };
    let trained = train(elastic.clone(), &texts(), &options, &mut |_, _| Ok(())).unwrap();
    let losses = trained.losses(&texts()).unwrap();
    let sum = |losses: &[f64]| losses.iter().sum::<f64>();
    assert!(losses[0] < before[0] && sum(&losses) < sum(&before), "{losses:?} {before:?}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("any.shapes");
    file::write(&trained, &losses, &path).unwrap();
    let (back, known) = file::read(&model(), &path).unwrap();
    assert_eq!((&back.smol, &known), (&trained.smol, &losses));
    assert_eq!(
        (&back.elastic.kept, &back.elastic.answers),
        (&trained.elastic.kept, &trained.elastic.answers)
    );
    let smallest = Shape { removed: 2, width: 1 };
    let values = |trained: &Trained| -> HashMap<String, Vec<f32>> {
        let model = trained.extract(smallest).unwrap();
        model
            .spec
            .tensors()
            .into_iter()
            .map(|it| (it.name.clone(), model.weights.f32(&it.name).unwrap()))
            .collect()
    };
    assert_eq!(values(&back), values(&trained));
    let least = back.elastic.parameters(smallest).unwrap();
    assert_eq!(file::within(&back, &known, least).unwrap(), smallest);
    assert!(file::within(&back, &known, least - 1).unwrap_err().to_string().contains("smallest shape"));
    let other = random(json!({"model_type": "llama"}));
    assert!(file::read(&other, &path).unwrap_err().to_string().contains("another shape"));
    assert_eq!(file::settings(&model(), 0.5, 4, Way::Alike).unwrap().most_removed, 1);
    assert!(file::settings(&model(), 0.99, 4, Way::Alike).unwrap_err().to_string().contains("can't leave"));
    let small = file::settings(&model(), 0.3, 4, Way::Fitted).unwrap();
    assert_eq!((small.widths.len(), small.widths[3], small.most_removed), (4, 0.7, 1));
    // One shape alone learns the text too.
    let alone = Options { course: Course::One(smallest), ..options };
    let alone = train(elastic, &texts(), &alone, &mut |_, _| Ok(())).unwrap();
    assert!(mean_loss(&alone.extract(smallest).unwrap(), &texts()).unwrap() < before[5]);
}

#[test]
fn fitted_widths_may_differ_from_layer_to_layer_and_come_back_from_files() {
    let settings = Settings { widths: vec![1.0, 0.6], way: Way::Fitted, ..settings() };
    let elastic = Elastic::find(&model(), &settings, &texts(), &mut |_| Ok(())).unwrap();
    let narrow = Shape { removed: 0, width: 1 };
    let of_layers = |spec: &ounce_model::Spec| -> usize {
        let own = spec.tensors().into_iter().filter(|tensor| tensor.name.starts_with("layers."));
        own.map(|tensor| tensor.shape.iter().product::<usize>()).sum()
    };
    let small = elastic.at(narrow, Vec::new()).unwrap();
    let share = of_layers(&small.spec) as f64 / of_layers(&model().spec) as f64;
    assert!((0.5..=0.6).contains(&share), "{share}");
    // Fitted comes nearer to the whole model than not.
    let whole = Engine::new(&model()).unwrap().session().logits(&texts()[3]).unwrap();
    let off = |elastic: &Elastic| -> f32 {
        let small = elastic.at(narrow, Vec::new()).unwrap();
        let logits = Engine::new(&small).unwrap().session().logits(&texts()[3]).unwrap();
        logits.iter().zip(&whole).map(|(a, b)| (a - b).powi(2)).sum()
    };
    let [with, without] = [off(&elastic), off(&elastic.without_answers())];
    assert!(with < without, "{with} {without}");
    let options = Options { steps: 20, tokens: 96, rate: 1e-2, adapters: options(), ..Options::default() };
    let trained = train(elastic, &texts(), &options, &mut |_, _| Ok(())).unwrap();
    let losses = trained.losses(&texts()).unwrap();
    assert!(losses[1] < mean_loss(&small, &texts()).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("any.shapes");
    file::write(&trained, &losses, &path).unwrap();
    let (back, _) = file::read(&model(), &path).unwrap();
    assert_eq!(back.elastic.answers, trained.elastic.answers);
    for shape in trained.elastic.shapes() {
        let [cut, masked] = [back.extract(shape).unwrap(), trained.masked(shape).unwrap()];
        let [cut, masked] =
            [cut, masked].map(|it| Engine::new(&it).unwrap().session().logits(&texts()[3]).unwrap());
        let scale = masked.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        assert!(cut.iter().zip(&masked).all(|(a, b)| (a - b).abs() < 2e-5 * scale), "{shape:?}");
    }
}
