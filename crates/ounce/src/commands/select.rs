//! `ounce select`: the part of instruction data that is worth training on (CodeACT, method 4).

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use ounce_engine::Engine;
use ounce_model::Model;
use ounce_model::storage::AtomicFile;
use ounce_train::data::encode::Sequence;
use ounce_train::data::readers::{Content, Record, Records};
use ounce_train::data::select::{Judgement, SelectSettings, Selection, centre, judge, select};
use ounce_train::data::{Encoder, Form, Limits, ReadOptions};
use ounce_train::net::{Net, Options};
use serde::Serialize;
use serde_json::json;

use super::embed;
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source, units};

/// Answers of fewer tokens make a ratio that is mostly noise.
const SHORT: usize = 4;

/// Keep the hard and varied part of instruction data
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce select ./my-model instructions.jsonl -o selected.jsonl
  ounce select ./my-model data/ -o selected.jsonl --ratio 0.2 --clusters 20 --scores scores.jsonl
  ounce select ./my-model set.parquet -o selected.jsonl --embedder ./all-MiniLM-L6-v2
MODEL is the one that is to be trained. How hard a record is: the perplexity of its answer after the question over
that of the answer alone. From 1 on the question does not help, so the two do not belong together and the record is
dropped. Of the rest, grouped by what the questions mean, the hardest part of each group is kept. What a question
means is told by the embedder, or, without one, by the mean of MODEL's last layer over the question.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// Files, folders, or patterns in quotes: JSONL, JSON, CSV, TSV, Parquet, with the columns of instructions or chats
    #[arg(required = true, value_name = "DATA")]
    data: Vec<PathBuf>,
    /// The file that gets the kept records, as JSON lines
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The part of each group that is kept
    #[arg(long, value_name = "PART", default_value_t = 0.4)]
    ratio: f64,
    /// Groups
    #[arg(long, value_name = "N", default_value_t = 10)]
    clusters: usize,
    /// Decides where the groups begin
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// A sentence encoder that tells what questions mean, in place of MODEL
    #[arg(long, value_name = "MODEL")]
    embedder: Option<String>,
    /// Write what was found for each record to this file, as JSON lines
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    /// Tokens of a record at most; longer ones are cut at their end. 0 for the model's positions
    #[arg(long, value_name = "N", default_value_t = 0)]
    context: usize,
    /// Tokens that go through the model at once; lower it if memory runs out
    #[arg(long, value_name = "N", default_value_t = 4096)]
    batch: usize,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    records: usize,
    kept: usize,
    /// Dropped because the question does not help.
    mismatched: usize,
    /// Left out before: no question, or an answer too short to be measured.
    skipped: usize,
    /// Answers of so few tokens that their ratio is mostly noise.
    short_answers: usize,
    /// What told what questions mean.
    vectors: String,
    clusters: Vec<Cluster>,
    tokens: u64,
    seconds: f64,
    output: PathBuf,
    scores: Option<PathBuf>,
}

/// One group.
#[derive(Debug, Default, Serialize)]
struct Cluster {
    records: usize,
    mismatched: usize,
    kept: usize,
    /// The least ratio that was kept.
    kept_from: Option<f64>,
}

/// A record that was judged, by its number.
struct Judged {
    record: usize,
    judgement: Judgement,
}

/// Runs the command.
///
/// # Errors
/// If the model is no decoder, the data has no answers, nothing is left, or a file can't be written.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    for path in [Some(&args.output), args.scores.as_ref()].into_iter().flatten() {
        ensure!(
            !path.exists() || args.force,
            "{} exists already; choose another name, or replace it with --force",
            path.display()
        );
    }
    let settings = SelectSettings { ratio: args.ratio, clusters: args.clusters, seed: args.seed };
    ensure!(settings.ratio > 0.0 && settings.ratio <= 1.0, "--ratio should be above 0 and at most 1");
    ensure!(settings.clusters > 0 && args.batch > 0, "--clusters and --batch should be 1 or more");
    // To the end, so that no half-written file is left.
    let watch = Watch::start();
    let mut judge = Judge::new(&args)?;
    let form = judge.read(&args.data, &watch)?;
    let Judge { mut judged, records, tokens, embedder, .. } = judge;
    ensure!(
        !judged.is_empty(),
        "none of the {records} records has a question and an answer that can be measured"
    );
    let mut vectors: Vec<Vec<f32>> =
        judged.iter_mut().map(|it| std::mem::take(&mut it.judgement.vector)).collect();
    if embedder.is_none() {
        centre(&mut vectors);
    }
    let loss = |index: usize| Ok(judged[index].judgement.loss);
    let vector = |index: usize| Ok(std::mem::take(&mut vectors[index]));
    let selection = select(judged.len(), loss, vector, &settings)?;
    let kept: Vec<usize> = selection.kept.iter().map(|&index| judged[index].record).collect();
    write_kept(&args, &kept, records, &watch)?;
    if let Some(path) = &args.scores {
        write_scores(path, records, &judged, &selection)?;
    }
    let report = Report {
        records,
        kept: kept.len(),
        mismatched: selection.misaligned,
        skipped: records - judged.len(),
        short_answers: judged.iter().filter(|it| it.judgement.tokens < SHORT).count(),
        vectors: args.embedder.clone().unwrap_or_else(|| args.model.clone()),
        clusters: clusters(&selection, settings.clusters),
        tokens,
        seconds: start.elapsed().as_secs_f64(),
        output: args.output.clone(),
        scores: args.scores.clone(),
    };
    tracing::info!("records are {form:?}");
    if globals.json {
        output::json(&report)?
    } else {
        print(&report)?
    }
    Ok(Outcome::Done)
}

