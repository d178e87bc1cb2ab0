//! Measures ADED on the built-in model, at equal size of the drafts: plain decoding, prompt look-up, a chain of a table that
//! stays as it was counted, and the search with and without adaptation; on prompts of the text the table was counted on, and
//! of another one.

use ounce_engine::draft::{PromptLookup, Search, TriGrams};
use ounce_engine::{Engine, Mode};
use ounce_eval::method::{DemonstrationError, Evidence, Fixture, Lab, Row, Text};
use ounce_eval::stats::mean_and_error;

use super::{Drafter, NUMBER, write};
use crate::Result;

const PLAIN: &str = "plain";
const LOOKUP: &str = "prompt look-up";
const STATIC: &str = "table as counted, likeliest chain";
const FIXED: &str = "search, table as counted";
const ADED: &str = "search, table follows the model (ADED)";
const ARMS: [&str; 5] = [PLAIN, LOOKUP, STATIC, FIXED, ADED];

/// How much is done.
struct Plan {
    seeds: usize,
    prompts: usize,
    tokens: usize,
    /// Text that the table is counted on.
    bytes: usize,
}

/// Tokens that a pass checks besides the one that is certain.
const DRAFTED: usize = 8;

pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let plan = Plan { seeds: 3, prompts: 10, tokens: 120, bytes: 40_000 };
    measure(lab, &plan).map_err(DemonstrationError::step(NUMBER, "writing with the built-in model"))
}

fn drafter(arm: &str, table: &TriGrams) -> Drafter {
    let search = Search { paths: 2, depth: DRAFTED / 2, ..Search::default() };
    match arm {
        PLAIN => Drafter::Nobody,
        LOOKUP => Drafter::Lookup { lookup: PromptLookup::default(), depth: DRAFTED },
        STATIC => Drafter::Chain { table: table.clone(), depth: DRAFTED },
        FIXED => Drafter::Tree { table: table.clone(), search, adapt: false },
        _ => Drafter::Tree { table: table.clone(), search, adapt: true },
    }
}

/// What was measured of one way on one kind of prompts, a value a seed.
#[derive(Default, Clone)]
struct Measured {
    tokens_per_pass: Vec<f64>,
    speed: Vec<f64>,
    rows_per_pass: Vec<f64>,
    drafting: Vec<f64>,
}

