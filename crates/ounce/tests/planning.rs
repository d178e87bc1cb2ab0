//! `predict-scores`, `density`, `advise` and `footprint`, as a person runs them.

mod common;

use common::Desk;

/// Item scores of models whose compute doubles: half of the items rise by the law, half stay unsolved.
fn item_scores(models: i32) -> String {
    let mut lines = String::new();
    for step in 0..models {
        let compute = 1e15 * 2f64.powi(step);
        let rate = |item: i32| {
            let a = 1.2 + 0.01 * f64::from(item % 7);
            if item < 30 { f64::exp(-a * 2f64.powi(step).powf(-0.3)) } else { 0.0 }
        };
        let scores: Vec<String> = (0..60).map(|item| format!("{:.6}", rate(item))).collect();
        lines += &format!(
            "{{\"model\": \"m{step}\", \"compute\": {compute}, \"scores\": [{}]}}\n",
            scores.join(", ")
        );
    }
    lines
}

#[test]
fn a_score_is_forecast_and_compared() {
    let desk = Desk::new();
    desk.write("items.jsonl", item_scores(7));
    let found = desk.json(&["predict-scores", "items.jsonl", "--hold-out", "m6", "--samples", "20"]);
    let (score, measured) =
        (found["score"].as_f64().expect("score"), found["measured"].as_f64().expect("measured"));
    assert!((score - measured).abs() < 0.01, "{score} against {measured}");
    assert_eq!(found["mapped_by"], "same-family");
    assert_eq!(found["models"].as_array().map(Vec::len), Some(6));
    let text = desk.ok(&["predict-scores", "items.jsonl", "--target", "6.4e16", "--samples", "20"]);
    assert!(text.contains("not better than guessing yet") && text.contains("50.00 % of the items"), "{text}");
    let ran = desk.run(&["predict-scores", "items.jsonl", "--target", "1e18", "--samples", "5"]);
    assert!(ran.stderr.contains("more than 10 times"), "{}", ran.stderr);
}

