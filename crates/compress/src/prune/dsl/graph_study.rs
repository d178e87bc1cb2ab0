//! The second backbone: dynamic sparse learning of embeddings that LightGCN spreads along the graph of choices.

use ounce_eval::method::{Evidence, Lab, Row};
use ounce_eval::stats::mean_and_error;

use super::demonstrate::{CLOSELY, FIRST, MACS, NDCG, SIZE, WIDTH};
use super::implicit::Choices;
use super::light_gcn::Graph;
use super::ranking::evaluate;
use super::train::{Exploration, Options, Recommender};
use crate::Result;

/// Times that embeddings are spread.
const SPREAD: usize = 2;
const EPOCHS: u64 = 60;
/// Triples of a step: more than without a graph, for the whole graph is gone along in each.
const BATCH: usize = 4096;
/// An epoch has fewer steps than without a graph: places are explored as often in proportion.
const EXPLORATION: Exploration = Exploration {
    growth: super::table::Growth::Gradient,
    first: 0.3,
    falls: true,
    every: 30,
    look: 8,
    until: 0.75,
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Dense,
    Narrow,
    Static,
    Dynamic,
}

const WAYS: [(Way, &str); 4] = [
    (Way::Dense, "LightGCN: dense, width 64"),
    (Way::Narrow, "LightGCN, 80 %: narrow and dense, as many weights"),
    (Way::Static, "LightGCN, 80 %: random places that stay"),
    (Way::Dynamic, "LightGCN, 80 %: DSL"),
];

impl Way {
    /// The rate and the decay that are best for it, as `sweep` below finds them.
    fn tuned(self) -> (f64, f32) {
        match self {
            Way::Dense | Way::Narrow => (1e-2, 1e-2),
            Way::Static => (1e-2, 5e-3),
            Way::Dynamic => (3e-2, 1e-2),
        }
    }

    fn options(self, seed: u64) -> Options {
        let (rate, decay) = self.tuned();
        let all = Options {
            width: WIDTH,
            spread: SPREAD,
            epochs: EPOCHS,
            batch: BATCH,
            rate,
            decay,
            seed,
            ..Options::default()
        };
        let sparse = Options { density: 1.0 - CLOSELY, ..all };
        match self {
            Way::Dense => all,
            Way::Narrow => Options { width: (WIDTH as f64 * (1.0 - CLOSELY) - 1e-9).ceil() as usize, ..all },
            Way::Static => sparse,
            Way::Dynamic => Options { exploration: Some(EXPLORATION), ..sparse },
        }
    }
}

/// NDCG, the weights that are stored, and million products in training.
fn learn(
    choices: &Choices,
    options: &Options,
    progress: &mut dyn FnMut(f64) -> Result<()>,
) -> Result<[f64; 3]> {
    let mut model = Recommender::new(choices, options)?;
    model.learn(choices, options, progress)?;
    let (width, mut products) = (options.width, 0);
    let own = [model.users.table.dense(), model.items.table.dense()];
    let [users, items] = Graph::new(choices, options.spread).spread(&own, width, &mut products);
    let ranked = evaluate(choices, FIRST, |user, scores| {
        let user = &users[user * width..][..width];
        for (score, item) in scores.iter_mut().zip(items.chunks_exact(width)) {
            *score = user.iter().zip(item).map(|(a, b)| a * b).sum();
        }
    });
    Ok([100.0 * ranked.ndcg, model.count() as f64, model.macs as f64 / 1e6])
}

/// Adds rows and expectations; gives a note.
///
/// # Errors
/// If the loss is no number.
pub(super) fn measure(lab: &dyn Lab, evidence: &mut Evidence, seeds: u64) -> Result<String> {
    let mut found: Vec<Vec<[f64; 3]>> = vec![Vec::new(); WAYS.len()];
    for seed in 0..seeds {
        let number = lab.seed().wrapping_mul(100).wrapping_add(seed);
        let choices = Choices::generate(&SIZE, number);
        for (at, (way, label)) in WAYS.iter().enumerate() {
            let from = (seed as usize * WAYS.len() + at) as f64;
            let mut told = |done: f64| {
                let share = (from + done) / (seeds as usize * WAYS.len()) as f64;
                lab.progress(&format!("seed {}: {label}", seed + 1), 0.8 + 0.2 * share);
                Ok(())
            };
            found[at].push(learn(&choices, &way.options(number), &mut told)?);
        }
    }
    let column = |at: usize, column: usize| found[at].iter().map(|it| it[column]).collect::<Vec<f64>>();
    for (at, (_, label)) in WAYS.iter().enumerate() {
        let (ndcg, error) = mean_and_error(&column(at, 0));
        let row = Row::new(*label).with(NDCG, ndcg, "%").with("standard error", error, "points");
        let row = row.with("weights", mean_and_error(&column(at, 1)).0, "");
        evidence.rows.push(row.with(MACS, mean_and_error(&column(at, 2)).0, "million"));
    }
    let [dense, narrow, stays, dynamic] = [0, 1, 2, 3].map(|at| mean_and_error(&column(at, 0)).0);
    evidence.expect(
        "LightGCN at 80 %: DSL keeps 97 % of the dense model's NDCG@20.",
        format!("{dynamic:.2} % against {dense:.2} %, which is {:.1} %", 100.0 * dynamic / dense),
        dynamic >= 0.97 * dense,
    );
    for (other, text) in [
        (narrow, "LightGCN at 80 %: DSL is above a narrow dense model of as many weights."),
        (stays, "LightGCN at 80 %: DSL is above random places that stay."),
    ] {
        evidence.expect(text, format!("{dynamic:.2} % against {other:.2} %"), dynamic > other);
    }
    Ok(format!(
        "LightGCN spreads embeddings {SPREAD} times along the graph of choices; {EPOCHS} passes of {BATCH} triples a step. What is spread is dense, so \
         sparse embeddings spare stored numbers there and no products. Each way has the rate and the decay that are best for it on choices of another draw."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "a sweep of some minutes, to choose rates and decays by"]
    fn sweep() {
        let choices = Choices::generate(&SIZE, 4_711);
        for (way, _) in WAYS {
            for rate in [1e-2, 3e-2] {
                for decay in [5e-3f32, 1e-2] {
                    let options = Options { rate, decay, ..way.options(4_711) };
                    let [ndcg, ..] = learn(&choices, &options, &mut |_| Ok(())).expect("learns");
                    println!("{way:?} rate {rate} decay {decay}: {ndcg:.2} %");
                }
            }
        }
    }
}