fn measure(lab: &dyn Lab, plan: &Plan) -> Result<Evidence> {
    let model = lab.model(Fixture::Builtin)?;
    let engine = Engine::load(&model, Mode::fast())?;
    let tokenizer = model
        .tokenizer
        .as_ref()
        .ok_or_else(|| crate::Error::Option("the built-in model has no tokenizer".to_string()))?;
    let counted = tokenizer.encode(&lab.text(Text::Train, plan.bytes), false)?;
    let mut table = TriGrams::new(0.2);
    table.count(&counted);
    let kinds = [("same text", Text::HeldOut), ("shifted", Text::Town)];
    let mut all = vec![vec![Measured::default(); ARMS.len()]; kinds.len()];
    let mut equal = true;
    for seed in 0..plan.seeds {
        for (kind, (name, text)) in kinds.into_iter().enumerate() {
            lab.progress(
                &format!("seed {}: {name}", seed + 1),
                (seed * 2 + kind) as f64 / (2 * plan.seeds) as f64,
            );
            let text = lab.text(text, 400 * plan.prompts * plan.seeds);
            let stories: Vec<&str> = text.split("\n\n").filter(|story| story.len() > 150).collect();
            // A drafter lives through all prompts of a seed, as it does in a server.
            let mut drafters: Vec<Drafter> = ARMS.iter().map(|arm| drafter(arm, &table)).collect();
            let mut sums = vec![[0.0f64; 5]; ARMS.len()];
            for prompt in 0..plan.prompts {
                let story = stories[(seed * plan.prompts + prompt) % stories.len()];
                let mut ids = tokenizer.encode(story, true)?;
                ids.truncate(40);
                let mut expected = None;
                // All ways in turn on each prompt: what else the machine does meets all of them.
                for (arm, name) in ARMS.iter().enumerate() {
                    if *name == LOOKUP {
                        drafters[arm] = drafter(name, &table);
                    }
                    let written = write(&engine, &ids, plan.tokens, &mut drafters[arm])?;
                    equal &= *expected.get_or_insert_with(|| written.tokens.clone()) == written.tokens;
                    let new = [
                        // The first token came of the prompt.
                        (written.tokens.len() - 1) as f64,
                        written.passes as f64,
                        written.rows as f64,
                        written.time.as_secs_f64(),
                        written.drafting.as_secs_f64(),
                    ];
                    sums[arm].iter_mut().zip(new).for_each(|(sum, new)| *sum += new);
                }
            }
            let plain = sums[0][3];
            for (arm, [tokens, passes, rows, time, drafting]) in sums.into_iter().enumerate() {
                let measured = &mut all[kind][arm];
                measured.tokens_per_pass.push(tokens / passes);
                measured.rows_per_pass.push(rows / passes);
                measured.speed.push(plain / time);
                measured.drafting.push(100.0 * drafting / time);
            }
        }
    }
    let mut evidence = Evidence::new(NUMBER, lab.seed(), format!("{PLAIN}, same text"));
    for (kind, (name, _)) in kinds.iter().enumerate() {
        for (arm, measured) in ARMS.iter().zip(&all[kind]) {
            let (tokens, error) = mean_and_error(&measured.tokens_per_pass);
            evidence.rows.push(
                Row::new(format!("{arm}, {name}"))
                    .with("tokens a pass", tokens, "")
                    .with("standard error", error, "")
                    .with("rows a pass", mean_and_error(&measured.rows_per_pass).0, "")
                    .with("speed", mean_and_error(&measured.speed).0, "times plain")
                    .with("drafting", mean_and_error(&measured.drafting).0, "% of the time"),
            );
        }
    }
    let mean = |kind: usize, arm: &str| {
        let arm = ARMS.iter().position(|name| *name == arm).unwrap_or(0);
        let Measured { tokens_per_pass, speed, .. } = &all[kind][arm];
        (mean_and_error(tokens_per_pass).0, mean_and_error(speed).0)
    };
    evidence.expect(
        "every way writes the same tokens as plain decoding",
        if equal { "the same" } else { "they differ" },
        equal,
    );
    let (aded, chain) = (mean(0, ADED), mean(0, STATIC));
    evidence.expect(
        "on the same text ADED gives more tokens a pass than the chain of a fixed table",
        format!("{:.3} against {:.3}", aded.0, chain.0),
        aded.0 > chain.0,
    );
    let (shifted, fixed) = (mean(1, ADED), mean(1, FIXED));
    evidence.expect(
        "on shifted prompts it accepts at least 15 % more drafted tokens a pass than without adaptation",
        format!("{:.3} against {:.3}", shifted.0 - 1.0, fixed.0 - 1.0),
        shifted.0 - 1.0 >= 1.15 * (fixed.0 - 1.0),
    );
    evidence.expect(
        "it decodes at least 1.2 times as fast as plain decoding on the same text",
        format!("{:.2} times", aded.1),
        aded.1 >= 1.2,
    );
    evidence.notes = vec![
        format!(
            "The built-in model of {} parameters, greedy, {} prompts of 40 tokens a seed, {} tokens each, {} seeds; the table was counted on {} tokens \
             of training text. Drafts have up to {DRAFTED} tokens a pass: one chain, or two paths of {}.",
            model.spec.parameters(),
            plan.prompts,
            plan.tokens,
            plan.seeds,
            counted.len(),
            DRAFTED / 2
        ),
        "Paths are sequences of a batch that share the text's keys and values; tokens that two paths have in common are computed twice.".into(),
        "Shifted prompts are of another generated text, which the model was not trained on.".into(),
        "The paper's models and benchmarks weren't measured.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}
