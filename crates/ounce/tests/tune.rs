//! `ounce tune`, `merge` and `adapters` as a user runs them.

mod common;

use std::time::{Duration, Instant};

use common::{Desk, corpus, golden};

/// A small model that knows a small grammar, and text with other words.
fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("known.txt", corpus(120));
    desk.write(
        "text.txt",
        corpus(120).replace("cat", "king").replace("bird", "queen").replace("sat", "danced"),
    );
    let run = "[model]\nhidden = 32\nlayers = 2\nheads = 2\ncontext = 48\n[data]\ntrain = [\"known.txt\"]\nseparator = \"\"\n\
               held_out = 0.1\n[train]\nbatch = 4\nsteps = 40\n[optimizer]\nlr = 0.01\n";
    desk.write("run.toml", run);
    desk.ok(&["train", "run.toml"]);
    desk
}

const MODEL: &str = "run/model";

fn tune(more: &[&'static str]) -> Vec<&'static str> {
    let common =
        ["tune", MODEL, "--data", "text.txt", "--context", "48", "--batch", "4", "--held-out", "0.2"];
    [&common[..], more].concat()
}

#[test]
fn an_adapter_learns_is_listed_merged_and_run() {
    let desk = desk();
    let report = desk.json(&tune(&["-o", "a", "--steps", "30", "--lr", "0.02", "--rank", "4"]));
    let loss = |key: &str| report.pointer(key).and_then(serde_json::Value::as_f64).expect("a loss");
    let (before, after) = (loss("/validation_before"), loss("/validation/loss"));
    assert!(after < before - 0.3, "{before} to {after}");
    assert!(report["memory_bytes"].as_u64() > Some(100_000), "{report}");
    let listed = desk.json(&["adapters", "ls", "a"]);
    assert_eq!((listed[0]["method"].as_str(), listed[0]["rank"].as_u64()), (Some("lora"), Some(4)));
    assert_eq!(listed[0]["parameters"], report["trained_parameters"]);
    // Merged at load, and merged for good: the same perplexity, and that of the base is another.
    let perplexity = |args: &[&str]| {
        let report = desk.json(&[&["eval"], args, &["--perplexity", "text.txt", "--context", "48"]].concat());
        report["token_perplexity"]["value"].as_f64().expect("a number")
    };
    let at_load = perplexity(&[MODEL, "--adapter", "a"]);
    let report = desk.json(&["merge", MODEL, "a", "-o", "merged"]);
    assert!(report["matrices"].as_u64() == Some(14) && report["lost"].as_f64() == Some(0.0), "{report}");
    assert!((perplexity(&["merged"]) / at_load - 1.0).abs() < 1e-5);
    assert!(at_load < 0.8 * perplexity(&[MODEL]), "{at_load}");
    desk.ok(&["run", MODEL, "the cat", "--adapter", "a", "-n", "4"]);
    let report = desk.json(&["merge", MODEL, "a", "-o", "small.gguf", "--dtype", "q8_0"]);
    assert!(report["bytes"].as_u64() > Some(0));
    let into = desk.json(&["merge", "small.gguf", "a", "-o", "twice.gguf", "--any-base"]);
    assert!(into["lost"].as_f64() > Some(0.0), "{into}");
    // Cut and exported.
    // Beside the weights it is a name more.
    let served = desk.json(&["serve", MODEL, "--lora", "poet=a", "--check"]);
    let names: Vec<&str> =
        served["models"].as_array().expect("a list").iter().filter_map(|it| it["model"].as_str()).collect();
    assert_eq!(names.len(), 2, "{served}");
    assert_eq!(names[1], "poet");
    desk.ok(&["adapters", "slice", "a", "--rank", "2", "-o", "cut"]);
    assert!(perplexity(&[MODEL, "--adapter", "cut"]) < perplexity(&[MODEL]));
    desk.ok(&["adapters", "export", "a", "--base", MODEL, "--rank", "4", "-o", "again"]);
    assert!((perplexity(&[MODEL, "--adapter", "again"]) / at_load - 1.0).abs() < 1e-4);
}

#[test]
fn a_run_that_is_killed_ends_with_the_numbers_of_one_that_is_not() {
    let desk = desk();
    // Random ranks and dropout go on where they were.
    let args = |folder: &'static str| {
        tune(&[
            "-o",
            folder,
            "--steps",
            "40",
            "--validate-every",
            "8",
            "--method",
            "dylora",
            "--rank",
            "4",
            "--patience",
            "0",
        ])
    };
    desk.ok(&args("whole"));
    let mut child =
        desk.command(&args("killed")).stderr(std::process::Stdio::null()).spawn().expect("started");
    let start = Instant::now();
    while !desk.path("killed/training/checkpoints/step-8").exists()
        && start.elapsed() < Duration::from_secs(60)
    {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("killed");
    child.wait().expect("gone");
    assert!(!desk.path("killed/adapter_config.json").exists(), "it was killed before its end");
    let report = desk.json(&[&args("killed")[..], &["--resume"]].concat());
    assert_eq!(report["steps_done"].as_u64(), Some(40));
    let read = |folder: &str| {
        std::fs::read(desk.path(&format!("{folder}/adapter_model.safetensors"))).expect("weights")
    };
    assert!(read("whole") == read("killed"), "resumed numbers differ");
}

#[test]
fn labels_preferences_and_prompts_are_learned() {
    let desk = desk();
    let texts: String = (0..60)
        .map(|n| {
            let (text, label) =
                if n % 2 == 0 { ("the cat sat here", "cat") } else { ("a dog sang there", "dog") };
            format!("{{\"text\": \"{text} {n}\", \"label\": \"{label}\"}}\n")
        })
        .collect();
    desk.write("labels.jsonl", texts);
    let report = desk.json(&[
        "tune",
        MODEL,
        "--data",
        "labels.jsonl",
        "--objective",
        "classify",
        "-o",
        "labels",
        "--steps",
        "40",
        "--lr",
        "0.02",
    ]);
    assert!(report["validation"]["accuracy"].as_f64() > Some(0.9), "{report}");
    desk.ok(&["merge", MODEL, "labels", "-o", "classifier"]);
    let said = desk.json(&["classify", "classifier", "a dog sang there 7"]);
    assert!(said.to_string().contains("dog"), "{said}");
    let pairs: String = (0..40)
        .map(|n| {
            format!("{{\"prompt\": \"the cat {n}\", \"chosen\": \" sat here.\", \"rejected\": \" sang at home.\"}}\n")
        })
        .collect();
    desk.write("pairs.jsonl", pairs);
    let report = desk.json(&[
        "tune",
        MODEL,
        "--data",
        "pairs.jsonl",
        "-o",
        "chooses",
        "--steps",
        "20",
        "--lr",
        "0.01",
    ]);
    assert!(report["validation"]["preferences"]["accuracy"].as_f64() > Some(0.9), "{report}");
    let report = desk.json(&tune(&["--method", "prompt", "-o", "prompt", "--steps", "20"]));
    assert!(report["validation"]["loss"].as_f64() < report["validation_before"].as_f64(), "{report}");
    let error = desk.fails(&["merge", MODEL, "prompt", "-o", "no"]);
    assert!(error.contains("can't be merged"), "{error}");
    // What can't be merged runs beside the weights, alone and under a name of its own.
    let judged = |args: &[&str]| {
        let report = desk.json(&[&["eval"], args, &["--perplexity", "text.txt", "--context", "40"]].concat());
        report["token_perplexity"]["value"].as_f64().expect("a number")
    };
    assert!(judged(&[MODEL, "--adapter", "prompt"]) < judged(&[MODEL]));
    desk.ok(&["run", MODEL, "the cat", "--adapter", "prompt", "-n", "4"]);
    let served = desk.json(&["serve", MODEL, "--lora", "guide=prompt", "--check"]);
    assert!(served.to_string().contains("guide"), "{served}");
}

#[test]
fn what_is_wrong_is_said_in_one_sentence() {
    let desk = desk();
    desk.write("empty.txt", "");
    desk.write("labels.jsonl", "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": \"y\"}\n");
    let rank = desk.fails(&tune(&["-o", "a", "--rank", "400"]));
    assert!(rank.contains("400 does not fit"), "{rank}");
    let method = desk.fails(&tune(&["-o", "a", "--method", "lorra"]));
    assert!(method.contains("there is no method"), "{method}");
    let empty = desk.fails(&["tune", MODEL, "--data", "empty.txt", "-o", "a"]);
    assert!(empty.contains("empty"), "{empty}");
    let masked = desk.fails(&tune(&["-o", "a", "--objective", "masked"]));
    assert!(masked.contains("for encoders"), "{masked}");
    let nothing = desk.fails(&tune(&["-o", "a", "--objective", "nothing"]));
    assert!(nothing.contains("no objective"), "{nothing}");
    desk.ok(&tune(&["-o", "a", "--steps", "1"]));
    let again = desk.fails(&tune(&["-o", "a", "--steps", "1"]));
    assert!(again.contains("holds an adapter"), "{again}");
    let other = desk.fails(&["merge", &golden("llama"), "a", "-o", "m"]);
    assert!(other.contains("another"), "{other}");
    let nothing = desk.fails(&["adapters", "ls", "run"]);
    assert!(nothing.contains("is no adapter"), "{nothing}");
    let lora = desk.fails(&["serve", "builtin", "--lora", "poet=a", "--check"]);
    assert!(lora.contains("another base"), "{lora}");
    let unnamed = desk.fails(&["serve", MODEL, "--lora", "a", "--check"]);
    assert!(unnamed.contains("NAME=FOLDER"), "{unnamed}");
    let slice = desk.fails(&["adapters", "slice", "a", "--rank", "9", "-o", "b"]);
    assert!(slice.contains("1 to 8"), "{slice}");
}

/// Texts about what people are like, which the built-in encoder knows by what they do.
fn moods(each: usize) -> String {
    let (lively, quiet) = (
        ["sang a song every morning", "was never still for a minute", "turned every job into a game"],
        ["liked to sleep until noon", "often hid when strangers came", "dropped things almost every day"],
    );
    let homes = [
        "an old mill on a hill",
        "a tall house in the city",
        "a blue house by the sea",
        "a cabin at the edge of a lake",
    ];
    (0..2 * each)
        .map(|at| {
            let (label, what) =
                if at % 2 == 0 { ("lively", lively[at / 2 % 3]) } else { ("quiet", quiet[at / 2 % 3]) };
            let (who, he) =
                [("Tom", "he"), ("Anna", "she"), ("Ben", "he"), ("Lily", "she"), ("Max", "he")][at / 2 % 5];
            let home = homes[at / 10 % 4];
            format!("{{\"text\": \"{who} lived in {home}, and {he} {what}.\", \"label\": \"{label}\"}}\n")
        })
        .collect()
}

/// Two texts in other words than those that were learned, and labels that fit them.
const ASKED: [&str; 2] = ["Rosa sang a song every morning.", "Hugo often hid when strangers came."];

/// The first text is lively and the second quiet; probabilities add up to one.
fn labelled(said: &serde_json::Value) {
    let label = |at: usize| said[at]["labels"][0]["label"].as_str().expect("a label").to_owned();
    assert_eq!((label(0), label(1)), ("lively".to_owned(), "quiet".to_owned()), "{said}");
    for text in said.as_array().into_iter().flatten() {
        let found = text["labels"].as_array().expect("labels");
        let shares: Vec<f64> = found.iter().filter_map(|it| it["probability"].as_f64()).collect();
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-5 && shares.len() == 2, "{said}");
    }
}

#[test]
fn labels_are_words_that_fill_a_gap() {
    let desk = Desk::new();
    desk.write("few.jsonl", moods(12));
    desk.write("words.txt", "lively = cheerful, busy, playful\nquiet = lazy, shy, clumsy\n");
    let base = [
        "tune",
        "builtin-encoder",
        "--data",
        "few.jsonl",
        "--template",
        "{It was} [MASK] {, because} <text>",
        "--held-out",
        "0.3",
    ];
    let more =
        ["--verbalizer", "words.txt", "--soft-verbalizer", "--steps", "20", "--context", "32", "-o", "gap"];
    let report = desk.json(&[&base[..], &more].concat());
    assert!(report["validation"]["accuracy"].as_f64() >= Some(0.9), "{report}");
    assert!(report["trained_parameters"].as_u64() < Some(1_000), "{report}");
    let said = desk.json(&["classify", "builtin-encoder", "--adapter", "gap", ASKED[0], ASKED[1]]);
    labelled(&said);
    // Under a template another method may lie.
    let lora = [
        "--verbalizer",
        "lively=cheerful;quiet=shy",
        "--method",
        "lora",
        "--steps",
        "2",
        "--context",
        "32",
        "-o",
        "lora",
    ];
    desk.ok(&[&base[..], &lora].concat());
    desk.ok(&["classify", "builtin-encoder", "--adapter", "lora", "Anna laughed."]);
    let outside = desk.fails(
        &[&base[..], &["--verbalizer", "lively=cheerful;angry=angry", "--soft-verbalizer", "-o", "no"]]
            .concat(),
    );
    assert!(outside.contains("the label \"quiet\", for which the verbalizer has no words"), "{outside}");
    let none = desk.fails(&[&base[..], &["-o", "no"]].concat());
    assert!(none.contains("needs --verbalizer"), "{none}");
    let decoder = desk.fails(&[
        "tune",
        "builtin-tiny",
        "--data",
        "few.jsonl",
        "--template",
        "<text> [MASK]",
        "--verbalizer",
        "lively=cheerful;quiet=shy",
        "-o",
        "no",
    ]);
    assert!(decoder.contains("masked language model"), "{decoder}");
}

#[test]
fn labels_are_known_by_descriptions() {
    let desk = Desk::new();
    desk.write("few.jsonl", moods(16));
    desk.write("labels.txt", "lively = Somebody is cheerful and busy.\nquiet = Somebody is lazy and shy.\n");
    let base = ["tune", "builtin-encoder", "--data", "few.jsonl", "--held-out", "0.3"];
    let report = desk.json(&[&base[..], &["--descriptions", "labels.txt", "-o", "head"]].concat());
    let texts =
        report["texts"].as_array().expect("two").iter().filter_map(serde_json::Value::as_u64).sum::<u64>();
    assert_eq!(report["encoder_calls"].as_u64(), Some(texts + 2), "{report}");
    assert!(report["accuracy"].as_f64() >= Some(0.8), "{report}");
    let said = desk.json(&["classify", "builtin-encoder", "--adapter", "head", ASKED[0], ASKED[1]]);
    labelled(&said);
    desk.write("made.jsonl", moods(6));
    let more =
        ["--descriptions", "labels.txt", "--generated", "made.jsonl", "-o", "switched", "--steps", "20"];
    let report = desk.json(&[&base[..], &more].concat());
    assert!(report["generated"]["used"].is_boolean(), "{report}");
    desk.write("one.txt", "lively = Somebody is cheerful.\n");
    let none = desk.fails(&[&base[..], &["--descriptions", "one.txt", "-o", "no"]].concat());
    assert!(none.contains("\"quiet\", which has no description"), "{none}");
    desk.write("bad.txt", "lively\n");
    let bad = desk.fails(&[&base[..], &["--descriptions", "bad.txt", "-o", "no"]].concat());
    assert!(bad.contains("should be a label, = and a sentence"), "{bad}");
}

#[test]
fn queries_learn_to_find_their_passages() {
    let desk = Desk::new();
    let names = ["Tom", "Anna", "Ben", "Lily", "Max", "Sam", "Mia", "Leo"];
    let things = ["a red ball", "a blue hat", "the old dog", "a big cake", "the small boat"];
    let pairs: String = (0..40)
        .map(|at| {
            let (who, what) = (names[at % 8], things[at / 8]);
            format!(
                "{{\"query\": \"Who has {what}, {who}?\", \"passage\": \"{who} went home with {what}.\"}}\n"
            )
        })
        .collect();
    desk.write("pairs.jsonl", pairs);
    let base = [
        "tune",
        "builtin-encoder",
        "--objective",
        "retrieve",
        "--data",
        "pairs.jsonl",
        "--context",
        "32",
        "--held-out",
        "0.3",
    ];
    let report = desk.json(&[&base[..], &["--method", "aside", "--steps", "60", "-o", "finds"]].concat());
    assert!(report["validation"]["loss"].as_f64() < report["validation_before"].as_f64(), "{report}");
    let mrr = |when: &str| report["ranking"][when]["mrr_10"].as_f64().expect("a number");
    assert!(mrr("after") > mrr("before") + 0.2, "{report}");
    let vectors = |more: &[&str]| {
        let report = desk.json(&[&["embed", "builtin-encoder", "Who has a red ball?"], more].concat());
        report["vectors"][0]["values"].as_array().expect("numbers").clone()
    };
    assert_ne!(vectors(&["--adapter", "finds"]), vectors(&[]));
    desk.write("texts.txt", "just text\n");
    let text = desk.fails(&[
        "tune",
        "builtin-encoder",
        "--objective",
        "retrieve",
        "--data",
        "texts.txt",
        "-o",
        "no",
    ]);
    assert!(text.contains("columns query and passage"), "{text}");
    let many = desk.fails(&[&base[..], &["--negatives", "90", "-o", "no"]].concat());
    assert!(many.contains("wrong passages and 90 are asked for"), "{many}");
    let cold = desk.fails(&[&base[..], &["--temperature", "0", "-o", "no"]].concat());
    assert!(cold.contains("above 0"), "{cold}");
}

#[test]
fn patterns_label_what_a_classifier_learns() {
    let desk = Desk::new();
    desk.write("few.jsonl", moods(8));
    desk.write(
        "pool.txt",
        moods(20)
            .lines()
            .filter_map(|line| Some(format!("{}\n", line.split('"').nth(3)?)))
            .collect::<String>(),
    );
    desk.write("patterns.txt", "It was [MASK], because <text>\n<text> So the child was very [MASK].\n");
    let base = [
        "tune",
        "builtin-encoder",
        "--data",
        "few.jsonl",
        "--verbalizer",
        "lively=cheerful;quiet=shy",
        "--held-out",
        "0.3",
        "--context",
        "32",
    ];
    let more = ["--patterns", "patterns.txt", "--unlabelled", "pool.txt", "--steps", "15", "-o", "pet"];
    let report = desk.json(&[&base[..], &more].concat());
    assert_eq!(report["weights"].as_array().map(Vec::len), Some(2), "{report}");
    assert!(report["agreement"].as_f64() > Some(0.3), "{report}");
    let said = desk.json(&["classify", "builtin-encoder", "--adapter", "pet", ASKED[0], ASKED[1]]);
    labelled(&said);
    desk.write("none.txt", "\n");
    let none = desk
        .fails(&[&base[..], &["--patterns", "none.txt", "--unlabelled", "pool.txt", "-o", "no"]].concat());
    assert!(none.contains("has no patterns"), "{none}");
}
