//! `ounce quantize` as a user runs it: forecasts, quantizes, is stopped, goes on, and refuses what is wrong.

mod common;

use std::time::{Duration, Instant};

use common::{Desk, corpus};

/// A little calibration, so that tests are soon done.
const LITTLE: [&str; 2] = ["--calibration-tokens", "4096"];

fn quantize(desk: &Desk, output: &str, more: &[&str]) -> serde_json::Value {
    desk.json(&[&["quantize", "builtin-tiny", "-o", output][..], &LITTLE, more].concat())
}

fn kl(report: &serde_json::Value) -> f64 {
    report["divergence"]["mean_kl"]["value"].as_f64().expect("a divergence")
}

#[test]
fn each_method_beats_the_one_before_and_the_file_is_as_large_as_forecast() {
    let desk = Desk::new();
    let plan = desk.json(&["quantize", "builtin-tiny", "-o", "a.gguf", "--type", "q4_0", "--dry-run"]);
    assert!(!desk.path("a.gguf").exists());
    let mut found = Vec::new();
    for method in ["round", "weighted", "gptq"] {
        let name = format!("{method}.gguf");
        let report = quantize(&desk, &name, &["--type", "q4_0", "--method", method]);
        let bytes = std::fs::metadata(desk.path(&name)).expect("a file").len();
        assert_eq!(Some(bytes), plan["bytes"].as_u64(), "{method}");
        assert_eq!(Some(bytes), report["bytes"].as_u64());
        found.push(kl(&report));
        desk.ok(&["run", &name, "Once upon a time", "-n", "4"]);
    }
    assert!(found[0] > found[1] && found[1] > found[2], "{found:?}");
    let entries: Vec<_> = std::fs::read_dir(desk.path(".")).expect("folder").flatten().collect();
    assert!(!entries.iter().any(|it| it.file_name().to_string_lossy().ends_with(".partial")), "{entries:?}");
}

#[test]
fn a_size_is_kept_and_more_bytes_lose_less() {
    let desk = Desk::new();
    let bytes = |name: &str| std::fs::metadata(desk.path(name)).expect("a file").len();
    let small = quantize(&desk, "small.gguf", &["--bits-per-weight", "5"]);
    let most = bytes("small.gguf") + 12_000;
    let large = quantize(&desk, "large.gguf", &["--bytes", &most.to_string()]);
    assert!(small["bits_per_weight"].as_f64().expect("bits") <= 5.0);
    assert!(bytes("large.gguf") <= most && bytes("large.gguf") > bytes("small.gguf"));
    assert!(kl(&large) < kl(&small), "{} {}", kl(&large), kl(&small));
    let refused = desk.run(&["quantize", "builtin-tiny", "-o", "x.gguf", "--bytes", "10K"]);
    assert!(refused.code == 2 && refused.stderr.contains("the smallest that"), "{}", refused.stderr);
    assert!(!desk.path("x.gguf").exists());
}

#[test]
fn folders_take_groups_and_matrices_what_keep_says() {
    let desk = Desk::new();
    let report = quantize(&desk, "packed", &["--bits", "4", "--group", "32"]);
    assert!(kl(&report) < 0.1, "{report}");
    let config = std::fs::read_to_string(desk.path("packed/config.json")).expect("config");
    assert!(config.contains("quantization_config"), "{config}");
    desk.ok(&["run", "packed", "Once upon a time", "-n", "4"]);
    let keep =
        ["--type", "q4_0", "--keep", "blk.*.attn_v.weight=q8_0", "--keep", "blk.0.*=keep", "--dry-run"];
    let plan = desk.json(&[&["quantize", "builtin-tiny", "-o", "a.gguf"][..], &keep].concat());
    let format = |name: &str| {
        let units = plan["units"].as_array().expect("units");
        let unit = units.iter().find(|it| it["name"] == name).expect("the matrix");
        unit["to"].as_str().expect("a format").to_owned()
    };
    assert_eq!(format("blk.1.attn_v.weight"), "Q8_0");
    assert_eq!(format("blk.1.attn_q.weight"), "Q4_0");
    assert_eq!(format("blk.0.attn_v.weight"), "BF16");
}

