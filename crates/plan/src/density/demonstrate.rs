//! A family of small networks on one text, and models that were distilled, pruned, quantized or fed better, rated by it.

use ounce_compress::prune::{self, Criterion, Sparsity};
use ounce_compress::{Error, Result};
use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row, Text};
use ounce_kernels::{DType, quant};
use ounce_model::{Model, Tensor};
use ounce_train::methods::workbench::cosine;
use ounce_train::net::{Net, Options as NetOptions};
use ounce_train::{Batch, IGNORE, Trainable};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Member, NUMBER, Options, Rated, Table, rate};
use crate::training::{Guidance, network, train};

/// Letters of a training sequence.
const CONTEXT: usize = 48;
/// Letters before an answer, and of an answer.
const PROMPT: usize = 40;
const ANSWER: usize = 8;
/// Answers to choose between.
const CHOICES: usize = 4;
/// The highest learning rate.
const RATE: f64 = 4e-3;
/// One letter in so many of the family's text is another one.
const NOISE: u32 = 20;
/// The label of the row that others are compared with.
const BASELINE: &str = "same size, from scratch, another seed";

/// How large everything is.
struct Scale {
    /// Widths of the family.
    widths: &'static [usize],
    /// The width of the models that are rated; rows are whole blocks of 32.
    target: usize,
    steps: u64,
    sequences: usize,
    /// Questions.
    items: usize,
    /// Steps that a pruned model gets to recover.
    recovery: u64,
    /// Bytes of text.
    text: usize,
}

impl Scale {
    const FULL: Scale = Scale {
        widths: &[16, 24, 32, 40, 48, 64],
        target: 32,
        steps: 1200,
        sequences: 32,
        items: 1500,
        recovery: 300,
        text: 2_000_000,
    };
}

pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, &Scale::FULL).map_err(DemonstrationError::step(NUMBER, "rating small models"))
}

/// Loss and score of a model on the questions.
#[derive(Debug, Clone, Copy)]
struct Figures {
    /// Nats a byte of the right answer.
    loss: f64,
    /// Mean probability of the right answer among the four.
    score: f64,
}

/// The text and the questions on it.
struct World {
    /// Ids of the letters, some of them wrong.
    noisy: Vec<u32>,
    clean: Vec<u32>,
    vocabulary: usize,
    /// Questions: one batch for each, the right answer first.
    questions: Vec<Batch>,
}

impl World {
    fn new(lab: &dyn Lab, scale: &Scale) -> World {
        let texts = [lab.text(Text::Train, scale.text), lab.text(Text::HeldOut, scale.text / 10)];
        let mut letters: Vec<u8> = texts.iter().flat_map(|text| text.bytes()).collect();
        letters.sort_unstable();
        letters.dedup();
        let ids = |text: &str| -> Vec<u32> {
            text.bytes().filter_map(|byte| letters.binary_search(&byte).ok()).map(|id| id as u32).collect()
        };
        let clean = ids(&texts[0]);
        let mut rng = ChaCha8Rng::seed_from_u64(lab.seed());
        let count = letters.len() as u32;
        let spoilt =
            |&id: &u32| if rng.random_range(0..NOISE) == 0 { rng.random_range(0..count) } else { id };
        let noisy = clean.iter().map(spoilt).collect();
        let held_out = ids(&texts[1]);
        World {
            noisy,
            clean,
            vocabulary: letters.len(),
            questions: questions(&held_out, scale.items, lab.seed()),
        }
    }

    fn ask(&self, net: &mut Net) -> Result<Figures> {
        let (mut loss, mut score) = (0.0, 0.0);
        for question in &self.questions {
            let logs = net.log_probabilities(question)?;
            for logs in logs.chunks_exact(CHOICES) {
                loss -= logs[0] / ANSWER as f64;
                let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                score += (logs[0] - most).exp() / logs.iter().map(|log| (log - most).exp()).sum::<f64>();
            }
        }
        let count = self.questions.iter().map(|it| it.lengths.len() / CHOICES).sum::<usize>() as f64;
        Ok(Figures { loss: loss / count, score: score / count })
    }

    /// Trains on a text from a seed on; the order of the text is the same for all.
    fn teach(
        &self,
        net: &mut Net,
        text: &[u32],
        steps: u64,
        scale: &Scale,
        guidance: Guidance<'_>,
    ) -> Result<()> {
        let mut rng = ChaCha8Rng::seed_from_u64(0x7ea0);
        let mut batch = || {
            let starts = (0..scale.sequences).map(|_| rng.random_range(0..text.len() - CONTEXT - 1));
            Batch::next_token(starts.map(|start| &text[start..=start + CONTEXT]))
        };
        train(net, cosine(RATE, steps), &mut batch, guidance)?;
        Ok(())
    }
}

