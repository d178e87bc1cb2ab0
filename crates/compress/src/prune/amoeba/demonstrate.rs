//! Measures AmoebaLLM on a model of letters with eight layers: depths by dynamic programming against greedy, last and evenly spread layers;
//! and one run for all shapes against a run for each, and against one adapter for all without losses of one size.

use std::time::Instant;

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::mean_and_error;
use ounce_model::Model;

use super::NUMBER;
use super::depth::{candidates, greedy};
use super::elastic::{Elastic, Settings, Shape, Way};
use super::smol;
use super::train::{Course, Options, Trained, train};
use crate::Result;
use crate::prune::gradual;
use crate::prune::learning::mean_loss;
use crate::prune::structured::choose::without_layers;
use crate::prune::workbench::{Letters, difference, listed};

const LOSS: &str = "held-out loss";
const EACH: &str = "a run for each shape";
const SHARED: &str = "one adapter for all, losses as they are";
const ALL: &str = "mixture of adapters, losses of one size";

/// Letters of a sequence.
const CONTEXT: usize = 128;

/// How much is done.
pub(super) struct Plan {
    pub seeds: usize,
    pub layers: usize,
    pub hidden: usize,
    /// Steps of the model that shapes are cut out of, and of adapters.
    pub steps: [u64; 2],
    pub bytes: usize,
    pub held_out: usize,
    /// Letters by which layers, heads and channels are chosen.
    pub looked_at: usize,
}

impl Plan {
    fn full() -> Plan {
        Plan {
            seeds: 3,
            layers: 8,
            hidden: 48,
            steps: [700, 150],
            bytes: 400_000,
            held_out: 40_000,
            looked_at: 8192,
        }
    }
}

/// The demonstration of the catalogue's entry.
pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, &Plan::full()).map_err(DemonstrationError::step(NUMBER, "training a model of many shapes"))
}

/// Ways to choose layers: how many comparisons each lost to the table's sets, and its losses.
struct Depths {
    /// Held-out losses by seed and number of layers: of the table, greedily, the last, evenly spread.
    losses: Vec<[f64; 4]>,
}

const WAYS: [&str; 4] = ["dynamic programming", "greedily", "the last", "evenly spread"];

fn depths(model: &Model, elastic: &Elastic, shown: &[Vec<u32>], held_out: &[Vec<u32>]) -> Result<Depths> {
    let layers = model.spec.layers.len();
    let most = elastic.settings.most_removed;
    let loss = |removed: &[usize], text: &[Vec<u32>]| -> Result<f64> {
        mean_loss(&without_layers(&model.spec, removed)?.apply(model)?, text)
    };
    let step_by_step = greedy(&candidates(layers, 1), most, &mut |removed| loss(removed, shown))?;
    let mut losses = Vec::new();
    for count in 1..=most {
        let last: Vec<usize> = (layers - 1 - count..layers - 1).collect();
        let spread: Vec<usize> =
            (0..count).map(|at| ((at + 1) * layers / (count + 1)).min(layers - 2)).collect();
        let sets = [&elastic.sets[count].removed, &step_by_step[count].removed, &last, &spread];
        let mut found = [0.0; 4];
        for (found, set) in found.iter_mut().zip(sets) {
            *found = loss(set, held_out)?;
        }
        losses.push(found);
    }
    Ok(Depths { losses })
}

/// The shapes that are compared: the largest, two between, the smallest.
fn compared(settings: &Settings) -> Vec<Shape> {
    let (most, narrow) = (settings.most_removed, settings.widths.len() - 1);
    let half = most.div_ceil(2);
    [(0, 0), (half, 0), (half, narrow.min(1)), (most, narrow)]
        .map(|(removed, width)| Shape { removed, width })
        .to_vec()
}

fn label(elastic: &Elastic, shape: Shape) -> String {
    let layers = elastic.model.spec.layers.len() - shape.removed;
    format!("{layers} layers, width {}", elastic.settings.widths[shape.width])
}

