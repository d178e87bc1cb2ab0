//! `ounce prune` as a user runs it: parts leave, files get smaller and run, and what is wrong is refused.

mod common;

use std::time::{Duration, Instant};

use common::{Desk, golden};
use serde_json::Value;

/// A little calibration, so that tests are soon done.
const LITTLE: [&str; 2] = ["--calibration-tokens", "4096"];

fn prune(desk: &Desk, output: &str, more: &[&str]) -> Value {
    desk.json(&[&["prune", "builtin-tiny", "-o", output][..], &LITTLE, more].concat())
}

fn kl(report: &Value) -> f64 {
    report["divergence"]["mean_kl"]["value"].as_f64().expect("a divergence")
}

fn share(report: &Value) -> f64 {
    report["share"].as_f64().expect("a share")
}

#[test]
fn heads_and_channels_leave_and_the_file_is_as_large_as_forecast() {
    let desk = Desk::new();
    let ratio = ["--ratio", "0.3", "--multiple", "8"];
    let plan = prune(&desk, "small.gguf", &[&ratio[..], &["--dry-run"]].concat());
    assert!(!desk.path("small.gguf").exists());
    let report = prune(&desk, "small.gguf", &ratio);
    let bytes = std::fs::metadata(desk.path("small.gguf")).expect("a file").len();
    assert_eq!(Some(bytes), report["bytes"].as_u64());
    assert_eq!(Some(bytes), plan["bytes"].as_u64());
    assert_eq!(plan["layers"], report["layers"]);
    assert!((0.3..0.4).contains(&share(&report)), "{report}");
    for layer in report["layers"].as_array().expect("layers") {
        let counts = |key: &str| [0, 1].map(|at| layer[key][at].as_u64().expect("a count"));
        let ([heads, heads_left], [kv_heads, kv_left]) = (counts("heads"), counts("kv_heads"));
        assert_eq!(heads * kv_left, heads_left * kv_heads, "{layer}");
        assert!(kv_left >= 1 && counts("channels")[1] >= 8 && counts("channels")[1] % 8 == 0, "{layer}");
    }
    assert!(kl(&report) > 0.0, "{report}");
    desk.ok(&["run", "small.gguf", "Once upon a time", "-n", "4"]);
    // Fitting what stays comes nearer to the original, and so does asking the loss what is worth little.
    let plain = prune(&desk, "plain.gguf", &[&ratio[..], &["--no-answer"]].concat());
    assert!(kl(&report) < kl(&plain), "{} {}", kl(&report), kl(&plain));
    let magnitude =
        prune(&desk, "magnitude.gguf", &[&ratio[..], &["--no-answer", "--score", "magnitude"]].concat());
    assert_eq!(magnitude["calibration_tokens"].as_u64(), Some(0));
    assert!(kl(&plain) < kl(&magnitude), "{} {}", kl(&plain), kl(&magnitude));
}

#[test]
fn layers_of_one_shape_make_an_ordinary_folder_and_others_say_so() {
    let desk = Desk::new();
    let config = |name: &str| -> Value {
        let text = std::fs::read_to_string(desk.path(name).join("config.json")).expect("config.json");
        serde_json::from_str(&text).expect("JSON")
    };
    let report = prune(&desk, "alike", &["--params", "250K", "--multiple", "8", "--uniform", "--no-test"]);
    assert!(report["parameters"][1].as_u64().expect("parameters") <= 250_000, "{report}");
    let alike = config("alike");
    assert!(alike.get("ounce_layers").is_none(), "{alike}");
    assert_eq!(alike["intermediate_size"], report["layers"][0]["channels"][1], "{alike}");
    assert_eq!(alike["num_attention_heads"], report["layers"][0]["heads"][1], "{alike}");
    desk.ok(&["run", "alike", "Once upon a time", "-n", "4"]);
    let args = ["prune", "builtin-tiny", "-o", "unlike", "--ratio", "0.3", "--multiple", "8", "--no-test"];
    let ran = desk.run(&[&args[..], &LITTLE].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("--uniform"), "{}", ran.stderr);
    assert!(ran.stdout.contains(" → ") && ran.stdout.contains("parameters stay"), "{}", ran.stdout);
    assert!(config("unlike").get("ounce_layers").is_some());
    // What was cut can be cut again, and converted.
    desk.json(&[
        "prune",
        "unlike",
        "-o",
        "again",
        "--ratio",
        "0.1",
        "--multiple",
        "8",
        "--no-test",
        "--score",
        "activation",
    ]);
    desk.ok(&["convert", "again", "again.gguf"]);
    assert_eq!(
        desk.ok(&["run", "again.gguf", "Once", "-n", "8", "--temp", "0"]),
        desk.ok(&["run", "again", "Once", "-n", "8", "--temp", "0"])
    );
}

