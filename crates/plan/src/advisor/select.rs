//! Choosing techniques, and the order in which they are applied.

use super::registry::techniques;
use super::technique::{Class, Resource, Stage, Technique};

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query {
    /// What is short: a technique must spare one of these; empty for anything.
    pub limits: Vec<Resource>,
    /// Where in a model's life; empty for anywhere.
    pub stages: Vec<Stage>,
    /// The class, if only one is wanted.
    pub class: Option<Class>,
    /// Only what trains nothing.
    pub tuning_free: bool,
    /// The most tokens of text to calibrate on; none for any number.
    pub calibration: Option<usize>,
    /// Only what can be used here.
    pub built: bool,
}

impl Query {
    /// Whether a technique is among those asked for.
    pub fn wants(&self, it: &Technique) -> bool {
        (self.limits.is_empty() || self.limits.iter().any(|&limit| it.saves(limit)))
            && (self.stages.is_empty() || self.stages.contains(&it.stage))
            && self.class.is_none_or(|class| it.class == class)
            && (!self.tuning_free || it.is_tuning_free())
            && self.calibration.is_none_or(|tokens| it.calibration <= tokens)
            && (!self.built || it.command.is_some())
    }

    /// All that are asked for: those that can be used first, then those at less risk.
    pub fn choose(&self) -> Vec<&'static Technique> {
        let mut found: Vec<&Technique> = techniques().filter(|it| self.wants(it)).collect();
        found.sort_by_key(|it| (it.command.is_none(), it.risk, it.stage));
        found
    }
}

/// A pipeline of what can be used: the first of each slot, in the order in which they are applied.
pub fn pipeline(chosen: &[&'static Technique]) -> Vec<&'static Technique> {
    let mut taken: Vec<&'static Technique> = Vec::new();
    // Other arithmetic is only emulated: nothing is spared by it here.
    let usable = |it: &&&Technique| it.command.is_some() && it.branch != "arithmetic";
    for &it in chosen.iter().filter(usable) {
        if it.slot.is_empty() || taken.iter().all(|other| other.slot != it.slot) {
            taken.push(it);
        }
    }
    order(&mut taken);
    taken
}

/// The classes' order within each stage.
pub fn order(techniques: &mut [&'static Technique]) {
    techniques.sort_by_key(|it| (it.stage, it.class.order()));
}

#[cfg(test)]
mod tests {
    use super::super::registry::technique;
    use super::*;

    #[test]
    fn filters_hold_together() {
        let query = Query {
            limits: vec![Resource::Memory],
            stages: vec![Stage::Compression],
            tuning_free: true,
            calibration: Some(128),
            built: true,
            ..Query::default()
        };
        let ids: Vec<&str> = query.choose().iter().map(|it| it.id).collect();
        assert!(ids.contains(&"8-bit") && ids.contains(&"4-bit-hqq"), "{ids:?}");
        for id in ["4-bit-gptq", "block-ap", "magnitude", "structured", "checkpointing"] {
            assert!(!ids.contains(&id), "{id}");
        }
        let pruning = Query { class: Some(Class::Pruning), ..Query::default() }.choose();
        assert!(pruning.len() >= 5 && pruning.iter().all(|it| it.class == Class::Pruning));
    }

    #[test]
    fn a_slot_is_filled_once_and_bits_go_last() {
        let all = Query { limits: vec![Resource::Memory], ..Query::default() }.choose();
        let found = pipeline(&all);
        let slots: Vec<&str> = found.iter().map(|it| it.slot).filter(|it| !it.is_empty()).collect();
        assert!(slots.iter().enumerate().all(|(at, slot)| !slots[..at].contains(slot)), "{slots:?}");
        assert!(found.iter().all(|it| it.command.is_some()));
        let mut steps: Vec<&Technique> =
            ["4-bit-gptq", "distil-logits", "structured"].map(|id| technique(id).expect("known")).to_vec();
        order(&mut steps);
        let ids: Vec<&str> = steps.iter().map(|it| it.id).collect();
        assert_eq!(ids, ["structured", "distil-logits", "4-bit-gptq"]);
    }
}
