//! Measures PELA on the tiny built-in model, factorised to a half and a third of its layers' weights: repaired on general text,
//! then fine-tuned on two tasks, beside other ways to spend the same steps.

use std::sync::Arc;

use ounce_eval::method::{DemonstrationError, Evidence, Fixture, Lab, Row, Text};
use ounce_eval::stats::mean_of;
use ounce_model::Model;
use ounce_model::spec_tensors::is_factor;
use ounce_train::data::{BatchSource, Pieces, Position};
use ounce_train::distil::{Distilled, LiveTeacher, Options};
use ounce_train::loss::{DivergenceKind, Softness, TaidOptions};
use ounce_train::methods::workbench::{cosine, fit};
use ounce_train::net::{Init, Net};
use ounce_train::{Batch, Loss, Trainable};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::tasks::{Task, batch, tasks};
use super::{NUMBER, deviation};
use crate::Result;
use crate::lowrank::{Amount, factorise, plan};
use crate::quantize::demonstration::stories;

const ORIGINAL: &str = "original, fine-tuned";
const CUT: &str = "factorised, fine-tuned for all steps";
const TASK_LOSS: &str = "healed on the text alone";
const PELA: &str = "PELA";
const KL: &str = "healed on the original's predictions";
const SCRATCH: &str = "same size from random weights";

/// `ε` of the deviation, and its weight.
const SLACK: f64 = 1e-3;
const DEVIATION: f64 = 1.0;

/// Sizes of the demonstration.
struct Scale {
    text: usize,
    test: usize,
    heal: u64,
    tune: u64,
    seeds: u64,
    /// `k`: factors have `1/k` of the weights.
    ratios: Vec<u32>,
}

/// Learning rates of healing and of fine-tuning.
const HEAL_RATE: f64 = 2e-3;
const TUNE_RATE: f64 = 1e-3;

/// Sequences of a step.
const SEQUENCES: usize = 8;

pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let scale = Scale { text: 400_000, test: 30_000, heal: 100, tune: 30, seeds: 3, ratios: vec![2, 3] };
    measure(lab, &scale).map_err(DemonstrationError::step(NUMBER, "factorising the tiny built-in model"))
}

/// What a model came to.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    /// Loss on held-out tales before fine-tuning, nats a token.
    tales: f64,
    accuracy: [f64; 2],
}

struct Study<'s> {
    lab: &'s dyn Lab,
    scale: &'s Scale,
    model: Model,
    text: Arc<[Vec<u32>]>,
    test: Vec<Vec<u32>>,
    tasks: Vec<Task>,
}

fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let model = lab.model(Fixture::Tiny)?;
    let long = |ids: &Vec<u32>| ids.len() > 2;
    let text: Vec<Vec<u32>> =
        stories(&model, &lab.text(Text::Train, scale.text))?.into_iter().filter(long).collect();
    let test = stories(&model, &lab.text(Text::HeldOut, scale.test))?.into_iter().filter(long).collect();
    let tasks = tasks(&model, lab)?;
    let study = Study { lab, scale, model, text: text.into(), test, tasks };
    let mut evidence = Evidence::new(NUMBER, lab.seed(), ORIGINAL);
    let original = study.seeds(&mut |seed| {
        study.tuned(&mut Net::from_model(&study.model, Default::default())?, scale.tune, seed)
    })?;
    evidence.rows.push(row(ORIGINAL, &original, study.model.spec.parameters()));
    let share = 1.0 / scale.ratios.len() as f64;
    for (index, &k) in scale.ratios.iter().enumerate() {
        let begun = 0.05 + 0.95 * index as f64 * share;
        study.ratio(k, &original, (begun, 0.95 * share), &mut evidence)?;
    }
    evidence.notes = vec![
        format!(
            "The tiny built-in model; factors have 1/k of each matrix of its layers, token vectors stay whole, so the model as a whole \
             shrinks less. Means of {} seeds, which order what is learned. Healing has {} steps of {SEQUENCES} tales, fine-tuning {} \
             steps of {SEQUENCES} documents; who does not heal fine-tunes for both together.",
            scale.seeds, scale.heal, scale.tune
        ),
        "Accuracy is the part of right tokens among what is to be learned, on samples that were not shown: documents of a made-up \
         town, and sums in words."
            .into(),
        "Vision transformers and ALBEF, on which the paper measures, are out of reach here; times of products are method 116's.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn accuracy(found: &[Found]) -> f64 {
    mean_of(found, |it| (it.accuracy[0] + it.accuracy[1]) / 2.0)
}

fn row(label: &str, found: &[Found], parameters: u64) -> Row {
    let deviation = {
        let all = accuracy(found);
        let squares = mean_of(found, |it| ((it.accuracy[0] + it.accuracy[1]) / 2.0 - all).powi(2));
        squares.sqrt()
    };
    Row::new(label)
        .with("parameters", parameters as f64, "")
        .with("loss on tales before fine-tuning", mean_of(found, |it| it.tales), "nats")
        .with("accuracy, town", 100.0 * mean_of(found, |it| it.accuracy[0]), "%")
        .with("accuracy, sums", 100.0 * mean_of(found, |it| it.accuracy[1]), "%")
        .with("mean accuracy", 100.0 * accuracy(found), "%")
        .with("deviation between seeds", 100.0 * deviation, "points")
}

/// How a factorised model spends its first steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Nothing,
    Text,
    Pela,
    Predictions,
    Scratch,
}

