//! `ounce profile`: what this machine can do, measured once and kept.

use std::path::{Path, PathBuf};

use anyhow::bail;
use comfy_table::{CellAlignment, Table};
use ounce_model::machine::{self, Cache, Cpu, Disk, DiskTarget, Lookup, Machine, Pages, Read};
use ounce_model::machine::{OpKind, host::CacheKind};
use ounce_plan::calibrate::{Calibration, Effort};
use serde::Serialize;

use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{calibration, output, units, user_data};

/// Name of the profile in the user's data folder.
const FILE: &str = "machine.json";

/// Other programs that took more than a tenth of the time are worth a word.
const STEADY: f64 = 0.9;

/// Measure this machine: memory bandwidth, arithmetic, disk, power, and how near the engine's kernels come
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce profile                          the kept profile, or a new one if there is none
  ounce profile --refresh                measure again, about forty seconds
  ounce profile --quick --threads 1      a few seconds, one thread; without the engine's kernels
  ounce profile --disk ./model.gguf      read this file to measure its disk
  ounce profile --json | jq .machine.peaks
The profile is kept in the user's data folder, and beside it the rates of the engine's kernels for each format,
which `ounce forecast` stands on. One of another processor, of another number of cores, or of fewer
threads than are asked for is measured again. Measure on an idle machine.")]
pub struct Args {
    /// Measure less thoroughly, and leave the engine's kernels out
    #[arg(long)]
    quick: bool,
    /// Measure again even if there is a profile of this machine
    #[arg(long)]
    refresh: bool,
    /// Measure again, and read this file for the disk's rate in place of a temporary one
    #[arg(long, value_name = "FILE")]
    disk: Option<PathBuf>,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    /// Where the profile is kept; none if it isn't.
    file: Option<PathBuf>,
    /// Whether it was measured earlier.
    from_file: bool,
    age_seconds: u64,
    machine: Machine,
    /// Rates of the engine's kernels; none if they were not timed.
    calibration: Option<Calibration>,
}

/// Runs the command.
///
/// # Errors
/// If more threads are asked for than there are cores, or the profile or the file to measure with can't be read.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let cpu = Cpu::detect();
    let threads = if globals.threads == 0 { cpu.cores } else { globals.threads };
    if threads > cpu.cores {
        bail!("{threads} threads can't be measured on {} cores; ask for fewer with --threads", cpu.cores);
    }
    let file = user_data::folder().map(|folder| folder.join(FILE));
    let kept = match &file {
        Some(file) if !args.refresh && args.disk.is_none() => kept(file, &cpu, threads)?,
        _ => None,
    };
    let from_file = kept.is_some();
    let (machine, file) = match kept {
        Some(machine) => (machine, file),
        None => {
            let machine = measure(&args, threads, file.as_deref().and_then(Path::parent))?;
            let file = file.filter(|file| keep(&machine, file));
            (machine, file)
        }
    };
    let calibration = if args.quick { None } else { calibrated(&args, &cpu, threads)? };
    let report = Report { file, from_file, age_seconds: machine.age().as_secs(), machine, calibration };
    if globals.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(Outcome::Done)
}

/// The rates of the kernels: those that were kept, or new ones. A profile of one run has them of its own threads.
fn calibrated(args: &Args, cpu: &Cpu, threads: usize) -> anyhow::Result<Option<Calibration>> {
    let file = user_data::folder().map(|folder| folder.join(calibration::FILE));
    if let Some(file) = file.as_ref().filter(|_| !args.refresh)
        && let Some(kept) = calibration::kept(file, cpu, threads)?
    {
        return Ok(Some(kept));
    }
    let measured = calibration::measure(Effort::thorough())?;
    if let Some(file) = file
        && let Err(error) = measured.store(&file)
    {
        output::note(&format!("the kernels' rates are not kept: {error}"));
    }
    Ok(Some(measured))
}

/// The profile of this machine that an earlier `ounce profile` kept, if there is one.
pub fn known(threads: usize) -> Option<Machine> {
    let file = user_data::folder()?.join(FILE);
    match Machine::load_cached(&file, &Cpu::detect(), threads) {
        Ok(Lookup::Found(machine)) => Some(*machine),
        _ => None,
    }
}

/// Measures this machine in a hurry, and keeps the profile.
///
/// # Errors
/// If the user stops it.
pub fn measure_and_keep(threads: usize) -> anyhow::Result<()> {
    let args = Args { quick: true, refresh: true, disk: None };
    let file = user_data::folder().map(|folder| folder.join(FILE));
    let machine = measure(&args, threads, file.as_deref().and_then(Path::parent))?;
    if let Some(file) = file {
        keep(&machine, &file);
    }
    Ok(())
}

