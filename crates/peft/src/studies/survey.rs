//! The survey (method 031): "Parameter-Efficient Fine-Tuning for Large Models: A Comprehensive Survey", arXiv 2403.14608. It maps
//! families of methods and systems that serve them: the map is [`crate::taxonomy`], and what a user picks from it by is measured here:
//! twelve methods at three budgets, what they add to a forward pass, and many adapters answering in one batch.

use std::sync::Arc;
use std::time::Instant;

use ounce_engine::{Adapter, Engine, Mode, Session, Turn, Want};
use ounce_eval::method::{DemonstrationError, Evidence, Family, Fixture, Lab, Method, Row};
use ounce_eval::stats::quantile;
use ounce_train::net::Options;

use super::{costs, left_out, of, quality, run, values};
use crate::beside::changes;
use crate::grid::tasks::retell::Retell;
use crate::grid::tasks::sentences::{Asks, Sentences};
use crate::grid::{Found, Grid, Task, Teach, Way};
use crate::{Adapted, Kind, Result, Settings};

const NUMBER: u16 = 31;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "PEFT survey: families and systems",
    family: Family::Peft,
    paper: "Parameter-Efficient Fine-Tuning for Large Models: A Comprehensive Survey",
    arxiv: Some("2403.14608"),
    gives: "One option selects any adapter family, a bench compares quality, size, delay and memory, and one server answers with many adapters.",
    claim: "A map of four families of methods and of the systems that serve them, without measurements of its own.",
    command: Some("ounce bench peft --methods all --models MODEL --data FILE --budget 0.1%,1%,5%"),
    demonstrate: Some(demonstrate),
};

/// Sizes of the demonstration.
struct Scale {
    learn: usize,
    test: usize,
    choosing: u64,
    steps: u64,
    seeds: u64,
    methods: &'static [Kind],
    /// Tokens that each of several adapters answers with, and turns of it.
    served: (usize, usize),
}

const METHODS: [Kind; 12] = [
    Kind::Lora,
    Kind::Dora,
    Kind::Adalora,
    Kind::Vera,
    Kind::Ia3,
    Kind::Bitfit,
    Kind::Bottleneck,
    Kind::Parallel,
    Kind::Compacter,
    Kind::Prompt,
    Kind::Prefix,
    Kind::GatedPrefix,
];

/// Parts of the model's numbers, the largest first: rates are chosen with it.
const BUDGETS: [f64; 3] = [0.05, 0.01, 0.001];
/// Adapters that answer at a time.
const ADAPTERS: usize = 8;
const FULL: Way = Way::of(Teach::Full);
const HEAD: Way = Way::of(Teach::Head);

fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let scale = Scale {
        learn: 2000,
        test: 150,
        choosing: 40,
        steps: 60,
        seeds: 3,
        methods: &METHODS,
        served: (24, 7),
    };
    measure(lab, &scale).map_err(DemonstrationError::step(NUMBER, "the grid of methods and budgets"))
}

fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let encoder = lab.model(Fixture::Encoder)?;
    let repeats = Sentences::new(lab, &encoder, "encoder", Asks::Repeats, scale.learn, scale.test)?;
    let retell = Retell::new(lab, lab.model(Fixture::Tiny)?, "tiny", scale.learn, scale.test)?;
    let tasks: [&dyn Task; 2] = [&repeats, &retell];
    let plan = Grid {
        ways: std::iter::once(FULL).chain(scale.methods.iter().map(|kind| Way::adapter(*kind))).collect(),
        budgets: BUDGETS.iter().map(|it| Some(*it)).collect(),
        choosing: scale.choosing,
        steps: scale.steps,
        seeds: scale.seeds,
        first_seed: lab.seed() * 1000,
        shared_rates: true,
        ..Grid::default()
    };
    let head = Grid { ways: vec![HEAD], ..plan.clone() };
    let mut found = run(lab, &[&repeats], &head, [0.0, 0.03])?;
    found.extend(run(lab, &tasks, &plan, [0.03, 0.95])?);
    lab.progress("adapters in one batch", 0.95);
    let faster = served(lab, scale)?;
    let mut evidence = Evidence::new(NUMBER, lab.seed(), FULL.to_string());
    for it in found.iter().filter(|it| !it.runs.is_empty() && it.task == repeats.name()) {
        let budget = it.budget.map_or(String::new(), |share| format!(" at {} %", 100.0 * share));
        let mut row = values(Row::new(format!("{}{budget}", it.way)), it, &it.task);
        if let Some(other) = of(&found, retell.model_name(), retell.name(), it.way, it.budget) {
            row = values(row, other, &other.task);
        }
        if let Some(delay) = it.runs.first().and_then(|run| run.delay) {
            row = row.with("forward pass, by the base's", delay, "");
        }
        evidence.rows.push(costs(row, it));
    }
    expect(&mut evidence, &found, &tasks);
    evidence.expect(
        "Eight adapters answering in one batch give at least twice the tokens a second of one after another.",
        format!("{faster:.2} times as many"),
        faster >= 2.0,
    );
    evidence.notes.push(format!(
        "The built-in encoder marks words that came before; the tiny built-in language model tells sentences again. Methods in the \
         largest size within each budget, at the best of four learning rates, chosen at the largest budget in {} steps with another \
         seed on other texts; {} steps, means of {} seeds. Costs and delays are those of the encoder; forward passes are timed in turns, \
         merged where a method merges, the shortest of 15 counts. Answers of {ADAPTERS} adapters come from the built-in language model, \
         the median of {} turns.",
        scale.choosing, scale.steps, scale.seeds, scale.served.1
    ));
    left_out(&mut evidence, &found);
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn expect(evidence: &mut Evidence, found: &[Found], tasks: &[&dyn Task]) {
    let encoder = tasks[0];
    let head = quality(found, encoder.model_name(), encoder.name(), HEAD, None);
    let own: Vec<&Found> = found
        .iter()
        .filter(|it| it.task == encoder.name() && it.budget.is_some() && !it.runs.is_empty())
        .collect();
    let below: Vec<String> = own
        .iter()
        .filter(|it| it.quality().0.is_nan() || it.quality().0 <= head)
        .map(|it| format!("{} at {} %: {:.1}", it.way, 100.0 * it.budget.unwrap_or_default(), it.quality().0))
        .collect();
    evidence.expect(
        "Every method at every budget is better than a new head alone.",
        format!(
            "head alone {head:.1} %; {} of {} are better{}{}",
            own.len() - below.len(),
            own.len(),
            if below.is_empty() { "" } else { ", not " },
            below.join(", ")
        ),
        !own.is_empty() && below.is_empty(),
    );
    let (mut said, mut near) = (Vec::new(), true);
    for task in tasks {
        let of = |way, budget| quality(found, task.model_name(), task.name(), way, budget);
        let full = of(FULL, None);
        let ways = [Kind::Lora, Kind::Dora, Kind::Parallel]
            .map(|kind| (kind, of(Way::adapter(kind), Some(BUDGETS[0]))));
        near &= ways.iter().all(|it| it.1 >= full - 1.5);
        let ways = ways.map(|(kind, found)| format!("{kind} {found:.1}"));
        said.push(format!("{}: {}, all weights {full:.1} %", task.name(), ways.join(", ")));
    }
    evidence.expect(
        "LoRA, DoRA and parallel adapters of 5 % of the numbers at most are within 1.5 points of training all weights.",
        said.join("; "),
        near,
    );
    let delays = |merges: bool| -> Vec<(Kind, f64)> {
        own.iter()
            .filter(|it| it.budget == Some(BUDGETS[0]))
            .filter_map(|it| match it.way.teach {
                Teach::Adapter(kind) if it.runs[0].merged_error.is_some() == merges => {
                    Some((kind, it.runs[0].delay?))
                }
                _ => None,
            })
            .collect()
    };
    let list = |all: &[(Kind, f64)]| {
        all.iter().map(|(kind, by)| format!("{kind} {by:.2}")).collect::<Vec<_>>().join(", ")
    };
    let (merged, beside) = (delays(true), delays(false));
    evidence.expect(
        "What is merged makes a forward pass at most 2 % longer; every method that can't be merged makes it longer than that.",
        format!("merged {}; beside {}", list(&merged), list(&beside)),
        !merged.is_empty()
            && !beside.is_empty()
            && merged.iter().all(|it| it.1 <= 1.02)
            && beside.iter().all(|it| it.1 > 1.02),
    );
    let apart: Vec<f64> = found.iter().flat_map(|it| &it.runs).filter_map(|run| run.merged_error).collect();
    let most = apart.iter().copied().fold(0.0, f64::max);
    evidence.expect(
        "What a merged model says is within 1e-5 of what it says with the adapter beside it, of the largest.",
        format!("{most:.1e} at most, of {} models", apart.len()),
        !apart.is_empty() && most <= 1e-5,
    );
}

