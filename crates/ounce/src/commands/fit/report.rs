//! What a fit promised and what was measured: the report as data, and on the terminal.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use ounce_compress::quantize::Finished;
use ounce_engine::Mode;
use ounce_eval::divergence::Report as Divergence;
use ounce_kernels::isa::Isa;
use ounce_model::Model;
use ounce_model::account::Formats;
use ounce_model::account::sizes::{GroupSize, groups};
use ounce_model::machine::{Cpu, Machine};
use ounce_model::storage::AtomicFile;
use ounce_plan::budget::{Budget, Costs, Limit};
use ounce_plan::forecast::{Forecast, KvType, forecast};
use ounce_plan::recipe::Recipe;
use ounce_plan::search::Candidate;
use serde::Serialize;

use super::super::bench::costs::Measured;
use super::super::plan::Found;
use super::super::plan::budget::{Asked, cost, quality as measures};
use super::super::plan::candidates::OriginalRun;
use super::samples::Sample;
use super::{Args, LIMITS, Made, html, samples};
use crate::{calibration, compute, output, source};

/// Version of `report.json`.
const FORMAT: u32 = 1;

/// One cost: before, as told and as measured.
#[derive(Debug, Serialize)]
pub struct Row {
    pub limit: Limit,
    /// Of the original, measured.
    pub before: Option<f64>,
    /// What was forecast.
    pub told: Option<f64>,
    /// What was measured.
    pub measured: Option<f64>,
    /// How far the forecast was off, as a share of what was measured.
    pub error: Option<f64>,
    /// The most that was allowed.
    pub budget: Option<f64>,
    /// The same as people read it: before, told, measured, budget.
    #[serde(skip)]
    pub words: [String; 4],
}

/// What a fit did.
#[derive(Debug, Serialize)]
pub struct Report {
    pub format: u32,
    pub ounce: &'static str,
    /// The command that does it again.
    pub command: String,
    /// Seconds since 1970-01-01 UTC.
    pub made_at_unix_seconds: u64,
    pub seconds: f64,
    pub model: String,
    pub parameters: u64,
    pub target: String,
    pub met: bool,
    pub asked: Asked,
    pub rows: Vec<Row>,
    pub quality: Divergence,
    /// The same before the result was trained; none if it was not.
    pub untrained: Option<Divergence>,
    /// Whether the quality that was asked for is there; none where none was asked for.
    pub quality_met: Option<bool>,
    pub chosen: String,
    pub plan: PlanFound,
    pub recipe: Recipe,
    pub groups_before: Vec<GroupSize>,
    pub groups: Vec<GroupSize>,
    pub matrices: Vec<Finished>,
    pub samples: Vec<Sample>,
    pub machine: MachineSaid,
    /// The result's forecast by operator.
    pub forecast: Forecast,
}

/// Candidates and what they were tried on.
#[derive(Debug, Serialize)]
pub struct PlanFound {
    pub candidates: Vec<Candidate>,
    pub chosen: Option<usize>,
    /// How the original ran; forecasts are corrected by it.
    pub original: OriginalRun,
    pub trial_tokens: usize,
    pub seconds: f64,
}

/// The machine, as far as it matters.
#[derive(Debug, Serialize)]
pub struct MachineSaid {
    pub cpu: Cpu,
    pub memory_bytes: u64,
    pub instruction_set: &'static str,
    pub threads: usize,
    /// Bytes a second read from memory.
    pub bandwidth: f64,
    /// Operations a second by kind.
    pub peaks: Vec<(String, f64)>,
    /// Whether forecasts stand on kernels that were timed here.
    pub calibrated: bool,
}

