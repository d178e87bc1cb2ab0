//! `ounce classify`: labels of texts, of tokens, and answers found in texts.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ounce_engine::Engine;
use ounce_kernels::softmax::softmax;
use ounce_model::Model;
use ounce_model::families::classifier::label_names;
use ounce_model::spec::Scored;
use ounce_model::tokenizer::Tokenizer;
use ounce_peft::{Folder, Labeller};
use ounce_train::data::labelled::frame::Framed;
use ounce_train::data::labelled::questions::{Asked, Question};
use serde::Serialize;

use super::embed::longest;
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source, text_input};

/// Tokens from one window of a long text to the next.
const STRIDE: usize = 128;

/// Label texts, or find answers in them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce classify ./sst2-distilbert \"A joy from start to end.\"      labels with their probabilities
  ounce classify ./classifier --file reviews.txt --top 1 --json       one text a line
  ounce classify ./bert --adapter ./adapter \"A joy.\"             by an adapter of ounce tune
  ounce classify ./ner-bert \"Ada Lovelace lived in London.\"        a label for every token
  ounce classify ./squad-bert --question \"Where did she live?\" \"Ada Lovelace lived in London.\"
What the model labels is in its files: texts (…ForSequenceClassification), tokens (…ForTokenClassification) or spans
(…ForQuestionAnswering). Longer texts than the model allows are cut at the end, or searched for answers in windows.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// The texts
    #[arg(required_unless_present = "file")]
    texts: Vec<String>,
    /// Read texts from this file, one a line; `-` is stdin
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    file: Option<PathBuf>,
    /// An adapter of the model that ounce tune trained on labels of texts
    #[arg(long, value_name = "FOLDER", conflicts_with = "question")]
    adapter: Option<PathBuf>,
    /// The question that each text answers, for models that find spans
    #[arg(long, value_name = "TEXT")]
    question: Option<String>,
    /// Labels shown of each text, likeliest first
    #[arg(long, value_name = "N", default_value_t = 3)]
    top: usize,
}

/// What is said of one text.
#[derive(Debug, Serialize)]
struct Said {
    text: String,
    truncated: bool,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum What {
    /// Likeliest first.
    Labels(Vec<Labelled>),
    Tokens(Vec<Labelled>),
    Answer {
        answer: String,
        probability: f32,
    },
}

#[derive(Debug, Serialize)]
struct Labelled {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    label: String,
    probability: f32,
}

/// Runs the command.
///
/// # Errors
/// If there are no texts, or the model has no classifier or tokenizer.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let model = source::open(&args.model)?;
    let texts: Vec<String> = match &args.file {
        Some(file) => text_input::file(file)?.lines().map(String::from).collect(),
        None => args.texts.clone(),
    };
    if texts.is_empty() {
        bail!("there are no texts; the file is empty");
    }
    if let Some(folder) = &args.adapter {
        return print_all(adapted(&args, &model, folder, texts)?, globals);
    }
    let Some(classifier) = model.spec.classifier else {
        bail!("{} has no classifier, so it gives texts no labels", args.model);
    };
    match (classifier.of, &args.question) {
        (Scored::Spans, None) => bail!("this model finds answers; add --question TEXT"),
        (Scored::Text { .. } | Scored::Tokens, Some(_)) => {
            bail!("--question is for models that find answers; this one gives labels")
        }
        _ => {}
    }
    let labels = label_names(&model.config, classifier.labels);
    let (tokenizer, engine) = (source::tokenizer(&model)?, Engine::new(&model)?);
    let watch = Watch::start();
    let mut bar = Progress::new("labelling", Unit::Items);
    let total = texts.len() as u64;
    let mut said = Vec::with_capacity(texts.len());
    for text in texts {
        watch.check()?;
        bar.set(said.len() as u64, total);
        said.push(one(&args, &model, tokenizer, &engine, classifier.of, &labels, text)?);
    }
    drop(bar);
    print_all(said, globals)
}

/// Labels by a model with an adapter.
fn adapted(args: &Args, model: &Model, folder: &Path, texts: Vec<String>) -> anyhow::Result<Vec<Said>> {
    source::tokenizer(model)?;
    let mut labeller = Labeller::open(model, &Folder::open(folder)?, longest(model))?;
    let watch = Watch::start();
    let mut bar = Progress::new("labelling", Unit::Items);
    let (total, mut said) = (texts.len() as u64, Vec::with_capacity(texts.len()));
    for text in texts {
        watch.check()?;
        bar.set(said.len() as u64, total);
        let (probabilities, truncated) = labeller.label(&text)?;
        let what = What::Labels(likeliest(labeller.names(), &probabilities, args.top));
        said.push(Said { text, truncated, what });
    }
    Ok(said)
}

