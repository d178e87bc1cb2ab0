//! Commands that look at and write files: show, convert, methods, bench.

mod common;

use common::{Desk, golden, read_npy};
use ounce_eval::method::{Evidence, Row};
use ounce_lab::store::Store;

#[test]
fn show_tells_sizes_that_add_up() {
    let desk = Desk::new();
    let report = desk.json(&["show", "builtin", "--tensors"]);
    let sum = |list: &str| {
        report[list]
            .as_array()
            .expect("a list")
            .iter()
            .map(|it| it["bytes"].as_u64().expect("bytes"))
            .sum::<u64>()
    };
    assert_eq!(report["weight_bytes"].as_u64(), Some(sum("groups")));
    assert_eq!(sum("groups"), sum("tensors"));
    let groups = report["groups"].as_array().expect("a list");
    let parameters: u64 = groups.iter().filter_map(|it| it["parameters"].as_u64()).sum();
    assert_eq!(report["parameters"].as_u64(), Some(parameters));
    let cache = &report["kv_cache"];
    let context = report["context_length"].as_u64().expect("a number");
    assert_eq!(
        cache["bytes_full_context"].as_u64(),
        cache["bytes_per_token"].as_u64().map(|it| it * context)
    );
}

#[test]
fn show_names_what_is_unusual() {
    let desk = Desk::new();
    for (model, words) in [
        ("gemma2", "capped softly"),
        ("gemma2", "attend to the last"),
        ("smollm3", "NoPE"),
        ("llama_rope_yarn", "YaRN"),
        ("llama_tied", "serves as the head too"),
        ("mixtral", "experts"),
        ("gpt_neox", "side by side"),
        ("qwen3", "normed"),
        ("minilm", "no head"),
    ] {
        let text = desk.ok(&["show", &golden(model)]);
        assert!(text.contains(words), "{model} should say {words:?}: {text}");
    }
}

