//! `ounce prune`: fewer weights. Whole parts leave and the model is faster, or single weights become zero.

mod shapes;
pub(super) mod structured;
mod training;
mod unstructured;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::bail;
use ounce_compress::prune::Sparsity;
use ounce_compress::prune::structured::Target;
use ounce_kernels::DType;
use ounce_model::Model;
use ounce_model::formats::{WriteOptions, gguf_model};
use serde::Serialize;

use super::convert::{forecast, is_gguf, write_as_forecast};
use super::quantize::{closing, texts};
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::{output, source, units};

/// Prune a model: fewer weights, at the least loss
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce prune builtin -o small.gguf --ratio 0.3                    heads and channels, wherever they matter least
  ounce prune ./folder -o ./small --ratio 0.25 --uniform           layers of one shape, as transformers reads them
  ounce prune ./folder -o small.gguf --params 90M --calibration wiki.txt
  ounce prune ./folder -o ./shallow --method layers --layers 20    the layers that turn the stream least leave
  ounce prune ./folder -o ./narrow --method stream --ratio 0.2     a narrower residual stream
  ounce prune ./folder -o ./sparse --method sparsegpt --ratio 0.5  zeros; shapes and bytes stay
  ounce prune ./folder -o ./sparse --method wanda --pattern 2:4
  ounce prune ./folder -o ./small --ratio 0.5 --train efficient-llm --calibration text.txt --calibration-tokens 2000000
  ounce prune ./folder -o small.gguf --copies 4 --train echo-att --calibration text.txt --calibration-tokens 2000000
  ounce prune ./folder -o any.shapes --ratio 0.6 --train amoeba --calibration text.txt --calibration-tokens 2000000
  ounce prune ./folder -o ./small --params 90M --shapes any.shapes  cut out what was trained before, in seconds
  ounce prune ./folder -o small.gguf --ratio 0.3 --dry-run         what would leave, and the exact size
Whole parts that leave make a model smaller and faster on any machine. A part's worth is how much the loss on calibration
text changes without it, by slope and curvature. What stays answers for what left, by least squares on the same text; more
than a quarter of the weights wants training afterwards. The table at the end compares with the original on text that
calibration did not see.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// The file ending in .gguf, or the folder, to be made
    #[arg(short, long, value_name = "TARGET")]
    output: PathBuf,
    /// What leaves
    #[arg(long, value_enum, value_name = "METHOD", default_value = "heads+channels")]
    method: MethodName,
    #[command(flatten)]
    target: TargetArgs,
    /// What a part is worth, for heads, channels and the stream
    #[arg(long, value_enum, value_name = "SCORE", default_value = "taylor")]
    score: ScoreName,
    /// Cut all layers to the same shape, as programs want them that know layers of one shape only
    #[arg(long)]
    uniform: bool,
    /// Channels stay in multiples of this; blocks of number formats want 32
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    multiple: u32,
    /// Leave what stays as it is, and don't fit it to the whole model's outputs
    #[arg(long)]
    no_answer: bool,
    /// Cut out the best shape of those that --train amoeba made of this model
    #[arg(long, value_name = "FILE")]
    shapes: Option<PathBuf>,
    #[command(flatten)]
    training: training::TrainingArgs,
    #[command(flatten)]
    texts: texts::TextArgs,
    /// Replace what is at the target
    #[arg(long)]
    force: bool,
    /// Tell what would leave and the size of the file, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// How small.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
pub struct TargetArgs {
    /// Share of the layers' weights to remove, at least: 0.3 for three tenths
    #[arg(long, value_name = "SHARE")]
    ratio: Option<f64>,
    /// Parameters that stay at most, embedding and head included: a number, or one with K, M or B (powers of 1000)
    #[arg(long, value_name = "N", value_parser = parse_count)]
    params: Option<u64>,
    /// Layers that stay, for --method layers
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// Layers that attend by the queries and keys of a layer before them and lose their own, for --train echo-att
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    copies: Option<u32>,
    /// N:M, weights that stay of each M that follow each other: 2:4. For magnitude, wanda and sparsegpt
    #[arg(long, value_name = "N:M", value_parser = parse_pattern)]
    pattern: Option<Sparsity>,
}

