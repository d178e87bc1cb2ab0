//! `ounce train` as a user runs it: forecasts, trains, is killed, goes on, and refuses what is wrong.

mod common;

use std::time::{Duration, Instant};

use common::{Desk, corpus};

const RUN: &str = r#"
[model]
hidden = 32
layers = 2
heads = 2
context = 48
[data]
train = ["text.txt"]
separator = ""
held_out = 0.1
[train]
batch = 4
steps = 40
[optimizer]
lr = 0.01
[validation]
every = 20
[output]
checkpoint_every = 8
"#;

fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("text.txt", corpus(120));
    desk.write("run.toml", RUN);
    desk
}

#[test]
fn a_run_learns_and_leaves_a_model_that_other_commands_open() {
    let desk = desk();
    let report = desk.json(&["train", "run.toml"]);
    assert_eq!((report["ended"].as_str(), report["steps"].as_u64()), (Some("finished"), Some(40)));
    let loss = report["validation"]["loss"].as_f64().expect("a loss");
    // A uniform guess over the 2048 tokens is at 7.6 nats.
    assert!(loss < 4.0, "{loss}");
    let log = std::fs::read_to_string(desk.path("run/log.jsonl")).expect("a log");
    assert!(log.lines().count() >= 42, "{log}");
    let shown = desk.json(&["show", "run/model"]);
    assert!(shown.to_string().contains("llama"), "{shown}");
    desk.ok(&["run", "run/checkpoints/step-40", "the cat", "-n", "4"]);
    let again = desk.run(&["train", "run.toml"]);
    assert!(again.code == 2 && again.stderr.contains("--resume"), "{}", again.stderr);
    // A decay of its own from the end of the stable part.
    let branch = ["train", "run.toml", "--branch", "run/checkpoints/step-36", "--output", "branch"];
    let report = desk.json(&[&branch[..], &["--steps", "44", "--set", "schedule.decay=8"]].concat());
    assert_eq!(report["steps"].as_u64(), Some(44));
}

#[test]
fn weights_in_a_shared_array_are_trained_and_written_whole() {
    let desk = desk();
    let stored = ["train", "run.toml", "--set", "model.stored=9000"];
    let whole = desk.json(&[&stored[..], &["--output", "whole"]].concat());
    let loss = |report: &serde_json::Value| report["validation"]["loss"].as_f64().expect("a loss");
    assert!(loss(&whole) < 6.5, "{whole}");
    let parameters = desk.json(&["show", "whole/model"])["parameters"].as_u64().expect("a number");
    assert!(parameters > 70_000, "{parameters}");
    desk.ok(&["run", "whole/model", "the cat", "-n", "4"]);
    // The array is what a checkpoint keeps.
    let checkpoint = std::fs::metadata(desk.path("whole/checkpoints/step-40/training/weights.safetensors"));
    assert!(checkpoint.expect("weights").len() < 4 * 9000 + 2000);
    let error = desk.fails(&[&stored[..2], &["--set", "model.stored=10", "--output", "few"]].concat());
    assert!(error.contains("store more"), "{error}");
    let error = desk.fails(&[&stored[..], &["--output", "dry", "--dry-run"]].concat());
    assert!(error.contains("model.stored"), "{error}");
}

