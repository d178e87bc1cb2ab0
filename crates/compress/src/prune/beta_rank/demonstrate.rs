//! Measures Beta-Rank on generated lesions of four uneven kinds, beside L1 norms, HRank and chance.

use std::time::Instant;

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::{mean_and_error, mean_of, quantile};
use ounce_train::vision::{Net, fold};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::NUMBER;
use super::lesions::{Set, VALUES};
use super::rank::{Ranking, agreement, rank};
use super::surgery::{cut, lowest_of_layers};
use super::train::{Score, architecture, fit, judge};
use crate::Result;
use crate::vision::engine::FloatEngine;

const SEEDS: u64 = 3;
const WIDTHS: [usize; 3] = [12, 24, 48];
/// Pictures to learn from and to be judged by.
const PICTURES: [usize; 2] = [1500, 2000];
/// Passes over them, and the learning rate, of the whole network and of cut ones.
const WHOLE: (usize, f64) = (12, 0.03);
const AFTER: (usize, f64) = (4, 0.01);
/// The part of the products that may stay.
const PRODUCTS: f64 = 0.5;
/// Pictures of each kind in the batch that ranks.
const EACH: usize = 12;
/// Batches between which rankings are compared, and the part of the best filters.
const BATCHES: usize = 5;
const BEST: f64 = 0.25;
const ROUNDS: usize = 9;
const TIMED: usize = 100;

const UNPRUNED: &str = "unpruned";
const NAMES: [&str; 4] = ["Beta-Rank", "L1 norm", "HRank", "chance"];

fn rankings(seed: u64) -> [Ranking; 4] {
    [Ranking::Beta, Ranking::L1, Ranking::HRank, Ranking::Random(seed)]
}

/// What a network came to with one seed.
#[derive(Debug, Clone, Copy)]
struct Found {
    score: Score,
    /// Right after surgery.
    cut: Score,
    products: f64,
    /// Agreement between batches; of the unpruned network 1.
    stability: f64,
}

/// The smallest share of filters, in steps of a hundredth, that leaves no more than the part of the products.
fn share_for(net: &Net, worth: &[Option<Vec<f64>>], part: f64) -> Result<f64> {
    let all = net.architecture.products()? as f64;
    for hundredths in 1..100 {
        let share = f64::from(hundredths) / 100.0;
        let small = cut(net, &lowest_of_layers(worth, share))?;
        if small.architecture.products()? as f64 <= part * all {
            return Ok(share);
        }
    }
    Ok(0.99)
}

/// How much of the time of the whole network the cut one takes for a picture, in the engine: the median over rounds by turns.
fn time_share(small: &Net, whole: &Net, set: &Set) -> Result<f64> {
    let (mut small, mut whole) = (FloatEngine::new(&fold(small))?, FloatEngine::new(&fold(whole))?);
    let mut shares = Vec::new();
    for _ in 0..ROUNDS {
        let mut seconds = [0.0; 2];
        for (engine, seconds) in [&mut small, &mut whole].into_iter().zip(&mut seconds) {
            let start = Instant::now();
            for image in set.images.chunks_exact(VALUES).take(TIMED) {
                std::hint::black_box(engine.infer(image));
            }
            *seconds = start.elapsed().as_secs_f64();
        }
        shares.push(seconds[0] / seconds[1]);
    }
    Ok(quantile(&shares, 0.5))
}

pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab).map_err(DemonstrationError::step(NUMBER, "training networks on pictures of lesions"))
}

