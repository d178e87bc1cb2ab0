//! `ounce eval --tasks`: questions as lm-evaluation-harness asks them, beside another model's answers if one is named.

mod report;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use ounce_eval::tasks::{Cache, Config, Options, Outcome as Answered, Task, evaluate, model_key};
use ounce_lab::tasks::{ALL, BuiltIn};
use ounce_model::storage::AtomicFile;
use ounce_train::data::documents;

use super::{Judged, open};
use crate::cli::Globals;
use crate::compute::ComputeArgs;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, suggest, user_data};

/// Flags of tasks.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Tasks")]
pub struct TaskArgs {
    /// In place of a text's perplexity, ask the questions of these tasks: names of built-in ones (`list` lists them), or
    /// .yaml files as lm-evaluation-harness has them (docs/evaluation.md)
    #[arg(
        long,
        value_name = "TASK,…",
        value_delimiter = ',',
        conflicts_with = "perplexity",
        group = "asked"
    )]
    tasks: Vec<String>,
    /// The file with a task's questions, or with another split's documents, such as train for examples: .jsonl, .json, .csv,
    /// .tsv, .txt, .parquet, the text ones also .gz
    #[arg(long, value_name = "[TASK[:SPLIT]=]FILE", requires = "tasks")]
    data: Vec<String>,
    /// A folder whose .yaml files are tasks too, by their names
    #[arg(long, value_name = "DIR", requires = "tasks")]
    include_path: Option<PathBuf>,
    /// Solved examples before each question, unless the task says 0 [default: as the task says]
    #[arg(long, value_name = "N", requires = "tasks")]
    num_fewshot: Option<usize>,
    /// Arguments of generation in place of the tasks' own, such as max_gen_toks=128 or temperature=0.7
    #[arg(long, value_name = "NAME=VALUE,…", value_delimiter = ',', requires = "tasks", value_parser = argument)]
    gen_kwargs: Vec<(String, serde_json::Value)>,
    /// Only the first N questions of each task
    #[arg(long, value_name = "N", requires = "tasks")]
    limit: Option<usize>,
    /// What examples, sampled answers and bootstraps are drawn by
    #[arg(long, value_name = "N", requires = "tasks", default_value_t = 1234)]
    seed: u32,
    /// Let tasks run the programs that the model writes, on this machine, with limits on time, memory, files and output
    #[arg(long, requires = "tasks")]
    run_code: bool,
    /// Write every question with what came of it to FILE, JSON lines
    #[arg(long, value_name = "FILE", requires = "tasks")]
    log_samples: Option<PathBuf>,
    /// Neither use answers that the same model gave before nor keep new ones
    #[arg(long, requires = "tasks")]
    no_cache: bool,
    /// Write the built-in tasks, and the questions about tales, into a new FOLDER, to learn the format from; needs no MODEL
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["tasks", "perplexity", "model"])]
    write_tasks: Option<PathBuf>,
}

/// A model with its answers, one a task.
#[derive(Debug)]
struct Asked {
    model: String,
    answers: Vec<Answered>,
}

