//! `ounce eval --tasks`.

mod common;

use common::Desk;
use serde_json::Value;

/// Which word goes on; the tiny model knows its tales.
const WORDS: &str = r#"
task: words
dataset_path: json
dataset_kwargs:
  data_files: {train: train.jsonl, test: words.jsonl}
output_type: multiple_choice
training_split: train
test_split: test
doc_to_text: "{{begin}}"
doc_to_target: label
doc_to_choice: choices
metadata: {version: 2.0}
"#;

const WORDS_DATA: &str = r#"{"begin": "Once upon a", "choices": ["zebra", "time"], "label": 1}
{"begin": "Once upon a time, there", "choices": ["was", "zzq"], "label": 0}
{"begin": "Once upon a", "choices": ["zebra", "time"], "label": 0}
"#;

fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("words.yaml", WORDS);
    desk.write("words.jsonl", WORDS_DATA);
    desk
}

fn lines(desk: &Desk, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(desk.path(name)).expect("samples");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn questions_with_choices_are_scored_and_every_one_is_told() {
    let desk = desk();
    let command = ["eval", "builtin-tiny", "--tasks", "words.yaml", "--log-samples", "samples.jsonl"];
    let report = desk.json(&command);
    let results = &report["results"]["words"];
    let near = |key: &str, expected: f64| {
        let found = results[key].as_f64().unwrap_or_else(|| panic!("{key}: {report}"));
        assert!((found - expected).abs() < 1e-9, "{key}: {found}");
    };
    near("acc,none", 2.0 / 3.0);
    near("acc_norm,none", 2.0 / 3.0);
    // Of 1, 1 and 0: the deviation 0.57735 by the root of 3.
    near("acc_stderr,none", 1.0 / 3.0);
    assert_eq!(report["versions"]["words"], 2.0);
    assert_eq!(report["n-samples"]["words"], serde_json::json!({"original": 3, "effective": 3}));
    assert_eq!(
        (&report["n-shot"]["words"], &report["higher_is_better"]["words"]["acc"]),
        (&0.into(), &true.into())
    );
    let samples = lines(&desk, "samples.jsonl");
    assert_eq!(samples.len(), 3);
    assert_eq!(samples[0]["arguments"][1], serde_json::json!(["Once upon a", " time"]));
    assert_eq!(
        (&samples[0]["target"], &samples[0]["acc"], &samples[2]["acc"]),
        (&1.into(), &1.0.into(), &0.0.into())
    );
    let likelihood = |choice: usize| samples[0]["resps"][choice][0].as_f64().expect("a number");
    assert!(likelihood(1) > likelihood(0) && likelihood(1) < 0.0 && samples[0]["resps"][1][1] == true);
    let text = desk.ok(&command);
    for words in ["words", "acc_norm", "0.6667", "± 0.3333"] {
        assert!(text.contains(words), "{words:?} is missing: {text}");
    }
}

#[test]
fn likelihoods_are_those_of_the_logits() {
    // What the engine says of a text is what the task says of it: the beginning-of-text token, then each token in turn.
    let desk = desk();
    let report = desk.json(&[
        "eval",
        "builtin-tiny",
        "--tasks",
        "words.yaml",
        "--limit",
        "1",
        "--log-samples",
        "s.jsonl",
    ]);
    assert_eq!(report["n-samples"]["words"]["effective"], 1);
    let ids = |text: &str| {
        let report = desk.json(&["tokenize", "builtin-tiny", text]);
        let ids = report["ids"].as_array().unwrap_or_else(|| panic!("{report}")).clone();
        ids.iter().map(|id| id.as_u64().expect("an id") as usize).collect::<Vec<_>>()
    };
    let (context, whole) = (ids("Once upon a"), ids("Once upon a zebra"));
    assert_eq!(&whole[..context.len()], &context[..]);
    desk.ok(&["logits", "builtin-tiny", "Once upon a zebra", "--npy", "l.npy"]);
    let (shape, logits) = common::read_npy(&desk.path("l.npy"));
    let (rows, vocab) = (shape[0], shape[1]);
    let mut expected = 0.0;
    for (at, &id) in whole.iter().enumerate().skip(context.len()) {
        // Row `r` predicts the token behind it; the last row predicts what follows the text.
        let row = &logits[(rows - whole.len() + at - 1) * vocab..][..vocab];
        let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&it| f64::from(it - greatest).exp()).sum();
        expected += f64::from(row[id] - greatest) - sum.ln();
    }
    let found = lines(&desk, "s.jsonl")[0]["resps"][0][0].as_f64().expect("a number");
    assert!((found - expected).abs() < 0.05, "{found} against {expected}");
}

