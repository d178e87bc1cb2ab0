//! Two tasks on this crate's own source, learned in four ways, with the energy of every phase.

use ounce_compress::quantize::units;
use ounce_compress::{Error, Result};
use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_kernels::{DType, quant};
use ounce_model::{Model, Tensor};
use ounce_train::methods::workbench::cosine;
use ounce_train::net::{Net, Options};
use ounce_train::{Batch, IGNORE};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::meter::{Meter, Power, Reading, Source};
use super::site::{Site, break_even};
use super::{NUMBER, lora};
use crate::training::{Guidance, network, train, train_any};

/// What is learned from: files of this crate.
const SOURCES: [&str; 9] = [
    include_str!("../cod/cluster.rs"),
    include_str!("../cod/curve.rs"),
    include_str!("../cod/forecast.rs"),
    include_str!("../cod/mapping.rs"),
    include_str!("../cod/scores.rs"),
    include_str!("../density/law.rs"),
    include_str!("../density/rate.rs"),
    include_str!("../advisor/select.rs"),
    include_str!("../advisor/training.rs"),
];
/// What is asked about.
const HELD_OUT: [&str; 4] = [
    include_str!("../density/trend.rs"),
    include_str!("../density/score.rs"),
    include_str!("../density/table.rs"),
    include_str!("../advisor/claim.rs"),
];
/// Bytes before an answer, and of the longest answer.
const PROMPT: usize = 56;
const ANSWER: usize = 12;
/// Answers to choose between.
const CHOICES: usize = 4;
/// The highest learning rates, of new networks and of those that are tuned.
const RATE: f64 = 4e-3;
const TUNING_RATE: f64 = 2e-3;
/// The rank of adapters.
const RANK: usize = 4;
/// The label of the row that others are compared with.
const BASELINE: &str = "full tuning";

/// How large everything is.
struct Scale {
    big: usize,
    small: usize,
    pretraining: u64,
    tuning: u64,
    sequences: usize,
    /// Questions of each task at most.
    questions: usize,
    /// Times that all questions are asked, to time them.
    rounds: usize,
}

impl Scale {
    const FULL: Scale =
        Scale { big: 64, small: 32, pretraining: 400, tuning: 200, sequences: 16, questions: 150, rounds: 3 };
}

pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, &Scale::FULL).map_err(DemonstrationError::step(NUMBER, "learning two tasks on code"))
}

/// A question: what is known, and what is asked for.
#[derive(Debug, Clone, PartialEq)]
struct Item {
    prompt: Vec<u8>,
    answer: Vec<u8>,
}

/// The name of a function from what follows it: signature and body.
fn names(text: &str) -> Vec<Item> {
    let starts = text.match_indices("fn ").map(|(at, found)| at + found.len());
    let item = |start: usize| {
        let rest = text.as_bytes().get(start..)?;
        let end = rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'))?;
        let (name, behind) = rest.split_at(end);
        let prompt: Vec<u8> = behind.iter().copied().take(PROMPT - 1).chain([b'\n']).collect();
        let mut answer = name.to_vec();
        answer.truncate(ANSWER);
        (rest.get(end) == Some(&b'(') && name.len() > 2 && prompt.len() == PROMPT)
            .then_some(Item { prompt, answer })
    };
    starts.filter_map(item).collect()
}

/// The next line from what stands before it.
fn next_lines(text: &str) -> Vec<Item> {
    let bytes = text.as_bytes();
    let ends = (0..bytes.len()).filter(|&at| bytes[at] == b'\n' && at + 1 >= PROMPT);
    let item = |end: usize| {
        let line = bytes[end + 1..].split(|byte| *byte == b'\n').next()?;
        let start = line.iter().position(|byte| *byte != b' ')?;
        let mut answer = line[start..].to_vec();
        answer.truncate(ANSWER);
        (answer.len() >= 4).then(|| Item { prompt: bytes[end + 1 - PROMPT..=end].to_vec(), answer })
    };
    ends.filter_map(item).collect()
}

/// Tasks on sources, all bytes numbered.
struct Code {
    ids: [u32; 256],
    vocabulary: usize,
    text: Vec<u32>,
    lessons: Vec<Item>,
    /// Of each task: questions with their answers, the right one first.
    asked: [Vec<Vec<Item>>; 2],
}