/// Goes through the records and asks the model about each.
struct Judge {
    net: Net,
    encoder: Encoder,
    embedder: Option<Embedder>,
    /// What stands before an answer that is alone.
    begin: Option<u32>,
    /// Tokens of a batch.
    room: usize,
    records: usize,
    tokens: u64,
    judged: Vec<Judged>,
    /// Records that wait for the batch to be full: numbers, ids, vectors of the embedder.
    waiting: Vec<(usize, Sequence, Vec<f32>)>,
}

impl Judge {
    fn new(args: &Args) -> anyhow::Result<Judge> {
        let model = source::open(&args.model)?;
        ensure!(
            model.spec.causal && model.spec.classifier.is_none(),
            "{} writes no answers; select with the decoder that is to be trained",
            args.model
        );
        let tokenizer = source::tokenizer(&model)?.clone();
        let special = tokenizer.special();
        let begin = special.bos.or(special.eos.first().copied());
        let whole = model.spec.context_length;
        let context = if args.context == 0 { whole } else { args.context.min(whole) };
        let limits = Limits { max_length: context, ..Limits::default() };
        let encoder = Encoder::new(tokenizer, model.chat.clone(), limits)?;
        let embedder = args.embedder.as_deref().map(Embedder::open).transpose()?;
        let net = Net::with_frozen(&model, Options::default(), &|_| false)?;
        Ok(Judge {
            net,
            encoder,
            embedder,
            begin,
            room: args.batch,
            records: 0,
            tokens: 0,
            judged: Vec::new(),
            waiting: Vec::new(),
        })
    }

    /// Judges all records; gives what their columns mean.
    fn read(&mut self, paths: &[PathBuf], watch: &Watch) -> anyhow::Result<Form> {
        let mut records = Records::open(paths, &ReadOptions::default())?;
        let mut bar = Progress::new("judging", Unit::Bytes);
        let mut form: Option<Form> = None;
        let mut room = self.room;
        while let Some(record) = records.next().transpose()? {
            let own = match form.clone() {
                Some(form) => form,
                None => form.insert(form_of(&record)?).clone(),
            };
            let place = record.place.to_string();
            let example = own.example(record)?;
            let mut sequences = self.encoder.encode(&example).with_context(|| place.clone())?;
            let number = self.records;
            self.records += 1;
            if let Some(sequence) = sequences.pop().filter(Sequence::is_usable) {
                let question = example.question();
                let vector = match &self.embedder {
                    Some(embedder) if !question.trim().is_empty() => embedder.vector(&question)?,
                    _ => Vec::new(),
                };
                if sequence.ids.len() > room {
                    self.flush()?;
                    room = self.room;
                }
                room = room.saturating_sub(sequence.ids.len());
                self.waiting.push((number, sequence, vector));
            }
            bar.set(records.bytes_read(), records.bytes_total());
            watch.check()?;
        }
        self.flush()?;
        form.context("there is no record in the data; the files are empty")
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let (places, sequences): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|(record, sequence, vector)| ((record, vector), sequence)).unzip();
        let found = judge(&mut self.net, &sequences, self.begin)?;
        for ((record, vector), judgement) in places.into_iter().zip(found) {
            let Some(mut judgement) = judgement else { continue };
            if self.embedder.is_some() {
                if vector.is_empty() {
                    continue;
                }
                judgement.vector = vector;
            }
            self.judged.push(Judged { record, judgement });
        }
        self.tokens += sequences.iter().map(|it| it.ids.len() as u64).sum::<u64>();
        Ok(())
    }
}

