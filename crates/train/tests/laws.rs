//! The fits of laws beside numpy's and scipy's, stored by `tests/golden/laws.py`.

use ounce_train::laws::power::PowerLaw;
use ounce_train::laws::scaling::{Run, ScalingLaw};
use ounce_train::laws::surface::{Surface, Trial};
use serde_json::Value;

fn golden() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/laws.json");
    serde_json::from_slice(&std::fs::read(path).expect("golden file")).expect("JSON")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|it| it.as_f64().expect("a number")).collect()
}

fn rows(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().expect("a list").iter().map(numbers).collect()
}

fn close(found: f64, expected: &Value, tolerance: f64) {
    let expected = expected.as_f64().expect("a number");
    assert!((found / expected - 1.0).abs() <= tolerance, "{found} is not {expected}");
}

#[test]
fn the_scaling_law_is_scipys() {
    let golden = &golden()["scaling"];
    let run = |row: Vec<f64>| Run { params: row[0], tokens: row[1], loss: row[2] };
    let runs: Vec<Run> = rows(&golden["runs"]).into_iter().map(run).collect();
    let law = ScalingLaw::fit(&runs).expect("a fit");
    let fit = &golden["fit"];
    close(law.objective, &fit["objective"], 1e-8);
    close(law.irreducible, &fit["irreducible"], 1e-4);
    close(law.params_exponent, &fit["params_exponent"], 1e-4);
    close(law.tokens_exponent, &fit["tokens_exponent"], 1e-4);
    close(law.params_scale, &fit["params_scale"], 1e-3);
    close(law.tokens_scale, &fit["tokens_scale"], 1e-3);
    // Least squares would have followed the one bad run.
    let square = &golden["least_squares"]["objective"];
    assert!(square.as_f64().expect("a number") > 1.05 * law.objective);
}

#[test]
fn the_power_law_is_numpys() {
    let golden = &golden()["power"];
    let point = |row: Vec<f64>| (row[..2].to_vec(), row[2]);
    let law =
        PowerLaw::fit(&rows(&golden["points"]).into_iter().map(point).collect::<Vec<_>>()).expect("a fit");
    close(law.scale, &golden["scale"], 1e-9);
    close(law.r_squared, &golden["r_squared"], 1e-9);
    for (found, expected) in law.exponents.iter().zip(numbers(&golden["exponents"])) {
        assert!((found - expected).abs() < 1e-9, "{law:?}");
    }
    for (found, expected) in law.standard_errors.iter().zip(numbers(&golden["standard_errors"])) {
        assert!((found / expected - 1.0).abs() < 1e-7, "{law:?}");
    }
}

#[test]
fn the_best_of_a_sweep_is_numpys() {
    let golden = &golden()["surface"];
    let trial = |row: Vec<f64>| Trial { rate: row[0], batch: row[1], loss: row[2] };
    let trials: Vec<Trial> = rows(&golden["trials"]).into_iter().map(trial).collect();
    let surface = Surface::fit(&trials, f64::INFINITY).expect("a fit");
    close(surface.rate, &golden["rate"], 1e-7);
    close(surface.batch, &golden["batch"], 1e-7);
    close(surface.loss, &golden["loss"], 1e-9);
    for (found, expected) in surface.curvature.iter().zip(numbers(&golden["curvature"])) {
        assert!((found / expected - 1.0).abs() < 1e-6, "{surface:?}");
    }
}
