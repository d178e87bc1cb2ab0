//! Measures SVFit beside LoRA, (IA)³, all weights, and singular values of bases that were drawn at random.

use std::time::Instant;

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::{mean_and_error, mean_of};
use ounce_train::Trainable;
use ounce_train::net::{Net, Options as NetOptions};

use super::{NUMBER, SvFit};
use crate::adapter::{Adapter, Clock};
use crate::study::{Course, Study};
use crate::{Adapted, Kind, Result, Settings};

/// Sizes of the demonstration.
pub(super) struct Scale {
    pub text: usize,
    pub steps: u64,
    pub choosing: u64,
    pub seeds: u64,
}

pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let scale = Scale { text: 160_000, steps: 150, choosing: 60, seeds: 3 };
    measure(lab, &scale).map_err(DemonstrationError::step(NUMBER, "adapting the tiny built-in model"))
}

/// Ways to adapt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    SvFit,
    Random,
    Lora(usize),
    Ia3,
    Whole,
}

const WAYS: [Way; 6] = [Way::SvFit, Way::Random, Way::Lora(1), Way::Lora(8), Way::Ia3, Way::Whole];

impl Way {
    fn label(self) -> String {
        match self {
            Way::SvFit => "SVFit".into(),
            Way::Random => "values of random bases".into(),
            Way::Lora(rank) => format!("LoRA of rank {rank}"),
            Way::Ia3 => "(IA)³".into(),
            Way::Whole => "all weights".into(),
        }
    }

    fn rates(self) -> [f64; 3] {
        match self {
            Way::SvFit | Way::Random => [0.01, 0.03, 0.1],
            Way::Lora(_) => [3e-3, 1e-2, 3e-2],
            Way::Ia3 => [1e-2, 3e-2, 1e-1],
            Way::Whole => [3e-4, 1e-3, 3e-3],
        }
    }

    fn network(self, study: &Study<'_>, seed: u64) -> Result<Box<dyn Trainable>> {
        let settings = |kind| Settings { seed, ..Settings::of(kind) };
        Ok(match self {
            Way::Whole => Box::new(Net::from_model(&study.model, NetOptions::default())?),
            Way::Lora(rank) => Box::new(study.adapted(&Settings {
                rank,
                alpha: 2.0 * rank as f64,
                ..settings(Kind::Lora)
            })?),
            Way::Ia3 => Box::new(study.adapted(&settings(Kind::Ia3))?),
            Way::SvFit => Box::new(study.adapted(&settings(Kind::Svfit))?),
            Way::Random => {
                let settings = settings(Kind::Svfit);
                let made: Box<dyn Adapter> = Box::new(SvFit { settings: settings.clone(), random: true });
                Box::new(Adapted::with(
                    &study.model,
                    &settings,
                    NetOptions::default(),
                    made,
                    Clock::default(),
                )?)
            }
        })
    }
}

/// What a way came to.
struct Found {
    way: Way,
    rate: f64,
    trained: usize,
    losses: Vec<f64>,
    /// How far the training loss fell within the first third, mean of the last ten steps of it.
    early: Vec<f64>,
    seconds: f64,
}

impl Found {
    fn mean(&self) -> f64 {
        mean_and_error(&self.losses).0
    }
}

