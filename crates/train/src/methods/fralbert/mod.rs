//! FrALBERT (method 103): a compact encoder whose layers share their weights, and what steadies its learning from few
//! questions.
//!
//! "On the Usability of Transformers-based models for a French Question-Answering task", arXiv 2207.09150.
//!
//! - **The encoder** is ALBERT's (arXiv 1909.11942): token vectors of width `e` are mapped to the width `h`, and one block is
//!   run `L` times. [`Preset::Albert`](crate::config::Preset::Albert) makes it, `model.groups` gives blocks of their own back.
//! - **Answers** are spans: `start = w_s · h_i`, `end = w_e · h_i`, the loss is the mean of both cross-entropies
//!   ([`SpanLoss`](crate::loss::SpanLoss)); of `i ≤ j` the best sum is taken.
//! - **What helps with few questions**: more of them by translation, learning another language's first, searching settings.
//!   Several seeds each; mean, spread, worst, and how many collapsed.
//!
//! Measured: choosing any of a text's things gives an F1 of 27 %. The shared block comes to 43.5 % from 50 questions and to 99.9 %
//! from 200, blocks of their own to 54.1 and 99.8 %: with very few questions sharing costs more than the paper's comparison with
//! larger models would suggest. Translated questions (76.6 %), the other language's questions (46.5 %) and a searched learning
//! rate (49.1 %) raise what 50 questions give, but the spread of the first two grows: at 10⁻³ and many steps some seeds go astray, and
//! with 200 questions that costs more than it brings. The encoder of twice the width had not learned the languages as far.

mod language;
mod study;

use ounce_eval::method::{DemonstrationError, Evidence, Family, Lab, Method, Row};
use ounce_eval::stats::mean_and_error;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use self::language::{Language, translated};
use self::study::{Encoder, Questions, Score, Shape, guessing};
use crate::Result;
use crate::data::labelled::Example;

const NUMBER: u16 = 103;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "FrALBERT",
    family: Family::DomainLanguage,
    paper: "On the Usability of Transformers-based models for a French Question-Answering task",
    arxiv: Some("2207.09150"),
    gives: "A compact encoder with shared layers answers questions from texts in a language with little data, with ways to steady its training.",
    claim: "12M parameters compete with far larger encoders when data is scarce; augmentation, search and transfer from another language steady fine-tuning.",
    command: Some("ounce train RUN.toml --set model.from=./albert --set data.objective=spans"),
    demonstrate: Some(demonstrate),
};

/// Sizes of the demonstration.
struct Scale {
    /// Width of the compact encoder.
    width: usize,
    /// Layers of all encoders.
    layers: usize,
    /// Texts that both languages are learned from, and steps.
    texts: usize,
    text_steps: u64,
    /// Steps of learning to answer.
    steps: u64,
    /// Questions of the poor language to learn from.
    few: Vec<usize>,
    /// Questions of the rich language.
    many: usize,
    /// Questions to choose settings by, and to be judged by.
    validation: usize,
    test: usize,
    /// Tries with other questions and another head.
    seeds: u64,
}

impl Scale {
    fn full() -> Scale {
        Scale {
            width: 64,
            layers: 4,
            texts: 48_000,
            text_steps: 6_000,
            steps: 400,
            few: vec![50, 200, 800],
            many: 4_000,
            validation: 100,
            test: 400,
            seeds: 5,
        }
    }
}

/// Learning rate of an encoder with a new head.
const RATE: f64 = 1e-3;
/// That of one that can answer questions of another language.
const GENTLE: f64 = 5e-4;
/// Rates that are searched.
const RATES: [f64; 3] = [3e-4, 1e-3, 3e-3];
/// The part of words that a translation gets wrong.
const WRONG: f64 = 0.1;
/// Translated questions beside those of the language.
const TRANSLATED: usize = 800;
/// So many points above guessing, a try has not collapsed.
const ABOVE_GUESSING: f64 = 5.0;

fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, &Scale::full()).map_err(DemonstrationError::step(NUMBER, "training small encoders"))
}

