//! `ounce profile`: measures, keeps what it measured, and knows its own machine.

mod common;

use common::Desk;
use serde_json::{Value, json};

/// The least work: what is tested is what becomes of the figures, not the figures.
const QUICK: [&str; 4] = ["profile", "--quick", "--threads", "1"];

const FILE: &str = "data/ounce/machine.json";

/// Changes the kept profile.
fn edit(desk: &Desk, change: impl FnOnce(&mut Value)) {
    let text = std::fs::read_to_string(desk.path(FILE)).expect("a kept profile");
    let mut machine: Value = serde_json::from_str(&text).expect("JSON");
    change(&mut machine);
    desk.write(FILE, machine.to_string());
}

#[test]
fn every_figure_is_a_positive_number() {
    let desk = Desk::new();
    let report = desk.json(&QUICK);
    assert_eq!(report["from_file"], false);
    let machine = &report["machine"];
    let figures = ["memory_reads", "cache_reads"].map(|name| (name, "bytes_per_second"));
    for (name, rate) in figures.into_iter().chain([("peaks", "ops_per_second")]) {
        let rows = machine[name].as_array().expect(name);
        assert!(!rows.is_empty(), "{name}");
        for row in rows {
            assert_eq!(row["threads"], 1);
            let (best, median) = (row[rate]["best"].as_f64(), row[rate]["median"].as_f64());
            let (best, median) = (best.expect("a number"), median.expect("a number"));
            assert!(median > 0.0 && best >= median && best < 1e15, "{name}: {row}");
        }
    }
    for kind in ["f32", "int8"] {
        assert!(machine["peaks"].as_array().expect("peaks").iter().any(|row| row["kind"] == kind), "{kind}");
    }
    assert!(machine["disk"]["bytes_per_second"].as_f64().expect("a disk") > 0.0);
    assert!(machine["measured_at_unix_seconds"].as_u64().expect("a time") > 1_700_000_000);
    assert_eq!(machine["tool_version"], env!("CARGO_PKG_VERSION"));
    let files = std::fs::read_dir(desk.path("data/ounce")).expect("lists").count();
    assert_eq!(files, 1, "the profile and nothing else is left");
}

#[test]
fn a_kept_profile_is_shown_until_it_should_be_new() {
    let desk = Desk::new();
    desk.json(&QUICK);
    edit(&desk, |machine| machine["notes"] = json!(["kept from before"]));
    let shown = desk.json(&QUICK);
    assert_eq!(
        (&shown["from_file"], &shown["machine"]["notes"]),
        (&json!(true), &json!(["kept from before"]))
    );
    edit(&desk, |machine| machine["measured_at_unix_seconds"] = json!(1_700_000_000));
    let text = desk.ok(&QUICK);
    for words in ["kept from before", "days ago", "GB/s", "1 thread", "f32", "int8", "--refresh"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let again = desk.json(&[&QUICK[..], &["--refresh"]].concat());
    assert_eq!(again["from_file"], false);
    assert_ne!(again["machine"]["notes"], json!(["kept from before"]));
    assert_eq!(desk.json(&QUICK)["machine"], again["machine"], "the new one is kept");
}

#[test]
fn a_profile_of_another_machine_or_a_damaged_one_is_measured_again() {
    let desk = Desk::new();
    desk.json(&QUICK);
    let good = std::fs::read_to_string(desk.path(FILE)).expect("a kept profile");
    let foreign = |name: &str, value: Value| {
        let mut machine: Value = serde_json::from_str(&good).expect("JSON");
        machine["cpu"][name] = value;
        machine.to_string()
    };
    for (content, word) in [
        (foreign("model", json!("Another 9000")), "another processor (Another 9000"),
        (foreign("cores", json!(4096)), "4096 cores"),
        (good[..good.len() / 2].to_string(), "no profile"),
        (good.replacen("\"format\": 1", "\"format\": 99", 1), "format 99"),
    ] {
        desk.write(FILE, content);
        let ran = desk.run(&[&QUICK[..], &["--json"]].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(
            ran.stderr.contains(word) && ran.stderr.contains("measuring again"),
            "{word}: {}",
            ran.stderr
        );
        let report: Value = serde_json::from_str(&ran.stdout).expect("only JSON on stdout");
        assert_eq!(report["from_file"], false);
        assert_eq!(desk.json(&QUICK)["from_file"], true, "the new one took its place");
    }
}

#[test]
fn what_cant_be_measured_is_refused_in_one_sentence() {
    let desk = Desk::new();
    desk.write("small", "little");
    let cores = std::thread::available_parallelism().expect("known").get();
    let too_many = (cores + 1).to_string();
    for (args, words) in [
        (&["profile", "--threads", &too_many][..], "ask for fewer"),
        (&["profile", "--quick", "--disk", "small"], "too few"),
        (&["profile", "--quick", "--disk", "."], "regular file"),
        (&["profile", "--quick", "--disk", "nowhere"], "nowhere"),
    ] {
        let error = desk.fails(args);
        assert!(error.contains(words), "{args:?} should say {words:?}: {error}");
    }
    assert!(!desk.path(FILE).exists(), "nothing is kept of it");
}

#[test]
fn a_named_file_is_read_for_the_disk() {
    let desk = Desk::new();
    desk.write("weights", vec![7u8; 2 << 20]);
    let report = desk.json(&[&QUICK[..], &["--disk", "weights"]].concat());
    let disk = &report["machine"]["disk"];
    assert_eq!(
        (&disk["path"], &disk["temporary"], &disk["bytes"]),
        (&json!("weights"), &json!(false), &json!(2 << 20))
    );
}

#[test]
fn where_nothing_can_be_kept_the_figures_are_printed_all_the_same() {
    let desk = Desk::new();
    desk.write("data", "a file where the folder should be");
    let ran = desk.run(&QUICK);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("GB/s") && ran.stderr.contains("not kept"), "{}", ran.stderr);
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_no_profile() {
    let desk = Desk::new();
    let mut command = desk.command(&["profile", "--threads", "1"]);
    let child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn();
    let child = child.expect("the binary starts");
    // Its folder is made when measuring begins, under a watch for Ctrl-C.
    while !desk.path("data/ounce").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.expect("kill runs").success(), "it ended before it could be stopped");
    let output = child.wait_with_output().expect("the binary ends");
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_dir(desk.path("data/ounce")).expect("lists").count(), 0);
}
