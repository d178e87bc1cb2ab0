//! The review (method 040): "Parameter-Efficient Fine-Tuning Methods for Pretrained Language Models: A Critical Review and Assessment",
//! arXiv 2312.12148. Its taxonomy is [`crate::taxonomy`] and [`crate::Kind::nature`], its experiments are a grid: twelve methods and
//! three tasks, each at the best of four learning rates.

use ounce_eval::method::{DemonstrationError, Evidence, Family, Fixture, Lab, Method, Row};
use ounce_eval::stats::mean_and_error;

use super::{costs, formulas, left_out, of, quality, run, values};
use crate::grid::tasks::retell::Retell;
use crate::grid::tasks::sentences::{Asks, Sentences};
use crate::grid::{Found, Grid, Task, Teach, Way};
use crate::{Kind, Result};

const NUMBER: u16 = 40;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "PEFT review and assessment",
    family: Family::Peft,
    paper: "Parameter-Efficient Fine-Tuning Methods for Pretrained Language Models: A Critical Review and Assessment",
    arxiv: Some("2312.12148"),
    gives: "A table states for each adapter family how many parameters, how much memory and what run-time cost it has, and a bench fills in the measured columns.",
    claim: "Most of eleven methods reach or pass full fine-tuning with under 2 % of the parameters, from RoBERTa to LLaMA-13B.",
    command: Some("ounce bench peft --methods all --models MODEL --data FILE"),
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
}

const METHODS: [Kind; 12] = [
    Kind::Sherl,
    Kind::Bitfit,
    Kind::Ia3,
    Kind::Prompt,
    Kind::Prefix,
    Kind::Lora,
    Kind::Dora,
    Kind::Adalora,
    Kind::Dylora,
    Kind::Compacter,
    Kind::Bottleneck,
    Kind::Parallel,
];

/// The most that methods train, of the model's numbers.
const BUDGET: f64 = 0.05;
const FULL: Way = Way::of(Teach::Full);

fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let scale = Scale { learn: 2000, test: 150, choosing: 40, steps: 60, seeds: 3, methods: &METHODS };
    measure(lab, &scale).map_err(DemonstrationError::step(NUMBER, "the grid of methods and tasks"))
}

fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let (encoder, decoder) = (lab.model(Fixture::Encoder)?, lab.model(Fixture::Tiny)?);
    let sentences = |asks| Sentences::new(lab, &encoder, "encoder", asks, scale.learn, scale.test);
    let (order, repeats) = (sentences(Asks::Order)?, sentences(Asks::Repeats)?);
    let retell = Retell::new(lab, decoder, "tiny", scale.learn, scale.test)?;
    let tasks: [&dyn Task; 3] = [&order, &repeats, &retell];
    let methods = scale.methods.iter().map(|kind| Way::adapter(*kind));
    let plan = Grid {
        ways: [Way::of(Teach::Head), FULL].into_iter().chain(methods).collect(),
        budgets: vec![Some(BUDGET)],
        choosing: scale.choosing,
        steps: scale.steps,
        seeds: scale.seeds,
        first_seed: lab.seed() * 1000,
        ..Grid::default()
    };
    // A language model has no head to be trained alone.
    let heads: [&dyn Task; 2] = [&order, &repeats];
    let head = Grid { ways: vec![Way::of(Teach::Head)], ..plan.clone() };
    let rest = Grid { ways: plan.ways[1..].to_vec(), ..plan };
    let mut found = run(lab, &heads, &head, [0.0, 0.05])?;
    found.extend(run(lab, &tasks, &rest, [0.05, 1.0])?);
    Ok(evidence(lab, scale, &tasks, &found))
}

fn budget(way: Way) -> Option<f64> {
    matches!(way.teach, Teach::Adapter(_)).then_some(BUDGET)
}