/// Labels with their probabilities, likeliest first.
fn likeliest(labels: &[String], probabilities: &[f32], top: usize) -> Vec<Labelled> {
    let mut all: Vec<Labelled> = labels
        .iter()
        .zip(probabilities)
        .map(|(label, &probability)| Labelled { token: None, label: label.clone(), probability })
        .collect();
    all.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    all.truncate(top.max(1));
    all
}

fn print_all(said: Vec<Said>, globals: &Globals) -> anyhow::Result<Outcome> {
    let cut = said.iter().filter(|said| said.truncated).count();
    if cut > 0 {
        output::note(&format!(
            "{cut} of {} texts were longer than the model allows and were cut",
            said.len()
        ));
    }
    if globals.json {
        output::json(&said)?
    } else {
        said.iter().try_for_each(print)?
    }
    Ok(Outcome::Done)
}

fn one(
    args: &Args,
    model: &Model,
    tokenizer: &Tokenizer,
    engine: &Engine,
    of: Scored,
    labels: &[String],
    text: String,
) -> anyhow::Result<Said> {
    let limit = longest(model);
    let types = model.spec.embedding.token_types > 1;
    if let (Scored::Spans, Some(question)) = (of, &args.question) {
        let what = answer(tokenizer, engine, question, &text, limit, types)?;
        return Ok(Said { text, truncated: false, what });
    }
    let framed = Framed::new(tokenizer, None, &text, types)?;
    let (part, truncated) = framed.beginning(limit)?;
    let (ids, types) = framed.sequence(&part);
    let mut scores = engine.classify(&ids, &types)?;
    let what = match of {
        Scored::Text { .. } => {
            softmax(&mut scores);
            What::Labels(likeliest(labels, &scores, args.top))
        }
        Scored::Tokens | Scored::Spans => What::Tokens(of_tokens(tokenizer, &ids, &mut scores, labels)),
    };
    Ok(Said { text, truncated, what })
}

/// The answer to a question that stands in a text, which is looked at in windows if it is long.
fn answer(
    tokenizer: &Tokenizer,
    engine: &Engine,
    question: &str,
    text: &str,
    limit: usize,
    types: bool,
) -> anyhow::Result<What> {
    let asked = Question { question: question.to_string(), context: text.to_string(), answers: Vec::new() };
    let asked = Asked::new(tokenizer, &asked, limit, STRIDE, types)?;
    let asked = asked.with_context(|| format!("the question has no room in the model's {limit} tokens"))?;
    let scores = asked.windows.iter().map(|window| engine.classify(&window.ids, &window.types));
    let scores: Vec<Vec<f32>> = scores.collect::<Result<_, _>>()?;
    Ok(match asked.answer(&scores) {
        Some(found) => {
            What::Answer { answer: text[found.bytes].trim().to_string(), probability: found.probability }
        }
        None => What::Answer { answer: String::new(), probability: 0.0 },
    })
}

/// The likeliest label of every token that is not special.
fn of_tokens(tokenizer: &Tokenizer, ids: &[u32], scores: &mut [f32], labels: &[String]) -> Vec<Labelled> {
    let rows = ids.iter().zip(scores.chunks_exact_mut(labels.len()));
    let words = rows.filter(|(id, _)| !tokenizer.is_special(**id));
    words
        .map(|(&id, scores)| {
            softmax(scores);
            let best = (0..labels.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0);
            Labelled { token: tokenizer.piece(id), label: labels[best].clone(), probability: scores[best] }
        })
        .collect()
}

fn print(said: &Said) -> anyhow::Result<()> {
    let percent = |probability: f32| format!("{:5.1} %", 100.0 * probability);
    output::line(&said.text)?;
    match &said.what {
        What::Labels(labels) | What::Tokens(labels) => labels.iter().try_for_each(|it| {
            let token = it.token.as_ref().map_or(String::new(), |token| format!("{token:<16} "));
            output::line(format!("  {token}{}  {}", percent(it.probability), it.label))
        }),
        What::Answer { answer, probability } if answer.is_empty() => {
            output::line(format!("  {}  no answer", percent(*probability)))
        }
        What::Answer { answer, probability } => {
            output::line(format!("  {}  {answer}", percent(*probability)))
        }
    }
}
