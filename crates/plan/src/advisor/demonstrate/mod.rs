//! What the registry says, measured: resources and quality of techniques, tuning-free compression, and plans under limits.

mod classes;
mod limits;
mod measure;
mod resources;
mod variants;

use ounce_eval::method::{DemonstrationError, Evidence, Lab};

/// The label of the model as it is.
pub(super) const AS_IT_IS: &str = "as it is";
/// The label of a plain training step.
pub(super) const PLAIN_TRAINING: &str = "plain training";

/// Of method 3.
pub(super) fn resources(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    resources::measure(lab, &resources::Scale::FULL)
        .map_err(DemonstrationError::step(super::NUMBER_RESOURCES, "measuring techniques"))
}

/// Of method 48.
pub(super) fn classes(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    classes::measure(lab, &classes::Scale::FULL)
        .map_err(DemonstrationError::step(super::NUMBER_CLASSES, "compressing without tuning"))
}

/// Of method 129.
pub(super) fn limits(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    limits::measure(lab, &limits::Scale::FULL)
        .map_err(DemonstrationError::step(super::NUMBER_LIMITS, "keeping limits"))
}

#[cfg(test)]
mod tests {
    use super::super::claim::Claim;
    use super::super::registry::technique;
    use super::*;
    use crate::desk::Desk;
    use ounce_eval::method::Fixture;

    const STEP: limits::Step =
        limits::Step { hidden: 32, layers: 2, context: 32, sequences: 8, repetitions: 1 };

    #[test]
    fn resources_are_measured_and_found_again_by_claims() {
        let scale = resources::Scale {
            calibration: 2000,
            held_out: 600,
            tokens: 8,
            training: STEP,
            fixture: Fixture::Tiny,
        };
        let evidence = resources::measure(&Desk, &scale).expect("measured");
        evidence.check().expect("sound");
        assert!(evidence.expectations[0].holds, "{:?}", evidence.expectations[0]);
        let all = [evidence];
        for id in ["8-bit", "kv-8bit", "checkpointing", "adam-8bit", "wanda"] {
            let claim = Claim::of(technique(id).expect("known"), &all);
            assert!(matches!(claim, Claim::Measured { method: 3, .. }), "{id}: {claim:?}");
        }
        let text = Claim::of(technique("checkpointing").expect("known"), &all).text();
        assert!(text.contains("peak ×0."), "{text}");
    }

    #[test]
    fn classes_and_limits_give_sound_evidence() {
        let scale = classes::Scale { calibration: 2000, held_out: 600, steps: 2, sequences: 2 };
        let evidence = classes::measure(&Desk, &scale).expect("measured");
        evidence.check().expect("sound");
        // Bytes are known beforehand, whatever the values.
        for word in ["bytes forecast", "what the advisor forecasts"] {
            let it = evidence.expectations.iter().find(|it| it.text.starts_with(word)).expect("stated");
            assert!(it.holds, "{it:?}");
        }
        let evidence = limits::measure(&Desk, &limits::Scale { step: STEP, answer: STEP, tokens: 12 });
        let evidence = evidence.expect("measured");
        evidence.check().expect("sound");
        let nearest = evidence.expectations.iter().find(|it| it.text.contains("nearest plan"));
        assert!(nearest.is_some_and(|it| it.measured.contains("bytes")), "{nearest:?}");
    }
}
