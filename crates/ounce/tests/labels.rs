//! `ounce labels` as a user runs it.

mod common;

use common::Desk;
use serde_json::{Value, json};

/// Twelve texts of six events; the second repeats the first.
fn desk() -> Desk {
    let desk = Desk::new();
    let things =
        ["water", "tents", "blankets", "boats", "a doctor", "bread", "sandbags", "diapers", "fuel", "soap"];
    let mut texts = vec![
        json!({"id": "a", "text": "@you We need WATER at the school https://t.co/1", "event": "e0"}),
        json!({"id": "b", "text": "we need water at the school", "event": "e1"}),
    ];
    let more = things.iter().enumerate();
    texts.extend(more.map(
        |(n, it)| json!({"id": n, "text": format!("{it} {n}{n} {it}"), "event": format!("e{}", n % 6)}),
    ));
    let vote = |text: &Value, label: &str| json!({"id": text["id"], "label": label, "confidence": 0.9});
    let label = |n: usize| if n.is_multiple_of(2) { "request" } else { "offer" };
    let all = |labels: &dyn Fn(usize) -> &'static str| -> String {
        texts.iter().enumerate().map(|(n, text)| format!("{}\n", vote(text, labels(n)))).collect()
    };
    desk.write("posts.jsonl", texts.iter().map(|text| format!("{text}\n")).collect::<String>());
    desk.write("one.jsonl", all(&label));
    desk.write("two.jsonl", all(&|n| if n == 5 { "neither" } else { label(n) }));
    // The third says nothing of the last text.
    let third = all(&|n| if n == 4 || n == 5 { "neither" } else { label(n) });
    desk.write("three.jsonl", third.lines().take(11).map(|line| format!("{line}\n")).collect::<String>());
    desk
}

const RUN: [&str; 10] = [
    "labels",
    "posts.jsonl",
    "--votes",
    "one.jsonl",
    "--votes",
    "two.jsonl",
    "--votes",
    "three.jsonl",
    "-o",
    "out",
];

fn read(desk: &Desk, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(desk.path(name)).expect("written");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn what_all_agree_on_is_kept_and_the_rest_is_left_to_a_person() {
    let desk = desk();
    let report = desk.json(&[&RUN[..], &["--group", "event", "--held-out", "0.4"]].concat());
    assert_eq!(
        (&report["texts"], &report["repeated"], &report["adjudicate"]),
        (&json!(12), &json!(1), &json!(2))
    );
    assert_eq!(
        (&report["agreed"], &report["incomplete"]),
        (&json!({"neither": 0, "offer": 4, "request": 5}), &json!(1))
    );
    let (agreed, open) = (read(&desk, "out/agreed.jsonl"), read(&desk, "out/adjudicate.jsonl"));
    assert_eq!((agreed.len(), open.len()), (9, 2));
    assert_eq!(open[1]["leading"], "neither");
    assert_eq!(open[1]["votes"], json!({"one": "offer", "two": "neither", "three": "neither"}));
    let posts = read(&desk, "posts.jsonl");
    let event = |row: &Value| {
        let same =
            |post: &&Value| post["id"].to_string().trim_matches('"') == row["id"].as_str().expect("text");
        posts.iter().find(same).expect("a text")["event"].to_string()
    };
    for a in &agreed {
        assert!(agreed.iter().all(|b| event(a) != event(b) || a["split"] == b["split"]));
    }
    assert!(
        agreed.iter().any(|row| row["split"] == "test") && agreed.iter().any(|row| row["split"] == "train")
    );
    assert!(desk.fails(&RUN).contains("--force"));
}

#[test]
fn a_majority_is_enough_if_asked_for() {
    let desk = desk();
    let report =
        desk.json(&[&RUN[..], &["--share", "0.667", "--confidence", "0.8", "--held-out", "0"]].concat());
    assert_eq!(report["adjudicate"], 0);
    assert!(report["fleiss_kappa"].as_f64().expect("a number") > 0.6);
    let report = desk.json(
        &[&RUN[..], &["--share", "0.667", "--confidence", "0.95", "--held-out", "0", "--force"]].concat(),
    );
    assert_eq!(report["adjudicate"], 2);
}

#[test]
fn an_audit_gives_the_precision_of_labels() {
    let desk = desk();
    desk.ok(&[&RUN[..], &["--audit", "4", "--held-out", "0"]].concat());
    let mut rows = read(&desk, "out/audit.jsonl");
    assert_eq!(rows.len(), 8);
    assert!(desk.fails(&["labels", "--audited", "out/audit.jsonl"]).contains("nowhere"));
    for (n, row) in rows.iter_mut().enumerate() {
        row["human"] = if n == 0 { json!("neither") } else { row["label"].clone() };
    }
    let wrong = rows[0]["label"].clone();
    desk.write("done.jsonl", rows.iter().map(|row| format!("{row}\n")).collect::<String>());
    let report = desk.json(&["labels", "--audited", "done.jsonl"]);
    for of in report.as_array().expect("labels") {
        assert_eq!(
            (&of["audited"], &of["right"]),
            (&json!(4), &json!(if of["label"] == wrong { 3 } else { 4 }))
        );
        assert!(of["interval"][0].as_f64() < of["precision"].as_f64());
    }
}

#[test]
fn what_does_not_fit_is_said_in_one_sentence() {
    let desk = desk();
    assert!(
        desk.fails(&["labels", "posts.jsonl", "--votes", "one.jsonl", "-o", "out"]).contains("two labellers")
    );
    desk.write("other.jsonl", "{\"id\": \"z\", \"label\": \"offer\"}\n");
    let other = ["labels", "posts.jsonl", "--votes", "one.jsonl", "--votes", "other.jsonl", "-o", "out"];
    assert!(desk.fails(&other).contains("other.jsonl:1: there is no text with the id z"));
    assert!(desk.fails(&[&RUN[..], &["--share", "0.5"]].concat()).contains("above 0.5"));
    assert!(desk.fails(&[&RUN[..], &["--group", "flood"]].concat()).contains("column flood"));
    assert!(!desk.path("out").exists());
}
