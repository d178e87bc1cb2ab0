//! Measures Compresso on the tiny built-in model: 30 % of its weights leave, against one-shot pruning by activations and by
//! gradients that is healed with the same adapters, all on the same text and steps.

use ounce_eval::method::{DemonstrationError, Evidence, Fixture, Lab, Row};
use ounce_eval::stats::mean_and_error;
use ounce_model::Model;

use super::NUMBER;
use super::{Options, adapt, prune};
use crate::Result;
use crate::prune::structured::{Limits, Target, choose, saliency};
use crate::prune::workbench::{Texts, difference, listed, speeds};

const LOSS: &str = "held-out loss";
const ACTIVATION: &str = "one-shot by activation, adapters";
const TAYLOR: &str = "one-shot by gradient, adapters";
const GATES: &str = "gates and adapters";
const WITHIN: &str = "gates and adapters, stream too";

/// How much is done.
pub(super) struct Plan {
    pub seeds: usize,
    pub steps: [u64; 2],
    pub bytes: usize,
    pub held_out: usize,
    /// Share of parameters that leave.
    pub share: f64,
}

impl Plan {
    fn full() -> Plan {
        Plan { seeds: 3, steps: [250, 150], bytes: 2_500_000, held_out: 60_000, share: 0.3 }
    }
}

/// The demonstration of the catalogue's entry.
pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, &Plan::full()).map_err(DemonstrationError::step(NUMBER, "pruning the tiny built-in model"))
}

pub(super) fn measure(lab: &dyn Lab, plan: &Plan) -> Result<Evidence> {
    let model = lab.model(Fixture::Tiny)?;
    let whole = model.spec.parameters();
    let texts = Texts::new(lab, &model, plan.seeds, plan.bytes, plan.held_out)?;
    let target = whole - (whole as f64 * plan.share) as u64;
    let arms = [ACTIVATION, TAYLOR, GATES, WITHIN];
    let mut losses: Vec<Vec<f64>> = vec![Vec::new(); arms.len()];
    let mut parameters: Vec<Vec<f64>> = vec![Vec::new(); arms.len()];
    let (mut off, mut found) = (Vec::new(), Vec::new());
    for (seed, text) in texts.parts.iter().enumerate() {
        for (at, arm) in arms.into_iter().enumerate() {
            let done = (seed * arms.len() + at) as f64 / (plan.seeds * arms.len()) as f64;
            lab.progress(&format!("seed {}: {arm}", seed + 1), done);
            let options = Options {
                gate_steps: plan.steps[0],
                heal_steps: plan.steps[1],
                stream: arm == WITHIN,
                seed: lab.seed() + seed as u64,
                ..Options::default()
            };
            let small = match arm {
                GATES | WITHIN => {
                    let outcome = prune(&model, text, target, &options, &mut |_, _| Ok(()))?;
                    off.push(difference([&outcome.halves[0], &outcome.halves[1]], &text[0])?);
                    outcome.model
                }
                _ => {
                    let shown = text[..text.len().min(64)].to_vec();
                    let scores = match arm {
                        TAYLOR => saliency::taylor(&model, &shown, false, &mut |_, _| Ok(()))?,
                        _ => saliency::activation(&model, shown, &mut |_, _| Ok(()))?,
                    };
                    let limits = Limits { multiple: 1, ..Limits::default() };
                    let cut = choose(&model.spec, &scores, Target::Parameters(target), &limits)?;
                    // All steps of the others go to adapters.
                    let options = Options { heal_steps: plan.steps[0] + plan.steps[1], ..options };
                    adapt(&cut.apply(&model)?, text, &options, &mut |_, _| Ok(()))?
                }
            };
            losses[at].push(texts.loss(&small)?);
            parameters[at].push(small.spec.parameters() as f64);
            if arm == WITHIN {
                found.push(small);
            }
        }
    }
    let mut evidence = Evidence::new(NUMBER, lab.seed(), TAYLOR);
    evidence.rows.push(Row::new("original").with(LOSS, texts.loss(&model)?, "nats").with(
        "parameters",
        whole as f64,
        "",
    ));
    for ((arm, losses), parameters) in arms.into_iter().zip(&losses).zip(&parameters) {
        let (mean, error) = mean_and_error(losses);
        evidence.rows.push(
            Row::new(arm).with(LOSS, mean, "nats").with("standard error", error, "nats").with(
                "parameters",
                mean_and_error(parameters).0,
                "",
            ),
        );
    }
    let mean = |at: usize| mean_and_error(&losses[at]).0;
    for (at, arm) in [(2, GATES), (3, WITHIN)] {
        evidence.expect(
            format!("{arm}: held-out loss at most that of both one-shot ways"),
            format!("{:.4} against {:.4} and {:.4}", mean(at), mean(0), mean(1)),
            mean(at) <= mean(0) && mean(at) <= mean(1),
        );
    }
    let missed =
        parameters[2..].iter().flatten().map(|left| (left - target as f64).abs() / whole as f64 * 100.0);
    let missed = missed.fold(0.0, f64::max);
    evidence.expect(
        "the size that is reached is within 0.5 % of the parameters of the one that was asked for",
        format!("up to {missed:.3} % off"),
        missed <= 0.5,
    );
    let off = off.into_iter().fold(0.0, f64::max);
    evidence.expect(
        "logits of the cut model equal the masked one's to 1e-4 of the largest",
        format!("{off:.1e}"),
        off <= 1e-4,
    );
    let every: Vec<&Model> = [&model].into_iter().chain(&found).collect();
    let tokens = speeds(&every)?;
    let factors: Vec<f64> = tokens[1..].iter().map(|it| it / tokens[0]).collect();
    evidence.notes = vec![
        format!(
            "The tiny built-in model, {whole} parameters, of which {target} are to stay. Each arm sees {} steps of about {} tokens, the same \
             in the same order: with gates first {} steps of both, then {} of adapters alone; one-shot ways spend all on adapters. {} \
             seeds, each with text of its own. Adapters of rank {} on query and value matrices, all other weights frozen. Gates begin up to {} in ln α apart, by a Taylor score, and when \
             they are read what stays is fitted by least squares; one-shot ways are not fitted, as LLM-Pruner is not.",
            plan.steps[0] + plan.steps[1],
            Options::default().tokens,
            plan.steps[0],
            plan.steps[1],
            plan.seeds,
            Options::default().rank,
            Options::default().head_start,
        ),
        format!("Tokens a second of the models with a narrower stream, as multiples of the original's: {}.", listed(&factors)),
        "The collaborative prompt is an option; a model of tales has no understanding to make use of one, and it wasn't measured.".into(),
        "Claims on 7 billion parameters and on accuracy in tasks weren't measured.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}
