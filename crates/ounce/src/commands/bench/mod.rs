//! `ounce bench`: what can be measured, one file each.

mod adapters;
pub mod costs;
mod forecast;
mod frontier;
mod method;
mod peer;
mod peft;
mod quantize;
mod serve;
mod sparsity;
mod speed;
mod train;

use clap::Subcommand;

use crate::cli::Globals;
use crate::failure::Outcome;

/// Measure: a method's promise, a model's speed or costs, training steps, forecasts, quantizing, or quality against bytes
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce bench method 20
  ounce bench speed ./model.gguf
  ounce bench speed --shape smollm2-135m --quant q4_0
  ounce bench train --against python=python3
  ounce bench quantize --shape llama-3.2-1b
  ounce bench forecast --shapes smollm2-135m
  ounce bench costs ./model.gguf --context 4096
  ounce bench adapters builtin
  ounce bench serve http://127.0.0.1:8080 --clients 1,16
  ounce bench peft --methods full,lora,ia3,prompt --tasks retell
  ounce bench sparsity builtin
  ounce bench frontier builtin --plot frontier.svg")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Adapters(adapters::Args),
    Costs(costs::Args),
    Forecast(forecast::Args),
    Frontier(frontier::Args),
    Method(method::Args),
    Peft(peft::Args),
    Quantize(quantize::Args),
    Serve(serve::Args),
    Sparsity(sparsity::Args),
    Speed(speed::Args),
    Train(train::Args),
}

/// Runs the command.
///
/// # Errors
/// As the part that was named.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    match args.what {
        What::Adapters(args) => adapters::run(args, globals),
        What::Costs(args) => costs::run(args, globals),
        What::Forecast(args) => forecast::run(args, globals),
        What::Frontier(args) => frontier::run(args, globals),
        What::Method(args) => method::run(args, globals),
        What::Peft(args) => peft::run(args, globals),
        What::Quantize(args) => quantize::run(args, globals),
        What::Serve(args) => serve::run(args, globals),
        What::Sparsity(args) => sparsity::run(args, globals),
        What::Speed(args) => speed::run(args, globals),
        What::Train(args) => train::run(args, globals),
    }
}
