//! `ounce eval`: how well a model predicts a text, what it can do, and how far it is to be trusted.

mod tasks;
mod trust;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use ounce_engine::{Engine, Mode};
use ounce_eval::divergence::{self, compare};
use ounce_eval::perplexity::{Estimate, Options, Report, TextSize, score};
use ounce_eval::trust::Prompting;
use ounce_model::Model;
use ounce_model::chat::ChatTemplate;
use serde::Serialize;

use crate::cli::Globals;
use crate::compute::ComputeArgs;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source, text_input, units};

/// Measure a model: perplexity of a text, tasks, or trust
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce eval builtin --perplexity stories.txt
  ounce eval ./model.gguf --perplexity wiki.test.raw --context 2048
  ounce eval ./folder --perplexity stories.txt --document-separator '<|endoftext|>'
  ounce eval ./folder --perplexity book.txt --stride 256        slower, and each token sees more
  ounce eval ./folder --perplexity book.txt --quant q4_0        what 4 bits would cost
  ounce eval builtin --perplexity stories.txt --l-mul attention what L-Mul would cost, and save
  ounce eval small.gguf --against ./folder --perplexity book.txt how far the predictions moved
  ounce eval ./folder --trust probes.jsonl                      stereotypes, secrets, fairness, robustness, ...
  ounce eval small.gguf --trust probes.jsonl --against ./folder which of them compression broke; 1 if any
  ounce eval ./folder --trust probes.jsonl --compare small.gguf the same
  ounce eval builtin --tasks tales,tales_answers                questions about built-in tales
  ounce eval ./folder --tasks arc_easy --data arc_easy=test.jsonl --limit 200
  ounce eval ./folder --tasks my.yaml --compare small.gguf      a task of your own, and how another model differs
  ounce eval --tasks list                                       tasks that are built in
  ounce eval --write-probes town                                probes to learn the format from, and their text
Each token is predicted once, the first from the beginning-of-text (else end-of-text) token; windows of the
context's length follow each other, and the last is moved back to keep that length. This is what
lm-evaluation-harness calls rolling log-likelihood. llama.cpp's perplexity is another number. Standard errors
are estimated from how the windows differ.
With --against, each token's predictions are compared over the whole vocabulary: KL(ORIGINAL || MODEL) in nats
is 0 only where both predict the same. --quant and --kv change MODEL only; ORIGINAL computes with its weights as
they are stored, in the fast mode unless MODEL uses --mode reference or --l-mul.
Tasks are asked and scored as lm-evaluation-harness does; docs/evaluation.md has the format of their files. Answers
are kept in the user's data folder, so a run that was interrupted goes on. With --compare, changes are OTHER less MODEL
(with --against, MODEL less ORIGINAL) with 95 % of bootstrap samples over the same questions.
Trust scores go from 0 to 100, 100 is good, with 95 % of 1000 bootstrap samples over probes. A score means something
only if the model can do what it is about; where it can't clearly be told from chance, a line says so.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP, required_unless_present_any = ["write_probes", "write_tasks", "tasks"])]
    model: Option<String>,
    /// The text file; `-` is stdin
    #[arg(long, value_name = "FILE", required_unless_present_any = ["trust", "tasks", "write_probes", "write_tasks"])]
    perplexity: Option<PathBuf>,
    /// Compare with the model that this one was made from, over the same text, questions or probes
    #[arg(long, value_name = "ORIGINAL")]
    against: Option<String>,
    /// Ask OTHER too and judge it against MODEL, as --against ORIGINAL judges MODEL; with --tasks or --trust
    #[arg(long, value_name = "OTHER", requires = "asked", conflicts_with = "against")]
    compare: Option<String>,
    /// Ask with the model's chat template: prompts as a user's messages; with --tasks or --trust
    #[arg(long, requires = "asked")]
    chat: bool,
    /// Tokens in a window [default: the model's context, or ORIGINAL's if that is shorter]
    #[arg(long, value_name = "N", conflicts_with = "asked")]
    context: Option<usize>,
    /// New tokens in each window after the first [default: the context]
    #[arg(long, value_name = "N", conflicts_with = "asked")]
    stride: Option<usize>,
    /// Split the file at this text into documents that are predicted separately; \n is a line end
    #[arg(long, value_name = "TEXT", conflicts_with = "asked")]
    document_separator: Option<String>,
    #[command(flatten)]
    tasks: tasks::TaskArgs,
    #[command(flatten)]
    trust: trust::TrustArgs,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// Who is judged, and against whom.
