//! Measures EchoAtt on a model of letters with eight layers: half of them copy, and relearn in different ways with the same steps.

use std::time::Instant;

use ounce_engine::{Engine, Mode};
use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::mean_and_error;
use ounce_model::Model;
use ounce_train::Batch;

use super::NUMBER;
use super::heal::{Options, heal};
use super::similarity::{similarity, sources};
use super::student::{Student, dropped};
use crate::Result;
use crate::prune::gradual;
use crate::prune::learning::mean_loss;
use crate::prune::structured::choose::keep_layers;
use crate::prune::structured::influence::influence;
use crate::prune::workbench::{Letters, listed};

const LOSS: &str = "held-out loss";
const ONWARD: &str = "teacher, trained on by the text";
const UNHEALED: &str = "copying, not healed";
const TEXT: &str = "copying, healed by the text alone";
const TWO: &str = "copying, healed in two stages";
const UNLIKE: &str = "copying what is least alike, healed in two stages";
const DROPPED: &str = "one layer less, healed in two stages";

/// Letters of a sequence.
const CONTEXT: usize = 256;

/// Passes to compare speeds.
const SPEED_RUNS: usize = 15;

/// How much is done.
pub(super) struct Plan {
    pub seeds: usize,
    pub layers: usize,
    pub copies: usize,
    pub hidden: usize,
    /// Steps of the teacher, of the first stage and of the second.
    pub steps: [u64; 3],
    pub bytes: usize,
    pub held_out: usize,
}

impl Plan {
    fn full() -> Plan {
        Plan {
            seeds: 3,
            layers: 8,
            copies: 4,
            hidden: 48,
            steps: [1000, 90, 45],
            bytes: 400_000,
            held_out: 40_000,
        }
    }
}

/// The demonstration of the catalogue's entry.
pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, &Plan::full()).map_err(DemonstrationError::step(NUMBER, "letting layers share attention"))
}

/// Seconds of networks for passes over the same batch in turn, the least of several each; `train` with the way back.
fn seconds(students: &mut [Student], batch: &Batch, train: bool) -> Result<Vec<f64>> {
    let mut least = vec![f64::INFINITY; students.len()];
    for _ in 0..SPEED_RUNS {
        for (student, least) in students.iter_mut().zip(&mut least) {
            let start = Instant::now();
            student.run(batch, train.then_some(1.0))?;
            *least = least.min(start.elapsed().as_secs_f64());
        }
    }
    Ok(least)
}

/// Of models in the engine, in turn: least seconds of a prompt of all but the last of these letters, of the last behind them, and bytes of the cache.
fn engine_costs(models: &[Model], ids: &[u32]) -> Result<[Vec<f64>; 3]> {
    let engines: Vec<Engine> =
        models.iter().map(|model| Engine::load(model, Mode::fast())).collect::<Result<_, _>>()?;
    let mut found = [0; 3].map(|_| vec![f64::INFINITY; models.len()]);
    let (prompt, last) = ids.split_at(ids.len() - 1);
    for _ in 0..20 * SPEED_RUNS {
        for (at, engine) in engines.iter().enumerate() {
            let mut session = engine.session();
            let start = Instant::now();
            session.feed(prompt, |_| {})?;
            let behind = start.elapsed().as_secs_f64();
            session.feed(last, |_| {})?;
            let all = start.elapsed().as_secs_f64();
            let costs = [behind, all - behind, session.cache_bytes() as f64];
            found.iter_mut().zip(costs).for_each(|(least, cost)| least[at] = least[at].min(cost));
        }
    }
    Ok(found)
}