#[test]
fn weights_that_are_not_finite_are_found() {
    let desk = Desk::new();
    assert!(desk.ok(&["show", "builtin", "--check"]).contains("are finite"));
    desk.ok(&["convert", "builtin", "bad", "--dtype", "f32"]);
    let path = desk.path("bad/model.safetensors");
    let mut bytes = std::fs::read(&path).expect("weights");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    bytes[end - 8..end - 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    std::fs::write(&path, bytes).expect("written");
    let ran = desk.run(&["show", "bad", "--check"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stdout.contains("1 NaN, 1 infinite"), "{}", ran.stdout);
    assert_eq!(desk.run(&["show", "bad"]).code, 0, "without --check nothing is read");
}

fn logits(desk: &Desk, model: &str) -> Vec<f32> {
    desk.ok(&["logits", model, "Once upon a time", "--npy", "l.npy"]);
    read_npy(&desk.path("l.npy")).1
}

#[test]
fn converted_models_compute_the_same() {
    let desk = Desk::new();
    let original = logits(&desk, "builtin");
    desk.ok(&["convert", "builtin", "a.gguf"]);
    desk.ok(&["convert", "a.gguf", "folder", "--shard-size", "512K"]);
    assert!(desk.path("folder/model.safetensors.index.json").exists());
    for model in ["a.gguf", "folder"] {
        assert!(logits(&desk, model) == original, "{model}");
    }
    let q8 = desk.json(&["convert", "folder", "q8.gguf", "--dtype", "q8_0"]);
    assert!(q8["bytes"].as_u64() < q8["bytes_before"].as_u64());
    let worst =
        logits(&desk, "q8.gguf").iter().zip(&original).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst > 0.0 && worst < 1.0, "{worst}");
}

#[test]
fn a_gguf_file_keeps_what_a_model_is_called() {
    let desk = Desk::new();
    desk.ok(&["convert", "builtin-tiny", "one.gguf"]);
    desk.ok(&["convert", "one.gguf", "another.gguf"]);
    let bytes = |name: &str| std::fs::read(desk.path(name)).expect("a file");
    assert!(bytes("one.gguf") == bytes("another.gguf"), "whatever the files are called");
    let holds = |text: &[u8]| bytes("one.gguf").windows(text.len()).any(|it| it == text);
    assert!(holds(b"ounce-tales-tiny") && !holds(b"<ounce-tales-tiny>"));
}

#[test]
fn dry_runs_forecast_the_bytes_and_write_nothing() {
    let desk = Desk::new();
    for (target, dtype) in [("a.gguf", "q8_0"), ("b.gguf", "bf16"), ("c", "f32"), ("d", "bf16")] {
        let args = ["convert", "builtin", target, "--dtype", dtype];
        let plan = desk.json(&[&args[..], &["--dry-run"]].concat());
        assert!(!desk.path(target).exists());
        let tensors = plan["tensors"].as_array().expect("a list");
        assert!(tensors.len() > 30 && tensors[0]["bytes"].as_u64() > Some(0));
        let written = desk.json(&args);
        assert_eq!(plan["bytes"], written["bytes"], "{target}");
        if target.ends_with("gguf") {
            let size = std::fs::metadata(desk.path(target)).expect("written").len();
            assert_eq!(plan["bytes"].as_u64(), Some(size));
        }
    }
    assert!(desk.ok(&["convert", "builtin", "e.gguf", "--dry-run"]).contains("token_embd.weight"));
}

#[test]
fn existing_targets_are_replaced_only_by_force() {
    let desk = Desk::new();
    for target in ["a.gguf", "folder"] {
        desk.ok(&["convert", "builtin", target]);
        for more in [&[][..], &["--dry-run"]] {
            assert!(desk.fails(&[&["convert", "builtin", target], more].concat()).contains("--force"));
        }
        desk.ok(&["convert", "builtin", target, "--force"]);
        desk.ok(&["show", target]);
    }
    let left: Vec<_> = std::fs::read_dir(desk.path(""))
        .expect("lists")
        .filter_map(|it| it.ok()?.file_name().into_string().ok())
        .collect();
    assert!(left.iter().all(|name| !name.ends_with(".tmp")), "{left:?}");
    assert!(desk.fails(&["convert", "builtin", "x.bin"]).contains(".bin"));
    assert!(desk.fails(&["convert", "builtin", "x", "--dtype", "q8_0"]).contains(".gguf"));
}

#[test]
fn methods_are_searched_and_shown_with_their_evidence() {
    let desk = Desk::new();
    let mut evidence = Evidence::new(20, 7, "f32");
    evidence.rows.push(Row::new("f32").with("error", 0.0, "%"));
    evidence.rows.push(Row::new("4 bits").with("error", 12.5, "%"));
    evidence.expect("error of 4 bits below 20 %", "12.5 %", true);
    Store::new(desk.path("ev")).write(&evidence).expect("written");
    let one = desk.ok(&["methods", "20", "--evidence", "ev"]);
    for words in ["L-Mul", "2410.00907", "error (%)", "12.500", "holds  error of 4 bits", "f32 (baseline)"] {
        assert!(one.contains(words), "{words}: {one}");
    }
    assert!(desk.ok(&["methods", "l-mul", "--evidence", "ev"]).contains("1 of 1 hold"));
    let all = desk.json(&["methods"]);
    assert_eq!(all.as_array().map(Vec::len), Some(usize::from(ounce_eval::method::METHOD_COUNT)));
    let some = desk.json(&["methods", "--family", "federated", "--state", "planned"]);
    assert!(
        some.as_array()
            .expect("a list")
            .iter()
            .all(|it| it["family"] == "federated" && it["state"] == "planned")
    );
    let none = desk.run(&["methods", "zzzz", "qqqq"]);
    assert_eq!((none.code, none.stdout.as_str()), (1, ""));
    assert!(desk.ok(&["methods", "--markdown"]).starts_with("# Catalogue"));
}

#[test]
fn planned_methods_have_no_demonstration() {
    let desk = Desk::new();
    let planned = ounce_lab::catalogue::methods().iter().find(|it| it.demonstrate.is_none());
    let Some(planned) = planned else { return };
    let ran = desk.run(&["bench", "method", &planned.number.to_string(), "--json"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    assert!(ran.stderr.contains("planned"), "{}", ran.stderr);
}
