//! Measures the plug-ins of LLaMA-Reviewer: LoRA and gated prefixes on one frozen model, one for each task of a reviewer, with and
//! without instructions before.

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::{mean_and_error, mean_of};
use ounce_kernels::pool::Pool;
use ounce_model::Model;
use ounce_train::config::{self, Preset};
use ounce_train::methods::workbench::cosine;
use ounce_train::net::{Net, Options as NetOptions};
use ounce_train::optim::norm::{clip_factor, global_norm};
use ounce_train::optim::{self, Optimizer};
use ounce_train::{Batch, Trainable};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::NUMBER;
use super::review::{Asked, TASKS, Task, VOCABULARY, batch, clean, instructions, questions, right};
use crate::{Adapted, Kind, Result, Settings};

/// Sizes of the demonstration.
pub(super) struct Scale {
    pub width: usize,
    pub base: u64,
    pub general: u64,
    pub steps: u64,
    pub examples: usize,
    pub judged: usize,
    pub seeds: u64,
}

pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let scale = Scale { width: 64, base: 300, general: 60, steps: 90, examples: 600, judged: 120, seeds: 3 };
    measure(lab, &scale).map_err(DemonstrationError::step(NUMBER, "adapting a small model of code"))
}

/// Sequences of a step.
const SEQUENCES: usize = 12;

/// Plug-ins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Lora(usize),
    Prefix,
    Whole,
}

const WAYS: [Way; 4] = [Way::Lora(4), Way::Lora(16), Way::Prefix, Way::Whole];

impl Way {
    fn label(self) -> String {
        match self {
            Way::Lora(rank) => format!("LoRA of rank {rank}"),
            Way::Prefix => "gated prefixes".into(),
            Way::Whole => "all weights".into(),
        }
    }

    fn rate(self) -> f64 {
        match self {
            Way::Lora(_) => 1e-2,
            Way::Prefix => 2e-2,
            Way::Whole => 2e-3,
        }
    }

    /// The model with a new plug-in, or with all weights to learn.
    fn network(self, model: &Model, seed: u64) -> Result<Box<dyn Judged>> {
        Ok(match self {
            Way::Whole => Box::new(Net::from_model(model, NetOptions::default())?),
            Way::Lora(rank) => {
                let settings = Settings { rank, alpha: 2.0 * rank as f64, seed, ..Settings::default() };
                Box::new(Adapted::new(model, &settings, NetOptions::default())?)
            }
            Way::Prefix => {
                let settings = Settings { layers: 2, tokens: 10, seed, ..Settings::of(Kind::GatedPrefix) };
                Box::new(Adapted::new(model, &settings, NetOptions::default())?)
            }
        })
    }
}

/// A network whose answers can be looked at.
trait Judged: Trainable {
    fn answers(&mut self, batch: &Batch) -> Result<Vec<f32>>;
}

impl Judged for Adapted {
    fn answers(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        self.logits(batch)
    }
}

impl Judged for Net {
    fn answers(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        // As it stands, with nothing beside it that changes anything.
        let nothing = Settings { rank: 1, ..Settings::default() };
        Adapted::new(&self.model()?, &nothing, NetOptions::default())?.logits(batch)
    }
}

fn train(net: &mut dyn Trainable, rate: f64, steps: u64, next: &mut dyn FnMut() -> Batch) -> Result<()> {
    let options = optim::Options { weight_decay: 0.0, ..optim::Options::default() };
    let mut optimizer = Optimizer::new(options, net.params())?;
    let schedule = cosine(rate, steps);
    for step in 0..steps {
        let batch = next();
        net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        let loss = net.accumulate(&batch, 1.0 / batch.counted().max(1) as f32)?;
        let clip = clip_factor(global_norm(Pool::global(), net.params()), Some(1.0));
        optimizer.step(net.params_mut(), schedule.rate(step), clip);
        net.stepped(loss.mean());
    }
    Ok(())
}

/// Draws batches of questions.
fn drawn(asked: &[Asked], seed: u64) -> impl FnMut() -> Batch + '_ {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    move || {
        let some: Vec<&Asked> = (0..SEQUENCES).map(|_| &asked[random.random_range(0..asked.len())]).collect();
        batch(some.into_iter())
    }
}

/// In percent: F1 of whether a review is needed, whole answers that are right of the other tasks.
fn score(net: &mut dyn Judged, task: Task, asked: &[Asked]) -> Result<f64> {
    let mut found = Vec::new();
    for some in asked.chunks(40) {
        let batch = batch(some.iter());
        found.extend(right(&net.answers(&batch)?, &batch));
    }
    if task != Task::Necessity {
        return Ok(100.0 * mean_of(&found, |right| f64::from(u8::from(*right))));
    }
    let count = |needed: bool, right: bool| {
        asked.iter().zip(&found).filter(|(it, found)| it.needed == needed && **found == right).count() as f64
    };
    let (hit, missed, alarm) = (count(true, true), count(true, false), count(false, false));
    Ok(100.0 * 2.0 * hit / (2.0 * hit + missed + alarm).max(1.0))
}

/// A model that has learned the language of clean snippets.
fn base(scale: &Scale, seed: u64) -> Result<Model> {
    let shape = config::Model {
        preset: Preset::Llama,
        hidden: scale.width,
        layers: 3,
        heads: (scale.width / 16).max(1),
        context: 128,
        ..config::Model::default()
    };
    let mut net =
        Net::random(&shape.architecture(VOCABULARY, [])?, NetOptions::default(), shape.initial(), seed)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    train(&mut net, 5e-3, scale.base, &mut || {
        let texts = clean(&mut random, SEQUENCES);
        Batch::next_token(texts.iter().map(Vec::as_slice))
    })?;
    Ok(net.model()?)
}

