//! `ounce man`: manual pages.

use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::failure::Outcome;
use crate::output;

/// Print the manual page, or write those of all commands
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce man | man -l -
  ounce man --out ~/.local/share/man/man1      one page a command: ounce.1, ounce-run.1 …")]
pub struct Args {
    /// Folder for the pages of all commands; it is made if it does not exist
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// If a page can't be written.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    match args.out {
        Some(folder) => {
            let failed = || folder.display().to_string();
            std::fs::create_dir_all(&folder).with_context(failed)?;
            clap_mangen::generate_to(Cli::command(), &folder).with_context(failed)?;
        }
        None => {
            let mut page = Vec::new();
            Man::new(Cli::command()).render(&mut page)?;
            output::print(&String::from_utf8(page)?)?;
        }
    }
    Ok(Outcome::Done)
}
