//! Training on 40 % by CDAS beside 40 % at random and all, at equal passes over what was selected.

use std::sync::Arc;
use std::time::Instant;

use ounce_eval::method::{Evidence, Lab, Row};
use ounce_eval::stats::mean_and_error;
use rand::seq::SliceRandom;
use rand::{SeedableRng, seq::index};
use rand_chacha::ChaCha8Rng;

use super::tasks::{BEGIN, Kind, Task, VOCABULARY, corpus, language};
use crate::config::{Model, Preset};
use crate::data::encode::Sequence;
use crate::data::select::{Judgement, SelectSettings, centre, judge, select};
use crate::data::{BatchSize, Cache, Documents, Packing, SampleSettings, SampleStream};
use crate::methods::workbench::{Logits, batches, cosine, fit, likeliest};
use crate::net::{Net, Options};
use crate::{Error, IGNORE, Result};

/// The row that others are compared with.
pub(super) const ALL: &str = "all records";
const RANDOM: &str = "40 % at random";
const CDAS: &str = "40 % by CDAS";

/// How large everything is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    hidden: usize,
    layers: usize,
    /// Sequences that the model reads before it is tuned.
    language: usize,
    /// Records of the instruction data.
    records: usize,
    /// Tasks of each kind to be solved afterwards.
    tests: usize,
    epochs: u64,
    /// Instruction sets, each with a selection and trainings of its own.
    repeats: u64,
}

impl Scale {
    /// Of the stored evidence.
    pub const WHOLE: Scale =
        Scale { hidden: 96, layers: 3, language: 50_000, records: 4000, tests: 200, epochs: 3, repeats: 3 };
}

/// Sequences of a step.
const BATCH: usize = 32;
/// Highest learning rates of the first training and of tuning.
const RATES: [f64; 2] = [3e-3, 5e-4];

/// A way to choose records, and what came of it in each repeat.
struct Way {
    label: &'static str,
    solved: Vec<f64>,
    by_kind: [Vec<f64>; 3],
    mismatched: Vec<f64>,
    seconds: Vec<f64>,
    records: Vec<f64>,
}

/// Trains and compares.
pub(super) fn measure(lab: &dyn Lab, scale: &Scale, evidence: &mut Evidence) -> Result<()> {
    let seed = lab.seed();
    lab.progress("training a model on the language", 0.0);
    let base = pretrained(seed, scale)?;
    let mut ways = [ALL, RANDOM, CDAS].map(|label| Way {
        label,
        solved: Vec::new(),
        by_kind: Default::default(),
        mismatched: Vec::new(),
        seconds: Vec::new(),
        records: Vec::new(),
    });
    let mut judging = Vec::new();
    for repeat in 0..scale.repeats {
        let mut random = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(1000) + repeat + 1);
        let tasks = corpus(scale.records, &mut random);
        let tests = [Kind::Easy, Kind::Medium, Kind::Hard]
            .map(|kind| (0..scale.tests).map(|_| Task::of(kind, &mut random)).collect::<Vec<Task>>());
        let start = Instant::now();
        let judgements = judged(&base, &tasks)?;
        judging.push(start.elapsed().as_secs_f64());
        let settings = SelectSettings { seed: seed + repeat, ..SelectSettings::default() };
        let hard = by_cdas(judgements, &settings)?;
        let count = (settings.ratio * tasks.len() as f64) as usize;
        let mut drawn = index::sample(&mut random, tasks.len(), count).into_vec();
        drawn.shuffle(&mut random);
        let chosen = [(0..tasks.len()).collect(), drawn, hard];
        for (at, (way, chosen)) in ways.iter_mut().zip(&chosen).enumerate() {
            let done = (repeat as f64 + at as f64 / 3.0) / scale.repeats as f64;
            lab.progress(way.label, 0.3 + 0.6 * done);
            way.run(&base, &tasks, chosen, &tests, seed + repeat, scale.epochs)?;
        }
    }
    let (judging, _) = mean_and_error(&judging);
    report(&ways, judging, evidence);
    Ok(())
}

