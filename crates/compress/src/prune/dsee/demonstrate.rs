//! Measures DSEE on the built-in encoder and hidden words of another kind of text, beside LoRA of as many numbers.

use std::time::Instant;

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::{mean_and_error, mean_of, quantile};
use ounce_model::Model;

use super::NUMBER;
use super::adapted::{Adapted, Options, Tuning};
use super::places::Support;
use crate::Result;
use crate::prune::town::Town;

const SEEDS: u64 = 3;
/// Sequences of a step, of 64 tokens at most.
const SEQUENCES: usize = 8;
/// Bytes of documents.
const BYTES: usize = 400_000;
/// LoRA's rank; DSEE has one less, and as many free entries as that saves in a square matrix of the encoder's width.
const RANK: usize = 4;
const ENTRIES: usize = 256;
const SCALE: f64 = 2.0;

const FIRST: Tuning = Tuning { steps: 400, rate: 1e-3, penalty: 0.0 };
const AGAIN: Tuning = Tuning { steps: 200, rate: 5e-4, penalty: 0.0 };
const PENALTY: f64 = 1e-4;

const SPARSITY: f64 = 0.5;
const HEADS: f64 = 0.25;
const NEURONS: f64 = 0.4;
const ROUNDS: usize = 5;

const LORA: &str = "LoRA, rank 4";
const DSEE: &str = "DSEE, rank 3 and entries";
const RANDOM: &str = "DSEE, entries anywhere";
const LORA_PRUNED: &str = "50 % zeros: LoRA, pruned";
const LORA_AGAIN: &str = "50 % zeros: LoRA, pruned, tuned again";
const DSEE_AGAIN: &str = "50 % zeros: DSEE, pruned, tuned again";
const NARROW: &str = "heads and neurons out: DSEE, tuned again";
const LABELS: [&str; 7] = [LORA, DSEE, RANDOM, LORA_PRUNED, LORA_AGAIN, DSEE_AGAIN, NARROW];

/// What a way came to with one seed.
#[derive(Debug, Clone, Copy)]
struct Found {
    accuracy: f64,
    trained: usize,
    bytes: usize,
    zeros: f64,
    products: usize,
}

fn inner(model: &Model) -> Vec<(String, Vec<usize>)> {
    let all = model.spec.tensors().into_iter();
    all.filter(|it| it.name.starts_with("layers.") && it.shape.len() > 1)
        .map(|it| (it.name, it.shape))
        .collect()
}

fn judge(task: &Town, adapted: &Adapted) -> Result<Found> {
    let (mut zeros, mut products) = (0, 0);
    for (name, shape) in inner(&adapted.model) {
        zeros += adapted.model.weights.f32(&name)?.iter().filter(|value| **value == 0.0).count();
        products += shape.iter().product::<usize>();
    }
    Ok(Found {
        accuracy: task.accuracy(&adapted.merged()?)?,
        trained: adapted.trained(),
        bytes: adapted.bytes()?,
        zeros: zeros as f64 / products as f64,
        products,
    })
}

/// How much of the time of `whole` judging with `narrow` takes: the median over rounds in which both take turns.
fn time_share(task: &Town, narrow: &Model, whole: &Model) -> Result<f64> {
    let mut shares = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        task.accuracy(narrow)?;
        let of_narrow = start.elapsed().as_secs_f64();
        let start = Instant::now();
        task.accuracy(whole)?;
        shares.push(of_narrow / start.elapsed().as_secs_f64());
    }
    Ok(quantile(&shares, 0.5))
}

pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab).map_err(DemonstrationError::step(NUMBER, "fine-tuning the built-in encoder"))
}