#[test]
fn what_can_t_be_forecast_exits_with_1_and_bad_files_with_2() {
    let desk = Desk::new();
    let flat = item_scores(6).lines().map(|line| line.to_string()).collect::<Vec<_>>();
    let zeros: Vec<String> = (flat.iter())
        .map(|line| {
            let head = line.split("\"scores\"").next().expect("a head");
            format!("{head}\"scores\": [{}]}}", vec!["0"; 60].join(", "))
        })
        .collect();
    desk.write("flat.jsonl", zeros.join("\n"));
    let ran = desk.run(&["predict-scores", "flat.jsonl", "--target", "1e18"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("no part"), "{}", ran.stderr);
    desk.write("few.jsonl", item_scores(3));
    for (args, word) in [
        (["predict-scores", "few.jsonl", "--target", "1e18"], "four models"),
        (["predict-scores", "few.jsonl", "--hold-out", "m9"], "no model"),
        (["predict-scores", "nothing.jsonl", "--target", "1e18"], "nothing.jsonl"),
    ] {
        let error = desk.fails(&args);
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn models_are_rated_by_a_family() {
    let desk = Desk::new();
    let loss = |size: f64| 3.0 * size.powf(-0.2) + 0.1;
    let member = |size: f64| {
        format!("{{\"name\": \"r{size}\", \"size\": {size}, \"tokens\": 1e9, \"loss\": {}}}", loss(size))
    };
    let family: Vec<String> = [5e3, 2e4, 6e4, 2e5, 6e5].iter().map(|&size| member(size)).collect();
    let models: Vec<String> = (0..5)
        .map(|month| {
            let like = 2e4 * f64::exp(0.01 * 30.0 * f64::from(month));
            let month = month + 1;
            format!(
                "{{\"name\": \"m{month}\", \"size\": 2e4, \"loss\": {}, \"date\": \"2024-0{month}-01\"}}",
                loss(like)
            )
        })
        .collect();
    let table = format!("{{\"reference\": [{}], \"models\": [{}]}}", family.join(", "), models.join(", "));
    desk.write("models.json", &table);
    let found = desk.json(&["density", "models.json", "--samples", "20"]);
    let density = found["models"][2]["density"].as_f64().expect("a density");
    assert!((density / f64::exp(0.6) - 1.0).abs() < 0.03, "{density}");
    let per_day = found["trend"]["per_day"].as_f64().expect("a trend");
    assert!((per_day / 0.01 - 1.0).abs() < 0.05, "{per_day}");
    let text = desk.ok(&["density", "models.json", "--samples", "20"]);
    assert!(text.contains("twice as dense every"), "{text}");
    desk.write("bad.json", table.replace("2024-01-01", "2024-13-01"));
    assert!(desk.fails(&["density", "bad.json"]).contains("2024-13-01"));
    desk.write("bad.json", table.replace("\"size\": 2e4", "\"sise\": 2e4"));
    assert!(desk.fails(&["density", "bad.json"]).contains("sise"));
}

#[test]
fn advice_names_commands_and_what_stands_behind_them() {
    let desk = Desk::new();
    let found = desk.json(&["advise", "--limit", "memory", "--stage", "inference", "--tuning-free"]);
    let all = found["techniques"].as_array().expect("techniques");
    let of = |id: &str| all.iter().find(|it| it["id"] == id).unwrap_or_else(|| panic!("{id} is missing"));
    assert_eq!(of("8-bit")["evidence"]["standing"], "paper-only");
    assert_eq!(of("structured")["evidence"]["standing"], "not-built");
    assert!(all.iter().all(|it| it["needs_training"] == false));
    // One row of evidence is enough to see figures.
    let evidence = r#"{"method": 3, "seed": 1, "baseline": "as it is", "rows": [
        {"label": "as it is", "values": [{"name": "file", "value": 100.0, "unit": "bytes"}]},
        {"label": "8-bit", "values": [{"name": "file", "value": 53.0, "unit": "bytes"}]}],
        "expectations": [{"text": "a", "measured": "b", "holds": true}], "notes": [],
        "cost": {"seconds": 1.0, "peak_bytes": null}}"#;
    desk.write("evidence/003.json", evidence);
    let text = desk.ok(&["advise", "--class", "quantization", "--tuning-free", "--evidence", "evidence"]);
    assert!(text.contains("file ×0.53 (measured, method 3)"), "{text}");
    let nothing =
        desk.run(&["advise", "--class", "pruning", "--built", "--limit", "network", "--stage", "serving"]);
    assert_eq!(nothing.code, 1, "{}", nothing.stdout);
    assert!(desk.run(&["advise", "--stage", "cooking"]).code == 2);
    assert!(desk.run(&["advise", "--memory", "2G"]).code == 2, "a limit needs a model");
}

#[test]
fn plans_keep_limits_and_say_so_where_none_does() {
    let desk = Desk::new();
    let found = desk.json(&["advise", "builtin", "--memory", "4M", "--context", "256"]);
    let first = &found["plans"][0];
    assert!(
        first["fits"] == true && first["bytes"].as_u64().is_some_and(|bytes| bytes <= 4 << 20),
        "{first}"
    );
    let command = first["steps"][0]["command"].as_str().expect("a command");
    assert!(command.starts_with("ounce quantize builtin "), "{command}");
    let training =
        desk.json(&["advise", "builtin", "--stage", "training", "--memory", "100M", "--context", "128"]);
    assert!(
        training["plans"][0]["steps"][0]["command"].as_str().is_some_and(|it| it.starts_with("ounce train"))
    );
    let none = desk.run(&["advise", "builtin", "--memory", "1K"]);
    assert!(
        none.code == 1 && none.stdout.contains("No plan keeps the limits; the nearest"),
        "{}",
        none.stdout
    );
}

#[test]
fn the_file_is_as_large_as_the_advisor_says() {
    let desk = Desk::new();
    let found = desk.json(&["advise", "builtin", "--disk", "1G", "--context", "1"]);
    let plans = found["plans"].as_array().expect("plans");
    let eight =
        plans.iter().find(|it| it["what"].as_str().is_some_and(|it| it.starts_with("q8_0"))).expect("8 bits");
    let what = eight["what"].as_str().expect("words");
    let planned = desk.json(&[
        "quantize",
        "builtin",
        "-o",
        "x.gguf",
        "--type",
        "q8_0",
        "--method",
        "round",
        "--dry-run",
    ]);
    let bytes = planned["bytes"].as_f64().expect("bytes");
    assert!(what.contains(&format!("{:.2} MiB of file", bytes / f64::from(1 << 20))), "{what}: {bytes}");
}

#[test]
fn runs_are_accounted_for() {
    let desk = Desk::new();
    let args = [
        "footprint",
        "--seconds",
        "3600",
        "--watts",
        "1000",
        "--region",
        "FR",
        "--pue",
        "1.5",
        "--price",
        "0.2",
    ];
    let found = desk.json(&args);
    let figure = |name: &str| found["footprint"][name].as_f64().unwrap_or_else(|| panic!("{name}: {found}"));
    assert!((figure("kwh") - 1.5).abs() < 1e-9 && (figure("co2_grams") - 84.0).abs() < 1e-6);
    assert!((figure("cost") - 0.3).abs() < 1e-9, "{found}");
    for (more, word) in [
        (["--pue", "0.5"], "PUE"),
        (["--region", "Atlantis"], "no region"),
        (["--saves", "0"], "--saves"),
        (["--idle-watts", "900"], "from idle up to full"),
    ] {
        let error = desk.fails(&[&["footprint", "--seconds", "1", "--watts", "1"][..], &more[..]].concat());
        assert!(error.contains(word), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_command_is_run_and_measured() {
    let desk = Desk::new();
    let ounce = env!("CARGO_BIN_EXE_ounce");
    let ran = desk.run(&["footprint", "--json", "--", ounce, "methods", "20"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let found: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON alone on stdout");
    assert!(ran.stderr.contains("L-Mul"), "what the command prints goes to stderr");
    assert!(found["reading"]["joules"].as_f64().is_some_and(|it| it > 0.0) && found["exit_code"] == 0);
    let failed = desk.run(&["footprint", "--", ounce, "methods", "999"]);
    assert_eq!(failed.code, 1);
    assert!(failed.stdout.contains("CO2") && failed.stderr.contains("exit code 2"), "{}", failed.stderr);
    let error = desk.fails(&["footprint", "--", "no-such-program-here"]);
    assert!(error.contains("can't be started"), "{error}");
}
