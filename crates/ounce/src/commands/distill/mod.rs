//! `ounce distill`: a student learns a teacher's predictions.

mod learner;
pub(super) mod report;
pub(super) mod teaching;
pub(super) mod texts;
pub(super) mod work;

use std::path::Path;

use anyhow::{Context, bail};
use ounce_model::Model;
use ounce_train::config::{self, Config};
use ounce_train::net::{Net, Options};
use ounce_train::schedule::step_law::step_law;

use self::report::Report;
use self::teaching::TeachingArgs;
use self::work::{Pupil, teach};
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::source;

/// Teach a small model what a large one predicts
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce distill ./large ./small --text book.txt --tokens 2000000 -o ./taught
  ounce distill ./large run.toml --text book.txt --loss taid --tokens 2000000 -o ./taught      a new student of [model]'s shape
  ounce distill ./large ./small --text book.txt --cache book.large.bin -o ./taught             the teacher is asked once
  ounce distill ./large ./small --text book.txt --loss kl --temperature 2 --hard 0.1 -o ./taught.gguf
  ounce distill ./large ./small --text book.txt --relations 1 --hard 0.5 -o ./taught   how the last layer relates tokens, too
Losses: kl (the default), reverse-kl, skew-kl, skew-reverse-kl, js, tvd, adaptive-kl, taid.
A teacher with another tokenizer teaches where its tokens are the student's. Ctrl-C keeps what was learnt; the same command
given again goes on.")]
pub struct Args {
    /// The model to learn from
    #[arg(value_name = "TEACHER")]
    teacher: String,
    /// The model that learns, or a run's file ending in .toml, whose `model` says the shape of a new one
    #[arg(value_name = "STUDENT")]
    student: String,
    #[command(flatten)]
    teaching: TeachingArgs,
}

/// Runs the command.
///
/// # Errors
/// If a model or the text can't be read, they don't fit each other, the output can't be written or Ctrl-C ended it.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let report = make(&args)?;
    report.print(globals)?;
    Ok(Outcome::Done)
}

/// Distils.
///
/// # Errors
/// As `run`.
pub fn make(args: &Args) -> anyhow::Result<Report> {
    args.teaching.check()?;
    let teacher = source::open(&args.teacher)?;
    let pupil = match args.student.ends_with(".toml") {
        true => new_student(&teacher, Path::new(&args.student), args.teaching.seed)?,
        false => Pupil::with_weights(source::open(&args.student)?)?,
    };
    teach(&teacher, pupil, &args.teaching, "kl")
}

/// A student of the shape that a run's file asks for, with the teacher's tokenizer.
fn new_student(teacher: &Model, path: &Path, seed: u64) -> anyhow::Result<Pupil> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
    let config: Config = config::parse(&text, path, &[])?;
    if !config.model.from.is_empty() {
        bail!("{}: model.from names a model with weights; give that one as the student", path.display());
    }
    let tokenizer = source::tokenizer(teacher)?.clone();
    let mut model = config.model.skeleton(&tokenizer, teacher.chat.clone())?;
    if model.spec.vocab_size != teacher.spec.vocab_size {
        bail!(
            "{}: the new student would have {} tokens and the teacher predicts {}; this teacher's vocabulary is padded, so begin \
             with a student that has weights",
            path.display(),
            model.spec.vocab_size,
            teacher.spec.vocab_size
        );
    }
    let net = Net::random(&model, Options::default(), config.model.initial(), seed)?;
    model = net.model()?;
    let (parameters, width) = (net.inner_parameters() as f64, config.model.base_width());
    let rate = move |tokens: u64| step_law(parameters, tokens as f64).rate;
    Ok(Pupil { net, model, rate: Box::new(rate), decay: 0.1, base_width: width })
}