#[test]
fn answers_are_kept_and_a_changed_task_asks_only_what_is_new() {
    let desk = desk();
    let run = |more: &[&str]| desk.json(&[&["eval", "builtin-tiny", "--tasks", "words.yaml"], more].concat());
    let first = run(&[]);
    assert_eq!(first["known_answers"]["words"], 0);
    let again = run(&[]);
    assert_eq!(again["known_answers"]["words"], 6);
    assert_eq!(first["results"], again["results"]);
    let new = "{\"begin\": \"Once upon a time\", \"choices\": [\"there\", \"zzq\"], \"label\": 0}\n";
    desk.write("words.jsonl", format!("{WORDS_DATA}{new}"));
    let more = run(&[]);
    assert_eq!(more["known_answers"]["words"], 6);
    assert_eq!(more["n-samples"]["words"]["effective"], 4);
    assert_eq!(run(&["--no-cache"])["known_answers"]["words"], 0);
    // Another way to compute gives other answers.
    assert_eq!(run(&["--quant", "q4_0"])["known_answers"]["words"], 0);
}

#[test]
fn the_built_in_tasks_run_without_files() {
    let desk = Desk::new();
    let all = "tales,tales_answers,tales_words,tales_text";
    let command = ["eval", "builtin-tiny", "--tasks", all, "--limit", "12"];
    let report = desk.json(&command);
    let value = |task: &str, key: &str| {
        report["results"][task][key].as_f64().unwrap_or_else(|| panic!("{task} {key}: {report}"))
    };
    assert!(value("tales", "acc,none") > 0.25, "{report}");
    assert!((1.0..20.0).contains(&value("tales_words", "perplexity,none")), "{report}");
    assert!((1.0..10.0).contains(&value("tales_text", "word_perplexity,none")), "{report}");
    assert!(value("tales_answers", "exact_match,stripped") <= 1.0);
    assert_eq!(report["higher_is_better"]["tales_text"]["bits_per_byte"], false);
    // The same again, from files.
    let told = desk.ok(&["eval", "--write-tasks", "files"]);
    assert!(told.contains("files/tales.yaml"), "{told}");
    let files = ["eval", "builtin-tiny", "--include-path", "files", "--tasks", all, "--limit", "12"];
    assert_eq!(desk.json(&files)["results"], report["results"]);
    assert!(desk.ok(&["eval", "--tasks", "list"]).contains("gsm8k"));
    assert!(desk.fails(&["eval", "--write-tasks", "files"]).contains("exists already"));
}

#[test]
fn a_comparison_is_of_the_same_questions() {
    let desk = desk();
    let same = ["eval", "builtin-tiny", "--tasks", "words.yaml", "--against", "builtin-tiny"];
    let report = desk.json(&same);
    assert_eq!(
        report["change"]["words"]["acc,none"],
        serde_json::json!({"value": 0.0, "low": 0.0, "high": 0.0})
    );
    assert_eq!(report["original"]["results"], report["results"]);
    let text = desk.ok(&same);
    assert!(text.contains("against") && text.contains("+0.0000 to +0.0000"), "{text}");
    // Changes are OTHER less MODEL, and flags of computing are about MODEL.
    let coarse =
        ["eval", "builtin-tiny", "--tasks", "tales_words", "--limit", "12", "--compare", "builtin-tiny"];
    let report = desk.json(&[&coarse[..], &["--l-mul", "all", "--l-mul-bits", "1"]].concat());
    let value = |of: &Value| of["tales_words"]["perplexity,none"].as_f64().expect("a value");
    let change = &report["change"]["tales_words"]["perplexity,none"];
    let expected = value(&report["results"]) - value(&report["original"]["results"]);
    assert!((change["value"].as_f64().expect("a value") - expected).abs() < 1e-9, "{report}");
    assert!(change["low"].as_f64() < change["high"].as_f64());
}

