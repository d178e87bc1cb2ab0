//! `ounce tokenize`: text to token ids and back, with the pieces in sight.

use serde::Serialize;

use crate::cli::Globals;
use crate::failure::Outcome;
use crate::{output, source, text_input};

/// Show the token ids of a text, or the text of token ids
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce tokenize builtin \"Once upon a time\"
  ounce tokenize ./model.gguf --decode 1,15043,3186
  ounce tokenize org/name --count < book.txt      only the number of tokens")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// The text; without it, or with `-`, stdin is read
    #[arg(conflicts_with = "decode")]
    text: Option<String>,
    /// Turn these token ids back into text
    #[arg(long, value_name = "IDS")]
    decode: Option<String>,
    /// Add no tokens that begin or end a text; leave them out when decoding
    #[arg(long)]
    no_special: bool,
    /// Print only how many tokens there are
    #[arg(long, conflicts_with = "decode")]
    count: bool,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    text: String,
    ids: Vec<u32>,
    pieces: Vec<String>,
    tokens: usize,
    characters: usize,
    bytes: usize,
}

/// Runs the command.
///
/// # Errors
/// If the model has no tokenizer or an id is none of its tokens.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let model = source::open(&args.model)?;
    let tokenizer = source::tokenizer(&model)?;
    let (text, ids) = match &args.decode {
        Some(ids) => {
            let ids = text_input::ids(ids).map_err(anyhow::Error::msg)?;
            if let Some(id) = ids.iter().find(|&&id| tokenizer.piece(id).is_none()) {
                anyhow::bail!("{id} is no token of this model; its ids are below {}", tokenizer.id_limit());
            }
            (tokenizer.decode(&ids, args.no_special)?, ids)
        }
        None => {
            let text = text_input::given_or_stdin(args.text.as_deref(), "text")?;
            let ids = tokenizer.encode(&text, !args.no_special)?;
            (text, ids)
        }
    };
    if globals.json {
        let (characters, bytes) = (text.chars().count(), text.len());
        let pieces = tokenizer.pieces(&ids);
        output::json(&Report { tokens: ids.len(), pieces, characters, bytes, text, ids })?;
    } else if args.decode.is_some() {
        output::line(text)?;
    } else if args.count {
        output::line(ids.len())?;
    } else {
        let width = ids.iter().max().map_or(1, |id| id.to_string().len());
        let pieces = tokenizer.pieces(&ids);
        let lines = ids.iter().zip(&pieces).map(|(id, piece)| format!("{id:>width$}  {piece:?}\n"));
        output::print(&lines.collect::<String>())?;
        output::note(&format!(
            "{} tokens, {} characters, {} bytes",
            ids.len(),
            text.chars().count(),
            text.len()
        ));
    }
    Ok(Outcome::Done)
}