/// The profile in the file, if it is one of this machine; says so if it is another's.
fn kept(file: &Path, cpu: &Cpu, threads: usize) -> anyhow::Result<Option<Machine>> {
    Ok(match Machine::load_cached(file, cpu, threads)? {
        Lookup::Found(machine) => Some(*machine),
        Lookup::Absent => None,
        Lookup::Unfit(why) => {
            output::note(&format!("{why}; measuring again"));
            None
        }
    })
}

fn measure(args: &Args, threads: usize, folder: Option<&Path>) -> anyhow::Result<Machine> {
    let watch = Watch::start();
    let effort = if args.quick { machine::Effort::quick() } else { machine::Effort::thorough() };
    // The folder that will hold the profile lies on a disk; the one for temporary files often in memory.
    let folder = folder.filter(|folder| std::fs::create_dir_all(folder).is_ok());
    let disk = match &args.disk {
        Some(file) => DiskTarget::File(file.clone()),
        None => DiskTarget::Folder(folder.map_or_else(std::env::temp_dir, Path::to_path_buf)),
    };
    let mut bar = Progress::new("measuring", Unit::Items);
    let machine = machine::measure(&effort, threads, &disk, &mut |what, done, total| {
        bar.say(what);
        bar.set(done as u64, total as u64);
        watch.check()
    })?;
    watch.check()?;
    Ok(machine)
}

/// Writes the profile; a failure costs only the next measurement, so it is told and not more.
fn keep(machine: &Machine, file: &Path) -> bool {
    let stored = machine.store(file);
    if let Err(error) = &stored {
        output::note(&format!("the profile is not kept: {error}"));
    }
    stored.is_ok()
}

fn print(report: &Report) -> anyhow::Result<()> {
    let machine = &report.machine;
    print_host(machine)?;
    let hurry = match (machine.quick, report.from_file) {
        (true, true) => ", in a hurry (--refresh measures thoroughly)",
        (true, false) => ", in a hurry",
        _ => "",
    };
    let again = if report.from_file && !machine.quick { " (--refresh measures again)" } else { "" };
    let age = units::age(machine.age());
    fact("measured", &format!("{age} by ounce {}{hurry}{again}", machine.tool_version))?;
    if let Some(file) = &report.file {
        fact("kept in", &file.display().to_string())?;
    }
    output::line("")?;
    print_reads(machine)?;
    output::line("")?;
    print_peaks(machine)?;
    output::line("")?;
    if let Some(calibration) = &report.calibration {
        calibration::print(calibration)?;
        output::line("")?;
    }
    fact("disk", &machine.disk.as_ref().map_or("not measured".to_string(), disk))?;
    fact(
        "power",
        &machine.energy.as_ref().map_or("no counter".to_string(), |energy| {
            format!("{:.1} W while all threads multiply ({})", energy.busy_watts, energy.counters.join(", "))
        }),
    )?;
    for note in &machine.notes {
        fact("note", note)?;
    }
    if machine.steadiness() < STEADY {
        let percent = machine.steadiness() * 100.0;
        fact(
            "note",
            &format!(
                "other programs ran: figures may be too low, some threads had a core for {percent:.0} % of the time"
            ),
        )?;
    }
    Ok(())
}

fn fact(name: &str, value: &str) -> anyhow::Result<()> {
    output::line(format!("{name:<15} {value}"))
}

/// What the system says about itself.
fn print_host(machine: &Machine) -> anyhow::Result<()> {
    let cpu = &machine.cpu;
    let model = if cpu.model.is_empty() { "unknown" } else { &cpu.model };
    let physical = match cpu.physical_cores {
        Some(physical) if physical < cpu.cores => format!(" ({physical} physical)"),
        _ => String::new(),
    };
    let noun = if cpu.cores == 1 { "core" } else { "cores" };
    fact("processor", &format!("{model}, {}, {} {noun}{physical}", cpu.architecture, cpu.cores))?;
    fact(
        "instructions",
        &if cpu.features.is_empty() { "none listed".into() } else { cpu.features.join(" ") },
    )?;
    let caches: Vec<String> = machine.caches.iter().map(cache).collect();
    fact("caches", &if caches.is_empty() { "not listed by the system".into() } else { caches.join(", ") })?;
    let (total, free) = (machine.memory.total_bytes, machine.memory.available_bytes);
    fact("memory", &format!("{}, {} of it free when measured", units::bytes(total), units::bytes(free)))
}

