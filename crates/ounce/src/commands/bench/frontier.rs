//! `ounce bench frontier`: quality against bytes, for ounce's methods and for llama.cpp's quantizer on the same model.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use ounce_compress::quantize::efficient_qat::{block_ap, end_to_end};
use ounce_compress::quantize::gptq;
use ounce_compress::quantize::{Method, Plan, Quantizer, Store, imatrix, units};
use ounce_engine::{Engine, Mode};
use ounce_eval::divergence::Reference;
use ounce_eval::perplexity::Options;
use ounce_kernels::DType;
use ounce_model::formats::{WriteOptions, gguf_model};
use ounce_model::{Model, Tensor};
use serde::Serialize;
use serde_json::json;

use super::super::quantize::allocation::{Budget, Table, observe};
use super::super::quantize::formats::FormatArgs;
use super::super::quantize::texts::{TextArgs, sequence_length};
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::plot::{self, Chart, Series};
use crate::progress::{Progress, Unit as Counted};
use crate::{output, source, units as sizes};

/// Memory that the original's logits may take.
const LOGITS: u64 = 4 << 30;

/// Measure quality against bytes: ounce's quantization methods, and llama.cpp's beside them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce bench frontier builtin
  ounce bench frontier ./folder --calibration wiki.txt --test held-out.txt --plot frontier.svg
  ounce bench frontier ./folder --against llama-quantize=~/llama.cpp/build/bin/llama-quantize
  ounce bench frontier ./folder --sizes 2.5,2.75,3,3.5 --train-below 4
Every file is written as GGUF, read back and run on its decoded weights in f32, so that only the weights' bits tell
them apart. llama-quantize is given an importance matrix of the same calibration text. For each of its files the
last table names ounce's best that is no larger.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// Formats for all matrices
    #[arg(long = "types", value_name = "FORMAT,…", value_delimiter = ',', value_parser = super::super::convert::parse_dtype,
          default_value = "iq2_xxs,iq2_xs,iq2_s,q2_k,q3_k,iq4_xs,q4_k,q5_k,q6_k,q8_0")]
    types: Vec<DType>,
    /// Sizes in bits a weight for which each matrix gets its own format
    #[arg(
        long,
        value_name = "BITS,…",
        value_delimiter = ',',
        default_value = "2.3,2.5,2.75,3,3.5,4,4.5,5,5.5,6,7,8"
    )]
    sizes: Vec<f64>,
    /// Also train (EfficientQAT) what has at most so many bits a weight; 0 trains nothing
    #[arg(long, value_name = "BITS", default_value_t = 0.0)]
    train_below: f64,
    /// llama-quantize=PATH: llama.cpp's quantizer
    #[arg(long, value_name = "llama-quantize=PATH")]
    against: Option<String>,
    /// The types that it writes
    #[arg(
        long,
        value_name = "TYPE,…",
        value_delimiter = ',',
        default_value = "IQ2_XXS,IQ2_XS,IQ2_S,IQ2_M,Q2_K,IQ3_XXS,IQ3_S,Q3_K_S,Q3_K_M,IQ4_XS,IQ4_NL,Q4_0,Q4_K_S,Q4_K_M,Q5_K_S,Q5_K_M,Q6_K,Q8_0"
    )]
    peer_types: Vec<String>,
    #[command(flatten)]
    texts: TextArgs,
    /// Write the chart to this file, .svg or .png
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// A file.
#[derive(Debug, Clone, Serialize)]
struct Point {
    method: &'static str,
    what: String,
    bytes: u64,
    bits_per_weight: f64,
    mean_kl: f64,
    p99_kl: f64,
    top1_agreement: f64,
    perplexity: f64,
}

/// A file of the peer's and ounce's best that is no larger.
#[derive(Debug, Serialize)]
struct Pair {
    peer: String,
    bytes: u64,
    mean_kl: f64,
    best: Option<Point>,
    /// Its KL as a share of the peer's.
    ratio: Option<f64>,
}

const PEER: &str = "llama-quantize";

/// A way to make files, by the name of its points.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    method: Method,
    /// Whether EfficientQAT comes behind it.
    trains: bool,
}

impl Way {
    fn new(name: &'static str, method: Method) -> Way {
        Way { name, method, trains: false }
    }

    /// By GPTQ and descent, as is usual.
    fn usual(name: &'static str) -> Way {
        Way::new(name, Method::Gptq(gptq::Options::default()))
    }

    /// The same and training.
    fn trained(name: &'static str) -> Way {
        Way { trains: true, ..Way::usual(name) }
    }
}