#[test]
fn a_run_that_is_stopped_goes_on_to_the_same_bytes() {
    let desk = Desk::new();
    let args = ["quantize", "builtin-tiny", "-o", "a.gguf", "--type", "q4_0", "--no-test"];
    let child = desk.command(&args).stderr(std::process::Stdio::piped()).spawn().expect("started");
    let done = || {
        let entries = std::fs::read_dir(desk.path(".a.gguf.partial")).into_iter().flatten().flatten();
        entries.filter(|it| it.file_name().to_string_lossy().ends_with(".weight.json")).count()
    };
    let start = Instant::now();
    while done() < 2 && start.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let signal = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(signal.expect("kill").success());
    let ended = child.wait_with_output().expect("gone");
    assert_eq!(ended.status.code(), Some(130), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(!desk.path("a.gguf").exists() && done() >= 2);
    // Other settings must not be mixed with what is there.
    let other = desk.run(&[&args[..], &["--damping", "0.1"]].concat());
    assert!(other.code == 2 && other.stderr.contains("other settings"), "{}", other.stderr);
    let report = desk.json(&args);
    let resumed =
        report["matrices"].as_array().expect("matrices").iter().filter(|it| it["resumed"] == true).count();
    assert!(resumed >= 2, "{report}");
    desk.json(&["quantize", "builtin-tiny", "-o", "b.gguf", "--type", "q4_0", "--no-test"]);
    let read = |name: &str| std::fs::read(desk.path(name)).expect("a file");
    assert!(read("a.gguf") == read("b.gguf"), "the bytes differ");
}

#[test]
fn importance_goes_out_and_comes_in() {
    let desk = Desk::new();
    quantize(
        &desk,
        "a.gguf",
        &["--type", "q4_0", "--method", "round", "--save-imatrix", "im.gguf", "--no-test"],
    );
    let with = ["--type", "q4_0", "--method", "weighted", "--imatrix", "im.gguf"];
    let weighted = quantize(&desk, "b.gguf", &with);
    assert_eq!(weighted["calibration_tokens"].as_u64(), Some(0));
    let round = quantize(&desk, "c.gguf", &["--type", "q4_0", "--method", "round"]);
    assert!(kl(&weighted) < kl(&round), "{} {}", kl(&weighted), kl(&round));
    let refused = desk.run(&["quantize", "builtin-tiny", "-o", "d.gguf", "--imatrix", "im.gguf"]);
    assert!(refused.code == 2 && refused.stderr.contains("--method weighted"), "{}", refused.stderr);
    let other =
        desk.run(&["quantize", "builtin", "-o", "d.gguf", "--method", "weighted", "--imatrix", "im.gguf"]);
    assert!(other.code == 2 && other.stderr.contains("another model's"), "{}", other.stderr);
}

#[test]
fn what_is_wrong_is_said_in_one_sentence() {
    let desk = Desk::new();
    desk.write("short.txt", "Too short.");
    desk.write("text.txt", corpus(3));
    desk.write("there.gguf", "something");
    let to = |output: &'static str| vec!["quantize", "builtin-tiny", "-o", output];
    for (args, said) in [
        ([to("a.gguf"), vec!["--calibration", "short.txt"]].concat(), "too few"),
        ([to("a.gguf"), vec!["--type", "q9"]].concat(), "q4_k"),
        ([to("a.gguf"), vec!["--type", "g4_64"]].concat(), "GGUF has no format G4_64"),
        ([to("packed"), vec!["--type", "q4_0"]].concat(), "folders have no format Q4_0"),
        ([to("packed"), vec!["--bits", "5"]].concat(), "2, 3, 4 or 8 bits"),
        ([to("a.gguf"), vec!["--keep", "nothing*=q8_0"]].concat(), "no matrix has such a name"),
        (
            [
                to("a.gguf"),
                vec!["--bits-per-weight", "6", "--keep", "nothing*=q8_0", "--calibration-tokens", "1024"],
            ]
            .concat(),
            "no matrix has such a name",
        ),
        ([to("a.gguf"), vec!["--damping", "0"]].concat(), "--damping"),
        ([to("a.gguf"), vec!["--bits-per-weight", "0.5"]].concat(), "from 1 to 32"),
        ([to("there.gguf"), vec!["--type", "q4_0"]].concat(), "--force"),
        (
            [to("no/such/folder/a.gguf"), vec!["--type", "q4_0", "--method", "round"]].concat(),
            "no/such/folder",
        ),
    ] {
        let ran = desk.run(&args);
        assert!(ran.code == 2 && ran.stderr.contains(said), "{args:?}: {} {}", ran.code, ran.stderr);
        assert!(ran.stderr.trim_end().lines().count() <= 8, "{}", ran.stderr);
        assert!(!desk.path("a.gguf").exists() && !desk.path("packed").exists());
    }
    assert_eq!(std::fs::read_to_string(desk.path("there.gguf")).expect("the file"), "something");
}

#[test]
fn explain_names_an_option_of_every_axis_and_writes_nothing() {
    let desk = Desk::new();
    let report = desk.json(&["quantize", "builtin-tiny", "--explain", "--bits", "3"]);
    let matrices = report["matrices"].as_array().expect("matrices");
    assert!(matrices.len() > 4, "{report}");
    for matrix in matrices {
        let axes: Vec<&str> =
            matrix["axes"].as_array().expect("axes").iter().filter_map(|it| it["axis"].as_str()).collect();
        assert_eq!(axes, ["granularity", "symmetry", "range", "mapping"]);
        let value = |name: &str| matrix[name].as_f64().expect("a number");
        assert!(value("error") > 0.0 && value("error") <= value("usual") && value("bits") > 3.0, "{matrix}");
    }
    assert_eq!(std::fs::read_dir(desk.path(".")).expect("folder").count(), 0);
    let refused = desk.run(&["quantize", "builtin-tiny"]);
    assert!(refused.code == 2 && refused.stderr.contains("--output"), "{}", refused.stderr);
    let refused = desk.run(&["quantize", "builtin-tiny", "--explain", "-o", "x.gguf"]);
    assert_eq!(refused.code, 2);
}

#[test]
fn float_formats_are_written_to_folders_and_run() {
    let desk = Desk::new();
    let mut found = Vec::new();
    for kind in ["fp8", "fp8_tensor", "nf4", "mxfp4"] {
        let report = quantize(&desk, kind, &["--type", kind]);
        desk.ok(&["run", kind, "Once upon a time", "-n", "4"]);
        found.push((kl(&report), report["bytes"].as_u64().expect("bytes")));
    }
    let [(row, _), (matrix, _), (nf4, nf4_bytes), (mxfp4, mxfp4_bytes)] = found[..] else { panic!() };
    assert!(row > 0.0 && row < 0.01 && matrix < 0.02 && row < nf4 && nf4 < 0.2 && mxfp4 < 0.2, "{found:?}");
    assert!(mxfp4_bytes < nf4_bytes, "{found:?}");
    // The same codes as a GGUF file.
    quantize(&desk, "four.gguf", &["--type", "mxfp4"]);
    desk.ok(&["convert", "mxfp4", "from_folder.gguf"]);
    let against = |model: &str| desk.json(&["eval", model, "--against", "mxfp4", "--perplexity", "text.txt"]);
    std::fs::write(desk.path("text.txt"), corpus(200)).expect("text");
    assert!(against("from_folder.gguf")["divergence"]["mean_kl"]["value"].as_f64().expect("KL") < 1e-5);
    for (args, what) in [
        (&["-o", "x.gguf", "--type", "nf4"][..], "GGUF has no format for NF4"),
        (&["-o", "x", "--type", "fp8", "--method", "gptq"], "rounded to the nearest"),
        (&["-o", "x", "--type", "nf4", "--train", "both"], "--train needs matrices in blocks"),
        (&["-o", "x", "--type", "fp8", "--keep", "blk.0.*=keep"], "--keep"),
        (&["-o", "x", "--type", "f8_e5m2"], "without scales"),
        (&["-o", "x", "--type", "mxfp4", "--keep", "blk.0.*=g4_64"], "choose one of them"),
        (&["-o", "no/such/x", "--type", "fp8"], "there is no such folder"),
        (&["-o", "nf4", "--type", "nf4"], "exists already"),
    ] {
        let refused = desk.run(&[&["quantize", "builtin-tiny"], args].concat());
        assert!(refused.code == 2 && refused.stderr.contains(what), "{args:?}: {}", refused.stderr);
    }
}

#[test]
fn weights_that_are_no_numbers_are_named_and_nothing_is_left() {
    let desk = Desk::new();
    desk.ok(&["convert", "builtin-tiny", "broken", "--dtype", "f32"]);
    let path = desk.path("broken/model.safetensors");
    let mut file = std::fs::read(&path).expect("weights");
    let length = u64::from_le_bytes(file[..8].try_into().expect("a length")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&file[8..8 + length]).expect("a header");
    let name = "model.layers.1.mlp.down_proj.weight";
    let at = 8 + length + header[name]["data_offsets"][0].as_u64().expect("a place") as usize;
    file[at + 400..at + 404].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, file).expect("written");
    for (target, kind) in [
        ("x", "fp8"),
        ("x", "fp8_tensor"),
        ("x", "nf4"),
        ("x", "mxfp4"),
        ("y.gguf", "mxfp4"),
        ("z.gguf", "iq2_xs"),
    ] {
        let rounds = if kind.starts_with("fp8") || kind == "nf4" { &[][..] } else { &["--method", "round"] };
        let args = [&["quantize", "broken", "-o", target, "--type", kind, "--no-test"], rounds].concat();
        let ran = desk.run(&args);
        assert!(ran.code == 2 && ran.stderr.contains("down_proj"), "{args:?}: {} {}", ran.code, ran.stderr);
        assert!(!desk.path(target).exists(), "{args:?}");
        // Finished matrices are kept for the next try; of what the writer rounds there are none.
        assert!(kind == "mxfp4" || target.contains('.') || !desk.path(".x.partial").exists(), "{args:?}");
    }
}