fn measure(lab: &dyn Lab) -> Result<Evidence> {
    let mut unpruned = Vec::new();
    let mut found: [Vec<Found>; 4] = Default::default();
    let mut times = Vec::new();
    for seed in 0..SEEDS {
        let number = lab.seed().wrapping_mul(100).wrapping_add(seed);
        let told = |what: &str, done: f64| {
            lab.progress(&format!("seed {}: {what}", seed + 1), (seed as f64 + done) / SEEDS as f64);
        };
        let [train, test] = [0, 1].map(|part| Set::generate(PICTURES[part], number * 10 + part as u64));
        let mut net = Net::new(architecture(WIDTHS), number)?;
        fit(&mut net, &train, WHOLE, number, &mut |done| {
            told(UNPRUNED, 0.4 * done);
            Ok(())
        })?;
        let score = judge(&net, &test)?;
        unpruned.push(Found { score, cut: score, products: 1.0, stability: 1.0 });
        let mut random = ChaCha8Rng::seed_from_u64(number);
        let batches: Vec<Set> = (0..BATCHES).map(|_| train.balanced(EACH, &mut random)).collect();
        let all = net.architecture.products()? as f64;
        for (at, ranking) in rankings(number).into_iter().enumerate() {
            let mut worths = Vec::new();
            for (batch, set) in batches.iter().enumerate() {
                // Chance draws again for each batch.
                let ranking = match ranking {
                    Ranking::Random(seed) => Ranking::Random(seed * 100 + batch as u64),
                    other => other,
                };
                worths.push(rank(&net, &set.images, ranking)?);
            }
            let pairs = (0..BATCHES).flat_map(|a| (a + 1..BATCHES).map(move |b| (a, b)));
            let agreements: Vec<f64> = pairs.map(|(a, b)| agreement(&worths[a], &worths[b], BEST)).collect();
            let share = share_for(&net, &worths[0], PRODUCTS)?;
            let mut small = cut(&net, &lowest_of_layers(&worths[0], share))?;
            let after_cut = judge(&small, &test)?;
            fit(&mut small, &train, AFTER, number, &mut |done| {
                told(NAMES[at], 0.4 + 0.15 * (at as f64 + done));
                Ok(())
            })?;
            found[at].push(Found {
                score: judge(&small, &test)?,
                cut: after_cut,
                products: small.architecture.products()? as f64 / all,
                stability: agreements.iter().sum::<f64>() / agreements.len().max(1) as f64,
            });
            if ranking == Ranking::Beta {
                times.push(time_share(&small, &net, &test)?);
            }
        }
    }
    let mut evidence = Evidence::new(NUMBER, lab.seed(), UNPRUNED);
    evidence.rows.push(row(UNPRUNED, &unpruned));
    for (name, found) in NAMES.into_iter().zip(&found) {
        evidence.rows.push(row(name, found));
    }
    expect(&mut evidence, &unpruned, &found, &times);
    evidence.notes = vec![
        format!(
            "Generated pictures of 32 x 32 x 3 values of four kinds of lesions, 70, 20, 7 and 3 of a hundred: {} to learn from, {} to be judged by. A small VGG \
             of six convolutions, trained for {} passes; each ranking then takes the same share of filters out of every convolution, the least that leaves at \
             most half of the products, and the small network learns {} passes more. {SEEDS} seeds with other pictures and weights.",
            PICTURES[0], PICTURES[1], WHOLE.0, AFTER.0,
        ),
        format!(
            "The batch that ranks has {EACH} pictures of each kind. Stability is the part of the best quarter of the filters of a layer that two of {BATCHES} batches agree \
             on; L1 norms look at no batch. Recall and F1 are means over kinds (macro)."
        ),
        "IDRiD, ISIC, CIFAR and residual networks weren't measured, nor a phone. Times are of the engine in f32 on one thread, by turns.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn row(label: &str, found: &[Found]) -> Row {
    let recalls: Vec<f64> = found.iter().map(|it| 100.0 * it.score.recall).collect();
    let (recall, error) = mean_and_error(&recalls);
    Row::new(label)
        .with("macro recall", recall, "%")
        .with("standard error", error, "points")
        .with("macro F1", 100.0 * mean_of(found, |it| it.score.f1), "%")
        .with("recall of the two rarest", 100.0 * mean_of(found, |it| it.score.rare), "%")
        .with("accuracy", 100.0 * mean_of(found, |it| it.score.accuracy), "%")
        .with("macro recall before learning on", 100.0 * mean_of(found, |it| it.cut.recall), "%")
        .with("products", 100.0 * mean_of(found, |it| it.products), "%")
        .with("stability", mean_of(found, |it| it.stability), "")
}

fn expect(evidence: &mut Evidence, unpruned: &[Found], found: &[Vec<Found>; 4], times: &[f64]) {
    let recall = |found: &[Found]| 100.0 * mean_of(found, |it| it.score.recall);
    let [beta, l1, hrank, chance] = found;
    let said = |other: &[Found]| format!("{:.2} % against {:.2} %", recall(beta), recall(other));
    for (other, name) in [(l1, "L1 norms'"), (hrank, "HRank's"), (chance, "chance's")] {
        evidence.expect(
            format!("At half of the products Beta-Rank's macro recall is at least {name}."),
            said(other),
            recall(beta) >= recall(other),
        );
    }
    evidence.expect(
        "It is within 2 points of the unpruned network's.",
        said(unpruned),
        recall(beta) + 2.0 >= recall(unpruned),
    );
    let [of_beta, of_hrank] = [beta, hrank].map(|found| mean_of(found, |it| it.stability));
    evidence.expect(
        "Batches agree on Beta-Rank's best filters at least as far as on HRank's.",
        format!("{of_beta:.2} against {of_hrank:.2}"),
        of_beta >= of_hrank,
    );
    let (time, error) = mean_and_error(times);
    evidence.expect(
        "A picture takes the cut network at most 0.7 of the whole one's time.",
        format!("{time:.2} ± {error:.2}"),
        time <= 0.7,
    );
}