#[test]
fn layers_and_the_stream_can_leave() {
    let desk = Desk::new();
    let report = prune(&desk, "shallow", &["--method", "layers", "--layers", "3"]);
    let gone = report["layers"].as_array().expect("layers").iter().filter(|it| it["stays"] == false).count();
    assert_eq!(gone, 1, "{report}");
    let config = std::fs::read_to_string(desk.path("shallow/config.json")).expect("config.json");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    assert!(config["num_hidden_layers"] == 3 && config.get("ounce_layers").is_none(), "{config}");
    let narrow = prune(&desk, "narrow.gguf", &["--method", "stream", "--ratio", "0.2", "--multiple", "4"]);
    assert_eq!(narrow["stream"][1].as_u64(), Some(48), "{narrow}");
    desk.ok(&["run", "narrow.gguf", "Once upon a time", "-n", "4"]);
    for method in ["heads", "channels"] {
        let report = prune(
            &desk,
            &format!("{method}.gguf"),
            &["--method", method, "--ratio", "0.1", "--multiple", "8"],
        );
        let layers = report["layers"].as_array().expect("layers");
        let same = |key: &str| layers.iter().all(|it| it[key][0] == it[key][1]);
        assert_eq!(
            (same("kv_heads"), same("channels")),
            (method == "channels", method == "heads"),
            "{report}"
        );
    }
}

#[test]
fn single_weights_become_zero_and_cleverer_ways_lose_less() {
    let desk = Desk::new();
    let found: Vec<f64> = ["magnitude", "wanda", "sparsegpt"]
        .map(|method| {
            let report = prune(&desk, &format!("{method}.gguf"), &["--method", method, "--ratio", "0.6"]);
            assert!((0.59..0.61).contains(&share(&report)), "{report}");
            kl(&report)
        })
        .to_vec();
    assert!(found[0] > found[1] && found[1] > found[2], "{found:?}");
    let report = prune(&desk, "pattern", &["--method", "wanda", "--pattern", "2:4", "--no-test"]);
    assert!((share(&report) - 0.5).abs() < 0.01, "{report}");
}

#[test]
fn a_recipe_prunes_and_quantizes() {
    let desk = Desk::new();
    let step = "[[step]]\ndo = \"prune\"\nratio = 0.2\nmultiple = 32\ncalibration-tokens = 4096\n";
    desk.write(
        "recipe.toml",
        format!("{step}[[step]]\ndo = \"quantize\"\ntype = \"q8_0\"\nmethod = \"round\"\n"),
    );
    let report = desk.json(&["compress", "builtin-tiny", "--recipe", "recipe.toml", "-o", "small.gguf"]);
    let whole = desk.json(&[
        "quantize",
        "builtin-tiny",
        "-o",
        "whole.gguf",
        "--type",
        "q8_0",
        "--method",
        "round",
        "--no-test",
    ]);
    assert!(report["bytes"].as_u64() < whole["bytes"].as_u64(), "{report}");
    desk.ok(&["run", "small.gguf", "Once upon a time", "-n", "4"]);
    desk.write("wrong.toml", "[[step]]\ndo = \"prune\"\nratio = 0.2\nparams = \"9K\"\n");
    let said = desk.fails(&["compress", "builtin-tiny", "--recipe", "wrong.toml", "-o", "x.gguf"]);
    assert!(said.contains("step 1 (prune)"), "{said}");
}