/// How many times as many tokens a second eight adapters give in one batch as one after another.
fn served(lab: &dyn Lab, scale: &Scale) -> Result<f64> {
    let model = lab.model(Fixture::Builtin)?;
    let engine = Engine::load(&model, Mode::fast()).map_err(failed)?;
    let mut adapters: Vec<Option<Arc<Adapter>>> = Vec::new();
    for seed in 0..ADAPTERS as u64 {
        let settings = Settings { seed, ..Settings::of(Kind::Lora) };
        let folder =
            Adapted::new(&model, &settings, Options::default())?.folder(std::path::Path::new("a"))?;
        let adapter = engine.adapter(changes(&model, &folder, true)?).map_err(failed)?;
        adapters.push(Some(adapter));
    }
    let (tokens, turns) = scale.served;
    let mut ratios = Vec::new();
    // The first turn warms up.
    for turn in 0..=turns {
        let start = Instant::now();
        answer(&engine, &adapters, tokens)?;
        let together = start.elapsed().as_secs_f64();
        let start = Instant::now();
        for one in adapters.chunks(1) {
            answer(&engine, one, tokens)?;
        }
        if turn > 0 {
            ratios.push(start.elapsed().as_secs_f64() / together.max(1e-9));
        }
    }
    Ok(quantile(&ratios, 0.5))
}

fn failed(error: ounce_engine::Error) -> crate::Error {
    crate::Error::Option(error.to_string())
}

/// A sequence for each adapter, all in one batch.
fn answer(engine: &Engine, adapters: &[Option<Arc<Adapter>>], tokens: usize) -> Result<()> {
    let mut sessions = Vec::new();
    for adapter in adapters {
        sessions.push(engine.session().with_adapter(adapter.clone()).map_err(failed)?);
    }
    let mut batch = engine.batch();
    for at in 0..tokens {
        let ids = [(at * 7 + 1) as u32 % engine.spec().vocab_size as u32];
        let turn = |session| Turn { session, ids: &ids, want: Want::Last };
        let mut turns: Vec<Turn<'_, '_>> =
            sessions.iter_mut().map(|session: &mut Session<'_>| turn(session)).collect();
        std::hint::black_box(batch.step(&mut turns).map_err(failed)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::Desk;

    #[test]
    fn a_small_grid_gives_evidence() {
        let scale = Scale {
            learn: 60,
            test: 12,
            choosing: 1,
            steps: 2,
            seeds: 1,
            methods: &[Kind::Lora, Kind::Prompt],
            served: (2, 1),
        };
        let evidence = measure(&Desk, &scale).expect("evidence");
        evidence.check().expect("whole");
        assert!(evidence.row("lora at 5 %").is_some() && evidence.row("head").is_some());
        assert!(evidence.expectations[3].holds, "{}", evidence.expectations[3].measured);
    }
}
