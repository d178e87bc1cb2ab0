//! `ounce embed`: sentence vectors.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::bail;
use ounce_engine::Engine;
use ounce_eval::similarity;
use ounce_model::Model;
use ounce_model::tokenizer::Tokenizer;
use ounce_peft::{Adapted, Folder};
use ounce_train::Batch;
use ounce_train::net::Options;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use crate::cli::Globals;
use crate::failure::{Interrupted, Outcome};
use crate::interrupt::Watch;
use crate::npy::NpyFile;
use crate::progress::{Progress, Unit};
use crate::{output, source, text_input};

/// Values of a vector shown to people.
const SHOWN: usize = 6;

/// Turn texts into vectors
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce embed ./all-MiniLM-L6-v2 \"A cat sat.\" \"A dog ran.\" --similarity
  ounce embed org/name --file sentences.txt --npy vectors.npy    one text a line; float32 [texts, width]
  ounce embed ./e5-small --prompt-name query \"how tall is it?\"   as sentence-transformers' prompts
  ounce embed ./bert --adapter ./adapter \"A cat sat.\"           by an adapter of ounce tune --objective retrieve
  ounce embed ./model.gguf \"A cat sat.\" --json
Pooling and normalisation are those in the model's files; a model that says nothing is averaged and scaled to
length one. Texts longer than the model allows are cut at the end.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// The texts
    #[arg(required_unless_present = "file")]
    texts: Vec<String>,
    /// Read texts from this file, one a line; `-` is stdin
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    file: Option<PathBuf>,
    /// Write the vectors to this NumPy file, float32 [texts, width]
    #[arg(long, value_name = "FILE")]
    npy: Option<PathBuf>,
    /// Print the cosine of the angle between each two vectors
    #[arg(long)]
    similarity: bool,
    /// Put this text before each text
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_name")]
    prompt: Option<String>,
    /// An adapter of the model, such as ounce tune --objective retrieve trains
    #[arg(long, value_name = "FOLDER")]
    adapter: Option<PathBuf>,
    /// Put the model's own prompt of this name before each text
    #[arg(long, value_name = "NAME")]
    prompt_name: Option<String>,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: String,
    width: usize,
    vectors: &'a [Vector],
    #[serde(skip_serializing_if = "Option::is_none")]
    similarity: Option<Vec<Vec<f32>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    npy: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Vector {
    text: String,
    tokens: usize,
    /// Whether the text was cut to fit the model.
    truncated: bool,
    values: Vec<f32>,
}

/// Runs the command.
///
/// # Errors
/// If there are no texts, the model has no tokenizer, or the file can't be written.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let model = source::open(&args.model)?;
    let texts = match &args.file {
        Some(file) => text_input::file(file)?.lines().map(String::from).collect(),
        None => args.texts.clone(),
    };
    if texts.is_empty() {
        bail!("there are no texts; the file is empty");
    }
    let prompt = match (&args.prompt, &args.prompt_name) {
        (Some(prompt), _) => prompt.clone(),
        (None, name) => own_prompt(&model, name.as_deref())?,
    };
    let vectors = match &args.adapter {
        Some(folder) => adapted(&model, folder, texts, &prompt)?,
        None => embed(&model, texts, &prompt)?,
    };
    let width = model.spec.hidden_size;
    if let Some(path) = &args.npy {
        let mut file = NpyFile::create(path, &[vectors.len(), width])?;
        vectors.iter().try_for_each(|vector| file.write(&vector.values))?;
        file.finish()?;
    }
    let similarity = args.similarity.then(|| cosines(&vectors));
    let cut = vectors.iter().filter(|vector| vector.truncated).count();
    if cut > 0 {
        output::note(&format!(
            "{cut} of {} texts were longer than the model allows and were cut",
            vectors.len()
        ));
    }
    if globals.json {
        let model = model.origin.path.display().to_string();
        output::json(&Report { model, width, vectors: &vectors, similarity, npy: args.npy })?;
        return Ok(Outcome::Done);
    }
    match (&similarity, &args.npy) {
        (None, None) => vectors.iter().try_for_each(print)?,
        (Some(matrix), _) => print_matrix(matrix)?,
        (None, Some(_)) => {}
    }
    if let Some(path) = &args.npy {
        output::line(format!("[{}, {width}] written to {}", vectors.len(), path.display()))?;
    }
    Ok(Outcome::Done)
}

fn embed(model: &Model, texts: Vec<String>, prompt: &str) -> anyhow::Result<Vec<Vector>> {
    let tokenizer = source::tokenizer(model)?;
    let engine = Engine::new(model)?;
    let limit = longest(model);
    let watch = Watch::start();
    let total = texts.len() as u64;
    let done = AtomicU64::new(0);
    let bar = std::sync::Mutex::new(Progress::new("embedding", Unit::Items));
    let one = |text: String| -> anyhow::Result<Vector> {
        if watch.requested() {
            return Err(Interrupted.into());
        }
        let Encoded { ids, types, truncated } =
            encode(model, tokenizer, &format!("{prompt}{text}"), None, limit)?;
        let values = engine.embed(&ids, &types)?;
        if let Ok(mut bar) = bar.lock() {
            bar.set(done.fetch_add(1, Ordering::Relaxed) + 1, total);
        }
        Ok(Vector { text, tokens: ids.len(), truncated, values })
    };
    texts.into_par_iter().map(one).collect()
}