/// What tries came to.
struct Tries {
    label: String,
    scores: Vec<Score>,
}

impl Tries {
    fn f1(&self) -> Vec<f64> {
        self.scores.iter().map(|score| score.f1).collect()
    }

    fn mean(&self) -> f64 {
        mean_and_error(&self.f1()).0
    }

    /// Standard deviation of F1.
    fn deviation(&self) -> f64 {
        mean_and_error(&self.f1()).1 * (self.scores.len() as f64).sqrt()
    }

    fn row(&self, guess: f64) -> Row {
        let exact: Vec<f64> = self.scores.iter().map(|score| score.exact).collect();
        let f1 = self.f1();
        let collapsed = f1.iter().filter(|&&f1| f1 < guess + ABOVE_GUESSING).count();
        Row::new(&self.label)
            .with("F1", self.mean(), "%")
            .with("deviation of F1", self.deviation(), "points")
            .with("worst F1", f1.iter().copied().fold(f64::INFINITY, f64::min), "%")
            .with("exact", mean_and_error(&exact).0, "%")
            .with("collapsed", collapsed as f64, "tries")
    }
}

const SHARED: &str = "shared block";
const UNSHARED: &str = "blocks of their own";
const WIDE: &str = "shared block, twice the width";

fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let seed = lab.seed();
    let shapes = [
        (SHARED, Shape { width: scale.width, blocks: 1 }),
        (UNSHARED, Shape { width: scale.width, blocks: scale.layers }),
        (WIDE, Shape { width: 2 * scale.width, blocks: 1 }),
    ];
    let mut encoders = Vec::new();
    for (number, (name, shape)) in shapes.into_iter().enumerate() {
        lab.progress(&format!("{name}: learning both languages"), 0.14 * number as f64);
        encoders.push((name, Encoder::learn(shape, scale, seed)?));
    }
    let sizes = [4 * scale.few.iter().max().copied().unwrap_or(1), scale.validation, scale.test];
    let poor = Questions::new(Language::Poor, sizes, seed + 1);
    let rich = Questions::new(Language::Rich, [scale.many, 0, scale.test], seed + 2);
    let study = Study { scale, poor, rich, seed };
    let mut tries = Vec::new();
    for (number, (name, encoder)) in encoders.iter().enumerate() {
        for &count in &scale.few {
            lab.progress(&format!("{name}: {count} questions"), 0.42 + 0.1 * number as f64);
            tries.push(study.plain(name, encoder, count)?);
        }
    }
    let (_, compact) = &encoders[0];
    lab.progress("another language's questions first", 0.72);
    tries.extend(study.transfer(compact)?);
    lab.progress("translated questions beside", 0.86);
    for &count in &scale.few {
        tries.push(study.augmented(compact, count)?);
    }
    lab.progress("searching the learning rate", 0.93);
    tries.push(study.searched(compact, scale.few[0])?);
    let seconds = study.latency(&encoders[0].1, &encoders[1].1)?;
    let mut evidence = Evidence::new(NUMBER, seed, plain_label(SHARED, scale.few[0]));
    report(&study, &encoders, &tries, seconds, &mut evidence);
    lab.progress("done", 1.0);
    Ok(evidence)
}

/// Tries on the questions of the poor language.
struct Study<'s> {
    scale: &'s Scale,
    poor: Questions,
    rich: Questions,
    seed: u64,
}

fn plain_label(name: &str, count: usize) -> String {
    format!("{name}, {count} questions")
}

const TRANSFER: &str = "shared block, the rich language's questions first";
const AUGMENTED: &str = "shared block, translated questions beside";
const SEARCHED: &str = "shared block, learning rate searched";

