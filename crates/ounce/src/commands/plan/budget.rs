//! The flags that say what is asked of a model.

use std::time::Duration;

use anyhow::bail;
use ounce_engine::Mode;
use ounce_eval::divergence::Report;
use ounce_kernels::attention::KvType;
use ounce_model::Model;
use ounce_model::account::Formats;
use ounce_model::machine::Cpu;
use ounce_plan::budget::{Budget, Costs, Floor, Limit, Quality};
use ounce_plan::forecast::Workload;
use serde::Serialize;

use crate::cli::Globals;
use crate::compute;
use crate::units::{self, time};

/// The usual prompt and context, where nothing is said and the model has as many positions.
const PROMPT: usize = 128;
const CONTEXT: usize = 1024;

/// Flags of a budget.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Budget")]
pub struct BudgetArgs {
    /// Memory of the running program at most: bytes, or with K, M, G (powers of 1024)
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    memory: Option<u64>,
    /// Size of the model's files at most
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    disk: Option<u64>,
    /// Time until the first token at most, as 300ms or 2s
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    first_token: Option<Duration>,
    /// Time for each further token at most
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    per_token: Option<Duration>,
    /// Energy for each further token at most, in joules; needs a machine with an energy counter
    #[arg(long, value_name = "JOULES")]
    energy: Option<f64>,
    /// Quality that must stay: kl<0.05 (nats a token to the original), ppl<+2% or top1>95%
    #[arg(long, value_name = "MEASURE", value_parser = Floor::parse)]
    quality: Option<Floor>,
    /// Tokens of the prompt [default: 128, or what the context lets]
    #[arg(long, value_name = "N")]
    prompt: Option<usize>,
    /// Positions of the cache [default: 1024, or what the model has]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// How keys and values are cached: f32, f16, bf16, q8_0 or q4_0 [default: as ounce run does; q8_0 is tried too]
    #[arg(long, value_name = "TYPE", value_parser = compute::kv_type)]
    kv: Option<KvType>,
}

/// A budget, and the workload that it is for.
#[derive(Debug, Clone, Serialize)]
pub struct Asked {
    /// Limits.
    pub budget: Budget,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Positions of the cache.
    pub context: usize,
    /// Threads that compute.
    pub threads: usize,
    /// The cache's type, if it was said.
    #[serde(skip)]
    pub kv: Option<KvType>,
}

impl BudgetArgs {
    /// What was asked for.
    ///
    /// # Errors
    /// If nothing was, a number is out of its range, or the model generates nothing.
    pub fn asked(&self, model: &Model, globals: &Globals) -> anyhow::Result<Asked> {
        let seconds = |it: Option<Duration>| it.map(|it| it.as_secs_f64());
        let budget = Budget {
            memory: self.memory,
            disk: self.disk,
            first_token: seconds(self.first_token),
            per_token: seconds(self.per_token),
            energy_per_token: self.energy,
            quality: self.quality,
        };
        if budget.is_empty() {
            bail!(
                "say what the model may cost, with --memory, --disk, --first-token, --per-token or --quality"
            );
        }
        if !model.spec.causal {
            bail!(
                "budgets are planned for models that generate, and this is an encoder; ounce quantize --type makes it smaller"
            );
        }
        if self.energy.is_some_and(|it| !(it > 0.0)) {
            bail!("--energy should be above 0");
        }
        let most = model.spec.context_length;
        let context = self.context.unwrap_or(CONTEXT.min(most));
        if context < 2 || context > most {
            bail!("--context should be from 2 to {most}, the positions of this model; found {context}");
        }
        let prompt = self.prompt.unwrap_or(PROMPT.min(context - 1));
        if prompt == 0 || prompt >= context {
            bail!("--prompt should be from 1 to {}, one less than the context; found {prompt}", context - 1);
        }
        let threads = if globals.threads == 0 { Cpu::detect().cores } else { globals.threads };
        Ok(Asked { budget, prompt, context, threads, kv: self.kv })
    }
}

impl Asked {
    /// The workload with a type of cache.
    pub fn workload(&self, kv: KvType) -> Workload {
        Workload { batch: 1, prompt: self.prompt, context: self.context, threads: self.threads, kv }
    }

    /// The type of cache for weights in these formats, where none was asked for.
    pub fn kv_for(&self, formats: &Formats) -> KvType {
        self.kv.unwrap_or_else(|| compute::usual_kv_type(formats, Mode::fast()))
    }

    /// In words.
    pub fn told(&self) -> String {
        let Budget { memory, disk, first_token, per_token, energy_per_token, quality } = self.budget;
        let mut parts = Vec::new();
        parts.extend(memory.map(|it| format!("memory {}", units::bytes(it))));
        parts.extend(disk.map(|it| format!("disk {}", units::bytes(it))));
        parts.extend(first_token.map(|it| format!("first token {}", time(it))));
        parts.extend(per_token.map(|it| format!("a token {}", time(it))));
        parts.extend(energy_per_token.map(|it| format!("{it} J a token")));
        parts.extend(quality.map(|it| it.to_string()));
        format!(
            "{}; prompt {}, context {}, {} threads",
            parts.join(", "),
            self.prompt,
            self.context,
            self.threads
        )
    }
}

/// The measures of quality that budgets name.
pub fn quality(report: &Report) -> Quality {
    Quality {
        kl: report.mean_kl.value,
        perplexity_ratio: report.perplexity_ratio,
        top1: report.top1_agreement.value,
    }
}

/// A limit's value in these costs, as people read it.
pub fn cost(costs: &Costs, limit: Limit) -> String {
    match limit {
        Limit::Memory => units::bytes(costs.memory),
        Limit::Disk => units::bytes(costs.disk),
        Limit::FirstToken => time(costs.first_token),
        Limit::PerToken => time(costs.per_token),
        Limit::EnergyPerToken => costs.energy_per_token.map_or("unknown".into(), |it| format!("{it:.3} J")),
        Limit::Quality => String::new(),
    }
}

/// Reads a time: a number with us, ms, s, m or h.
///
/// # Errors
/// A sentence that says what is accepted.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; write a number with us, ms, s, m or h, such as 20ms");
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit.trim() {
        "us" | "µs" => number * 1e-6,
        "ms" => number * 1e-3,
        "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|it| !it.is_zero()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        for (text, seconds) in
            [("20ms", 0.02), ("1.5s", 1.5), ("2m", 120.0), ("1h", 3600.0), ("300 us", 3e-4)]
        {
            assert_eq!(parse_time(text).map(|it| it.as_secs_f64()), Ok(seconds), "{text}");
        }
        for text in ["", "20", "ms", "-1s", "0s", "1d", "1e9h"] {
            assert!(parse_time(text).unwrap_err().contains("20ms"), "{text}");
        }
    }
}
