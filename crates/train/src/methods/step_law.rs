//! Step Law (method 112): learning rate and batch size from model size and tokens.
//!
//! "Predictable Scale: Part I – Optimal Hyperparameter Scaling Law in Large Language Model Pretraining", arXiv
//! 2503.04715. With `N` parameters without embeddings, `D` tokens, AdamW, and a cosine to a fixed final rate, the best
//! settings are `η = 1.79 N^-0.713 D^0.307` and `B = 0.58 D^0.571` tokens; the loss is convex in `(ln η, ln B)` with a
//! broad plateau.
//!
//! [`step_law`](crate::schedule::step_law) has the published numbers, [`sweep`](crate::sweep) makes one's own. The
//! demonstration sweeps models of some ten thousand parameters, fits the laws without the largest, and trains that with
//! what they say.

use ounce_eval::method::{DemonstrationError, Evidence, Family, Lab, Method, Row};

use super::tiny::{CONTEXT, Letters, workers};
use crate::Result;
use crate::config::Preset;
use crate::schedule::step_law::{FINAL_RATE, step_law};
use crate::schedule::{Schedule, Shape};
use crate::sweep::fit::{Laws, Settings, Size, Variable, fit};
use crate::sweep::{Cell, Grid, Job, Outcome, Results, run};
use ounce_kernels::pool::Pool;

const NUMBER: u16 = 112;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "Step Law",
    family: Family::Planning,
    paper: "Predictable Scale: Part I -- Optimal Hyperparameter Scaling Law in LLM Pretraining",
    arxiv: Some("2503.04715"),
    gives: "Learning rate and batch size for a model size and a token count, refitted when small sweeps of one's own are given.",
    claim: "Learning rate 1.79 N^-0.713 D^0.307 and batch 0.58 D^0.571 tokens, within 0.07 % of the best loss of 3,700 runs.",
    command: Some("ounce sweep RUN.toml --lr 2e-3,4e-3,8e-3 --batch-tokens 1024,2048,4096 --hidden 64,128"),
    demonstrate: Some(demonstrate),
};

/// What the loss at predicted settings may exceed the best of the grid by.
const WITHIN: f64 = 0.01;
/// The share of sizes whose losses should be convex.
const CONVEX: f64 = 0.8;
/// What small models of letters are usually trained with; the first is the baseline.
const DEFAULTS: [f64; 2] = [1e-3, 3e-4];

/// What is swept.
struct Plan {
    grid: Grid,
    samples: usize,
}

impl Plan {
    fn full() -> Plan {
        let grid = Grid {
            lr: (0..6).map(|i| 0.0005 * 2f64.powi(i)).collect(),
            batch_tokens: vec![64, 128, 256, 512],
            hidden: vec![16, 32, 64],
            tokens: vec![30_000, 60_000, 120_000],
        };
        Plan { grid, samples: 1000 }
    }
}

fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, &Plan::full()).map_err(DemonstrationError::step(NUMBER, "a sweep of small models"))
}

/// The run of a cell.
fn job(letters: &Letters, cell: &Cell, pool: &'static Pool) -> Result<Job> {
    let total = cell.steps();
    let shape = Shape::Cosine { floor: FINAL_RATE.min(cell.lr) };
    let schedule = Schedule { peak: cell.lr, warmup: (total / 10).max(1), total, shape };
    let model = letters.shape(Preset::Llama, cell.hidden);
    let job = letters.job(&model, cell.batch_tokens as usize, schedule, pool)?;
    // Text is not seen twice: training losses are of text that was not learned yet.
    Ok(Job { validation: None, ..job })
}

