//! `ounce quantize` with training.

mod common;

use common::Desk;

const TINY: [&str; 7] =
    ["quantize", "builtin-tiny", "--bits", "2", "--calibration-tokens", "4000", "--no-test"];

#[test]
fn a_model_trained_at_two_bits_is_a_folder_that_runs() {
    let desk = Desk::new();
    let report = desk.json(&[&TINY[..], &["-o", "small", "--train", "both", "--train-epochs", "1"]].concat());
    let layers = report["trained_layers"].as_array().expect("a list");
    assert_eq!(layers.len(), 4);
    for layer in layers {
        let [before, after] = ["before", "after"].map(|name| layer[name].as_f64().expect("a number"));
        assert!(0.0 < after && after <= before && before < 1.0, "{layer}");
    }
    let scales = &report["trained_step_sizes"];
    let [before, after] = ["before", "after"].map(|name| scales[name].as_f64().expect("a number"));
    assert!(after < before, "{scales}");
    let shown = desk.json(&["show", "small"]);
    assert!(shown.to_string().contains("G2_64"), "{shown}");
    let text = desk.ok(&["run", "small", "Once upon a time", "-n", "4", "--seed", "3"]);
    assert!(text.contains("Once") || !text.trim().is_empty());
}

#[test]
fn training_that_can_not_be_is_refused_before_any_work() {
    let desk = Desk::new();
    let into_gguf = desk.run(&[&TINY[..], &["-o", "small.gguf", "--train", "both"]].concat());
    assert_ne!(into_gguf.code, 0);
    assert!(into_gguf.stderr.contains("--train needs matrices in groups"), "{}", into_gguf.stderr);
    let alone = desk.run(&[&TINY[..], &["-o", "small", "--train-epochs", "3"]].concat());
    assert_ne!(alone.code, 0);
    assert!(alone.stderr.contains("--train"), "{}", alone.stderr);
}
