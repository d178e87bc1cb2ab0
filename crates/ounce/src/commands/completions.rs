//! `ounce completions`: scripts that let a shell complete ounce's commands and flags.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Outcome;
use crate::output;

/// Print a script that completes ounce's commands in a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce completions bash > ~/.local/share/bash-completion/completions/ounce
  ounce completions zsh > ~/.zfunc/_ounce
  ounce completions fish > ~/.config/fish/completions/ounce.fish")]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Runs the command.
///
/// # Errors
/// If stdout can't be written.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ounce", &mut script);
    output::print(&String::from_utf8(script)?)?;
    Ok(Outcome::Done)
}