/// Runs the command.
///
/// # Errors
/// If the model predicts no tokens, a text is too short, or the peer can't be run.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let peer = args.against.as_deref().map(peer_path).transpose()?;
    let model = source::open(&args.model)?;
    if !model.spec.causal {
        bail!("{} is an encoder; the frontier compares predicted tokens", args.model);
    }
    let folder = tempfile::tempdir()?;
    let bench = Bench::new(&model, &args, folder.path())?;
    let mut points = Vec::new();
    for way in [
        Way::new("round", Method::Round),
        Way::new("weighted", Method::Weighted),
        Way::new("gptq", Method::Gptq(gptq::Options { descent: 0, ..gptq::Options::default() })),
        Way::usual("gptq and descent"),
    ] {
        for &dtype in &args.types {
            bench.uniform(way, dtype, &mut points)?;
        }
    }
    for &dtype in args.types.iter().filter(|it| it.bits_per_value() <= args.train_below) {
        bench.uniform(Way::trained("trained"), dtype, &mut points)?;
    }
    bench.allocated(&args.sizes, args.train_below, &mut points)?;
    if let Some(peer) = &peer {
        bench.peer(peer, &args.peer_types, &mut points)?;
    }
    points.sort_by_key(|point| point.bytes);
    let pairs = pairs(&points);
    if let Some(path) = &args.plot {
        draw(&points, path)?;
    }
    if globals.json {
        output::json(&json!({ "model": args.model, "points": points, "pairs": pairs }))?;
    } else {
        print(&points, &pairs)?;
    }
    Ok(Outcome::Done)
}

fn peer_path(text: &str) -> anyhow::Result<PathBuf> {
    let path = text.strip_prefix("llama-quantize=").map(PathBuf::from);
    let path = path.with_context(|| format!("--against {text}: give llama-quantize=PATH"))?;
    if !path.is_file() {
        bail!("{}: there is no such program", path.display());
    }
    Ok(path)
}

struct Bench<'a> {
    model: &'a Model,
    folder: &'a Path,
    calibration: Vec<Vec<u32>>,
    importance: HashMap<String, Vec<f32>>,
    observed: HashMap<String, (Vec<f32>, usize)>,
    reference: Reference,
    watch: Watch,
}

