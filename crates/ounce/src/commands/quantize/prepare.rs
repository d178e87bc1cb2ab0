//! What is done to weights before they are rounded.

use anyhow::bail;
use ounce_compress::quantize::{Plan, Preparation, Store, awq, rotate, smooth};
use ounce_model::Model;

use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};

/// Flags that change weights first.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Before rounding")]
pub struct PrepareArgs {
    /// Change weights so that they lose less, and the model computes the same; several times for several steps, done in
    /// this order, ahead of any method. Needs 4 bytes a weight of disk beside the target for each
    #[arg(long, value_enum, value_name = "STEP")]
    prepare: Vec<Step>,
    /// With --prepare awq: cut off extremes of blocks where that lowers the error. Suits round better than gptq
    #[arg(long)]
    awq_clip: bool,
    /// With --prepare smooth: how much of the difficulty goes from inputs to weights, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    smooth_alpha: f32,
    /// With --prepare rotate: the seed of the random rotation
    #[arg(long, value_name = "N", default_value_t = 0)]
    rotation_seed: u64,
}

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Step {
    /// Channels with large inputs are made larger in the weights and smaller before them (AWQ)
    Awq,
    /// Inputs and weights get equal peaks, channel by channel (SmoothQuant)
    Smooth,
    /// The residual stream is rotated, which spreads outliers (QuaRot); a tied head gets a matrix of its own
    Rotate,
}

impl PrepareArgs {
    /// The steps in their order.
    ///
    /// # Errors
    /// If an option is out of its range, or belongs to a step that is not asked for.
    pub fn steps(&self) -> anyhow::Result<Vec<Preparation>> {
        if self.awq_clip && !self.prepare.contains(&Step::Awq) {
            bail!("--awq-clip belongs to --prepare awq, which is missing");
        }
        if !(0.0..=1.0).contains(&self.smooth_alpha) {
            bail!("--smooth-alpha should be from 0 to 1, found {}", self.smooth_alpha);
        }
        let step = |step: &Step| match step {
            Step::Awq => Preparation::Awq(awq::Options { clip: self.awq_clip, ..awq::Options::default() }),
            Step::Smooth => Preparation::Smooth(smooth::Options { alpha: self.smooth_alpha }),
            Step::Rotate => Preparation::Rotate(rotate::Options { seed: self.rotation_seed }),
        };
        Ok(self.prepare.iter().map(step).collect())
    }
}

/// The model with the weights that it will have after the steps, their values still the old ones.
///
/// # Errors
/// If a step can't be done to this model.
pub fn shaped(steps: &[Preparation], model: &Model) -> anyhow::Result<Model> {
    Ok(steps.iter().try_fold(model.clone(), |model, step| step.shaped(&model))?)
}

/// Does the steps, with a bar for each; what they give lies in folders of the store.
///
/// # Errors
/// As [`Preparation::apply`].
pub fn apply(
    steps: &[Preparation],
    shaped: Model,
    plan: &Plan,
    calibration: &[Vec<u32>],
    store: &Store,
) -> ounce_compress::Result<Model> {
    let watch = Watch::start();
    let mut model = shaped;
    for (index, step) in steps.iter().enumerate() {
        let own = store.part(&format!("prepare-{index}"), &step.settings())?;
        let mut bar = Progress::new(step.name(), Unit::Share);
        model = step.apply(&model, plan, calibration, &own, &mut |done, total| {
            bar.set(done as u64, total as u64);
            Ok(watch.check()?)
        })?;
    }
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_keep_their_order_and_options_belong_to_steps() {
        let args = |prepare: &[Step], awq_clip: bool, smooth_alpha: f32| PrepareArgs {
            prepare: prepare.to_vec(),
            awq_clip,
            smooth_alpha,
            rotation_seed: 3,
        };
        let steps = args(&[Step::Rotate, Step::Awq], true, 0.5).steps().unwrap();
        let names: Vec<&str> = steps.iter().map(Preparation::name).collect();
        assert_eq!(names, ["rotate", "awq"]);
        assert!(steps[0].settings().to_string().contains("\"seed\":3"), "{}", steps[0].settings());
        assert!(steps[1].settings().to_string().contains("\"clip\":true"), "{}", steps[1].settings());
        assert!(args(&[Step::Smooth], true, 0.5).steps().unwrap_err().to_string().contains("--prepare awq"));
        assert!(args(&[], false, 1.5).steps().unwrap_err().to_string().contains("0 to 1"));
    }
}
