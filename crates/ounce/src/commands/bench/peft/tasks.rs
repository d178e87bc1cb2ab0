//! The tasks of a grid, each on its models.

use anyhow::bail;
use ounce_eval::method::Lab;
use ounce_lab::bench::Workbench;
use ounce_model::Model;
use ounce_peft::grid::tasks::retell::Retell;
use ounce_peft::grid::tasks::sentences::{Asks, Sentences};
use ounce_peft::grid::{Grid, Task};

use super::Args;
use super::files::Files;
use crate::source;

/// Texts to learn from and to be judged by, of built-in tasks.
const LEARN: usize = 2000;
const TEST: usize = 200;

/// The tasks that are asked for.
pub(super) fn of(args: &Args, plan: &Grid) -> anyhow::Result<Vec<Box<dyn Task>>> {
    let lab = Workbench::new(args.seed, |_: &str, _: f64| {});
    let mut tasks: Vec<Box<dyn Task>> = Vec::new();
    if !args.data.is_empty() {
        for name in &args.models {
            tasks.push(Box::new(Files::new(args, plan, name)?));
        }
        return Ok(tasks);
    }
    let usual = ["order".to_owned()];
    for task in if args.tasks.is_empty() { &usual[..] } else { &args.tasks } {
        let own: &[&str] = match task.as_str() {
            "order" | "repeats" => &["builtin-encoder"],
            "retell" => &["builtin-tiny"],
            _ => bail!("{task:?} is no built-in task; there are order, repeats and retell"),
        };
        let names: Vec<&str> = match args.models.is_empty() {
            true => own.to_vec(),
            false => args.models.iter().map(String::as_str).collect(),
        };
        for name in names {
            tasks.push(built_in(&lab, task, name, &source::open(name)?)?);
        }
    }
    Ok(tasks)
}

fn built_in(lab: &dyn Lab, task: &str, name: &str, model: &Model) -> anyhow::Result<Box<dyn Task>> {
    let sentences = |asks| Sentences::new(lab, model, name, asks, LEARN, TEST);
    Ok(match task {
        "order" => Box::new(sentences(Asks::Order)?),
        "repeats" => Box::new(sentences(Asks::Repeats)?),
        _ => Box::new(Retell::new(lab, model.clone(), name, LEARN, TEST)?),
    })
}
