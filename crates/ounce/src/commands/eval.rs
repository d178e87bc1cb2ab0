//! `ounce eval`: how well a model predicts a text.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use ounce_engine::Mode;
use ounce_eval::perplexity::{Estimate, Options, Report, TextSize, score};
use ounce_model::Model;
use serde::Serialize;

use crate::cli::Globals;
use crate::compute::ComputeArgs;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source, text_input, units};

/// Measure a model: perplexity of a text
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce eval builtin --perplexity stories.txt
  ounce eval ./model.gguf --perplexity wiki.test.raw --context 2048
  ounce eval ./folder --perplexity stories.txt --document-separator '<|endoftext|>'
  ounce eval ./folder --perplexity book.txt --stride 256        slower, and each token sees more
  ounce eval ./folder --perplexity book.txt --quant q4_0        what 4 bits would cost
  ounce eval builtin --perplexity stories.txt --l-mul attention what L-Mul would cost, and save
Each token is predicted once, the first from the beginning-of-text (else end-of-text) token; windows of the
context's length follow each other, and the last is moved back to keep that length. This is what
lm-evaluation-harness calls rolling log-likelihood. llama.cpp's perplexity is another number. Standard errors
are estimated from how the windows differ.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// The text file; `-` is stdin
    #[arg(long, value_name = "FILE")]
    perplexity: PathBuf,
    /// Tokens in a window [default: the model's context]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// New tokens in each window after the first [default: the context]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Split the file at this text into documents that are predicted separately; \n is a line end
    #[arg(long, value_name = "TEXT")]
    document_separator: Option<String>,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Output {
    model: String,
    file: PathBuf,
    documents: usize,
    context: usize,
    stride: usize,
    /// The token before each document's first; none where the model has no such token.
    prefix_token: Option<u32>,
    #[serde(flatten)]
    report: Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    energy: Option<String>,
    seconds: f64,
    tokens_per_second: f64,
}

/// Runs the command.
///
/// # Errors
/// If the model is an encoder or has no tokenizer, the text is empty, or an option is out of its range.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let model = source::open(&args.model)?;
    if !model.spec.causal {
        bail!("{} is an encoder; perplexity is defined for models that predict the next token", args.model);
    }
    let context = args.context.unwrap_or(model.spec.context_length);
    if context == 0 || context > model.spec.context_length {
        bail!(
            "--context should be from 1 to the model's {} tokens, found {context}",
            model.spec.context_length
        );
    }
    let stride = args.stride.unwrap_or(context);
    let text = text_input::file(&args.perplexity)?;
    let separator = args.document_separator.as_ref().map(|text| text.replace("\\n", "\n"));
    let texts = documents(&text, separator.as_deref());
    let size = texts.iter().map(|text| TextSize::of(text)).fold(TextSize::default(), |a, b| a + b);
    let tokenizer = source::tokenizer(&model)?;
    let ids = texts.iter().map(|text| tokenizer.encode(text, false)).collect::<Result<Vec<_>, _>>()?;
    let options = Options { context, stride, prefix: prefix(&model) };
    let engine = args.compute.load(&model, Mode::fast())?;
    let watch = Watch::start();
    let mut bar = Progress::new("predicting", Unit::Tokens);
    let start = Instant::now();
    let scores = score(&engine, &ids, &options, |done, total| {
        bar.set(done as u64, total as u64);
        Ok(watch.check()?)
    })?;
    drop(bar);
    let seconds = start.elapsed().as_secs_f64();
    let report = Report::new(&scores, size).with_context(|| args.perplexity.display().to_string())?;
    let output = Output {
        model: model.origin.path.display().to_string(),
        file: args.perplexity,
        documents: texts.len(),
        context,
        stride,
        prefix_token: options.prefix,
        tokens_per_second: report.tokens as f64 / seconds.max(1e-9),
        report,
        energy: args.compute.energy_note(&model.spec, context),
        seconds,
    };
    if globals.json {
        output::json(&output)?
    } else {
        print(&output)?;
        output.energy.iter().try_for_each(output::line)?;
    }
    Ok(Outcome::Done)
}

/// The documents of a text; empty ones are left out.
fn documents<'t>(text: &'t str, separator: Option<&str>) -> Vec<&'t str> {
    match separator.filter(|it| !it.is_empty()) {
        Some(separator) => text.split(separator).filter(|document| !document.trim().is_empty()).collect(),
        None => vec![text],
    }
}

/// What stands before a document: the token that begins texts, else one that ends them.
fn prefix(model: &Model) -> Option<u32> {
    let special = model.tokenizer.as_ref()?.special();
    special.bos.or_else(|| special.eos.first().copied())
}

fn print(output: &Output) -> anyhow::Result<()> {
    let Output { report, .. } = output;
    let line = |name: &str, estimate: Estimate| {
        let Estimate { value, stderr } = estimate;
        let stderr = stderr.map(|it| format!(" ± {it:.4}")).unwrap_or_default();
        output::line(format!("{name:<17} {value:.4}{stderr}"))
    };
    line("token perplexity", report.token_perplexity)?;
    line("word perplexity", report.word_perplexity)?;
    line("byte perplexity", report.byte_perplexity)?;
    line("bits per byte", report.bits_per_byte)?;
    let documents = if output.documents == 1 {
        "1 document".to_string()
    } else {
        format!("{} documents", output.documents)
    };
    let TextSize { words, bytes } = report.size;
    output::line(format!(
        "{} tokens, {words} words, {} in {documents}; {} windows of {} tokens",
        report.tokens,
        units::bytes(bytes as u64),
        report.windows,
        output.context
    ))?;
    output::note(&format!("{:.1} s, {:.1} tokens/s", output.seconds, output.tokens_per_second));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_split_and_leave_no_empty_documents() {
        assert_eq!(documents("a<|x|>\n<|x|>b", Some("<|x|>")), ["a", "b"]);
        assert_eq!(documents("a b", None), ["a b"]);
    }
}
