//! `ounce plan`, `compress` and `fit` as a user runs them: a budget is planned for, met, missed, and refused.

mod common;

use common::{Desk, corpus};
use serde_json::Value;

/// A little work, so that tests are soon done; two seconds leave time for a trial at least.
const LITTLE: [&str; 4] = ["--calibration-tokens", "4096", "--time", "2s"];

fn plan(desk: &Desk, more: &[&str]) -> Value {
    desk.json(&[&["plan", "builtin-tiny"][..], &LITTLE, more].concat())
}

fn candidates(plan: &Value) -> &[Value] {
    plan["candidates"].as_array().expect("candidates")
}

#[test]
fn a_plan_meets_what_was_asked_and_its_recipe_gives_the_file_that_was_told() {
    let desk = Desk::measured();
    let plan = plan(&desk, &["--disk", "400K", "--quality", "kl<0.5", "-o", "recipe.toml"]);
    let chosen = &candidates(&plan)[plan["chosen"].as_u64().expect("a choice") as usize];
    let told = chosen["costs"]["disk"].as_u64().expect("bytes");
    assert!(told <= 400 << 10, "{chosen}");
    assert!(chosen["misses"].as_array().is_some_and(Vec::is_empty));
    // Nothing that was tried and fits is better.
    let kl = |it: &Value| it["expected"]["kl"].as_f64();
    let fits = |it: &&Value| it["misses"].as_array().is_some_and(Vec::is_empty);
    let tried = |it: &&Value| it["expected"]["basis"] != "sensitivities";
    let best =
        candidates(&plan).iter().filter(fits).filter(tried).filter_map(kl).fold(f64::INFINITY, f64::min);
    assert_eq!(kl(chosen), Some(best));
    assert!(candidates(&plan).iter().any(|it| !fits(&it)), "the whole model is too large");
    let recipe = std::fs::read_to_string(desk.path("recipe.toml")).expect("a recipe");
    assert!(recipe.starts_with("# ") && recipe.contains("do = \"quantize\""), "{recipe}");
    desk.ok(&["compress", "builtin-tiny", "--recipe", "recipe.toml", "-o", "small.gguf"]);
    assert_eq!(std::fs::metadata(desk.path("small.gguf")).expect("a file").len(), told);
    let again = desk.fails(&["compress", "builtin-tiny", "--recipe", "recipe.toml", "-o", "small.gguf"]);
    assert!(again.contains("--force"), "{again}");
}

#[test]
fn a_fit_is_measured_and_reported() {
    let desk = Desk::measured();
    desk.write("test.txt", corpus(30));
    let fit = [&["fit", "builtin-tiny", "-o", "small.gguf", "--disk", "400K", "--memory", "4G"][..], &LITTLE];
    let report = desk.json(&[&fit.concat()[..], &["--test", "test.txt"]].concat());
    assert_eq!(report["met"], true, "{report}");
    let rows = report["rows"].as_array().expect("rows");
    let row = |name: &str| rows.iter().find(|it| it["limit"] == name).unwrap_or_else(|| panic!("{name}"));
    // Bytes are told exactly; memory and times are measured.
    assert_eq!(row("disk")["error"].as_f64(), Some(0.0));
    assert!(row("memory")["measured"].as_f64().is_some_and(|it| it > 1e6));
    assert!(row("per_token")["measured"].as_f64().is_some_and(|it| it > 0.0));
    assert!(report["quality"]["mean_kl"]["value"].as_f64().is_some_and(|it| it < 0.5));
    assert_eq!(report["samples"].as_array().map(Vec::len), Some(3));
    let page = std::fs::read_to_string(desk.path("small.report/report.html")).expect("a page");
    // It asks nobody for anything.
    assert!(
        !page.contains("src=") && !page.contains("http") && !page.contains("<script"),
        "outside requests"
    );
    for part in ["meets its budget", "prefers-color-scheme", "<svg", "Roofline", "Recipe"] {
        assert!(page.contains(part), "{part}");
    }
    let kept: Value =
        serde_json::from_slice(&std::fs::read(desk.path("small.report/report.json")).expect("data"))
            .expect("JSON");
    assert_eq!(kept["target"], "small.gguf");
    desk.ok(&["compress", "builtin-tiny", "--recipe", "small.report/recipe.toml", "-o", "again.gguf"]);
    let bytes = |name: &str| std::fs::read(desk.path(name)).expect("a file");
    assert!(bytes("again.gguf") == bytes("small.gguf"), "the recipe gives the same file");
}