fn measure(lab: &dyn Lab, plan: &Plan) -> Result<Evidence> {
    let largest = plan.grid.tokens.iter().copied().max().unwrap_or(0);
    let batch = plan.grid.batch_tokens.iter().copied().max().unwrap_or(0);
    let letters = Letters::new(lab, (largest + 2 * batch) as usize, 1000)?;
    let folder = tempfile::tempdir().map_err(crate::Error::io(std::env::temp_dir()))?;
    let mut results = Results::open(folder.path(), &serde_json::Value::Null)?;
    let prepare = |cell: &Cell, pool| job(&letters, cell, pool);
    let cells = plan.grid.cells()?;
    let work = |cell: &Cell| cell.hidden.pow(2) as f64 * cell.tokens as f64;
    let (all, mut done) = (cells.iter().map(work).sum::<f64>(), 0.0);
    for cells in cells.chunk_by(|a, b| (a.hidden, a.tokens) == (b.hidden, b.tokens)) {
        let Cell { hidden, tokens, .. } = cells[0];
        lab.progress(&format!("width {hidden}, {tokens} tokens: {} runs", cells.len()), 0.95 * done / all);
        run(&mut results, cells, workers(), &prepare, &())?;
        done += cells.iter().map(work).sum::<f64>();
    }
    let settings = Settings { samples: plan.samples, seed: lab.seed(), ..Settings::default() };
    let laws = fit(results.all(), &settings);
    let Some(target) =
        laws.sizes.iter().max_by(|a, b| (a.params * a.tokens).total_cmp(&(b.params * b.tokens)))
    else {
        return Err(crate::Error::Fit("no run of the sweep ended with a loss".to_string()));
    };
    let seen = |it: &&Outcome| it.cell.hidden != target.hidden || it.cell.tokens as f64 != target.tokens;
    let others: Vec<Outcome> = results.all().iter().filter(seen).copied().collect();
    let without = fit(&others, &settings);

    let mut evidence = Evidence::new(NUMBER, lab.seed(), default_label(DEFAULTS[0]));
    lab.progress("the largest with what the laws say", 0.95);
    predict(&mut evidence, &mut results, target, &without, &prepare)?;
    describe(&mut evidence, &laws, &without);
    expect(&mut evidence, &laws, &without, target);
    let runs = results.all();
    evidence.notes = vec![
        format!(
            "{} runs of models of letters (context {CONTEXT}, two layers), one seed each; all see the same text in the same \
             order. The loss is that of the last tenth of training, on text seen once.",
            runs.len()
        ),
        "Warm-up is a tenth of the run (the paper: 2,000 steps); all runs end at 1e-5.".into(),
        "Published numbers were fitted on 60 million to 1 billion parameters; that they hold here is not expected. \
         Intervals hold 95 % of bootstrap samples."
            .into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn default_label(rate: f64) -> String {
    format!("held-out size, usual rate {rate:.0e}, predicted batch")
}

const PREDICTED: &str = "held-out size, laws fitted to the others";
const LOSS: &str = "final loss";

/// Trains the largest with the predicted settings and with others' rules.
fn predict(
    evidence: &mut Evidence,
    results: &mut Results,
    target: &Size,
    laws: &Laws,
    prepare: &(dyn Fn(&Cell, &'static Pool) -> Result<Job> + Sync),
) -> Result<()> {
    let Size { hidden, params, tokens, best, .. } = *target;
    let cell = |lr: f64, batch: f64| {
        let units = (batch / CONTEXT as f64).round().max(1.0) as u64;
        Cell { lr, batch_tokens: units * CONTEXT as u64, hidden, tokens: tokens as u64 }
    };
    // Without a law there is no prediction, and the baseline takes the grid's batch.
    let batch = laws.batch.as_ref().map_or(best.batch, |law| law.at(params, tokens));
    let rate = laws.rate.as_ref().filter(|_| laws.batch.is_some()).map(|law| law.at(params, tokens));
    let compute = 6.0 * params * tokens;
    let published = step_law(params, tokens);
    let mut rules: Vec<(String, Cell)> = Vec::new();
    rules.extend(rate.map(|rate| (PREDICTED.to_string(), cell(rate, batch))));
    rules.extend(DEFAULTS.map(|rate| (default_label(rate), cell(rate, batch))));
    rules.push(("held-out size, Step Law as published".into(), cell(published.rate, published.batch_tokens)));
    // arXiv 2401.02954, section 3.1.
    let deepseek = cell(0.3118 * compute.powf(-0.125), 0.292 * compute.powf(0.3271));
    rules.push(("held-out size, DeepSeek's rule of compute".into(), deepseek));
    // arXiv 2001.08361, appendix D.
    let openai = cell(0.003239 - 0.0001395 * params.ln(), batch);
    rules.push(("held-out size, Kaplan's rate, predicted batch".into(), openai));
    let cells: Vec<Cell> = rules.iter().map(|(_, cell)| *cell).collect();
    run(results, &cells, workers(), prepare, &())?;
    let row = |label: &str, rate: f64, batch: f64, loss: f64| {
        let over = (loss / best.loss - 1.0) * 100.0;
        let row = Row::new(label).with("learning rate", rate, "").with("batch", batch, "tokens");
        row.with(LOSS, loss, "nats").with("above the grid's best", over, "%")
    };
    evidence.rows.push(row("held-out size, best of the grid", best.rate, best.batch, best.loss));
    for (label, cell) in rules {
        if let Some(loss) = results.of(&cell).and_then(|it| it.loss) {
            evidence.rows.push(row(&label, cell.lr, cell.batch_tokens as f64, loss));
        }
    }
    Ok(())
}

fn describe(evidence: &mut Evidence, laws: &Laws, without: &Laws) {
    for size in &laws.sizes {
        let (optimum, law) = (size.optimum(), step_law(size.params, size.tokens));
        let row = Row::new(format!("{} parameters, {} tokens", size.params, size.tokens))
            .with("best rate of the grid", size.best.rate, "")
            .with("best batch of the grid", size.best.batch, "tokens")
            .with("best rate, fitted", optimum.rate, "")
            .with("best batch, fitted", optimum.batch, "tokens")
            .with("least loss", optimum.loss, "nats")
            .with("convex", f64::from(u8::from(size.convex == Some(true))), "")
            .with("minimum on the grid's edge", size.edges.len() as f64, "")
            .with("rate over the published law's", optimum.rate / law.rate, "")
            .with("batch over the published law's", optimum.batch / law.batch_tokens, "");
        evidence.rows.push(row);
    }
    let named = [
        ("learning rate, without the held-out size", &without.rate),
        ("learning rate, all sizes", &laws.rate),
        ("batch, without the held-out size", &without.batch),
        ("batch, all sizes", &laws.batch),
        ("batch with parameters, all sizes", &laws.batch_and_params),
    ];
    for (label, law) in named {
        let Some(law) = law else { continue };
        let mut row = Row::new(label).with("factor", law.law.scale, "");
        for (name, variable) in [("exponent of N", Variable::Params), ("exponent of D", Variable::Tokens)] {
            if let Some(exponent) = law.exponent(variable) {
                row = row.with(name, exponent, "");
            }
            if let Some(interval) = law.interval(variable) {
                row = row.with(format!("{name}, low"), interval.low, "");
                row = row.with(format!("{name}, high"), interval.high, "");
            }
        }
        evidence.rows.push(row);
    }
}

fn expect(evidence: &mut Evidence, laws: &Laws, without: &Laws, target: &Size) {
    let convex = laws.sizes.iter().filter(|size| size.convex == Some(true)).count();
    evidence.expect(
        format!(
            "the loss is convex in the logarithms of rate and batch for at least {:.0} % of sizes",
            CONVEX * 100.0
        ),
        format!("{convex} of {}", laws.sizes.len()),
        convex as f64 >= CONVEX * laws.sizes.len() as f64,
    );
    let exponents = [
        ("the best learning rate falls with parameters", &without.rate, Variable::Params, -1.0),
        ("the best learning rate rises with tokens", &without.rate, Variable::Tokens, 1.0),
        ("the best batch rises with tokens", &without.batch, Variable::Tokens, 1.0),
    ];
    for (text, law, variable, sign) in exponents {
        let exponent = law.as_ref().and_then(|law| law.exponent(variable));
        let interval = law.as_ref().and_then(|law| law.interval(variable));
        let interval = interval.map_or(String::new(), |it| format!(" ({:.3} to {:.3})", it.low, it.high));
        let measured = exponent.map_or("no law".into(), |it| format!("exponent {it:.3}{interval}"));
        evidence.expect(text, measured, exponent.is_some_and(|it| it * sign > 0.0));
    }
    let loss = |label: &str| evidence.row(label).and_then(|row| row.get(LOSS));
    // Without a law of the batch there is no prediction, and what hangs on it does not hold.
    const NONE: &str = "no prediction";
    let (predicted, default) = (loss(PREDICTED), loss(&default_label(DEFAULTS[0])));
    let (over, both) = (predicted.map(|it| (it, it / target.best.loss - 1.0)), predicted.zip(default));
    let best = target.best.loss;
    let best = over
        .map_or(NONE.into(), |(it, over)| format!("{it:.4} against {best:.4} nats, {:+.2} %", over * 100.0));
    let usual = both.map_or(NONE.into(), |(it, default)| format!("{it:.4} against {default:.4} nats"));
    evidence.expect(
        format!(
            "predicted settings of the held-out size are within {:.0} % of its grid's best",
            WITHIN * 100.0
        ),
        best,
        over.is_some_and(|(_, over)| over <= WITHIN),
    );
    evidence.expect(
        format!("they are better than the usual learning rate of {:.0e} with the same batch", DEFAULTS[0]),
        usual,
        both.is_some_and(|(predicted, default)| predicted < default),
    );
}

#[cfg(test)]
mod tests {
    use super::super::tiny::Desk;
    use super::*;

    #[test]
    fn a_small_sweep_gives_sound_evidence() {
        let grid = Grid {
            lr: vec![2e-3, 8e-3, 3.2e-2],
            batch_tokens: vec![32, 64, 128],
            hidden: vec![16, 32],
            tokens: vec![1000, 2000],
        };
        let evidence = measure(&Desk, &Plan { grid, samples: 20 }).expect("measured");
        evidence.check().expect("sound");
        assert_eq!(evidence.expectations.len(), 6);
        let sizes = evidence.rows.iter().filter(|row| row.get("convex").is_some()).count();
        assert_eq!(sizes, 4);
        let best = evidence.row("held-out size, best of the grid").and_then(|row| row.get(LOSS));
        assert!(best.is_some_and(|loss| loss < 3.5), "{best:?}: the runs learned something");
    }
}
