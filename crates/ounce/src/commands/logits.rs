//! `ounce logits`: the numbers a model gives for every position of a text, for comparison with other tools.

use std::path::PathBuf;

use ounce_engine::sample::{TokenLogprob, logprobs};
use ounce_engine::{Engine, Mode};
use ounce_model::Model;
use serde::Serialize;

use crate::cli::Globals;
use crate::compute::ComputeArgs;
use crate::failure::{Interrupted, Outcome};
use crate::interrupt::Watch;
use crate::npy::NpyFile;
use crate::progress::{Progress, Unit};
use crate::{output, source, text_input};

/// Write the logits (or hidden states) of every position of a text
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce logits builtin \"Once upon a time\"
  ounce logits ./folder --tokens 1,15043,3186 --npy logits.npy     float32 [tokens, vocabulary]
  ounce logits ./folder \"A text\" --hidden --npy hidden.npy         float32 [tokens, hidden size]
  ounce logits ./bert \"Paris is the [MASK] of France.\"             what fills the mask")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// The text; without it, or with `-`, stdin is read
    #[arg(conflicts_with = "tokens")]
    prompt: Option<String>,
    /// Token ids to run as they are
    #[arg(long, value_name = "IDS")]
    tokens: Option<String>,
    /// Write all values to this NumPy file, float32
    #[arg(long, value_name = "FILE")]
    npy: Option<PathBuf>,
    /// Give the hidden states after the last norm in place of logits
    #[arg(long)]
    hidden: bool,
    /// How many of the likeliest tokens to print
    #[arg(long, value_name = "N", default_value_t = 5)]
    top: usize,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    tokens: Vec<u32>,
    shape: [usize; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    npy: Option<PathBuf>,
    /// The last position, or every masked one.
    positions: Vec<Position>,
}

/// The likeliest tokens at one position.
#[derive(Debug, Serialize)]
struct Position {
    position: usize,
    token: u32,
    likeliest: Vec<Likely>,
}

#[derive(Debug, Serialize)]
struct Likely {
    id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    piece: Option<String>,
    logit: f32,
    logprob: f32,
}

/// Runs the command.
///
/// # Errors
/// If there is no text, the model has no head, or the file can't be written.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let model = source::open(&args.model)?;
    let (ids, types) = input(&model, &args)?;
    let engine = args.compute.load(&model, Mode::Reference)?;
    let mut report = Report {
        model: model.origin.path.display().to_string(),
        shape: [ids.len(), if args.hidden { model.spec.hidden_size } else { model.spec.vocab_size }],
        npy: args.npy.clone(),
        positions: Vec::new(),
        tokens: ids.clone(),
    };
    let watch = Watch::start();
    let mut file = None;
    let shown = shown_positions(&model, &ids);
    let mut take = |first: usize, values: &[f32]| -> anyhow::Result<()> {
        if let Some(path) = &args.npy {
            let file = match &mut file {
                Some(file) => file,
                None => file.insert(NpyFile::create(path, &report.shape)?),
            };
            file.write(values)?;
        }
        if !args.hidden {
            for (row, logits) in values.chunks_exact(report.shape[1]).enumerate() {
                if shown.contains(&(first + row)) {
                    let likeliest = likeliest(&model, logits, args.top);
                    report.positions.push(Position {
                        position: first + row,
                        token: ids[first + row],
                        likeliest,
                    });
                }
            }
        }
        Ok(())
    };
    if args.hidden {
        take(0, &engine.encode(&ids, &types)?)?;
    } else if model.spec.causal {
        causal(&engine, &ids, &watch, &mut take)?;
    } else {
        take(0, &engine.masked_logits(&ids, &types)?)?;
    }
    if let Some(file) = file {
        file.finish()?;
    }
    if globals.json {
        output::json(&report)?
    } else {
        print(&report, &args)?
    }
    Ok(Outcome::Done)
}

/// Runs a decoder chunk by chunk, so that the logits of a long text are never in memory at once.
fn causal(
    engine: &Engine,
    ids: &[u32],
    watch: &Watch,
    take: &mut dyn FnMut(usize, &[f32]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut bar = Progress::new("running", Unit::Tokens);
    let width = engine.spec().vocab_size;
    let mut done = 0;
    let mut failed = None;
    let ran = engine.session().feed_all(ids, |logits| {
        watch.check()?;
        if let Err(error) = take(done, logits) {
            failed = Some(error);
            return Err(ounce_model::Error::Interrupted.into());
        }
        done += logits.len() / width;
        bar.set(done as u64, ids.len() as u64);
        Ok(())
    });
    match (failed, ran) {
        (Some(error), _) => Err(error),
        (None, Err(ounce_engine::Error::Model(ounce_model::Error::Interrupted))) => Err(Interrupted.into()),
        (None, ran) => Ok(ran?),
    }
}

/// Token ids and, for encoders, their types.
fn input(model: &Model, args: &Args) -> anyhow::Result<(Vec<u32>, Vec<u32>)> {
    let (ids, types) = match &args.tokens {
        Some(ids) => (text_input::ids(ids).map_err(anyhow::Error::msg)?, Vec::new()),
        None => {
            let text = text_input::given_or_stdin(args.prompt.as_deref(), "text")?;
            let encoded = source::tokenizer(model)?.encode_with_types(&text, None, true)?;
            let types = if model.spec.embedding.token_types > 0 { encoded.type_ids } else { Vec::new() };
            (encoded.ids, types)
        }
    };
    anyhow::ensure!(!ids.is_empty(), "there are no tokens to run; give a text or --tokens");
    Ok((ids, types))
}

/// The masked positions of a text for an encoder, else the last one.
fn shown_positions(model: &Model, ids: &[u32]) -> Vec<usize> {
    let mask = model.tokenizer.as_ref().and_then(|it| it.special().mask).filter(|_| !model.spec.causal);
    let masked: Vec<usize> = (0..ids.len()).filter(|&at| mask == Some(ids[at])).collect();
    if masked.is_empty() { vec![ids.len() - 1] } else { masked }
}

fn likeliest(model: &Model, logits: &[f32], count: usize) -> Vec<Likely> {
    let piece = |id: u32| Some(model.tokenizer.as_ref()?.pieces(&[id]).concat());
    let of =
        |TokenLogprob { id, logprob }| Likely { id, piece: piece(id), logit: logits[id as usize], logprob };
    logprobs(logits, 0, count).1.into_iter().map(of).collect()
}

fn print(report: &Report, args: &Args) -> anyhow::Result<()> {
    let [tokens, width] = report.shape;
    let what = if args.hidden { "hidden states" } else { "logits" };
    match &args.npy {
        Some(path) => output::line(format!("{what} [{tokens}, {width}] written to {}", path.display()))?,
        None => output::line(format!("{what} [{tokens}, {width}]"))?,
    }
    for position in &report.positions {
        output::line(format!("position {} (token {}):", position.position, position.token))?;
        for likely in &position.likeliest {
            let piece = likely.piece.as_ref().map(|piece| format!("  {piece:?}")).unwrap_or_default();
            let Likely { id, logit, logprob, .. } = likely;
            output::line(format!("  {id:>7}  logit {logit:>9.4}  logprob {logprob:>9.4}{piece}"))?;
        }
    }
    Ok(())
}