impl Way {
    /// Trains a copy of the base on the chosen tasks and sees what it solves.
    fn run(
        &mut self,
        base: &Net,
        tasks: &[Task],
        chosen: &[usize],
        tests: &[Vec<Task>; 3],
        seed: u64,
        epochs: u64,
    ) -> Result<()> {
        let mut net = Net::from_model(&base.model()?, Options::default())?;
        let own: Vec<Sequence> = chosen.iter().map(|&task| tasks[task].sequence()).collect();
        let mut source = stream(&own, seed, Some(epochs))?;
        let steps = (own.len() as u64 * epochs).div_ceil(BATCH as u64);
        self.seconds.push(fit(&mut net, &mut source, cosine(RATES[1], steps))?);
        self.records.push(chosen.len() as f64);
        let wrong = chosen.iter().filter(|&&task| tasks[task].kind == Kind::Mismatched).count();
        self.mismatched.push(wrong as f64 / chosen.len() as f64);
        let mut sum = 0.0;
        for (tests, values) in tests.iter().zip(&mut self.by_kind) {
            let share = solved(&mut net, tests)?;
            values.push(100.0 * share);
            sum += share;
        }
        self.solved.push(100.0 * sum / 3.0);
        Ok(())
    }
}

fn report(ways: &[Way; 3], judging: f64, evidence: &mut Evidence) {
    for way in ways {
        let (solved, error) = mean_and_error(&way.solved);
        let mean = |values: &[f64]| mean_and_error(values).0;
        let row = Row::new(way.label)
            .with("tasks solved", solved, "%")
            .with("standard error", error, "points")
            .with("easy", mean(&way.by_kind[0]), "%")
            .with("medium", mean(&way.by_kind[1]), "%")
            .with("hard", mean(&way.by_kind[2]), "%")
            .with("records", mean(&way.records), "")
            .with("mismatched among them", 100.0 * mean(&way.mismatched), "%")
            .with("training", mean(&way.seconds), "s");
        let row = if way.label == CDAS { row.with("judging all records", judging, "s") } else { row };
        evidence.rows.push(row);
    }
    let mean = |values: &[f64]| mean_and_error(values).0;
    let [all, random, cdas] = ways;
    let each = |a: &Way, b: &Way| {
        let pairs = a.solved.iter().zip(&b.solved).map(|(a, b)| format!("{:+.1}", a - b));
        pairs.collect::<Vec<_>>().join(", ")
    };
    let gain = mean(&cdas.solved) - mean(&random.solved);
    evidence.expect(
        "CDAS solves at least 2 points more than 40 % at random (more records: CDAS takes 40 % of what fits in each group)",
        format!("{gain:+.1} points ({})", each(cdas, random)),
        gain >= 2.0,
    );
    let loss = mean(&cdas.solved) - mean(&all.solved);
    evidence.expect(
        "CDAS solves at most 1 point less than all records",
        format!("{loss:+.1} points ({})", each(cdas, all)),
        loss >= -1.0,
    );
    let time = mean(&cdas.seconds) / mean(&all.seconds);
    evidence.expect(
        "training takes at most 45 % of the time of all records (judging apart)",
        format!("{:.1} %", 100.0 * time),
        time <= 0.45,
    );
    let (wrong, base) = (mean(&cdas.mismatched), mean(&all.mismatched));
    evidence.expect(
        "the share of mismatched records is less than half of what it was",
        format!("{:.1} % of {:.1} %", 100.0 * wrong, 100.0 * base),
        wrong < 0.5 * base,
    );
}

/// A model that has read the language.
fn pretrained(seed: u64, scale: &Scale) -> Result<Net> {
    let shape = Model {
        preset: Preset::Llama,
        hidden: scale.hidden,
        layers: scale.layers,
        heads: 4,
        context: 32,
        ..Model::default()
    };
    let mut net = Net::random(&shape.bare(VOCABULARY)?, Options::default(), shape.initial(), seed)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut read = language(scale.language, &mut random);
    read.iter_mut().for_each(|sequence| sequence.counts = vec![true; sequence.ids.len()]);
    let steps = (read.len() / BATCH) as u64;
    fit(&mut net, &mut stream(&read, seed, None)?, cosine(RATES[0], steps))?;
    Ok(net)
}

