//! `ounce sweep` as a user runs it: forecasts, runs, is stopped, goes on, fits, and refuses what is wrong.

mod common;

use std::time::{Duration, Instant};

use common::{Desk, corpus};

const RUN: &str = r#"
[model]
hidden = 16
layers = 1
heads = 2
context = 16
[data]
train = ["text.txt"]
separator = ""
held_out = 0.1
[train]
batch = 4
tokens = 480
[schedule]
kind = "cosine"
"#;

const GRID: [&str; 6] = ["sweep", "run.toml", "--lr", "0.002,0.008,0.032", "--batch-tokens", "16,32,96"];

fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("text.txt", corpus(400));
    desk.write("run.toml", RUN);
    desk
}

#[test]
fn a_sweep_goes_on_where_it_stopped_and_its_laws_are_fitted() {
    let desk = desk();
    let sizes = ["--hidden", "8,16", "--tokens", "480,960"];
    let small = desk.json(&[&GRID[..], &sizes[..2], &["--workers", "2"]].concat());
    assert_eq!((small["finished"].as_bool(), small["runs"].as_u64()), (Some(true), Some(18)), "{small}");
    let first = std::fs::read_to_string(desk.path("sweep/results.jsonl")).expect("results");
    assert_eq!(first.lines().count(), 18);
    // A larger grid does only what is new, and one worker finds what two found.
    let forecast = desk.json(&[&GRID[..], &sizes, &["--dry-run"]].concat());
    assert_eq!((forecast["runs"].as_u64(), forecast["done"].as_u64()), (Some(36), Some(18)), "{forecast}");
    assert!(forecast["seconds"].as_f64() > Some(0.0) && forecast["tokens"].as_u64() > Some(18 * 900));
    desk.ok(&[&GRID[..], &sizes].concat());
    let second = std::fs::read_to_string(desk.path("sweep/results.jsonl")).expect("results");
    assert!(second.starts_with(&first) && second.lines().count() == 36);
    let alone = desk.json(&[&GRID[..], &sizes[..2], &["--output", "alone"]].concat());
    let losses = |report: &serde_json::Value| {
        let results = report["results"].as_array().expect("results").clone();
        let mut all: Vec<String> = results
            .iter()
            .map(|it| format!("{} {} {} {}", it["lr"], it["batch_tokens"], it["hidden"], it["loss"]))
            .collect();
        all.sort();
        all
    };
    assert_eq!(losses(&alone), losses(&small), "results hang on the number of workers");
    let left = std::fs::read_dir(desk.path("sweep/cells")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "runs leave nothing but their results");

    let laws = desk.json(&["sweep", "--fit", "sweep"]);
    let sizes = laws["sizes"].as_array().expect("sizes");
    assert_eq!(sizes.len(), 4);
    for size in sizes {
        assert_eq!(size["runs"].as_array().map(Vec::len), Some(9), "{size}");
        let (loss, best) = (&size["best"]["loss"], size["runs"].as_array().expect("runs"));
        assert!(best.iter().all(|run| run["loss"].as_f64() >= loss.as_f64()), "{size}");
    }
    assert_eq!(laws["published"]["rate"][1].as_f64(), Some(-0.713));
    let text = desk.ok(&["sweep", "--fit", "sweep"]);
    assert!(text.contains("plateau") && text.contains("sweep.svg"), "{text}");
    let chart = std::fs::read_to_string(desk.path("sweep/sweep.svg")).expect("a chart");
    assert!(chart.contains("<svg") && chart.contains("width 16"));
}

#[test]
fn minima_at_the_edge_are_told() {
    let desk = desk();
    let text = desk.ok(&["sweep", "run.toml", "--lr", "1e-4,2e-4", "--final-lr", "1e-5"]);
    assert!(text.contains("minimum at the edge") && text.contains("--lr 4.00e-4"), "{text}");
    let laws = desk.json(&["sweep", "--fit", "sweep"]);
    assert_eq!(laws["sizes"][0]["edges"][0], "highest-rate", "{laws}");
    assert!(laws["rate"].is_null());
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_with_130_and_the_same_command_goes_on_to_the_same_losses() {
    let desk = desk();
    let args = ["sweep", "run.toml", "--lr", "0.01,0.02", "--tokens", "48000", "--json"];
    let mut command = desk.command(&args);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let child = command.spawn().expect("started");
    let start = Instant::now();
    let log = desk.path("sweep/cells/h16-d48000-b64-lr1e-2/log.jsonl");
    // Steps are being done once there are lines in the log.
    while std::fs::metadata(&log).map_or(0, |it| it.len()) == 0 && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let signal = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(signal.expect("kill").success());
    let ended = child.wait_with_output().expect("gone");
    assert_eq!(ended.status.code(), Some(130));
    let stopped: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("a report");
    assert_eq!(stopped["finished"].as_bool(), Some(false), "{stopped}");
    let results = |report: &serde_json::Value| -> Vec<String> {
        report["results"].as_array().expect("results").iter().map(|it| it["loss"].to_string()).collect()
    };
    let resumed = desk.json(&args[..6]);
    let whole = desk.json(&[&args[..6], &["--output", "whole"]].concat());
    assert_eq!(results(&resumed), results(&whole));
    assert_eq!(results(&whole).len(), 2);
}

#[test]
fn what_is_wrong_is_said_in_one_sentence() {
    let desk = desk();
    let fine = ["sweep", "run.toml", "--lr", "0.01"];
    desk.ok(&fine);
    let cases: [(&[&str], &str); 9] = [
        (&["sweep", "missing.toml", "--lr", "0.01"], "can't be read"),
        (&[&fine[..], &["--set", "model.layers=2"]].concat(), "model.layers = 1, not 2"),
        (&[&fine[..], &["--final-lr", "1e-6"]].concat(), "final_lr"),
        (&["sweep", "run.toml", "--lr", "1e-6"], "below the final one"),
        (&[&fine[..], &["--batch-tokens", "40"]].concat(), "no multiple of the context of 16"),
        (&["sweep", "run.toml", "--lr", "0.01,0.01"], "stands twice"),
        (&[&fine[..], &["--set", "train.tokens=0"]].concat(), "needs a length"),
        (&["sweep", "--fit", "nothing"], "no sweep's folder"),
        (&[&fine[..], &["--hidden", "15"]].concat(), "heads should split the width"),
    ];
    for (args, expected) in cases {
        let ran = desk.run(args);
        assert!(ran.code == 2 && ran.stderr.contains(expected), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.trim().lines().count() == 1, "{args:?}: {}", ran.stderr);
    }
}