#[test]
fn a_run_that_is_stopped_leaves_nothing() {
    let desk = Desk::new();
    let args = ["prune", "builtin", "-o", "a.gguf", "--ratio", "0.3", "--no-test", "--threads", "1"];
    let child = desk.command(&args).stderr(std::process::Stdio::piped()).spawn().expect("started");
    std::thread::sleep(Duration::from_millis(1500));
    let signal = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(signal.expect("kill").success());
    let start = Instant::now();
    let ended = child.wait_with_output().expect("gone");
    assert_eq!(ended.status.code(), Some(2), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(start.elapsed() < Duration::from_secs(60));
    let left: Vec<_> =
        std::fs::read_dir(desk.path(".")).expect("folder").flatten().map(|it| it.file_name()).collect();
    assert!(!left.iter().any(|it| it.to_string_lossy().contains("a.gguf")), "{left:?}");
}

#[test]
fn what_is_wrong_is_said_in_one_sentence() {
    let desk = Desk::new();
    desk.write("short.txt", "Too short.");
    desk.write("there.gguf", "something");
    desk.json(&[
        "quantize",
        "builtin-tiny",
        "-o",
        "q4.gguf",
        "--type",
        "q4_0",
        "--method",
        "round",
        "--no-test",
    ]);
    let albert = golden("albert_mlm");
    let to = |more: &[&'static str]| [&["prune", "builtin-tiny", "-o", "a.gguf"][..], more].concat();
    for (args, said) in [
        (to(&["--ratio", "0.3", "--calibration", "short.txt"]), "too few"),
        (to(&["--ratio", "0.3", "--calibration", "none.txt"]), "none.txt"),
        (to(&["--ratio", "1.5"]), "above 0 and below 1"),
        (to(&["--ratio", "0.99"]), "at most 0."),
        (to(&["--params", "1K"]), "are too few"),
        (to(&["--params", "1B"]), "no more than"),
        (to(&["--layers", "2"]), "--method layers"),
        (to(&["--method", "layers", "--layers", "0"]), "from 1 to 3"),
        (to(&["--method", "layers", "--layers", "4"]), "from 1 to 3"),
        (to(&["--method", "layers", "--ratio", "0.9"]), "at most 0.75"),
        (to(&["--pattern", "2:4"]), "--method magnitude"),
        (to(&["--method", "wanda", "--params", "9K"]), "zeros stay"),
        (to(&["--method", "wanda", "--pattern", "2:7"]), "no whole groups of 7"),
        (to(&["--method", "layers", "--layers", "2", "--uniform"]), "--uniform is for"),
        (to(&["--method", "stream", "--ratio", "0.2", "--score", "activation"]), "taylor or magnitude"),
        (vec!["prune", "builtin-tiny", "-o", "there.gguf", "--ratio", "0.3"], "exists already"),
        (
            vec!["prune", "q4.gguf", "-o", "a.gguf", "--ratio", "0.3", "--multiple", "8"],
            "before it is quantized",
        ),
        (
            vec![
                "prune",
                "builtin-encoder",
                "-o",
                "a.gguf",
                "--method",
                "stream",
                "--ratio",
                "0.3",
                "--score",
                "magnitude",
            ],
            "RMSNorm",
        ),
        (
            vec![
                "prune",
                &albert,
                "-o",
                "a",
                "--method",
                "channels",
                "--ratio",
                "0.3",
                "--score",
                "magnitude",
                "--no-answer",
            ],
            "share their weights",
        ),
        (vec!["prune", "builtin-encoder", "-o", "a.gguf", "--ratio", "0.3"], "--score activation"),
    ] {
        let found = desk.fails(&args);
        assert!(found.contains(said), "{args:?}: {found}");
    }
    let usage = desk.run(&["prune", "builtin-tiny", "-o", "a.gguf"]);
    assert!(usage.code == 2 && usage.stderr.contains("--ratio"), "{}", usage.stderr);
    assert!(!desk.path("a.gguf").exists());
}

#[test]
fn training_prunes_too() {
    let desk = Desk::new();
    let train = |output: &str, way: &str, more: &[&str]| {
        prune(&desk, output, &[&["--train", way, "--train-steps", "16", "--no-test"][..], more].concat())
    };
    let ratio = ["--ratio", "0.4", "--multiple", "8", "--keep-stream"];
    let report = train("small.gguf", "efficient-llm", &ratio);
    assert!(share(&report) >= 0.4 && report["stream"][0] == report["stream"][1], "{report}");
    desk.ok(&["run", "small.gguf", "Once upon a time", "-n", "4"]);
    let report = train("gates", "compresso", &["--params", "280K"]);
    let left = report["parameters"][1].as_u64().expect("parameters");
    assert!((270_000..=280_000).contains(&left), "{report}");
    desk.ok(&["run", "gates", "Once upon a time", "-n", "4"]);
    let report = train("sparse", "gradual", &["--ratio", "0.7"]);
    assert!((share(&report) - 0.7).abs() < 0.01, "{report}");
    // What was trained goes back to the format that it came in.
    let bytes =
        |name: &str| std::fs::metadata(desk.path(name).join("model.safetensors")).expect("weights").len();
    desk.ok(&["convert", "builtin-tiny", "whole"]);
    assert!(bytes("sparse") < bytes("whole") + 20_000, "{} {}", bytes("sparse"), bytes("whole"));
    for (args, said) in [
        (["--train", "gradual", "--params", "9K"], "--ratio"),
        (["--train", "efficient-llm", "--params", "1K"], "too few"),
        (["--train", "compresso", "--params", "1B"], "no more than"),
    ] {
        let found = desk.fails(&[&["prune", "builtin-tiny", "-o", "x"][..], &LITTLE, &args].concat());
        assert!(found.contains(said), "{args:?}: {found}");
    }
}

#[test]
fn layers_come_to_copy_the_attention_of_others() {
    let desk = Desk::new();
    let echo = ["--copies", "1", "--train", "echo-att", "--train-steps", "3", "--no-test"];
    for output in ["echo.gguf", "echo"] {
        let report = prune(&desk, output, &echo);
        let [whole, left] = [0, 1].map(|at| report["parameters"][at].as_u64().expect("parameters"));
        assert!(left < whole, "{report}");
        let shown = desk.ok(&["show", output]);
        assert!(shown.contains("1 of 4 layers attend by the queries and keys"), "{shown}");
        desk.ok(&["run", output, "Once upon a time", "-n", "4"]);
    }
    desk.ok(&["quantize", "echo.gguf", "-o", "q8.gguf", "--type", "q8_0", "--method", "round", "--no-test"]);
    desk.ok(&["run", "q8.gguf", "Once upon a time", "-n", "4"]);
    for (args, said) in [
        (&["prune", "builtin-tiny", "-o", "x", "--copies", "1"][..], "--train echo-att"),
        (&["prune", "builtin-tiny", "-o", "x", "--ratio", "0.3", "--train", "echo-att"], "--copies"),
        (&["prune", "builtin-tiny", "-o", "x", "--copies", "3", "--train", "echo-att"], "where 2 of 4 may"),
        (&["prune", "echo.gguf", "-o", "x", "--ratio", "0.3"], "copy the attention"),
        (&["heal", "echo.gguf", "--teacher", "builtin-tiny", "-o", "x"], "copy the attention"),
    ] {
        let found = desk.fails(&[args, if args[0] == "prune" { &LITTLE[..] } else { &[] }].concat());
        assert!(found.contains(said), "{args:?}: {found}");
    }
}

#[test]
fn one_run_gives_a_file_of_shapes_and_any_is_cut_out_of_it() {
    let desk = Desk::new();
    let train = ["prune", "builtin-tiny", "-o", "any.shapes", "--ratio", "0.5", "--multiple", "8"];
    let train = [&train[..], &["--train", "amoeba", "--train-steps", "3"], &LITTLE].concat();
    let report = desk.json(&train);
    let shapes = report["shapes"].as_array().expect("shapes");
    // Four widths; as many layers as half of the weights needs at the narrowest.
    assert_eq!(shapes.len(), 8, "{report}");
    let parameters = |at: usize| shapes[at]["parameters"].as_u64().expect("parameters");
    let whole = parameters(0);
    for (output, most) in [("small", parameters(7)), ("middle", whole - 1)] {
        let most = most.to_string();
        let report = prune(&desk, output, &["--shapes", "any.shapes", "--params", &most]);
        assert!(
            report["parameters"][1].as_u64().expect("parameters").to_string().len() <= most.len(),
            "{report}"
        );
        desk.ok(&["run", output, "Once upon a time", "-n", "4"]);
    }
    let refused = |args: &[&str]| {
        let ran = desk.run(args);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        ran.stderr
    };
    assert!(refused(&train).contains("--force"));
    let few = ["prune", "builtin-tiny", "-o", "x", "--shapes", "any.shapes", "--params", "1000"];
    assert!(refused(&few).contains("smallest shape"));
    let other = ["prune", "builtin", "-o", "x", "--shapes", "any.shapes", "--ratio", "0.2"];
    assert!(refused(&other).contains("another shape"));
    let both = [
        "prune",
        "builtin-tiny",
        "-o",
        "x",
        "--shapes",
        "any.shapes",
        "--ratio",
        "0.2",
        "--train",
        "gradual",
    ];
    assert!(refused(&both).contains("leave out --train"));
    let gguf = ["prune", "builtin-tiny", "-o", "x.gguf", "--ratio", "0.5", "--train", "amoeba"];
    assert!(refused(&gguf).contains("any.shapes"));
}

#[test]
fn parts_are_swept_for_the_sparsity_that_they_stand() {
    let desk = Desk::new();
    let sweep = ["bench", "sparsity", "builtin-tiny", "--tolerance", "0.2", "--loss", "0.1"];
    let report = desk.json(&[&sweep[..], &LITTLE].concat());
    let cliffs = report["cliffs"].as_array().expect("cliffs");
    assert_eq!(cliffs.len(), 10, "{report}");
    let cliff = |criterion: &str, part: &str| {
        let found = cliffs.iter().find(|it| it["criterion"] == criterion && it["part"] == part);
        found.and_then(|it| it["cliff"].as_f64()).expect("a cliff")
    };
    for part in ["attention", "feed-forward"] {
        assert!(cliff("magnitude", part) > cliff("random", part), "{report}");
    }
    assert!(report["split"]["lost"].as_f64().is_none_or(|lost| lost <= 0.1), "{report}");
    let wrong = [&sweep[..], &["--part", "none=nothing.*"], &LITTLE].concat();
    let ran = desk.run(&wrong);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("no matrix is left for none"), "{}", ran.stderr);
}