/// What leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodName {
    /// Whole layers, by how little they turn the stream
    Layers,
    /// Channels between the matrices of feed-forward halves
    Channels,
    /// Key/value heads with their query heads
    Heads,
    /// Heads and channels
    #[value(name = "heads+channels")]
    #[serde(rename = "heads+channels")]
    HeadsChannels,
    /// Channels of the residual stream, the same in all layers
    Stream,
    /// Single weights, the smallest; they become zero
    Magnitude,
    /// Single weights, the smallest by the inputs they meet
    Wanda,
    /// Single weights, the least costly, and those that stay answer for them
    Sparsegpt,
}

/// What a part is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreName {
    /// The change of the loss without it, by slope and curvature (LLM-Pruner). Needs gradients: some 8 bytes a weight that enters the stream
    Taylor,
    /// The size of what it adds (Wanda), one layer in memory at a time
    Activation,
    /// The norm of its weights, without any text
    Magnitude,
}

impl MethodName {
    fn is_structured(self) -> bool {
        !matches!(self, MethodName::Magnitude | MethodName::Wanda | MethodName::Sparsegpt)
    }
}

/// A layer's parts before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Its number in the original.
    layer: usize,
    /// Whether it stays.
    stays: bool,
    /// Query heads.
    heads: [usize; 2],
    /// Key/value heads.
    kv_heads: [usize; 2],
    /// Width of the feed-forward half.
    channels: [usize; 2],
}

/// What was, or would be, cut.
#[derive(Debug, Default, Serialize)]
pub struct Removed {
    /// Parameters of the original and of the result, zeros counted.
    parameters: [u64; 2],
    /// Share of the layers' weights that are gone or zero.
    share: f64,
    /// Layer by layer; empty where single weights became zero.
    layers: Vec<Shape>,
    /// Width of the residual stream before and after.
    stream: [usize; 2],
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
pub struct Report {
    model: String,
    target: PathBuf,
    method: MethodName,
    calibration_tokens: usize,
    #[serde(flatten)]
    removed: Removed,
    seconds: f64,
    #[serde(flatten)]
    closing: closing::Closing,
}

/// What `--dry-run` prints with `--json`.
#[derive(Debug, Serialize)]
struct Planned<'a> {
    target: &'a Path,
    bytes: u64,
    #[serde(flatten)]
    removed: &'a Removed,
}

/// Runs the command.
///
/// # Errors
/// If the target exists, nothing as small can be cut, calibration is impossible, or reading or writing fails.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    if args.training.is_amoeba() {
        return shapes::train(&args, globals);
    }
    let Some(report) = make(&args, globals)? else { return Ok(Outcome::Done) };
    if globals.json {
        output::json(&report)?;
        return Ok(Outcome::Done);
    }
    report.removed.print()?;
    report.closing.print("pruned")?;
    let Report { target, seconds, closing, .. } = &report;
    output::line(format!("{}: {} in {seconds:.0} s", target.display(), units::bytes(closing.bytes)))?;
    Ok(Outcome::Done)
}

