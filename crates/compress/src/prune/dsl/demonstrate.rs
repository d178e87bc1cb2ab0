//! Measures dynamic sparse learning on generated choices, against dense models, small dense ones, places that stay, places that grow
//! anywhere, and a dense model that is pruned and trained on.

use std::time::Instant;

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::{mean_and_error, mean_of, quantile, rank_correlation};

use super::implicit::{Choices, Size};
use super::ranking::{Ranked, Scorer, evaluate};
use super::table::{Growth, SparseTable};
use super::train::{Exploration, Options, Recommender};
use super::{NUMBER, graph_study};
use crate::Result;
use crate::prune::gradual::packed::{pack, unpack};

pub(super) const WIDTH: usize = 64;
const SEEDS: u64 = 3;
const EPOCHS: u64 = 60;
/// The decay of models whose weights all exist; of 0.01 to 0.1 the best on data of another seed, as the sparse ones' is.
const DENSE_DECAY: f32 = 0.1;
/// Passes after pruning a dense model.
const AFTER: u64 = EPOCHS / 4;
const SPARSITIES: [f64; 3] = [0.5, 0.8, 0.9];
/// The sparsity that is looked at closely.
pub(super) const CLOSELY: f64 = 0.8;
/// First so many of a ranking count.
pub(super) const FIRST: usize = 20;
pub(super) const SIZE: Size =
    Size { users: 2000, items: 3000, genres: 40, choices: 40, taste: 6.0, skew: 0.6 };
/// Rounds in which models score by turns.
const ROUNDS: usize = 9;

const DENSE: &str = "dense, width 64";
pub(super) const NDCG: &str = "NDCG@20";
pub(super) const MACS: &str = "training products";

/// The ways to a model.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Dense,
    /// Dense and narrow, of as many weights.
    Narrow,
    /// Dense and narrow, of as many bytes.
    NarrowBytes,
    Static,
    Set,
    Dynamic,
    /// Without the cosine.
    Steady,
    /// Dense, pruned at the end and trained on.
    Pruned,
}

impl Way {
    fn label(self, sparsity: f64) -> String {
        let what = match self {
            Way::Dense => return DENSE.into(),
            Way::Narrow => "narrow and dense, as many weights",
            Way::NarrowBytes => "narrow and dense, as many bytes",
            Way::Static => "random places that stay",
            Way::Set => "growth anywhere (SET)",
            Way::Dynamic => "DSL",
            Way::Steady => "DSL without the cosine",
            Way::Pruned => "dense, then pruned and trained on",
        };
        format!("{:.0} %: {what}", 100.0 * sparsity)
    }

    fn options(self, sparsity: f64, seed: u64) -> Options {
        let all = Options { width: WIDTH, epochs: EPOCHS, seed, ..Options::default() };
        let exploration = Exploration::default();
        let sparse = Options { density: 1.0 - sparsity, ..all };
        let all = Options { decay: DENSE_DECAY, ..all };
        let weights = WIDTH as f64 * (1.0 - sparsity);
        match self {
            Way::Dense | Way::Pruned => all,
            // Rounded up: in doubt for the model that is compared with.
            Way::Narrow => Options { width: (weights - 1e-9).ceil() as usize, ..all },
            Way::NarrowBytes => {
                Options { width: (weights + WIDTH as f64 / 32.0 - 1e-9).ceil() as usize, ..all }
            }
            Way::Static => sparse,
            // Chance finds good places by trying often.
            Way::Set => {
                let often = Exploration { growth: Growth::Random, every: 30, look: 0, ..exploration };
                Options { exploration: Some(often), ..sparse }
            }
            Way::Dynamic => Options { exploration: Some(exploration), ..sparse },
            Way::Steady => {
                Options { exploration: Some(Exploration { falls: false, ..exploration }), ..sparse }
            }
        }
    }

    /// The model of this way; what is pruned goes on from the dense one.
    fn model(
        self,
        choices: &Choices,
        sparsity: f64,
        seed: u64,
        dense: Option<&Recommender>,
        told: &mut dyn FnMut(f64),
    ) -> Result<Recommender> {
        let mut options = self.options(sparsity, seed);
        let mut model = match (self, dense) {
            (Way::Pruned, Some(dense)) => {
                let mut model = dense.clone();
                model.prune(1.0 - sparsity);
                options.epochs = AFTER;
                model
            }
            _ => Recommender::new(choices, &options)?,
        };
        model.learn(choices, &options, &mut |done| {
            told(done);
            Ok(())
        })?;
        Ok(model)
    }
}

/// What one model came to.
#[derive(Debug, Clone, Copy)]
struct Found {
    ranked: Ranked,
    macs: f64,
    serving: f64,
    weights: usize,
    bytes: usize,
    exact: bool,
    /// Correlation of how often users and items occur with how many weights they hold.
    correlation: [f64; 2],
}

