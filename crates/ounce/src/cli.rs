//! The command line: global flags, and the list of commands. Each command's own flags, help and work are in its
//! file under `commands/`.

use std::io::IsTerminal;

use clap::{ArgAction, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::commands::{
    adapters, advise, bench, classify, completions, compress, convert, density, distill, embed, eval,
    factorize, fit, footprint, forecast, heal, labels, logits, man, merge, methods, plan, predict_scores,
    profile, prune, pull, quantize, run, select, serve, show, sweep, tokenize, tokenizer, train, tune,
};
use crate::failure::Outcome;

/// Fits large models into small machines: look at, run, convert, measure and compress language models.
#[derive(Debug, Parser)]
#[command(
    name = "ounce",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = "\
Examples:
  ounce run \"Once upon a time\"          continue a text with the built-in model
  ounce run ./SmolLM2-135M-Instruct      chat with a model in a folder
  ounce show ./model.gguf                what is in a file
  ounce convert ./folder ./model.gguf --dtype q8_0
Exit codes: 0 done, 1 the answer is no, 2 wrong usage or failure, 130 stopped by Ctrl-C."
)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Flags that every command has.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Write the result as JSON to stdout, and nothing else there
    #[arg(long, global = true)]
    pub json: bool,
    /// Threads to compute with; 0 for one a core
    #[arg(
        long,
        global = true,
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true,
        env = "OUNCE_THREADS"
    )]
    pub threads: usize,
    /// Log what happens to stderr; twice for more. RUST_LOG chooses in detail
    #[arg(short, global = true, action = ArgAction::Count)]
    verbosity: u8,
    /// Whether the log is text or JSON, a line each
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        hide_default_value = true,
        env = "OUNCE_LOG_FORMAT"
    )]
    log_format: LogFormat,
}

/// What a log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Serve(serve::Args),
    Show(show::Args),
    Convert(convert::Args),
    Quantize(quantize::Args),
    Prune(prune::Args),
    Eval(eval::Args),
    Embed(embed::Args),
    Classify(classify::Args),
    Logits(logits::Args),
    Tokenize(tokenize::Args),
    Tokenizer(tokenizer::Args),
    Pull(pull::Args),
    Select(select::Args),
    Labels(labels::Args),
    Train(train::Args),
    Tune(Box<tune::Args>),
    Merge(merge::Args),
    Adapters(adapters::Args),
    Sweep(sweep::Args),
    Factorize(factorize::Args),
    Distill(distill::Args),
    Heal(heal::Args),
    Methods(methods::Args),
    Bench(bench::Args),
    Fit(fit::Args),
    Plan(plan::Args),
    Compress(compress::Args),
    Forecast(forecast::Args),
    PredictScores(predict_scores::Args),
    Density(density::Args),
    Advise(advise::Args),
    Footprint(footprint::Args),
    Profile(profile::Args),
    Completions(completions::Args),
    Man(man::Args),
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// What the command says.
    pub fn run(self) -> anyhow::Result<Outcome> {
        let globals = &self.globals;
        globals.start_log();
        rayon::ThreadPoolBuilder::new().num_threads(globals.threads).build_global()?;
        ounce_kernels::pool::set_threads(globals.threads);
        match self.command {
            Command::Run(args) => run::run(args, globals),
            Command::Serve(args) => serve::run(args, globals),
            Command::Show(args) => show::run(args, globals),
            Command::Convert(args) => convert::run(args, globals),
            Command::Quantize(args) => quantize::run(args, globals),
            Command::Prune(args) => prune::run(args, globals),
            Command::Eval(args) => eval::run(args, globals),
            Command::Embed(args) => embed::run(args, globals),
            Command::Classify(args) => classify::run(args, globals),
            Command::Logits(args) => logits::run(args, globals),
            Command::Tokenize(args) => tokenize::run(args, globals),
            Command::Tokenizer(args) => tokenizer::run(args, globals),
            Command::Pull(args) => pull::run(args, globals),
            Command::Select(args) => select::run(args, globals),
            Command::Labels(args) => labels::run(args, globals),
            Command::Train(args) => train::run(args, globals),
            Command::Tune(args) => tune::run(*args, globals),
            Command::Merge(args) => merge::run(args, globals),
            Command::Adapters(args) => adapters::run(args, globals),
            Command::Factorize(args) => factorize::run(args, globals),
            Command::Distill(args) => distill::run(args, globals),
            Command::Heal(args) => heal::run(args, globals),
            Command::Sweep(args) => sweep::run(args, globals),
            Command::Methods(args) => methods::run(args, globals),
            Command::Bench(args) => bench::run(args, globals),
            Command::Fit(args) => fit::run(args, globals),
            Command::Plan(args) => plan::run(args, globals),
            Command::Compress(args) => compress::run(args, globals),
            Command::Forecast(args) => forecast::run(args, globals),
            Command::Footprint(args) => footprint::run(args, globals),
            Command::Advise(args) => advise::run(args, globals),
            Command::Density(args) => density::run(args, globals),
            Command::PredictScores(args) => predict_scores::run(args, globals),
            Command::Profile(args) => profile::run(args, globals),
            Command::Completions(args) => completions::run(args),
            Command::Man(args) => man::run(args),
        }
    }
}

impl Globals {
    fn start_log(&self) {
        let level = ["warn", "info", "debug", "trace"][usize::from(self.verbosity.min(3))];
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
        let colours =
            std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => log.with_ansi(colours).init(),
            LogFormat::Json => log.json().flatten_event(true).init(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }
}
