//! `ounce quantize` with what it does to weights before they are rounded.

mod common;

use common::Desk;

fn kl(report: &serde_json::Value) -> f64 {
    report["divergence"]["mean_kl"]["value"].as_f64().expect("a divergence")
}

#[test]
fn prepared_models_are_quantized_and_nothing_is_left_behind() {
    let desk = Desk::new();
    let quick = ["--calibration-tokens", "2048", "--method", "round"];
    let base = ["quantize", "builtin-tiny", "-o"];
    let run = |target: &str, more: &[&str]| desk.json(&[&base[..], &[target], &quick, more].concat());
    let plain = run("plain.gguf", &["--type", "q4_0"]);
    let awq = run("awq.gguf", &["--type", "q4_0", "--prepare", "awq"]);
    assert_eq!(awq["prepare"], serde_json::json!(["awq"]));
    assert_eq!(awq["bytes"], plain["bytes"], "the file is an ordinary one of the same size");
    println!("KL {:.5}, with AWQ {:.5}", kl(&plain), kl(&awq));
    assert!(kl(&awq) < 1.1 * kl(&plain));
    for steps in [["rotate", "awq"], ["smooth", "rotate"]] {
        let target = format!("{}.gguf", steps.join("-"));
        let both = run(&target, &["--type", "q4_0", "--prepare", steps[0], "--prepare", steps[1]]);
        println!("{steps:?}: KL {:.5}", kl(&both));
        assert!(kl(&both) < 3.0 * kl(&plain), "{steps:?}");
        desk.ok(&["run", &target, "Once", "--max-tokens", "4"]);
    }
    let left: Vec<_> = std::fs::read_dir(desk.path("."))
        .expect("the desk")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".partial"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn hqq_needs_groups_and_options_need_their_steps() {
    let desk = Desk::new();
    let quick = ["--no-test", "--method", "hqq"];
    let error = desk.fails(&[&["quantize", "builtin-tiny", "-o", "a.gguf"], &quick[..]].concat());
    assert!(error.contains("zero points of groups") && error.contains("folder"), "{error}");
    desk.ok(
        &[&["quantize", "builtin-tiny", "-o", "folder", "--bits", "4", "--group", "32"], &quick[..]].concat()
    );
    desk.ok(&["run", "folder", "Once", "--max-tokens", "4"]);
    let error = desk.fails(&["quantize", "builtin-tiny", "-o", "b.gguf", "--awq-clip"]);
    assert!(error.contains("--prepare awq"), "{error}");
}
