//! `ounce labels`: labels from several labellers, by what they agree on (CrisisHelpOffer, method 1).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use ounce_model::storage::AtomicFile;
use ounce_train::data::ReadOptions;
use ounce_train::data::agreement::kappa::{Z95, cohen, fleiss, krippendorff, wilson};
use ounce_train::data::agreement::{Rule, Verdict, Vote, decide, duplicates, stratified};
use ounce_train::data::labelled;
use ounce_train::data::readers::{Content, Record, Records};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cli::Globals;
use crate::failure::Outcome;
use crate::output;

/// Join the labels of several labellers: what they agree on, what a person should decide, what to audit
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce labels posts.jsonl --votes a.jsonl --votes b.jsonl --votes c.jsonl -o ./labelled
  ounce labels posts.jsonl --votes a.jsonl --votes b.jsonl --votes c.jsonl -o ./labelled --share 0.667 --confidence 0.8
  ounce labels --audited ./labelled/audit.jsonl
Texts are records with `text`, `id` (else their number from 1 counts) and maybe a column to split by. A file of votes is
one labeller's, named as the file: records with `id`, `label` and maybe `confidence` from 0 to 1. Texts that repeat
earlier ones leave. FOLDER gets agreed.jsonl, adjudicate.jsonl and audit.jsonl. Whoever audits fills in `human` with the
right label; --audited then says how precise each label is, with an interval of 95 %.")]
pub struct Args {
    /// The texts: JSONL, JSON, CSV, TSV or Parquet
    #[arg(value_name = "TEXTS", required_unless_present = "audited")]
    texts: Vec<PathBuf>,
    /// One labeller's votes; give two or more
    #[arg(long, value_name = "FILE", required_unless_present = "audited")]
    votes: Vec<PathBuf>,
    /// The folder for the three files
    #[arg(short, long, value_name = "FOLDER", required_unless_present = "audited")]
    output: Option<PathBuf>,
    /// The part of labellers that must give a label for it to be kept, above 0.5
    #[arg(long, value_name = "PART", default_value_t = 1.0)]
    share: f64,
    /// Where not all give it: the least mean confidence of those that do
    #[arg(long, value_name = "C", default_value_t = 0.0)]
    confidence: f64,
    /// Texts this similar to an earlier one leave; 1 for equal ones only
    #[arg(long, value_name = "SIMILARITY", default_value_t = 0.8)]
    near: f64,
    /// Texts of each label for the audit
    #[arg(long, value_name = "N", default_value_t = 200)]
    audit: usize,
    /// The part held out for tests; 0 for none
    #[arg(long, value_name = "PART", default_value_t = 0.1)]
    held_out: f64,
    /// Column whose equal values stay on one side of the split, such as an event
    #[arg(long, value_name = "COLUMN")]
    group: Option<String>,
    /// Decides the split and the audit
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
    /// Report on a file of the audit in which `human` is filled in
    #[arg(long, value_name = "FILE", conflicts_with_all = ["texts", "votes", "output"])]
    audited: Option<PathBuf>,
}

/// A text with its votes.
struct Text {
    id: String,
    text: String,
    group: String,
    /// By labeller.
    votes: Vec<Option<Vote>>,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    texts: usize,
    repeated: usize,
    /// Kept, by label.
    agreed: BTreeMap<String, usize>,
    adjudicate: usize,
    audit: usize,
    /// Texts that some labeller left out.
    incomplete: usize,
    fleiss_kappa: f64,
    krippendorff_alpha: f64,
    pairs: Vec<Pair>,
    output: PathBuf,
}

/// Two labellers.
#[derive(Debug, Serialize)]
struct Pair {
    labellers: [String; 2],
    texts: usize,
    cohen_kappa: f64,
}

/// What an audit says of a label.
#[derive(Debug, Serialize)]
struct Precision {
    label: String,
    audited: usize,
    right: usize,
    precision: f64,
    interval: [f64; 2],
}

