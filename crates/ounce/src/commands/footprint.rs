//! `ounce footprint`: what a run costs in energy, CO2, water and money.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use ounce_plan::footprint::meter::{Meter, Power, Reading, Source};
use ounce_plan::footprint::site::{self, Footprint, Site, break_even};
use serde::Serialize;

use crate::cli::Globals;
use crate::failure::Outcome;
use crate::{output, units};

/// Report energy, CO2, water and cost of a command, or of so many seconds at so many watts
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce footprint -- ounce train run.toml                       runs it, and reports behind it
  ounce footprint --region FR --price 0.25 -- make all          any command
  ounce footprint --seconds 3600 --watts 180 --pue 1.3          nothing is run
  ounce footprint --saves 0.4 -- ounce quantize builtin -o small.gguf --bits 4
                                                                after how many uses it has paid, at 0.4 J saved a use
Energy is counted by the processor where Linux shows its counters (usually to root only): of all programs together,
without memory, disk and graphics. Else it is modelled, idle + (full - idle) x utilisation; --idle-watts and
--full-watts say between what, and the report says `modelled`. Grid intensities are means of a year;
--intensity sets your own. Exits with 1 if the command fails.")]
pub struct Args {
    /// The command, behind `--`
    #[arg(last = true, value_name = "COMMAND", required_unless_present = "seconds")]
    command: Vec<OsString>,
    /// In the place of a command: a run of so long
    #[arg(long, value_name = "SECONDS", requires = "watts", conflicts_with = "command")]
    seconds: Option<f64>,
    /// At so many watts
    #[arg(long, value_name = "WATTS", requires = "seconds")]
    watts: Option<f64>,
    /// Watts of the machine doing nothing, where none are counted
    #[arg(long, value_name = "WATTS", default_value_t = Power::default().idle)]
    idle_watts: f64,
    /// Watts of the machine with all cores busy, where none are counted [default: what ounce profile measured, else 65]
    #[arg(long, value_name = "WATTS")]
    full_watts: Option<f64>,
    /// Region of the grid: a code or name of the built-in table
    #[arg(long, value_name = "REGION", default_value = "world")]
    region: String,
    /// Grams of CO2-equivalents a kilowatt-hour, in the place of the region's
    #[arg(long, value_name = "GRAMS")]
    intensity: Option<f64>,
    /// Energy of the building by that of its machines; 1 at home, about 1.6 in the mean data centre
    #[arg(long, value_name = "RATIO", default_value_t = Site::default().pue)]
    pue: f64,
    /// Litres that the site evaporates a kilowatt-hour
    #[arg(long, value_name = "LITRES", default_value_t = Site::default().water_site)]
    water_site: f64,
    /// Litres that power plants use a kilowatt-hour
    #[arg(long, value_name = "LITRES", default_value_t = Site::default().water_source)]
    water_source: f64,
    /// Kilograms of CO2-equivalents of making the machine; without, its share is not counted
    #[arg(long, value_name = "KG")]
    embodied: Option<f64>,
    /// Years that the machine is used
    #[arg(long, value_name = "YEARS", default_value_t = Site::default().lifetime_years)]
    lifetime: f64,
    /// Price of a kilowatt-hour, in any currency
    #[arg(long, value_name = "PRICE")]
    price: Option<f64>,
    /// Price of an hour of the machine
    #[arg(long, value_name = "PRICE")]
    price_hour: Option<f64>,
    /// Joules that each later use takes less: says after how many uses the run has paid
    #[arg(long, value_name = "JOULES")]
    saves: Option<f64>,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    reading: Reading,
    site: Site,
    footprint: Footprint,
    peak_bytes: Option<u64>,
    break_even_uses: Option<f64>,
    exit_code: Option<i32>,
}

/// How often a running command is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Runs the command.
///
/// # Errors
/// If a number is out of its range, or the command can't be started.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let site = args.site()?;
    let power = args.power(globals)?;
    if let Some(saves) = args.saves.filter(|it| !(*it > 0.0 && it.is_finite())) {
        bail!("--saves should be above 0, found {saves}");
    }
    let (reading, peak_bytes, exit_code) = match args.seconds.zip(args.watts) {
        Some((seconds, watts)) => (told(seconds, watts)?, None, None),
        None => watched(&args.command, power, globals.json)?,
    };
    let footprint = site.footprint(reading.joules, reading.seconds);
    let break_even_uses = args.saves.and_then(|saves| break_even(reading.joules, saves, 0.0));
    let report = Report { reading, site, footprint, peak_bytes, break_even_uses, exit_code };
    if globals.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(if report.exit_code.is_none_or(|code| code == 0) { Outcome::Done } else { Outcome::No })
}

impl Args {
    fn site(&self) -> anyhow::Result<Site> {
        let intensity = match self.intensity {
            Some(intensity) => intensity,
            None => site::intensity(&self.region).with_context(|| {
                let known: Vec<&str> = site::regions().collect();
                format!(
                    "the table has no region {:?}; it has {}, and --intensity sets any",
                    self.region,
                    known.join(", ")
                )
            })?,
        };
        let site = Site {
            pue: self.pue,
            intensity,
            water_site: self.water_site,
            water_source: self.water_source,
            embodied_kg: self.embodied,
            lifetime_years: self.lifetime,
            price_kwh: self.price,
            price_hour: self.price_hour,
        };
        site.check().map_err(anyhow::Error::msg)?;
        Ok(site)
    }