pub(super) fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let study = Study::told(lab, scale.text)?;
    let mut base = Way::SvFit.network(&study, 1)?;
    let begun = study.test(base.as_mut())?;
    let mut plain = Net::with_frozen(&study.model, NetOptions::default(), &|_| false)?;
    let unadapted = study.test(&mut plain)?;
    let mut found = Vec::new();
    for (at, way) in WAYS.into_iter().enumerate() {
        lab.progress(&way.label(), at as f64 / WAYS.len() as f64);
        let first = lab.seed() * 1000;
        let mut make = |seed| way.network(&study, seed);
        let rate = study.best_rate(&way.rates(), scale.choosing, first + 900, &mut make)?;
        let mut it = Found { way, rate, trained: 0, losses: Vec::new(), early: Vec::new(), seconds: 0.0 };
        for seed in first..first + scale.seeds {
            let mut net = way.network(&study, seed)?;
            it.trained = net.params().iter().map(|param| param.grad.len()).sum();
            let start = Instant::now();
            let losses = study.train(net.as_mut(), Course { steps: scale.steps, rate, seed })?;
            it.seconds += start.elapsed().as_secs_f64();
            let third = &losses[..(losses.len() / 3).max(1)];
            let last = &third[third.len().saturating_sub(10)..];
            it.early.push(unadapted - mean_of(last, |loss| *loss));
            it.losses.push(study.test(net.as_mut())?);
        }
        found.push(it);
    }
    let mut evidence = Evidence::new(NUMBER, lab.seed(), Way::Lora(8).label());
    let steps = (scale.steps * scale.seeds) as f64;
    for it in &found {
        let (mean, error) = mean_and_error(&it.losses);
        evidence.rows.push(
            Row::new(it.way.label())
                .with("held-out loss", mean, "nats")
                .with("its standard error", if error.is_finite() { error } else { 0.0 }, "nats")
                .with("numbers trained", it.trained as f64, "")
                .with("loss gained in the first third", mean_of(&it.early, |it| *it), "nats")
                .with("time of a step", 1000.0 * it.seconds / steps, "ms")
                .with("learning rate", it.rate, ""),
        );
    }
    expect(&mut evidence, &found, (begun, unadapted));
    evidence.notes = vec![format!(
        "The tiny built-in model on tales told in the present and without articles, which it predicts at {unadapted:.3} nats a token unadapted; {} steps, \
         means of {} seeds, each way at the best of three rates, chosen with another seed on other tales. All linear layers are \
         adapted. The model is far smaller than the paper's; GLUE, images and pictures are not measured. Times are of one machine and \
         say only how the ways compare.",
        scale.steps, scale.seeds
    )];
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn expect(evidence: &mut Evidence, found: &[Found], (begun, unadapted): (f64, f64)) {
    let of = |way: Way| found.iter().find(|it| it.way == way);
    let loss = |way| of(way).map_or(f64::NAN, Found::mean);
    let count = |way| of(way).map_or(0, |it| it.trained);
    let early = |way| of(way).map_or(f64::NAN, |it| mean_of(&it.early, |it| *it));
    evidence.expect(
        "SVFit trains at most a sixteenth of LoRA's numbers at rank 8.",
        format!("{} against {}", count(Way::SvFit), count(Way::Lora(8))),
        16 * count(Way::SvFit) <= count(Way::Lora(8)),
    );
    let losses: Vec<String> = found.iter().map(|it| format!("{} {:.3}", it.way.label(), it.mean())).collect();
    evidence.expect(
        "SVFit's held-out loss is at most LoRA's at rank 1, and at most 0.05 nats above LoRA's at rank 8.",
        losses.join(", "),
        loss(Way::SvFit) <= loss(Way::Lora(1)) && loss(Way::SvFit) <= loss(Way::Lora(8)) + 0.05,
    );
    evidence.expect(
        "The singular vectors matter: with as many values of random bases the loss is higher by 0.02 nats or more.",
        format!("{:.3} against {:.3}", loss(Way::SvFit), loss(Way::Random)),
        loss(Way::Random) >= loss(Way::SvFit) + 0.02,
    );
    evidence.expect(
        "In the first third of the steps SVFit gains at least what LoRA at rank 8 gains.",
        format!("{:.3} against {:.3} nats", early(Way::SvFit), early(Way::Lora(8))),
        early(Way::SvFit) >= early(Way::Lora(8)),
    );
    evidence.expect(
        "Before the first step the model is the base, to 1e-4 nats.",
        format!("{begun:.5} against {unadapted:.5}"),
        (begun - unadapted).abs() <= 1e-4,
    );
}