#[test]
fn formats_below_three_bits_are_found_by_sensitivity_trained_and_run() {
    let desk = Desk::new();
    // Rows that super-blocks fit; random weights predict next to nothing, but they are stored, trained and run all the same.
    desk.write(
        "wide.toml",
        "[model]\npreset = \"llama\"\nhidden = 256\nlayers = 2\nheads = 4\nkv_heads = 2\nfeed_forward = 256\n\
         context = 64\n[data]\ntrain = [\"text.txt\"]\nseparator = \"\"\n[train]\nbatch = 4\nsteps = 40\n[optimizer]\nlr = 0.01\n\
         [output]\nfolder = \"wide\"\n",
    );
    desk.write("text.txt", corpus(400));
    desk.ok(&["train", "wide.toml"]);
    let made = |name: &str, more: &[&str]| {
        let all = [
            "quantize",
            "wide/model",
            "-o",
            name,
            "--calibration",
            "text.txt",
            "--calibration-tokens",
            "2048",
        ];
        desk.json(&[&all[..], &["--test", "text.txt"], more].concat())
    };
    let budget = ["--bits-per-weight", "2.3"];
    let report = made("small.gguf", &budget);
    let trained = made("trained.gguf", &[&budget[..], &["--train", "scales"]].concat());
    assert!(report["bits_per_weight"].as_f64().expect("bits") <= 2.3, "{report}");
    let formats: Vec<&str> = (report["matrices"].as_array().expect("matrices").iter())
        .map(|it| it["dtype"].as_str().expect("a format"))
        .collect();
    assert!(formats.iter().any(|it| it.starts_with("IQ2")), "{formats:?}");
    assert!(kl(&trained) < kl(&report), "{} {}", kl(&trained), kl(&report));
    desk.ok(&["run", "trained.gguf", "the cat", "-n", "4"]);
    // The method earns its time.
    let uniform =
        |method: &str| kl(&made(&format!("{method}.gguf"), &["--type", "iq2_xs", "--method", method]));
    assert!(uniform("gptq") < uniform("round"));
    let refused = desk.run(&["quantize", "wide/model", "-o", "x.gguf", "--type", "iq2_s", "--act-order"]);
    assert!(refused.code == 2 && refused.stderr.contains("--act-order"), "{}", refused.stderr);
    let refused = desk.run(&["quantize", "wide/model", "-o", "x.gguf", "--type", "iq3_s"]);
    assert!(
        refused.code == 2 && refused.stderr.contains("no format that ounce writes"),
        "{}",
        refused.stderr
    );
}
