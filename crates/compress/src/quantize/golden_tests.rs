//! What other implementations compute on small matrices: `tests/golden/compression.json`.

use std::path::Path;

use ounce_engine::Tap;
use ounce_kernels::DType;
use ounce_kernels::quant::{self, grid::Grid};
use serde_json::Value;

use super::moments::{Collector, Moments};
use super::{awq, hqq, smooth};

pub(super) fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/compression.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub(super) fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

/// The largest difference as a share of the expected value.
fn apart(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).fold(0.0, |most, (a, b)| most.max((a / b - 1.0).abs()))
}

fn moments(golden: &Value, pairs: bool) -> Moments {
    let mut collector = Collector::new(pairs);
    collector.observe(&["a"], &floats(&golden["inputs"]), number(&golden["width"]));
    collector.moments("a").unwrap().clone()
}

fn matrices(golden: &Value) -> Vec<Vec<f32>> {
    golden["matrices"].as_array().unwrap().iter().map(floats).collect()
}

#[test]
fn zero_points_are_those_of_hqq() {
    for golden in golden()["hqq"].as_array().unwrap() {
        let (bits, group) = (number(&golden["bits"]), number(&golden["group"]));
        let weights = floats(&golden["weights"]);
        // The released solver leaves β as it is; numpy's lets it grow, as the paper does.
        let released = hqq::Options { scales: false, kappa: 1.0, ..hqq::Options::default() };
        let top = ((1 << bits) - 1) as f32;
        for (options, zeros) in [(released, "zeros"), (hqq::Options::default(), "growing")] {
            let solved = hqq::solve(&weights, group, top, &options);
            assert!(apart(&solved.scales, &floats(&golden["scales"])) < 1e-5);
            let zeros = floats(&golden[zeros]);
            let each = solved.zeros.iter().zip(&zeros);
            let furthest = each.fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            println!("{bits} bits, β · {}: zero points differ by {furthest:.1e} of a step", options.kappa);
            assert!(furthest < 1e-4, "{bits} bits: {furthest}");
        }

        let dtype = DType::groups(bits, group).unwrap();
        let bytes = hqq::quantize(&weights, Grid::of(dtype).unwrap(), &released);
        let mut decoded = vec![0.0; weights.len()];
        quant::decode(dtype, &bytes, &mut decoded).unwrap();
        let expected = floats(&golden["decoded"]);
        let differ = decoded.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() > 1e-6 * b.abs()).count();
        println!("{bits} bits: {differ} of {} weights differ", weights.len());
        assert!(differ * 200 <= weights.len(), "{bits} bits: {differ}");
    }
}

#[test]
fn scales_and_exponent_are_those_of_awq() {
    let golden = &golden()["awq"];
    let (moments, weights) = (moments(golden, true), matrices(golden));
    let matrices: Vec<awq::Matrix<'_>> = weights.iter().map(|w| (w.as_slice(), DType::G4x32)).collect();
    let found = awq::search(&moments, &matrices, &awq::Options::default()).unwrap();
    assert!((f64::from(found.alpha) - golden["alpha"].as_f64().unwrap()).abs() < 1e-6, "{}", found.alpha);
    let distance = apart(&found.scales, &floats(&golden["scales"]));
    let error = found.error / golden["error"].as_f64().unwrap() - 1.0;
    let plain = found.plain_error / golden["plain_error"].as_f64().unwrap() - 1.0;
    println!("α {}, scales differ by {distance:.1e}, errors by {error:.1e} and {plain:.1e}", found.alpha);
    assert!(distance < 1e-4 && error.abs() < 1e-2 && plain.abs() < 1e-2);
}

#[test]
fn scales_are_those_of_smoothquant() {
    for golden in golden()["smooth"].as_array().unwrap() {
        let weights = matrices(golden);
        let matrices: Vec<&[f32]> = weights.iter().map(Vec::as_slice).collect();
        let options = smooth::Options { alpha: golden["alpha"].as_f64().unwrap() as f32 };
        let distance =
            apart(&smooth::scales(&moments(golden, false), &matrices, &options), &floats(&golden["scales"]));
        println!("α {}: scales differ by {distance:.1e}", options.alpha);
        assert!(distance < 1e-5);
    }
}