/// Prunes, or prints what would be done and gives nothing.
///
/// # Errors
/// As `run`.
pub fn make(args: &Args, globals: &Globals) -> anyhow::Result<Option<Report>> {
    args.check()?;
    if args.training.is_amoeba() {
        bail!(
            "--train amoeba writes a file of shapes and no model, so it is no step of a recipe; run ounce prune by itself"
        );
    }
    let model = source::open(&args.model)?;
    let options = WriteOptions { overwrite: args.force, ..WriteOptions::default() };
    // What is in the way, or has no place in the format, is said before any work.
    forecast(&model, &args.output, &options)?;
    let calibration = if args.looks() { args.texts.calibration.sequences(&model)? } else { Vec::new() };
    let calibration = args.training.ordered(calibration);
    let calibration_tokens = calibration.iter().map(Vec::len).sum();
    let start = Instant::now();
    let structured = args.method.is_structured() && !args.training.is_sparse();
    let (pruned, removed) = match structured {
        true => structured::prune(args, &model, calibration)?,
        false => unstructured::prune(args, &model, calibration)?,
    };
    // What was trained is f32; it goes back to the format that it came in.
    let options = WriteOptions {
        dtype: (args.training.is_asked() || args.shapes.is_some()).then(|| matrix_format(&model)).flatten(),
        ..options
    };
    let planned = forecast(&pruned, &args.output, &options)?;
    if args.dry_run {
        let planned = Planned { target: &args.output, bytes: planned.bytes, removed: &removed };
        if globals.json {
            output::json(&planned)?;
        } else {
            removed.print()?;
            output::line(format!(
                "{}: {} would be written",
                args.output.display(),
                units::bytes(planned.bytes)
            ))?;
        }
        return Ok(None);
    }
    if pruned.spec.copying_layers() > 0 {
        output::note(&format!(
            "{} layers have no queries and keys of their own: ounce reads such models, other programs miss the tensors",
            pruned.spec.copying_layers()
        ));
    } else if pruned.config.get("ounce_layers").is_some() {
        let how = match is_gguf(&args.output) {
            // llama.cpp reads this one layer by layer.
            true if gguf_model::architecture(&pruned)? == "deci" => None,
            true => Some(
                "which arrays in the file say: ounce reads them, llama.cpp does not for this architecture",
            ),
            false => Some("which config.json says under ounce_layers: ounce reads it, transformers does not"),
        };
        if let Some(how) = how {
            output::note(&format!("layers differ in shape, {how}; --uniform cuts all layers to one shape"));
        }
    }
    let bytes = write_as_forecast(&pruned, &args.output, &options, &planned)?;
    let seconds = start.elapsed().as_secs_f64();
    // Compared is what was written, for what is in memory is cut out anew whenever it is read.
    let written = Model::open(&args.output)?;
    let closing = closing::compare(&model, &written, &args.texts.test, bytes)?;
    Ok(Some(Report {
        model: args.model.clone(),
        target: args.output.clone(),
        method: args.method,
        calibration_tokens,
        removed,
        seconds,
        closing,
    }))
}

impl Args {
    /// Refuses flags that belong to other methods.
    fn check(&self) -> anyhow::Result<()> {
        let structured = self.method.is_structured();
        if self.target.layers.is_some() && self.method != MethodName::Layers {
            bail!(
                "--layers counts layers that stay, which --method layers chooses; add that, or say --ratio or --params"
            );
        }
        if self.target.pattern.is_some() && structured {
            bail!(
                "--pattern is for single weights; add --method magnitude, wanda or sparsegpt, or say --ratio"
            );
        }
        if self.target.params.is_some() && !structured {
            bail!(
                "zeros stay in the file, so --params can't be met by single weights; say --ratio or --pattern"
            );
        }
        let parts =
            matches!(self.method, MethodName::Heads | MethodName::Channels | MethodName::HeadsChannels);
        if self.uniform && !parts {
            bail!("--uniform is for heads and channels; other methods leave layers alike as they are");
        }
        if self.target.copies.is_some() != self.training.is_echo() {
            bail!(
                "--copies says how many layers lose their queries and keys with --train echo-att, which takes no other target; add what is missing"
            );
        }
        if let Some(share) = self.target.ratio.filter(|share| !(*share > 0.0 && *share < 1.0)) {
            bail!("--ratio should be above 0 and below 1, found {share}");
        }
        if self.training.is_asked() {
            self.training.check()?;
            if self.training.is_sparse() && self.target.ratio.is_none() {
                bail!(
                    "--train gradual leaves shapes as they are and sets weights to zero; say which share with --ratio"
                );
            }
            if self.method != MethodName::HeadsChannels
                || (self.uniform && !self.training.is_amoeba())
                || self.score != ScoreName::Taylor
                || self.dry_run
            {
                bail!(
                    "--train chooses by itself what leaves, while it trains; leave out --method, --score, --uniform and --dry-run"
                );
            }
        }
        if self.shapes.is_some()
            && (self.training.is_asked()
                || self.method != MethodName::HeadsChannels
                || self.target.layers.is_some())
        {
            bail!(
                "--shapes takes what was trained before; leave out --train and --method, and say --ratio or --params"
            );
        }
        if self.method == MethodName::Stream && self.score == ScoreName::Activation {
            bail!("the stream has no inputs to be measured by; choose --score taylor or magnitude");
        }
        Ok(())
    }

    /// Whether a text is looked at.
    fn looks(&self) -> bool {
        if self.shapes.is_some() {
            return false;
        }
        match self.method {
            MethodName::Magnitude => false,
            MethodName::Layers | MethodName::Wanda | MethodName::Sparsegpt => true,
            MethodName::Stream => self.score != ScoreName::Magnitude,
            MethodName::Heads | MethodName::Channels | MethodName::HeadsChannels => {
                self.score != ScoreName::Magnitude || (!self.no_answer && !self.dry_run)
            }
        }
    }

