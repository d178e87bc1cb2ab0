//! `ounce pull`: fetches a model from the hub into the shared cache.

use std::path::PathBuf;

use anyhow::bail;
use ounce_model::hub::{Cache, HubModel};
use serde::Serialize;

use crate::cli::Globals;
use crate::download::{Hub, Plan, Wanted, is_true};
use crate::failure::Outcome;
use crate::progress::{Progress, Unit};
use crate::{output, units};

/// Fetch a model from the hub
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce pull org/name
  ounce pull org/name@v1.0
  ounce pull org/name-GGUF:Q4_K_M             one quantization of a GGUF repository
  ounce pull org/name --dry-run               what would be fetched
  ounce pull org/name --include '*.json'      only these files
The cache is the one that Hugging Face's Python tools use (HF_HOME, HF_HUB_CACHE). What is there is not fetched
again, and a fetch that was cut off goes on where it ended. HF_TOKEN opens private and gated models, HF_ENDPOINT
names another hub, HF_HUB_OFFLINE=1 forbids requests. Only safetensors, GGUF and the texts beside them are fetched.")]
pub struct Args {
    /// `org/name`, `org/name@revision`, `org/name:QUANT` or `hf://org/name[@revision]/FILE`
    model: String,
    /// Fetch the files that fit this pattern in place of those needed; may be repeated
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Leave out the files that fit this pattern; may be repeated
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// List what would be fetched, and fetch nothing
    #[arg(long)]
    dry_run: bool,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    repo: String,
    revision: String,
    commit: String,
    path: PathBuf,
    dry_run: bool,
    files: Vec<FileReport>,
    /// Bytes that were not in the cache.
    fetched_bytes: u64,
}

#[derive(Debug, Serialize)]
struct FileReport {
    name: String,
    bytes: u64,
    /// Whether it was in the cache before.
    cached: bool,
}

/// Runs the command.
///
/// # Errors
/// If the reference is none, the hub can't be reached or refuses, or the disk refuses.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let Some(model) = HubModel::parse(&args.model) else {
        bail!("{:?} is no model of a hub; write org/name, org/name@revision or org/name:QUANT", args.model);
    };
    let cache = Cache::from_env();
    if flag("HF_HUB_OFFLINE") {
        let path = cache
            .find(&model)
            .map_err(|error| anyhow::anyhow!("HF_HUB_OFFLINE forbids requests, and {error}"))?;
        output::line(path.display())?;
        return Ok(Outcome::Done);
    }
    let hub = Hub::from_env();
    let plan = Plan::new(&hub, &cache, &model, &Wanted { include: args.include, exclude: args.exclude })?;
    let missing = plan.missing_bytes();
    if !args.dry_run {
        let mut bar = Progress::new(&model.repo, Unit::Bytes);
        let hidden = flag("HF_HUB_DISABLE_PROGRESS_BARS");
        plan.fetch(&hub, &cache, &model, |name, done| {
            if !hidden {
                bar.say(name);
                bar.set(done, missing);
            }
        })?;
    }
    let file = |(file, cached): (crate::download::RemoteFile, bool)| FileReport {
        name: file.name,
        bytes: file.size,
        cached,
    };
    let report = Report {
        revision: model.revision().to_string(),
        repo: model.repo,
        commit: plan.commit,
        path: plan.path,
        dry_run: args.dry_run,
        files: plan.files.into_iter().map(file).collect(),
        fetched_bytes: missing,
    };
    if globals.json {
        output::json(&report)?;
    } else if args.dry_run {
        for FileReport { name, bytes, cached } in &report.files {
            let there = if *cached { "  in the cache" } else { "" };
            output::line(format!("{:>12}  {name}{there}", units::bytes(*bytes)))?;
        }
        output::note(&format!("{} to fetch", units::bytes(missing)));
    } else {
        output::note(&format!("{} files, {} fetched", report.files.len(), units::bytes(missing)));
        output::line(report.path.display())?;
    }
    Ok(Outcome::Done)
}

fn flag(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| is_true(&value))
}
