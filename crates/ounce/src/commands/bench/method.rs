//! `ounce bench method`: a method's demonstration, measured.

use std::cell::RefCell;
use std::path::PathBuf;

use ounce_eval::method::Evidence;
use ounce_lab::bench::Workbench;
use serde::Serialize;

use crate::cli::Globals;
use crate::commands::methods;
use crate::failure::Outcome;
use crate::progress::{Progress, Unit};
use crate::{evidence, output};

/// A bar of this many steps shows a share from 0 to 1.
const STEPS: f64 = 1000.0;

/// Run a method's demonstration: its claim, what is expected, what was measured, and whether it holds
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce bench method 20
  ounce bench method 20 --json
The evidence is written to a folder, where `ounce methods` finds it.")]
pub struct Args {
    /// Number in the catalogue
    number: u16,
    /// What all random numbers are drawn from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Folder for the evidence [default: docs/evidence where there is one, else the user's data folder]
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    claim: &'a str,
    holds: bool,
    file: PathBuf,
    evidence: &'a Evidence,
}

/// Runs the command.
///
/// # Errors
/// If the method has no demonstration, or it fails.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let method = methods::find(args.number)?;
    if !globals.json {
        output::line(format!("{:03} {}: {}", method.number, method.name, method.gives))?;
        output::line(format!("claim: {}", method.claim))?;
    }
    let bar = RefCell::new(Progress::new("measuring", Unit::Items));
    let bench = Workbench::new(args.seed, |message: &str, done: f64| {
        let mut bar = bar.borrow_mut();
        bar.say(message);
        bar.set((done * STEPS) as u64, STEPS as u64);
    });
    let evidence = bench.run(method)?.ok_or_else(|| {
        anyhow::anyhow!("method {} ({}) is planned and has no demonstration yet", method.number, method.name)
    })?;
    drop(bar);
    let file = evidence::store(args.evidence).write(&evidence)?;
    let holds = evidence.holds();
    if globals.json {
        output::json(&Report { claim: method.claim, holds, file, evidence: &evidence })?;
    } else {
        output::line("")?;
        evidence::print(&evidence)?;
        output::line(format!("evidence written to {}", file.display()))?;
        output::line(if holds { "verdict: holds" } else { "verdict: does not hold" })?;
    }
    Ok(if holds { Outcome::Done } else { Outcome::No })
}
