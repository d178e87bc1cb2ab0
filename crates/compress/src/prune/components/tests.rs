//! Masks of exact sizes, cliffs of known curves, splits against all combinations, and the two subjects.

use std::collections::HashMap;

use ounce_kernels::gemm::Compute;
use ounce_kernels::pool::Pool;
use ounce_train::diffusion::{Denoiser, Options, Reader, fit};
use ounce_train::graph::ops::Kernels;
use serde_json::json;

use super::cliff::{Bench, MOST};
use super::criterion::{CRITERIA, Criterion, Magnitude, Matrix, Random, Scope, Taylor, Wanda, masked};
use super::language::Language;
use super::pictures::{PARTS, Pictures};
use super::subject::{Component, Subject, components};
use crate::Result;
use crate::prune::structured::tests::random;

fn matrix(name: &str, scale: f32) -> Matrix {
    let number = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0;
    Matrix {
        name: name.into(),
        columns: 8,
        values: (0..48).map(|i| scale * number(i + name.len())).collect(),
        inputs: (0..8).map(|i| (i + 1) as f32).collect(),
        gradient: (0..48).map(|i| number(i * 3 + 5)).collect(),
    }
}

#[test]
fn exactly_the_lowest_scores_of_each_scope_become_zero() {
    let [a, b] = [matrix("a", 1.0), matrix("b", 0.01)];
    for criterion in CRITERIA {
        for sparsity in [0.0, 0.3, 0.5, 0.95] {
            let found = masked(criterion, &[&a, &b], sparsity).unwrap();
            let each = match criterion.scope() {
                Scope::Row => 8,
                Scope::Matrix => 48,
                Scope::Component => 96,
            };
            let values: Vec<f32> = found.concat();
            let scores = [criterion.scores(&a), criterion.scores(&b)].concat();
            let originals = [a.values.clone(), b.values.clone()].concat();
            for ((values, scores), originals) in
                values.chunks(each).zip(scores.chunks(each)).zip(originals.chunks(each))
            {
                let zeros = values.iter().filter(|value| **value == 0.0).count();
                assert_eq!(zeros, (sparsity * each as f64) as usize, "{} {sparsity}", criterion.name());
                let gone =
                    values.iter().zip(scores).filter(|it| *it.0 == 0.0).map(|it| *it.1).fold(0.0, f32::max);
                let left = values
                    .iter()
                    .zip(scores)
                    .filter(|it| *it.0 != 0.0)
                    .map(|it| *it.1)
                    .fold(f32::MAX, f32::min);
                assert!(gone <= left, "{} {sparsity}: {gone} {left}", criterion.name());
                assert!(values.iter().zip(originals).all(|(value, own)| *value == 0.0 || value == own));
            }
        }
    }
    // One threshold for matrices of different scale empties the smaller.
    let found = masked(&Magnitude(Scope::Component), &[&a, &b], 0.5).unwrap();
    assert!(found[1].iter().filter(|value| **value == 0.0).count() >= 46);
    assert_eq!(Wanda.scores(&a)[9], a.values[9].abs() * 2f32.sqrt());
    assert_eq!(Taylor.scores(&a)[9], (a.values[9] * a.gradient[9]).abs());
    assert_eq!(Random.scores(&a), Random.scores(&a));
    let blind = Matrix { gradient: Vec::new(), ..a };
    assert!(masked(&Taylor, &[&blind], 0.5).unwrap_err().to_string().contains("calibration"));
}

#[test]
fn components_are_found_by_patterns() {
    let matrices = ["text.0.query", "blocks.0.query", "text.exit", "exit"].map(|name| matrix(name, 1.0));
    let found = |patterns: &[(&str, &str)]| {
        components(
            &matrices,
            &patterns.iter().map(|it| (it.0.to_string(), it.1.to_string())).collect::<Vec<_>>(),
        )
    };
    let parts = found(&PARTS).unwrap();
    assert_eq!(parts[0].matrices, [0, 2]);
    assert_eq!(parts[1].matrices, [1, 3]);
    assert_eq!(found(&[("q", "*.query"), ("e", "*exit")]).unwrap()[1].matrices, [2, 3]);
    assert_eq!(found(&[("one", "text.exit")]).unwrap()[0].matrices, [2]);
    let said = found(&[("all", "*"), ("none", "text*")]).unwrap_err().to_string();
    assert!(said.contains("no matrix is left for none"), "{said}");
}

