//! Labels known by descriptions (CrossTune): a head on an encoder's states, which are asked for once.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ounce_kernels::softmax::softmax;
use ounce_model::Model;
use ounce_peft::methods::cloze::template::Template;
use ounce_peft::methods::crosstune::{
    BlackBox, Course, Cross, CrossTune, Frozen, Head, Switched, Taught, Teacher, switch,
};
use ounce_peft::{Adapted, Kind, Settings};
use ounce_train::Trainable;
use ounce_train::data::labelled::texts::{self, Labelled};
use ounce_train::data::labelled::{LabelledSettings, LabelledStream, batch, read, split};
use ounce_train::methods::workbench;
use ounce_train::net::classifier::{Task, with_classifier};
use ounce_train::net::{Init, Options};
use serde::Serialize;

use super::Args;
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source, units};

/// Flags of descriptions.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Labels known by descriptions (frozen encoders)")]
pub(super) struct DescriptionArgs {
    /// A sentence for each label: `label = sentence` a line, or records with label and text
    #[arg(long, value_name = "FILE", conflicts_with_all = ["verbalizer", "soft_template"])]
    pub descriptions: Option<PathBuf>,
    /// What a label's probability is: score, or attention
    #[arg(long, value_name = "HOW", default_value = "score", requires = "descriptions")]
    labels_by: String,
    /// Labelled texts that a language model made; used if a fine-tuned teacher is better with them, and where it agrees
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "descriptions")]
    generated: Vec<PathBuf>,
    /// The model that is fine-tuned as that teacher [default: the encoder itself]
    #[arg(long, value_name = "MODEL", requires = "generated")]
    teacher: Option<String>,
}

/// Inner width of the head where --rank says nothing, and steps and rate where --steps and --lr do not.
const WIDTH: usize = 64;
const STEPS: u64 = 200;
const RATE: f64 = 1e-3;
/// Steps and rate of a teacher, of texts this many at a time.
const TEACHING: (u64, f64, usize) = (60, 1e-3, 16);

/// How a run went.
#[derive(Debug, Serialize)]
struct Report {
    method: &'static str,
    trained_parameters: u64,
    labels: Vec<String>,
    /// Texts to learn from, and held out.
    texts: [usize; 2],
    /// How often the encoder was asked.
    encoder_calls: u64,
    generated: Option<Generated>,
    /// Of held-out texts, before anything was learned and afterwards.
    accuracy_before: Option<f64>,
    accuracy: Option<f64>,
    seconds_spent: f64,
    adapter: PathBuf,
    adapter_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Generated {
    used: bool,
    /// Of the teacher without the texts, and with them.
    teacher_accuracy: [f64; 2],
    kept: usize,
    dropped: usize,
}

/// Labels with their descriptions.
fn described(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let plain = path.extension().is_none_or(|it| it == "txt");
    let mut all: Vec<(String, String)> = Vec::new();
    if plain {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (label, sentence) = line.split_once('=').with_context(|| {
                format!("{}: {line:?} should be a label, = and a sentence that describes it", path.display())
            })?;
            all.push((label.trim().to_owned(), sentence.trim().to_owned()));
        }
    } else {
        all.extend(read::texts(&[path.to_path_buf()])?.into_iter().map(|it| (it.label, it.text)));
    }
    for (at, (label, sentence)) in all.iter().enumerate() {
        if sentence.is_empty() || all[..at].iter().any(|(other, _)| other == label) {
            bail!("{}: the label {label:?} should have one description", path.display());
        }
    }
    Ok(all)
}

/// Texts with the numbers of their labels.
fn numbered(texts: Vec<Labelled>, labels: &[String]) -> anyhow::Result<Vec<(String, usize)>> {
    let number = |it: Labelled| {
        let label = labels.iter().position(|label| *label == it.label).with_context(|| {
            format!(
                "the data has the label {:?}, which has no description; there are {}",
                it.label,
                labels.join(", ")
            )
        })?;
        Ok((it.pair.map_or(it.text.clone(), |pair| format!("{} {pair}", it.text)), label))
    };
    texts.into_iter().map(number).collect()
}