/// Values, and one bit each for their places where not all are there; read back to be judged.
fn stored(table: &SparseTable) -> (usize, SparseTable) {
    let dense = table.dense();
    if table.stored() == dense.len() {
        return (4 * dense.len(), table.clone());
    }
    let bytes = pack(&dense);
    let back = unpack(&bytes, dense.len()).unwrap_or_default();
    let places: Vec<u32> = (0..back.len() as u32).filter(|at| back[*at as usize] != 0.0).collect();
    let mut read = SparseTable::at(table.rows(), table.width(), &places);
    read.values = back.into_iter().filter(|value| *value != 0.0).collect();
    (bytes.len(), read)
}

fn judge(model: &Recommender, choices: &Choices, budget: usize) -> Found {
    let ((of_users, users), (of_items, items)) = (stored(&model.users.table), stored(&model.items.table));
    let mut scorer = Scorer::new(&users, &items);
    let ranked = evaluate(choices, FIRST, |user, out| scorer.score(user, out));
    let held = |table: &SparseTable| -> Vec<f64> {
        (0..table.rows()).map(|row| table.range(row).len() as f64).collect()
    };
    let busy: Vec<f64> = choices.seen.iter().map(|seen| seen.len() as f64).collect();
    let popular: Vec<f64> = choices.popularity().into_iter().map(|count| count as f64).collect();
    Found {
        ranked,
        macs: model.macs as f64,
        serving: scorer.macs as f64 / choices.seen.len() as f64,
        weights: model.count(),
        bytes: of_users + of_items,
        exact: model.stored == [budget; 2],
        correlation: [
            rank_correlation(&busy, &held(&model.users.table)),
            rank_correlation(&popular, &held(&model.items.table)),
        ],
    }
}

/// How much of the dense model's time scoring all items takes the sparse one: the median over rounds in which both take turns.
fn time_share(choices: &Choices, sparse: &Recommender, dense: &Recommender) -> f64 {
    let mut sparse = Scorer::new(&sparse.users.table, &sparse.items.table);
    let (users, rows) = (dense.users.table.dense(), choices.items);
    let items = dense.items.table.dense();
    let columns: Vec<Vec<f32>> =
        (0..WIDTH).map(|column| (0..rows).map(|row| items[row * WIDTH + column]).collect()).collect();
    let mut scores = vec![0.0f32; rows];
    let mut shares = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for user in 0..choices.seen.len() {
            sparse.score(user, &mut scores);
            std::hint::black_box(&mut scores);
        }
        let of_sparse = start.elapsed().as_secs_f64();
        let start = Instant::now();
        for user in users.chunks_exact(WIDTH) {
            scores.fill(0.0);
            for (value, column) in user.iter().zip(&columns) {
                scores.iter_mut().zip(column).for_each(|(score, other)| *score += value * other);
            }
            std::hint::black_box(&mut scores);
        }
        shares.push(of_sparse / start.elapsed().as_secs_f64());
    }
    quantile(&shares, 0.5)
}

pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab).map_err(DemonstrationError::step(NUMBER, "training recommenders"))
}

