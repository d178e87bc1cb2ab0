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
    let mxfp4 = [
        "quantize",
        "builtin-tiny",
        "-o",
        "x.gguf",
        "--type",
        "mxfp4",
        "--keep",
        "*=mxfp4",
        "--train",
        "both",
    ];
    let powers = desk.run(&mxfp4);
    assert_eq!(powers.code, 2);
    assert!(powers.stderr.contains("--train needs matrices in blocks with scales"), "{}", powers.stderr);
    let alone = desk.run(&[&TINY[..], &["-o", "small", "--train-epochs", "3"]].concat());
    assert_ne!(alone.code, 0);
    assert!(alone.stderr.contains("--train"), "{}", alone.stderr);
}

#[test]
fn a_gguf_file_is_trained_as_well() {
    let desk = Desk::new();
    let quantized = |name: &str, more: &[&str]| -> f64 {
        let args = [
            "quantize",
            "builtin-tiny",
            "--type",
            "iq4_nl",
            "--method",
            "round",
            "--calibration-tokens",
            "8000",
            "-o",
            name,
        ];
        let report = desk.json(&[&args[..], more].concat());
        report["divergence"]["mean_kl"]["value"].as_f64().expect("a number")
    };
    let without = quantized("plain.gguf", &[]);
    let trained = quantized("trained.gguf", &["--train", "both", "--train-epochs", "2"]);
    assert!(trained < without, "{trained} {without}");
    let shown = desk.json(&["show", "trained.gguf"]);
    assert!(shown.to_string().contains("IQ4_NL"), "{shown}");
}

#[test]
fn an_encoder_is_compared_by_its_vectors() {
    let desk = Desk::new();
    let report = desk.json(&["quantize", "builtin-encoder", "-o", "small.gguf", "--type", "q8_0"]);
    let found = &report["similarity"];
    let [mean, least, same] =
        ["mean_cosine", "least_cosine", "same_nearest"].map(|it| found[it].as_f64().expect("a number"));
    assert!(0.99 < least && least <= mean && mean < 1.0, "{found}");
    assert!(0.9 < same && same <= 1.0, "{found}");
}

#[test]
fn a_model_is_adapted_and_quantized_at_once_without_an_adapter_left() {
    let desk = Desk::new();
    let report = desk.json(&[
        "quantize",
        "builtin-tiny",
        "--bits",
        "2",
        "--group",
        "32",
        "--calibration-tokens",
        "12000",
        "--no-test",
        "-o",
        "small",
        "--train",
        "l4q",
        "--train-epochs",
        "4",
        "--train-rank",
        "2",
    ]);
    let trained = &report["trained_adapters"];
    let [before, after] = ["before", "after"].map(|name| trained[name].as_f64().expect("a number"));
    assert!(0.0 < after && after < before, "{trained}");
    let [numbers, weights] = ["trained", "weights"].map(|name| trained[name].as_u64().expect("a number"));
    assert!(numbers > weights / 16 && numbers < weights / 5, "{trained}");
    let shown = desk.json(&["show", "small"]).to_string();
    assert!(shown.contains("G2_32") && !shown.contains("lora"), "{shown}");
    let text = desk.ok(&["run", "small", "Once upon a time", "-n", "4", "--seed", "3"]);
    assert!(!text.trim().is_empty());
}

#[test]
fn adapters_that_can_not_be_trained_are_refused_before_any_work() {
    let desk = Desk::new();
    let refused = |arguments: &[&str]| {
        let run = desk.run(&[&TINY[..], arguments].concat());
        assert_eq!(run.code, 2, "{}", run.stderr);
        run.stderr
    };
    let into_gguf = refused(&["-o", "small.gguf", "--train", "l4q"]);
    assert!(into_gguf.contains("--train l4q needs matrices in groups"), "{into_gguf}");
    let other = refused(&["-o", "small", "--train", "both", "--train-rank", "2"]);
    assert!(other.contains("--train-rank and --train-rate are for --train l4q"), "{other}");
    let rate = refused(&["-o", "small", "--train", "l4q", "--train-rate", "0"]);
    assert!(rate.contains("--train-rate should be above 0"), "{rate}");
    let words =
        "There was a cat who liked the sun and slept on the wall of the garden all day long. ".repeat(20);
    std::fs::write(desk.path("short.txt"), words).expect("a file");
    let short = refused(&["-o", "small", "--train", "l4q", "--calibration", "short.txt"]);
    assert!(short.contains("longer text"), "{short}");
    let encoder =
        ["quantize", "builtin-encoder", "--bits", "2", "--no-test", "-o", "small", "--train", "l4q"];
    let encoder = desk.run(&encoder);
    assert_eq!(encoder.code, 2);
    assert!(encoder.stderr.contains("predicts none"), "{}", encoder.stderr);
}