/// Two components whose quality falls along known curves: item `i` is lost beyond a sparsity of its own.
struct Known {
    matrices: Vec<Matrix>,
    components: Vec<Component>,
}

impl Known {
    fn new() -> Known {
        let sized = |name: &str, count: usize| Matrix {
            name: name.into(),
            columns: 10,
            values: (0..count).map(|i| 1.0 + i as f32).collect(),
            ..Matrix::default()
        };
        let matrices = vec![sized("a", 1000), sized("b", 3000)];
        let component = |at: usize| Component { name: at.to_string(), matrices: vec![at] };
        Known { matrices, components: vec![component(0), component(1)] }
    }
}

impl Subject for Known {
    fn matrices(&self) -> &[Matrix] {
        &self.matrices
    }

    fn components(&self) -> &[Component] {
        &self.components
    }

    fn items(&mut self, pruned: &HashMap<usize, Vec<f32>>) -> Result<Vec<f64>> {
        let zeros = |at: usize| {
            pruned
                .get(&at)
                .map_or(0.0, |it| it.iter().filter(|w| **w == 0.0).count() as f64 / it.len() as f64)
        };
        // What both lose adds up.
        let hurt = (zeros(0) / 0.6).powi(4) + (zeros(1) / 0.3).powi(4);
        Ok((0..200).map(|i| if hurt > 0.5 + f64::from(i) / 200.0 { 0.0 } else { 1.0 }).collect())
    }
}

#[test]
fn cliffs_are_where_curves_pass_what_is_allowed() {
    let mut known = Known::new();
    let mut bench = Bench::new(&mut known, 0.1, 0.004, 1).unwrap();
    let criterion = Magnitude(Scope::Matrix);
    // A tenth of the items is lost where hurt is 0.6.
    let expected = |scale: f64| scale * 0.6f64.powf(0.25);
    for (component, scale) in [(0, 0.6), (1, 0.3)] {
        let cliff = bench.cliff(&criterion, &[component]).unwrap();
        assert!((cliff.sparsity - expected(scale)).abs() < 0.01, "{cliff:?} {}", expected(scale));
        assert!(
            cliff.interval[0] <= cliff.sparsity + 0.01 && cliff.sparsity - 0.01 <= cliff.interval[1],
            "{cliff:?}"
        );
        assert!(cliff.interval[1] - cliff.interval[0] < 0.1, "{cliff:?}");
    }
    let together = bench.cliff(&criterion, &[0, 1]).unwrap().sparsity;
    assert!(together < expected(0.3));
    let cliffs = [(0, expected(0.6)), (1, expected(0.3))];
    let steps = [-0.15, -0.1, -0.05, 0.0, 0.05];
    let found = bench.best_split(&criterion, &cliffs, &steps).unwrap().unwrap();
    // Against all combinations.
    let mut best: Option<f64> = None;
    for a in steps {
        for b in steps {
            let plan = [(0, cliffs[0].1 + a), (1, cliffs[1].1 + b)];
            let total = (plan[0].1 * 1000.0 + plan[1].1 * 3000.0) / 4000.0;
            if bench.lost(&criterion, &plan).unwrap() <= 0.1 && best.is_none_or(|it| total > it) {
                best = Some(total);
            }
        }
    }
    assert!((found.total - best.unwrap()).abs() < 1e-9, "{found:?} {best:?}");
    assert!(found.total > together && found.lost <= 0.1);
    // What nothing hurts ends at the highest sparsity that is tried.
    struct Steady(Known);
    impl Subject for Steady {
        fn matrices(&self) -> &[Matrix] {
            &self.0.matrices
        }
        fn components(&self) -> &[Component] {
            &self.0.components
        }
        fn items(&mut self, _: &HashMap<usize, Vec<f32>>) -> Result<Vec<f64>> {
            Ok(vec![1.0; 5])
        }
    }
    let mut steady = Steady(Known::new());
    let cliff = Bench::new(&mut steady, 0.1, 0.05, 1).unwrap().cliff(&criterion, &[0]).unwrap();
    assert_eq!((cliff.sparsity, cliff.interval), (MOST, [MOST, MOST]));
    assert!(Bench::new(&mut steady, 0.0, 0.05, 1).unwrap_err().to_string().contains("above 0"));
}