fn measure(lab: &dyn Lab) -> Result<Evidence> {
    let usual = [Way::Narrow, Way::Static, Way::Set, Way::Dynamic, Way::Pruned];
    let closely = [Way::NarrowBytes, Way::Steady];
    let mut arms = vec![(Way::Dense, 0.0)];
    for sparsity in SPARSITIES {
        arms.extend(usual.map(|way| (way, sparsity)));
        if sparsity == CLOSELY {
            arms.extend(closely.map(|way| (way, sparsity)));
        }
    }
    let mut found: Vec<Vec<Found>> = vec![Vec::new(); arms.len()];
    let mut times = Vec::new();
    let mut choices_in_all = 0;
    for seed in 0..SEEDS {
        let number = lab.seed().wrapping_mul(100).wrapping_add(seed);
        let choices = Choices::generate(&SIZE, number);
        choices_in_all += choices.count();
        let mut dense = None;
        for (at, &(way, sparsity)) in arms.iter().enumerate() {
            let label = way.label(sparsity);
            let share = 0.8 / (SEEDS as usize * arms.len()) as f64;
            let from = (seed as usize * arms.len() + at) as f64 * share;
            let mut told =
                |done: f64| lab.progress(&format!("seed {}: {label}", seed + 1), from + share * done);
            let model = way.model(&choices, sparsity, number, dense.as_ref(), &mut told)?;
            let rows = [choices.seen.len(), choices.items];
            let budget =
                rows.iter().map(|rows| ((1.0 - sparsity) * (rows * WIDTH) as f64).round() as usize).sum();
            found[at].push(judge(&model, &choices, budget));
            match way {
                Way::Dense => dense = Some(model),
                Way::Dynamic if sparsity == CLOSELY => {
                    if let Some(dense) = &dense {
                        times.push(time_share(&choices, &model, dense));
                    }
                }
                _ => {}
            }
        }
    }
    let mut evidence = Evidence::new(NUMBER, lab.seed(), DENSE);
    for ((way, sparsity), found) in arms.iter().zip(&found) {
        evidence.rows.push(row(&way.label(*sparsity), found));
    }
    expect(&mut evidence, &arms, &found, &times);
    let note = graph_study::measure(lab, &mut evidence, SEEDS)?;
    evidence.notes = vec![
        format!(
            "Generated choices: {} users, {} items, {} genres; about {} choices a seed to learn from, a fifth of each user's held out, all \
             unseen items ranked. {SEEDS} seeds with other data, weights and orders; matrix factorisation by BPR, {EPOCHS} passes, \
             {AFTER} more for what is pruned. Rate, decay (one for dense models, one for sparse ones) and exploration (growth anywhere tries four times as often) were chosen on data of another seed.",
            SIZE.users,
            SIZE.items,
            SIZE.genres,
            choices_in_all as u64 / SEEDS,
        ),
        "Products are counted where they are made: of stored numbers in training, and for all places in the batches that an exploration looks at; \
         of two stored numbers when scoring. Bytes are f32 values, and one bit a place where not all are stored. The optimizer's moments exist \
         for stored weights only."
            .into(),
        "NeuMF and other models of the paper weren't built, nor distillation or searched sizes; the paper's data sets weren't measured."
            .into(),
    ];
    evidence.notes.push(note);
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn row(label: &str, found: &[Found]) -> Row {
    let ndcg: Vec<f64> = found.iter().map(|it| 100.0 * it.ranked.ndcg).collect();
    let (ndcg, error) = mean_and_error(&ndcg);
    Row::new(label)
        .with(NDCG, ndcg, "%")
        .with("standard error", error, "points")
        .with("Recall@20", 100.0 * mean_of(found, |it| it.ranked.recall), "%")
        .with("users hit", 100.0 * mean_of(found, |it| it.ranked.hits), "%")
        .with("weights", mean_of(found, |it| it.weights as f64), "")
        .with("bytes", mean_of(found, |it| it.bytes as f64), "")
        .with(MACS, mean_of(found, |it| it.macs) / 1e6, "million")
        .with("products to score a user", mean_of(found, |it| it.serving), "")
}

fn expect(evidence: &mut Evidence, arms: &[(Way, f64)], found: &[Vec<Found>], times: &[f64]) {
    let of = |way: Way| {
        let at = arms.iter().position(|arm| *arm == (way, if way == Way::Dense { 0.0 } else { CLOSELY }));
        at.map_or(&[][..], |at| &found[at])
    };
    let ndcg = |way: Way| 100.0 * mean_of(of(way), |it| it.ranked.ndcg);
    let (dynamic, dense) = (ndcg(Way::Dynamic), ndcg(Way::Dense));
    evidence.expect(
        "At 80 % DSL keeps 97 % of the dense model's NDCG@20.",
        format!("{dynamic:.2} % against {dense:.2} %, which is {:.1} %", 100.0 * dynamic / dense),
        dynamic >= 0.97 * dense,
    );
    for (way, text) in [
        (Way::Narrow, "At 80 % DSL is above a narrow dense model of as many weights."),
        (Way::NarrowBytes, "At 80 % DSL is above a narrow dense model of as many bytes."),
        (Way::Static, "At 80 % DSL is above random places that stay."),
        (Way::Set, "At 80 % growth where gradients are large is above growth anywhere."),
        (Way::Steady, "At 80 % a share of changes that falls along a cosine is above one that stays."),
    ] {
        evidence.expect(text, format!("{dynamic:.2} % against {:.2} %", ndcg(way)), dynamic > ndcg(way));
    }
    let sparse =
        arms.iter().zip(found).filter(|(arm, _)| matches!(arm.0, Way::Dynamic | Way::Static | Way::Set));
    let exact = sparse.flat_map(|(_, found)| found).all(|it| it.exact);
    evidence.expect(
        "After every step exactly as many weights exist as the budget says, at every sparsity.",
        if exact { "so it is" } else { "not so" },
        exact,
    );
    let [users, items] = [0, 1].map(|at| mean_of(of(Way::Dynamic), |it| it.correlation[at]));
    evidence.expect(
        "At 80 % busy users and popular items hold more weights: both rank correlations are above 0.",
        format!("{users:.2} of users, {items:.2} of items"),
        users > 0.0 && items > 0.0,
    );
    let ratio = mean_of(of(Way::Pruned), |it| it.macs) / mean_of(of(Way::Dynamic), |it| it.macs);
    evidence.expect(
        "At 80 % a dense model that is pruned and trained on takes at least twice DSL's products to train.",
        format!("{ratio:.2} times, at an NDCG@20 of {:.2} % against {dynamic:.2} %", ndcg(Way::Pruned)),
        ratio >= 2.0,
    );
    let products = mean_of(of(Way::Dynamic), |it| it.serving) / mean_of(of(Way::Dense), |it| it.serving);
    let (time, error) = mean_and_error(times);
    evidence.expect(
        "At 80 % scoring all items takes a tenth of the dense model's products, and less time by turns on one thread.",
        format!("{:.3} of the products, {time:.2} ± {error:.2} of the time", products),
        products <= 0.1 && time < 1.0,
    );
}
