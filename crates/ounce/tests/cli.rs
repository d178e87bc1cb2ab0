//! What all commands have in common: help, exit codes, JSON, pipes.

mod common;

use std::process::Stdio;

use common::{Desk, golden};

/// The names in the `Commands:` part of a help text.
fn commands(help: &str) -> Vec<String> {
    let part =
        help.split_once("Commands:\n").expect("a list of commands").1.split_once("\n\n").expect("an end").0;
    let names = part.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .map(|line| line.split_whitespace().next().expect("a name").to_string())
        .filter(|it| it != "help")
        .collect()
}

#[test]
fn every_command_has_help_with_examples() {
    let desk = Desk::new();
    let names = commands(&desk.ok(&["--help"]));
    assert!(names.len() >= 12, "{names:?}");
    for name in names {
        let help = desk.ok(&[&name, "--help"]);
        assert!(help.contains("Examples:\n  ounce "), "{name}: {help}");
        if help.contains("\nCommands:\n") {
            for inner in commands(&help) {
                assert!(
                    desk.ok(&[&name, &inner, "--help"]).contains("Examples:\n  ounce "),
                    "{name} {inner}"
                );
            }
        }
    }
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_right() {
    let desk = Desk::new();
    for (args, word) in [
        (&["shwo", "builtin"][..], "show"),
        (&["show"], "<MODEL>"),
        (&["show", "builtin", "--tensor"], "--tensors"),
        (&["run", "builtin", "x", "--top-k", "many"], "--top-k"),
        (&["run", "builtin", "x", "--greedy", "--temp", "1"], "--greedy"),
        (&["convert", "builtin", "x.gguf", "--dtype", "int4"], "q8_0"),
        (&["convert", "builtin", "x", "--shard-size", "2 bananas"], "512MiB"),
        (&["methods", "--family", "cooking"], "quantization"),
        (&["methods", "999"], "130"),
        (&["bench", "method", "999"], "130"),
        (&["tokenize", "builtin", "--decode", "1,x"], "token id"),
        (&["run", "builtin", "x", "--top-p", "2"], "top-p"),
        (&["eval", "builtin"], "--perplexity"),
    ] {
        let ran = desk.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(word), "{args:?} should mention {word}: {}", ran.stderr);
    }
}

#[test]
fn models_that_are_none_are_refused_in_one_sentence() {
    let desk = Desk::new();
    desk.write("model.gguf", b"GGUF");
    desk.write("empty.gguf", b"");
    desk.write("notes.txt", b"no model");
    desk.write("folder/readme", b"");
    desk.write("damaged/config.json", b"{\"model_type\": ");
    desk.write("weights.safetensors", b"12345678");
    for (model, words) in [
        ("modle.gguf", "did you mean model.gguf"),
        ("model.gguf", "model.gguf"),
        ("empty.gguf", "empty.gguf"),
        ("notes.txt", "no model that ounce reads"),
        ("folder", "no config.json"),
        ("damaged", "config.json"),
        ("weights.safetensors", "folder"),
        ("org/name", "ounce pull org/name"),
        ("org/name:Q4_K_M", "ounce pull org/name:Q4_K_M"),
    ] {
        for args in
            [&["show", model][..], &["run", model, "hi"], &["tokenize", model, "hi"], &["embed", model, "hi"]]
        {
            let error = desk.fails(args);
            assert!(error.contains(words), "{args:?} should say {words:?}: {error}");
        }
    }
}

#[test]
fn truncated_weights_are_refused() {
    let desk = Desk::new();
    desk.ok(&["convert", "builtin", "whole"]);
    desk.ok(&["convert", "builtin", "whole.gguf"]);
    for name in ["whole/model.safetensors", "whole.gguf"] {
        let bytes = std::fs::read(desk.path(name)).expect("weights");
        desk.write(name, &bytes[..bytes.len() - 100]);
        let model = name.split('/').next().expect("a name");
        let error = desk.fails(&["run", model, "hi"]);
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn json_is_all_that_stdout_carries() {
    let desk = Desk::new();
    desk.write("text.txt", "Once upon a time there was a cat. The cat was very happy.");
    let bge = golden("bge");
    for args in [
        &["run", "builtin", "Once", "-n", "3"][..],
        &["show", "builtin", "--tensors", "--check"],
        &["tokenize", "builtin", "Once upon"],
        &["logits", "builtin", "Once upon", "--npy", "l.npy"],
        &["eval", "builtin", "--perplexity", "text.txt"],
        &["embed", &bge, "hello", "there", "--similarity"],
        &["convert", "builtin", "a.gguf", "--dry-run"],
        &["convert", "builtin", "b.gguf"],
        &["methods", "quantization"],
    ] {
        assert!(!desk.json(args).is_null(), "{args:?}");
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let desk = Desk::new();
    for args in
        [&["methods"][..], &["run", "builtin", "Once", "-n", "100"], &["show", "builtin", "--tensors"]]
    {
        let mut child = desk
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("the binary ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
        assert!(!stderr.contains("error"), "{args:?}: {stderr}");
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let desk = Desk::new();
    for threads in ["1", "3"] {
        desk.ok(&[
            "logits",
            "builtin",
            "Once upon a time",
            "--npy",
            &format!("{threads}.npy"),
            "--threads",
            threads,
        ]);
    }
    let read = |name: &str| std::fs::read(desk.path(name)).expect("written");
    assert!(read("1.npy") == read("3.npy"));
}

#[test]
fn logs_go_to_stderr_when_asked_for() {
    let desk = Desk::new();
    let ran = desk.run(&["show", "builtin", "-v"]);
    assert!(ran.stderr.contains("opened") && !ran.stdout.contains("opened"), "{}", ran.stderr);
    assert!(!ran.stderr.contains('\u{1b}'), "no colours without a terminal");
    assert_eq!(desk.run(&["show", "builtin"]).stderr, "");
}

#[test]
fn completions_and_manual_pages_cover_every_command() {
    let desk = Desk::new();
    let names = commands(&desk.ok(&["--help"]));
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = desk.ok(&["completions", shell]);
        assert!(names.iter().all(|name| script.contains(name.as_str())), "{shell}");
    }
    assert!(desk.ok(&["man"]).contains(".TH ounce 1"));
    desk.ok(&["man", "--out", "pages"]);
    for name in names {
        let page = std::fs::read_to_string(desk.path(&format!("pages/ounce-{name}.1"))).expect(&name);
        assert!(page.contains("Examples:"), "{name}");
    }
}

/// Cause of the test: a handler that only sets a flag is of no use to work that never looks at it.
#[cfg(unix)]
#[test]
fn ctrl_c_ends_long_work_and_leaves_no_file() {
    let desk = Desk::new();
    desk.write("long.txt", "Once upon a time there was a cat. ".repeat(20_000));
    for args in [
        &["eval", "builtin", "--perplexity", "long.txt"][..],
        &["logits", "builtin", "--npy", "l.npy"],
        &["run", "builtin", "Once", "-n", "1000000", "--l-mul", "all"],
    ] {
        let text = std::fs::File::open(desk.path("long.txt")).expect("text");
        let child = desk.command(args).stdin(text).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let child = child.expect("the binary starts");
        std::thread::sleep(std::time::Duration::from_millis(400));
        let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(kill.expect("kill runs").success(), "{args:?} ended before it could be stopped");
        let output = child.wait_with_output().expect("the binary ends");
        assert_eq!(output.status.code(), Some(130), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let left = std::fs::read_dir(desk.path("")).expect("lists").count();
    assert_eq!(left, 1, "only the text is there");
}
