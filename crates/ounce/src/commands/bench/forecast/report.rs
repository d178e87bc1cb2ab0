//! Told and measured side by side, and how far they are apart.

use ounce_engine::Operator;
use ounce_eval::stats::quantile;
use ounce_kernels::DType;
use ounce_model::machine::{Machine, OpKind};
use ounce_plan::calibrate::Calibration;
use ounce_plan::forecast::{Bound, Forecast, Phase};
use serde::Serialize;

use super::turn::{Found, Part};
use crate::{output, units};

/// A number that was told and measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Pair {
    told: f64,
    measured: f64,
    /// Told over measured, less one.
    error: f64,
}

impl Pair {
    fn new(told: f64, measured: f64) -> Pair {
        Pair { told, measured, error: told / measured - 1.0 }
    }
}

/// One prompt of one model.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    shape: String,
    dtype: &'static str,
    prompt: usize,
    resident_bytes: Pair,
    cache_bytes: Pair,
    first_token_seconds: Pair,
    per_token_seconds: Pair,
    /// Of the turns' times a token, for how steady the machine was.
    slowest_over_fastest_token: f64,
}

impl Row {
    /// Of one or more turns, the middle by its error for each figure.
    pub fn new(shape: &str, dtype: DType, turns: &[(Forecast, Found)]) -> Row {
        let least = |values: &[f64]| quantile(values, 0.0);
        let middle = |pair: &dyn Fn(&Forecast, &Found) -> Pair| {
            let mut pairs: Vec<Pair> = turns.iter().map(|(told, found)| pair(told, found)).collect();
            pairs.sort_by(|a, b| a.error.total_cmp(&b.error));
            pairs[pairs.len() / 2]
        };
        let tokens: Vec<f64> = turns.iter().map(|(_, found)| least(&found.tokens)).collect();
        Row {
            shape: shape.to_string(),
            dtype: dtype.name(),
            prompt: turns[0].1.prompt,
            resident_bytes: middle(&|told, found| {
                Pair::new(told.resident_bytes as f64, found.peak_bytes as f64)
            }),
            cache_bytes: middle(&|told, found| Pair::new(told.kv_bytes as f64, found.cache_bytes as f64)),
            first_token_seconds: middle(&|told, found| {
                Pair::new(told.first_token_seconds, least(&found.first))
            }),
            per_token_seconds: middle(&|told, found| Pair::new(told.per_token_seconds, least(&found.tokens))),
            slowest_over_fastest_token: quantile(&tokens, 1.0) / quantile(&tokens, 0.0),
        }
    }
}

/// Absolute errors of one figure, over all rows.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    what: &'static str,
    median: f64,
    p90: f64,
    largest: f64,
}

/// All that is printed.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    threads: usize,
    calibrated: bool,
    calibration_cpu_share: Option<f64>,
    /// Of the processes that measured.
    pub cpu_shares: Vec<f64>,
    #[serde(skip)]
    pub models: usize,
    pub rows: Vec<Row>,
    summary: Vec<Summary>,
    /// Operators whose told bound is the measured one, and all.
    bounds_right: usize,
    bounds_all: usize,
}

impl Report {
    pub fn new(threads: usize, calibration: &Calibration) -> Report {
        Report {
            threads,
            calibrated: calibration.measured,
            calibration_cpu_share: calibration.cpu_share,
            cpu_shares: Vec::new(),
            models: 0,
            rows: Vec::new(),
            summary: Vec::new(),
            bounds_right: 0,
            bounds_all: 0,
        }
    }

    /// Compares what binds each operator that reads weights or cache with what came nearer to its limit when it ran: bytes or
    /// operations a second.
    pub fn bounds(&mut self, told: &Forecast, found: &Found, dtype: DType, machine: &Machine) {
        let bandwidth = machine.read_bandwidth(self.threads);
        for (phase, parts) in [(Phase::Prompt, &found.prompt_parts), (Phase::Token, &found.token_parts)] {
            for Part { operator, bytes, operations, .. } in parts.iter().filter(|part| part.bytes > 0) {
                let kind = match dtype {
                    _ if *operator == Operator::Attention => OpKind::F32,
                    DType::BF16 => OpKind::Bf16,
                    _ if dtype.is_block() => OpKind::Int8,
                    _ => OpKind::F32,
                };
                let Some(peak) = machine.peak_ops(kind, self.threads) else { continue };
                let mut own = told.operators.iter().filter(|it| it.phase == phase);
                let Some(it) = own.find(|it| it.operator == *operator) else { continue };
                let reads = *bytes as f64 / bandwidth > *operations as f64 / peak;
                self.bounds_all += 1;
                self.bounds_right += usize::from(reads == matches!(it.bound, Bound::Memory | Bound::Cache));
            }
        }
    }

    pub fn sum_up(&mut self) {
        let summary = |what, pick: fn(&Row) -> f64| {
            let errors: Vec<f64> = self.rows.iter().map(|row| pick(row).abs()).collect();
            let of = |share| quantile(&errors, share);
            Summary { what, median: of(0.5), p90: of(0.9), largest: of(1.0) }
        };
        self.summary = vec![
            summary("memory", |row| row.resident_bytes.error),
            summary("first token", |row| row.first_token_seconds.error),
            summary("a token", |row| row.per_token_seconds.error),
        ];
    }

    pub fn print(&self) -> anyhow::Result<()> {
        let head = [
            "model",
            "format",
            "prompt",
            "memory",
            "told",
            "error",
            "first token",
            "told",
            "error",
            "a token",
            "told",
            "error",
        ];
        let mut table = output::table(&head);
        let percent = |pair: Pair| format!("{:+.1} %", 100.0 * pair.error);
        use units::time;
        for row in &self.rows {
            table.add_row([
                row.shape.clone(),
                row.dtype.to_lowercase(),
                row.prompt.to_string(),
                units::bytes(row.resident_bytes.measured as u64),
                units::bytes(row.resident_bytes.told as u64),
                percent(row.resident_bytes),
                time(row.first_token_seconds.measured),
                time(row.first_token_seconds.told),
                percent(row.first_token_seconds),
                time(row.per_token_seconds.measured),
                time(row.per_token_seconds.told),
                percent(row.per_token_seconds),
            ]);
        }
        output::print_table(&table)?;
        output::line("")?;
        let mut table = output::table(&["absolute error", "median", "90th percentile", "largest"]);
        for Summary { what, median, p90, largest } in &self.summary {
            let percent = |share: &f64| format!("{:.1} %", 100.0 * share);
            table.add_row([(*what).to_string(), percent(median), percent(p90), percent(largest)]);
        }
        output::print_table(&table)?;
        let exact = self.rows.iter().filter(|row| row.cache_bytes.told == row.cache_bytes.measured).count();
        output::line(format!("bytes of the cache are exact in {exact} of {} rows", self.rows.len()))?;
        output::line(format!(
            "what binds an operator is as measured in {} of {}",
            self.bounds_right, self.bounds_all
        ))?;
        let share = quantile(&self.cpu_shares, 0.5) * 100.0;
        let steadiness: Vec<f64> = self.rows.iter().map(|row| row.slowest_over_fastest_token).collect();
        output::line(format!(
            "times a token of the same model differed between turns by {:.2} times (the median model), {:.2} at most",
            quantile(&steadiness, 0.5),
            quantile(&steadiness, 1.0),
        ))?;
        output::line(format!(
            "{} threads; they had a core for {share:.0} % of the time{}",
            self.threads,
            self.calibration_cpu_share
                .map_or(String::new(), |share| format!(" ({:.0} % while kernels were timed)", share * 100.0))
        ))
    }
}
