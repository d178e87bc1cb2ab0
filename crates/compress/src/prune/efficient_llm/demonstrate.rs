//! Measures pruning-aware training on the tiny built-in model: a quarter of its parameters stay, against a small model trained from
//! nothing, one-shot pruning that is trained on, and gradual pruning by magnitude, all on the same tokens.

use ounce_eval::method::{DemonstrationError, Evidence, Fixture, Lab, Row};
use ounce_eval::stats::mean_and_error;
use ounce_model::Model;
use ounce_model::spec::FeedForwardKind;

use super::NUMBER;
use super::shrink::{Choice, Options, leave_at_once, shrink, train};
use crate::Result;
use crate::prune::workbench::{Texts, drawn, listed, speeds};

const LOSS: &str = "held-out loss";
const SCRATCH: &str = "small model, from nothing";
const ONE_SHOT: &str = "pruned at once, then trained";
const GRADUAL: &str = "gradual, by magnitude";
const UNMENDED: &str = "pruning-aware, no correction";
const AWARE: &str = "pruning-aware";

/// Channels that leave together: fewer than usual, for a narrow model.
const MULTIPLE: usize = 4;

/// How much is done.
pub(super) struct Plan {
    pub seeds: usize,
    pub steps: u64,
    pub bytes: usize,
    pub held_out: usize,
    /// The rate of training that continues, and of training from nothing.
    pub rates: [f64; 2],
}

impl Plan {
    fn full() -> Plan {
        Plan { seeds: 3, steps: 400, bytes: 2_500_000, held_out: 60_000, rates: [4e-3, 8e-3] }
    }
}

/// The demonstration of the catalogue's entry.
pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, &Plan::full()).map_err(DemonstrationError::step(NUMBER, "shrinking the tiny built-in model"))
}