/// Runs the command.
///
/// # Errors
/// If files can't be read, votes do not belong to texts, or options make no sense.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    if let Some(path) = &args.audited {
        return audited(path, globals);
    }
    let rule = Rule { share: args.share, confidence: args.confidence };
    rule.check()?;
    ensure!(
        args.near > 0.0 && args.near <= 1.0,
        "--near should be above 0 and at most 1, found {}",
        args.near
    );
    ensure!(
        (0.0..1.0).contains(&args.held_out),
        "--held-out should be from 0 to below 1, found {}",
        args.held_out
    );
    ensure!(args.votes.len() > 1, "agreement needs two labellers or more; give --votes once for each");
    let Some(output) = &args.output else { bail!("name the folder for the results with -o") };
    let files = ["agreed.jsonl", "adjudicate.jsonl", "audit.jsonl"].map(|name| output.join(name));
    if let Some(path) = files.iter().find(|path| path.exists() && !args.force) {
        bail!("{} exists; --force replaces it", path.display());
    }
    let labellers = names(&args.votes)?;
    let (mut texts, labels) = read(&args)?;
    let all = texts.len();
    let repeats =
        duplicates::repeated(&texts.iter().map(|it| it.text.as_str()).collect::<Vec<_>>(), args.near);
    let mut repeats = repeats.into_iter();
    texts.retain(|_| repeats.next().flatten().is_none());
    let incomplete = texts.iter().filter(|it| it.votes.contains(&None)).count();
    let (kept, open) = verdicts(&texts, rule);
    let sample = stratified(&kept.iter().map(|(_, it)| it.label).collect::<Vec<_>>(), args.audit, args.seed);
    let tests = held_out(&texts, &kept, &args)?;
    let row = |at: usize, label: &str, verdict: Option<Verdict>| {
        let text = &texts[at];
        let votes: Map<String, Value> = labellers
            .iter()
            .zip(&text.votes)
            .filter_map(|(name, vote)| Some((name.clone(), json!(labels[(*vote)?.label]))))
            .collect();
        json!({
            "id": text.id,
            "text": text.text,
            label: verdict.map(|it| labels[it.label].as_str()),
            "votes": votes,
            "agreement": verdict.map(|it| it.agreement),
        })
    };
    std::fs::create_dir_all(output).with_context(|| format!("{} can't be made", output.display()))?;
    write(
        &files[0],
        kept.iter().map(|&(at, verdict)| {
            let mut row = row(at, "label", Some(verdict));
            row["split"] = json!(if tests.contains(&texts[at].group) { "test" } else { "train" });
            row
        }),
    )?;
    write(&files[1], open.iter().map(|&(at, verdict)| row(at, "leading", verdict)))?;
    write(
        &files[2],
        sample.iter().map(|&number| {
            let (at, verdict) = kept[number];
            json!({"id": texts[at].id, "text": texts[at].text, "label": labels[verdict.label], "human": ""})
        }),
    )?;
    let mut agreed: BTreeMap<String, usize> = labels.iter().map(|label| (label.clone(), 0)).collect();
    kept.iter().for_each(|(_, it)| *agreed.entry(labels[it.label].clone()).or_default() += 1);
    let report = Report {
        texts: all,
        repeated: all - texts.len(),
        agreed,
        adjudicate: open.len(),
        audit: sample.len(),
        incomplete,
        fleiss_kappa: fleiss(&counts(&texts, labels.len())),
        krippendorff_alpha: krippendorff(&counts(&texts, labels.len())),
        pairs: pairs(&texts, &labellers),
        output: output.clone(),
    };
    if globals.json {
        output::json(&report)?
    } else {
        print(&report)?
    }
    Ok(Outcome::Done)
}

/// Labellers are called as their files.
fn names(paths: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let name =
        |path: &PathBuf| path.file_stem().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
    let names: Vec<String> = paths.iter().map(name).collect();
    for (at, name) in names.iter().enumerate() {
        ensure!(
            !names[..at].contains(name),
            "two labellers are called {name}; give their files different names"
        );
    }
    Ok(names)
}