fn measure(lab: &dyn Lab) -> Result<Evidence> {
    let task = Town::new(lab, BYTES)?;
    let mut found: Vec<Vec<Found>> = vec![Vec::new(); LABELS.len()];
    let mut times = Vec::new();
    for seed in 0..SEEDS {
        let number = lab.seed().wrapping_mul(100).wrapping_add(seed);
        let mut stages = 0;
        let mut tune = |adapted: &mut Adapted, tuning: Tuning, label: &str| -> Result<()> {
            let mut source = task.source(SEQUENCES, number.wrapping_add(1000 * stages))?;
            let from = (seed as f64 + stages as f64 / 7.0) / SEEDS as f64;
            stages += 1;
            adapted.tune(&mut source, &tuning, &mut |step, of| {
                let done = from + step as f64 / of as f64 / 7.0 / SEEDS as f64;
                lab.progress(&format!("seed {}: {label}", seed + 1), done);
                Ok(())
            })
        };
        let options = Options {
            rank: RANK - 1,
            entries: ENTRIES,
            support: Support::Decomposed,
            scale: SCALE,
            coefficients: false,
            seed: number,
        };
        let mut lora = Adapted::new(&task.encoder, &Options { rank: RANK, entries: 0, ..options })?;
        tune(&mut lora, FIRST, LORA)?;
        let mut dsee = Adapted::new(&task.encoder, &options)?;
        tune(&mut dsee, FIRST, DSEE)?;
        let mut random = Adapted::new(&task.encoder, &Options { support: Support::Random, ..options })?;
        tune(&mut random, FIRST, RANDOM)?;
        for (at, adapted) in [&lora, &dsee, &random].into_iter().enumerate() {
            found[at].push(judge(&task, adapted)?);
        }
        let whole = dsee.merged()?;
        lora.prune_weights(SPARSITY)?;
        found[3].push(judge(&task, &lora)?);
        tune(&mut lora, AGAIN, LORA_AGAIN)?;
        found[4].push(judge(&task, &lora)?);
        dsee.prune_weights(SPARSITY)?;
        tune(&mut dsee, AGAIN, DSEE_AGAIN)?;
        found[5].push(judge(&task, &dsee)?);
        let mut narrow = Adapted::new(&task.encoder, &Options { coefficients: true, ..options })?;
        tune(&mut narrow, Tuning { penalty: PENALTY, ..FIRST }, NARROW)?;
        narrow.prune_parts(HEADS, NEURONS)?;
        tune(&mut narrow, AGAIN, NARROW)?;
        found[6].push(judge(&task, &narrow)?);
        times.push(time_share(&task, &narrow.merged()?, &whole)?);
    }
    let mut evidence = Evidence::new(NUMBER, lab.seed(), LORA);
    let whole = inner(&task.encoder).iter().map(|it| it.1.iter().product::<usize>()).sum::<usize>();
    for (label, found) in LABELS.into_iter().zip(&found) {
        evidence.rows.push(row(label, found, whole));
    }
    expect(&mut evidence, &found, &times, whole);
    evidence.notes = vec![
        format!(
            "{} It finds {:.1} % before. {SEEDS} seeds with other changes, orders and hidden words; {} steps of {SEQUENCES} sequences of up to 64 tokens, {} more where it is tuned again. Query and value \
             matrices are changed; the head learns too and is not counted.",
            task.said(),
            100.0 * task.accuracy(&task.encoder)?,
            FIRST.steps,
            AGAIN.steps,
        ),
        format!(
            "Where heads and neurons leave, {:.0} % of the heads and {:.0} % of the neurons of each layer do, by coefficients that learned with a penalty \
             of {PENALTY}. Bytes are of the layers' matrices and of the change, kept apart: f32 values, one bit a weight where there are zeros, four \
             bytes for an entry's place.",
            100.0 * HEADS,
            100.0 * NEURONS,
        ),
        "BERT, RoBERTa, DeBERTa and GPT-2 on GLUE weren't measured. Times are of whole passes of the training network by turns on one thread; zeros alone \
         spare bytes here, not time."
            .into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn row(label: &str, found: &[Found], whole: usize) -> Row {
    let percent: Vec<f64> = found.iter().map(|it| 100.0 * it.accuracy).collect();
    let (accuracy, error) = mean_and_error(&percent);
    Row::new(label)
        .with("accuracy", accuracy, "%")
        .with("standard error", error, "points")
        .with(
            "numbers that learn, of the layers' weights",
            100.0 * mean_of(found, |it| it.trained as f64) / whole as f64,
            "%",
        )
        .with("zeros", 100.0 * mean_of(found, |it| it.zeros), "%")
        .with("layers and change", mean_of(found, |it| it.bytes as f64) / 1024.0, "KiB")
        .with("products a token", 100.0 * mean_of(found, |it| it.products as f64) / whole as f64, "% of all")
}

fn expect(evidence: &mut Evidence, found: &[Vec<Found>], times: &[f64], whole: usize) {
    let accuracy = |label: &str| {
        let at = LABELS.iter().position(|it| *it == label).unwrap_or(0);
        100.0 * mean_of(&found[at], |it| it.accuracy)
    };
    let both = |a: &str, b: &str| format!("{:.2} % against {:.2} %", accuracy(a), accuracy(b));
    let at_most = found[1].iter().zip(&found[0]).all(|(dsee, lora)| dsee.trained <= lora.trained);
    evidence.expect(
        "With no more numbers DSEE is at least as good as LoRA, within 0.3 points.",
        both(DSEE, LORA),
        at_most && accuracy(DSEE) + 0.3 >= accuracy(LORA),
    );
    evidence.expect(
        "Entries where the decomposition says are at least as good as entries anywhere.",
        both(DSEE, RANDOM),
        accuracy(DSEE) >= accuracy(RANDOM),
    );
    evidence.expect(
        "At 50 % zeros DSEE tuned again is 3 points above LoRA that is only pruned.",
        both(DSEE_AGAIN, LORA_PRUNED),
        accuracy(DSEE_AGAIN) >= accuracy(LORA_PRUNED) + 3.0,
    );
    evidence.expect(
        "At 50 % zeros it is at least as good as LoRA that is tuned again as long, within 0.3 points.",
        both(DSEE_AGAIN, LORA_AGAIN),
        accuracy(DSEE_AGAIN) + 0.3 >= accuracy(LORA_AGAIN),
    );
    let zeros: Vec<f64> = found[3..6].iter().flatten().map(|it| it.zeros).collect();
    let exact =
        zeros.iter().all(|it| (it * whole as f64).round() as usize == (SPARSITY * whole as f64) as usize);
    evidence.expect(
        "Half of the layers' weights are exactly zero, before and after tuning again.",
        if exact { "so it is" } else { "not so" },
        exact,
    );
    let products = mean_of(&found[6], |it| it.products as f64) / whole as f64;
    let (time, error) = mean_and_error(times);
    evidence.expect(
        "Without a quarter of the heads and 40 % of the neurons at least a fifth of the products is gone, accuracy is within 1.5 points of DSEE with all, and \
         passes take less time.",
        format!("{:.2} of the products, {}, {time:.2} ± {error:.2} of the time", products, both(NARROW, DSEE)),
        products <= 0.8 && accuracy(NARROW) + 1.5 >= accuracy(DSEE) && time < 1.0,
    );
}