#[test]
fn examples_stand_before_questions() {
    let desk = desk();
    desk.write("train.jsonl", "{\"begin\": \"A\", \"choices\": [\"x\", \"y\"], \"label\": 1}\n".repeat(3));
    let shots = [
        "eval",
        "builtin-tiny",
        "--tasks",
        "words.yaml",
        "--num-fewshot",
        "2",
        "--limit",
        "1",
        "--log-samples",
        "s",
    ];
    let report = desk.json(&shots);
    assert_eq!(report["n-shot"]["words"], 2);
    assert_eq!(lines(&desk, "s")[0]["arguments"][0][0], "A y\n\nA y\n\nOnce upon a");
    let error = desk.fails(&["eval", "builtin-tiny", "--tasks", "words.yaml", "--num-fewshot", "4"]);
    assert!(error.contains("4 examples") && error.contains("3 documents"), "{error}");
}

#[test]
fn answers_are_the_same_whether_asked_together_or_alone() {
    let desk = Desk::new();
    desk.write(
        "go_on.yaml",
        "task: go_on\ntest_split: test\ndoc_to_text: \"{{text}}\"\ndoc_to_target: \"\"\ngeneration_kwargs: {max_gen_toks: \
         12}\n",
    );
    // More than run at once, and of lengths from a word to what takes several passes.
    let tale = "Once upon a time there was a cat. It went to the lake and saw a boat. ";
    let texts: Vec<String> = (0..12).map(|at| format!("{}Then {at}", tale.repeat(at % 4 * at))).collect();
    let line = |text: &String| serde_json::json!({"text": text}).to_string() + "\n";
    let ask = |texts: &[String]| -> Vec<Value> {
        desk.write("d.jsonl", texts.iter().map(line).collect::<String>());
        desk.json(&[
            "eval",
            "builtin-tiny",
            "--tasks",
            "go_on.yaml",
            "--data",
            "d.jsonl",
            "--no-cache",
            "--log-samples",
            "s",
        ]);
        lines(&desk, "s").iter().map(|sample| sample["resps"][0].clone()).collect()
    };
    let together = ask(&texts);
    for (text, answer) in texts.iter().zip(&together) {
        assert_eq!(&ask(std::slice::from_ref(text))[0], answer, "{text}");
    }
    assert!(together.iter().all(|answer| answer.as_str().is_some_and(|it| !it.is_empty())), "{together:?}");
}

#[test]
fn programs_run_only_where_they_may() {
    let desk = Desk::new();
    let task = "task: code\ntest_split: test\ndoc_to_text: \"{{prompt}}\"\ndoc_to_target: \"{{test}}\"\nmetric_list:\n  - \
                metric: pass@k\n    timeout: 20\ngeneration_kwargs: {until: [\"\\n\"], max_gen_toks: 4}\n";
    desk.write("code.yaml", task);
    // The prompt is a program, and what the tiny model writes behind it is a comment.
    let line = |test: &str| {
        serde_json::json!({"prompt": "def f(x):\n    return x + 1\n# Once upon", "test": test}).to_string()
    };
    desk.write("d.jsonl", format!("{}\n{}\n", line("assert f(1) == 2"), line("assert f(1) == 3")));
    let command = ["eval", "builtin-tiny", "--tasks", "code.yaml", "--data", "d.jsonl"];
    let error = desk.fails(&command);
    assert!(error.contains("code") && error.contains("--run-code"), "{error}");
    let path = std::env::var("PATH").unwrap_or_default();
    let desk = desk.with_env("PATH", path).with_env("HOME", std::env::var("HOME").unwrap_or_default());
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: this machine has no python3");
        return;
    }
    let report = desk.json(&[&command[..], &["--run-code"]].concat());
    assert_eq!(report["results"]["code"]["pass@1,none"], 0.5, "{report}");
}