impl<'a> Bench<'a> {
    fn new(model: &'a Model, args: &Args, folder: &'a Path) -> anyhow::Result<Bench<'a>> {
        let calibration = args.texts.calibration.sequences(model)?;
        if !args.texts.test.compares() {
            bail!("the frontier needs a test text");
        }
        let documents = args.texts.test.documents(model)?;
        let watch = Watch::start();
        let observed = observe(model, &calibration)?;
        let importance = observed.iter().map(|(name, (means, _))| (name.clone(), means.clone())).collect();
        let context = sequence_length(model);
        let options = Options { context, stride: context, prefix: source::text_start(model) };
        let original = exact(model)?;
        let reference = Reference::of(&original, &documents, &options, LOGITS, |_, _| Ok(watch.check()?))?;
        Ok(Bench { model, folder, calibration, importance, observed, reference, watch })
    }

    /// One format for all matrices, with ounce's usual choice for token vectors and head.
    fn uniform(&self, way: Way, dtype: DType, points: &mut Vec<Point>) -> anyhow::Result<()> {
        let units = units(self.model)?;
        let plan = FormatArgs::of(dtype).plan(self.model, &units, Path::new("x.gguf"))?;
        // Where rows do not fit, several formats can come to the same.
        let label = label(&plan);
        if points.iter().any(|point| point.method == way.name && point.what == label) {
            return Ok(());
        }
        self.add(way, label, &plan, points)
    }

    fn allocated(&self, sizes: &[f64], train_below: f64, points: &mut Vec<Point>) -> anyhow::Result<()> {
        let units = units(self.model)?;
        let table = Table::measure(self.model, &units, true, &self.calibration, &self.importance)?;
        let options = WriteOptions { overwrite: true, ..WriteOptions::default() };
        let target = &self.folder.join("x.gguf");
        for &bits in sizes {
            let budget = Budget::BitsPerWeight(bits);
            // Sizes that no format of this model's widths reaches have no point.
            match table.plan(self.model, &units, &FormatArgs::default(), target, &options, budget) {
                Ok(plan) => {
                    let what = format!("{bits} bits");
                    self.add(Way::usual("by sensitivity"), what.clone(), &plan, points)?;
                    if bits <= train_below {
                        self.add(Way::trained("trained, by sensitivity"), what, &plan, points)?;
                    }
                }
                Err(error) => output::note(&format!("{bits} bits: left out: {error}")),
            }
        }
        Ok(())
    }

    fn add(&self, way: Way, what: String, plan: &Plan, points: &mut Vec<Point>) -> anyhow::Result<()> {
        let Way { name, method, trains } = way;
        let path = self.folder.join("x.gguf");
        let store = Store::open(&self.folder.join("parts"), &json!({ "method": name, "what": what }))?;
        let mut bar = Progress::new(&format!("{name}, {what}"), Counted::Share);
        let mut observer = |_: Option<&_>, done: u64, total: u64| {
            bar.set(done, total);
            Ok(self.watch.check()?)
        };
        let quantizer = Quantizer::new(self.model, plan, method, &store, &mut observer);
        let calibration =
            if matches!(method, Method::Gptq(_)) { self.calibration.clone() } else { Vec::new() };
        let quantizer = quantizer.with_importance(&self.importance);
        let mut ignored = |_: &block_ap::Trained| {};
        let weights = match trains {
            true => quantizer.with_training(block_ap::Options::default(), &mut ignored).run(calibration)?,
            false => quantizer.run(calibration)?,
        };
        let mut quantized = Model { weights, ..self.model.clone() };
        if trains {
            let (options, original) = (end_to_end::Options::default(), Some(self.model));
            let mut check = |_: f64| Ok(self.watch.check()?);
            quantized.weights =
                end_to_end::train(&quantized, original, &self.calibration, &options, &mut check)?.0;
        }
        let options = WriteOptions { overwrite: true, ..WriteOptions::default() };
        gguf_model::write_model(&quantized, &path, &options, &mut |_, _| self.watch.check())?;
        drop(quantized);
        store.remove()?;
        let bytes = std::fs::metadata(&path)?.len();
        points.push(self.point(name, what, &path, bytes)?);
        Ok(())
    }

    /// What llama.cpp's quantizer makes of the model.
    fn peer(&self, program: &Path, types: &[String], points: &mut Vec<Point>) -> anyhow::Result<()> {
        let file = |name: &str| self.folder.join(name);
        let (source, matrix) = (file("f32.gguf"), file("imatrix.gguf"));
        let (out, decoded) = (file("y.gguf"), file("y-f32.gguf"));
        let options = WriteOptions { dtype: Some(DType::F32), ..WriteOptions::default() };
        gguf_model::write_model(self.model, &source, &options, &mut |_, _| self.watch.check())?;
        imatrix::to_file(&self.observed, self.model, "calibration", &self.calibration)?.write(&matrix)?;
        for kind in types {
            self.watch.check()?;
            run_peer(
                program,
                Command::new(program).arg("--imatrix").args([&matrix, &source, &out]).arg(kind),
            )?;
            let bytes = std::fs::metadata(&out)?.len();
            // Formats that ounce does not read are decoded by the peer itself.
            let readable = match Model::open(&out).is_ok() {
                true => &out,
                false => {
                    let mut decode = Command::new(program);
                    run_peer(program, decode.arg("--allow-requantize").args([&out, &decoded]).arg("F32"))?;
                    &decoded
                }
            };
            points.push(self.point(PEER, kind.clone(), readable, bytes)?);
        }
        Ok(())
    }

    fn point(&self, method: &'static str, what: String, path: &Path, bytes: u64) -> anyhow::Result<Point> {
        let model = Model::open(path)?;
        // The same in a file and in what was decoded from it.
        let metadata = std::fs::metadata(path)?.len().saturating_sub(model.weight_bytes());
        let values: usize = model
            .weights
            .names()
            .filter_map(|name| model.weights.info(name))
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum();
        let found = self.reference.compare(&exact(&model)?, |_, _| Ok(self.watch.check()?))?;
        let point = Point {
            method,
            what,
            bytes,
            bits_per_weight: bytes.saturating_sub(metadata) as f64 * 8.0 / values.max(1) as f64,
            mean_kl: found.mean_kl.value,
            p99_kl: found.p99_kl,
            top1_agreement: found.top1_agreement.value,
            perplexity: found.perplexity.value,
        };
        output::note(&format!(
            "{method}, {}: {:.2} bits, KL {:.6}",
            point.what, point.bits_per_weight, point.mean_kl
        ));
        Ok(point)
    }
}