impl TaskArgs {
    /// Whether tasks are asked for.
    pub fn is_given(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Whether only a list of tasks is wanted.
    pub fn lists(&self) -> bool {
        self.tasks == ["list"]
    }

    /// Where the built-in tasks are to be written.
    pub fn writes(&self) -> Option<&Path> {
        self.write_tasks.as_deref()
    }

    fn options(&self) -> Options {
        Options { limit: self.limit, seed: self.seed, run_code: self.run_code }
    }
}

/// Asks a model, and another one if that is wanted.
///
/// # Errors
/// If a task or its data can't be read, a model is an encoder or has no tokenizer, or programs may not be run.
pub fn run(
    args: &TaskArgs,
    judged: &Judged<'_>,
    chat: bool,
    compute: &ComputeArgs,
    globals: &Globals,
) -> anyhow::Result<Outcome> {
    if args.limit == Some(0) {
        bail!("--limit should be 1 or more");
    }
    let tasks = load(args)?;
    let start = Instant::now();
    // Flags of computing are about MODEL, which is the original where another is judged.
    let asked = |name: &str, flags: bool| asked(args, &tasks, name, chat, compute, flags);
    let original = judged.original.map(|name| asked(name, judged.flags_of_original)).transpose()?;
    let asked = asked(judged.model, !judged.flags_of_original)?;
    if let Some(file) = &args.log_samples {
        let models = original.iter().chain([&asked]);
        report::samples(file, &tasks, models)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    if globals.json {
        output::json(&report::json(args, &tasks, &asked, original.as_ref(), chat, seconds))?;
    } else {
        report::print(&tasks, &asked, original.as_ref(), args.seed, seconds)?;
    }
    Ok(Outcome::Done)
}

/// `name=value`, the value as JSON or a text.
fn argument(text: &str) -> Result<(String, serde_json::Value), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("{text:?} should be a name, = and a value, as in max_gen_toks=128"))?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| serde_json::Value::from(value));
    Ok((name.to_owned(), value))
}

/// The tasks that are named, each once.
fn load(args: &TaskArgs) -> anyhow::Result<Vec<Task>> {
    let mut configs: Vec<(Config, Option<&BuiltIn>)> = Vec::new();
    for name in &args.tasks {
        let found = find(name, args.include_path.as_deref())?;
        if configs.iter().any(|(config, _)| config.task == found.0.task) {
            bail!("the task {:?} is named twice; ask it once", found.0.task);
        }
        configs.push(found);
    }
    let mut given = vec![false; configs.len()];
    for data in &args.data {
        let (task, split, file) = data_file(data);
        let at = match task {
            None if configs.len() == 1 => 0,
            None => bail!("--data {file}: say for which task, as in --data {}={file}", configs[0].0.task),
            Some(task) => configs.iter().position(|(config, _)| config.task == task).with_context(|| {
                let names = configs.iter().map(|(config, _)| config.task.as_str());
                let near = suggest::question(&suggest::close(task, names));
                format!("--data {data}: {task:?} is none of the tasks{near}")
            })?,
        };
        configs[at].0.give(split, vec![PathBuf::from(file)]);
        given[at] |= split.is_none();
    }
    let mut tasks = Vec::new();
    for ((mut config, built_in), given) in configs.into_iter().zip(given) {
        if let Some(count) = args.num_fewshot {
            config.ask_with_examples(count);
        }
        if !args.gen_kwargs.is_empty() {
            config.generate_with(&args.gen_kwargs);
        }
        let own = built_in.filter(|it| !given && it.documents().is_some());
        let task = match own {
            Some(built_in) => built_in.task(config).context("the task has documents")??,
            None => Task::load(config, &mut documents)?,
        };
        task.check_code(args.run_code)?;
        tasks.push(task);
    }
    Ok(tasks)
}

/// The task with a name, or in a file.
fn find(name: &str, folder: Option<&Path>) -> anyhow::Result<(Config, Option<&'static BuiltIn>)> {
    let is_file = |name: &str| name.ends_with(".yaml") || name.ends_with(".yml");
    if is_file(name) {
        return Ok((Config::open(Path::new(name))?, None));
    }
    if let Some(file) = folder.map(|it| it.join(format!("{name}.yaml"))).filter(|it| it.is_file()) {
        return Ok((Config::open(&file)?, None));
    }
    if let Some(built_in) = BuiltIn::find(name) {
        return Ok((built_in.config()?, Some(built_in)));
    }
    let mut names: Vec<String> = ALL.iter().map(|task| task.name.to_string()).collect();
    for entry in folder.and_then(|it| std::fs::read_dir(it).ok()).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        names.extend(file.strip_suffix(".yaml").map(str::to_string));
    }
    let near = suggest::question(&suggest::close(name, names.iter().map(String::as_str)));
    bail!(
        "there is no task {name:?}{near}; --tasks list shows the built-in ones, and a task of your own is a .yaml file"
    )
}