    fn power(&self, globals: &Globals) -> anyhow::Result<Power> {
        let threads =
            if globals.threads == 0 { std::thread::available_parallelism()?.get() } else { globals.threads };
        let measured = || Some(super::profile::known(threads)?.energy?.busy_watts);
        let full = self.full_watts.or_else(measured).unwrap_or(Power::default().full);
        let power = Power { idle: self.idle_watts, full };
        if !(power.idle >= 0.0 && power.full > 0.0 && power.full >= power.idle && power.full.is_finite()) {
            bail!("watts should go from idle up to full, found {} and {}", power.idle, power.full);
        }
        Ok(power)
    }
}

/// The reading of a run that was only told of.
fn told(seconds: f64, watts: f64) -> anyhow::Result<Reading> {
    let fine = |value: f64| value >= 0.0 && value.is_finite();
    if !(fine(seconds) && fine(watts)) {
        bail!("--seconds and --watts should be 0 or more, found {seconds} and {watts}");
    }
    let (power, why) = (Power { idle: watts, full: watts }, "the watts were given".to_string());
    Ok(Reading {
        seconds,
        cpu_seconds: None,
        joules: seconds * watts,
        modelled_joules: seconds * watts,
        source: Source::Modelled { power, utilisation: 1.0, why },
    })
}

/// Runs a command to its end. With `quiet` what it prints goes to stderr.
fn watched(
    command: &[OsString],
    power: Power,
    quiet: bool,
) -> anyhow::Result<(Reading, Option<u64>, Option<i32>)> {
    let Some((program, arguments)) = command.split_first() else { bail!("name the command behind --") };
    let mut child = Command::new(program);
    child.args(arguments);
    if quiet {
        child.stdout(Stdio::from(std::io::stderr()));
    }
    let name = program.to_string_lossy();
    // Ctrl-C goes to the command too, which ends as it wants; the report follows.
    let _watch = crate::interrupt::Watch::start();
    let mut meter = Meter::start(power);
    let mut child = child.spawn().with_context(|| format!("{name} can't be started"))?;
    let mut peak = None;
    let status = loop {
        peak = peak_bytes(child.id()).max(peak);
        if let Some(status) = child.try_wait().with_context(|| format!("{name} can't be waited for"))? {
            break status;
        }
        std::thread::sleep(LOOK);
        meter.tick();
    };
    // A command that a signal ended has no code.
    Ok((meter.stop(), peak, Some(status.code().unwrap_or(-1))))
}

/// The most memory that a process has had, if the system tells; its children have their own.
fn peak_bytes(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(1024 * line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?)
}

fn print(report: &Report) -> anyhow::Result<()> {
    let Report { reading, footprint, .. } = report;
    let number = |value: f64, unit: &str| match value {
        0.0 => format!("0 {unit}"),
        value if !(0.001..1e6).contains(&value) => format!("{value:.3e} {unit}"),
        value => format!("{value:.3} {unit}"),
    };
    let mut lines = vec![("time", units::seconds(Duration::from_secs_f64(reading.seconds.clamp(0.0, 1e15))))];
    if let Some(cpu) = reading.cpu_seconds {
        lines.push(("processors", format!("{cpu:.2} s")));
    }
    if let Some(peak) = report.peak_bytes {
        lines.push(("memory", format!("{} at most, without its children", units::bytes(peak))));
    }
    let how = match &reading.source {
        Source::Measured(counters) => format!("measured by {}", counters.join(", ")),
        Source::Modelled { power, utilisation, why } => format!(
            "modelled: {:.1} W idle, {:.1} W busy, {:.0} % of the cores; {why}",
            power.idle,
            power.full,
            100.0 * utilisation
        ),
    };
    lines.push(("energy", format!("{} ({how})", number(reading.joules, "J"))));
    lines.push(("with the building", format!("{} (PUE {})", number(footprint.kwh, "kWh"), report.site.pue)));
    lines.push(("CO2", format!("{} ({} g a kWh)", number(footprint.co2_grams, "g"), report.site.intensity)));
    lines.push(("water", number(footprint.water_litres, "l")));
    let embodied = footprint
        .embodied_grams
        .map_or("not counted; --embodied says what making the machine took".into(), |it| {
            format!("{} of CO2", number(it, "g"))
        });
    lines.push(("the machine's share", embodied));
    if let Some(cost) = footprint.cost {
        lines.push(("cost", number(cost, "").trim_end().to_string()));
    }
    if let Some(uses) = report.break_even_uses {
        lines.push(("has paid", format!("after {uses:.0} uses")));
    }
    // Results of a command that was run are on stdout already.
    output::line("")?;
    for (name, value) in lines {
        output::line(format!("{name:<20} {value}"))?;
    }
    if let Some(code) = report.exit_code.filter(|code| *code != 0) {
        output::note(&format!("the command failed with exit code {code}"));
    }
    Ok(())
}
