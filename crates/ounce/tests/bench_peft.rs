//! `ounce bench peft` and the registry of methods as a user runs them.

mod common;

use common::{Desk, corpus};
use serde_json::Value;

const GRID: [&str; 15] = [
    "bench",
    "peft",
    "--models",
    "builtin-tiny",
    "--data",
    "text.txt",
    "--context",
    "32",
    "--steps",
    "4",
    "--seeds",
    "2",
    "--rates",
    "1,3",
    "--methods",
];

#[test]
fn a_grid_is_measured_drawn_and_gone_on_with() {
    let desk = Desk::new();
    desk.write("text.txt", corpus(120));
    let report =
        desk.json(&[&GRID[..], &["none,full,lora", "--budget", "1%,5%", "--plot", "a.svg"]].concat());
    let rows = report["rows"].as_array().expect("rows");
    let ways: Vec<&str> = rows.iter().filter_map(|row| row["way"].as_str()).collect();
    assert_eq!(ways, ["none", "full", "lora", "lora"]);
    let number = |row: usize, key: &str| rows[row].pointer(key).and_then(Value::as_f64).expect("a number");
    // Learned from the text, and LoRA keeps its budget to the number that its formula says.
    assert!(number(1, "/quality/0/mean") < number(0, "/quality/0/mean"), "{report}");
    for (row, share) in [(2, 0.01), (3, 0.05)] {
        assert!(number(row, "/share") <= share && number(row, "/share") > share / 3.0);
        assert_eq!(number(row, "/trained"), number(row, "/formula"));
        assert!(number(row, "/measured_bytes") > 0.0);
        assert_eq!(rows[row]["losses_by_rate"].as_array().map(Vec::len), Some(2));
        assert!(number(row, "/merged_error") < 1e-5);
    }
    assert!(std::fs::read_to_string(desk.path("a.svg")).expect("a chart").contains("lora"));
    // What was done is not done again, and a torn last line is.
    let file = desk.path("peft-study/results.jsonl");
    let lines = |text: &str| text.lines().count();
    let before = std::fs::read_to_string(&file).expect("results");
    assert_eq!(lines(&before), 2 + 4 + 4 + 4);
    std::fs::write(&file, &before[..before.len() - 20]).expect("torn");
    let again = desk.json(&[&GRID[..], &["none,full,lora,ia3", "--budget", "1%,5%"]].concat());
    let after = std::fs::read_to_string(&file).expect("results");
    // One run again, and those of (IA)³, whose two budgets are one size.
    assert!(lines(&after) > lines(&before), "{after}");
    let known: Vec<&str> = before.lines().take(13).collect();
    assert!(after.lines().zip(known).all(|(a, b)| a == b));
    assert_eq!(again["rows"][1]["quality"], report["rows"][1]["quality"]);
    let shown = desk.ok(&[&GRID[..], &["none,full,lora", "--budget", "1%,5%"]].concat());
    assert!(shown.contains("files on builtin-tiny") && shown.contains("learning rate"), "{shown}");
}

#[test]
fn what_can_not_be_compared_is_told() {
    let desk = Desk::new();
    for (args, told) in [
        (&["--methods", "loro"][..], "no method \"loro\""),
        (&["--tasks", "chess"], "no built-in task"),
        (&["--budget", "7"], "no part of a model's numbers"),
        (&["--tasks", "retell", "--models", "builtin-encoder"], "language model"),
    ] {
        let error = desk.fails(&[&["bench", "peft"][..], args].concat());
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn the_registry_tells_what_methods_cost_and_what_surveys_have() {
    let desk = Desk::new();
    let registry = desk.json(&["adapters", "methods"]);
    let methods = registry["methods"].as_array().expect("methods");
    let of = |name: &str| methods.iter().find(|it| it["name"] == name).expect("a method");
    assert_eq!(of("lora")["class"], "reparameterised");
    assert_eq!((&of("lora")["merges"], &of("lora")["delays"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(
        (&of("prefix")["grows_texts"], &of("prefix")["merges"]),
        (&Value::Bool(true), &Value::Bool(false))
    );
    assert_eq!(of("sherl")["backward"], "upper");
    assert!(methods.iter().all(|it| it["formula"].as_str().is_some_and(|it| !it.is_empty())));
    let taxonomy = registry["taxonomy"].as_array().expect("members");
    let member = |name: &str| taxonomy.iter().find(|it| it["name"] == name).expect("a member");
    assert_eq!(
        (&member("DyLoRA")["covered"], &member("MeZO")["covered"]),
        (&Value::Bool(true), &Value::Bool(false))
    );
}