#[test]
fn a_language_model_is_swept_by_its_parts() {
    let model = random(json!({"model_type": "llama"}));
    let texts: Vec<Vec<u32>> =
        (0..10u32).map(|t| (0..16).map(|i| (3 * i + t % 5 + i * (t % 3)) % 31).collect()).collect();
    let patterns = [("attention", "*.attention.*"), ("feed-forward", "*.feed_forward.*")];
    let patterns = patterns.map(|it| (it.0.to_string(), it.1.to_string()));
    let mut subject =
        Language::new(&model, &patterns, &texts[..4], texts[4..].to_vec(), &mut |_| Ok(())).unwrap();
    assert_eq!(
        subject.weights(0) + subject.weights(1),
        subject.matrices().iter().map(|it| it.values.len() as u64).sum::<u64>()
    );
    assert!(
        subject
            .matrices()
            .iter()
            .all(|it| it.inputs.len() == it.columns && it.gradient.len() == it.values.len())
    );
    let whole = subject.items(&HashMap::new()).unwrap();
    let mut net = ounce_train::net::Net::from_model(&model, Default::default()).unwrap();
    use ounce_train::Trainable;
    let plain = net.loss(&ounce_train::Batch::next_token([texts[4].as_slice()])).unwrap().mean();
    assert!((whole[0] - plain).abs() < 1e-5 && whole.len() == 6);
    let mut bench = Bench::new(&mut subject, 0.05, 0.1, 3).unwrap();
    for criterion in CRITERIA {
        let lost = bench.curve(criterion, &[0, 1], &[0.0, 0.3]).unwrap();
        assert!(lost[0].abs() < 1e-6 && lost[1] != 0.0, "{}: {lost:?}", criterion.name());
    }
}

#[test]
fn drawings_change_where_matrices_do() {
    let on = Kernels { pool: Pool::single(), compute: Compute::default() };
    let options = Options { width: 16, heads: 2, word_width: 8, blocks: 1, outlier: 50.0, text_layers: 1 };
    let net = Denoiser::new(options, on, 5);
    let reader = Reader::new(on, 6);
    let pass = net.pass().unwrap();
    let gradients = fit::gradients(&net, 8, 1).unwrap();
    let [shown, judged] = [1, 2].map(|seed| Pictures::every(1, seed));
    let mut pictures = Pictures::new(&pass, &reader, gradients, &shown, judged).unwrap();
    assert_eq!(pictures.components()[0].matrices.len(), 7);
    assert!(
        pictures
            .matrices()
            .iter()
            .all(|it| it.inputs.len() == it.columns && it.gradient.len() == it.values.len())
    );
    let text = pictures.components()[0].matrices[0];
    let plain = pictures.draw(&HashMap::new()).unwrap();
    let own = pictures.matrices()[text].values.clone();
    assert_eq!(pictures.draw(&HashMap::from([(text, own.clone())])).unwrap(), plain);
    assert_ne!(pictures.draw(&HashMap::from([(text, vec![0.0; own.len()])])).unwrap(), plain);
    let items = pictures.items(&HashMap::new()).unwrap();
    assert!(items.len() == 216 && items.iter().all(|it| (0.0..=1.0).contains(it)));
}