/// A record's columns.
fn fields(record: Record) -> anyhow::Result<(String, Map<String, Value>)> {
    let place = record.place.to_string();
    match record.content {
        Content::Fields(fields) => Ok((place, fields)),
        Content::Text(_) => {
            bail!("{place}: is plain text; records with columns are needed, such as JSON lines")
        }
    }
}

/// A text or number as text.
fn word(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// Texts with their votes, and the names of labels.
fn read(args: &Args) -> anyhow::Result<(Vec<Text>, Vec<String>)> {
    let mut texts: Vec<Text> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for record in Records::open(&args.texts, &ReadOptions::default())? {
        let (place, fields) = fields(record?)?;
        let id = word(fields.get("id")).unwrap_or_else(|| (texts.len() + 1).to_string());
        let text =
            word(fields.get("text")).with_context(|| format!("{place}: has no text in a column `text`"))?;
        let group = match &args.group {
            Some(column) => word(fields.get(column.as_str()))
                .with_context(|| format!("{place}: has nothing in the column {column} to split by"))?,
            None => id.clone(),
        };
        ensure!(places.insert(id.clone(), texts.len()).is_none(), "{place}: the id {id} was there before");
        texts.push(Text { id, text, group, votes: vec![None; args.votes.len()] });
    }
    let mut found: Vec<(usize, usize, String, Option<f64>)> = Vec::new();
    for (labeller, path) in args.votes.iter().enumerate() {
        for record in Records::open(std::slice::from_ref(path), &ReadOptions::default())? {
            let (place, fields) = fields(record?)?;
            let id = word(fields.get("id")).with_context(|| format!("{place}: has no id"))?;
            let label = word(fields.get("label")).with_context(|| format!("{place}: has no label"))?;
            let &text =
                places.get(&id).with_context(|| format!("{place}: there is no text with the id {id}"))?;
            let confidence = fields.get("confidence").and_then(Value::as_f64);
            ensure!(
                confidence.is_none_or(|it| (0.0..=1.0).contains(&it)),
                "{place}: a confidence should be from 0 to 1"
            );
            found.push((labeller, text, label, confidence));
        }
    }
    let labels = labelled::texts::names(found.iter().map(|(_, _, label, _)| label.as_str()));
    let numbers: HashMap<&str, usize> =
        labels.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    for (labeller, text, label, confidence) in &found {
        let vote = Vote { label: numbers[label.as_str()], confidence: *confidence };
        let id = &texts[*text].id;
        ensure!(
            texts[*text].votes[*labeller].is_none(),
            "{}: votes twice on the text {id}",
            args.votes[*labeller].display()
        );
        texts[*text].votes[*labeller] = Some(vote);
    }
    Ok((texts, labels))
}

type Decided = (Vec<(usize, Verdict)>, Vec<(usize, Option<Verdict>)>);

/// Texts whose label is kept, and the others. A single vote agrees with nobody.
fn verdicts(texts: &[Text], rule: Rule) -> Decided {
    let (mut kept, mut open) = (Vec::new(), Vec::new());
    for (at, text) in texts.iter().enumerate() {
        let votes: Vec<Vote> = text.votes.iter().flatten().copied().collect();
        match decide(&votes, rule) {
            Some(verdict) if verdict.kept && votes.len() > 1 => kept.push((at, verdict)),
            verdict => open.push((at, verdict)),
        }
    }
    (kept, open)
}

/// Groups that are held out.
fn held_out(texts: &[Text], kept: &[(usize, Verdict)], args: &Args) -> anyhow::Result<BTreeSet<String>> {
    if args.held_out == 0.0 || kept.is_empty() {
        return Ok(Default::default());
    }
    let groups: BTreeSet<&str> = kept.iter().map(|(at, _)| texts[*at].group.as_str()).collect();
    let groups: Vec<String> = groups.into_iter().map(str::to_string).collect();
    let count = groups.len();
    let (_, held) = labelled::split(groups, args.held_out, args.seed, String::clone).with_context(|| {
        format!("{count} groups can't be split; give another --seed, --held-out 0, or another --group")
    })?;
    Ok(held.into_iter().collect())
}

/// How many labellers gave each label, a row a text.
fn counts(texts: &[Text], labels: usize) -> Vec<Vec<usize>> {
    let count =
        |text: &Text, label: usize| text.votes.iter().flatten().filter(|vote| vote.label == label).count();
    texts.iter().map(|text| (0..labels).map(|label| count(text, label)).collect()).collect()
}

/// Cohen's kappa of every two labellers, on texts that both have labelled.
fn pairs(texts: &[Text], labellers: &[String]) -> Vec<Pair> {
    let mut all = Vec::new();
    for (b, second) in labellers.iter().enumerate() {
        for (a, first) in labellers[..b].iter().enumerate() {
            let both = texts.iter().filter_map(|text| Some((text.votes[a]?.label, text.votes[b]?.label)));
            let (of_a, of_b): (Vec<usize>, Vec<usize>) = both.unzip();
            let labellers = [first.clone(), second.clone()];
            all.push(Pair { labellers, texts: of_a.len(), cohen_kappa: cohen(&of_a, &of_b) });
        }
    }
    all
}

/// Writes JSON lines, all or none.
fn write(path: &Path, rows: impl Iterator<Item = Value>) -> anyhow::Result<()> {
    let mut file = AtomicFile::create(path)?;
    for row in rows {
        writeln!(file, "{row}").with_context(|| format!("{} can't be written", path.display()))?;
    }
    Ok(file.commit()?)
}

/// What an audit says.
fn audited(path: &Path, globals: &Globals) -> anyhow::Result<Outcome> {
    let mut of_label: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for record in Records::open(&[path.to_path_buf()], &ReadOptions::default())? {
        let (place, fields) = fields(record?)?;
        let label = word(fields.get("label")).with_context(|| format!("{place}: has no label"))?;
        let Some(human) = word(fields.get("human")) else { continue };
        let (right, all) = of_label.entry(label.clone()).or_default();
        *right += usize::from(human.trim() == label);
        *all += 1;
    }
    ensure!(!of_label.is_empty(), "{}: `human` is filled in nowhere", path.display());
    let precisions: Vec<Precision> = of_label
        .into_iter()
        .map(|(label, (right, audited))| Precision {
            label,
            audited,
            right,
            precision: right as f64 / audited as f64,
            interval: wilson(right, audited, Z95),
        })
        .collect();
    if globals.json {
        output::json(&precisions)?;
        return Ok(Outcome::Done);
    }
    let mut table = output::table(&["label", "audited", "right", "precision", "95 % interval"]);
    for it in &precisions {
        let [low, high] = it.interval;
        table.add_row([
            it.label.clone(),
            it.audited.to_string(),
            it.right.to_string(),
            format!("{:.1} %", 100.0 * it.precision),
            format!("{:.1} to {:.1} %", 100.0 * low, 100.0 * high),
        ]);
    }
    output::print_table(&table)?;
    Ok(Outcome::Done)
}

fn print(report: &Report) -> anyhow::Result<()> {
    let mut table = output::table(&["label", "agreed"]);
    for (label, count) in &report.agreed {
        table.add_row([label.clone(), count.to_string()]);
    }
    output::print_table(&table)?;
    for Pair { labellers: [a, b], texts, cohen_kappa } in &report.pairs {
        output::line(format!("Cohen's kappa of {a} and {b}: {cohen_kappa:.3} on {texts} texts"))?;
    }
    output::line(format!(
        "Fleiss' kappa: {:.3}; Krippendorff's alpha: {:.3}",
        report.fleiss_kappa, report.krippendorff_alpha
    ))?;
    if report.incomplete > 0 {
        output::line(format!("{} texts lack a labeller's vote", report.incomplete))?;
    }
    output::line(format!(
        "{} texts, {} of them repeat others; {} to be decided by a person, {} to be audited; files in {}",
        report.texts,
        report.repeated,
        report.adjudicate,
        report.audit,
        report.output.display()
    ))
}