/// Trains a head and writes its folder.
pub(super) fn run(args: &Args, path: &Path, globals: &Globals) -> anyhow::Result<Outcome> {
    let start = std::time::Instant::now();
    let by_attention = match args.describe.labels_by.as_str() {
        "score" => false,
        "attention" => true,
        other => bail!("--labels-by is score or attention, not {other}"),
    };
    let model = source::open(&args.model)?;
    let tokenizer = source::tokenizer(&model)?;
    if model.spec.causal {
        bail!("descriptions are compared with an encoder's states; this model is a decoder");
    }
    let (labels, descriptions): (Vec<String>, Vec<String>) = described(path)?.into_iter().unzip();
    let template =
        args.cloze.template.as_deref().map(|it| Template::parse(tokenizer, it, 0, 0)).transpose()?;
    let limit = args.run.context.unwrap_or(512).min(model.spec.context_length);
    let whole = read::texts(&args.data)?;
    let (few, held) = match (args.run.validation.is_empty(), args.run.held_out) {
        (false, _) => (whole, read::texts(&args.run.validation)?),
        (true, 0.0) => (whole, Vec::new()),
        (true, part) => split(whole, part, args.run.seed, |it: &Labelled| it.text.clone())?,
    };
    let (few, held) = (numbered(few, &labels)?, numbered(held, &labels)?);
    let width = args.method.rank().unwrap_or(WIDTH);
    let numbers = Head::parameters(model.spec.hidden_size, width);
    let calls = few.len() + held.len() + labels.len();
    if !globals.json {
        output::note(&format!(
            "crosstune: {} numbers on frozen states; the encoder is asked {calls} times",
            units::count(numbers)
        ));
    }
    if args.dry_run {
        return Ok(Outcome::Done);
    }
    let cross = Cross {
        labels: labels.clone(),
        descriptions,
        template: template.clone(),
        width,
        by_attention,
        limit,
    };
    let mut encoder = Frozen::new(&model, template, limit)?;
    let (mut taught, held_states) =
        (states(&mut encoder, &few, labels.len())?, states(&mut encoder, &held, labels.len())?);
    let mut made = CrossTune::new(&mut encoder, cross, &taught.states, args.run.seed)?;
    let generated = match args.describe.generated.is_empty() {
        true => None,
        false => {
            if held.is_empty() {
                bail!("--generated is switched by held-out texts; give --held-out or --validation");
            }
            let more = numbered(read::texts(&args.describe.generated)?, &labels)?;
            let teacher = args.describe.teacher.as_deref().map(source::open).transpose()?;
            let found =
                switched(teacher.as_ref().unwrap_or(&model), &few, &more, &held, &labels, args.run.seed)?;
            for (text, probabilities) in &found.kept {
                taught.states.extend(encoder.encode(text)?);
                taught.targets.extend(probabilities);
            }
            Some(found)
        }
    };
    let judged = |made: &CrossTune| -> anyhow::Result<Option<f64>> {
        if held.is_empty() {
            return Ok(None);
        }
        let found = made.probabilities(&held_states.states)?;
        let rows = found.chunks_exact(labels.len()).zip(&held);
        let best =
            |row: &[f32]| (0..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best });
        Ok(Some(rows.filter(|(row, (_, label))| best(row) == *label).count() as f64 / held.len() as f64))
    };
    let before = judged(&made)?;
    let course = Course {
        steps: args.run.steps.unwrap_or(STEPS),
        rate: args.run.lr.unwrap_or(RATE),
        at_once: args.run.batch,
        seed: args.run.seed,
    };
    made.train(&taught, &held_states, course)?;
    made.folder(&args.output, &model)?.write()?;
    let report = Report {
        method: Kind::Crosstune.name(),
        trained_parameters: numbers,
        labels: labels.clone(),
        texts: [few.len(), held.len()],
        encoder_calls: encoder.calls,
        generated: generated.map(|it| Generated {
            used: it.on,
            teacher_accuracy: it.accuracies,
            kept: it.kept.len(),
            dropped: it.dropped,
        }),
        accuracy_before: before,
        accuracy: judged(&made)?,
        seconds_spent: start.elapsed().as_secs_f64(),
        adapter: args.output.clone(),
        adapter_bytes: std::fs::metadata(args.output.join("adapter_model.safetensors"))
            .map_or(0, |it| it.len()),
    };
    if globals.json {
        output::json(&report)?;
    } else {
        print(&report, args)?;
    }
    Ok(Outcome::Done)
}

