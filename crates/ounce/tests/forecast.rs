//! `ounce forecast`: from a profile and a shape to memory and times.

mod common;

use common::Desk;
use serde_json::{Value, json};

/// A profile of a made-up machine.
fn machine() -> String {
    let rate = |best: f64| json!({"best": best, "median": best, "cpu_share": null});
    let read = |threads: u32, best: f64| {
        json!({
            "threads": threads, "buffer_bytes": 1_u64 << 30, "pages": "small", "prefetch_bytes": 0,
            "bytes_per_second": rate(best)
        })
    };
    let peak = |kind: &str, best: f64| json!({"kind": kind, "instruction": "fma", "threads": 2, "ops_per_second": rate(best)});
    json!({
        "format": 1, "tool_version": "0", "measured_at_unix_seconds": 1, "quick": false,
        "cpu": {"model": "Example", "architecture": "x86_64", "cores": 2, "physical_cores": null, "features": []},
        "caches": [], "memory": {"total_bytes": 1_u64 << 34, "available_bytes": 1_u64 << 33},
        "memory_reads": [read(2, 20e9)], "cache_reads": [read(2, 200e9)],
        "peaks": [peak("f32", 400e9), peak("int8", 1600e9)], "disk": null, "energy": null, "notes": []
    })
    .to_string()
}

const SHAPE: [&str; 7] = ["forecast", "--shape", "llama-3.2-1b", "--machine", "other.json", "--threads", "2"];

fn with(more: &[&'static str]) -> Vec<&'static str> {
    SHAPE.iter().chain(more).copied().collect()
}

#[test]
fn a_shape_is_forecast_on_another_machine() {
    let desk = Desk::new();
    desk.write("other.json", machine());
    let report = desk.json(&with(&["--type", "q8_0", "--what-if", "--plot", "roofline.svg"]));
    assert_eq!(report["parameters"], 1_235_814_400_u64);
    assert_eq!(report["calibrated"], false);
    let forecast = &report["forecast"];
    let number = |name: &str| forecast[name].as_f64().expect(name);
    // 34 bytes for 32 values; norms in f32.
    let norms = 33.0 * 2048.0;
    assert_eq!(number("file_bytes"), (1_235_814_400.0 - norms) * 34.0 / 32.0 + norms * 4.0);
    assert!(number("per_token_seconds") > number("weight_bytes") / 20e9);
    assert!(number("resident_bytes") > number("weight_bytes") + number("kv_bytes"));
    assert_eq!(forecast["energy_per_token_joules"], Value::Null);
    assert!(report["what_if"].as_array().expect("variants").len() > 5);
    let picture = std::fs::read_to_string(desk.path("roofline.svg")).expect("a picture");
    assert!(picture.contains("<svg") && picture.contains("token: down"));
    let text = desk.ok(&with(&["--operators"]));
    for words in ["memory", "first token", "gate, up", "bound by", "estimated"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn what_can_not_be_forecast_is_refused_in_a_sentence() {
    let desk = Desk::new();
    desk.write("other.json", machine());
    desk.write("bad.json", "{}");
    for (args, word) in [
        (vec!["forecast", "--shape", "smollm2-135m"], "ounce profile"),
        (vec!["forecast", "--shape", "smollm2-135m", "--machine", "bad.json"], "bad.json"),
        (vec!["forecast", "--shape", "gpt-9", "--machine", "other.json"], "qwen3-4b"),
        (with(&["--prompt", "0"]), "prompt"),
        (with(&["--plot", "roofline.txt"]), ".svg"),
        (with(&["--type", "q1"]), "q1"),
        (vec!["forecast", "builtin", "--timings", "--request", "5"], "200:50"),
        (vec!["bench", "forecast", "--prompts", "0"], "1 or more"),
    ] {
        let ran = desk.run(&args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stdout);
        assert!(ran.stderr.contains(word), "{args:?}: {}", ran.stderr);
    }
    assert!(!desk.path("roofline.txt").exists());
}

#[test]
fn a_few_timings_tell_of_requests() {
    let desk = Desk::new();
    let report = desk.json(&["forecast", "builtin", "--timings", "--prompt", "16", "--request", "12:6,20:9"]);
    let requests = report["requests"].as_array().expect("requests");
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|it| it["seconds"].as_f64().expect("a time") > 0.0));
    assert!(report["fit"]["per_token"].as_f64().expect("a time") > 0.0);
}