/// Task, split and file of `TASK:SPLIT=FILE`.
fn data_file(text: &str) -> (Option<&str>, Option<&str>, &str) {
    match text.split_once('=') {
        None => (None, None, text),
        Some((whose, file)) => match whose.split_once(':') {
            None => (Some(whose), None, file),
            Some((task, split)) => (Some(task), Some(split), file),
        },
    }
}

/// Asks a model all tasks; `flags` says whether it computes as the flags say.
fn asked(
    args: &TaskArgs,
    tasks: &[Task],
    reference: &str,
    chat: bool,
    compute: &ComputeArgs,
    flags: bool,
) -> anyhow::Result<Asked> {
    let model = open(reference)?;
    let path = model.origin.path.display().to_string();
    let (prompting, engine) = super::ready(&model, chat, compute, flags)?;
    let computing = if flags { format!("{compute:?}") } else { format!("original of {compute:?}") };
    let folder = match user_data::folder().filter(|_| !args.no_cache) {
        Some(folder) => Some(folder.join("answers").join(model_key(&model, &computing)?)),
        None => None,
    };
    let watch = Watch::start();
    let mut answers = Vec::new();
    for task in tasks {
        let name = &task.config.task;
        let mut cache =
            folder.as_ref().map_or_else(|| Ok(Cache::none()), |folder| Cache::open(folder, name))?;
        let mut bar = Progress::new(&format!("asking {path}: {name}"), Unit::Items);
        let found = evaluate(&engine, &prompting, task, &args.options(), &mut cache, |done, total| {
            bar.set(done as u64, total as u64);
            Ok(watch.check()?)
        })?;
        tracing::info!(task = name, known = found.known, "answered");
        answers.push(found);
    }
    Ok(Asked { model: path, answers })
}

/// Lists the built-in tasks.
///
/// # Errors
/// If stdout can't be written.
pub fn list(globals: &Globals) -> anyhow::Result<Outcome> {
    if globals.json {
        let entry = |task: &BuiltIn| serde_json::json!({"task": task.name, "what": task.what, "has_data": task.documents().is_some()});
        output::json(&ALL.iter().map(entry).collect::<Vec<_>>())?;
        return Ok(Outcome::Done);
    }
    let mut table = output::table(&["task", "data", "asks; what its data holds"]);
    for task in &ALL {
        let data = if task.documents().is_some() { "built in" } else { "--data" };
        table.add_row([task.name, data, task.what]);
    }
    output::print_table(&table)?;
    Ok(Outcome::Done)
}

/// Writes the built-in tasks and their data into a new folder.
///
/// # Errors
/// If the folder exists or can't be written.
pub fn write_tasks(folder: &Path, globals: &Globals) -> anyhow::Result<Outcome> {
    if folder.exists() {
        bail!("{} exists already; choose another name", folder.display());
    }
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut written = Vec::new();
    for task in &ALL {
        let mut files = vec![(format!("{}.yaml", task.name), task.yaml.to_string())];
        if let Some(documents) = task.documents() {
            let lines = documents.iter().map(|document| Ok(serde_json::to_string(document)? + "\n"));
            files.push((format!("{}.jsonl", task.name), lines.collect::<anyhow::Result<String>>()?));
        }
        for (name, text) in files {
            let path = folder.join(name);
            let mut file = AtomicFile::create(&path)?;
            file.write_all(text.as_bytes())
                .with_context(|| format!("{} can't be written", path.display()))?;
            file.commit()?;
            written.push(path);
        }
    }
    if globals.json {
        output::json(&written)?;
    } else {
        output::line(format!(
            "{} tasks are in {1}; to ask one:\n  ounce eval builtin --tasks {1}/tales.yaml",
            ALL.len(),
            folder.display()
        ))?;
    }
    Ok(Outcome::Done)
}