fn stream(sequences: &[Sequence], seed: u64, epochs: Option<u64>) -> Result<SampleStream> {
    let pairs = sequences.iter().map(|it| (it.ids.as_slice(), it.counts.as_slice()));
    let cache = Cache::in_memory_masked(pairs, VOCABULARY as u32, false)?;
    let settings = SampleSettings {
        context: 32,
        size: BatchSize::Samples(BATCH),
        seed,
        shuffle: true,
        epochs,
        packing: Packing::None,
        isolated: true,
        pad: BEGIN,
    };
    SampleStream::new(Documents::all(Arc::new(cache)), settings)
}

fn judged(base: &Net, tasks: &[Task]) -> Result<Vec<Judgement>> {
    let mut net = Net::with_frozen(&base.model()?, Options::default(), &|_| false)?;
    let mut all = Vec::with_capacity(tasks.len());
    for tasks in tasks.chunks(256) {
        let sequences: Vec<Sequence> = tasks.iter().map(Task::sequence).collect();
        for judgement in judge(&mut net, &sequences, Some(BEGIN))? {
            let none = || Error::Settings("a task has a question and an answer".to_string());
            all.push(judgement.ok_or_else(none)?);
        }
    }
    Ok(all)
}

fn by_cdas(mut judgements: Vec<Judgement>, settings: &SelectSettings) -> Result<Vec<usize>> {
    let mut vectors: Vec<Vec<f32>> = judgements.iter_mut().map(|it| std::mem::take(&mut it.vector)).collect();
    centre(&mut vectors);
    let embed = |task: usize| Ok(vectors[task].clone());
    let selection = select(judgements.len(), |task| Ok(judgements[task].loss), embed, settings)?;
    Ok(selection.kept)
}

/// The share of tasks whose whole answer is the likeliest, token by token: what greedy decoding would write.
fn solved(net: &mut Net, tasks: &[Task]) -> Result<f64> {
    let sequences: Vec<Sequence> = tasks.iter().map(Task::sequence).collect();
    let (mut right, mut count) = (0, 0);
    for batch in batches(&mut stream(&sequences, 1, Some(1))?)? {
        let mut logits = Logits::default();
        net.run(&batch, None, &mut logits)?;
        let mut rows = logits.0.chunks_exact(VOCABULARY);
        let mut at = 0;
        for length in &batch.lengths {
            let targets = &batch.targets[at..at + length];
            let mut whole = true;
            for target in targets.iter().filter(|target| **target != IGNORE) {
                whole &= rows.next().is_some_and(|row| likeliest(row) == *target);
            }
            right += usize::from(whole);
            count += 1;
            at += length;
        }
    }
    Ok(f64::from(right as u32) / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_work_on_a_tiny_model() {
        let scale =
            Scale { hidden: 32, layers: 1, language: 640, records: 300, tests: 10, epochs: 1, repeats: 1 };
        let mut base = pretrained(1, &scale).unwrap();
        let tasks = corpus(scale.records, &mut ChaCha8Rng::seed_from_u64(2));
        let judgements = judged(&base, &tasks).unwrap();
        assert!(judgements.iter().all(|it| it.loss.ifd().is_finite() && it.tokens >= 4));
        let kept = by_cdas(judgements, &SelectSettings { clusters: 3, ..Default::default() }).unwrap();
        assert!(kept.len() <= 120 && kept.windows(2).all(|pair| pair[0] < pair[1]), "{}", kept.len());
        assert!((0.0..0.2).contains(&solved(&mut base, &tasks[..20]).unwrap()), "it can't yet");
        // It learns a few by heart.
        let few: Vec<Sequence> = tasks[..4].iter().map(Task::sequence).collect();
        fit(&mut base, &mut stream(&few, 1, None).unwrap(), cosine(1e-2, 150)).unwrap();
        assert_eq!(solved(&mut base, &tasks[..4]).unwrap(), 1.0);
    }
}