impl Study<'_> {
    /// One try a seed.
    fn tries(&self, label: String, mut one: impl FnMut(u64) -> Result<Score>) -> Result<Tries> {
        let seeds = (0..self.scale.seeds).map(|number| self.seed * 1_000 + number);
        Ok(Tries { label, scores: seeds.map(&mut one).collect::<Result<_>>()? })
    }

    fn plain(&self, name: &str, encoder: &Encoder, count: usize) -> Result<Tries> {
        self.tries(plain_label(name, count), |seed| {
            let mut reader = encoder.reader(seed)?;
            reader.learn(&self.poor.some(count, seed), RATE, self.scale.steps, seed)?;
            reader.score(&self.poor.test)
        })
    }

    /// Questions of the rich language first; also what that gives without any of the poor one.
    fn transfer(&self, encoder: &Encoder) -> Result<Vec<Tries>> {
        let learned = (0..self.scale.seeds).map(|number| {
            let seed = self.seed * 1_000 + number;
            let mut reader = encoder.reader(seed)?;
            reader.learn(&self.rich.train, RATE, 2 * self.scale.steps, seed)?;
            Ok(reader)
        });
        let mut learned: Vec<study::Reader> = learned.collect::<Result<_>>()?;
        let number = |seed: u64| (seed - self.seed * 1_000) as usize;
        let mut all = vec![
            self.tries(format!("{TRANSFER}, asked in the rich language"), |seed| {
                learned[number(seed)].score(&self.rich.test)
            })?,
            self.tries(format!("{TRANSFER}, 0 questions"), |seed| {
                learned[number(seed)].score(&self.poor.test)
            })?,
        ];
        for &count in &self.scale.few {
            all.push(self.tries(plain_label(TRANSFER, count), |seed| {
                let mut reader = learned[number(seed)].copy()?;
                reader.learn(&self.poor.some(count, seed), GENTLE, self.scale.steps, seed)?;
                reader.score(&self.poor.test)
            })?);
        }
        Ok(all)
    }

    fn augmented(&self, encoder: &Encoder, count: usize) -> Result<Tries> {
        self.tries(plain_label(AUGMENTED, count), |seed| {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut examples: Vec<Example> = self.poor.some(count, seed);
            let from = self.rich.some(TRANSLATED, seed);
            examples.extend(from.iter().map(|example| translated(example, WRONG, &mut random)));
            let mut reader = encoder.reader(seed)?;
            reader.learn(&examples, RATE, self.scale.steps, seed)?;
            // The end of training is on questions of the language itself.
            reader.learn(&examples[..count], GENTLE, self.scale.steps / 2, seed)?;
            reader.score(&self.poor.test)
        })
    }

    fn searched(&self, encoder: &Encoder, count: usize) -> Result<Tries> {
        self.tries(plain_label(SEARCHED, count), |seed| {
            let mut best: Option<(f64, Score)> = None;
            for rate in RATES {
                let mut reader = encoder.reader(seed)?;
                reader.learn(&self.poor.some(count, seed), rate, self.scale.steps, seed)?;
                let judged = reader.score(&self.poor.validation)?.f1;
                if best.is_none_or(|(best, _)| judged > best) {
                    best = Some((judged, reader.score(&self.poor.test)?));
                }
            }
            Ok(best.map(|(_, score)| score).unwrap_or_default())
        })
    }

    /// Seconds of a pass over the test's questions, of two encoders in turn; the quickest of nine each.
    fn latency(&self, first: &Encoder, second: &Encoder) -> Result<[f64; 2]> {
        let mut readers = [first.reader(self.seed)?, second.reader(self.seed)?];
        let mut best = [f64::INFINITY; 2];
        for _ in 0..10 {
            for (reader, best) in readers.iter_mut().zip(&mut best) {
                *best = best.min(reader.seconds(&self.poor.test)?);
            }
        }
        Ok(best)
    }
}

