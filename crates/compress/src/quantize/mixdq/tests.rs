use ounce_model::storage::Bytes;
use ounce_train::diffusion::{Denoiser, Options, Plain, Products, Prompt, Request, TOKENS, Tensor};
use ounce_train::graph::ops::Kernels;

use super::file;
use super::plan::{FULL, Group, Plan, Side, Unit, total, uniform};
use super::search::{self, Options as Search};
use super::simulate::{First, Quantized, Ranges, rounded};
use super::subject::Drawing;
use super::table::{Metric, Originals, Row, Subject, measure, sqnr};
use crate::Result;

fn net() -> Denoiser {
    let options = Options { width: 16, heads: 2, word_width: 8, blocks: 1, outlier: 50.0, text_layers: 0 };
    Denoiser::new(options, Kernels::default(), 3)
}

fn request() -> Request {
    Request::new(Prompt::all().into_iter().step_by(43).collect(), 4)
}

/// Outputs that are sums of layers' values, rounded; the image is the output.
struct Sum {
    units: Vec<Unit>,
    values: Vec<Vec<f32>>,
}

impl Sum {
    fn new() -> Sum {
        let sizes = [40u64, 10, 30, 20, 25, 35];
        let units = sizes.iter().enumerate().map(|(at, &size)| Unit {
            name: format!("{at}"),
            group: if at % 2 == 0 { Group::Quality } else { Group::Content },
            weights: size,
            activations: 100 - size,
        });
        let values = (0..sizes.len())
            .map(|at| (0..16).map(|i| ((at * 31 + i * 17) as f32 * 0.37).sin() * (1 << at) as f32).collect());
        Sum { units: units.collect(), values: values.collect() }
    }

    fn run(&self, plan: &Plan) -> Vec<f32> {
        let mut out = vec![0.0; 16];
        for (at, values) in self.values.iter().enumerate() {
            let bits = plan.weights[at].min(plan.activations[at]);
            let values = if bits == FULL { values.clone() } else { rounded(values, 16, bits) };
            out.iter_mut().zip(values).for_each(|(out, value)| *out += value);
        }
        out
    }
}

impl Subject for Sum {
    fn units(&self) -> &[Unit] {
        &self.units
    }
    fn output(&mut self, plan: &Plan) -> Result<Vec<f32>> {
        Ok(self.run(plan))
    }
    fn images(&mut self, plan: &Plan) -> Result<Vec<f32>> {
        Ok(self.run(plan))
    }
    fn similarity(&self, images: &[f32], others: &[f32]) -> f64 {
        -super::table::squared_error(images, others)
    }
}

#[test]
fn sensitivities_are_those_of_one_layer_at_a_time() {
    let mut sum = Sum::new();
    let originals = Originals::of(&mut sum).unwrap();
    let rule = |group: Group| (vec![2, 4, 8], group.metric());
    let table = measure(&mut sum, &originals, Side::Weights, &rule, &mut |_, _| ()).unwrap();
    for (at, row) in table.iter().enumerate() {
        for &(bits, score) in &row.scores {
            let change: Vec<f32> =
                rounded(&sum.values[at], 16, bits).iter().zip(&sum.values[at]).map(|(a, b)| a - b).collect();
            let noise: f64 = change.iter().map(|x| f64::from(*x).powi(2)).sum();
            let signal: f64 = originals.output.iter().map(|x| f64::from(*x).powi(2)).sum();
            let expected = match row.metric {
                Metric::Sqnr => 10.0 * (signal / noise).log10(),
                Metric::Ssim => -noise / 16.0,
            };
            assert!(
                (score - expected).abs() < 1e-2 * expected.abs() + 1e-3,
                "{at} {bits}: {score} {expected}"
            );
        }
        assert!(row.scores.is_sorted_by(|a, b| a.1 <= b.1));
        assert_eq!(row.metric == Metric::Sqnr, at % 2 == 0);
    }
    assert_eq!(sqnr(&[1.0, 2.0], &[1.0, 2.0]), super::table::MOST_SQNR);
}

