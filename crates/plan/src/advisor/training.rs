//! Which settings make a training step fit into memory, at the least cost of time.

use ounce_model::account::training::{step_operations, workspace_bytes};
use ounce_model::spec::Spec;
use ounce_train::net;
use ounce_train::optim::Kind;
use serde::Serialize;

use super::technique::Risk;

/// How a step is computed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Settings {
    /// Whether layers are computed a second time.
    pub checkpointing: bool,
    /// Parts into which the batch is cut.
    pub accumulation: usize,
    /// The optimizer.
    pub optimizer: Kind,
}

impl Settings {
    /// Everything at once with AdamW.
    pub const PLAIN: Settings = Settings { checkpointing: false, accumulation: 1, optimizer: Kind::AdamW };

    /// As a person calls it.
    pub fn name(&self) -> String {
        let mut parts = Vec::new();
        if self.checkpointing {
            parts.push("checkpointing".to_string());
        }
        if self.accumulation > 1 {
            parts.push(format!("{} parts", self.accumulation));
        }
        match self.optimizer {
            Kind::AdamW8bit => parts.push("8-bit moments".to_string()),
            Kind::Lion => parts.push("one moment".to_string()),
            _ => {}
        }
        if parts.is_empty() { "plain".to_string() } else { parts.join(", ") }
    }

    /// Ids of the techniques.
    pub fn techniques(&self) -> Vec<&'static str> {
        let mut found = Vec::new();
        if self.checkpointing {
            found.push("checkpointing");
        }
        if self.accumulation > 1 {
            found.push("accumulation");
        }
        match self.optimizer {
            Kind::AdamW8bit => found.push("adam-8bit"),
            Kind::Lion => found.push("lion"),
            _ => {}
        }
        found
    }

    /// The flags of `ounce train` that set it, for a batch of so many sequences.
    pub fn flags(&self, sequences: usize) -> String {
        let mut flags = String::new();
        if self.checkpointing {
            flags += " --set train.checkpointing=true";
        }
        if self.accumulation > 1 {
            let batch = (sequences / self.accumulation).max(1);
            flags += &format!(" --set train.batch={batch} --set train.accumulation={}", self.accumulation);
        }
        match self.optimizer {
            Kind::AdamW8bit => flags += " --set optimizer.kind=adamw8bit",
            Kind::Lion => flags += " --set optimizer.kind=lion",
            _ => {}
        }
        flags
    }

    fn risk(&self) -> Risk {
        match self.optimizer {
            Kind::AdamW8bit => Risk::Low,
            Kind::Lion => Risk::Medium,
            _ => Risk::None,
        }
    }
}

/// A step's forecast.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// The settings.
    pub settings: Settings,
    /// Ids of the techniques.
    pub techniques: Vec<&'static str>,
    /// Bytes of weights, gradients, the optimizer's memory and buffers.
    pub bytes: u64,
    /// Operations by those of a plain step.
    pub work: f64,
    /// What is at stake.
    pub risk: Risk,
    /// Whether it keeps the limit.
    pub fits: bool,
}

/// Bytes of a step of so many sequences of so many tokens: weights, gradients, the optimizer's memory and buffers.
pub fn bytes(spec: &Spec, sequences: usize, length: usize, settings: &Settings) -> u64 {
    let params = spec.parameters() as f64;
    let moments = match settings.optimizer {
        Kind::AdamW | Kind::Muon => 8.0,
        Kind::AdamW8bit => 2.0 + 8.0 / 256.0,
        Kind::Lion => 4.0,
        Kind::Sgd => 4.0,
    };
    let tokens = sequences.div_ceil(settings.accumulation.max(1)) * length;
    (params * (4.0 + 4.0 + moments)) as u64 + workspace_bytes(spec, tokens, settings.checkpointing) as u64
}

/// All settings, those that keep the limit first, then by risk and by time; of the others the smallest first.
pub fn choices(spec: &Spec, sequences: usize, length: usize, limit: Option<u64>) -> Vec<Choice> {
    let mut found = Vec::new();
    let plain = step_operations(spec, sequences * length, length, false);
    for checkpointing in [false, true] {
        for accumulation in [1, 2, 4, 8].into_iter().filter(|&it| it == 1 || sequences.is_multiple_of(it)) {
            for optimizer in [Kind::AdamW, Kind::AdamW8bit, Kind::Lion] {
                let settings = Settings { checkpointing, accumulation, optimizer };
                let bytes = bytes(spec, sequences, length, &settings);
                let work = step_operations(spec, sequences * length, length, checkpointing) / plain;
                found.push(Choice {
                    techniques: settings.techniques(),
                    settings,
                    bytes,
                    work,
                    risk: settings.risk(),
                    fits: limit.is_none_or(|limit| bytes <= limit),
                });
            }
        }
    }
    found.sort_by(|a, b| {
        let order = a.fits.cmp(&b.fits).reverse();
        let among = match a.fits {
            true => (a.risk, a.techniques.len())
                .cmp(&(b.risk, b.techniques.len()))
                .then(a.work.total_cmp(&b.work)),
            false => a.bytes.cmp(&b.bytes),
        };
        order
            .then(among)
            .then(a.bytes.cmp(&b.bytes))
            .then(a.settings.accumulation.cmp(&b.settings.accumulation))
    });
    found
}

/// How the network of these settings is made.
pub(super) fn options(settings: &Settings) -> net::Options {
    net::Options { checkpointing: settings.checkpointing, ..net::Options::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ounce_train::config;

    fn spec() -> Spec {
        config::Model { hidden: 64, layers: 4, heads: 4, context: 128, ..config::Model::default() }
            .bare(256)
            .expect("a shape")
            .spec
    }

    #[test]
    fn a_limit_is_kept_at_the_least_risk_and_the_nearest_is_told_where_none_does() {
        let spec = spec();
        let all = choices(&spec, 8, 128, None);
        assert_eq!(all[0].settings, Settings::PLAIN);
        assert_eq!(all.len(), 24);
        let plain = all[0].bytes;
        let tight = choices(&spec, 8, 128, Some(plain * 6 / 10));
        assert!(
            tight[0].fits && tight[0].risk == Risk::None && tight[0].bytes <= plain * 6 / 10,
            "{:?}",
            tight[0]
        );
        let none = choices(&spec, 8, 128, Some(1000));
        assert!(!none[0].fits);
        assert!(none.iter().all(|it| none[0].bytes <= it.bytes));
    }

    #[test]
    fn flags_say_the_settings() {
        let settings = Settings { checkpointing: true, accumulation: 4, optimizer: Kind::AdamW8bit };
        assert_eq!(
            settings.flags(16),
            " --set train.checkpointing=true --set train.batch=4 --set train.accumulation=4 --set optimizer.kind=adamw8bit"
        );
        assert_eq!(settings.name(), "checkpointing, 4 parts, 8-bit moments");
        assert_eq!(Settings::PLAIN.flags(16), "");
    }
}