pub(super) fn measure(lab: &dyn Lab, plan: &Plan) -> Result<Evidence> {
    let letters = Letters::new(lab, plan.seeds + 1, plan.bytes, plan.held_out, CONTEXT);
    lab.progress("training the teacher", 0.0);
    let teacher = letters.model(lab, plan.hidden, plan.layers, CONTEXT)?;
    let Letters { parts, held_out, .. } = letters;
    let dense = |steps: u64, rate: f64, seed: u64| gradual::Options {
        steps,
        tokens: 1024,
        rate,
        schedule: None,
        seed,
    };
    let teacher = gradual::train(
        &teacher,
        &parts[plan.seeds],
        &dense(plan.steps[0], 6e-3, lab.seed()),
        &mut |_, _| Ok(()),
    )?;
    let original = mean_loss(&teacher, &held_out)?;
    let arms = [ONWARD, UNHEALED, TEXT, TWO, UNLIKE, DROPPED];
    let mut losses: Vec<Vec<f64>> = vec![Vec::new(); arms.len()];
    let mut found: Vec<[Vec<usize>; 2]> = Vec::new();
    let mut matrices = Vec::new();
    let total = plan.steps[1] + plan.steps[2];
    let mut smaller = 0;
    for (seed, text) in parts[..plan.seeds].iter().enumerate() {
        let worth = similarity(&teacher, &text[..text.len().min(4)], &mut |_, _| Ok(()))?;
        let unlike: Vec<Vec<f64>> = worth.iter().map(|row| row.iter().map(|it| -it).collect()).collect();
        let chosen = [sources(&worth, 1, plan.copies)?, sources(&unlike, 1, plan.copies)?];
        let number = lab.seed() + seed as u64;
        for (at, arm) in arms.into_iter().enumerate() {
            let done = 0.12 + 0.88 * (seed * arms.len() + at) as f64 / (plan.seeds * arms.len()) as f64;
            lab.progress(&format!("seed {}: {arm}", seed + 1), done);
            let options = Options {
                steps: [plan.steps[1], plan.steps[2]],
                tokens: 1024,
                seed: number,
                ..Options::default()
            };
            let taught = |model: &Model, sources: &[usize], steps: [u64; 2]| -> Result<f64> {
                let mut student = Student::new(model, sources)?;
                if steps != [0, 0] {
                    heal(&mut student, &teacher, text, &Options { steps, ..options }, &mut |_, _| Ok(()))?;
                }
                student.loss(&held_out)
            };
            let own: Vec<usize> = (0..plan.layers).collect();
            losses[at].push(match arm {
                ONWARD => taught(&teacher, &own, [0, total])?,
                UNHEALED => taught(&teacher, &chosen[0], [0, 0])?,
                TEXT => taught(&teacher, &chosen[0], [0, total])?,
                TWO => taught(&teacher, &chosen[0], options.steps)?,
                UNLIKE => taught(&teacher, &chosen[1], options.steps)?,
                _ => {
                    let turned =
                        influence(&teacher, text[..text.len().min(16)].to_vec(), &mut |_, _| Ok(()))?;
                    let less = keep_layers(&teacher.spec, &turned, plan.layers - 1)?.apply(&teacher)?;
                    smaller = less.spec.parameters();
                    taught(&less, &own[..plan.layers - 1], options.steps)?
                }
            });
        }
        matrices.push(worth);
        found.push(chosen);
    }
    let whole = teacher.spec.parameters();
    let gone = dropped(&teacher.spec, &found[0][0]);
    let mut evidence = Evidence::new(NUMBER, lab.seed(), TEXT);
    evidence.rows.push(Row::new("teacher").with(LOSS, original, "nats a letter").with(
        "parameters",
        whole as f64,
        "",
    ));
    for (arm, losses) in arms.into_iter().zip(&losses) {
        let (mean, error) = mean_and_error(losses);
        let parameters = match arm {
            ONWARD => whole,
            DROPPED => smaller,
            _ => whole - gone,
        };
        let row = Row::new(arm).with(LOSS, mean, "nats a letter").with("standard error", error, "nats");
        evidence.rows.push(row.with("parameters", parameters as f64, ""));
    }
    expect(&mut evidence, original, &losses);
    let mut pair = [(0..plan.layers).collect::<Vec<_>>(), found[0][0].clone()]
        .map(|sources| Student::new(&teacher, &sources))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let batch = Batch::next_token(held_out[..held_out.len().min(8)].iter().map(Vec::as_slice));
    let forward = seconds(&mut pair, &batch, false)?;
    let training = seconds(&mut pair, &batch, true)?;
    let models = [teacher.clone(), pair[1].model()?];
    let [prompt, token, cache] = engine_costs(&models, &held_out[0])?;
    let saved = |times: &[f64]| (1.0 - times[1] / times[0]) * 100.0;
    evidence.expect(
        "a token behind 255 others takes at least 8 % less time in the engine",
        format!(
            "{:.1} % less; a prompt of 255 tokens {:.1} % less; in the training network a pass {:.1} % less, a step {:.1} % less",
            saved(&token),
            saved(&prompt),
            saved(&forward),
            saved(&training)
        ),
        saved(&token) >= 8.0,
    );
    // Values are kept in whole sixteens of a head's dimensions.
    let dim = plan.hidden / 4;
    let of_keys = dim as f64 / (dim + dim.next_multiple_of(16)) as f64;
    let keys = 100.0 * of_keys * plan.copies as f64 / plan.layers as f64;
    evidence.expect(
        "the cache shrinks by the keys of the layers that copy",
        format!("{:.2} % less of keys and values, where {keys:.2} % are keys of such layers", saved(&cache)),
        (saved(&cache) - keys).abs() < 0.01,
    );
    let expected = 2 * plan.copies as u64 * (plan.hidden * plan.hidden) as u64;
    evidence.expect(
        "parameters fall by 2 d² for each layer that copies",
        format!("{gone} of {whole}"),
        gone == expected,
    );
    notes(&mut evidence, plan, &matrices, &found);
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn expect(evidence: &mut Evidence, original: f64, losses: &[Vec<f64>]) {
    let mean = |arm: usize| mean_and_error(&losses[arm]).0;
    let ratio = |arm: usize| (mean(arm) - original).exp();
    evidence.expect(
        "healed in two stages, perplexity is at most 1.05 times the teacher's",
        format!("{:.4} times; the teacher trained on as long: {:.4} times", ratio(3), ratio(0)),
        ratio(3) <= 1.05,
    );
    for (arm, what) in [
        (2, "healed by the text alone"),
        (5, "with one layer less"),
        (4, "where what is least alike is copied"),
    ] {
        evidence.expect(
            format!("healed in two stages, the loss is lower than {what}"),
            format!(
                "{:.4} against {:.4}; by seed {} against {}",
                mean(3),
                mean(arm),
                listed(&losses[3]),
                listed(&losses[arm])
            ),
            mean(3) < mean(arm),
        );
    }
}

fn notes(evidence: &mut Evidence, plan: &Plan, matrices: &[Vec<Vec<f64>>], found: &[[Vec<usize>; 2]]) {
    let neighbours: Vec<f64> = (1..plan.layers)
        .map(|layer| {
            matrices.iter().map(|it| it[layer - 1][layer]).sum::<f64>() / matrices.len().max(1) as f64
        })
        .collect();
    let all: Vec<f64> = matrices
        .iter()
        .flat_map(|matrix| {
            (0..plan.layers).flat_map(move |a| (a + 1..plan.layers).map(move |b| matrix[a][b]))
        })
        .collect();
    let share = 100.0 * plan.copies as f64 / plan.layers as f64;
    evidence.notes = vec![
        format!(
            "A model of letters with {} layers, {} wide, trained from nothing for {} steps of 1024 letters, is the teacher; it has not learned all it can, so \
             that training on by the text alone helps every arm. {} layers copy, none of them the first or last. Healing: {} steps by the teacher and {} by the \
             text of 1024 letters, or all by the text; {} seeds, each with text of its own.",
            plan.layers, plan.hidden, plan.steps[0], plan.copies, plan.steps[1], plan.steps[2], plan.seeds
        ),
        format!(
            "Mean cosine between the attention of neighbouring layers: {}; of all pairs {:.4}. Sources of the layers with the first seed: {:?}; the least alike {:?}.",
            listed(&neighbours),
            mean_and_error(&all).0,
            found[0][0],
            found[0][1]
        ),
        format!(
            "Shared are queries and keys; the matrix is computed from them again in each layer. The cache of keys is {share:.0} % smaller. Times are the least of many runs in turn."
        ),
    ];
}
