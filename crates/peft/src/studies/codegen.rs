//! Code generation (method 080): "Exploring Parameter-Efficient Fine-Tuning Techniques for Code Generation with Large Language Models",
//! arXiv 2308.10462. Functions are written for sentences with words that the model does not know yet: by examples in front of the
//! question, by adapters on a larger model, plain and quantized, and by all weights of a smaller one.

use ounce_eval::method::{DemonstrationError, Evidence, Family, Lab, Method, Row};
use ounce_kernels::DType;

use super::{RATES, base, costs, of, run, values};
use crate::grid::tasks::base::Size;
use crate::grid::tasks::code::{Code, Writes};
use crate::grid::{Found, Grid, Task, Teach, Way};
use crate::{Kind, Result};

const NUMBER: u16 = 80;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "PEFT for code generation",
    family: Family::Peft,
    paper: "Exploring Parameter-Efficient Fine-Tuning Techniques for Code Generation with Large Language Models",
    arxiv: Some("2308.10462"),
    gives: "A grid of runs tells, for the memory at hand, whether prompting, tuning a small model or adapting a large one writes the best code.",
    claim: "Adapters beat in-context learning over many models, and LoRA on a large model beats full tuning of a small one.",
    command: Some(
        "ounce bench peft --tasks programs --models small,large --methods none,shots-3,nearest-3,copied,full,lora,ia3,prompt,prefix,lora@q8_0",
    ),
    demonstrate: Some(demonstrate),
};

/// Sizes of the demonstration.
struct Scale {
    base: u64,
    learn: usize,
    test: usize,
    choosing: u64,
    steps: u64,
    seeds: u64,
}

const NONE: Way = Way::of(Teach::Nothing);
const FULL: Way = Way::of(Teach::Full);
const COPIED: Way = Way::of(Teach::Copied);
const DRAWN: Way = Way::of(Teach::Examples { count: 3, nearest: false });
const NEAREST: Way = Way::of(Teach::Examples { count: 3, nearest: true });
const LORA: Way = Way::adapter(Kind::Lora);
const IA3: Way = Way::adapter(Kind::Ia3);
const PROMPT: Way = Way::adapter(Kind::Prompt);
const PREFIX: Way = Way::adapter(Kind::Prefix);
const LORA_8: Way = Way { teach: Teach::Adapter(Kind::Lora), base: Some(DType::Q8_0) };
const LORA_4: Way = Way { teach: Teach::Adapter(Kind::Lora), base: Some(DType::Q4_0) };
const SHOWN: [Way; 4] = [NONE, DRAWN, NEAREST, COPIED];
const PEFT: [Way; 6] = [LORA, IA3, PROMPT, PREFIX, LORA_8, LORA_4];
const TASK: &str = "programs";

fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let scale = Scale { base: 2500, learn: 2000, test: 40, choosing: 60, steps: 240, seeds: 3 };
    measure(lab, &scale).map_err(DemonstrationError::step(NUMBER, "functions from sentences"))
}

fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let plan = Grid {
        choosing: scale.choosing,
        steps: scale.steps,
        seeds: scale.seeds,
        first_seed: lab.seed() * 1000,
        looks: false,
        multiples: RATES.to_vec(),
        ..Grid::default()
    };
    let mut found = Vec::new();
    let parts = [
        (Size::Small, vec![NONE, FULL], [0.0, 0.25]),
        (Size::Large, [&SHOWN[..], &PEFT].concat(), [0.25, 1.0]),
    ];
    for (size, ways, [from, to]) in parts {
        let middle = from + 0.3 * (to - from);
        let model = base(lab, size, scale.base, [from, middle])?;
        let task = Code::new(model, size.name(), Writes::Programs, scale.learn, scale.test, lab.seed())?;
        found.extend(run(lab, &[&task as &dyn Task], &Grid { ways, ..plan.clone() }, [middle, to])?);
    }
    let mut evidence = Evidence::new(NUMBER, lab.seed(), label(Size::Small, FULL));
    for it in found.iter().filter(|it| !it.runs.is_empty()) {
        let size = if it.model == Size::Small.name() { Size::Small } else { Size::Large };
        evidence.rows.push(costs(values(Row::new(label(size, it.way)), it, ""), it));
    }
    expect(&mut evidence, &found);
    evidence.notes = vec![
        format!(
            "Two models were trained on programs, on what expressions of numbers come to, and on sentences that ask for sums, differences and \
             products, {} steps. The task adds sentences with the smaller, the larger and the size, of up to two operators. Learned from {} pairs, {} \
             steps, at the best of four learning rates (chosen in {} steps with another seed on other pairs), means of {} seeds; methods in \
             their usual sizes. Judged by {} sentences whose programs are in none of the texts, nor others that do the same. pass@1 is the likeliest answer's, on all \
             values from 0 to 4; pass@2 is estimated without bias from 4 answers drawn at a temperature of 0.8.",
            scale.base, scale.learn, scale.steps, scale.choosing, scale.seeds, scale.test
        ),
        "Examples in front of questions need a model that follows a format; one of this size hardly does, so the answer of the nearest \
         example (by BM25), copied, stands beside them. CoNaLa, CodeAlpaca and APPS are not measured."
            .into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn label(size: Size, way: Way) -> String {
    format!("{way}, {}", size.name())
}

fn expect(evidence: &mut Evidence, found: &[Found]) {
    let value = |size: Size, way, name: &str| {
        of(found, size.name(), TASK, way, None).map_or(f64::NAN, |it| it.mean(|run| run.value(name)).0)
    };
    let exact = |way| value(Size::Large, way, "exact match");
    let passed = |way| value(Size::Large, way, "pass@1");
    let said = |ways: &[Way]| -> String {
        let each = |way: &Way| format!("{way} {:.1} and {:.1}", exact(*way), passed(*way));
        ways.iter().map(each).collect::<Vec<_>>().join(", ")
    };
    evidence.expect(
        "LoRA has at least the exact matches and the pass@1 of prompt tuning and of (IA)³.",
        format!("exact match and pass@1: {} %", said(&[LORA, PROMPT, IA3])),
        [PROMPT, IA3].into_iter().all(|way| exact(LORA) >= exact(way) && passed(LORA) >= passed(way)),
    );
    let best = SHOWN.into_iter().map(passed).fold(f64::NEG_INFINITY, f64::max);
    evidence.expect(
        "Every adapter has a higher pass@1 than the best of no examples, three drawn, the three nearest and the nearest one's answer.",
        format!("exact match and pass@1: {} %; {} %", said(&PEFT), said(&SHOWN)),
        PEFT.into_iter().all(|way| passed(way) > best),
    );
    let held = |size: Size, way| {
        of(found, size.name(), TASK, way, None).and_then(|it| it.runs.first()?.measured_bytes)
    };
    let small = value(Size::Small, FULL, "pass@1");
    let mib = |it: Option<u64>| {
        it.map_or("not measured".to_owned(), |it| format!("{:.2} MiB", it as f64 / f64::from(1 << 20)))
    };
    let memory = [held(Size::Large, LORA), held(Size::Large, LORA_4), held(Size::Small, FULL)];
    evidence.expect(
        "LoRA on the larger model has a higher pass@1 than all weights of the smaller one, in no more memory.",
        format!(
            "{:.1} against {small:.1} %; {} (4 bits: {:.1} %, {}) against {}",
            passed(LORA),
            mib(memory[0]),
            passed(LORA_4),
            mib(memory[1]),
            mib(memory[2])
        ),
        passed(LORA) > small && memory[0].zip(memory[2]).is_some_and(|(own, other)| own <= other),
    );
    evidence.expect(
        "LoRA on 8 and on 4 bits is within 2 points of LoRA's pass@1.",
        format!("{:.1} and {:.1} against {:.1} %", passed(LORA_8), passed(LORA_4), passed(LORA)),
        [LORA_8, LORA_4].into_iter().all(|way| passed(way) >= passed(LORA) - 2.0),
    );
    let shown = [DRAWN, NEAREST].into_iter().map(passed).fold(f64::NEG_INFINITY, f64::max);
    let between = passed(IA3).max(passed(PREFIX));
    evidence.expect(
        "By pass@1 the order is LoRA, (IA)³ and prefix tuning, prompt tuning, examples, nothing.",
        format!(
            "{:.1}, {:.1} and {:.1}, {:.1}, {shown:.1}, {:.1} %",
            passed(LORA),
            passed(IA3),
            passed(PREFIX),
            passed(PROMPT),
            passed(NONE)
        ),
        passed(LORA) >= between
            && passed(IA3).min(passed(PREFIX)) >= passed(PROMPT)
            && passed(PROMPT) > shown
            && shown > passed(NONE),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::Desk;

    #[test]
    fn a_small_grid_gives_evidence() {
        let scale = Scale { base: 2, learn: 30, test: 2, choosing: 1, steps: 2, seeds: 1 };
        let evidence = measure(&Desk, &scale).expect("evidence");
        evidence.check().expect("whole");
        assert_eq!(evidence.rows.len(), 12);
        let copied = evidence.row("copied, large").and_then(|row| row.get("pass@1")).expect("a value");
        assert!((0.0..=100.0).contains(&copied));
        let four =
            evidence.row("lora@q4_0, large").and_then(|row| row.get("memory, forecast")).expect("a value");
        let plain = evidence.row("lora, large").and_then(|row| row.get("memory, forecast")).expect("a value");
        assert!(four < plain, "{four} {plain}");
    }
}
