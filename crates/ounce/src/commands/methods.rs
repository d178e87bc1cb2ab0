//! `ounce methods`: the catalogue of published methods, searched or in full.

use std::path::PathBuf;

use ounce_eval::method::{Evidence, Family, METHOD_COUNT, Method, State};
use ounce_lab::catalogue;
use ounce_lab::store::Store;
use serde::{Deserialize, Serialize};

use crate::cli::Globals;
use crate::failure::Outcome;
use crate::{evidence, output};

/// List published methods: what they give, whether they work here, what was measured
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce methods                          all of them
  ounce methods quantize kv cache        those in which every word occurs
  ounce methods 20                       one in detail, with its evidence
  ounce methods --state working --json
  ounce methods --markdown > catalogue.md
Exits with 1 if nothing is found.")]
pub struct Args {
    /// Words to search for, or the number of one method
    words: Vec<String>,
    /// Only this family, such as quantization, pruning or runtime
    #[arg(long, value_name = "FAMILY", value_parser = named::<Family>)]
    family: Option<Family>,
    /// Only methods that are `working`, or only those that are `planned`
    #[arg(long, value_name = "STATE", value_parser = named::<State>)]
    state: Option<State>,
    /// Write the whole catalogue as a Markdown page
    #[arg(long, conflicts_with_all = ["words", "family", "state", "json"])]
    markdown: bool,
    /// Folder of evidence [default: docs/evidence where there is one, else the user's data folder]
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
}

/// A method as `--json` prints it.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    number: u16,
    name: &'a str,
    family: Family,
    gives: &'a str,
    claim: &'a str,
    paper: &'a str,
    arxiv: Option<&'a str>,
    command: Option<&'a str>,
    state: State,
    evidence: Option<Evidence>,
}

/// A variant by the name it has in JSON.
fn named<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_lowercase())).map_err(|error| error.to_string())
}

/// Runs the command.
///
/// # Errors
/// If there is no method of that number, or stored evidence is damaged.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let store = evidence::store(args.evidence);
    if args.markdown {
        output::print(&catalogue::markdown::render(&store)?)?;
        return Ok(Outcome::Done);
    }
    let number = match args.words.as_slice() {
        [word] => word.parse::<u16>().ok(),
        _ => None,
    };
    let found = match number {
        Some(number) => vec![find(number)?],
        None if args.words.is_empty() => catalogue::methods().to_vec(),
        None => catalogue::search(&args.words.join(" ")),
    };
    let wanted = |method: &&Method| {
        args.family.is_none_or(|family| method.family == family)
            && args.state.is_none_or(|it| method.state() == it)
    };
    let methods: Vec<&Method> = found.into_iter().filter(wanted).collect();
    if globals.json {
        let entries =
            methods.iter().map(|method| entry(method, &store)).collect::<anyhow::Result<Vec<_>>>()?;
        output::json(&entries)?;
    } else if number.is_some() && !methods.is_empty() {
        methods.iter().try_for_each(|method| print_one(method, &store))?;
    } else if !methods.is_empty() {
        print_list(&methods, &store)?;
    }
    if methods.is_empty() {
        output::note("no method fits; fewer words find more");
        return Ok(Outcome::No);
    }
    Ok(Outcome::Done)
}

/// The method of that number.
///
/// # Errors
/// If there is none.
pub fn find(number: u16) -> anyhow::Result<&'static Method> {
    catalogue::method(number).ok_or_else(|| {
        anyhow::anyhow!("there is no method {number}; methods are numbered from 1 to {METHOD_COUNT}")
    })
}

fn entry<'a>(method: &'a Method, store: &Store) -> anyhow::Result<Entry<'a>> {
    let Method { number, name, family, gives, claim, paper, arxiv, command, .. } = *method;
    let (state, evidence) = (method.state(), store.read(number)?);
    Ok(Entry { number, name, family, gives, claim, paper, arxiv, command, state, evidence })
}

fn print_list(methods: &[&Method], store: &Store) -> anyhow::Result<()> {
    let mut table = output::table(&["", "method", "family", "what it gives", "state", "evidence"]);
    for method in methods {
        let evidence = store.read(method.number)?.as_ref().map(evidence::summary).unwrap_or_default();
        let number = format!("{:03}", method.number);
        let state = method
            .command
            .map_or(method.state().to_string(), |command| format!("{} ({command})", method.state()));
        table.add_row([&number, method.name, method.family.title(), method.gives, &state, &evidence]);
    }
    output::print_table(&table)
}

fn print_one(method: &Method, store: &Store) -> anyhow::Result<()> {
    let arxiv = method.arxiv.map(|id| format!(" (arXiv {id})")).unwrap_or_default();
    output::line(format!(
        "{:03} {} · {} · {}",
        method.number,
        method.name,
        method.family.title(),
        method.state()
    ))?;
    output::line(format!("paper    {}{arxiv}", method.paper))?;
    output::line(format!("gives    {}", method.gives))?;
    output::line(format!("claim    {}", method.claim))?;
    if let Some(command) = method.command {
        output::line(format!("command  {command}"))?;
    }
    match store.read(method.number)? {
        Some(evidence) => {
            output::line("")?;
            evidence::print(&evidence)
        }
        None if method.demonstrate.is_some() => {
            output::line(format!("no evidence yet; measure with: ounce bench method {}", method.number))
        }
        None => Ok(()),
    }
}
