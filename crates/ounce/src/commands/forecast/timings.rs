//! `ounce forecast --timings`: a few runs of a model, and what they tell of all others.

use std::time::Duration;

use anyhow::bail;
use ounce_engine::{Engine, Mode};
use ounce_model::account::Formats;
use ounce_plan::idealized_runtime::{Fit, Timing, fit, grid, run_request};
use ounce_plan::shapes;
use serde::Serialize;

use super::Args;
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::units::time;
use crate::{compute, output, source};

/// Runs of each point; the fastest counts.
const TRIALS: usize = 3;
/// Tokens of the longest answer that is timed.
const LONGEST_ANSWER: usize = 32;

/// Reads `prompt:answer`.
pub(super) fn request(text: &str) -> Result<(usize, usize), String> {
    let wrong = || format!("{text:?} is no request; write prompt:answer tokens, such as 200:50");
    let (prompt, answer) = text.split_once(':').ok_or_else(wrong)?;
    match (prompt.parse(), answer.parse()) {
        (Ok(prompt), Ok(answer)) if prompt > 0 && answer > 0 => Ok((prompt, answer)),
        _ => Err(wrong()),
    }
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    timings: Vec<Timing>,
    fit: Fit,
    requests: Vec<Told>,
}

#[derive(Debug, Serialize)]
struct Told {
    prompt: usize,
    answer: usize,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<f64>,
}

/// Runs the command.
///
/// # Errors
/// If the model can't be run or a number is out of its range.
pub(super) fn run(args: &Args, globals: &Globals) -> anyhow::Result<Outcome> {
    if args.prompt < 8 {
        bail!("--timings needs a --prompt of 8 or more: the longest that is timed");
    }
    if args.hour_price.is_some_and(|price| !(price >= 0.0 && price.is_finite())) {
        bail!("--hour-price should be 0 or more");
    }
    let model = match (&args.shape, &args.model) {
        (Some(name), _) => {
            shapes::by_name(name)?.model(args.dtype.unwrap_or(ounce_kernels::DType::Q8_0), 1, &|_| {})?
        }
        (None, Some(reference)) => source::open(reference)?,
        (None, None) => bail!("name a model or a --shape"),
    };
    let mode = Mode::Fast { quantize: args.dtype.filter(|_| args.shape.is_none()) };
    let mut engine = Engine::load(&model, mode)?;
    engine.set_kv_type(args.kv.unwrap_or_else(|| compute::usual_kv_type(&Formats::of(&model.weights), mode)));
    let watch = Watch::start();
    let mut bar = Progress::new("timing", Unit::Items);
    let points = grid(args.prompt, LONGEST_ANSWER);
    let mut timings: Vec<Timing> = Vec::new();
    // One that is not counted.
    run_request(&engine, points[0].0, points[0].1)?;
    for trial in 0..TRIALS {
        for (index, &(prompt, answer)) in points.iter().enumerate() {
            watch.check()?;
            bar.set((trial * points.len() + index) as u64, (TRIALS * points.len()) as u64);
            let seconds = run_request(&engine, prompt, answer)?;
            match timings.get_mut(index) {
                Some(timing) => timing.seconds = timing.seconds.min(seconds),
                None => timings.push(Timing { prompt, answer, seconds }),
            }
        }
    }
    drop(bar);
    let fit = fit(&timings)?;
    let requests = args.request.iter().map(|&(prompt, answer)| {
        let seconds = fit.seconds(prompt, answer);
        Told { prompt, answer, seconds, cost: args.hour_price.map(|price| seconds / 3600.0 * price) }
    });
    let report =
        Report { model: model.origin.path.display().to_string(), requests: requests.collect(), timings, fit };
    if globals.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(Outcome::Done)
}

fn print(report: &Report) -> anyhow::Result<()> {
    let Report { fit, timings, .. } = report;
    output::line(format!("{}: {} timings, each the fastest of {TRIALS}", report.model, timings.len()))?;
    for &(prompt, seconds) in &fit.first {
        output::line(format!("  first token of a prompt of {prompt:>5}: {}", time(seconds)))?;
    }
    let more = fit.per_token_position * 1000.0;
    let more = Duration::try_from_secs_f64(more.max(0.0)).unwrap_or_default();
    output::line(format!(
        "  each further token: {}, and {:.1} µs more for every 1000 positions before it; R² {:.4}",
        time(fit.per_token),
        more.as_secs_f64() * 1e6,
        fit.r_squared
    ))?;
    for Told { prompt, answer, seconds, cost } in &report.requests {
        let cost = cost.map_or(String::new(), |cost| format!(", costs {cost:.6}"));
        output::line(format!("  {prompt}:{answer} takes {}{cost}", time(*seconds)))?;
    }
    Ok(())
}
