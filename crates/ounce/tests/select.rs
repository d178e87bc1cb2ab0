//! `ounce select` as a user runs it.

mod common;

use common::{Desk, golden};
use serde_json::{Value, json};

/// Records about animals and about numbers; every fifth has the answer of another.
fn records() -> Vec<Value> {
    let animals = ["cat", "dog", "bird", "fox", "hen", "cow"];
    (0..60)
        .map(|n| {
            let animal = animals[n % 6];
            let (instruction, output) = match n % 2 {
                0 => (format!("Tell a story about a {animal}."), format!("Once upon a time there was a {animal}. The {animal} was happy and it ran to the park.")),
                _ => (format!("Who likes the {animal}?"), format!("Tom likes the {animal}. They play all day and then they go home.")),
            };
            json!({"id": n, "instruction": instruction, "input": "", "output": output})
        })
        .collect()
}

fn lines(records: &[Value]) -> String {
    records.iter().map(|record| format!("{record}\n")).collect()
}

fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("set.jsonl", lines(&records()));
    desk
}

fn read(desk: &Desk, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(desk.path(name)).expect("written");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn kept_records_are_the_hardest_of_their_groups_and_stay_as_they_were() {
    let desk = desk();
    let args = ["select", "builtin", "set.jsonl", "-o", "kept.jsonl", "--clusters", "3", "--ratio", "0.5"];
    let report = desk.json(&[&args[..], &["--scores", "scores.jsonl"]].concat());
    let (kept, scores) = (read(&desk, "kept.jsonl"), read(&desk, "scores.jsonl"));
    assert_eq!((report["records"].as_u64(), scores.len()), (Some(60), 60));
    assert_eq!(report["kept"].as_u64(), Some(kept.len() as u64));
    let all = records();
    for record in &kept {
        let number = record["id"].as_u64().expect("a number") as usize;
        assert_eq!(*record, all[number]);
        assert_eq!(scores[number]["kept"], true);
    }
    let number = |score: &Value, key: &str| score[key].as_f64().expect("a number");
    for cluster in 0..3 {
        let own: Vec<&Value> = scores.iter().filter(|it| it["cluster"] == cluster).collect();
        let told = &report["clusters"][cluster as usize];
        assert_eq!(told["records"].as_u64(), Some(own.len() as u64));
        let usable: Vec<&&Value> = own.iter().filter(|it| number(it, "ifd") < 1.0).collect();
        let kept: Vec<f64> =
            usable.iter().filter(|it| it["kept"] == true).map(|it| number(it, "ifd")).collect();
        assert_eq!(kept.len(), usable.len() / 2, "{told}");
        let dropped = usable.iter().filter(|it| it["kept"] == false).map(|it| number(it, "ifd"));
        let least = kept.iter().copied().fold(f64::INFINITY, f64::min);
        assert!(dropped.fold(0.0, f64::max) <= least);
    }
    let ratio = (number(&scores[0], "loss") - number(&scores[0], "loss_alone")).exp();
    assert!((ratio - number(&scores[0], "ifd")).abs() < 1e-9);
    // The same again, in batches of another size.
    let again = ["select", "builtin", "set.jsonl", "-o", "again.jsonl", "--clusters", "3", "--ratio", "0.5"];
    desk.ok(&[&again[..], &["--batch", "70"]].concat());
    assert_eq!(read(&desk, "again.jsonl"), kept);
}

#[test]
fn other_files_chats_and_an_embedder_do_as_well() {
    let desk = desk();
    let chat = |record: &Value| {
        json!({"messages": [
            {"role": "user", "content": record["instruction"]},
            {"role": "assistant", "content": record["output"]},
        ]})
    };
    let chats: Vec<Value> = records().iter().map(chat).collect();
    desk.write("chats.json", json!(chats).to_string());
    let row = |record: &Value| format!("{},{}\n", record["instruction"], record["output"]);
    let rows: String = records().iter().map(row).collect();
    desk.write("set.csv", format!("instruction,response\n{rows}"));
    for (file, out) in [("chats.json", "a.jsonl"), ("set.csv", "b.jsonl")] {
        let report = desk.json(&["select", "builtin", file, "-o", out, "--clusters", "2"]);
        assert_eq!(report["kept"].as_u64(), Some(read(&desk, out).len() as u64), "{file}");
    }
    assert!(read(&desk, "b.jsonl")[0]["response"].is_string());
    let args = ["select", "builtin", "set.jsonl", "-o", "c.jsonl", "--clusters", "2", "--embedder"];
    let report = desk.json(&[&args[..], &[&golden("bge")]].concat());
    assert!(report["vectors"].as_str().is_some_and(|it| it.contains("bge")), "{report}");
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_left() {
    let desk = desk();
    desk.write("text.txt", "No questions here.");
    desk.write("pairs.jsonl", "{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\"}\n");
    desk.write("broken.jsonl", format!("{}{{\"instruction\": \n", lines(&records()[..3])));
    desk.write("there.jsonl", "");
    let encoder = golden("bge");
    for (args, word) in [
        (&["builtin", "text.txt", "-o", "x.jsonl"][..], "no questions"),
        (&["builtin", "pairs.jsonl", "-o", "x.jsonl"], "choices between answers"),
        (&["builtin", "broken.jsonl", "-o", "x.jsonl"], "broken.jsonl:4"),
        (&["builtin", "missing.jsonl", "-o", "x.jsonl"], "missing.jsonl"),
        (&["builtin", "set.jsonl", "-o", "there.jsonl"], "--force"),
        (&["builtin", "set.jsonl", "-o", "x.jsonl", "--ratio", "2"], "--ratio"),
        (&["builtin", "set.jsonl", "-o", "x.jsonl", "--ratio", "0.001"], "take fewer groups"),
        (&[encoder.as_str(), "set.jsonl", "-o", "x.jsonl"], "writes no answers"),
    ] {
        let error = desk.fails(&[&["select"], args].concat());
        assert!(error.contains(word), "{args:?}: {error}");
    }
    let left = std::fs::read_dir(desk.path("")).expect("lists").count();
    assert_eq!(left, 5, "only what was there before");
}