pub(super) fn measure(lab: &dyn Lab, plan: &Plan) -> Result<Evidence> {
    let letters = Letters::new(lab, plan.seeds + 1, plan.bytes, plan.held_out, CONTEXT);
    lab.progress("training the model that shapes are cut out of", 0.0);
    let whole = letters.model(lab, plan.hidden, plan.layers, CONTEXT)?;
    let Letters { parts, held_out, .. } = letters;
    let course =
        gradual::Options { steps: plan.steps[0], tokens: 1024, rate: 6e-3, schedule: None, seed: lab.seed() };
    let whole = gradual::train(&whole, &parts[plan.seeds], &course, &mut |_, _| Ok(()))?;
    let settings = Settings {
        widths: vec![1.0, 0.75, 0.5],
        most_removed: plan.layers / 2,
        protected: 1,
        multiple: 8,
        way: Way::Alike,
    };
    let shapes = compared(&settings);
    let arms = [EACH, SHARED, ALL];
    let mut losses: Vec<Vec<Vec<f64>>> = vec![vec![Vec::new(); shapes.len()]; arms.len()];
    let mut untrained: Vec<[Vec<f64>; 2]> = vec![Default::default(); shapes.len()];
    let mut by_depth: Vec<[f64; 4]> = Vec::new();
    let (mut off, mut seconds, mut parameters) = (0.0f64, 0.0f64, Vec::new());
    let mut gates = Vec::new();
    for (seed, text) in parts[..plan.seeds].iter().enumerate() {
        let done = |at: f64| 0.12 + 0.88 * (seed as f64 + at) / plan.seeds as f64;
        lab.progress(&format!("seed {}: which layers leave", seed + 1), done(0.0));
        let shown = &text[..(plan.looked_at / CONTEXT).clamp(1, text.len())];
        let elastic = Elastic::find(&whole, &settings, shown, &mut |_| Ok(()))?;
        by_depth.extend(depths(&whole, &elastic, shown, &held_out)?.losses);
        let plain = elastic.without_answers();
        for (&shape, untrained) in shapes.iter().zip(&mut untrained) {
            untrained[0].push(mean_loss(&elastic.at(shape, Vec::new())?, &held_out)?);
            untrained[1].push(mean_loss(&plain.at(shape, Vec::new())?, &held_out)?);
        }
        parameters = shapes.iter().map(|&shape| elastic.parameters(shape)).collect::<Result<_>>()?;
        let adapters = smol::Options { rank: 4, ..smol::Options::default() };
        let alone = smol::Options { experts: 1, taken: 1, rank: adapters.taken * adapters.rank, ..adapters };
        let options = Options {
            steps: plan.steps[1],
            tokens: 1024,
            rate: 2e-3,
            adapters,
            seed: lab.seed() + seed as u64,
            ..Options::default()
        };
        for (at, arm) in arms.into_iter().enumerate() {
            lab.progress(&format!("seed {}: {arm}", seed + 1), done(0.05 + 0.3 * at as f64));
            let run = |options: &Options| train(elastic.clone(), text, options, &mut |_, _| Ok(()));
            let of_shapes: Vec<Trained> = match arm {
                EACH => (shapes.iter())
                    .map(|&shape| run(&Options { course: Course::One(shape), adapters: alone, ..options }))
                    .collect::<Result<_>>()?,
                SHARED => vec![run(&Options { adapters: alone, balance: false, ..options })?; shapes.len()],
                _ => vec![run(&options)?; shapes.len()],
            };
            for ((&shape, trained), losses) in shapes.iter().zip(&of_shapes).zip(&mut losses[at]) {
                let start = Instant::now();
                let small = trained.extract(shape)?;
                // Cut when it is read: reading belongs to it.
                small.spec.tensors().iter().try_for_each(|it| small.weights.f32(&it.name).map(drop))?;
                if arm == ALL {
                    seconds = seconds.max(start.elapsed().as_secs_f64());
                    off = off.max(difference([&trained.masked(shape)?, &small], &text[0])?);
                    let taken = trained.smol.choose(&trained.elastic.features(shape), None).taken;
                    gates.push(taken.iter().map(|it| it.0).collect::<Vec<_>>());
                }
                losses.push(mean_loss(&small, &held_out)?);
            }
        }
    }
    let elastic = Elastic::of_parts(&whole, settings, Vec::new(), Vec::new(), Vec::new())?;
    let mut evidence = Evidence::new(NUMBER, lab.seed(), format!("{}, {SHARED}", label(&elastic, shapes[0])));
    let mean = |values: &[f64]| mean_and_error(values).0;
    for (at, &shape) in shapes.iter().enumerate() {
        let size = parameters[at] as f64;
        let name = label(&elastic, shape);
        let mut add = |what: &str, values: &[f64]| {
            let (mean, error) = mean_and_error(values);
            let row = Row::new(format!("{name}, {what}")).with(LOSS, mean, "nats a letter");
            evidence.rows.push(row.with("standard error", error, "nats").with("parameters", size, ""));
        };
        add("cut and not trained", &untrained[at][0]);
        if shape.width > 0 {
            add("cut and not trained, no biases for what left", &untrained[at][1]);
        }
        for (arm, losses) in arms.into_iter().zip(&losses) {
            add(arm, &losses[at]);
        }
    }
    expect_depths(&mut evidence, &by_depth, plan);
    let last = shapes.len() - 1;
    let [small_shared, small_all] = [1, 2].map(|arm| mean(&losses[arm][last]));
    evidence.expect(
        "the smallest shape ends at least 1 % lower than with one adapter and losses as they are",
        format!(
            "{small_all:.4} against {small_shared:.4}, {:+.2} %",
            (small_all / small_shared - 1.0) * 100.0
        ),
        small_all <= 0.99 * small_shared,
    );
    let [large_shared, large_all] = [1, 2].map(|arm| mean(&losses[arm][0]));
    evidence.expect(
        "the largest shape is not more than 2 % worse than there",
        format!("{large_all:.4} against {large_shared:.4}"),
        large_all <= 1.02 * large_shared,
    );
    let ratios: Vec<f64> =
        losses[2].iter().zip(&losses[0]).map(|(all, each)| mean(all) / mean(each)).collect();
    evidence.expect(
        "every compared shape is within 5 % of what a run for it alone gives",
        format!("{} times its loss, largest shape first", listed(&ratios)),
        ratios.iter().all(|ratio| *ratio <= 1.05),
    );
    let [with, without] = [0, 1].map(|at| mean(&untrained[last][at]));
    evidence.expect(
        "before training, biases for what left make the smallest shape better",
        format!("{with:.4} against {without:.4}"),
        with < without,
    );
    evidence.expect("a shape is cut out in less than 2 s", format!("{seconds:.3} s at most"), seconds < 2.0);
    evidence.expect(
        "logits of a cut model equal the masked one's to 1e-4 of the largest",
        format!("{off:.1e}"),
        off <= 1e-4,
    );
    let different = gates.chunks(shapes.len()).filter(|own| own.iter().any(|it| *it != own[0])).count();
    let every = elastic.settings.widths.len() * (elastic.settings.most_removed + 1);
    evidence.notes = vec![
        format!(
            "A model of letters with {} layers, {} wide, {} parameters, trained from nothing for {} steps of 1024 letters ({:.4} nats a letter held \
             out), of which {every} shapes can be cut; {} seeds, each with text of its own. Each run has {} steps of 1024 letters. A step of a run for \
             all shapes has four shapes, so it costs as much as the {} runs for the compared shapes, and would cost {every} runs for all.",
            plan.layers,
            plan.hidden,
            whole.spec.parameters(),
            plan.steps[0],
            mean_loss(&whole, &held_out)?,
            plan.seeds,
            plan.steps[1],
            shapes.len(),
        ),
        "Adapters on all matrices of the layers: five of rank 4, of which a shape takes two; where there is one it has rank 8.".into(),
        format!("The gate takes different adapters for different shapes in {different} of {} runs.", plan.seeds),
        "Depths are chosen by the loss on text; choice by answers to knowledge questions, and a table of a device's latencies, weren't measured.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn expect_depths(evidence: &mut Evidence, by_depth: &[[f64; 4]], plan: &Plan) {
    for (way, name) in WAYS.iter().enumerate() {
        let most = plan.layers / 2;
        let own: Vec<f64> = by_depth.iter().skip(most - 1).step_by(most).map(|it| it[way]).collect();
        let (mean, error) = mean_and_error(&own);
        let row = Row::new(format!("{most} layers gone, chosen {name}, not trained")).with(
            LOSS,
            mean,
            "nats a letter",
        );
        evidence.rows.push(row.with("standard error", error, "nats"));
    }
    let won = |way: usize| by_depth.iter().filter(|it| it[0] <= it[way] + 1e-9).count();
    let all = by_depth.iter().filter(|it| it[1..].iter().all(|other| it[0] <= other + 1e-9)).count();
    evidence.expect(
        "the sets of layers by dynamic programming are at least as good, held out, as greedy, last and evenly spread ones for 80 % of depths",
        format!(
            "{all} of {}; against each alone {}, {} and {}",
            by_depth.len(),
            won(1),
            won(2),
            won(3)
        ),
        all as f64 >= 0.8 * by_depth.len() as f64,
    );
}
