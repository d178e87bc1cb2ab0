//! Unit tests (method 036): "Parameter-Efficient Fine-Tuning of Large Language Models for Unit Test Generation: An Empirical Study",
//! arXiv 2411.02462. Models of a small language of functions learn to write tests, by four ways; tests are run on the function and on
//! faulty ones.

use ounce_eval::method::{DemonstrationError, Evidence, Family, Lab, Method, Row};

use super::{RATES, base, costs, of, quality, run, values};
use crate::grid::tasks::base::Size;
use crate::grid::tasks::code::{Code, Writes};
use crate::grid::{Found, Grid, Task, Teach, Way};
use crate::{Kind, Result, Settings};

const NUMBER: u16 = 36;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "PEFT for unit tests",
    family: Family::Peft,
    paper: "Parameter-Efficient Fine-Tuning of Large Language Models for Unit Test Generation: An Empirical Study",
    arxiv: Some("2411.02462"),
    gives: "A bench tunes a code model to write unit tests by four methods and prints the quality bought per parameter, byte and minute.",
    claim: "LoRA comes close to full fine-tuning in several cases, and prompt tuning is the cheapest.",
    command: Some("ounce bench peft --tasks unit-tests --methods none,full,lora,ia3,prompt"),
    demonstrate: Some(demonstrate),
};

/// Sizes of the demonstration.
struct Scale {
    sizes: &'static [Size],
    base: u64,
    learn: usize,
    test: usize,
    choosing: u64,
    steps: u64,
    seeds: u64,
}

const NONE: Way = Way::of(Teach::Nothing);
const FULL: Way = Way::of(Teach::Full);
const LORA: Way = Way::adapter(Kind::Lora);
const IA3: Way = Way::adapter(Kind::Ia3);
const PROMPT: Way = Way::adapter(Kind::Prompt);
const PEFT: [Way; 3] = [LORA, IA3, PROMPT];

/// The most that LoRA trains, of the model's numbers.
const BUDGET: f64 = 0.05;

fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let scale = Scale {
        sizes: &[Size::Small, Size::Large],
        base: 2500,
        learn: 2000,
        test: 40,
        choosing: 60,
        steps: 300,
        seeds: 3,
    };
    measure(lab, &scale).map_err(DemonstrationError::step(NUMBER, "tests of functions"))
}

fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let mut found = Vec::new();
    let share = 1.0 / scale.sizes.len() as f64;
    for (at, &size) in scale.sizes.iter().enumerate() {
        let from = at as f64 * share;
        let model = base(lab, size, scale.base, [from, from + 0.3 * share])?;
        let task = Code::new(model, size.name(), Writes::Tests, scale.learn, scale.test, lab.seed())?;
        let plan = Grid {
            ways: vec![NONE, FULL, IA3, PROMPT],
            usual: settings,
            multiples: RATES.to_vec(),
            choosing: scale.choosing,
            steps: scale.steps,
            seeds: scale.seeds,
            first_seed: lab.seed() * 1000,
            looks: false,
            ..Grid::default()
        };
        let lora = Grid { ways: vec![LORA], budgets: vec![Some(BUDGET)], ..plan.clone() };
        let tasks = [&task as &dyn Task];
        found.extend(run(lab, &tasks, &plan, [from + 0.3 * share, from + 0.8 * share])?);
        found.extend(run(lab, &tasks, &lora, [from + 0.8 * share, from + share])?);
    }
    Ok(evidence(lab, scale, &found))
}

fn budget(way: Way) -> Option<f64> {
    (way == LORA).then_some(BUDGET)
}

/// So many vectors in front of a text that they are fewer numbers than (IA)³'s, as they are in models of usual depth.
const VECTORS: usize = 8;

fn settings(kind: Kind) -> Settings {
    let usual = Settings::of(kind);
    if kind == Kind::Prompt { Settings { tokens: VECTORS, ..usual } } else { usual }
}

const TASK: &str = "unit-tests";

fn label(way: Way, size: Size) -> String {
    let name = match way.teach {
        Teach::Nothing => "as it is".to_owned(),
        Teach::Full => "all weights".to_owned(),
        _ => way.to_string(),
    };
    format!("{name}, {}", size.name())
}