fn evidence(lab: &dyn Lab, scale: &Scale, tasks: &[&dyn Task], found: &[Found]) -> Evidence {
    let mut evidence = Evidence::new(NUMBER, lab.seed(), FULL.to_string());
    let ways =
        [Way::of(Teach::Head), FULL].into_iter().chain(scale.methods.iter().map(|it| Way::adapter(*it)));
    let mut means: Vec<(Way, f64)> = Vec::new();
    for way in ways {
        let mut row = Row::new(way.to_string());
        for task in tasks {
            if let Some(it) = of(found, task.model_name(), task.name(), way, budget(way)) {
                row = values(row, it, task.name());
            }
        }
        if let Some(it) = of(found, tasks[0].model_name(), tasks[0].name(), way, budget(way)) {
            row = costs(row, it);
        }
        let all: Vec<f64> = tasks
            .iter()
            .map(|task| quality(found, task.model_name(), task.name(), way, budget(way)))
            .filter(|it| it.is_finite())
            .collect();
        let mean = mean_and_error(&all).0;
        if way.teach != Teach::Head && all.len() == tasks.len() {
            means.push((way, mean));
        }
        if !row.values.is_empty() {
            evidence.rows.push(row);
        }
    }
    expect(&mut evidence, found, tasks, &means);
    evidence.notes.push(format!(
        "The built-in encoder on two tasks (words of a sentence in another order, {} texts; words that came before) and the tiny \
         built-in language model on one (a sentence told again in the present, without articles; tokens right). Each way at the best \
         of four learning rates, as many multiples of its usual one, chosen in {} steps with another seed on other texts; {} steps, \
         means of {} seeds; methods in the largest size within {} % of the model's numbers, heads counted apart. Costs are those of \
         the first task. The tasks are generated; GLUE, WMT and MMLU are not measured.",
        scale.learn,
        scale.choosing,
        scale.steps,
        scale.seeds,
        100.0 * BUDGET
    ));
    left_out(&mut evidence, found);
    lab.progress("done", 1.0);
    evidence
}

fn expect(evidence: &mut Evidence, found: &[Found], tasks: &[&dyn Task], means: &[(Way, f64)]) {
    let full = means.iter().find(|it| it.0 == FULL).map_or(f64::NAN, |it| it.1);
    let methods: Vec<&(Way, f64)> = means.iter().filter(|it| it.0 != FULL).collect();
    let near = methods.iter().filter(|it| it.1 >= full - 3.0).count();
    let said: Vec<String> = methods.iter().map(|(way, mean)| format!("{way} {mean:.1}")).collect();
    evidence.expect(
        "At least two thirds of the methods are within 3 points of training all weights, as means over the tasks.",
        format!("{near} of {}; all weights {full:.1} %, {}", methods.len(), said.join(", ")),
        3 * near >= 2 * methods.len() && !methods.is_empty(),
    );
    let (runs, wrong) = formulas(found);
    evidence.expect(
        "Every method trains as many numbers as its formula says, exactly.",
        if wrong.is_empty() { format!("in all {runs} runs") } else { wrong.join(", ") },
        runs > 0 && wrong.is_empty(),
    );
    let first = tasks[0];
    let held = |kind: Option<Kind>| {
        let way = kind.map_or(FULL, Way::adapter);
        let it = of(found, first.model_name(), first.name(), way, budget(way))?;
        Some(it.runs.first()?.measured_bytes? as f64 / f64::from(1 << 20))
    };
    let side = held(Some(Kind::Sherl));
    let light = [held(Some(Kind::Bitfit)), held(Some(Kind::Ia3))];
    let lora = held(Some(Kind::Lora));
    let wide = [held(Some(Kind::Bottleneck)), held(Some(Kind::Parallel))];
    let all = held(None);
    let mib = |it: Option<f64>| it.map_or("not measured".to_owned(), |it| format!("{it:.2} MiB"));
    let less = |a: Option<f64>, b: Option<f64>| a.zip(b).is_some_and(|(a, b)| a < b);
    evidence.expect(
        "Memory grows in this order: side network, BitFit and (IA)³, LoRA, adapters, all weights.",
        format!(
            "side network {}, BitFit {}, (IA)³ {}, LoRA {}, bottleneck {}, parallel {}, all weights {}",
            mib(side),
            mib(light[0]),
            mib(light[1]),
            mib(lora),
            mib(wide[0]),
            mib(wide[1]),
            mib(all)
        ),
        light.iter().all(|it| less(side, *it) && less(*it, lora))
            && wide.iter().all(|it| less(lora, *it) && less(*it, all)),
    );
    let apart: Vec<f64> = found
        .iter()
        .filter(|it| it.way == Way::adapter(Kind::Lora))
        .flat_map(|it| &it.runs)
        .filter_map(|run| run.merged_error)
        .collect();
    let most = apart.iter().copied().fold(0.0, f64::max);
    evidence.expect(
        "What a merged LoRA says is within 1e-4 of what it says beside its base, of the largest.",
        format!("{most:.1e} at most, of {} models", apart.len()),
        !apart.is_empty() && most <= 1e-4,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::Desk;

    #[test]
    fn a_small_grid_gives_evidence() {
        let scale =
            Scale { learn: 60, test: 12, choosing: 1, steps: 2, seeds: 1, methods: &[Kind::Lora, Kind::Ia3] };
        let evidence = measure(&Desk, &scale).expect("evidence");
        evidence.check().expect("whole");
        assert_eq!(evidence.rows.len(), 4);
        let formula = &evidence.expectations[1];
        assert!(formula.holds, "{}", formula.measured);
        assert!(evidence.expectations[3].holds, "{}", evidence.expectations[3].measured);
    }
}
