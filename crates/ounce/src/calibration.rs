//! The kept calibration of the engine's kernels, beside the machine's profile, and both together for forecasts.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ounce_model::machine::{Cpu, Machine};
use ounce_plan::calibrate::{Calibration, Effort, Level, Lookup};

use crate::commands::profile;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, units, user_data};

/// Name of the calibration in the user's data folder.
pub const FILE: &str = "calibration.json";

/// The kept calibration, if it is one of this machine; says so if it is of no use.
///
/// # Errors
/// If it is there and can't be read.
pub fn kept(file: &Path, cpu: &Cpu, threads: usize) -> anyhow::Result<Option<Calibration>> {
    Ok(match Calibration::load_cached(file, cpu, threads)? {
        Lookup::Found(calibration) => Some(*calibration),
        Lookup::Absent => None,
        Lookup::Unfit(why) => {
            output::note(&format!("{why}; measuring again"));
            None
        }
    })
}

/// Times the kernels, with a bar.
///
/// # Errors
/// If the user stops it, or there is no memory.
pub fn measure(effort: Effort) -> anyhow::Result<Calibration> {
    let watch = Watch::start();
    let mut bar = Progress::new("timing kernels", Unit::Items);
    Ok(Calibration::measure(effort, &mut |what, done, total| {
        bar.say(what);
        bar.set(done as u64, total as u64);
        watch.check()
    })?)
}

/// What forecasts stand on: the profile of this machine, and the calibration of its kernels, or an estimate where they
/// were not timed. `other` is a profile of another machine, whose kernels are estimated.
///
/// # Errors
/// If this machine was not measured, or the other's profile can't be read.
pub fn known(threads: usize, other: Option<&PathBuf>) -> anyhow::Result<(Machine, Calibration)> {
    if let Some(path) = other {
        let text = std::fs::read(path).with_context(|| format!("{} can't be read", path.display()))?;
        let machine: Machine = serde_json::from_slice(&text)
            .with_context(|| format!("{}: is no profile; ounce profile writes one", path.display()))?;
        if let Err(what) = machine.check() {
            bail!("{}: {what}", path.display());
        }
        let calibration = Calibration::estimate(&machine, threads);
        return Ok((machine, calibration));
    }
    let Some(machine) = profile::known(threads) else {
        bail!("this machine was not measured yet; run ounce profile --threads {threads} first");
    };
    let file = user_data::folder().map(|folder| folder.join(FILE));
    let calibration = match &file {
        Some(file) => Calibration::load_cached(file, &Cpu::detect(), threads)?,
        None => Lookup::Absent,
    };
    let calibration = match calibration {
        Lookup::Found(calibration) => *calibration,
        Lookup::Absent | Lookup::Unfit(_) => {
            output::note(
                "kernels were not timed with these threads; ounce profile does, for better forecasts",
            );
            Calibration::estimate(&machine, threads)
        }
    };
    Ok((machine, calibration))
}

/// As [`known`] for this machine; what was not measured yet is measured in a hurry, and kept.
///
/// # Errors
/// If it can't be measured, or the user stops it.
pub fn known_or_measured(threads: usize) -> anyhow::Result<(Machine, Calibration)> {
    let cpu = Cpu::detect();
    if profile::known(threads).is_none() {
        output::note(
            "this machine was not measured yet; a hurried profile is made (ounce profile --refresh makes a better one)",
        );
        profile::measure_and_keep(threads)?;
    }
    let file = user_data::folder().map(|folder| folder.join(FILE));
    let found = file.as_ref().map(|file| kept(file, &cpu, threads)).transpose()?.flatten();
    let calibration = match found {
        Some(calibration) => calibration,
        None => {
            let calibration = measure(Effort::quick())?;
            if let Some(Err(error)) = file.as_ref().map(|file| calibration.store(file)) {
                output::note(&format!("the kernels' rates are not kept: {error}"));
            }
            calibration
        }
    };
    let machine = profile::known(threads);
    let machine = machine.context("the profile of this machine could not be kept, and forecasts need it")?;
    Ok((machine, calibration))
}

/// Prints the rates of products.
///
/// # Errors
/// If stdout is closed.
pub fn print(calibration: &Calibration) -> anyhow::Result<()> {
    let mut formats: Vec<&str> = Vec::new();
    for row in calibration.products.iter().filter(|row| row.packed) {
        if !formats.contains(&row.dtype.as_str()) {
            formats.push(&row.dtype);
        }
    }
    let head = "products of packed weights, 10⁹ operations/s";
    let mut table = output::table(&[head, "1 vector, memory", "1, cache", "8, memory", "256"]);
    for dtype in formats {
        let rate = |vectors: usize, level: Level| {
            let row = calibration.products.iter().find(|row| {
                (row.dtype.as_str(), row.packed, row.vectors, row.level) == (dtype, true, vectors, level)
            });
            row.map_or(String::new(), |row| format!("{:.1}", row.operations_per_second / 1e9))
        };
        table.add_row([
            dtype.to_string(),
            rate(1, Level::Memory),
            rate(1, Level::Cache),
            rate(8, Level::Memory),
            rate(256, Level::Memory),
        ]);
    }
    output::print_table(&table)?;
    let call = units::seconds(std::time::Duration::from_secs_f64(calibration.call_seconds));
    let share = calibration.cpu_share.map_or(String::new(), |share| {
        format!("; threads had a core for {:.0} % of the time", share * 100.0)
    });
    let set = &calibration.instruction_set;
    output::line(format!("{call} to hand work to {} threads, {set}{share}", calibration.threads))
}