#[test]
fn a_run_that_is_killed_ends_with_the_bits_of_one_that_is_not() {
    let desk = desk();
    desk.ok(&["train", "run.toml", "--output", "whole"]);
    let mut child = desk.command(&["train", "run.toml", "--output", "killed"]).spawn().expect("started");
    let start = Instant::now();
    while !desk.path("killed/checkpoints/step-8").exists() && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("killed");
    child.wait().expect("gone");
    assert!(!desk.path("killed/model").exists(), "it was killed before its end");
    let report = desk.json(&["train", "run.toml", "--output", "killed", "--resume"]);
    assert_eq!(report["steps"].as_u64(), Some(40));
    let read = |folder: &str| {
        std::fs::read(desk.path(&format!("{folder}/model/model.safetensors"))).expect("weights")
    };
    assert!(read("whole") == read("killed"), "resumed weights differ");
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_checkpoint_that_goes_on() {
    let desk = desk();
    let args = ["train", "run.toml", "--steps", "100000", "--json", "--set", "output.checkpoint_every=0"];
    let mut command = desk.command(&args);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let child = command.spawn().expect("started");
    let start = Instant::now();
    // Steps are being done once there are lines in the log.
    let log = || std::fs::metadata(desk.path("run/log.jsonl")).map_or(0, |it| it.len());
    while log() == 0 && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let signal = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(signal.expect("kill").success());
    let ended = child.wait_with_output().expect("gone");
    assert_eq!(ended.status.code(), Some(130));
    let report: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("a report");
    let steps = report["steps"].as_u64().expect("steps");
    assert!(report["ended"] == "stopped" && steps > 0, "{report}");
    assert!(desk.path(&format!("run/checkpoints/step-{steps}")).exists());
    let more = (steps + 3).to_string();
    let resumed = ["train", "run.toml", "--resume", "--steps", &more, "--set", "schedule.kind=constant"];
    assert_eq!(desk.json(&resumed)["steps"].as_u64(), Some(steps + 3));
}

#[test]
fn forecasts_and_the_file_with_every_key() {
    let desk = desk();
    let forecast = desk.json(&["train", "run.toml", "--dry-run"]);
    assert_eq!((forecast["steps"].as_u64(), forecast["tokens_per_step"].as_u64()), (Some(40), Some(192)));
    assert!(forecast["buffer_bytes"].as_u64() > Some(10_000));
    assert!(!desk.path("run/checkpoints").exists());
    let minutes = ["train", "run.toml", "--dry-run", "--set", "train.steps=0", "--set", "train.minutes=0.5"];
    let forecast = desk.json(&minutes);
    let (steps, seconds) = (forecast["steps"].as_u64(), forecast["seconds"].as_f64());
    assert!(steps > Some(1) && seconds > Some(0.0), "{forecast}");
    let template = desk.ok(&["train", "--init"]);
    desk.write("all.toml", template);
    let ran = desk.run(&["train", "all.toml"]);
    assert!(ran.code == 2 && ran.stderr.contains("data.train names no files"), "{}", ran.stderr);
}

#[test]
fn what_is_wrong_is_said_in_one_sentence() {
    let desk = desk();
    desk.write("empty.txt", "");
    let cases: [(&[&str], &str); 7] = [
        (&["missing.toml"], "can't be read"),
        (&["run.toml", "--set", "train.setps=3"], "did you mean train.steps?"),
        (&["run.toml", "--set", "train.tokens=300"], "give one of train.steps"),
        (&["run.toml", "--set", "data.train=[\"no.txt\"]"], "no.txt"),
        (&["run.toml", "--set", "data.train=[\"empty.txt\"]"], "empty.txt"),
        (&["run.toml", "--set", "model.heads=5"], "heads should split the width"),
        (&["run.toml", "--set", "model.from=builtin", "--set", "data.objective=masked"], "is for encoders"),
    ];
    for (args, expected) in cases {
        let ran = desk.run(&[&["train"], args].concat());
        assert!(ran.code == 2 && ran.stderr.contains(expected), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.trim().lines().count() == 1, "{args:?}: {}", ran.stderr);
    }
}

/// A run that goes on from the built-in model with data of another kind.
fn tuning(data: &str, objective: &str) -> String {
    format!(
        r#"
[model]
from = "builtin"
trains = ["*norm*", "layers.0.*"]
[data]
train = ["{data}"]
objective = "{objective}"
held_out = 0.2
context = 48
[train]
batch = 4
steps = 6
[optimizer]
lr = 0.001
[output]
checkpoint_every = 3
"#
    )
}

#[test]
fn preferences_are_learned_against_a_reference_that_is_asked_once() {
    let desk = Desk::new();
    let pair = |n: usize| {
        let (good, bad) = [("happy", "sad"), ("sad", "happy")][n % 2];
        serde_json::json!({
            "prompt": format!("Once upon a time there was a cat number {n}. The cat was "),
            "chosen": format!("very {good}."),
            "rejected": format!("{bad} all day."),
        })
    };
    desk.write("pairs.jsonl", (0..60).map(|n| format!("{}\n", pair(n))).collect::<String>());
    desk.write("run.toml", tuning("pairs.jsonl", "auto"));
    let report = desk.json(&["train", "run.toml", "--output", "whole"]);
    let preferences = &report["validation"]["preferences"];
    assert!(preferences["pairs"].as_u64() > Some(0) && preferences["accuracy"].is_f64(), "{report}");
    let log = std::fs::read_to_string(desk.path("whole/log.jsonl")).expect("a log");
    let first: serde_json::Value = serde_json::from_str(log.lines().next().expect("a line")).expect("JSON");
    let loss = first["loss"].as_f64().expect("a loss");
    assert!((loss - std::f64::consts::LN_2).abs() < 1e-4, "at first it is its own reference: {first}");
    // A run that stops and goes on asks for the same reference, and ends with the same bits.
    desk.ok(&["train", "run.toml", "--output", "cut", "--steps", "3", "--set", "schedule.kind=constant"]);
    let reference = |folder: &str| std::fs::read(desk.path(&format!("{folder}/tokens.reference.bin")));
    let before = reference("cut").expect("kept");
    desk.ok(&["train", "run.toml", "--output", "cut", "--resume", "--set", "schedule.kind=constant"]);
    assert_eq!(reference("cut").expect("kept"), before);
    assert_eq!(reference("whole").expect("kept"), before);
    for (set, word) in [
        (&["model.from=", "model.trains=[]"][..], "name it in model.from"),
        (&["data.packing=dynamic"], "can't be packed"),
    ] {
        let sets: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
        let more = ["train", "run.toml", "--output", "x", "--set", "data.objective=preferences"];
        let error = desk.fails(&[&more[..], &sets].concat());
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn answers_are_learned_in_rows_and_padding_is_told() {
    let desk = Desk::new();
    let record = |n: usize| {
        let story = "The cat sat. ".repeat(1 + n * n % 7);
        serde_json::json!({"prompt": format!("Story {n}: "), "completion": story})
    };
    desk.write("set.jsonl", (0..80).map(|n| format!("{}\n", record(n))).collect::<String>());
    desk.write("run.toml", tuning("set.jsonl", "answers"));
    let padding = |packing: &str| {
        let set = format!("data.packing={packing}");
        let report = desk.json(&["train", "run.toml", "--output", packing, "--set", &set]);
        assert!(report["useful_tokens_per_second"].as_f64() > Some(0.0), "{report}");
        let log = std::fs::read_to_string(desk.path(&format!("{packing}/log.jsonl"))).expect("a log");
        assert!(log.lines().next().expect("a line").contains("\"padding\":"), "{log}");
        report["padding"].as_f64().expect("a share")
    };
    let [none, dynamic, padded, fixed] = ["none", "dynamic", "padded", "fixed"].map(padding);
    assert!(none == 0.0 && dynamic > 0.0 && dynamic < padded && padded < fixed, "{dynamic} {padded} {fixed}");
    desk.write("text.txt", corpus(120));
    let text = ["train", "run.toml", "--output", "x", "--set", "data.train=[\"text.txt\"]"];
    let more =
        ["--set", "data.packing=fixed", "--set", "data.objective=language", "--set", "data.separator="];
    let error = desk.fails(&[&text[..], &more].concat());
    assert!(error.contains("data.packing"), "{error}");
    desk.write("bad.toml", "[data]\npacking = \"tight\"\n");
    assert!(desk.fails(&["train", "bad.toml"]).contains("first-fit"));
}

#[test]
fn a_loss_that_is_no_number_names_step_and_batch_and_keeps_the_last_checkpoint() {
    let desk = desk();
    let constant = ["--set", "schedule.kind=constant"];
    desk.ok(&[&["train", "run.toml", "--steps", "16"], &constant[..]].concat());
    let before = std::fs::read(desk.path("run/checkpoints/step-16/model.safetensors")).expect("weights");
    // The rate takes all weights beyond f32 in one step.
    let wild = [&constant[..], &["--set", "optimizer.lr=1e30"]].concat();
    let ran = desk.run(&[&["train", "run.toml", "--resume", "--steps", "40"], &wild[..]].concat());
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    for part in ["step 18", "batch", "checkpoint of step 16"] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    let after = std::fs::read(desk.path("run/checkpoints/step-16/model.safetensors")).expect("weights");
    assert!(before == after && !desk.path("run/checkpoints/step-24").exists());
}

/// The limit on a file's size stands for a disk that is full.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_older_checkpoint_and_the_run_goes_on_later() {
    let desk = desk();
    desk.ok(&["train", "run.toml", "--steps", "16", "--output", "whole"]);
    desk.ok(&["train", "run.toml", "--steps", "8", "--set", "schedule.kind=constant"]);
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ounce")]);
    limited.args(["train", "run.toml", "--steps", "16", "--resume", "--set", "schedule.kind=constant"]);
    let ran = limited.current_dir(desk.path(".")).output().expect("started");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.code() == Some(2) && said.contains("step-16"), "{said}");
    let names = std::fs::read_dir(desk.path("run/checkpoints")).expect("checkpoints").flatten();
    let names = names.map(|it| it.file_name().to_string_lossy().into_owned());
    assert_eq!(names.filter(|name| name != ".lock").collect::<Vec<_>>(), ["step-8"]);
    let report =
        desk.json(&["train", "run.toml", "--steps", "16", "--resume", "--set", "schedule.kind=constant"]);
    assert_eq!(report["steps"].as_u64(), Some(16));
}

#[test]
fn a_tokenizer_with_ids_that_the_model_does_not_know_is_refused() {
    let desk = desk();
    let run = ["train", "run.toml", "--steps", "5", "--set", "data.held_out=0"];
    desk.ok(&["tokenizer", "train", "text.txt", "-o", "small", "--vocab", "300"]);
    desk.ok(&[&run[..], &["--output", "narrow", "--set", "tokenizer.from=small"]].concat());
    desk.ok(&["convert", "builtin", "large"]);
    let wide = ["--set", "model.from=narrow/model", "--set", "tokenizer.from=large", "--output", "wide"];
    let ran = desk.run(&[&run[..], &wide].concat());
    assert!(ran.code == 2 && ran.stderr.contains("outside the model's vocabulary"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("panicked") && ran.stderr.trim().lines().count() == 1, "{}", ran.stderr);
}

#[test]
fn an_encoder_learns_hidden_words_and_its_folder_names_all_special_tokens() {
    let desk = desk();
    let special = "[PAD],[UNK],[CLS],[SEP],[MASK]";
    desk.ok(&["tokenizer", "train", "text.txt", "-o", "pieces", "--vocab", "300", "--special", special]);
    let set =
        ["--set", "model.preset=bert", "--set", "tokenizer.from=pieces", "--set", "data.objective=masked"];
    let report = desk.json(&[&["train", "run.toml", "--steps", "300"], &set[..]].concat());
    let loss = report["validation"]["loss"].as_f64().expect("a loss");
    // A uniform guess is at 5.7 nats.
    assert!(loss < 3.5, "{loss}");
    let read = |name: &str| std::fs::read(desk.path(&format!("run/model/{name}"))).expect(name);
    let config: serde_json::Value = serde_json::from_slice(&read("tokenizer_config.json")).expect("JSON");
    let named = ["pad", "unk", "cls", "sep", "mask"].map(|name| config[format!("{name}_token")].as_str());
    assert_eq!(named.map(|name| name.expect("named")).join(","), special);
    desk.ok(&["logits", "run/model", "the cat"]);
}
