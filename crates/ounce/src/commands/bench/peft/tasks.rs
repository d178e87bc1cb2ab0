//! The tasks of a grid, each on its models.

use anyhow::bail;
use ounce_eval::method::Lab;
use ounce_lab::bench::Workbench;
use ounce_model::Model;
use ounce_model::formats::{WriteOptions, hf};
use ounce_peft::grid::tasks::base::{self, Size};
use ounce_peft::grid::tasks::code::{Code, Writes};
use ounce_peft::grid::tasks::retell::Retell;
use ounce_peft::grid::tasks::sentences::{Asks, Sentences};
use ounce_peft::grid::{Grid, Task};

use super::Args;
use super::files::Files;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::source;

/// Texts to learn from and to be judged by, of built-in tasks.
const LEARN: usize = 2000;
const TEST: usize = 200;
/// Functions to be judged by.
const CODE_TEST: usize = 60;
/// Steps in which models learn what programs are.
const BASE_STEPS: u64 = 500;

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
            "unit-tests" | "programs" => &["small"],
            _ => bail!(
                "{task:?} is no built-in task; there are order, repeats, retell, unit-tests and programs"
            ),
        };
        let names: Vec<&str> = match args.models.is_empty() {
            true => own.to_vec(),
            false => args.models.iter().map(String::as_str).collect(),
        };
        for name in names {
            tasks.push(built_in(&lab, task, name, &model(args, name)?)?);
        }
    }
    Ok(tasks)
}

/// A model by its name; those that know programs are trained once and kept beside the results.
fn model(args: &Args, name: &str) -> anyhow::Result<Model> {
    let Some(size) = Size::parse(name) else { return source::open(name) };
    let folder = args.output.join(format!("base-{name}-{}", args.seed));
    if folder.is_dir() {
        return Ok(Model::open(&folder)?);
    }
    let watch = Watch::start();
    let mut bar = Progress::new(&format!("a model that knows programs, {name}"), Unit::Items);
    let trained = base::trained(size, BASE_STEPS, args.seed, &mut |step| {
        bar.set(step, BASE_STEPS);
        Ok(watch.check()?)
    })?;
    hf::write_model(&trained, &folder, &WriteOptions::default(), &mut |_, _| watch.check())?;
    Ok(Model::open(&folder)?)
}

fn built_in(lab: &dyn Lab, task: &str, name: &str, model: &Model) -> anyhow::Result<Box<dyn Task>> {
    let sentences = |asks| Sentences::new(lab, model, name, asks, LEARN, TEST);
    Ok(match task {
        "order" => Box::new(sentences(Asks::Order)?),
        "repeats" => Box::new(sentences(Asks::Repeats)?),
        "unit-tests" | "programs" => {
            let writes = if task == "programs" { Writes::Programs } else { Writes::Tests };
            Box::new(Code::new(model.clone(), name, writes, LEARN, CODE_TEST, lab.seed())?)
        }
        _ => Box::new(Retell::new(lab, model.clone(), name, LEARN, TEST)?),
    })
}