/// Vectors of a model with an adapter, one text after another.
fn adapted(model: &Model, folder: &Path, texts: Vec<String>, prompt: &str) -> anyhow::Result<Vec<Vector>> {
    let mut net = Adapted::open(model, &Folder::open(folder)?, Options::default(), &[], false)?;
    let (tokenizer, limit, watch) = (source::tokenizer(model)?, longest(model), Watch::start());
    let (total, mut bar) = (texts.len() as u64, Progress::new("embedding", Unit::Items));
    let mut vectors = Vec::with_capacity(texts.len());
    for text in texts {
        watch.check()?;
        bar.set(vectors.len() as u64, total);
        let Encoded { ids, types, truncated } =
            encode(model, tokenizer, &format!("{prompt}{text}"), None, limit)?;
        if ids.is_empty() {
            bail!("an empty text has no vector");
        }
        let batch = Batch { types, ..Batch::untold([&ids]) };
        vectors.push(Vector { text, tokens: ids.len(), truncated, values: net.vectors(&batch)? });
    }
    Ok(vectors)
}

/// One text as an encoder takes it.
pub(super) struct Encoded {
    pub ids: Vec<u32>,
    /// Token types; empty for models without.
    pub types: Vec<u32>,
    /// Whether the text was cut.
    pub truncated: bool,
}

/// Encodes a text, or a pair, with its special tokens, cut to `limit` tokens.
pub(super) fn encode(
    model: &Model,
    tokenizer: &Tokenizer,
    text: &str,
    pair: Option<&str>,
    limit: usize,
) -> anyhow::Result<Encoded> {
    let encoded = tokenizer.encode_with_types(text, pair, true)?;
    let (mut ids, mut types) = (encoded.ids, encoded.type_ids);
    let truncated = ids.len() > limit;
    if truncated {
        // The token that ends a text stays at its end.
        let ending = ids.last().copied().filter(|&id| tokenizer.is_special(id));
        ids.truncate(limit);
        types.truncate(limit);
        if let (Some(last), Some(ending)) = (ids.last_mut(), ending) {
            *last = ending;
        }
    }
    if model.spec.embedding.token_types == 0 {
        types.clear();
    }
    Ok(Encoded { ids, types, truncated })
}

/// A settings file of sentence-transformers that came with the model.
fn settings(model: &Model, name: &str) -> Option<Value> {
    let extra = model.extras.iter().find(|extra| extra.name == name)?;
    serde_json::from_slice(&extra.content).ok()
}

/// Tokens of a text at most: the sentence encoder's own limit, else the tokenizer's, else the model's.
pub(super) fn longest(model: &Model) -> usize {
    let limit = |file: &str, key: &str| {
        // Tokenizers without a limit say so with a number beyond all integers.
        let limit = settings(model, file)?.get(key)?.as_u64()?;
        usize::try_from(limit).ok().filter(|&limit| limit > 0)
    };
    let own = limit("sentence_bert_config.json", "max_seq_length")
        .or_else(|| limit("tokenizer_config.json", "model_max_length"));
    let whole = model.spec.context_length.max(1);
    own.map_or(whole, |own| own.min(whole))
}

/// The prompt of that name, or the default one, which may be none.
fn own_prompt(model: &Model, name: Option<&str>) -> anyhow::Result<String> {
    let settings = settings(model, "config_sentence_transformers.json").unwrap_or_default();
    let prompts = settings.get("prompts").and_then(Value::as_object);
    let find = |name: &str| prompts?.get(name)?.as_str().map(String::from);
    match name {
        None => {
            Ok(settings.get("default_prompt_name").and_then(Value::as_str).and_then(find).unwrap_or_default())
        }
        Some(name) => find(name).ok_or_else(|| {
            let names: Vec<&str> = prompts.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            let names = if names.is_empty() { "none".to_string() } else { names.join(", ") };
            anyhow::anyhow!("the model has no prompt named {name:?}; it has {names}; --prompt takes any text")
        }),
    }
}

/// The cosine of the angle between each two vectors; 0 for vectors of zeros.
fn cosines(vectors: &[Vector]) -> Vec<Vec<f32>> {
    let values: Vec<&[f32]> = vectors.iter().map(|it| it.values.as_slice()).collect();
    let rounded = |row: Vec<f64>| row.into_iter().map(|cosine| cosine as f32).collect();
    similarity::cosines(&values).into_iter().map(rounded).collect()
}

fn print(vector: &Vector) -> anyhow::Result<()> {
    let first: Vec<String> = vector.values.iter().take(SHOWN).map(|value| format!("{value:.4}")).collect();
    let more = if vector.values.len() > SHOWN { ", …" } else { "" };
    output::line(format!("{:?}: {} values [{}{more}]", vector.text, vector.values.len(), first.join(", ")))
}

fn print_matrix(matrix: &[Vec<f32>]) -> anyhow::Result<()> {
    for row in matrix {
        let row: Vec<String> = row.iter().map(|value| format!("{value:7.4}")).collect();
        output::line(row.join(" "))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_are_symmetric_and_one_with_itself() {
        let vector = |values: &[f32]| Vector {
            text: String::new(),
            tokens: 1,
            truncated: false,
            values: values.to_vec(),
        };
        let matrix = cosines(&[vector(&[2.0, 0.0]), vector(&[1.0, 1.0]), vector(&[0.0, 0.0])]);
        assert_eq!(matrix[0][0], 1.0);
        assert!((matrix[0][1] - 0.5f32.sqrt()).abs() < 1e-6);
        assert_eq!(matrix[0][1], matrix[1][0]);
        assert_eq!(matrix[2], [0.0, 0.0, 0.0]);
    }
}
