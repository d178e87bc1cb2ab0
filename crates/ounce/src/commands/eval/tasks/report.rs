//! What came of tasks: a table, JSON with the keys of lm-evaluation-harness, and every question by itself.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use ounce_eval::bootstrap::{Interval, SAMPLES};
use ounce_eval::perplexity::Estimate;
use ounce_eval::tasks::{Item, Measure, Outcome as Answered, Response, Task};
use ounce_model::storage::AtomicFile;
use serde_json::{Map, Value, json};

use super::{Asked, TaskArgs};
use crate::output;

/// Prints a table of scores, with the other model's beside them.
pub(super) fn print(
    tasks: &[Task],
    asked: &Asked,
    original: Option<&Asked>,
    seed: u32,
    seconds: f64,
) -> anyhow::Result<()> {
    let seed = u64::from(seed);
    match original {
        Some(original) => {
            output::line(format!("{} against {}", asked.model, original.model))?;
            let head = [
                "task",
                "filter",
                "examples",
                "metric",
                "",
                "original",
                "model",
                "change",
                "95 %",
                "questions",
            ];
            let mut table = output::table(&head);
            for (task, measure, change, other, items) in pairs(tasks, asked, original, seed) {
                let [name, filter, examples, metric, arrow] = heads(task, measure);
                let number = |value: f64| format!("{value:.4}");
                let range = change.map(|it| format!("{:+.4} to {:+.4}", it.low, it.high)).unwrap_or_default();
                table.add_row([
                    name,
                    filter,
                    examples,
                    metric,
                    arrow,
                    number(other.estimate(seed).value),
                    number(measure.estimate(seed).value),
                    change.map(|it| format!("{:+.4}", it.value)).unwrap_or_default(),
                    range,
                    items.to_string(),
                ]);
            }
            output::print_table(&table)?;
        }
        None => {
            output::line(&asked.model)?;
            let mut table =
                output::table(&["task", "filter", "examples", "metric", "", "value", "stderr", "questions"]);
            for (task, answered) in tasks.iter().zip(&asked.answers) {
                for measure in &answered.measures {
                    let Estimate { value, stderr } = measure.estimate(seed);
                    let [name, filter, examples, metric, arrow] = heads(task, measure);
                    table.add_row([
                        name,
                        filter,
                        examples,
                        metric,
                        arrow,
                        format!("{value:.4}"),
                        stderr.map(|it| format!("± {it:.4}")).unwrap_or_default(),
                        answered.items.len().to_string(),
                    ]);
                }
            }
            output::print_table(&table)?;
        }
    }
    let known: usize =
        [Some(asked), original].into_iter().flatten().flat_map(|it| &it.answers).map(|it| it.known).sum();
    let known = if known > 0 { format!(", {known} answers known from before") } else { String::new() };
    output::note(&format!("{seconds:.1} s{known}"));
    Ok(())
}

/// A task's measures with the other model's: the change is model less original.
fn pairs<'a>(
    tasks: &'a [Task],
    asked: &'a Asked,
    original: &'a Asked,
    seed: u64,
) -> impl Iterator<Item = (&'a Task, &'a Measure, Option<Interval>, &'a Measure, usize)> {
    let answers = asked.answers.iter().zip(&original.answers);
    tasks.iter().zip(answers).flat_map(move |(task, (ours, theirs))| {
        let both = ours.measures.iter().zip(&theirs.measures);
        both.map(move |(our, their)| (task, our, our.change_from(their, seed), their, ours.items.len()))
    })
}

fn heads(task: &Task, measure: &Measure) -> [String; 5] {
    let arrow = if measure.higher_is_better { "↑" } else { "↓" };
    let examples = task.config.num_fewshot.unwrap_or(0).to_string();
    [task.config.task.clone(), measure.filter.clone(), examples, measure.metric.clone(), arrow.to_string()]
}