pub(super) fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let first = lab.seed() * 1000;
    lab.progress("learning the language", 0.0);
    let model = base(scale, first)?;
    let mut random = ChaCha8Rng::seed_from_u64(first + 1);
    let general = instructions(&mut random, scale.examples);
    let learn: Vec<Vec<Asked>> =
        TASKS.iter().map(|task| questions(*task, &mut random, scale.examples)).collect();
    let judged: Vec<Vec<Asked>> =
        TASKS.iter().map(|task| questions(*task, &mut random, scale.judged)).collect();
    let mut evidence = Evidence::new(NUMBER, lab.seed(), label(Way::Whole, true));
    let mut found = Vec::new();
    let runs = (WAYS.len() * 2) as f64;
    let mut done = 0.0;
    for way in WAYS {
        for instructed in [false, true] {
            lab.progress(&label(way, instructed), 0.1 + 0.9 * done / runs);
            done += 1.0;
            let (mut scores, mut trained) = (vec![Vec::new(); TASKS.len()], 0);
            for seed in first..first + scale.seeds {
                for (at, task) in TASKS.into_iter().enumerate() {
                    let mut net = way.network(&model, seed)?;
                    trained = net.params().iter().map(|param| param.grad.len()).sum();
                    // Both have as many steps; the first stage takes its from the second.
                    let before = if instructed { scale.general } else { 0 };
                    train(&mut *net, way.rate(), before, &mut drawn(&general, seed))?;
                    train(
                        &mut *net,
                        way.rate(),
                        scale.steps - before.min(scale.steps / 3),
                        &mut drawn(&learn[at], seed),
                    )?;
                    scores[at].push(score(&mut *net, task, &judged[at])?);
                }
            }
            let mean = |at: usize| mean_and_error(&scores[at]).0;
            evidence.rows.push(
                Row::new(label(way, instructed))
                    .with("F1, review needed", mean(0), "%")
                    .with("comments right", mean(1), "%")
                    .with("refinements right", mean(2), "%")
                    .with("numbers trained", trained as f64, "")
                    .with("of the model's", 100.0 * trained as f64 / model.spec.parameters() as f64, "%"),
            );
            found.push((way, instructed, [mean(0), mean(1), mean(2)]));
        }
    }
    expect(&mut evidence, &found, &model, &judged[0])?;
    evidence.notes = vec![
        format!(
            "A Llama of three layers of width {} on letters, which learned clean snippets of a made-up language in {} steps; six kinds of \
             defects; {} examples a task, {} steps, means of {} seeds on {} questions a task. An answer is right if it is the likeliest \
             letter by letter, as writing greedily would find; comments are judged so and not by BLEU.",
            scale.width, scale.base, scale.examples, scale.steps, scale.seeds, scale.judged
        ),
        "The shares of numbers trained are those of a very small model. Serving three plug-ins from one model is not measured here."
            .into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn label(way: Way, instructed: bool) -> String {
    format!("{}, {}", way.label(), if instructed { "instructions first" } else { "the task alone" })
}

fn expect(
    evidence: &mut Evidence,
    found: &[(Way, bool, [f64; 3])],
    model: &Model,
    asked: &[Asked],
) -> Result<()> {
    let of = |way: Way, instructed: bool| {
        found.iter().find(|it| it.0 == way && it.1 == instructed).map_or([f64::NAN; 3], |it| it.2)
    };
    let whole = of(Way::Whole, true);
    let part = |scores: [f64; 3], at: usize| scores[at] >= 0.9 * whole[at];
    let said = |way: Way| {
        format!("{} {:.0}, {:.0}, {:.0}", way.label(), of(way, true)[0], of(way, true)[1], of(way, true)[2])
    };
    evidence.expect(
        "LoRA of rank 16 and gated prefixes reach at least 90 % of training all weights in F1 of whether a review is needed and in \
         right refinements.",
        format!("{}; {}; {}", said(Way::Lora(16)), said(Way::Prefix), said(Way::Whole)),
        [Way::Lora(16), Way::Prefix].into_iter().all(|way| part(of(way, true), 0) && part(of(way, true), 2)),
    );
    evidence.expect(
        "Comments of LoRA are right at least as often with instructions before.",
        format!("{:.1} against {:.1} %", of(Way::Lora(16), true)[1], of(Way::Lora(16), false)[1]),
        of(Way::Lora(16), true)[1] >= of(Way::Lora(16), false)[1],
    );
    evidence.expect(
        "Comments of LoRA are right at rank 16 at least as often as at rank 4.",
        format!("{:.1} against {:.1} %", of(Way::Lora(16), true)[1], of(Way::Lora(4), true)[1]),
        of(Way::Lora(16), true)[1] >= of(Way::Lora(4), true)[1],
    );
    let some = batch(asked.iter().take(8));
    let mut prefix = Way::Prefix.network(model, 1)?;
    let mut plain = Net::from_model(model, NetOptions::default())?;
    let (with, without) = (prefix.answers(&some)?, Judged::answers(&mut plain, &some)?);
    evidence.expect(
        "With its gates closed the model with prefixes gives the base's logits, bit by bit.",
        format!("{} of {} differ", with.iter().zip(&without).filter(|(a, b)| a != b).count(), with.len()),
        with == without,
    );
    Ok(())
}