fn evidence(lab: &dyn Lab, scale: &Scale, found: &[Found]) -> Evidence {
    let mut evidence = Evidence::new(NUMBER, lab.seed(), label(FULL, scale.sizes[0]));
    for &size in scale.sizes {
        for way in [NONE, FULL].into_iter().chain(PEFT) {
            let Some(it) = of(found, size.name(), TASK, way, budget(way)) else { continue };
            let mut row = costs(values(Row::new(label(way, size)), it, ""), it);
            if way.trains() {
                let seconds: f64 = it.runs.iter().map(|run| run.step_seconds * run.cell.steps as f64).sum();
                row = row.with("training", seconds / it.runs.len() as f64, "s");
                let gained = it.quality().0 - quality(found, size.name(), TASK, NONE, None);
                let thousand = it.runs[0].trained as f64 / 1e3;
                row = row.with("points gained by a thousand numbers", gained / thousand, "");
            }
            evidence.rows.push(row);
        }
    }
    for &size in scale.sizes {
        expect(&mut evidence, found, size);
    }
    evidence.notes = vec![
        format!(
            "Models of {} were trained on programs, on what expressions of numbers come to, and on sentences that ask for programs, {} steps, \
             and on no tests. Then each way learns from {} functions with three true assertions each, {} steps, at the best of four \
             learning rates (chosen in {} steps with another seed on other functions), means of {} seeds. Judged by {} functions that are in \
             none of the texts, nor are others that do the same. A suite that can't be read counts as three false assertions; mutants are functions with one fault, \
             killed by an assertion that is true of the right one. LoRA is as large as {} % of the model's numbers allow; a prompt has {VECTORS} vectors.",
            if scale.sizes.len() > 1 { "two sizes" } else { "one size" },
            scale.base,
            scale.learn,
            scale.steps,
            scale.choosing,
            scale.seeds,
            scale.test,
            100.0 * BUDGET
        ),
        "A generated language, models of some ten to hundred thousand weights; Java, METHODS2TEST and HumanEval-X are not measured. \
         Likeness is smaller than CodeBLEU: it has no data flow."
            .into(),
    ];
    lab.progress("done", 1.0);
    evidence
}

fn expect(evidence: &mut Evidence, found: &[Found], size: Size) {
    let name = size.name();
    let right = |way| quality(found, name, TASK, way, budget(way));
    let said: Vec<String> =
        [NONE, FULL].into_iter().chain(PEFT).map(|way| format!("{} {:.1} %", way, right(way))).collect();
    evidence.expect(
        format!("The {name} model: every method makes more assertions true than the model as it is."),
        said.join(", "),
        PEFT.into_iter().all(|way| right(way) > right(NONE)),
    );
    let share = of(found, name, TASK, LORA, budget(LORA)).map_or(f64::NAN, |it| 100.0 * it.runs[0].share());
    evidence.expect(
        format!(
            "The {name} model: LoRA with under 5 % of the numbers is within 5 points of training all weights."
        ),
        format!("{:.1} against {:.1} %, {share:.2} % of the numbers", right(LORA), right(FULL)),
        right(LORA) >= right(FULL) - 5.0 && share < 5.0,
    );
    let first = |way| of(found, name, TASK, way, budget(way)).and_then(|it| it.runs.first());
    let bytes = |way| first(way).map_or(0, |run| run.adapter_bytes);
    evidence.expect(
        format!("The {name} model: files grow in the order prompt, (IA)³, LoRA, all weights."),
        format!("{}, {}, {}, {} bytes", bytes(PROMPT), bytes(IA3), bytes(LORA), bytes(FULL)),
        bytes(PROMPT) < bytes(IA3) && bytes(IA3) < bytes(LORA) && bytes(LORA) < bytes(FULL),
    );
    let held = |way| first(way).and_then(|run| run.measured_bytes);
    let kib = |way| held(way).map_or("not measured".to_owned(), |it| format!("{} KiB", it / 1024));
    evidence.expect(
        format!("The {name} model: every method needs less memory than training all weights."),
        format!("prompt {}, (IA)³ {}, LoRA {}, all weights {}", kib(PROMPT), kib(IA3), kib(LORA), kib(FULL)),
        PEFT.into_iter().all(|way| held(way).zip(held(FULL)).is_some_and(|(own, full)| own < full)),
    );
    let by_number = |way| {
        let trained = first(way).map_or(1, |run| run.trained.max(1)) as f64;
        1e3 * (right(way) - right(NONE)) / trained
    };
    let ways = [FULL, LORA, IA3, PROMPT];
    let said: Vec<String> = ways.into_iter().map(|way| format!("{way} {:.2}", by_number(way))).collect();
    evidence.expect(
        format!("The {name} model: prompt tuning gains most points by number that it trains."),
        said.join(", "),
        ways.into_iter().all(|way| way == PROMPT || by_number(PROMPT) > by_number(way)),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::Desk;

    #[test]
    fn a_small_grid_gives_evidence() {
        let scale =
            Scale { sizes: &[Size::Small], base: 2, learn: 30, test: 3, choosing: 1, steps: 2, seeds: 1 };
        let evidence = measure(&Desk, &scale).expect("evidence");
        evidence.check().expect("whole");
        assert_eq!((evidence.rows.len(), evidence.expectations.len()), (5, 5));
        let value = |row: usize, name: &str| evidence.rows[row].get(name).expect("a value");
        assert!((0.0..=100.0).contains(&value(2, "assertions true")), "{evidence:?}");
        assert!(value(2, "share of the model's") <= 5.0);
    }
}
