//! Measures Compacter beside bottleneck adapters, LoRA with as few numbers, and all weights, with much data and with little.

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::mean_and_error;
use ounce_train::Trainable;
use ounce_train::net::{Net, Options as NetOptions};

use super::NUMBER;
use crate::study::{Course, Study};
use crate::{Kind, Result, Settings, Targets};

/// Sizes of the demonstration.
pub(super) struct Scale {
    pub text: usize,
    pub few: usize,
    pub steps: u64,
    pub choosing: u64,
    pub seeds: u64,
}

pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let scale = Scale { text: 160_000, few: 40, steps: 120, choosing: 50, seeds: 3 };
    measure(lab, &scale).map_err(DemonstrationError::step(NUMBER, "adapting the tiny built-in model"))
}

/// Ways to adapt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Compacter,
    Adapters,
    Lora,
    Whole,
}

const WAYS: [Way; 4] = [Way::Compacter, Way::Adapters, Way::Lora, Way::Whole];

impl Way {
    fn label(self) -> &'static str {
        match self {
            Way::Compacter => "Compacter",
            Way::Adapters => "bottleneck adapters",
            Way::Lora => "LoRA of rank 6 on values",
            Way::Whole => "all weights",
        }
    }

    fn rates(self) -> [f64; 3] {
        match self {
            Way::Compacter => [3e-3, 1e-2, 3e-2],
            Way::Adapters | Way::Lora => [3e-3, 1e-2, 3e-2],
            Way::Whole => [3e-4, 1e-3, 3e-3],
        }
    }

    fn network(self, study: &Study<'_>, seed: u64) -> Result<Box<dyn Trainable>> {
        let settings = |kind| Settings { seed, ..Settings::of(kind) };
        Ok(match self {
            // A width of 64: the narrow one is 4 of Compacter, 16 of adapters.
            Way::Compacter => {
                Box::new(study.adapted(&Settings { reduction: 16, ..settings(Kind::Compacter) })?)
            }
            Way::Adapters => {
                Box::new(study.adapted(&Settings { reduction: 4, ..settings(Kind::Bottleneck) })?)
            }
            Way::Lora => Box::new(study.adapted(&Settings {
                // The least rank with no fewer numbers than Compacter has.
                rank: 6,
                alpha: 12.0,
                targets: Targets::parts(&["value"]),
                ..settings(Kind::Lora)
            })?),
            Way::Whole => Box::new(Net::from_model(&study.model, NetOptions::default())?),
        })
    }
}

/// What a way came to.
struct Found {
    way: Way,
    trained: usize,
    /// Held-out losses with all documents, and with few.
    losses: [Vec<f64>; 2],
}

impl Found {
    fn mean(&self, few: usize) -> f64 {
        mean_and_error(&self.losses[few]).0
    }
}

pub(super) fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let whole = Study::told(lab, scale.text)?;
    let few = whole.with_few(scale.few);
    let mut found = Vec::new();
    for (at, way) in WAYS.into_iter().enumerate() {
        let mut it = Found { way, trained: 0, losses: Default::default() };
        for (which, study) in [&whole, &few].into_iter().enumerate() {
            lab.progress(way.label(), (2 * at + which) as f64 / (2 * WAYS.len()) as f64);
            let first = lab.seed() * 1000;
            let mut make = |seed| way.network(study, seed);
            let rate = study.best_rate(&way.rates(), scale.choosing, first + 900, &mut make)?;
            for seed in first..first + scale.seeds {
                let mut net = way.network(study, seed)?;
                it.trained = net.params().iter().map(|param| param.grad.len()).sum();
                study.train(net.as_mut(), Course { steps: scale.steps, rate, seed })?;
                it.losses[which].push(study.test(net.as_mut())?);
            }
        }
        found.push(it);
    }
    let mut evidence = Evidence::new(NUMBER, lab.seed(), Way::Adapters.label());
    for it in &found {
        let error = |which: usize| {
            Some(mean_and_error(&it.losses[which]).1).filter(|it| it.is_finite()).unwrap_or(0.0)
        };
        evidence.rows.push(
            Row::new(it.way.label())
                .with("held-out loss", it.mean(0), "nats")
                .with("its standard error", error(0), "nats")
                .with("held-out loss with little text", it.mean(1), "nats")
                .with("its standard error with few", error(1), "nats")
                .with("numbers trained", it.trained as f64, ""),
        );
    }
    expect(&mut evidence, &found);
    let formula = whole.adapted(&Settings { reduction: 16, ..Settings::of(Kind::Compacter) })?;
    evidence.expect(
        "As many numbers are trained as the formula says, exactly.",
        format!("{} against {}", formula.trained(), formula.parameters()),
        formula.trained() == formula.parameters(),
    );
    evidence.notes = vec![format!(
        "The tiny built-in model on tales told in the present and without articles, {} pieces of them and {}; {} steps, means of {} seeds, each way at the best of \
         three rates, chosen with another seed on other tales. Compacter's numbers include the norms of the layers, which it \
         trains. A model of width 64 is far from T5, and GLUE is not measured.",
        whole.learn.len(),
        few.learn.len(),
        scale.steps,
        scale.seeds
    )];
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn expect(evidence: &mut Evidence, found: &[Found]) {
    let of = |way: Way| found.iter().find(|it| it.way == way);
    let loss = |way, few| of(way).map_or(f64::NAN, |it| it.mean(few));
    let count = |way| of(way).map_or(0, |it| it.trained);
    let said = |few: usize| -> String {
        let parts: Vec<String> =
            found.iter().map(|it| format!("{} {:.3}", it.way.label(), it.mean(few))).collect();
        parts.join(", ")
    };
    evidence.expect(
        "Compacter trains at most a tenth of the numbers of bottleneck adapters, and its held-out loss is at most 0.05 nats above theirs.",
        format!("{} against {} numbers; {}", count(Way::Compacter), count(Way::Adapters), said(0)),
        10 * count(Way::Compacter) <= count(Way::Adapters)
            && loss(Way::Compacter, 0) <= loss(Way::Adapters, 0) + 0.05,
    );
    evidence.expect(
        "With little text Compacter's held-out loss is at most that of training all weights.",
        said(1),
        loss(Way::Compacter, 1) <= loss(Way::Whole, 1),
    );
    evidence.expect(
        "Compacter's held-out loss is at most that of a LoRA with no fewer numbers.",
        format!("{} against {} numbers; {}", count(Way::Compacter), count(Way::Lora), said(0)),
        loss(Way::Compacter, 0) <= loss(Way::Lora, 0),
    );
}
