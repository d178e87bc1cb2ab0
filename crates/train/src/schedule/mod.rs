//! The learning rate of each step.
//!
//! Steps count from 0. All shapes warm up linearly, `lr = peak · (step + 1) / warmup`, so that the first step already
//! learns, and hold `peak` at `step = warmup`.

pub mod step_law;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How the rate falls in the last part of a warm-up, stable, decay schedule, from 1 at its first step towards
/// `floor / peak`, which the step after the last would have. `p` is the share of the decay that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// `1 − (1 − r) p`.
    Linear,
    /// `r^p`: halves every so many steps. Needs a floor above 0.
    Exponential,
    /// `1 − (1 − r) √p`.
    #[default]
    OneMinusSqrt,
}

impl Decay {
    /// The factor on the peak at `p` of the decay, for a final factor of `r`.
    pub fn factor(self, p: f64, r: f64) -> f64 {
        match self {
            Decay::Linear => 1.0 - (1.0 - r) * p,
            Decay::Exponential => r.powf(p),
            Decay::OneMinusSqrt => 1.0 - (1.0 - r) * p.sqrt(),
        }
    }
}

/// What happens after the warm-up. A floor is an absolute learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Shape {
    /// Stays at the peak.
    Constant,
    /// Half a cosine down to the floor. Only its end is a good model: another length needs another run.
    Cosine {
        /// The rate at the end.
        floor: f64,
    },
    /// A straight line down to the floor.
    Linear {
        /// The rate at the end.
        floor: f64,
    },
    /// Stays at the peak, then falls within the last `decay` steps (MiniCPM, arXiv 2404.06395). Any checkpoint of the
    /// stable part can be continued, or branched into a decay of its own.
    Wsd {
        /// Steps of the decay.
        decay: u64,
        /// Its form.
        curve: Decay,
        /// The rate at the end.
        floor: f64,
    },
}

/// The part of a schedule a step is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The rate rises.
    WarmUp,
    /// The rate stays.
    Stable,
    /// The rate falls.
    Decay,
}

/// The learning rate of each of a run's steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The highest rate.
    pub peak: f64,
    /// Steps until it is reached.
    pub warmup: u64,
    /// Steps in all.
    pub total: u64,
    /// What follows the warm-up.
    pub shape: Shape,
}

impl Schedule {
    /// Checks the numbers against each other.
    ///
    /// # Errors
    /// If a rate is no positive number, a floor is above the peak, or parts are longer than the whole.
    pub fn check(&self) -> Result<()> {
        let Schedule { peak, warmup, total, shape } = *self;
        if !(peak > 0.0 && peak.is_finite()) {
            return Err(Error::Settings(format!("the learning rate should be above 0, found {peak}")));
        }
        let floor = match shape {
            Shape::Constant => 0.0,
            Shape::Cosine { floor } | Shape::Linear { floor } | Shape::Wsd { floor, .. } => floor,
        };
        if !(0.0..=peak).contains(&floor) {
            let what =
                format!("the final learning rate should be from 0 to the peak of {peak}, found {floor}");
            return Err(Error::Settings(what));
        }
        let decay = match shape {
            Shape::Wsd { decay, curve, .. } => {
                if curve == Decay::Exponential && floor == 0.0 {
                    let what =
                        "an exponential decay never reaches 0; give a final rate above 0 (0.01 of the peak)";
                    return Err(Error::Settings(what.to_string()));
                }
                decay
            }
            _ => 0,
        };
        if total == 0 || warmup.saturating_add(decay) > total {
            let what = format!(
                "warm-up ({warmup} steps) and decay ({decay} steps) do not fit into a run of {total} steps; train \
                 longer or shorten them"
            );
            return Err(Error::Settings(what));
        }
        Ok(())
    }

    /// The part that `step` is in; steps after the last count as the last.
    pub fn stage(&self, step: u64) -> Stage {
        if step < self.warmup {
            return Stage::WarmUp;
        }
        match self.shape {
            Shape::Constant => Stage::Stable,
            Shape::Wsd { decay, .. } if step < self.total - decay => Stage::Stable,
            Shape::Cosine { .. } | Shape::Linear { .. } | Shape::Wsd { .. } => Stage::Decay,
        }
    }

    /// The first step whose rate falls; none for a constant schedule.
    pub fn decay_start(&self) -> Option<u64> {
        match self.shape {
            Shape::Constant => None,
            Shape::Cosine { .. } | Shape::Linear { .. } => Some(self.warmup),
            Shape::Wsd { decay, .. } => Some(self.total - decay),
        }
    }

    /// The rate of `step`.
    pub fn rate(&self, step: u64) -> f64 {
        let Schedule { peak, warmup, total, shape } = *self;
        if step < warmup {
            return peak * (step + 1) as f64 / warmup as f64;
        }
        let share = |start: u64| {
            let length = total.saturating_sub(start).max(1);
            (step.saturating_sub(start) as f64 / length as f64).min(1.0)
        };
        match shape {
            Shape::Constant => peak,
            Shape::Cosine { floor } => {
                floor + (peak - floor) * 0.5 * (1.0 + (std::f64::consts::PI * share(warmup)).cos())
            }
            Shape::Linear { floor } => peak + (floor - peak) * share(warmup),
            Shape::Wsd { decay, .. } if step < total - decay => peak,
            Shape::Wsd { decay, curve, floor } => peak * curve.factor(share(total - decay), floor / peak),
        }
    }