pub(super) fn measure(lab: &dyn Lab, plan: &Plan) -> Result<Evidence> {
    let model = lab.model(Fixture::Tiny)?;
    let texts = Texts::new(lab, &model, plan.seeds, plan.bytes, plan.held_out)?;
    let target = model.spec.parameters() / 4;
    let arms = [SCRATCH, ONE_SHOT, GRADUAL, UNMENDED, AWARE];
    let mut losses: Vec<Vec<f64>> = vec![Vec::new(); arms.len()];
    let mut parameters = vec![0; arms.len()];
    // Right after a cut to three quarters and to a quarter of the parameters: as it is, and mended.
    let mut at_once: [[Vec<f64>; 2]; 2] = Default::default();
    let mut found: Vec<Model> = Vec::new();
    for (seed, text) in texts.parts.iter().enumerate() {
        for (at, arm) in arms.into_iter().enumerate() {
            let done = (seed * arms.len() + at) as f64 / (plan.seeds * arms.len()) as f64;
            lab.progress(&format!("seed {}: {arm}", seed + 1), done);
            let options = Options {
                steps: plan.steps,
                rate: plan.rates[0],
                seed: lab.seed() + seed as u64,
                multiple: MULTIPLE,
                ..Options::default()
            };
            let small = match arm {
                SCRATCH => {
                    let options = Options { rate: plan.rates[1], ..options };
                    train(&drawn(&model, target, options.seed)?, text, &options, &mut |_, _| Ok(()))?
                }
                ONE_SHOT => {
                    let cut =
                        |most, correct| leave_at_once(&model, text, most, &Options { correct, ..options });
                    for (most, losses) in [(3 * target, 0), (target, 1)] {
                        for correct in [false, true] {
                            at_once[losses][usize::from(correct)].push(texts.loss(&cut(most, correct)?)?);
                        }
                    }
                    let mended = cut(target, true)?;
                    train(&mended, text, &options, &mut |_, _| Ok(()))?
                }
                _ => {
                    let choice = if arm == GRADUAL { Choice::Magnitude } else { options.choice };
                    let options = Options { choice, correct: arm == AWARE, ..options };
                    shrink(&model, text, target, &options, &mut |_, _| Ok(()))?.0
                }
            };
            losses[at].push(texts.loss(&small)?);
            parameters[at] = small.spec.parameters();
            if arm == AWARE {
                found.push(small);
            }
        }
    }
    let mut evidence = Evidence::new(NUMBER, lab.seed(), SCRATCH);
    let original = texts.loss(&model)?;
    evidence.rows.push(Row::new("source").with(LOSS, original, "nats").with(
        "parameters",
        model.spec.parameters() as f64,
        "",
    ));
    for ((arm, losses), parameters) in arms.into_iter().zip(&losses).zip(parameters) {
        let (mean, error) = mean_and_error(losses);
        evidence.rows.push(
            Row::new(arm).with(LOSS, mean, "nats").with("standard error", error, "nats").with(
                "parameters",
                parameters as f64,
                "",
            ),
        );
    }
    let labels = ["to three quarters at once", "to a quarter at once"];
    for (label, losses) in labels.iter().zip(&at_once) {
        for (what, losses) in ["as it is", "mended"].iter().zip(losses) {
            let (mean, error) = mean_and_error(losses);
            let row = Row::new(format!("{label}, {what}, before training"));
            evidence.rows.push(row.with(LOSS, mean, "nats").with("standard error", error, "nats"));
        }
    }
    expect(&mut evidence, &losses, &at_once);
    shapes(&mut evidence, &found);
    let every: Vec<&Model> = [&model].into_iter().chain(&found).collect();
    let tokens = speeds(&every)?;
    let factors: Vec<f64> = tokens[1..].iter().map(|it| it / tokens[0]).collect();
    evidence.expect(
        "a token is generated in at most half the source's time",
        format!("{} times as many tokens a second", listed(&factors)),
        mean_and_error(&factors).0 >= 2.0,
    );
    evidence.notes = vec![
        format!(
            "The source is the tiny built-in model, {} parameters, of which at most {target} stay; each arm sees {} steps of about {} \
             tokens after it, the same in the same order; {} seeds, each with text of its own. The source's own training \
             is not counted, which favours all arms but the one from nothing: pruning-aware training asks for a source.",
            model.spec.parameters(),
            plan.steps,
            Options::default().tokens,
            plan.seeds,
        ),
        format!(
            "Learning rates: {} for what continues, {} for the small model from nothing, whose shape is the source's, narrower.",
            plan.rates[0], plan.rates[1]
        ),
        "Speeds are of models that generate in turn, the best of several runs; a model this small spends much of its time elsewhere than in its weights.".into(),
        "Units are chosen by the Fisher information of a factor on each, not by the diagonal of the matrix of single weights that the paper takes.".into(),
        "Comparisons with models of other makers weren't measured.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn expect(evidence: &mut Evidence, losses: &[Vec<f64>], at_once: &[[Vec<f64>; 2]; 2]) {
    let [scratch, one_shot, gradual, unmended, aware] = losses else { return };
    let mean = |values: &[f64]| mean_and_error(values).0;
    let order = [aware, one_shot, scratch].map(|it| mean(it));
    evidence.expect(
        "held-out loss: pruning-aware ≤ pruned at once, then trained ≤ small model from nothing",
        format!("{:.4}, {:.4}, {:.4}", order[0], order[1], order[2]),
        order.is_sorted(),
    );
    evidence.expect(
        "pruning-aware is below the small model from nothing by 1 % at least",
        format!("{:.4} against {:.4}, {:+.2} %", order[0], order[2], (order[0] / order[2] - 1.0) * 100.0),
        order[0] <= 0.99 * order[2],
    );
    let gradual = mean(gradual);
    evidence.expect(
        "pruning-aware is below gradual pruning by magnitude",
        format!("{:.4} against {gradual:.4}", order[0]),
        order[0] < gradual,
    );
    for (size, [plain, mended]) in ["three quarters", "a quarter"].iter().zip(at_once) {
        evidence.expect(
            format!(
                "right after a cut to {size} of the parameters, the correction lowers the loss for each seed"
            ),
            format!("{} from {}", listed(mended), listed(plain)),
            mended.iter().zip(plain).all(|(mended, plain)| mended < plain),
        );
    }
    let unmended = mean(unmended);
    evidence.expect(
        "with the correction, training ends lower than without",
        format!("{:.4} against {unmended:.4}", order[0]),
        order[0] < unmended,
    );
}

/// Layers as they were found.
fn shapes(evidence: &mut Evidence, found: &[Model]) {
    let shape = |model: &Model| -> Vec<(usize, usize)> {
        let width = |kind: &FeedForwardKind| match kind {
            FeedForwardKind::Dense(mlp) => mlp.width,
            FeedForwardKind::Experts(experts) => experts.expert.width,
        };
        let layers = model.spec.layers.iter();
        layers
            .map(|layer| {
                let heads = layer.attention.as_ref().map_or(0, |it| it.heads);
                (heads, layer.feed_forward.as_ref().map_or(0, |it| width(&it.kind)))
            })
            .collect()
    };
    let shapes: Vec<Vec<(usize, usize)>> = found.iter().map(shape).collect();
    let said = found.iter().zip(&shapes).map(|(model, shape)| {
        let layers: Vec<String> = shape.iter().map(|(heads, width)| format!("{heads}/{width}")).collect();
        format!("stream {}, heads/channels {}", model.spec.hidden_size, layers.join(" "))
    });
    evidence.expect(
        "the shapes that are found differ from layer to layer",
        said.collect::<Vec<_>>().join("; "),
        shapes.iter().all(|shape| shape.iter().any(|layer| *layer != shape[0])),
    );
}
