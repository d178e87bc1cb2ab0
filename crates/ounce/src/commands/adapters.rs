//! `ounce adapters`: what adapters are, and smaller or other ones made of them.

use std::path::PathBuf;

use anyhow::bail;
use ounce_peft::{Adapted, Folder, Kind};
use ounce_train::net::Options;
use serde::Serialize;
use serde_json::Value;

use crate::cli::Globals;
use crate::failure::Outcome;
use crate::{output, source, units};

/// List, cut and export adapters
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce adapters ls ./adapters/*                               method, rank, parameters, base
  ounce adapters slice ./dylora --rank 4 -o ./small            the first ranks of dylora, the largest of lora
  ounce adapters export ./svfit --base ./model --rank 8 -o ./as-lora      any adapter that can be merged, as LoRA for Python's peft
  ounce adapters methods                                       all methods, with what Python's peft reads of them")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Tell what adapters are
    #[command(after_help = "Examples:\n  ounce adapters ls ./adapters/*")]
    Ls {
        /// Their folders
        #[arg(required = true)]
        folders: Vec<PathBuf>,
    },
    /// Cut LoRA to a smaller rank
    #[command(after_help = "Examples:\n  ounce adapters slice ./dylora --rank 4 -o ./small")]
    Slice {
        /// The adapter's folder
        adapter: PathBuf,
        /// The rank
        #[arg(long, value_name = "R")]
        rank: usize,
        /// The folder to be made
        #[arg(long, short, value_name = "FOLDER")]
        output: PathBuf,
    },
    /// Write an adapter as LoRA, which other tools read
    #[command(after_help = "Examples:\n  ounce adapters export ./svfit --base ./model --rank 8 -o ./as-lora")]
    Export {
        /// The adapter's folder
        adapter: PathBuf,
        /// The model that it was made for
        #[arg(long, value_name = "MODEL")]
        base: String,
        /// The rank of the LoRA; what it can't hold is told
        #[arg(long, value_name = "R", default_value_t = 16)]
        rank: usize,
        /// The folder to be made
        #[arg(long, short, value_name = "FOLDER")]
        output: PathBuf,
    },
    /// List all methods
    #[command(after_help = "Examples:\n  ounce adapters methods\n  ounce adapters methods --json")]
    Methods,
}

/// What an adapter is.
#[derive(Debug, Serialize)]
struct Facts {
    adapter: PathBuf,
    method: String,
    rank: Option<u64>,
    parameters: u64,
    bytes: u64,
    base: String,
    /// Whether Python's peft reads the folder.
    peft: bool,
}

/// Runs the command.
///
/// # Errors
/// If a folder is no adapter, or can't be cut or exported.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    match args.what {
        What::Ls { folders } => list(&folders, globals)?,
        What::Slice { adapter, rank, output } => {
            refuse_existing(&output)?;
            let cut = Folder::open(&adapter)?.sliced(rank, &output)?;
            cut.write()?;
            say(&facts(&cut), globals)?;
        }
        What::Export { adapter, base, rank, output } => {
            refuse_existing(&output)?;
            let model = source::open(&base)?;
            let adapted = Adapted::open(&model, &Folder::open(&adapter)?, Options::default(), &[], false)?;
            let (folder, lost) = ounce_peft::export::as_lora(&adapted, rank, &output)?;
            folder.write()?;
            output::note(&format!("{:.3} % of what was learned does not fit into rank {rank}", 100.0 * lost));
            say(&facts(&folder), globals)?;
        }
        What::Methods => methods(globals)?,
    }
    Ok(Outcome::Done)
}

fn refuse_existing(output: &std::path::Path) -> anyhow::Result<()> {
    if output.join("adapter_config.json").exists() {
        bail!("{} holds an adapter; choose another folder", output.display());
    }
    Ok(())
}

fn facts(folder: &Folder) -> Facts {
    let text = |key: &str| folder.config.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let own = folder.own.as_ref();
    let rank = ["r", "target_r"].iter().find_map(|key| folder.config.get(*key).and_then(Value::as_u64));
    Facts {
        adapter: folder.path.clone(),
        method: own.map_or_else(|| folder.peft_type().to_lowercase(), |own| own.settings.method.to_string()),
        rank,
        parameters: folder.parameters(),
        bytes: std::fs::metadata(folder.path.join("adapter_model.safetensors")).map_or(0, |it| it.len()),
        base: own.map_or_else(|| text("base_model_name_or_path"), |own| own.base.name.clone()),
        peft: !folder.peft_type().starts_with("OUNCE_"),
    }
}

fn say(facts: &Facts, globals: &Globals) -> anyhow::Result<()> {
    if globals.json {
        return output::json(facts);
    }
    output::line(format!(
        "{}: {}, {} parameters, {}",
        facts.adapter.display(),
        facts.method,
        units::count(facts.parameters),
        units::bytes(facts.bytes)
    ))
}

fn list(folders: &[PathBuf], globals: &Globals) -> anyhow::Result<()> {
    let all = folders.iter().map(|path| Ok(facts(&Folder::open(path)?)));
    let all = all.collect::<anyhow::Result<Vec<Facts>>>()?;
    if globals.json {
        return output::json(&all);
    }
    let mut table = output::table(&["adapter", "method", "rank", "parameters", "size", "peft", "base"]);
    for facts in all {
        table.add_row([
            facts.adapter.display().to_string(),
            facts.method,
            facts.rank.map_or_else(String::new, |rank| rank.to_string()),
            units::count(facts.parameters),
            units::bytes(facts.bytes),
            if facts.peft { "yes" } else { "no" }.to_owned(),
            facts.base,
        ]);
    }
    output::print_table(&table)
}

fn methods(globals: &Globals) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Row {
        name: &'static str,
        gives: &'static str,
        arxiv: &'static str,
        class: &'static str,
        formula: &'static str,
        merges: bool,
        grows_texts: bool,
        delays: bool,
        backward: ounce_peft::kind::Backward,
        peft: Option<&'static str>,
        learning_rate: f64,
    }
    let row = |kind: &Kind| {
        let (it, nature) = (kind.facts(), kind.nature());
        Row {
            name: it.name,
            gives: it.gives,
            arxiv: it.arxiv,
            class: nature.class.name(),
            formula: nature.formula,
            merges: it.merges,
            grows_texts: nature.grows,
            delays: nature.delays,
            backward: nature.backward,
            peft: it.peft,
            learning_rate: it.rate,
        }
    };
    let rows: Vec<Row> = Kind::ALL.iter().map(row).collect();
    let members: Vec<ounce_peft::taxonomy::Row> =
        ounce_peft::taxonomy::MEMBERS.iter().map(ounce_peft::taxonomy::Member::row).collect();
    if globals.json {
        return output::json(&serde_json::json!({ "methods": rows, "taxonomy": members }));
    }
    let mut table =
        output::table(&["method", "trains", "numbers", "class", "merges", "longer texts", "peft", "arXiv"]);
    let yes = |it: bool| if it { "yes" } else { "no" };
    for row in rows {
        let (merges, grows, peft) = (yes(row.merges), yes(row.grows_texts), row.peft.unwrap_or("no"));
        table.add_row([row.name, row.gives, row.formula, row.class, merges, grows, peft, row.arxiv]);
    }
    output::print_table(&table)?;
    let mut table = output::table(&["of the surveys 2403.14608 and 2312.12148", "class", "here"]);
    for row in &members {
        table.add_row([row.name, row.class, row.by.as_deref().unwrap_or("no")]);
    }
    output::print_table(&table)
}
