//! The `ounce` command: reads the command line, runs one subcommand, turns its result into an exit code.
//!
//! Exit codes: 0 done, 1 the answer is no, 2 wrong usage or failure, 130 stopped by Ctrl-C. A closed pipe is
//! no failure.

mod calibration;
mod chat;
mod cli;
mod commands;
mod compute;
mod download;
mod evidence;
mod failure;
mod generation;
mod inspect;
mod interrupt;
mod npy;
mod output;
mod plot;
mod progress;
mod sampling;
mod source;
mod suggest;
mod text_input;
mod units;
mod user_data;

use std::process::ExitCode;

use clap::Parser;

/// The system's, which measurements can ask how much memory work held.
#[global_allocator]
static ALLOCATOR: ounce_kernels::meter::Meter = ounce_kernels::meter::Meter;

fn main() -> ExitCode {
    failure::guard(|| {
        let cli = cli::Cli::parse();
        interrupt::install()?;
        cli.run()
    })
}