/// What comes next in a held-out text, among what stands elsewhere in it behind the same letter.
fn questions(text: &[u32], items: usize, seed: u64) -> Vec<Batch> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xa5c);
    let places = text.len() - PROMPT - ANSWER;
    let mut found = Vec::new();
    let mut tries = 0;
    while found.len() < items && tries < 50 * items {
        tries += 1;
        let at = rng.random_range(PROMPT..PROMPT + places);
        let right = &text[at..at + ANSWER];
        let mut sequences = vec![text[at - PROMPT..at + ANSWER].to_vec()];
        for _ in 0..4000 {
            let other = rng.random_range(PROMPT..PROMPT + places);
            let answer = &text[other..other + ANSWER];
            let alike = text[other - 1] == text[at - 1] && answer != right;
            if alike && sequences.iter().all(|known| known[PROMPT..] != *answer) {
                sequences.push([&text[at - PROMPT..at], answer].concat());
            }
            if sequences.len() == CHOICES {
                break;
            }
        }
        if sequences.len() == CHOICES {
            let mut batch = Batch::next_token(sequences.iter().map(Vec::as_slice));
            for sequence in batch.targets.chunks_exact_mut(PROMPT + ANSWER - 1) {
                sequence[..PROMPT - 1].fill(IGNORE);
            }
            found.push(batch);
        }
    }
    found
}

/// What is rated.
struct Subject {
    name: &'static str,
    size: f64,
    bytes: Option<f64>,
    figures: Figures,
}

fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    lab.progress("questions", 0.0);
    let world = World::new(lab, scale);
    let tokens = (scale.steps as usize * scale.sequences * CONTEXT) as f64;
    let (family, teacher, own) = family(lab, &world, scale, tokens)?;
    let subjects = subjects(lab, &world, scale, teacher, own)?;
    let mut evidence = Evidence::new(NUMBER, lab.seed(), BASELINE);
    leave_one_out(&family, &mut evidence)?;
    let table = Table {
        chance: 1.0 / CHOICES as f64,
        reference: family,
        models: subjects.iter().map(rated).collect(),
        ..Table::default()
    };
    let report = rate(&table, &Options { seed: lab.seed(), ..Options::default() })?;
    let mut densities = Vec::new();
    for (subject, rating) in subjects.iter().zip(&report.models) {
        let row = Row::new(subject.name).with("size", subject.size, "").with(
            "loss",
            subject.figures.loss,
            "nats a byte",
        );
        let row =
            row.with("score", subject.figures.score, "").with("effective size", rating.effective.value(), "");
        let row = row.with("density", rating.density, "");
        let by_bytes = rating.density_bytes.unwrap_or(rating.density);
        evidence.rows.push(row.with("density by bytes", by_bytes, ""));
        densities.push((subject.name, rating.density, by_bytes));
    }
    expectations(&densities, &mut evidence);
    trend(&table, &mut evidence)?;
    evidence.notes = vec![
        format!(
            "Networks of two layers on the letters of generated tales, one letter in {NOISE} of the text a wrong one; {} steps for each. \
             The score is the probability of the right continuation of {ANSWER} letters among {CHOICES} that follow the same letter; {} questions. \
             All models are rated by their score alone. Sizes are parameters without token vectors; of the pruned model those that are not zero.",
            scale.steps,
            world.questions.len()
        ),
        "The family saw one number of tokens, so the law's second term is a constant.".into(),
        "The paper's reference models and the 29 open models were not measured; the dated series is made."
            .into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn rated(subject: &Subject) -> Rated {
    let (size, bytes, score) = (subject.size, subject.bytes, Some(subject.figures.score));
    Rated { name: subject.name.into(), size, bytes, score, ..Rated::default() }
}

/// Trains the family; gives its members, the largest network and that of the target's width.
fn family(lab: &dyn Lab, world: &World, scale: &Scale, tokens: f64) -> Result<(Vec<Member>, Net, Net)> {
    let mut members = Vec::new();
    let (mut largest, mut own) = (None, None);
    let work = |width: usize| (width * width) as f64;
    let whole: f64 = scale.widths.iter().map(|&width| work(width)).sum();
    let mut done = 0.0;
    for &width in scale.widths {
        lab.progress(&format!("family: width {width}"), 0.6 * done / whole);
        done += work(width);
        let mut net = network(width, world.vocabulary, CONTEXT, lab.seed())?;
        world.teach(&mut net, &world.noisy, scale.steps, scale, Guidance::default())?;
        let figures = world.ask(&mut net)?;
        members.push(Member {
            name: format!("width {width}"),
            size: net.inner_parameters() as f64,
            tokens,
            loss: figures.loss,
            score: Some(figures.score),
        });
        if width == scale.target {
            own = Some(Net::from_model(&net.model()?, NetOptions::default())?);
        }
        largest = Some(net);
    }
    let missing = || Error::Option("the family has no network of the target's width".into());
    Ok((members, largest.ok_or_else(missing)?, own.ok_or_else(missing)?))
}

/// Everything that is rated; `own` is the family's network of the target's width.
fn subjects(lab: &dyn Lab, world: &World, scale: &Scale, mut teacher: Net, own: Net) -> Result<Vec<Subject>> {
    let size = own.inner_parameters() as f64;
    let fresh = |seed: u64| network(scale.target, world.vocabulary, CONTEXT, seed);
    let mut all = Vec::new();
    let mut add = |name, size, bytes, net: &mut Net| -> Result<()> {
        all.push(Subject { name, size, bytes, figures: world.ask(net)? });
        Ok(())
    };
    lab.progress("another seed", 0.62);
    let mut net = fresh(lab.seed() + 1)?;
    world.teach(&mut net, &world.noisy, scale.steps, scale, Guidance::default())?;
    add(BASELINE, size, None, &mut net)?;
    lab.progress("distilled", 0.68);
    let mut net = fresh(lab.seed() + 1)?;
    let guidance = Guidance { teacher: Some(&mut teacher), ..Guidance::default() };
    world.teach(&mut net, &world.noisy, scale.steps, scale, guidance)?;
    add("distilled from the largest", size, None, &mut net)?;
    lab.progress("cleaner text", 0.8);
    let mut net = fresh(lab.seed() + 1)?;
    world.teach(&mut net, &world.clean, scale.steps, scale, Guidance::default())?;
    add("trained on cleaner text", size, None, &mut net)?;
    lab.progress("pruned", 0.88);
    let model = own.model()?;
    let names = prune::matrices(&model)?;
    let half = Sparsity::Share(0.5);
    let weights = prune::prune(&model, &names, Criterion::Magnitude, half, Vec::new(), &mut |_, _| Ok(()))?;
    let mut net = Net::from_model(&Model { weights, ..model.clone() }, NetOptions::default())?;
    let masks: Vec<Option<Vec<bool>>> = (net.params().iter())
        .map(|it| names.contains(&it.name).then(|| it.value.iter().map(|&x| x == 0.0).collect()))
        .collect();
    let gone: usize = masks.iter().flatten().flatten().filter(|gone| **gone).count();
    let left = size - gone as f64;
    add("half pruned", left, None, &mut net)?;
    let mut keep_zero = |net: &mut Net, _: f64| {
        for (param, mask) in net.params_mut().iter_mut().zip(&masks) {
            let Some(mask) = mask else { continue };
            param.value.iter_mut().zip(mask).filter(|(_, gone)| **gone).for_each(|(value, _)| *value = 0.0);
        }
    };
    let guidance = Guidance { behind: Some(&mut keep_zero), ..Guidance::default() };
    world.teach(&mut net, &world.noisy, scale.recovery, scale, guidance)?;
    add("half pruned, trained on", left, None, &mut net)?;
    lab.progress("quantized", 0.95);
    for (name, dtype) in [("8 bits", DType::Q8_0), ("4 bits", DType::Q4_0)] {
        let mut bytes = 0;
        let rounded = names.iter().map(|matrix| {
            let tensor = model.weights.get(matrix)?;
            let values = tensor.to_f32().map_err(|error| Error::matrix(matrix, error))?;
            let mut data = Vec::new();
            quant::encode_rows(dtype, &values, tensor.row_len(), &mut data)
                .map_err(|error| Error::matrix(matrix, error))?;
            bytes += data.len();
            let stored = Tensor { dtype, data: data.into(), ..tensor };
            let values = stored.to_f32().map_err(|error| Error::matrix(matrix, error))?;
            Ok((matrix.clone(), Tensor::from_f32(&stored.shape, &values)))
        });
        let rounded: Vec<(String, Tensor)> = rounded.collect::<Result<_>>()?;
        let weights = model.weights.replaced(rounded)?;
        let mut net = Net::from_model(&Model { weights, ..model.clone() }, NetOptions::default())?;
        add(name, size, Some(bytes as f64), &mut net)?;
    }
    Ok(all)
}

/// Rates each member of the family by all others.
fn leave_one_out(family: &[Member], evidence: &mut Evidence) -> Result<()> {
    let mut found = Vec::new();
    for (at, member) in family.iter().enumerate() {
        let mut reference = family.to_vec();
        reference.remove(at);
        let (name, size, score) = (member.name.clone(), member.size, member.score);
        let models = vec![Rated { name, size, score, ..Rated::default() }];
        let table = Table { chance: 1.0 / CHOICES as f64, reference, models, ..Table::default() };
        let report = rate(&table, &Options { samples: 1, ..Options::default() })?;
        let density = report.models[0].density;
        let row = Row::new(format!("family: {}", member.name)).with("size", member.size, "");
        let row = row.with("loss", member.loss, "nats a byte").with("score", member.score.unwrap_or(0.0), "");
        evidence.rows.push(row.with("density by the others", density, ""));
        found.push(density);
    }
    let range = found.iter().fold((f64::INFINITY, 0.0f64), |(low, high), &it| (low.min(it), high.max(it)));
    evidence.expect(
        "each member's density by all others of the family is from 0.8 to 1.25",
        format!("{:.3} to {:.3}", range.0, range.1),
        range.0 >= 0.8 && range.1 <= 1.25,
    );
    Ok(())
}

fn expectations(densities: &[(&str, f64, f64)], evidence: &mut Evidence) {
    let of =
        |name: &str| densities.iter().find(|it| it.0 == name).map_or((f64::NAN, f64::NAN), |it| (it.1, it.2));
    let pruned = of("half pruned").0;
    evidence.expect(
        "pruned without training it is sparser than the family",
        format!("{pruned:.3}"),
        pruned < 1.0,
    );
    let (distilled, scratch) = (of("distilled from the largest").0, of(BASELINE).0);
    evidence.expect(
        "distilled it is denser than the same size from scratch",
        format!("{distilled:.3} against {scratch:.3}"),
        distilled > scratch,
    );
    let eight = of("8 bits").1;
    evidence.expect("with 8 bits it is denser than 1 by its bytes", format!("{eight:.3}"), eight > 1.0);
}

/// A made series whose density grows by 0.007 a day, seen through the measured law.
fn trend(table: &Table, evidence: &mut Evidence) -> Result<()> {
    const PER_DAY: f64 = 0.007;
    let fitted = rate(table, &Options { samples: 1, ..Options::default() })?.yardstick;
    let size = (fitted.smallest * fitted.largest).sqrt();
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let models = (1..=12).map(|month| {
        // Half of them are less dense than what there was.
        let behind = if month % 2 == 0 { rng.random_range(0.3..0.6) } else { rng.random_range(0.95..1.05) };
        let days = super::trend::days(&format!("2024-{month:02}-01")).unwrap_or(0.0) - 19_723.0;
        Rated {
            name: format!("month {month}"),
            size: size / 3.0,
            loss: Some(fitted.law.at(size / 3.0 * behind * (PER_DAY * days).exp(), fitted.tokens)),
            date: Some(format!("2024-{month:02}-01")),
            ..Rated::default()
        }
    });
    let made = Table { models: models.collect(), ..table.clone() };
    let found = rate(&made, &Options { samples: 1, ..Options::default() })?.trend;
    let per_day = found.map_or(f64::NAN, |it| it.per_day);
    evidence.expect(
        "the slope of a made, dated series is found within 10 %",
        format!("{per_day:.5} a day against {PER_DAY}"),
        (per_day / PER_DAY - 1.0).abs() <= 0.1,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::Desk;

    #[test]
    fn small_parts_give_sound_evidence() {
        let scale = Scale {
            widths: &[8, 16, 24, 32],
            target: 32,
            steps: 12,
            sequences: 4,
            items: 20,
            recovery: 2,
            text: 30_000,
        };
        let evidence = measure(&Desk, &scale).expect("measured");
        evidence.check().expect("sound");
        assert_eq!(evidence.expectations.len(), 5);
        let eight = evidence.row("8 bits").expect("rated");
        let ratio =
            eight.get("density by bytes").expect("has bytes") / eight.get("density").expect("has one");
        // 34 bytes for 32 values, against 2 bytes a parameter; norms are parameters without bytes here.
        assert!((1.8..2.0).contains(&ratio), "{ratio}");
    }

    #[test]
    fn questions_have_four_answers_of_which_the_first_is_right() {
        let world = World::new(
            &Desk,
            &Scale { widths: &[8], target: 8, steps: 1, sequences: 1, items: 30, recovery: 1, text: 40_000 },
        );
        assert!(!world.questions.is_empty());
        for question in &world.questions {
            assert_eq!(question.lengths, [PROMPT + ANSWER - 1; CHOICES]);
            assert_eq!(question.counted(), CHOICES * ANSWER);
            let answers: Vec<&[u32]> =
                question.targets.chunks(PROMPT + ANSWER - 1).map(|it| &it[PROMPT - 1..]).collect();
            assert!(answers[1..].iter().all(|other| *other != answers[0]));
        }
    }
}