impl Code {
    fn new(seed: u64, questions: usize) -> Code {
        let mut bytes: Vec<u8> = SOURCES.iter().chain(&HELD_OUT).flat_map(|text| text.bytes()).collect();
        bytes.sort_unstable();
        bytes.dedup();
        let mut ids = [0u32; 256];
        bytes.iter().zip(0..).for_each(|(&byte, id)| ids[usize::from(byte)] = id);
        let text = SOURCES.iter().flat_map(|text| text.bytes()).map(|byte| ids[usize::from(byte)]).collect();
        let lessons =
            SOURCES.iter().flat_map(|text| names(text).into_iter().chain(next_lines(text))).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut choices = |task: fn(&str) -> Vec<Item>| -> Vec<Vec<Item>> {
            let mut all: Vec<Item> = HELD_OUT.iter().flat_map(|text| task(text)).collect();
            all.shuffle(&mut rng);
            let with_others = |item: &Item| {
                let mut found = vec![item.clone()];
                for _ in 0..1000 {
                    let other = &all[rng.random_range(0..all.len())];
                    if found.len() < CHOICES && found.iter().all(|it| it.answer != other.answer) {
                        found.push(Item { prompt: item.prompt.clone(), answer: other.answer.clone() });
                    }
                }
                found
            };
            all.iter().map(with_others).filter(|it| it.len() == CHOICES).take(questions).collect()
        };
        let asked = [choices(names), choices(next_lines)];
        Code { ids, vocabulary: bytes.len(), text, lessons, asked }
    }

    fn batch(&self, items: &[Item]) -> Batch {
        let line = |item: &Item| -> Vec<u32> {
            item.prompt.iter().chain(&item.answer).map(|byte| self.ids[usize::from(*byte)]).collect()
        };
        let sequences: Vec<Vec<u32>> = items.iter().map(line).collect();
        let mut batch = Batch::next_token(sequences.iter().map(Vec::as_slice));
        let mut at = 0;
        for (item, length) in items.iter().zip(&batch.lengths) {
            batch.targets[at..at + item.prompt.len() - 1].fill(IGNORE);
            at += length;
        }
        batch
    }

    /// The share of each task's questions whose right answer is the likeliest, a byte.
    fn solved(&self, net: &mut Net) -> Result<[f64; 2]> {
        let mut found = [0.0; 2];
        for (found, questions) in found.iter_mut().zip(&self.asked) {
            let mut right = 0;
            for answers in questions {
                let logs = net.log_probabilities(&self.batch(answers))?;
                let means: Vec<f64> =
                    logs.iter().zip(answers).map(|(log, it)| log / it.answer.len() as f64).collect();
                right += usize::from(means[1..].iter().all(|other| means[0] > *other));
            }
            *found = right as f64 / questions.len().max(1) as f64;
        }
        Ok(found)
    }

    fn lessons(&self, sequences: usize) -> impl FnMut() -> Batch + '_ {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        move || {
            let items = (0..sequences).map(|_| self.lessons[rng.random_range(0..self.lessons.len())].clone());
            self.batch(&items.collect::<Vec<_>>())
        }
    }
}

/// A variant's phases.
struct Variant {
    name: &'static str,
    model: Model,
    training: Reading,
}

fn metered<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Reading)> {
    let meter = Meter::start(Power::default());
    let done = work()?;
    Ok((done, meter.stop()))
}

fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let mut evidence = Evidence::new(NUMBER, lab.seed(), BASELINE);
    let site = Site::default();
    let code = Code::new(lab.seed(), scale.questions);
    let all = Meter::start(Power::default());
    lab.progress("a network reads code", 0.0);
    let (base, pretraining) = metered(|| pretrained(lab, &code, scale))?;
    let variants = variants(lab, &code, scale, &base)?;
    let mut phases = pretraining.joules + variants.iter().map(|it| it.training.joules).sum::<f64>();
    let questions = code.asked.iter().map(Vec::len).sum::<usize>() as f64;
    let mut a_query = Vec::new();
    for (at, variant) in variants.iter().enumerate() {
        lab.progress(&format!("asking: {}", variant.name), 0.8 + 0.2 * at as f64 / variants.len() as f64);
        let (solved, asking) = metered(|| {
            let mut net = Net::from_model(&variant.model, Options::default())?;
            let mut solved = [0.0; 2];
            for _ in 0..scale.rounds {
                solved = code.solved(&mut net)?;
            }
            Ok(solved)
        })?;
        phases += asking.joules;
        let each = asking.joules / (scale.rounds as f64 * questions);
        a_query.push(each);
        let total = variant.training.joules + asking.joules;
        let footprint = site.footprint(total, variant.training.seconds + asking.seconds);
        let mean = 0.5 * (solved[0] + solved[1]);
        evidence.rows.push(
            Row::new(variant.name)
                .with("names right", 100.0 * solved[0], "%")
                .with("lines right", 100.0 * solved[1], "%")
                .with("training", variant.training.joules / 1000.0, "kJ")
                .with("asking", asking.joules / 1000.0, "kJ")
                .with("a solved task", each / mean.max(1e-6), "J")
                .with("CO2", footprint.co2_grams, "g")
                .with("water", footprint.water_litres, "l")
                .with("time", variant.training.seconds + asking.seconds, "s"),
        );
    }
    let total = all.stop();
    let label = total.source.label();
    evidence.rows.push(
        Row::new("everything, reading code included")
            .with("phases", phases / 1000.0, "kJ")
            .with("total", total.joules / 1000.0, "kJ")
            .with("by the power model", total.modelled_joules / 1000.0, "kJ")
            .with("CO2 in all", site.footprint(total.joules, total.seconds).co2_grams, "g"),
    );
    expectations(&mut evidence, &variants, &a_query, phases, &total);
    evidence.notes = vec![
        format!(
            "Energy is {label}{}. CO2 is on the world's mean grid, 481 g a kWh, PUE 1; the machine's making is not counted.",
            match &total.source {
                Source::Measured(_) => " by the processor's counters, other programs' included".to_string(),
                Source::Modelled { power, .. } =>
                    format!(": no counter can be read, so it is {:.0} to {:.0} W by the use of the cores", power.idle, power.full),
            }
        ),
        format!(
            "Tasks on source files of this crate: which name goes with a function's signature and body, and which line follows, each among \
             {CHOICES}; {} and {} questions from files that were not learned from. A solved task counts what asking takes.",
            code.asked[0].len(),
            code.asked[1].len()
        ),
        "The adapters' networks are computed by the general network, one operation at a time, which takes more time than full tuning by \
         fused blocks: their energy says so. The search for rates and sizes is not counted, for there was none."
            .into(),
        "Not measured: pruning of data, early stop of completions, and the survey's other tasks.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn pretrained(lab: &dyn Lab, code: &Code, scale: &Scale) -> Result<Model> {
    let length = PROMPT + ANSWER;
    let mut net = network(scale.big, code.vocabulary, length, lab.seed())?;
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut batch = || {
        let starts = (0..scale.sequences).map(|_| rng.random_range(0..code.text.len() - length - 1));
        Batch::next_token(starts.map(|start| &code.text[start..=start + length]))
    };
    train(&mut net, cosine(RATE, scale.pretraining), &mut batch, Guidance::default())?;
    Ok(net.model()?)
}

/// The network tuned in four ways.
fn variants(lab: &dyn Lab, code: &Code, scale: &Scale, base: &Model) -> Result<Vec<Variant>> {
    let schedule = || cosine(TUNING_RATE, scale.tuning);
    lab.progress(BASELINE, 0.35);
    let (full, training) = metered(|| {
        let mut net = Net::from_model(base, Options::default())?;
        train(&mut net, schedule(), &mut code.lessons(scale.sequences), Guidance::default())?;
        Ok(net.model()?)
    })?;
    let mut all = vec![Variant { name: BASELINE, model: full.clone(), training }];
    lab.progress("LoRA", 0.45);
    for (name, on) in [("LoRA", base.clone()), ("LoRA on 4 bits", four_bits(base)?)] {
        let (model, training) = metered(|| {
            let mut net = lora::network(&on, RANK, lab.seed())?;
            train_any(&mut net, schedule(), &mut code.lessons(scale.sequences))?;
            Ok(net.model()?)
        })?;
        all.push(Variant { name, model, training });
    }
    lab.progress("distilled", 0.7);
    let (model, training) = metered(|| {
        let mut teacher = Net::from_model(&full, Options::default())?;
        let mut net = network(scale.small, code.vocabulary, PROMPT + ANSWER, lab.seed())?;
        let guidance = Guidance { teacher: Some(&mut teacher), ..Guidance::default() };
        let steps = scale.pretraining + scale.tuning;
        train(&mut net, cosine(RATE, steps), &mut code.lessons(scale.sequences), guidance)?;
        Ok(net.model()?)
    })?;
    all.push(Variant { name: "distilled to a smaller one", model, training });
    Ok(all)
}