struct Judged<'a> {
    model: &'a str,
    original: Option<&'a str>,
    /// Whether the flags of computing are about the original.
    flags_of_original: bool,
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
    divergence: Option<Divergence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    energy: Option<String>,
    seconds: f64,
    tokens_per_second: f64,
}

/// What `--against` found.
#[derive(Debug, Serialize)]
struct Divergence {
    /// The model compared with.
    original: String,
    #[serde(flatten)]
    report: divergence::Report,
}

/// Runs the command.
///
/// # Errors
/// If a model is an encoder or has no tokenizer, the text is empty, an option is out of its range, or the original
/// has another vocabulary; and as [`trust::run`] and [`tasks::run`].
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    if let Some(folder) = args.trust.writes() {
        return trust::write_probes(folder, globals);
    }
    if let Some(folder) = args.tasks.writes() {
        return tasks::write_tasks(folder, globals);
    }
    if args.tasks.lists() {
        return tasks::list(globals);
    }
    let Some(model) = args.model.as_deref() else {
        bail!("name a MODEL, with --perplexity FILE, --tasks or --trust");
    };
    let judged = Judged {
        model: args.compare.as_deref().unwrap_or(model),
        original: if args.compare.is_some() { Some(model) } else { args.against.as_deref() },
        flags_of_original: args.compare.is_some(),
    };
    match &args.perplexity {
        _ if args.trust.is_given() => trust::run(&args.trust, &judged, args.chat, &args.compute, globals),
        _ if args.tasks.is_given() => tasks::run(&args.tasks, &judged, args.chat, &args.compute, globals),
        Some(file) => perplexity(&args, model, file, globals),
        None => bail!("say what to measure: --perplexity FILE, --tasks or --trust"),
    }
}

