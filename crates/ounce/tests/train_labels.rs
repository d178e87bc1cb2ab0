//! `ounce train` on data with labels, from new weights and from an encoder, and `ounce classify` on what comes out.

mod common;

use common::{Desk, golden};

/// A run of a minute encoder with shared layers.
fn run(data: &str) -> String {
    format!(
        "[model]\npreset = \"albert\"\nhidden = 32\nlayers = 2\nheads = 2\nembedding = 16\ncontext = 48\n\
         [tokenizer]\nfrom = {tokenizer:?}\n[data]\n{data}\n[train]\nbatch = 8\nsteps = 150\n\
         [optimizer]\nlr = 0.004\n[schedule]\nkind = \"linear\"\nwarmup = 15\n[validation]\nevery = 75\n",
        tokenizer = golden("minilm")
    )
}

fn number(report: &serde_json::Value, key: &str) -> f64 {
    report["validation"][key].as_f64().unwrap_or_else(|| panic!("no {key} in {report}"))
}

#[test]
fn texts_are_labelled_with_weights_shared_and_stored_once() {
    let desk = Desk::new();
    let line = |n: usize| {
        let (text, label) = if n.is_multiple_of(2) { ("good and new", "yes") } else { ("bad and old", "no") };
        format!("{text} {},{label}\n", n % 7)
    };
    desk.write("texts.csv", format!("text,label\n{}", (0..40).map(line).collect::<String>()));
    desk.write("run.toml", run("train = [\"texts.csv\"]\nobjective = \"classify\"\nheld_out = 0.3"));
    let report = desk.json(&["train", "run.toml", "--steps", "60"]);
    assert!(number(&report, "accuracy") > 0.9 && number(&report, "f1") > 0.9, "{report}");
    let said = desk.json(&["classify", "run/model", "good and new 3", "bad and old 4"]);
    assert_eq!(
        (&said[0]["labels"][0]["label"], &said[1]["labels"][0]["label"]),
        (&"yes".into(), &"no".into())
    );
    let shown = desk.ok(&["show", "run/model"]);
    assert!(shown.contains("1 of 2 layers have no weights of their own"), "{shown}");
    // Trained further, it keeps its labels and refuses others.
    let more = ["train", "run.toml", "--set", "model.from=run/model", "--set", "data.objective=auto"];
    let report =
        desk.json(&[&more[..], &["--steps", "2", "--set", "schedule.warmup=0", "--output", "more"]].concat());
    assert!(number(&report, "accuracy") > 0.9, "{report}");
    desk.write("other.csv", "text,label\na,perhaps\nb,no\n");
    let other = [
        "--steps",
        "2",
        "--set",
        "schedule.warmup=0",
        "--output",
        "other",
        "--set",
        "data.train=[\"other.csv\"]",
    ];
    let ran = desk.run(&[&more[..], &other].concat());
    assert!(ran.code == 2 && ran.stderr.contains("has the label \"perhaps\""), "{}", ran.stderr);
    // A folder is written, a GGUF is not.
    let ran = desk.run(&["convert", "run/model", "model.gguf"]);
    assert!(ran.code == 2 && ran.stderr.contains("GGUF has no"), "{}", ran.stderr);
}

#[test]
fn answers_are_found_by_an_encoder_that_was_trained_on_text() {
    let desk = Desk::new();
    let (names, things) = (["ann", "bob", "eve", "tom"], ["red", "blue", "gold", "pink"]);
    let mut lines = String::new();
    let mut text = String::new();
    for n in 0..12 {
        let (a, b) = (n % 4, (n + 1 + n / 4) % 4);
        let context = format!("{} has {} . {} has {} .", names[a], things[b], names[b], things[a]);
        let (name, thing) = if n % 2 == 0 { (names[a], things[b]) } else { (names[b], things[a]) };
        lines +=
            &serde_json::json!({"question": format!("{name} has"), "context": context, "answers": [thing]})
                .to_string();
        lines.push('\n');
        text += &format!("{context}\n\n");
    }
    desk.write("questions.jsonl", lines);
    desk.write("text.txt", text);
    desk.write("run.toml", run("train = [\"text.txt\"]\nseparator = \"\"\nheld_out = 0.3"));
    desk.json(&["train", "run.toml", "--steps", "20", "--output", "encoder"]);
    desk.write(
        "spans.toml",
        run("train = [\"questions.jsonl\"]\nvalidation = [\"questions.jsonl\"]\nobjective = \"spans\""),
    );
    let report = desk.json(&["train", "spans.toml", "--set", "model.from=encoder/model"]);
    assert!(number(&report, "exact_match") > 0.8 && number(&report, "f1") > 0.8, "{report}");
    let context = "ann has blue . bob has red .";
    let said = desk.json(&["classify", "run/model", context, "--question", "ann has"]);
    let answer = said[0]["answer"]["answer"].as_str().expect("an answer");
    assert!(!answer.is_empty() && context.contains(answer), "{answer}");
    // A text that is longer than the model is searched whole.
    let long = format!("{}{context}", "tom has gold . ".repeat(12));
    let said = desk.json(&["classify", "run/model", &long, "--question", "ann has"]);
    assert_eq!(said[0]["truncated"], false);
    assert!(long.contains(said[0]["answer"]["answer"].as_str().expect("an answer")));
}

#[test]
fn words_get_tags_from_conll_files() {
    let desk = Desk::new();
    let sentences = (0..20).map(|n| format!("the D\n{} N\nruns V\n\n", ["cat", "dog", "bird"][n % 3]));
    desk.write("tags.conll", sentences.collect::<String>());
    desk.write(
        "run.toml",
        run("train = [\"tags.conll\"]\nvalidation = [\"tags.conll\"]\nobjective = \"tag\"")
            .replace("albert", "bert"),
    );
    let report = desk.json(&["train", "run.toml", "--steps", "60"]);
    assert!(number(&report, "accuracy") > 0.95, "{report}");
    let said = desk.json(&["classify", "run/model", "the dog runs"]);
    assert_eq!(said[0]["tokens"][0]["label"], "D");
}

#[test]
fn what_labels_lack_is_said_in_one_sentence() {
    let desk = Desk::new();
    desk.write("one.csv", "text,label\na,x\nb,x\n");
    desk.write("none.csv", "text,kind\na,x\n");
    desk.write("q.jsonl", "{\"question\": \"q\", \"context\": \"a b\", \"answer\": \"z\"}\n");
    desk.write("plain.txt", "a b c\n");
    let cases = [
        ("classify", "one.csv", "has 1 different labels"),
        ("classify", "none.csv", "has no label"),
        ("classify", "plain.txt", "is plain text, which has no labels"),
        ("spans", "q.jsonl", "does not stand in its context"),
        ("spans", "one.csv", "has no text in a column context"),
        ("tag", "one.csv", "has no list of texts or numbers in a column tokens"),
    ];
    for (objective, file, expected) in cases {
        desk.write(
            "run.toml",
            run(&format!("train = [{file:?}]\nobjective = {objective:?}\nheld_out = 0.0")),
        );
        let ran = desk.run(&["train", "run.toml"]);
        assert!(ran.code == 2 && ran.stderr.contains(expected), "{objective} {file}: {}", ran.stderr);
        assert!(ran.stderr.trim().lines().count() == 1, "{objective} {file}: {}", ran.stderr);
    }
}
