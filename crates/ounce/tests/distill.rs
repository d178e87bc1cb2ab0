//! `ounce distill`, `ounce heal` and `ounce factorize` as a user runs them.

mod common;

use std::time::{Duration, Instant};

use common::{Desk, corpus};

/// The built-in models have one tokenizer.
const TINY: [&str; 3] = ["distill", "builtin", "builtin-tiny"];
const SMALL: [&str; 10] =
    ["--text", "text.txt", "--batch", "4", "--context", "48", "--test-tokens", "600", "--lr", "0.002"];

fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("text.txt", corpus(300));
    desk
}

fn distill(more: &[&str]) -> Vec<String> {
    [&TINY[..], &SMALL[..], more].concat().into_iter().map(str::to_owned).collect()
}

fn json(desk: &Desk, args: &[String]) -> serde_json::Value {
    desk.json(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn number(of: &serde_json::Value, name: &str) -> f64 {
    of[name].as_f64().unwrap_or_else(|| panic!("{name} of {of}"))
}

#[test]
fn a_student_comes_nearer_to_its_teacher_by_any_loss() {
    let desk = desk();
    for loss in ["taid", "kl", "reverse-kl", "skew-kl", "skew-reverse-kl", "js", "tvd", "adaptive-kl"] {
        let report = json(&desk, &distill(&["--tokens", "4000", "--loss", loss, "-o", loss]));
        let of = |name: &str| ["before", "after"].map(|when| number(&report[when], name));
        let ([before, after], [kl_before, kl]) = (of("same_top"), of("kl"));
        assert!(after > before + 0.2, "{loss}: {before} {after}");
        // Losses that keep to what is likely say nothing of the rest.
        let covers = ["taid", "kl", "skew-kl", "adaptive-kl"].contains(&loss);
        assert!(!covers || kl < 0.9 * kl_before, "{loss}: {kl_before} {kl}");
        assert_eq!(report["target_share"].as_f64(), (loss == "taid").then_some(1.0), "{loss}");
        assert!(!desk.path(&format!(".{loss}.distill")).exists(), "nothing is left over");
    }
    desk.ok(&["run", "kl", "the cat", "-n", "4"]);
    let again = desk.fails(&["distill", "builtin", "builtin-tiny", "--text", "text.txt", "-o", "kl"]);
    assert!(again.contains("--force"), "{again}");
}

/// The tiny model is narrower than its teacher: streams are brought to its width, relations need no width.
#[test]
fn a_narrower_student_learns_what_lies_between_layers() {
    let desk = desk();
    let within = ["--tokens", "3000", "--relations", "0.1", "--features", "0.1", "-o", "within"];
    let report = json(&desk, &distill(&within));
    let [before, after] = ["before", "after"].map(|when| number(&report[when], "kl"));
    assert!(after < 0.95 * before, "{before} {after}");
    desk.ok(&["run", "within", "the cat", "-n", "4"]);
    let fails = |more: &[&str]| {
        let args = distill(&[&["--tokens", "500", "--relations", "1", "-o", "no"][..], more].concat());
        desk.fails(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert!(fails(&["--loss", "taid"]).contains("--loss taid"));
    assert!(fails(&["--cache", "kept.bin"]).contains("--cache does not keep"));
    assert!(fails(&["--relation-layer", "40"]).contains("the teacher has"));
    assert!(fails(&["--relation-heads", "7"]).contains("7 relation heads do not split"));
    assert!(!desk.path("no").exists());
}

#[test]
fn a_teacher_that_was_asked_before_teaches_as_well() {
    let desk = desk();
    let kept = ["--tokens", "3000", "--loss", "kl", "--cache", "kept.bin", "--top", "40"];
    let first = json(&desk, &distill(&[&kept[..], &["-o", "first"]].concat()));
    let [asked, rest, off] = ["rows", "rest", "kl"].map(|name| number(&first["cache"], name));
    assert!(asked >= 3000.0 && rest < 0.2 && off < 1e-3, "{first}");
    assert!(number(&first["cache"], "row_bytes") * 20.0 < number(&first["cache"], "exact_row_bytes"));
    let second = json(&desk, &distill(&[&kept[..], &["-o", "second"]].concat()));
    assert_eq!(number(&second["cache"], "rows"), 0.0, "everything was known");
    let read = |name: &str| std::fs::read(desk.path(&format!("{name}/model.safetensors"))).expect("weights");
    assert!(read("first") == read("second"));
    let live = json(&desk, &distill(&["--tokens", "3000", "--loss", "kl", "-o", "live"]));
    let [kept, live] = [&first, &live].map(|report| number(&report["after"], "kl"));
    assert!((kept - live).abs() < 0.1 * live, "{kept} {live}");
    let other = distill(&["--tokens", "3000", "--cache", "kept.bin", "--top", "41", "-o", "third"]);
    let error = desk.fails(&other.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(error.contains("another number of tokens a row"), "{error}");
}

#[test]
fn a_run_that_is_killed_goes_on_to_the_same_bits() {
    let desk = desk();
    let args = |target: &'static str| {
        distill(&[
            "--tokens",
            "12000",
            "--loss",
            "taid",
            "--checkpoint-every",
            "5",
            "--no-test",
            "-o",
            target,
        ])
    };
    json(&desk, &args("whole"));
    let killed = args("killed");
    let mut child =
        desk.command(&killed.iter().map(String::as_str).collect::<Vec<_>>()).spawn().expect("started");
    let begun = desk.path(".killed.distill/checkpoints/step-5");
    let start = Instant::now();
    while !begun.exists() && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("killed");
    child.wait().expect("gone");
    assert!(!desk.path("killed").exists(), "it was killed before its end");
    let other = distill(&["--tokens", "12000", "--loss", "kl", "--no-test", "-o", "killed"]);
    let error = desk.fails(&other.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(error.contains("--fresh"), "{error}");
    json(&desk, &killed);
    let read = |name: &str| std::fs::read(desk.path(&format!("{name}/model.safetensors"))).expect("weights");
    assert!(read("whole") == read("killed"), "resumed weights differ");
}

#[test]
fn a_new_student_has_the_shape_of_its_file() {
    let desk = desk();
    desk.write("new.toml", "[model]\nhidden = 32\nlayers = 2\nheads = 2\ncontext = 64\n");
    let report = desk.json(
        &[&["distill", "builtin-tiny", "new.toml", "-o", "new", "--tokens", "6000"][..], &SMALL].concat(),
    );
    let [before, after] = ["before", "after"].map(|when| number(&report[when], "kl"));
    assert!(after < before - 1.0, "{before} {after}");
    assert!(desk.json(&["show", "new"]).to_string().contains("32"));
}

#[test]
fn a_factorised_model_is_healed_and_a_recipe_does_both() {
    let desk = desk();
    let factorize = ["factorize", "builtin-tiny", "--ratio", "0.5", "--calibration-tokens", "4000"];
    let plan = desk.json(&[&factorize[..], &["--dry-run"]].concat());
    let thin = desk.json(&[&factorize[..], &["-o", "thin"]].concat());
    assert_eq!(plan["parameters"], thin["parameters"]);
    let [before, after] = ["parameters_before", "parameters"].map(|name| number(&thin, name));
    assert!(after < before, "{thin}");
    for matrix in thin["matrices"].as_array().expect("a list") {
        assert!(
            number(matrix, "lost") > 0.0 && number(matrix, "rank") < number(matrix, "break_even"),
            "{matrix}"
        );
    }
    desk.ok(&["run", "thin", "the cat", "-n", "4"]);
    assert!(desk.ok(&["show", "thin"]).contains("products of two thin matrices"));
    desk.ok(&["convert", "thin", "thin.gguf"]);
    desk.ok(&["run", "thin.gguf", "the cat", "-n", "4"]);
    let heal =
        ["heal", "thin", "--teacher", "builtin-tiny", "--tokens", "6000", "-o", "healed", "--features", "1"];
    let healed = desk.json(&[&heal[..], &SMALL].concat());
    let [before, after] = ["before", "after"].map(|when| number(&healed[when], "kl"));
    assert!(after < 0.9 * before, "{before} {after}");
    desk.write(
        "recipe.toml",
        "[[step]]\ndo = \"factorize\"\nrank = 32\ncalibration-tokens = 4000\n\n[[step]]\ndo = \"heal\"\ntext = \"text.txt\"\ntokens = 2000\n\
         batch = 4\ncontext = 48\n\n[[step]]\ndo = \"quantize\"\ntype = \"q8_0\"\ncalibration-tokens = 4000\n",
    );
    desk.ok(&["compress", "builtin-tiny", "--recipe", "recipe.toml", "-o", "small.gguf"]);
    let shown = desk.json(&["show", "small.gguf"]).to_string();
    assert!(shown.contains("Q8_0"), "{shown}");
    desk.ok(&["run", "small.gguf", "the cat", "-n", "4"]);
}

#[test]
fn factors_are_found_by_any_solver_and_compared_with_linformer_at_a_length() {
    let desk = desk();
    let factorize = ["factorize", "builtin-tiny", "--ratio", "0.5"];
    let with = |more: &[&str]| desk.json(&[&factorize[..], more].concat());
    let lost = |report: &serde_json::Value| -> f64 {
        let matrices = report["matrices"].as_array().expect("a list");
        matrices.iter().map(|it| number(it, "lost")).sum::<f64>() / matrices.len() as f64
    };
    let svd = with(&["--plain", "-o", "svd"]);
    let semi = with(&["--solver", "semi-nmf", "-o", "semi"]);
    let random = with(&["--solver", "random", "--seed", "3", "-o", "random"]);
    assert!(lost(&svd) < lost(&semi) && lost(&semi) < 1.0 && lost(&random) > 1.5, "{semi}");
    desk.ok(&["run", "random", "the cat", "-n", "4"]);
    let plan = with(&["--dry-run", "--linformer-keys", "16", "--tokens", "100000"]);
    let of = |name: &str| number(&plan["at"]["operations"], name);
    assert!(of("linformer") < of("factors") && of("factors") < of("dense"), "{plan}");
    assert!(number(&plan, "linformer_from_tokens") < number(&with(&["--dry-run"]), "linformer_from_tokens"));
    let said = desk.ok(&[&factorize[..], &["--dry-run", "--tokens", "64"]].concat());
    assert!(said.contains("at 64 tokens a layer has with factors"), "{said}");
}

#[test]
fn what_can_not_be_is_said_in_one_sentence() {
    let desk = desk();
    desk.write("short.txt", "the cat");
    desk.write("from.toml", "[model]\nfrom = \"builtin\"\n");
    let with = |args: &[&str]| desk.fails(&[args, &["-o", "x"][..]].concat());
    let text = ["--text", "text.txt"];
    let cases: Vec<(Vec<&str>, &str)> = vec![
        ([&["distill", "builtin", "builtin-encoder"][..], &text].concat(), "predicts no next token"),
        ([&["distill", "builtin-encoder", "builtin"][..], &text].concat(), "predicts no next token"),
        (vec!["distill", "builtin", "builtin-tiny", "--text", "none.txt"], "none.txt"),
        (vec!["distill", "builtin", "builtin-tiny", "--text", "short.txt"], "too few"),
        ([&["distill", "builtin", "from.toml"][..], &text].concat(), "give that one as the student"),
        ([&TINY[..], &text, &["--context", "100000"]].concat(), "more than the models can read"),
        ([&TINY[..], &text, &["--hard", "2"]].concat(), "from 0 to 1"),
        ([&TINY[..], &text, &["--lr", "0"]].concat(), "--lr"),
        ([&TINY[..], &text, &["--loss", "taid", "--taid-start", "1.5"]].concat(), "TAID"),
        ([&TINY[..], &text, &["--taid-start", "0.3"]].concat(), "belong to --loss taid"),
        ([&TINY[..], &text, &["--features", "1", "--cache", "c.bin"]].concat(), "leave it or them out"),
        ([&TINY[..], &text, &["--features", "1", "--loss", "taid"]].concat(), "can't be had with"),
        (vec!["factorize", "builtin-tiny", "--ratio", "1.5"], "below 1"),
        (vec!["factorize", "builtin-tiny", "--rank", "5000", "--plain"], "no matrix becomes smaller"),
        (vec!["factorize", "builtin-tiny", "--ratio", "0.5", "--tokens", "0"], "1 or more"),
    ];
    for (args, said) in cases {
        let error = with(&args);
        assert!(error.contains(said), "{args:?}: {error}");
    }
    assert!(!desk.path("x").exists());
    desk.write("wrong.toml", "[[step]]\ndo = \"heal\"\nrate = 0.1\n");
    let error = desk.fails(&["compress", "builtin-tiny", "--recipe", "wrong.toml", "-o", "y.gguf"]);
    assert!(error.contains("step 1 (heal)") && error.contains("--rate"), "{error}");
}

#[test]
fn a_student_with_other_tokens_learns_too() {
    let desk = desk();
    let run = "[model]\nhidden = 32\nlayers = 2\nheads = 2\ncontext = 48\n[data]\ntrain = [\"text.txt\"]\nseparator = \"\"\nheld_out = 0\n\
               [tokenizer]\nfrom = \"pieces\"\n[train]\nbatch = 4\nsteps = 5\n[output]\nfolder = \"run\"\n";
    desk.write("run.toml", run);
    desk.ok(&["tokenizer", "train", "text.txt", "-o", "pieces", "--vocab", "400"]);
    desk.ok(&["train", "run.toml"]);
    let args =
        [&["distill", "builtin", "run/model", "--tokens", "20000", "-o", "other"][..], &SMALL[2..]].concat();
    let error = desk.fails(&[&args[..], &["--cache", "c.bin"]].concat());
    assert!(error.contains("different tokens") && !desk.path("c.bin").exists(), "{error}");
    let report = desk.json(&args);
    let understood = number(&report, "understood");
    assert!(understood > 0.05 && understood < 1.0, "{understood}");
    let [before, after] = ["before", "after"].map(|when| number(&report[when], "bits_per_byte"));
    let teacher = number(&report["after"], "teacher_bits_per_byte");
    assert!(after < 0.9 * before && teacher < after, "{teacher} {before} {after}");
    assert!(report["after"]["kl"].is_null(), "predictions of different tokens are not compared");
    let said = desk.ok(&[&args[..], &["--force", "--fresh"]].concat());
    assert!(said.contains("different tokens") && said.contains("bits a byte"), "{said}");
}