/// No plan of a scan beats the best one found, and all keep to the target.
#[test]
fn the_search_keeps_the_budget_and_the_best_plan() {
    let mut sum = Sum::new();
    let originals = Originals::of(&mut sum).unwrap();
    let rule = |group: Group| match group {
        Group::Quality => (vec![4, 8], Metric::Sqnr),
        Group::Content => (vec![2, 4, 8], Metric::Ssim),
    };
    let table = measure(&mut sum, &originals, Side::Weights, &rule, &mut |_, _| ()).unwrap();
    let base = Plan::full(6).with(Side::Activations, vec![8; 6]);
    // Six layers have few sums; a wide tolerance lets some fit.
    let options = Search { tolerance: 0.3, ..Search::default() };
    let plans = search::decoupled(&table, &sum.units, Side::Weights, 5.0, &base, &options);
    assert!(plans.len() > 1, "{plans:?}");
    for plan in &plans {
        assert!(plan.mean_bits(Side::Weights, &sum.units) <= 5.0);
        assert_eq!(plan.activations, vec![8; 6]);
        assert!(sum.units.iter().zip(&plan.weights).all(|(unit, bits)| rule(unit.group).0.contains(bits)));
    }
    let errors: Vec<f64> =
        (plans.iter()).map(|plan| super::table::squared_error(&sum.run(plan), &originals.images)).collect();
    let count = plans.len();
    let found = search::best(&mut sum, &originals, plans, &mut |_, _| ()).unwrap();
    assert_eq!(found.error, errors.into_iter().fold(f64::INFINITY, f64::min));
    assert_eq!(found.candidates, count);
    let strict = Search { tolerance: 0.0, ..Search::default() };
    let none = search::decoupled(&table, &sum.units, Side::Weights, 3.07, &base, &strict);
    let error = search::best(&mut sum, &originals, none, &mut |_, _| ()).unwrap_err().to_string();
    assert!(error.contains("another mean"), "{error}");
}

#[test]
fn the_most_sensitive_is_the_one_that_loses_most() {
    let row =
        |scores: &[(u32, f64)]| Row { unit: String::new(), metric: Metric::Sqnr, scores: scores.to_vec() };
    let table = [row(&[(4, 20.0), (8, 40.0)]), row(&[(4, 3.0), (8, 60.0)]), row(&[(4, 9.0), (8, 10.0)])];
    assert_eq!(search::most_sensitive(&table, 0.01), [1]);
    assert_eq!(search::most_sensitive(&table, 0.7), [1, 2]);
}

#[test]
fn uniform_bits_come_to_their_mean_from_below() {
    let units = Sum::new().units;
    assert_eq!(uniform(Side::Weights, &units, 4.0), vec![4; 6]);
    let mixed = uniform(Side::Weights, &units, 3.5);
    let values: u64 = units.iter().map(|unit| unit.weights).sum();
    let mean = total(&mixed, Side::Weights, &units) as f64 / values as f64;
    assert!((3.3..=3.5).contains(&mean) && mixed.contains(&3) && mixed.contains(&4), "{mixed:?}");
}