/// Runs the peer; gives the last line that it said if it fails.
fn run_peer(program: &Path, command: &mut Command) -> anyhow::Result<()> {
    let ran = command.output().with_context(|| format!("{} can't be started", program.display()))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        let what = command.get_args().last().unwrap_or_default().to_string_lossy().into_owned();
        bail!("{PEER} failed for {what}: {}", said.lines().last().unwrap_or("it said nothing"));
    }
    Ok(())
}

/// The formats of a plan's matrices, the most frequent first.
fn label(plan: &Plan) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for format in plan.formats.values() {
        match counts.iter_mut().find(|it| it.0 == format) {
            Some(count) => count.1 += 1,
            None => counts.push((format, 1)),
        }
    }
    counts.sort_by_key(|it| std::cmp::Reverse(it.1));
    counts.iter().map(|it| it.0).collect::<Vec<_>>().join(" + ")
}

/// An engine on decoded weights, in f32.
fn exact(model: &Model) -> anyhow::Result<Engine> {
    let mut decoded = Vec::new();
    for name in model.weights.names() {
        let Some((dtype, shape)) = model.weights.info(name) else { continue };
        if dtype != DType::F32 {
            decoded.push((name.to_owned(), Tensor::from_f32(shape, &model.weights.f32(name)?)));
        }
    }
    Ok(Engine::load(&Model { weights: model.weights.replaced(decoded)?, ..model.clone() }, Mode::fast())?)
}

/// The peer's files, each with ounce's best that is no larger.
fn pairs(points: &[Point]) -> Vec<Pair> {
    let of_peer = points.iter().filter(|point| point.method == PEER);
    of_peer
        .map(|peer| {
            let ours = points.iter().filter(|point| point.method != PEER && point.bytes <= peer.bytes);
            let best = ours.min_by(|a, b| a.mean_kl.total_cmp(&b.mean_kl)).cloned();
            let ratio = best.as_ref().map(|best| best.mean_kl / peer.mean_kl);
            Pair { peer: peer.what.clone(), bytes: peer.bytes, mean_kl: peer.mean_kl, best, ratio }
        })
        .collect()
}

fn print(points: &[Point], pairs: &[Pair]) -> anyhow::Result<()> {
    let mut table = output::table(&[
        "method",
        "formats",
        "bytes",
        "bits",
        "KL mean",
        "KL 99 %",
        "same top",
        "perplexity",
    ]);
    for point in points {
        table.add_row([
            point.method,
            &point.what,
            &sizes::bytes(point.bytes),
            &format!("{:.2}", point.bits_per_weight),
            &format!("{:.6}", point.mean_kl),
            &format!("{:.5}", point.p99_kl),
            &format!("{:.2} %", point.top1_agreement * 100.0),
            &format!("{:.4}", point.perplexity),
        ]);
    }
    output::print_table(&table)?;
    if pairs.is_empty() {
        return Ok(());
    }
    let mut table =
        output::table(&["llama-quantize", "bytes", "KL", "ounce's best, no larger", "bytes", "KL", "ratio"]);
    for pair in pairs {
        let best = pair.best.as_ref();
        table.add_row([
            &pair.peer,
            &sizes::bytes(pair.bytes),
            &format!("{:.6}", pair.mean_kl),
            &best.map_or("none".to_owned(), |it| format!("{}, {}", it.method, it.what)),
            &best.map_or(String::new(), |it| sizes::bytes(it.bytes)),
            &best.map_or(String::new(), |it| format!("{:.6}", it.mean_kl)),
            &pair.ratio.map_or(String::new(), |it| format!("{it:.2}")),
        ]);
    }
    output::print_table(&table)
}

fn draw(points: &[Point], path: &Path) -> anyhow::Result<()> {
    let mut methods: Vec<&str> = Vec::new();
    for point in points {
        if !methods.contains(&point.method) {
            methods.push(point.method);
        }
    }
    let series = methods.iter().map(|method| {
        let own = points.iter().filter(|point| point.method == *method);
        Series::dotted(
            *method,
            own.map(|point| (point.bytes as f64 / f64::from(1 << 20), point.mean_kl)).collect(),
        )
    });
    let chart = Chart {
        title: "Quality against size".to_owned(),
        x_label: "file, MiB".to_owned(),
        y_label: "mean KL to the original, nats a token".to_owned(),
        series: series.collect(),
        log_x: false,
        log_y: true,
    };
    match path.extension().and_then(|it| it.to_str()) {
        Some("svg") => plot::write_svg(&chart, path),
        Some("png") => plot::write_png(&chart, path),
        _ => bail!("{}: charts are written as .svg or .png", path.display()),
    }
}