impl Report {
    /// Gathers everything.
    ///
    /// # Errors
    /// If the result can't be read or run, or the forecast fails.
    pub fn new(
        args: &Args,
        model: &Model,
        asked: &Asked,
        found: &Found,
        place: Option<usize>,
        choice: &Candidate,
        made: Made,
        time: Duration,
    ) -> anyhow::Result<Report> {
        let target = args.target().display().to_string();
        let small = source::open(&target)?;
        let formats = Formats::of(&small.weights);
        let (machine, kernels) = calibration::known_or_measured(asked.threads)?;
        let kv = choice.recipe.run.kv.as_deref().and_then(|it| compute::kv_type(it).ok());
        let kv: KvType = kv.unwrap_or_else(|| compute::usual_kv_type(&formats, Mode::fast()));
        let told = forecast(&small.spec, &formats, &machine, &kernels, &asked.workload(kv))?;
        let quality = measures(&made.divergence);
        let misses = asked.budget.misses(&made.costs);
        let quality_met = asked.budget.quality.map(|_| asked.budget.misses_quality(&quality).is_none());
        let disk_before = model.weight_bytes();
        Ok(Report {
            format: FORMAT,
            ounce: env!("CARGO_PKG_VERSION"),
            command: command(),
            made_at_unix_seconds: std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
            seconds: time.as_secs_f64(),
            model: args.model.clone(),
            parameters: model.spec.parameters(),
            met: misses.is_empty() && quality_met != Some(false),
            rows: rows(
                &asked.budget,
                found.original.measured.as_ref(),
                disk_before,
                &choice.costs,
                &made.costs,
            ),
            asked: asked.clone(),
            quality: made.divergence,
            untrained: made.untrained,
            quality_met,
            chosen: choice.name.clone(),
            plan: PlanFound {
                candidates: found.candidates.clone(),
                chosen: place,
                original: found.original.clone(),
                trial_tokens: found.trial_tokens,
                seconds: found.seconds,
            },
            recipe: made.recipe,
            groups_before: groups(&model.spec, &Formats::of(&model.weights)),
            groups: groups(&small.spec, &formats),
            matrices: made.matrices,
            samples: samples::write(model, &small, &args.texts.test)?,
            machine: said(&machine, asked.threads, kernels.measured),
            forecast: told,
            target,
        })
    }

    /// Writes `report.json`, `report.html` and `recipe.toml` into a folder, each whole or not at all.
    ///
    /// # Errors
    /// If one can't be written.
    pub fn write(&self, folder: &Path, comments: &[String]) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let put = |name: &str, text: &str| -> anyhow::Result<()> {
            let mut file = AtomicFile::create(folder.join(name))?;
            file.write_all(text.as_bytes())?;
            Ok(file.commit()?)
        };
        put("report.json", &serde_json::to_string_pretty(self)?)?;
        put("report.html", &html::page(self, &self.recipe.to_text(comments)?))?;
        self.recipe.write(&folder.join("recipe.toml"), comments)?;
        Ok(())
    }

    /// Prints what was promised and what was measured.
    ///
    /// # Errors
    /// As [`output::print_table`].
    pub fn print(&self) -> anyhow::Result<()> {
        output::line("")?;
        let mut table =
            output::table(&["", "original", "forecast", "measured", "forecast off by", "budget", "met"]);
        for row in &self.rows {
            let [before, told, measured, budget] = &row.words;
            let off = row.error.map_or(String::new(), |it| format!("{:+.1} %", it * 100.0));
            table.add_row([row.limit.name(), before, told, measured, &off, budget, met(row.met())]);
        }
        for [name, before, told, after, budget] in self.quality_rows() {
            let yes = if budget.is_empty() { "" } else { met(self.quality_met) };
            table.add_row([&name, &before, &told, &after, "", &budget, yes]);
        }
        output::print_table(&table)?;
        let verdict = if self.met { "meets the budget" } else { "misses the budget" };
        output::line(format!("\n{} {verdict}, as measured; {:.0} s in all", self.target, self.seconds))
    }

    /// Measures of quality: name, original, expected, measured, budget.
    pub fn quality_rows(&self) -> Vec<[String; 5]> {
        let found = &self.quality;
        let chosen = self.plan.chosen.map(|it| &self.plan.candidates[it]);
        let expected = chosen.and_then(|it| it.expected);
        let kl = expected.map_or(String::new(), |it| format!("{:.5}", it.kl));
        let quality = expected.and_then(|it| it.quality);
        let asked = self.asked.budget.quality.map(|it| it.to_string()).unwrap_or_default();
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        let untrained = self.untrained.as_ref().map(|it| {
            let kl = format!("{:.5}", it.mean_kl.value);
            ["KL before training".into(), "0".into(), String::new(), kl, String::new()]
        });
        let rows = [
            ["KL to the original".into(), "0".into(), kl, format!("{:.5}", found.mean_kl.value), asked],
            [
                "perplexity".into(),
                format!("{:.4}", found.original_perplexity.value),
                quality.map_or(String::new(), |it| format!("× {:.4}", it.perplexity_ratio)),
                format!("{:.4}", found.perplexity.value),
                String::new(),
            ],
            [
                "same top token".into(),
                "100 %".into(),
                quality.map_or(String::new(), |it| percent(it.top1)),
                percent(found.top1_agreement.value),
                String::new(),
            ],
        ];
        untrained.into_iter().chain(rows).collect()
    }
}