/// What the columns mean; only questions with answers can be selected from.
fn form_of(record: &Record) -> anyhow::Result<Form> {
    let form = Form::detect(record)?;
    match form {
        Form::Text { .. } => {
            bail!(
                "{}: text has no questions and answers to select by; use instructions or chats",
                record.place
            )
        }
        Form::Preference => {
            bail!(
                "{}: choices between answers can't be selected from; use instructions or chats",
                record.place
            )
        }
        other => Ok(other),
    }
}

/// A sentence encoder.
struct Embedder {
    model: Model,
    engine: Engine,
    limit: usize,
}

impl Embedder {
    fn open(reference: &str) -> anyhow::Result<Embedder> {
        let model = source::open(reference)?;
        source::tokenizer(&model)?;
        Ok(Embedder { engine: Engine::new(&model)?, limit: embed::longest(&model), model })
    }

    fn vector(&self, text: &str) -> anyhow::Result<Vec<f32>> {
        let tokenizer = source::tokenizer(&self.model)?;
        let embed::Encoded { ids, types, .. } =
            embed::encode(&self.model, tokenizer, text, None, self.limit)?;
        Ok(self.engine.embed(&ids, &types)?)
    }
}

/// Reads the data again and writes the kept records.
fn write_kept(args: &Args, kept: &[usize], count: usize, watch: &Watch) -> anyhow::Result<()> {
    let failed = || format!("{} can't be written", args.output.display());
    let mut file = AtomicFile::create(&args.output)?;
    let mut kept = kept.iter().peekable();
    let mut read = 0;
    for record in Records::open(&args.data, &ReadOptions::default())? {
        let record = record?;
        watch.check()?;
        if kept.next_if(|&&number| number == read).is_some() {
            let Content::Fields(fields) = record.content else {
                bail!("{}: changed while it was read", record.place)
            };
            writeln!(file, "{}", serde_json::Value::Object(fields)).with_context(failed)?;
        }
        read += 1;
    }
    ensure!(read == count, "the data changed while it was read: {count} records became {read}");
    Ok(file.commit()?)
}

/// One line a record.
fn write_scores(
    path: &std::path::Path,
    count: usize,
    judged: &[Judged],
    selection: &Selection,
) -> anyhow::Result<()> {
    let failed = || format!("{} can't be written", path.display());
    let mut file = AtomicFile::create(path)?;
    let mut next = judged.iter().enumerate().peekable();
    for record in 0..count {
        let line = match next.next_if(|(_, it)| it.record == record) {
            Some((index, Judged { judgement, .. })) => json!({
                "record": record,
                "ifd": selection.ifd[index],
                "loss": judgement.loss.with_question,
                "loss_alone": judgement.loss.alone,
                "answer_tokens": judgement.tokens,
                "cluster": selection.clusters[index],
                "kept": selection.kept.binary_search(&index).is_ok(),
            }),
            None => json!({"record": record, "skipped": true, "kept": false}),
        };
        writeln!(file, "{line}").with_context(failed)?;
    }
    Ok(file.commit()?)
}

fn clusters(selection: &Selection, count: usize) -> Vec<Cluster> {
    let mut clusters: Vec<Cluster> = (0..count).map(|_| Cluster::default()).collect();
    for (index, (&ifd, &cluster)) in selection.ifd.iter().zip(&selection.clusters).enumerate() {
        let cluster = &mut clusters[cluster as usize];
        cluster.records += 1;
        cluster.mismatched += usize::from(ifd >= 1.0);
        if selection.kept.binary_search(&index).is_ok() {
            cluster.kept += 1;
            cluster.kept_from = Some(cluster.kept_from.map_or(ifd, |least| least.min(ifd)));
        }
    }
    clusters
}

fn print(report: &Report) -> anyhow::Result<()> {
    let mut table = output::table(&["group", "records", "mismatched", "kept", "from"]);
    for (number, cluster) in report.clusters.iter().enumerate() {
        let from = cluster.kept_from.map_or(String::new(), |ifd| format!("{ifd:.3}"));
        table.add_row([
            number.to_string(),
            cluster.records.to_string(),
            cluster.mismatched.to_string(),
            cluster.kept.to_string(),
            from,
        ]);
    }
    output::print_table(&table)?;
    let Report { records, kept, mismatched, skipped, .. } = report;
    output::line(format!(
        "{kept} of {records} records kept in {}; {mismatched} dropped because their question does not help, {skipped} \
         without a question or too short",
        report.output.display()
    ))?;
    if report.short_answers > 0 {
        output::line(format!(
            "{} answers have fewer than {SHORT} tokens, too few to be judged well",
            report.short_answers
        ))?;
    }
    let time = std::time::Duration::from_secs_f64(report.seconds);
    let tokens = units::count(report.tokens);
    output::line(format!("{tokens} tokens read in {}", units::seconds(time)))
}