#[test]
fn impossible_budgets_end_at_once_with_the_nearest() {
    let desk = Desk::measured();
    let ran = desk.run(&["fit", "builtin-tiny", "-o", "x.gguf", "--disk", "20K"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stdout.contains("no candidate meets this budget") && ran.stdout.contains("the nearest is"));
    assert!(!desk.path("x.gguf").exists() && !desk.path("x.report").exists());
    let plan = desk.run(&["plan", "builtin-tiny", "--memory", "1M", "--json"]);
    let found: Value = serde_json::from_str(&plan.stdout).expect("JSON");
    assert!(plan.code == 1 && found["chosen"].is_null() && found["nearest"].is_u64());
    // The smallest that exists is a candidate, so that nothing possible is refused.
    let smallest = candidates(&found).iter().min_by_key(|it| it["costs"]["disk"].as_u64()).expect("some");
    let name = smallest["name"].as_str().expect("a name");
    assert_eq!(name, "50 % cut, q2_k everywhere");
}

#[test]
fn what_is_too_large_in_few_bits_is_cut_first() {
    let desk = Desk::measured();
    desk.write("test.txt", corpus(30));
    // Less than the smallest format takes of the whole model.
    let asked = [
        "fit",
        "builtin-tiny",
        "--disk",
        "260K",
        "--calibration-tokens",
        "8192",
        "--test",
        "test.txt",
        "--no-heal",
    ];
    let ran =
        desk.run(&[&asked[..], &["-o", "x.gguf", "--techniques", "quantize", "--time", "60s"]].concat());
    assert!(ran.code == 1 && ran.stdout.contains("no candidate meets this budget"), "{}", ran.stderr);
    let report = desk.json(&[&asked[..], &["-o", "small.gguf", "--time", "60s"]].concat());
    assert_eq!(report["met"], true, "{report}");
    let steps = report["recipe"]["step"].as_array().expect("steps");
    assert!(steps[0]["do"] == "prune" && steps[1]["do"] == "quantize", "{steps:?}");
    assert!(report["chosen"].as_str().is_some_and(|it| it.contains("% cut, ")), "{}", report["chosen"]);
    let disk =
        report["rows"].as_array().expect("rows").iter().find(|it| it["limit"] == "disk").expect("disk");
    assert_eq!(disk["error"].as_f64(), Some(0.0), "bytes are told exactly, whatever steps lie between");
    assert!(disk["measured"].as_f64().is_some_and(|it| it <= f64::from(260 << 10)), "{disk}");
    // What the trial told is what was measured, roughly: the final cut has more text to go by.
    let told =
        candidates(&report["plan"]).iter().find(|it| it["name"] == report["chosen"]).expect("the choice");
    let (told, found) = (told["expected"]["kl"].as_f64(), report["quality"]["mean_kl"]["value"].as_f64());
    let ratio = found.zip(told).map(|(found, told)| found / told);
    assert!(ratio.is_some_and(|it| (0.3..3.0).contains(&it)), "{found:?} {told:?}");
}

#[test]
fn factors_are_candidates_where_they_are_asked_for() {
    let desk = Desk::measured();
    // Less than the smallest format takes of the whole model: something has to leave.
    let asked = ["plan", "builtin-tiny", "--disk", "270K", "--techniques", "quantize,factorize"];
    let little = ["--calibration-tokens", "4096", "--time", "20s", "-o", "r.toml", "--json"];
    let ran = desk.run(&[&asked[..], &little].concat());
    let found: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let thin = |it: &&Value| it["name"].as_str().is_some_and(|it| it.starts_with("factors of "));
    let one = candidates(&found).iter().find(thin).unwrap_or_else(|| panic!("no factors: {found}"));
    assert_eq!(one["recipe"]["step"][0]["do"], "factorize");
    assert!(one["costs"]["per_token"].as_f64().is_some_and(|it| it > 0.0));
    assert!(one["expected"]["kl"].as_f64().is_some_and(|it| it > 0.0));
    if ran.code == 0 {
        let told = &candidates(&found)[found["chosen"].as_u64().expect("a place") as usize]["costs"]["disk"];
        desk.ok(&["compress", "builtin-tiny", "--recipe", "r.toml", "-o", "small.gguf", "--no-test"]);
        let bytes = std::fs::metadata(desk.path("small.gguf")).expect("a file").len();
        assert_eq!(told.as_u64(), Some(bytes));
    }
}

#[test]
fn what_misses_quality_alone_is_trained() {
    let desk = Desk::measured();
    let asked = ["builtin-tiny", "--disk", "290K", "--quality", "kl<0.002", "--techniques", "quantize"];
    let little = ["--calibration-tokens", "3072", "--time", "20s"];
    let plan = desk.run(&[&["plan"][..], &asked, &little, &["--json"]].concat());
    let found: Value = serde_json::from_str(&plan.stdout).expect("JSON");
    assert!(plan.code == 1 && found["chosen"].is_null(), "{found}");
    let place = found["trainable"].as_u64().expect("one that misses quality alone") as usize;
    assert_eq!(candidates(&found)[place]["misses"][0]["limit"], "quality");
    let fit = |more: &[&str]| {
        let ran = desk.run(&[&["fit", "-o", "x.gguf", "--json"][..], &asked, &little, more].concat());
        let report: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        (ran.code, report)
    };
    let (code, report) = fit(&["--no-heal"]);
    assert!(code == 1 && report["met"] == false && !desk.path("x.gguf").exists());
    let (code, report) = fit(&[]);
    assert_eq!(code, i32::from(report["met"] == false));
    let kl = |it: &Value| it["mean_kl"]["value"].as_f64().expect("a loss");
    assert!(kl(&report["quality"]) < kl(&report["untrained"]), "{report}");
    assert_eq!(report["recipe"]["step"][0]["train"], "both");
}

#[test]
fn what_is_wrong_is_said_before_anything_is_done() {
    let desk = Desk::measured();
    let said = |args: &[&str], part: &str| {
        let text = desk.fails(args);
        assert!(text.contains(part), "{args:?}: {text}");
    };
    said(&["plan", "builtin-tiny"], "--memory");
    said(&["plan", "builtin-tiny", "--per-token", "20"], "20ms");
    said(&["plan", "builtin-tiny", "--quality", "good"], "kl<0.05");
    said(&["plan", "builtin-tiny", "--disk", "1M", "--context", "999999"], "positions");
    said(&["plan", "builtin-tiny", "--disk", "1M", "--prompt", "0"], "--prompt");
    said(&["plan", "builtin-encoder", "--disk", "1M"], "encoder");
    said(&["fit", "builtin-tiny", "-o", "a.gguf", "--disk", "1M", "--no-test"], "test text");
    desk.write("a.gguf", "mine");
    said(&["fit", "builtin-tiny", "-o", "a.gguf", "--disk", "1M"], "--force");
    let recipe = |text: &str, part: &str| {
        desk.write("r.toml", text);
        said(&["compress", "builtin-tiny", "--recipe", "r.toml", "-o", "b.gguf"], part);
        assert!(!desk.path("b.gguf").exists());
    };
    recipe("[[step]]\ndo = \"quantise\"\n", "did you mean \"quantize\"");
    recipe("[[step]]\ndo = \"quantize\"\ntipe = \"q4_0\"\n", "--type");
    recipe("[[step]]\ndo = \"quantize\"\ntype = \"q9\"\n", "step 1 (quantize)");
    recipe(
        "[[step]]\ndo = \"quantize\"\ntype = \"q8_0\"\n[[step]]\ndo = \"convert\"\nbits = 3\n",
        "step 2 (convert)",
    );
    recipe("", "no [[step]]");
}

#[test]
fn steps_follow_each_other() {
    let desk = Desk::measured();
    desk.write(
        "two.toml",
        "[[step]]\ndo = \"convert\"\ndtype = \"f16\"\n[[step]]\ndo = \"quantize\"\ntype = \"q8_0\"\nmethod = \"round\"\n",
    );
    desk.ok(&["compress", "builtin-tiny", "--recipe", "two.toml", "-o", "two.gguf"]);
    desk.ok(&["run", "two.gguf", "Once upon a time", "-n", "4"]);
    let entries: Vec<_> = std::fs::read_dir(desk.path(".")).expect("folder").flatten().collect();
    assert!(!entries.iter().any(|it| it.file_name().to_string_lossy().starts_with(".two")), "{entries:?}");
}