/// Rows, and what was expected.
fn report(
    study: &Study,
    encoders: &[(&str, Encoder)],
    tries: &[Tries],
    seconds: [f64; 2],
    evidence: &mut Evidence,
) {
    let guess = guessing(&study.poor.test);
    evidence.rows.push(Row::new("choosing any of a text's things").with("F1", guess, "%"));
    for (number, (name, encoder)) in encoders.iter().enumerate() {
        let row = Row::new(*name).with("parameters of blocks", encoder.block_parameters as f64, "").with(
            "loss on hidden words",
            encoder.loss,
            "nats",
        );
        evidence.rows.push(match seconds.get(number) {
            Some(seconds) => {
                row.with("time of a pass", 1e6 * seconds / study.poor.test.len() as f64, "µs a question")
            }
            None => row,
        });
    }
    evidence.rows.extend(tries.iter().map(|tries| tries.row(guess)));
    let few = study.scale.few[0];
    let of = |label: &str, count: usize| tries.iter().find(|tries| tries.label == plain_label(label, count));
    let parameters = |at: usize| encoders[at].1.block_parameters as f64;
    let fold = parameters(1) / parameters(0);
    let layers = study.scale.layers as f64;
    evidence.expect(
        format!("sharing leaves one of {layers} parts of the blocks' parameters (within 5 %)"),
        format!("{:.0} of {:.0}, one of {fold:.2}", parameters(0), parameters(1)),
        (fold / layers - 1.0).abs() < 0.05,
    );
    let ratio = seconds[0] / seconds[1];
    evidence.expect(
        "sharing saves memory, not time: a pass takes as long within 10 %",
        format!("{ratio:.3} of the time"),
        (ratio - 1.0).abs() < 0.1,
    );
    if let (Some(shared), Some(unshared), Some(wide)) = (of(SHARED, few), of(UNSHARED, few), of(WIDE, few)) {
        let lost = unshared.mean() - shared.mean();
        evidence.expect(
            format!("with {few} questions the shared block loses 5 points of F1 at most"),
            format!("{lost:+.1} points lost, {:.1} against {:.1}", shared.mean(), unshared.mean()),
            lost <= 5.0,
        );
        let lost = unshared.mean() - wide.mean();
        evidence.expect(
            format!("with {few} questions a shared block of about as many parameters loses 2 points at most"),
            format!("{lost:+.1} points lost, {:.1} against {:.1}", wide.mean(), unshared.mean()),
            lost <= 2.0,
        );
    }
    for &count in &study.scale.few[..2.min(study.scale.few.len())] {
        let Some(plain) = of(SHARED, count) else { continue };
        for (what, label) in
            [("the rich language's questions first", TRANSFER), ("translated questions", AUGMENTED)]
        {
            let Some(tries) = of(label, count) else { continue };
            evidence.expect(
                format!("with {count} questions, {what} raise the mean F1"),
                format!("{:.1} to {:.1}", plain.mean(), tries.mean()),
                tries.mean() > plain.mean(),
            );
            evidence.expect(
                format!("with {count} questions, {what} lower its deviation"),
                format!("{:.1} to {:.1} points", plain.deviation(), tries.deviation()),
                tries.deviation() < plain.deviation(),
            );
        }
    }
    if let (Some(plain), Some(searched)) = (of(SHARED, few), of(SEARCHED, few)) {
        evidence.expect(
            format!("with {few} questions, searching the learning rate raises the mean F1"),
            format!("{:.1} to {:.1}", plain.mean(), searched.mean()),
            searched.mean() > plain.mean(),
        );
    }
    evidence.notes = vec![
        "Two generated languages without a common word; encoders see as many texts of each, and hidden words only (no order of sentences).".into(),
        format!("Tries differ in their questions and in the head's first weights, {} each; the encoder is one.", study.scale.seeds),
        "French, FQuAD, and the paper's larger peers were not measured.".into(),
    ];
}

#[cfg(test)]
mod tests {
    use super::super::tiny::Desk;
    use super::*;

    #[test]
    fn a_small_study_gives_sound_evidence() {
        let scale = Scale {
            width: 16,
            layers: 2,
            texts: 64,
            text_steps: 4,
            steps: 2,
            few: vec![8, 16],
            many: 16,
            validation: 8,
            test: 16,
            seeds: 2,
        };
        let evidence = measure(&Desk, &scale).expect("measured");
        evidence.check().expect("sound");
        assert!(evidence.expectations[0].holds, "{:?}", evidence.expectations[0]);
        assert_eq!(evidence.rows.len(), 1 + 3 + 6 + 4 + 2 + 1);
    }
}
