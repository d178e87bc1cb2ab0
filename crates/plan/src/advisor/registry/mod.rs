//! Every technique that the advisor knows, by its stage.

mod building;
mod compression;
mod running;

use super::technique::{Class, Risk, Stage, Technique};

/// What most entries have in common.
const BLANK: Technique = Technique {
    id: "",
    name: "",
    numbers: &[],
    stage: Stage::Compression,
    class: Class::Quantization,
    branch: "",
    saves: &[],
    needs_training: false,
    calibration: 0,
    risk: Risk::Low,
    slot: "",
    command: None,
    paper: "",
};

/// All of them, in the order of a model's life.
pub fn techniques() -> impl Iterator<Item = &'static Technique> {
    building::TECHNIQUES.iter().chain(compression::TECHNIQUES).chain(running::TECHNIQUES)
}

/// The technique of that name in evidence.
pub fn technique(id: &str) -> Option<&'static Technique> {
    techniques().find(|it| it.id == id)
}

#[cfg(test)]
mod tests {
    use super::super::technique::Resource;
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn entries_are_whole_and_named_once() {
        let mut seen = HashSet::new();
        for it in techniques() {
            assert!(seen.insert(it.id), "{} twice", it.id);
            let texts = [it.id, it.name, it.branch, it.paper];
            assert!(texts.iter().all(|text| !text.is_empty()), "{}", it.id);
            assert!(!it.saves.is_empty(), "{}", it.id);
            assert!(it.numbers.iter().all(|number| (1..=130).contains(number)), "{}", it.id);
            assert!(it.command.is_none_or(|command| command.starts_with("ounce ")), "{}", it.id);
            // Training learns from text of its own; calibration is for what only looks.
            assert!(!it.needs_training || it.calibration == 0, "{}", it.id);
        }
        assert!(seen.len() >= 45, "{}", seen.len());
    }

    #[test]
    fn every_stage_resource_and_class_of_the_surveys_is_there() {
        for stage in Stage::ALL {
            assert!(techniques().any(|it| it.stage == stage), "{}", stage.name());
        }
        for resource in [
            Resource::Memory,
            Resource::Compute,
            Resource::Latency,
            Resource::Energy,
            Resource::Money,
            Resource::Network,
            Resource::Disk,
            Resource::Data,
        ] {
            assert!(techniques().any(|it| it.saves(resource)), "{resource:?}");
        }
        let branches: HashSet<&str> = techniques().map(|it| it.branch).collect();
        for branch in [
            "QAT",
            "PTQ of weights",
            "PTQ of weights and activations",
            "KV cache",
            "unstructured",
            "N:M",
            "structured",
            "white box",
            "black box",
            "efficient attention",
            "early exit",
            "mixture of experts",
            "cascade",
        ] {
            assert!(branches.contains(branch), "{branch}");
        }
    }
}