#[test]
fn what_can_not_be_asked_is_refused_in_one_sentence() {
    let desk = desk();
    let with = |name: &str, from: &str, to: &str| {
        assert!(WORDS.contains(from));
        desk.write(name, WORDS.replace(from, to));
    };
    with("key.yaml", "doc_to_text", "doc_to_txt");
    with("missing.yaml", "doc_to_choice: choices\n", "");
    with("template.yaml", "{{begin}}", "{{begin");
    with("variable.yaml", "\"{{begin}}\"", "\"{{start}}!\"");
    with("python.yaml", "doc_to_choice: choices", "doc_to_choice: !function utils.choices");
    with("process.yaml", "doc_to_choice: choices", "doc_to_choice: choices\nprocess_docs: x");
    with("metric.yaml", "metadata: {version: 2.0}", "metric_list: [{metric: bleu}]");
    with("empty.yaml", "words.jsonl", "empty.jsonl");
    with("gone.yaml", "words.jsonl", "gone.jsonl");
    with("broken.yaml", "metadata: {version: 2.0}", "metadata: {version");
    desk.write("empty.jsonl", "\n");
    for (args, words) in [
        (&["--tasks", "tails"][..], "there is no task \"tails\"; did you mean tales?"),
        (&["--tasks", "key.yaml"], "did you mean \"doc_to_text\"?"),
        (&["--tasks", "missing.yaml"], "\"doc_to_choice\" is missing"),
        (&["--tasks", "template.yaml"], "\"doc_to_text\" is no Jinja template"),
        (&["--tasks", "variable.yaml"], "document 1: the template can't be filled in"),
        (&["--tasks", "python.yaml"], "calls a function of Python"),
        (&["--tasks", "process.yaml"], "\"process_docs\" is not supported"),
        (&["--tasks", "metric.yaml"], "\"bleu\" is no metric"),
        (&["--tasks", "empty.yaml"], "there are no documents"),
        (&["--tasks", "gone.yaml"], "gone.jsonl"),
        (&["--tasks", "broken.yaml"], "not valid YAML"),
        (&["--tasks", "nothing.yaml"], "nothing.yaml"),
        (&["--tasks", "arc_easy"], "--data arc_easy=FILE"),
        (&["--tasks", "tales,tales"], "named twice"),
        (&["--tasks", "tales,words.yaml", "--data", "words.jsonl"], "--data tales=words.jsonl"),
        (&["--tasks", "words.yaml", "--data", "wrods=words.jsonl"], "did you mean words?"),
        (&["--tasks", "words.yaml", "--limit", "0"], "--limit"),
        (&["--tasks", "words.yaml", "--chat"], "no chat template"),
    ] {
        let error = desk.fails(&[&["eval", "builtin-tiny"], args].concat());
        assert!(error.contains(words), "{args:?} should say {words:?}: {error}");
    }
    assert!(desk.fails(&["eval", "builtin-encoder", "--tasks", "tales"]).contains("encoder"));
    assert!(desk.fails(&["eval", "--tasks", "tales"]).contains("name a MODEL"));
    for (args, words) in [
        (&["--limit", "3"][..], "--tasks"),
        (&["--tasks", "tales", "--trust"], "cannot be used with"),
        (&["--tasks", "tales", "--perplexity", "words.jsonl"], "cannot be used with"),
    ] {
        let run = desk.run(&[&["eval", "builtin-tiny"], args].concat());
        assert!(run.code == 2 && run.stderr.contains(words), "{args:?}: {}", run.stderr);
    }
}
