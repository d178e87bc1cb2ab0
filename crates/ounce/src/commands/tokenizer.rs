//! `ounce tokenizer train`: a vocabulary made for the texts of a new model.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::bail;
use ounce_model::tokenizer::Tokenizer;
use ounce_train::data::{Form, ReadOptions, Separator};
use ounce_train::tokenizer::{self, TokenizerKind, TokenizerSettings};
use serde::Serialize;

use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, units};

/// So much text at the beginning shows how short the new tokenizer makes it.
const SAMPLE: usize = 1 << 20;

/// Make a tokenizer
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce tokenizer train stories.txt -o my-model
  ounce tokenizer train data/ -o my-model --vocab 8192 --kind unigram")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Train(Train),
}

/// Learn a vocabulary from texts
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce tokenizer train stories.txt -o my-model
  ounce tokenizer train data/ -o my-model --vocab 8192 --kind unigram
  ounce tokenizer train \"data/*.jsonl.gz\" -o my-model --column body
  ounce tokenizer train book.txt -o my-encoder --special \"[PAD],[UNK],[CLS],[SEP],[MASK]\"
Text files, JSON (lines or an array), CSV, TSV and Parquet are read, packed with gzip or not. tokenizer.json and
tokenizer_config.json in the folder are what ounce and transformers read.")]
struct Train {
    /// Files, folders, or patterns in quotes
    #[arg(required = true, value_name = "FILES")]
    files: Vec<PathBuf>,
    /// The folder that gets the tokenizer
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// How pieces are chosen: bpe (pairs of bytes, as in GPT-2) or unigram (as in SentencePiece)
    #[arg(long, value_enum, default_value_t = Kind::Bpe)]
    kind: Kind,
    /// Tokens of the vocabulary
    #[arg(long, value_name = "N", default_value_t = 4096)]
    vocab: usize,
    /// Special tokens, which get the first ids; repeat it or separate them with commas
    #[arg(long, value_name = "TOKEN", value_delimiter = ',', default_value = "<|endoftext|>")]
    special: Vec<String>,
    /// How often a pair must occur to become a token; bpe only
    #[arg(long, value_name = "N", default_value_t = 2)]
    min_frequency: u64,
    /// The column or key with the text; by default the usual names are looked for
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// The line between two documents of a text file; an empty one means blank lines
    #[arg(long, value_name = "LINE", default_value = "<|endoftext|>")]
    separator: String,
    /// Replace the tokenizer in the folder
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Bpe,
    Unigram,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    folder: PathBuf,
    kind: &'static str,
    tokens: usize,
    special: Vec<String>,
    text_bytes: u64,
    /// On the beginning of the texts.
    bytes_per_token: f64,
    seconds: f64,
}

/// Runs the command.
///
/// # Errors
/// If the folder has a tokenizer already, a file can't be read, or the vocabulary is not possible.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let Action::Train(args) = args.action;
    let taken = ["tokenizer.json", "tokenizer_config.json"].map(|name| args.output.join(name));
    if let Some(path) = taken.iter().find(|path| path.exists() && !args.force) {
        bail!("{} exists already; choose another folder, or replace it with --force", path.display());
    }
    let separator = match args.separator.as_str() {
        "" => Separator::BlankLines,
        line => Separator::Line(line.into()),
    };
    let read = ReadOptions { separator, ..ReadOptions::default() };
    let form = args.column.clone().map(|column| Form::Text { column });
    let settings = TokenizerSettings {
        kind: match args.kind {
            Kind::Bpe => TokenizerKind::Bpe,
            Kind::Unigram => TokenizerKind::Unigram,
        },
        vocab_size: args.vocab,
        special: args.special.clone(),
        min_frequency: args.min_frequency,
    };

    let start = Instant::now();
    let watch = Watch::start();
    let mut bar = Progress::new("reading", Unit::Bytes);
    let mut progress = |done: u64, total: u64| {
        bar.set(done, total);
        if done == total {
            bar.say("choosing tokens");
        }
        watch.check()
    };
    let (mut sample, mut text_bytes) = (String::new(), 0);
    let texts = tokenizer::texts(&args.files, &read, form, &mut progress)?.inspect(|text| {
        if let Ok(text) = text {
            text_bytes += text.len() as u64;
            let left = text.floor_char_boundary(SAMPLE.saturating_sub(sample.len()));
            sample.push_str(&text[..left]);
        }
    });
    let tokenizer = tokenizer::train(texts, &settings)?;
    watch.check()?;
    drop(bar);
    tokenizer::save(&tokenizer, &settings, &args.output)?;
    report(&args, globals, &tokenizer, &sample, text_bytes, start)
}

fn report(
    args: &Train,
    globals: &Globals,
    tokenizer: &Tokenizer,
    sample: &str,
    text_bytes: u64,
    start: Instant,
) -> anyhow::Result<Outcome> {
    let ids = tokenizer.encode(sample, false)?.len();
    let report = Report {
        folder: args.output.clone(),
        kind: match args.kind {
            Kind::Bpe => "bpe",
            Kind::Unigram => "unigram",
        },
        tokens: tokenizer.vocab_size(),
        special: args.special.clone(),
        text_bytes,
        bytes_per_token: sample.len() as f64 / ids.max(1) as f64,
        seconds: start.elapsed().as_secs_f64(),
    };
    if report.tokens < args.vocab {
        output::note(&format!(
            "the texts gave {} tokens only, not {}; more text gives more",
            report.tokens, args.vocab
        ));
    }
    if globals.json {
        output::json(&report)?;
    } else {
        output::line(format!(
            "{}: {} tokens from {} of text, {:.2} bytes a token on its beginning, {:.1} s",
            report.folder.display(),
            report.tokens,
            units::bytes(text_bytes),
            report.bytes_per_token,
            report.seconds
        ))?;
    }
    Ok(Outcome::Done)
}
