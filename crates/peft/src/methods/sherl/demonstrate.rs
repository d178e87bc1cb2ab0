//! Measures SHERL beside LoRA and bottleneck adapters of as many numbers, in quality and in the memory that a step holds, and beside
//! itself without what makes it SHERL.

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::mean_and_error;
use ounce_train::net::Options as NetOptions;
use ounce_train::trainer::memory;
use ounce_train::{Batch, Trainable};

use super::{NUMBER, Sherl, Weighing};
use crate::adapter::{Adapter, Clock};
use crate::study::{Course, Study};
use crate::{Adapted, Kind, Result, Settings};

/// Sizes of the demonstration.
pub(super) struct Scale {
    pub text: usize,
    pub steps: u64,
    pub choosing: u64,
    pub seeds: u64,
    /// Sequences of 64 tokens whose step is measured.
    pub sequences: usize,
}

pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let scale = Scale { text: 160_000, steps: 150, choosing: 50, seeds: 3, sequences: 128 };
    measure(lab, &scale).map_err(DemonstrationError::step(NUMBER, "adapting the tiny built-in model"))
}

/// Ways to adapt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Sherl,
    Redundant,
    Uniform,
    Lora,
    Adapters,
}

const WAYS: [Way; 5] = [Way::Sherl, Way::Redundant, Way::Uniform, Way::Lora, Way::Adapters];

impl Way {
    fn label(self) -> &'static str {
        match self {
            Way::Sherl => "SHERL",
            Way::Redundant => "SHERL without ρ",
            Way::Uniform => "SHERL, all early layers alike",
            Way::Lora => "LoRA",
            Way::Adapters => "bottleneck adapters",
        }
    }

    /// Numbers are alike: about nine thousand.
    fn network(self, study: &Study<'_>, seed: u64) -> Result<Adapted> {
        let settings = |kind| Settings { seed, ..Settings::of(kind) };
        let weighing = match self {
            Way::Lora => {
                return study.adapted(&Settings { rank: 2, alpha: 4.0, ..settings(Kind::Lora) });
            }
            Way::Adapters => {
                return study.adapted(&Settings { reduction: 8, ..settings(Kind::Bottleneck) });
            }
            Way::Sherl => Weighing::Sherl,
            Way::Redundant => Weighing::Redundant,
            Way::Uniform => Weighing::Uniform,
        };
        let settings = Settings { layers: 1, ..settings(Kind::Sherl) };
        let made: Box<dyn Adapter> = Box::new(Sherl { settings: settings.clone(), weighing, side: None });
        Adapted::with(&study.model, &settings, NetOptions::default(), made, Clock::default())
    }
}

/// Bytes by which the process's peak rises above what it was. Peaks never fall, so what needs less comes first.
fn rises(job: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
    let peak = || memory().1.unwrap_or(0);
    let before = peak();
    job()?;
    Ok(peak().saturating_sub(before) as f64)
}

/// Bytes above frozen inference: of SHERL's step, and of LoRA's.
fn held(study: &Study<'_>, sequences: usize) -> Result<[f64; 2]> {
    let mut tokens: Vec<Vec<u32>> = Vec::new();
    while tokens.len() < sequences {
        tokens.extend(
            study
                .learn
                .iter()
                .take(sequences - tokens.len())
                .map(|ids| ids.iter().copied().cycle().take(65).collect::<Vec<u32>>()),
        );
    }
    let batch = Batch::next_token(tokens.iter().map(Vec::as_slice));
    let (mut sherl, mut lora) = (Way::Sherl.network(study, 1)?, Way::Lora.network(study, 1)?);
    // The model, the batch and the buffers of inference are there from now on.
    lora.loss(&batch)?;
    sherl.loss(&batch)?;
    let of_sherl = rises(&mut || Ok(sherl.accumulate(&batch, 1.0).map(|_| ())?))?;
    let of_lora = rises(&mut || Ok(lora.accumulate(&batch, 1.0).map(|_| ())?))?;
    Ok([of_sherl, of_sherl + of_lora])
}

pub(super) fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let study = Study::told(lab, scale.text)?;
    lab.progress("memory of a step", 0.0);
    let [of_sherl, of_lora] = held(&study, scale.sequences)?;
    let rates = [3e-3, 1e-2, 3e-2];
    let mut evidence = Evidence::new(NUMBER, lab.seed(), Way::Lora.label());
    let mut found = Vec::new();
    for (at, way) in WAYS.into_iter().enumerate() {
        lab.progress(way.label(), (at as f64 + 0.2) / (WAYS.len() as f64 + 0.2));
        let first = lab.seed() * 1000;
        let mut make =
            |seed| Ok::<_, crate::Error>(Box::new(way.network(&study, seed)?) as Box<dyn Trainable>);
        let rate = study.best_rate(&rates, scale.choosing, first + 900, &mut make)?;
        let (mut losses, mut trained) = (Vec::new(), 0);
        for seed in first..first + scale.seeds {
            let mut net = way.network(&study, seed)?;
            trained = net.trained();
            study.train(&mut net, Course { steps: scale.steps, rate, seed })?;
            losses.push(study.test(&mut net)?);
        }
        let (mean, error) = mean_and_error(&losses);
        evidence.rows.push(
            Row::new(way.label())
                .with("held-out loss", mean, "nats")
                .with("its standard error", if error.is_finite() { error } else { 0.0 }, "nats")
                .with("numbers trained", trained as f64, "")
                .with("learning rate", rate, ""),
        );
        found.push((way, mean));
    }
    let of = |wanted| found.iter().find(|(way, _)| *way == wanted).map_or(f64::NAN, |it| it.1);
    let mebibytes = |bytes: f64| bytes / 1024.0 / 1024.0;
    evidence.rows.push(
        Row::new("memory of a step above frozen inference").with("SHERL", mebibytes(of_sherl), "MiB").with(
            "LoRA",
            mebibytes(of_lora),
            "MiB",
        ),
    );
    evidence.expect(
        "A step of SHERL holds at most 0.6 of what one of LoRA holds above frozen inference.",
        format!("{:.1} against {:.1} MiB", mebibytes(of_sherl), mebibytes(of_lora)),
        of_lora > 0.0 && of_sherl <= 0.6 * of_lora,
    );
    evidence.expect(
        "SHERL's held-out loss is at most 0.05 nats above LoRA's with as many numbers.",
        format!("{:.3} against {:.3}", of(Way::Sherl), of(Way::Lora)),
        of(Way::Sherl) <= of(Way::Lora) + 0.05,
    );
    evidence.expect(
        "Without ρ, or with all early layers alike, the loss is no lower.",
        format!("{:.3}; {:.3} and {:.3}", of(Way::Sherl), of(Way::Redundant), of(Way::Uniform)),
        of(Way::Redundant) >= of(Way::Sherl) && of(Way::Uniform) >= of(Way::Sherl),
    );
    evidence.notes = vec![
        format!(
            "The tiny built-in model, four layers of which the last is late, on tales told in the present and without articles; {} steps, means of {} seeds, \
             each way at the best of three rates, chosen with another seed on other tales.",
            scale.steps, scale.seeds
        ),
        format!(
            "Memory is how far the process's peak rises in one step of {} sequences of 64 tokens, first SHERL's, then LoRA's on top. \
             Vision-language tasks and GLUE are not measured; side tuning by a ladder is not built.",
            scale.sequences
        ),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}
