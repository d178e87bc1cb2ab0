//! MiniCPM (method 014): settings that carry over from tiny models, one stable run with decays that branch off, and a law
//! from few runs.
//!
//! "MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training Strategies", arXiv 2404.06395.
//!
//! - **Settings for all widths** (section 3): the embedding's output times 12, residual branches times `1.4 / √layers`,
//!   matrices drawn with `0.1 / √(d / 256)`, their learning rate and the logits divided by `d / 256`. One learning rate,
//!   0.01, then holds for all widths `d`. [`Preset::Minicpm`](crate::config::Preset::Minicpm) sets them.
//! - **Warm-up, stable, decay** (section 4): [`Shape::Wsd`] stays at the highest rate, and
//!   falls in the last tenth. Any checkpoint of the stable part can be branched into a decay of its own.
//! - **Laws from few runs** (section 4.5): branches give the loss at many numbers of tokens for the price of one run a
//!   model size, `O(m)` rather than `O(m²)`; [`ScalingLaw`](crate::laws::scaling::ScalingLaw) is fitted to them.

mod branches;
mod law;
mod widths;

use ounce_eval::method::{DemonstrationError, Evidence, Family, Lab, Method};

use super::tiny::Letters;
use crate::Result;
use crate::schedule::{Decay, Schedule, Shape};

const NUMBER: u16 = 14;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "MiniCPM",
    family: Family::Training,
    paper: "MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training Strategies",
    arxiv: Some("2404.06395"),
    gives: "Settings found on tiny models carry over to larger ones, and a schedule with a stable middle lets finished models branch off at any step.",
    claim: "1.2B and 2.4B models on a level with 7B to 13B ones; about 192 tokens a parameter are best, and decay needs 10 % of the steps.",
    command: Some(
        "ounce train RUN.toml --set model.preset=minicpm --branch run/checkpoints/step-900 --steps 1000",
    ),
    demonstrate: Some(demonstrate),
};

/// Letters that are held out.
const HELD_OUT: usize = 30_000;

/// Sizes of the three parts.
struct Plan {
    branches: branches::Plan,
    widths: widths::Plan,
    law: law::Plan,
}

fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let plan =
        Plan { branches: branches::Plan::full(), widths: widths::Plan::full(), law: law::Plan::full() };
    measure(lab, &plan).map_err(DemonstrationError::step(NUMBER, "training small models"))
}

fn measure(lab: &dyn Lab, plan: &Plan) -> Result<Evidence> {
    let letters = plan.branches.letters().max(plan.widths.letters()).max(plan.law.letters());
    let letters = Letters::new(lab, letters, HELD_OUT)?;
    let mut evidence = Evidence::new(NUMBER, lab.seed(), branches::BASELINE);
    branches::measure(lab, &letters, &plan.branches, &mut evidence)?;
    widths::measure(lab, &letters, &plan.widths, &mut evidence)?;
    law::measure(lab, &letters, &plan.law, &mut evidence)?;
    evidence.notes = vec![
        "Models of letters with two layers; one seed. Every run sees its text once, in the same order as the others.".into(),
        "Losses of schedules and of the law are on held-out text; those of the sweep are of the last tenth of training."
            .into(),
        "The paper's own models, its data mixture in the decay and its batch law were not measured.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

/// A schedule whose last `decay` steps fall to a hundredth of the rate.
fn wsd(peak: f64, total: u64, decay: u64, warmup: u64) -> Schedule {
    let shape = Shape::Wsd { decay, curve: Decay::OneMinusSqrt, floor: 0.01 * peak };
    Schedule { peak, warmup, total, shape }
}

#[cfg(test)]
mod tests {
    use super::super::tiny::Desk;
    use super::*;

    #[test]
    fn small_parts_give_sound_evidence_and_resume_to_the_same_bits() {
        let plan = Plan {
            branches: branches::Plan { steps: 20, batch: 64, width: 16, rate: 0.01 },
            widths: widths::Plan { widths: vec![16, 32], tokens: 640, batch: 64, ..widths::Plan::full() },
            law: law::Plan { widths: vec![16, 24, 32], unit: 10, batch: 32, rate: 0.01 },
        };
        let evidence = measure(&Desk, &plan).expect("measured");
        evidence.check().expect("sound");
        let exact = evidence.expectations.iter().find(|it| it.text.contains("same bits")).expect("stated");
        assert!(exact.holds, "{exact:?}");
    }
}
