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