/// Everything, under the keys that the harness uses.
pub(super) fn json(
    args: &TaskArgs,
    tasks: &[Task],
    asked: &Asked,
    original: Option<&Asked>,
    chat: bool,
    seconds: f64,
) -> Value {
    let seed = u64::from(args.seed);
    let by_task = |value: &dyn Fn(&Task, &Answered) -> Value| -> Value {
        let all = tasks.iter().zip(&asked.answers);
        Value::Object(all.map(|(task, answered)| (task.config.task.clone(), value(task, answered))).collect())
    };
    let mut report = json!({
        "model": asked.model,
        "results": results(asked, seed),
        "versions": by_task(&|task, _| task.config.version()),
        "n-shot": by_task(&|task, _| task.config.num_fewshot.unwrap_or(0).into()),
        "higher_is_better": by_task(&|_, answered| {
            let each = answered.measures.iter().map(|it| (it.metric.clone(), Value::from(it.higher_is_better)));
            Value::Object(each.collect())
        }),
        "n-samples": by_task(&|task, answered| {
            json!({"original": task.len(), "effective": answered.items.len()})
        }),
        "configs": by_task(&|task, _| Value::Object(task.config.raw.clone())),
        "config": {
            "limit": args.limit,
            "fewshot_seed": args.seed,
            "bootstrap_iters": SAMPLES,
            "chat": chat,
            "ounce": env!("CARGO_PKG_VERSION"),
        },
        "known_answers": by_task(&|_, answered| answered.known.into()),
        "seconds": seconds,
    });
    if let Some(original) = original {
        let mut changes: Map<String, Value> = Map::new();
        for (task, measure, change, _, _) in pairs(tasks, asked, original, seed) {
            let of_task = changes.entry(task.config.task.clone()).or_insert_with(|| json!({}));
            of_task[measure.key()] = json!(change);
        }
        report["original"] = json!({"model": original.model, "results": results(original, seed)});
        report["change"] = Value::Object(changes);
    }
    report
}

fn results(asked: &Asked, seed: u64) -> Value {
    let of_task = |answered: &Answered| {
        let mut values = Map::from_iter([("alias".to_string(), Value::from(answered.task.as_str()))]);
        for measure in &answered.measures {
            let Estimate { value, stderr } = measure.estimate(seed);
            values.insert(measure.key(), json!(value));
            values.insert(measure.stderr_key(), json!(stderr));
        }
        Value::Object(values)
    };
    Value::Object(asked.answers.iter().map(|answered| (answered.task.clone(), of_task(answered))).collect())
}

/// Writes a line for each question, filter and model.
pub(super) fn samples<'a>(
    file: &Path,
    tasks: &[Task],
    models: impl Iterator<Item = &'a Asked>,
) -> anyhow::Result<()> {
    let mut out = AtomicFile::create(file)?;
    for asked in models {
        for (task, answered) in tasks.iter().zip(&asked.answers) {
            for (at, item) in answered.items.iter().enumerate() {
                for filter in filters(answered) {
                    let line = sample(asked, task, answered, (at, item), filter);
                    writeln!(out, "{line}")
                        .with_context(|| format!("{} can't be written", file.display()))?;
                }
            }
        }
    }
    Ok(out.commit()?)
}

/// Names of filters, each once.
fn filters(answered: &Answered) -> Vec<&str> {
    let mut names: Vec<&str> = answered.measures.iter().map(|it| it.filter.as_str()).collect();
    names.dedup();
    names
}

fn sample(
    asked: &Asked,
    task: &Task,
    answered: &Answered,
    (at, item): (usize, &Item),
    filter: &str,
) -> Value {
    let responses: Vec<Value> = item
        .responses
        .iter()
        .map(|response| match response {
            Response::Likelihood { log_likelihood, greedy } => json!([log_likelihood, greedy]),
            Response::Text { text } => json!(text),
        })
        .collect();
    let filtered = item.filtered.iter().find(|(name, _)| name == filter).map(|(_, texts)| json!(texts));
    let mut line = json!({
        "model": asked.model,
        "task": answered.task,
        "doc_id": item.document,
        "doc": task.document(item.document),
        "target": item.target,
        "arguments": item.arguments,
        "resps": responses,
        "filter": filter,
        "filtered_resps": filtered.unwrap_or_else(|| Value::Array(responses.clone())),
        "metrics": answered.measures.iter().filter(|it| it.filter == filter).map(|it| &it.metric).collect::<Vec<_>>(),
    });
    for measure in answered.measures.iter().filter(|it| it.filter == filter) {
        line[&measure.metric] = json!(measure.items().nth(at));
    }
    line
}
