//! `ounce heal`: a model that was cut or factorised learns again what its original predicted.

use super::distill::report::Report;
use super::distill::teaching::TeachingArgs;
use super::distill::work::{Pupil, teach};
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::source;

/// Let a compressed model relearn what its original predicted
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce heal ./cut --teacher ./original --text book.txt --tokens 500000 -o ./healed
  ounce heal ./cut --teacher ./original --text book.txt --features 1 -o ./healed      layers are to do what the original's did, too
All weights are trained, on the KL from the original's predictions unless --loss says otherwise. As a step of a recipe the
teacher is the model that the recipe begins with. Ctrl-C keeps what was learnt; the same command given again goes on.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// The original that the model was made from
    #[arg(long, value_name = "ORIGINAL")]
    teacher: String,
    #[command(flatten)]
    teaching: TeachingArgs,
}

/// Runs the command.
///
/// # Errors
/// As `ounce distill`.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    make(&args)?.print(globals)?;
    Ok(Outcome::Done)
}

/// Heals.
///
/// # Errors
/// As `run`.
pub fn make(args: &Args) -> anyhow::Result<Report> {
    args.teaching.check()?;
    let teacher = source::open(&args.teacher)?;
    let pupil = Pupil::with_weights(source::open(&args.model)?)?;
    teach(&teacher, pupil, &args.teaching, "kl")
}