/// The perplexity of a text, and how far it is from the original's.
fn perplexity(args: &Args, model: &str, file: &Path, globals: &Globals) -> anyhow::Result<Outcome> {
    let model = open(model)?;
    let original = args.against.as_deref().map(open).transpose()?;
    let longest =
        original.iter().map(|it| it.spec.context_length).fold(model.spec.context_length, usize::min);
    let context = args.context.unwrap_or(longest);
    if context == 0 || context > longest {
        let whose = if original.is_some() { "that both models have" } else { "that the model has" };
        bail!("--context should be from 1 to the {longest} tokens {whose}, found {context}");
    }
    let stride = args.stride.unwrap_or(context);
    let text = text_input::file(file)?;
    let separator = args.document_separator.as_ref().map(|text| text.replace("\\n", "\n"));
    let texts = documents(&text, separator.as_deref());
    let size = texts.iter().map(|text| TextSize::of(text)).fold(TextSize::default(), |a, b| a + b);
    let ids = token_ids(&model, &texts)?;
    if let Some(original) = &original {
        check_ids(&model, &ids, original, &texts)?;
    }
    let options = Options { context, stride, prefix: source::text_start(&model) };
    let engine = args.compute.load(&model, Mode::fast())?;
    let original_engine = original.as_ref().map(|it| args.compute.load_original(it)).transpose()?;
    let watch = Watch::start();
    let mut bar = Progress::new("predicting", Unit::Tokens);
    let start = Instant::now();
    let mut progress = |done, total| {
        bar.set(done as u64, total as u64);
        Ok(watch.check()?)
    };
    let compared = match &original_engine {
        Some(original) => Some(compare(original, &engine, &ids, &options, &mut progress)?),
        None => None,
    };
    let scores = match &compared {
        Some(compared) => compared.scores.clone(),
        None => score(&engine, &ids, &options, &mut progress)?,
    };
    drop(bar);
    let seconds = start.elapsed().as_secs_f64();
    let report = Report::new(&scores, size).with_context(|| file.display().to_string())?;
    let output = Output {
        model: model.origin.path.display().to_string(),
        file: file.to_path_buf(),
        documents: texts.len(),
        context,
        stride,
        prefix_token: options.prefix,
        tokens_per_second: report.tokens as f64 / seconds.max(1e-9),
        report,
        divergence: compared.zip(original).map(|(report, original)| Divergence {
            original: original.origin.path.display().to_string(),
            report,
        }),
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

/// Opens a model that predicts the next token.
fn open(reference: &str) -> anyhow::Result<Model> {
    let model = source::open(reference)?;
    if !model.spec.causal {
        bail!("{reference} is an encoder; only models that predict the next token can be measured so");
    }
    Ok(model)
}

/// The chat template, if one is to be used.
fn template(model: &Model, chat: bool) -> anyhow::Result<Option<&ChatTemplate>> {
    match (chat, &model.chat) {
        (true, None) => {
            bail!("{} has no chat template; leave out --chat", model.origin.path.display())
        }
        (true, template) => Ok(template.as_ref()),
        (false, _) => Ok(None),
    }
}

/// How a model is asked, and its engine; `flags` says whether it computes as the flags say, or as an original does.
fn ready<'m>(
    model: &'m Model,
    chat: bool,
    compute: &ComputeArgs,
    flags: bool,
) -> anyhow::Result<(Prompting<'m>, Engine)> {
    let chat = template(model, chat)?;
    let prompting =
        Prompting { tokenizer: source::tokenizer(model)?, start: source::text_start(model), chat };
    let engine = if flags { compute.load(model, Mode::fast())? } else { compute.load_original(model)? };
    Ok((prompting, engine))
}

fn token_ids(model: &Model, texts: &[&str]) -> anyhow::Result<Vec<Vec<u32>>> {
    let tokenizer = source::tokenizer(model)?;
    Ok(texts.iter().map(|text| tokenizer.encode(text, false)).collect::<Result<_, _>>()?)
}

/// Refuses an original that reads a text as other tokens: its predictions would be about other things.
fn check_ids(model: &Model, ids: &[Vec<u32>], original: &Model, texts: &[&str]) -> anyhow::Result<()> {
    let others = token_ids(original, texts)?;
    let Some((ours, others)) = ids.iter().zip(&others).find(|(ours, others)| ours != others) else {
        return Ok(());
    };
    let place = ours.iter().zip(others).take_while(|(ours, others)| ours == others).count();
    let told = |ids: &[u32]| ids.get(place).map_or("nothing".to_string(), |id| format!("token {id}"));
    bail!(
        "{} reads the text as other tokens than {}: after {place} equal ones {} in place of {}; name the model that \
         this one was made from",
        original.origin.path.display(),
        model.origin.path.display(),
        told(others),
        told(ours)
    )
}

/// The documents of a text; empty ones are left out.
fn documents<'t>(text: &'t str, separator: Option<&str>) -> Vec<&'t str> {
    match separator.filter(|it| !it.is_empty()) {
        Some(separator) => text.split(separator).filter(|document| !document.trim().is_empty()).collect(),
        None => vec![text],
    }
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
    output.divergence.iter().try_for_each(print_divergence)?;
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

fn print_divergence(divergence: &Divergence) -> anyhow::Result<()> {
    let Divergence { original, report } = divergence;
    let told = |estimate: Estimate, show: fn(f64) -> String| {
        let stderr = estimate.stderr.map(|it| format!(" ± {}", show(it))).unwrap_or_default();
        format!("{}{stderr}", show(estimate.value))
    };
    let share = |value: f64| format!("{:.3} %", value * 100.0);
    let plain = |value: f64| format!("{value:.4}");
    output::line(format!("against {original}"))?;
    let line = |name: &str, text: String| output::line(format!("  {name:<29} {text}"));
    line("KL, nats a token", told(report.mean_kl, small))?;
    for (name, value) in [
        ("half of the tokens", report.median_kl),
        ("90 %", report.p90_kl),
        ("99 %", report.p99_kl),
        ("99.9 %", report.p999_kl),
        ("all", report.max_kl),
    ] {
        line(&format!("  {name}, at most"), small(value))?;
    }
    line("same most probable token", told(report.top1_agreement, share))?;
    line(
        "change of probability",
        format!("{} (root of the mean square)", told(report.rms_probability_change, share)),
    )?;
    line("its token perplexity", told(report.original_perplexity, plain))?;
    line("ratio of perplexities", format!("{:.5}", report.perplexity_ratio))?;
    line("ln of the ratio", told(report.ln_perplexity_ratio, small))
}

/// A number whose size is not known beforehand.
fn small(value: f64) -> String {
    if value == 0.0 || value.abs() >= 0.001 { format!("{value:.5}") } else { format!("{value:.2e}") }
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