fn print(report: &Report, args: &Args) -> anyhow::Result<()> {
    let percent =
        |share: Option<f64>| share.map_or("not judged".to_owned(), |share| format!("{:.1} %", 100.0 * share));
    if let Some(it) = &report.generated {
        let [without, with] = it.teacher_accuracy;
        output::note(&format!(
            "generated texts {}: the teacher gets {:.1} % right with them, {:.1} % without; {} kept, {} dropped",
            if it.used { "used" } else { "not used" },
            100.0 * with,
            100.0 * without,
            it.kept,
            it.dropped
        ));
    }
    output::line(format!(
        "held-out texts: {} right, before {}; the encoder was asked {} times",
        percent(report.accuracy),
        percent(report.accuracy_before),
        report.encoder_calls
    ))?;
    output::line(format!(
        "{}: {}; next: ounce classify {} --adapter {} TEXT",
        report.adapter.display(),
        units::bytes(report.adapter_bytes),
        args.model,
        report.adapter.display()
    ))
}

/// The encoder's states of texts, with what is right.
fn states(encoder: &mut Frozen<'_>, texts: &[(String, usize)], labels: usize) -> anyhow::Result<Taught> {
    let (watch, mut bar) = (Watch::start(), Progress::new("reading", Unit::Items));
    let mut taught = Taught::default();
    for (at, (text, label)) in texts.iter().enumerate() {
        watch.check()?;
        bar.set(at as u64, texts.len() as u64);
        taught.states.extend(encoder.encode(text)?);
        taught.targets.extend((0..labels).map(|at| f32::from(u8::from(at == *label))));
    }
    Ok(taught)
}

/// The switch, by teachers that are bottleneck adapters and a head on a model.
fn switched(
    model: &Model,
    few: &[(String, usize)],
    generated: &[(String, usize)],
    held: &[(String, usize)],
    labels: &[String],
    seed: u64,
) -> anyhow::Result<Switched> {
    let (tokenizer, types) = (source::tokenizer(model)?, model.spec.embedding.token_types > 1);
    let limit = model.spec.context_length.min(512);
    let encode = |texts: &[(String, usize)]| -> ounce_train::Result<Vec<_>> {
        let labelled: Vec<Labelled> = texts
            .iter()
            .map(|(text, label)| Labelled { text: text.clone(), pair: None, label: labels[*label].clone() })
            .collect();
        Ok(texts::examples(tokenizer, &labelled, labels, limit, types)?.0)
    };
    let (watch, (steps, rate, at_once)) = (Watch::start(), TEACHING);
    let mut teach = |texts: &[(String, usize)]| -> ounce_peft::Result<Teacher<'_>> {
        watch.check()?;
        let made = with_classifier(model, Task::Texts, labels, Init::default(), seed)?;
        let settings =
            Settings { seed, trains: vec!["classifier.".into()], ..Settings::of(Kind::Bottleneck) };
        let mut net = Adapted::new(&made, &settings, Options::default())?;
        let order = LabelledSettings { examples: at_once, seed, shuffle: true, epochs: None };
        let mut source = LabelledStream::new(encode(texts)?, order)?;
        workbench::fit(&mut net, &mut source, workbench::cosine(rate, steps))?;
        let encode = &encode;
        Ok(Box::new(move |text: &str| {
            let mut scores = net.scores(&batch(&encode(&[(text.to_owned(), 0)])?))?;
            softmax(&mut scores);
            Ok(scores)
        }))
    };
    Ok(switch(few, generated, held, &mut teach)?)
}