impl Study<'_> {
    fn ratio(
        &self,
        k: u32,
        original: &[Found],
        (begun, share): (f64, f64),
        evidence: &mut Evidence,
    ) -> Result<()> {
        let chosen = plan(&self.model, Amount::Share(1.0 / f64::from(k)), &|_| true)?;
        let (thin, _) = factorise(&self.model, &chosen, None, &mut |_, _| Ok(()))?;
        let ways = [
            (CUT, Way::Nothing),
            (TASK_LOSS, Way::Text),
            (PELA, Way::Pela),
            (KL, Way::Predictions),
            (SCRATCH, Way::Scratch),
        ];
        let mut by_way = Vec::new();
        for (index, (label, way)) in ways.into_iter().enumerate() {
            let label = format!("k = {k}: {label}");
            self.lab.progress(&label, begun + share * index as f64 / ways.len() as f64);
            let found = self.seeds(&mut |seed| self.way(&thin, way, seed))?;
            evidence.rows.push(row(&label, &found, thin.spec.parameters()));
            by_way.push(found);
        }
        let [cut, text, pela, ..] = &by_way[..] else { unreachable!("five ways") };
        let said = |found: &[Found]| format!("{:.2} %", 100.0 * accuracy(found));
        evidence.expect(
            format!("k = {k}: PELA is at least as accurate as healing on the text alone, and that as fine-tuning only, within half a point."),
            format!("{}, {}, {}", said(pela), said(text), said(cut)),
            accuracy(pela) + 0.005 >= accuracy(text) && accuracy(text) + 0.005 >= accuracy(cut),
        );
        if k == 2 {
            evidence.expect(
                "At k = 2 PELA is within 2 points of the original.",
                format!("{} against {}", said(pela), said(original)),
                accuracy(pela) + 0.02 >= accuracy(original),
            );
        }
        Ok(())
    }

    fn seeds(&self, run: &mut dyn FnMut(u64) -> Result<Found>) -> Result<Vec<Found>> {
        (0..self.scale.seeds).map(|seed| run(self.lab.seed() * 100 + seed)).collect()
    }

    /// A factorised model's way through all steps.
    fn way(&self, thin: &Model, way: Way, seed: u64) -> Result<Found> {
        let Scale { heal, tune, .. } = *self.scale;
        let mut pieces = Pieces::new(self.text.clone(), SEQUENCES, seed, None)?;
        let schedule = cosine(HEAL_RATE, heal);
        let mut net = match way {
            Way::Scratch => Net::random(thin, Default::default(), Init::default(), seed)?,
            _ => Net::from_model(thin, Default::default())?,
        };
        let tuned = match way {
            Way::Nothing => heal + tune,
            Way::Text | Way::Scratch => {
                fit(&mut net, &mut pieces, schedule)?;
                tune
            }
            Way::Pela | Way::Predictions => {
                // The loss of the next token is the whole of what PELA compares predictions by.
                let (hard, features) = if way == Way::Pela { (1.0, 1.0) } else { (0.0, 0.0) };
                let options = Options { softness: Softness { temperature: 1.0, hard }, features };
                let near = deviation(&net, &self.model, DEVIATION, SLACK)?;
                let teacher = Net::with_frozen(&self.model, Default::default(), &|_| false)?;
                let kl = DivergenceKind::Kl.divergence(TaidOptions::default(), heal)?;
                let mut distilled = Distilled::new(net, Box::new(LiveTeacher(teacher)), kl, options)?;
                if way == Way::Pela {
                    distilled = distilled.with_weight_loss(near);
                }
                fit(&mut distilled, &mut pieces, schedule)?;
                net = distilled.into_student();
                tune
            }
        };
        debug_assert!(net.params().iter().any(|param| is_factor(&param.name)));
        self.tuned(&mut net, tuned, seed)
    }

    /// Judges on tales, then fine-tunes on each task by itself and judges on that.
    fn tuned(&self, net: &mut Net, steps: u64, seed: u64) -> Result<Found> {
        let mut found = Found { tales: self.tales(net)?, ..Found::default() };
        let begun = net.model()?;
        for (task, accuracy) in self.tasks.iter().zip(&mut found.accuracy) {
            let mut net = Net::from_model(&begun, Default::default())?;
            let mut samples = Samples::new(task, seed);
            fit(&mut net, &mut samples, cosine(TUNE_RATE, steps))?;
            *accuracy = task.accuracy(&mut net)?;
        }
        Ok(found)
    }

    fn tales(&self, net: &mut Net) -> Result<f64> {
        let mut sum = Loss::default();
        for documents in self.test.chunks(16) {
            sum += net.loss(&Batch::next_token(documents.iter().map(Vec::as_slice)))?;
        }
        Ok(sum.mean())
    }
}

/// A task's samples in a random order, for ever.
struct Samples<'t> {
    task: &'t Task,
    random: ChaCha8Rng,
    order: Vec<usize>,
}

impl<'t> Samples<'t> {
    fn new(task: &'t Task, seed: u64) -> Samples<'t> {
        Samples { task, random: ChaCha8Rng::seed_from_u64(seed), order: Vec::new() }
    }
}

impl BatchSource for Samples<'_> {
    fn next(&mut self) -> ounce_train::Result<Option<Batch>> {
        if self.order.len() < SEQUENCES {
            let mut more: Vec<usize> = (0..self.task.train.len()).collect();
            more.shuffle(&mut self.random);
            self.order.extend(more);
        }
        let drawn = self.order.split_off(self.order.len() - SEQUENCES);
        Ok(Some(batch(drawn.into_iter().map(|at| &self.task.train[at]))))
    }

    fn position(&self) -> Position {
        Position::default()
    }

    fn seek(&mut self, _: &Position) -> ounce_train::Result<()> {
        Ok(())
    }

    fn tokens_per_epoch(&self) -> u64 {
        0
    }
}