    /// How much leaves, for everything but counted layers.
    fn wanted(&self) -> Target {
        match (self.target.ratio, self.target.params) {
            (_, Some(most)) => Target::Parameters(most),
            (share, None) => Target::Share(share.unwrap_or(0.0)),
        }
    }
}

impl Removed {
    /// Prints a table, layers that are cut alike on one line.
    ///
    /// # Errors
    /// As `output::print_table`.
    fn print(&self) -> anyhow::Result<()> {
        let change = |[before, after]: [usize; 2]| match before == after {
            true => before.to_string(),
            false => format!("{before} → {after}"),
        };
        if !self.layers.is_empty() {
            let mut table = output::table(&["layer", "heads", "key/value heads", "channels"]);
            let alike = |a: &Shape, b: &Shape| Shape { layer: b.layer, ..*a } == *b;
            for run in self.layers.chunk_by(alike) {
                let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
                let name = match first.layer == last.layer {
                    true => first.layer.to_string(),
                    false => format!("{}–{}", first.layer, last.layer),
                };
                match first.stays {
                    true => table.add_row([
                        name,
                        change(first.heads),
                        change(first.kv_heads),
                        change(first.channels),
                    ]),
                    false => table.add_row([name, "leaves".into(), String::new(), String::new()]),
                };
            }
            output::print_table(&table)?;
        }
        if self.stream[0] != self.stream[1] {
            output::line(format!("stream: {}", change(self.stream)))?;
        }
        let [before, after] = self.parameters.map(units::count);
        let share = self.share * 100.0;
        output::line(match self.layers.is_empty() {
            true => format!("{share:.1} % of the layers' weights are zero"),
            false => {
                format!("{after} of {before} parameters stay; {share:.1} % of the layers' weights leave")
            }
        })
    }
}

/// The format of most of a model's matrices, if they are floats of 16 bits.
fn matrix_format(model: &Model) -> Option<DType> {
    let formats: Vec<DType> = (model.weights.names().filter_map(|name| model.weights.info(name)))
        .filter(|(_, shape)| shape.len() > 1)
        .map(|(dtype, _)| dtype)
        .collect();
    let count = |dtype: DType| formats.iter().filter(|it| **it == dtype).count();
    [DType::BF16, DType::F16].into_iter().find(|dtype| 2 * count(*dtype) > formats.len())
}

/// Reads a count of parameters: a number, or one with K, M or B.
fn parse_count(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("{text:?} is no count; write a number, or one with K, M or B, such as 90M or 1.1B");
    let text = text.trim();
    let (number, factor) = match text.char_indices().next_back() {
        Some((end, 'k' | 'K')) => (&text[..end], 1e3),
        Some((end, 'm' | 'M')) => (&text[..end], 1e6),
        Some((end, 'b' | 'B')) => (&text[..end], 1e9),
        _ => (text, 1.0),
    };
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    let count = number * factor;
    if count.is_finite() && (1.0..1e15).contains(&count) { Ok(count as u64) } else { Err(wrong()) }
}

/// Reads N:M.
fn parse_pattern(text: &str) -> Result<Sparsity, String> {
    let numbers = text
        .split_once(':')
        .and_then(|(keep, of)| Some((keep.trim().parse().ok()?, of.trim().parse().ok()?)));
    match numbers {
        Some((keep, of)) if 0 < keep && keep < of => Ok(Sparsity::Groups { keep, of }),
        _ => Err(format!("{text:?} is no pattern; write how many stay of how many, such as 2:4")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_patterns_are_read_as_people_write_them() {
        assert_eq!(parse_count("90M"), Ok(90_000_000));
        assert_eq!(parse_count("1.1b"), Ok(1_100_000_000));
        assert_eq!(parse_count("250000"), Ok(250_000));
        for wrong in ["", "M", "-3", "x", "0", "1e99B"] {
            assert!(parse_count(wrong).unwrap_err().contains("90M"), "{wrong}");
        }
        assert_eq!(parse_pattern("2:4"), Ok(Sparsity::Groups { keep: 2, of: 4 }));
        for wrong in ["4:2", "0:4", "2", "4:4", "a:b"] {
            assert!(parse_pattern(wrong).unwrap_err().contains("2:4"), "{wrong}");
        }
    }
}
