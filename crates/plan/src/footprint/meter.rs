//! Joules of a run: counted by the processor where Linux shows it, else a stated model.

use std::time::Instant;

use ounce_model::machine::EnergyCounters;
use serde::Serialize;

/// Clock ticks a second of the times in `/proc`; fixed on Linux.
const TICKS: f64 = 100.0;

/// Watts where none are counted: `idle + (full − idle) · utilisation`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Power {
    /// Watts of the machine doing nothing.
    pub idle: f64,
    /// Watts with all cores busy.
    pub full: f64,
}

impl Default for Power {
    /// A desktop processor; an assumption.
    fn default() -> Power {
        Power { idle: 10.0, full: 65.0 }
    }
}

impl Power {
    /// Watts at a share of the cores, 0 to 1.
    pub fn watts(&self, utilisation: f64) -> f64 {
        self.idle + (self.full - self.idle) * utilisation.clamp(0.0, 1.0)
    }
}

/// Where joules come from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The processor's counters: of all programs together, without memory, disk and screen.
    Measured(Vec<String>),
    /// A power model, and why nothing was counted.
    Modelled {
        /// The model.
        power: Power,
        /// Share of the cores that the run kept busy; 1 where the system doesn't tell.
        utilisation: f64,
        /// Why.
        why: String,
    },
}

impl Source {
    /// `measured` or `modelled`.
    pub fn label(&self) -> &'static str {
        match self {
            Source::Measured(_) => "measured",
            Source::Modelled { .. } => "modelled",
        }
    }
}

/// What a run took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reading {
    /// Wall time.
    pub seconds: f64,
    /// Time of processors, if the system tells.
    pub cpu_seconds: Option<f64>,
    /// Energy.
    pub joules: f64,
    /// Energy by the power model, also where it was counted.
    pub modelled_joules: f64,
    /// Where the joules come from.
    pub source: Source,
}

/// Measures from its start to its end. Counters are read now and then, before they begin anew: call [`Meter::tick`] in runs of
/// more than some minutes.
#[derive(Debug)]
pub struct Meter {
    power: Power,
    cores: f64,
    start: Instant,
    cpu: Option<f64>,
    counters: Result<(EnergyCounters, Vec<u64>), String>,
    joules: f64,
}

impl Meter {
    /// Begins.
    pub fn start(power: Power) -> Meter {
        let counters = EnergyCounters::open().and_then(|counters| {
            let now = counters.read()?;
            Ok((counters, now))
        });
        let cores = std::thread::available_parallelism().map_or(1.0, |it| it.get() as f64);
        Meter { power, cores, start: Instant::now(), cpu: cpu_seconds(), counters, joules: 0.0 }
    }

    /// Reads the counters.
    pub fn tick(&mut self) {
        let read = match &mut self.counters {
            Ok((counters, last)) => counters.read().map(|now| {
                self.joules += counters.joules(last, &now);
                *last = now;
            }),
            Err(_) => Ok(()),
        };
        if let Err(why) = read {
            self.counters = Err(why);
        }
    }

    /// Ends. Children count once they were waited for.
    pub fn stop(mut self) -> Reading {
        let seconds = self.start.elapsed().as_secs_f64();
        self.tick();
        let cpu = self.cpu.zip(cpu_seconds()).map(|(before, now)| now - before);
        let utilisation = cpu.map_or(1.0, |cpu| cpu / (seconds * self.cores).max(1e-9)).clamp(0.0, 1.0);
        let modelled_joules = self.power.watts(utilisation) * seconds;
        let (joules, source) = match self.counters {
            Ok((counters, _)) if self.joules > 0.0 => (self.joules, Source::Measured(counters.names())),
            other => {
                let why = other.err().unwrap_or_else(|| "the counters stand still".to_string());
                (modelled_joules, Source::Modelled { power: self.power, utilisation, why })
            }
        };
        Reading { seconds, cpu_seconds: cpu, joules, modelled_joules, source }
    }
}

/// Seconds of processors that this program and its children that were waited for have used.
fn cpu_seconds() -> Option<f64> {
    parse_times(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// The sum of the four times in a line of `/proc/PID/stat`; the name in brackets may hold anything.
fn parse_times(line: &str) -> Option<f64> {
    let rest = line.rsplit_once(')')?.1;
    let times: Vec<f64> = rest.split_whitespace().skip(11).take(4).filter_map(|it| it.parse().ok()).collect();
    (times.len() == 4).then(|| times.iter().sum::<f64>() / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_behind_the_name() {
        let line = "42 (a ) b) S 1 42 42 0 -1 4194304 100 0 0 0 150 25 300 25 20 0 1 0 12345";
        assert_eq!(parse_times(line), Some(5.0));
        assert_eq!(parse_times("42 (a) S 1 2"), None);
        assert_eq!(parse_times(""), None);
    }

    #[test]
    fn a_busy_second_takes_more_than_an_idle_one() {
        let power = Power { idle: 5.0, full: 50.0 };
        assert_eq!((power.watts(0.0), power.watts(0.5), power.watts(7.0)), (5.0, 27.5, 50.0));
        let mut meter = Meter::start(power);
        std::thread::sleep(std::time::Duration::from_millis(20));
        meter.tick();
        let reading = meter.stop();
        assert!(reading.seconds >= 0.02 && reading.joules > 0.0);
        assert!(
            reading.modelled_joules >= 5.0 * reading.seconds
                && reading.modelled_joules <= 50.0 * reading.seconds
        );
        match reading.source {
            Source::Measured(names) => assert!(!names.is_empty()),
            Source::Modelled { why, .. } => assert!(!why.is_empty()),
        }
    }
}