fn cache(cache: &Cache) -> String {
    let kind = match cache.kind {
        CacheKind::Data => " data",
        CacheKind::Instruction => " instructions",
        CacheKind::Unified => "",
    };
    let shared = if cache.shared_by > 1 { format!(" for {} cores", cache.shared_by) } else { String::new() };
    format!("L{}{kind} {}{shared}", cache.level, units::bytes(cache.bytes))
}

fn disk(disk: &Disk) -> String {
    let Disk { path, temporary, bytes, bytes_per_second, cached_share } = disk;
    let of = if *temporary { "a temporary file in " } else { "" };
    let doubt = match cached_share {
        _ if !disk.may_be_cached() => String::new(),
        Some(share) => format!("; {:.0} % came from memory, not from the disk", share * 100.0),
        None => "; may have come from memory, not from the disk".to_string(),
    };
    format!("{} GB/s, {} of {of}{}{doubt}", giga(*bytes_per_second), units::bytes(*bytes), path.display())
}

fn print_reads(machine: &Machine) -> anyhow::Result<()> {
    let counts = counts(machine.memory_reads.iter().chain(&machine.cache_reads).map(|row| row.threads));
    let mut table = rates_table("reading, GB/s", &counts);
    let ways = |rows: &[Read]| {
        let mut ways: Vec<(Pages, usize)> = Vec::new();
        for way in rows.iter().map(|row| (row.pages, row.prefetch_bytes)) {
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
        ways
    };
    for (place, rows) in [("memory", &machine.memory_reads), ("L2 cache", &machine.cache_reads)] {
        for (pages, ahead) in ways(rows) {
            let size = if pages == Pages::Huge { "huge" } else { "small" };
            let prefetch = if ahead == 0 { String::new() } else { format!(", {ahead} bytes ahead") };
            let rate = |threads: usize| {
                let wanted =
                    |row: &&Read| (row.threads, row.pages, row.prefetch_bytes) == (threads, pages, ahead);
                rows.iter().find(wanted).map(|row| row.bytes_per_second.best)
            };
            table.add_row(row(format!("{place}, {size} pages{prefetch}"), &counts, rate));
        }
    }
    output::print_table(&table)
}

fn print_peaks(machine: &Machine) -> anyhow::Result<()> {
    let counts = counts(machine.peaks.iter().map(|row| row.threads));
    let mut table = rates_table("multiplying and adding, 10⁹ operations/s", &counts);
    for kind in OpKind::ALL {
        let Some(first) = machine.peaks.iter().find(|row| row.kind == kind) else { continue };
        let rate = |threads: usize| {
            let wanted = machine.peaks.iter().find(|row| (row.kind, row.threads) == (kind, threads));
            wanted.map(|row| row.ops_per_second.best)
        };
        table.add_row(row(format!("{} ({})", kind.name(), first.instruction), &counts, rate));
    }
    output::print_table(&table)
}

/// The numbers of threads, each once, in order.
fn counts(threads: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut counts: Vec<usize> = threads.collect();
    counts.sort_unstable();
    counts.dedup();
    counts
}

/// A table with a column for each number of threads.
fn rates_table(what: &str, counts: &[usize]) -> Table {
    let heads: Vec<String> =
        counts.iter().map(|&it| format!("{it} {}", if it == 1 { "thread" } else { "threads" })).collect();
    let head: Vec<&str> = std::iter::once(what).chain(heads.iter().map(String::as_str)).collect();
    let mut table = output::table(&head);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn row(name: String, counts: &[usize], rate: impl Fn(usize) -> Option<f64>) -> Vec<String> {
    let cell = |&threads: &usize| rate(threads).map(giga).unwrap_or_default();
    std::iter::once(name).chain(counts.iter().map(cell)).collect()
}

/// A rate in thousands of millions, with three digits that count.
fn giga(rate: f64) -> String {
    let value = rate / 1e9;
    let places = (2 - value.abs().max(1e-3).log10().floor() as i32).clamp(0, 4) as usize;
    format!("{value:.places$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_keep_three_digits() {
        for (rate, text) in
            [(1.5e6, "0.0015"), (5.25e8, "0.525"), (1.234e9, "1.23"), (36.04e9, "36.0"), (6.2e12, "6200")]
        {
            assert_eq!(giga(rate), text);
        }
    }
}