    /// Whether a run that stands before `step`, and whose last step belonged to `last`, may go on with this schedule.
    ///
    /// # Errors
    /// If the rate has fallen already and would rise again: such weights have left the stable part for good.
    pub fn check_continues(&self, step: u64, last: Option<Stage>) -> Result<()> {
        if last == Some(Stage::Decay) && step < self.total && self.stage(step) != Stage::Decay {
            return Err(Error::Settings(format!(
                "the checkpoint of step {step} was saved while its learning rate fell, and can't be continued at the \
                 full rate; continue from a stable checkpoint"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1e-9), "{found} is not {expected}");
    }

    #[test]
    fn warm_up_is_a_line_that_ends_at_the_peak() {
        let schedule = Schedule { peak: 0.4, warmup: 4, total: 10, shape: Shape::Constant };
        for (step, rate) in [(0, 0.1), (1, 0.2), (2, 0.3), (3, 0.4), (4, 0.4), (9, 0.4)] {
            close(schedule.rate(step), rate);
        }
        assert_eq!((schedule.stage(3), schedule.stage(4)), (Stage::WarmUp, Stage::Stable));
    }

    #[test]
    fn cosine_and_linear_follow_their_closed_forms() {
        let cosine = Schedule { peak: 1.0, warmup: 10, total: 110, shape: Shape::Cosine { floor: 0.1 } };
        for (step, rate) in [(10, 1.0), (60, 0.55), (35, 0.1 + 0.45 * (1.0 + 0.5f64.sqrt())), (110, 0.1)] {
            close(cosine.rate(step), rate);
        }
        let linear = Schedule { shape: Shape::Linear { floor: 0.5 }, ..cosine };
        for (step, rate) in [(10, 1.0), (35, 0.875), (60, 0.75), (110, 0.5), (500, 0.5)] {
            close(linear.rate(step), rate);
        }
        assert_eq!(cosine.stage(10), Stage::Decay);
    }

    #[test]
    fn wsd_stays_and_then_falls_by_each_curve() {
        let wsd = |curve| Schedule {
            peak: 2.0,
            warmup: 5,
            total: 100,
            shape: Shape::Wsd { decay: 20, curve, floor: 0.02 },
        };
        for curve in [Decay::Linear, Decay::Exponential, Decay::OneMinusSqrt] {
            let schedule = wsd(curve);
            schedule.check().expect("sound");
            assert_eq!((schedule.stage(79), schedule.stage(80)), (Stage::Stable, Stage::Decay));
            close(schedule.rate(79), 2.0);
            close(schedule.rate(80), 2.0);
            close(schedule.rate(100), 0.02);
        }
        close(wsd(Decay::Linear).rate(90), 1.01);
        close(wsd(Decay::Exponential).rate(90), 0.2);
        close(wsd(Decay::OneMinusSqrt).rate(85), 2.0 - 1.98 * 0.5);
        // The paper writes the exponential as 0.5^((s - T) / h).
        let h = 20.0 * 0.5f64.ln() / 0.01f64.ln();
        close(wsd(Decay::Exponential).rate(87), 2.0 * 0.5f64.powf(7.0 / h));
    }

    #[test]
    fn a_decayed_checkpoint_does_not_go_back_to_the_full_rate() {
        let shape = Shape::Wsd { decay: 10, curve: Decay::Linear, floor: 0.0 };
        let long = Schedule { peak: 1.0, warmup: 0, total: 200, shape };
        let branch = Schedule { total: 110, ..long };
        branch
            .check_continues(100, Some(Stage::Stable))
            .expect("a branch may start anywhere in the stable part");
        branch.check_continues(105, Some(Stage::Decay)).expect("a decay goes on");
        long.check_continues(100, Some(Stage::Stable)).expect("the stable part goes on");
        let error = long.check_continues(105, Some(Stage::Decay)).expect_err("refused").to_string();
        assert!(error.contains("stable checkpoint"), "{error}");
    }

    #[test]
    fn senseless_numbers_are_refused() {
        let good = Schedule { peak: 1.0, warmup: 5, total: 10, shape: Shape::Cosine { floor: 0.0 } };
        good.check().expect("sound");
        let wsd = |decay, floor| Shape::Wsd { decay, curve: Decay::Exponential, floor };
        for (bad, word) in [
            (Schedule { peak: f64::NAN, ..good }, "learning rate"),
            (Schedule { peak: 0.0, ..good }, "learning rate"),
            (Schedule { shape: Shape::Linear { floor: 2.0 }, ..good }, "final"),
            (Schedule { warmup: 11, ..good }, "fit"),
            (Schedule { total: 0, warmup: 0, ..good }, "fit"),
            (Schedule { shape: wsd(6, 0.1), ..good }, "fit"),
            (Schedule { shape: wsd(5, 0.0), ..good }, "exponential"),
        ] {
            let error = bad.check().expect_err("refused").to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