impl Row {
    /// Whether the budget's limit is kept; none where there is none.
    pub fn met(&self) -> Option<bool> {
        Some(self.measured? <= self.budget?)
    }
}

/// Yes or no, or nothing where nothing was asked for.
pub fn met(kept: Option<bool>) -> &'static str {
    match kept {
        None => "",
        Some(true) => "yes",
        Some(false) => "no",
    }
}

fn rows(
    budget: &Budget,
    before: Option<&Measured>,
    disk_before: u64,
    told: &Costs,
    found: &Costs,
) -> Vec<Row> {
    let original = before.map(|it| Costs {
        memory: it.memory,
        disk: disk_before,
        first_token: it.first_token,
        per_token: it.per_token,
        energy_per_token: it.energy_per_token,
    });
    let most = Costs {
        memory: budget.memory.unwrap_or(0),
        disk: budget.disk.unwrap_or(0),
        first_token: budget.first_token.unwrap_or(0.0),
        per_token: budget.per_token.unwrap_or(0.0),
        energy_per_token: budget.energy_per_token,
    };
    let value = |costs: &Costs, limit: Limit| match limit {
        Limit::Memory => Some(costs.memory as f64),
        Limit::Disk => Some(costs.disk as f64),
        Limit::FirstToken => Some(costs.first_token),
        Limit::PerToken => Some(costs.per_token),
        Limit::EnergyPerToken => costs.energy_per_token,
        Limit::Quality => None,
    };
    let shown =
        |limit: &Limit| value(found, *limit).is_some() || value(&most, *limit).is_some_and(|it| it > 0.0);
    let all = LIMITS.into_iter().filter(shown);
    all.map(|limit| {
        let (told_value, measured) = (value(told, limit), value(found, limit));
        let limited = value(&most, limit).filter(|it| *it > 0.0);
        let words = |costs: &Costs| match value(costs, limit) {
            Some(_) => cost(costs, limit),
            None => String::new(),
        };
        Row {
            limit,
            before: original.as_ref().and_then(|it| value(it, limit)),
            told: told_value,
            measured,
            error: told_value.zip(measured).filter(|it| it.1 > 0.0).map(|(told, found)| told / found - 1.0),
            budget: limited,
            words: [
                original.as_ref().map_or(String::new(), words),
                words(told),
                words(found),
                limited.map_or(String::new(), |_| cost(&most, limit)),
            ],
        }
    })
    .collect()
}

fn said(machine: &Machine, threads: usize, calibrated: bool) -> MachineSaid {
    let peaks = ounce_model::machine::OpKind::ALL.into_iter();
    MachineSaid {
        cpu: machine.cpu.clone(),
        memory_bytes: machine.memory.total_bytes,
        instruction_set: Isa::current().name(),
        threads,
        bandwidth: machine.read_bandwidth(threads),
        peaks: peaks
            .filter_map(|kind| Some((kind.name().to_owned(), machine.peak_ops(kind, threads)?)))
            .collect(),
        calibrated,
    }
}

/// The command line, as a shell takes it.
fn command() -> String {
    let quoted = std::env::args().enumerate().map(|(index, word)| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:+,%@".contains(c);
        match index {
            0 => "ounce".to_owned(),
            _ if !word.is_empty() && word.chars().all(plain) => word,
            _ => format!("'{}'", word.replace('\'', "'\\''")),
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}