/// The rule leaves what cross-attention sees of the first token as it is, and gives the other tokens finer steps.
#[test]
fn the_first_token_is_computed_in_full_or_ruins_the_others() {
    struct Compare<'q> {
        quantized: [&'q mut Quantized; 2],
        errors: [f64; 2],
        first: [f64; 2],
    }
    impl Products for Compare<'_> {
        fn product(
            &mut self,
            pass: &ounce_train::diffusion::Pass<'_>,
            layer: usize,
            x: &Tensor,
        ) -> ounce_train::Result<Tensor> {
            let y = Plain.product(pass, layer, x)?;
            let own = &pass.net().layers()[layer];
            if own.sees_words {
                let y = y.to_vec2::<f32>()?;
                for (which, quantized) in self.quantized.iter_mut().enumerate() {
                    let z = quantized.product(pass, layer, x)?.to_vec2::<f32>()?;
                    for (row, (y, z)) in y.iter().zip(&z).enumerate() {
                        let away: f64 = y.iter().zip(z).map(|(y, z)| f64::from(y - z).powi(2)).sum();
                        let sum = if row % TOKENS == 0 { &mut self.first } else { &mut self.errors };
                        sum[which] += away;
                    }
                }
            }
            Ok(y)
        }
    }
    let net = net();
    let pass = net.pass().unwrap();
    let ranges = Ranges::of(&pass, &request()).unwrap();
    let layers = net.layers().len();
    let plan = Plan { weights: vec![8; layers], activations: vec![8; layers] };
    let make = |first| Quantized::new(&net, &ranges, &plan, first).unwrap();
    let (mut rule, mut naive) = (make(First::Full), make(First::Quantized));
    let mut compare = Compare { quantized: [&mut rule, &mut naive], errors: [0.0; 2], first: [0.0; 2] };
    request().draw(&pass, &mut compare).unwrap();
    assert!(compare.first[0] < 1e-9 && compare.first[1] > 0.0, "{:?}", compare.first);
    assert!(compare.errors[0] * 100.0 < compare.errors[1], "{:?}", compare.errors);
}

#[test]
fn a_full_plan_is_the_network_itself_and_coarser_ones_are_farther() {
    let net = net();
    let pass = net.pass().unwrap();
    let ranges = Ranges::of(&pass, &request()).unwrap();
    let mut drawing = Drawing::new(&pass, &ranges, First::Full, request()).unwrap();
    let originals = Originals::of(&mut drawing).unwrap();
    assert_eq!(originals.images, request().draw(&pass, &mut Plain).unwrap());
    let layers = drawing.units().len();
    let mut scores = |side, bits| {
        let plan = Plan::full(layers).with(side, vec![bits; layers]);
        [Metric::Sqnr, Metric::Ssim].map(|metric| originals.score(&mut drawing, &plan, metric).unwrap())
    };
    for side in [Side::Weights, Side::Activations] {
        let [coarse, fine] = [4, 8].map(|bits| scores(side, bits));
        assert!(coarse[0] < fine[0] && coarse[1] < fine[1] && fine[0] < 100.0, "{coarse:?} {fine:?}");
    }
}

/// A file holds the codes of what is computed with, and is as large as its plan says.
#[test]
fn a_file_gives_back_what_was_simulated() {
    let net = net();
    let layers = net.layers().len();
    let bits: Vec<u32> = (0..layers).map(|at| [2, 4, 8, FULL][at % 4]).collect();
    let plan = Plan { weights: bits.clone(), activations: vec![8; layers] };
    let bytes = file::bytes(&net, &plan);
    let path = std::path::Path::new("plan.safetensors");
    let read = ounce_model::formats::safetensors::SafetensorsFile::parse(Bytes::from(bytes), path).unwrap();
    let joined: Vec<String> = bits.iter().map(u32::to_string).collect();
    assert_eq!(read.metadata()["weights"], joined.join(" "));
    use ounce_model::weights::TensorSource;
    let half = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
    };
    for (number, layer) in net.layers().iter().enumerate() {
        let data = read.tensor(&format!("{}.weight", layer.name)).unwrap().data;
        if bits[number] == FULL {
            assert_eq!(data.len(), 2 * layer.weights());
            continue;
        }
        let scales = half(&read.tensor(&format!("{}.scale", layer.name)).unwrap().data);
        let low = -(1i32 << (bits[number] - 1));
        let found: Vec<f32> = file::unpack(&data, bits[number])
            .take(layer.weights())
            .enumerate()
            .map(|(at, code)| (code as i32 + low) as f32 * scales[at / layer.inputs])
            .collect();
        assert_eq!(found, rounded(net.weight(number), layer.inputs, bits[number]), "{}", layer.name);
    }
}
