//! What a model may cost, and what it must still be able to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Limits; what is none is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Budget {
    /// Resident bytes at most.
    pub memory: Option<u64>,
    /// Bytes of the model's files.
    pub disk: Option<u64>,
    /// Seconds until the first token.
    pub first_token: Option<f64>,
    /// Seconds for each further token.
    pub per_token: Option<f64>,
    /// Joules for each further token.
    pub energy_per_token: Option<f64>,
    /// The quality that must stay.
    pub quality: Option<Floor>,
}

/// A measure of quality, and how bad it may become.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Floor {
    /// Mean KL to the original, in nats a token, below this.
    Kl(f64),
    /// Perplexity divided by the original's below this.
    PerplexityRatio(f64),
    /// Share of tokens with the original's most probable one above this.
    Top1(f64),
}

/// What a model costs, told or measured.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Costs {
    /// Resident bytes at most.
    pub memory: u64,
    /// Bytes of the model's files.
    pub disk: u64,
    /// Seconds until the first token.
    pub first_token: f64,
    /// Seconds for each further token.
    pub per_token: f64,
    /// Joules for each further token, where the machine's power is known.
    pub energy_per_token: Option<f64>,
}

/// How far a model's predictions are from the original's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Mean KL to the original, in nats a token.
    pub kl: f64,
    /// Perplexity divided by the original's.
    pub perplexity_ratio: f64,
    /// Share of tokens with the original's most probable one.
    pub top1: f64,
}

impl Quality {
    /// That of the original itself.
    pub const ORIGINAL: Quality = Quality { kl: 0.0, perplexity_ratio: 1.0, top1: 1.0 };
}

/// A limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // named as the fields of a budget
pub enum Limit {
    Memory,
    Disk,
    FirstToken,
    PerToken,
    EnergyPerToken,
    Quality,
}

impl Limit {
    /// What people read.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Memory => "memory",
            Limit::Disk => "disk",
            Limit::FirstToken => "first token",
            Limit::PerToken => "a token",
            Limit::EnergyPerToken => "energy a token",
            Limit::Quality => "quality",
        }
    }
}

/// A limit that is not met.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Miss {
    /// Which.
    pub limit: Limit,
    /// How many times over it; above 1.
    pub times: f64,
}

impl Budget {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Budget::default()
    }

    /// The limits that these costs don't keep. Energy that is not known keeps its limit.
    pub fn misses(&self, costs: &Costs) -> Vec<Miss> {
        let pairs = [
            (Limit::Memory, self.memory.map(|it| it as f64), Some(costs.memory as f64)),
            (Limit::Disk, self.disk.map(|it| it as f64), Some(costs.disk as f64)),
            (Limit::FirstToken, self.first_token, Some(costs.first_token)),
            (Limit::PerToken, self.per_token, Some(costs.per_token)),
            (Limit::EnergyPerToken, self.energy_per_token, costs.energy_per_token),
        ];
        let over = pairs.into_iter().filter_map(|(limit, most, value)| Some((limit, value? / most?)));
        over.filter(|(_, times)| !(*times <= 1.0)).map(|(limit, times)| Miss { limit, times }).collect()
    }

    /// Whether the quality is what was asked for.
    pub fn misses_quality(&self, quality: &Quality) -> Option<Miss> {
        let times = match self.quality? {
            Floor::Kl(most) => quality.kl / most,
            Floor::PerplexityRatio(most) => quality.perplexity_ratio / most,
            Floor::Top1(least) => least / quality.top1,
        };
        (!(times < 1.0)).then_some(Miss { limit: Limit::Quality, times })
    }
}

impl Floor {
    /// Reads `kl<0.05`, `ppl<1.02` or `ppl<+2%`, `top1>95%` or `top1>0.95`.
    ///
    /// # Errors
    /// A sentence that says what is accepted.
    pub fn parse(text: &str) -> Result<Floor, String> {
        let wrong = || {
            format!(
                "{text:?} is no measure of quality; write kl<0.05 (nats a token to the original), ppl<+2% (perplexity \
                 against the original's) or top1>95% (tokens with the same best guess)"
            )
        };
        let compact: String = text.chars().filter(|it| !it.is_whitespace()).collect();
        let (name, sign, value) = compact
            .find(['<', '>'])
            .map(|at| (&compact[..at], &compact[at..=at], &compact[at + 1..]))
            .ok_or_else(wrong)?;
        let (number, percent) = match value.strip_suffix('%') {
            Some(number) => (number, true),
            None => (value, false),
        };
        let number: f64 = number.parse().ok().filter(|it: &f64| it.is_finite()).ok_or_else(wrong)?;
        match (name, sign) {
            ("kl", "<") if number > 0.0 && !percent => Ok(Floor::Kl(number)),
            ("ppl" | "perplexity", "<") => {
                let ratio = if percent { 1.0 + number / 100.0 } else { number };
                if ratio > 1.0 { Ok(Floor::PerplexityRatio(ratio)) } else { Err(wrong()) }
            }
            ("top1", ">") => {
                let share = if percent { number / 100.0 } else { number };
                if share > 0.0 && share < 1.0 { Ok(Floor::Top1(share)) } else { Err(wrong()) }
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Floor::Kl(most) => write!(f, "KL to the original below {most}"),
            Floor::PerplexityRatio(most) => {
                write!(f, "perplexity less than {:.2} % above the original's", (most - 1.0) * 100.0)
            }
            Floor::Top1(least) => write!(f, "same top token for more than {:.1} %", least * 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_read_as_people_write_them() {
        assert_eq!(Floor::parse("kl<0.05"), Ok(Floor::Kl(0.05)));
        assert_eq!(Floor::parse("ppl < +2%"), Ok(Floor::PerplexityRatio(1.02)));
        assert_eq!(Floor::parse("perplexity<1.5"), Ok(Floor::PerplexityRatio(1.5)));
        assert_eq!(Floor::parse("top1>95%"), Ok(Floor::Top1(0.95)));
        for text in ["", "kl", "kl>0.1", "kl<x", "kl<0", "top1>101%", "ppl<0.9", "acc>3", "kl<inf", "kl<5%"] {
            assert!(Floor::parse(text).unwrap_err().contains("kl<0.05"), "{text}");
        }
    }

    #[test]
    fn what_is_over_a_limit_is_told_with_how_far() {
        let budget = Budget {
            memory: Some(100),
            per_token: Some(0.02),
            quality: Some(Floor::Top1(0.9)),
            ..Budget::default()
        };
        let costs =
            Costs { memory: 150, disk: 10, first_token: 9.0, per_token: 0.02, energy_per_token: None };
        assert_eq!(budget.misses(&costs), [Miss { limit: Limit::Memory, times: 1.5 }]);
        assert!(budget.misses(&Costs { per_token: f64::NAN, memory: 1, ..costs }).len() == 1);
        assert!(budget.misses_quality(&Quality::ORIGINAL).is_none());
        let quality = Quality { top1: 0.45, ..Quality::ORIGINAL };
        assert_eq!(budget.misses_quality(&quality).map(|it| it.times), Some(2.0));
        let exact = Budget { quality: Some(Floor::Kl(0.1)), ..Budget::default() };
        assert!(exact.misses_quality(&Quality { kl: f64::NAN, ..Quality::ORIGINAL }).is_some());
    }
}