/// The matrices of layers rounded to 4 bits, and stored so.
fn four_bits(model: &Model) -> Result<Model> {
    let mut rounded = Vec::new();
    for name in units(model)?.iter().filter(|unit| !unit.is_outer()).flat_map(|unit| &unit.matrices) {
        let tensor = model.weights.get(name)?;
        let values = tensor.to_f32().map_err(|error| Error::matrix(name, error))?;
        let mut data = Vec::new();
        let dtype = DType::Q4_0;
        quant::encode_rows(dtype, &values, tensor.row_len(), &mut data)
            .map_err(|error| Error::matrix(name, error))?;
        rounded.push((name.clone(), Tensor { dtype, data: data.into(), ..tensor }));
    }
    Ok(Model { weights: model.weights.replaced(rounded)?, ..model.clone() })
}

fn expectations(
    evidence: &mut Evidence,
    variants: &[Variant],
    a_query: &[f64],
    phases: f64,
    total: &Reading,
) {
    let figures = |name: &str| -> Vec<f64> {
        variants.iter().filter_map(|it| evidence.row(it.name)).filter_map(|row| row.get(name)).collect()
    };
    let (energy, carbon) = (figures("training"), figures("CO2"));
    let complete = energy.len() == variants.len() && energy.iter().chain(&carbon).all(|it| *it > 0.0);
    evidence.expect(
        "every way of learning has its energy and CO2",
        format!("{} of {} rows", carbon.iter().filter(|it| **it > 0.0).count(), variants.len()),
        complete,
    );
    let off = (phases / total.joules - 1.0).abs();
    evidence.expect(
        "the phases' energy adds up to the total within 2 %",
        format!("{:.2} %", 100.0 * off),
        off <= 0.02,
    );
    let last = variants.len() - 1;
    let uses = break_even(variants[last].training.joules, a_query[0], a_query[last]);
    evidence.expect(
        "the distilled network pays for its training after some number of uses",
        uses.map_or("never: it takes no less than the large one".to_string(), |uses| {
            format!("{uses:.0} questions")
        }),
        uses.is_some(),
    );
    if matches!(total.source, Source::Measured(_)) {
        let off = (total.modelled_joules / total.joules - 1.0).abs();
        evidence.expect(
            "the power model is within 20 % of what is counted",
            format!("{:.1} %", 100.0 * off),
            off <= 0.2,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::Desk;

    #[test]
    fn small_parts_give_sound_evidence() {
        let scale =
            Scale { big: 32, small: 16, pretraining: 6, tuning: 4, sequences: 4, questions: 8, rounds: 1 };
        let evidence = measure(&Desk, &scale).expect("measured");
        evidence.check().expect("sound");
        assert!(evidence.expectations.len() >= 3);
        assert!(evidence.expectations[0].holds, "{:?}", evidence.expectations[0]);
    }

    #[test]
    fn tasks_are_read_from_source() {
        let text = format!(
            "{}\nfn add(a: u32, b: u32) -> u32 {{\n    a + b\n}}\n{}",
            "x".repeat(80),
            "y".repeat(80)
        );
        let found = names(&text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].answer, b"add");
        assert!(found[0].prompt.starts_with(b"(a: u32, b: u32)") && found[0].prompt.len() == PROMPT);
        let lines = next_lines(&text);
        assert_eq!(lines[0].answer, b"fn add(a: u3");
        assert!(lines.iter().all(|it| it.prompt.ends_with(b"\n") && it.prompt.len() == PROMPT));
        let code = Code::new(1, 1000);
        assert!(
            code.asked.iter().all(|questions| questions.len() >= 10),
            "{:?}",
            code.asked.each_ref().map(Vec::len)
        );
    }

    #[test]
    fn an_adapter_begins_as_nothing_and_learns() {
        let base = network(16, 20, 8, 1).expect("a network").model().expect("a model");
        let batch = Batch::next_token([&[1u32, 2, 3, 4, 5][..]]);
        let mut plain = Net::from_model(&base, Options::default()).expect("a network");
        let mut net = lora::network(&base, 2, 1).expect("a network");
        let before = ounce_train::Trainable::loss(&mut net, &batch).expect("a loss").mean();
        assert!(
            (before - ounce_train::Trainable::loss(&mut plain, &batch).expect("a loss").mean()).abs() < 1e-5
        );
        train_any(&mut net, cosine(1e-2, 30), &mut || batch.clone()).expect("learns");
        let after = ounce_train::Trainable::loss(&mut net, &batch).expect("a loss").mean();
        assert!(after < before - 0.01, "{after} against {before}");
        let mut merged =
            Net::from_model(&net.model().expect("merged"), Options::default()).expect("a network");
        let same = ounce_train::Trainable::loss(&mut merged, &batch).expect("a loss").mean();
        assert!((same - after).abs() < 1e-4, "{same} against {after}");
    }
}
