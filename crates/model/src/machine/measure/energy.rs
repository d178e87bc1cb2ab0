//! Watts under load, from the processor's own energy counters where Linux shows them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ounce_kernels::pool::Pool;
use ounce_kernels::probe::{self, Kind};

use super::Effort;
use super::arithmetic::fastest;
use crate::Result;
use crate::machine::Energy;

/// Where Linux shows them, for AMD's processors too.
pub(super) const COUNTERS: &str = "/sys/class/powercap";

/// The processor's energy counters, one for each package: what all programs on the machine use together.
#[derive(Debug)]
pub struct Counters(Vec<Counter>);

impl Counters {
    /// The counters of this machine.
    ///
    /// # Errors
    /// Why there are none that can be read, as a sentence.
    pub fn open() -> Result<Counters, String> {
        let counters = Counters(counters(Path::new(COUNTERS))?);
        counters.read()?;
        Ok(counters)
    }

    /// Their names, such as `package-0`.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|counter| counter.name.clone()).collect()
    }

    /// What they show, in microjoules.
    ///
    /// # Errors
    /// If one can't be read.
    pub fn read(&self) -> Result<Vec<u64>, String> {
        read_all(&self.0)
    }

    /// Joules between two readings; a counter may have started again once, which takes most of them an hour at least.
    pub fn joules(&self, before: &[u64], after: &[u64]) -> f64 {
        let used = self.0.iter().zip(before.iter().zip(after));
        used.map(|(counter, (&before, &after))| counter.between(before, after)).sum::<u64>() as f64 * 1e-6
    }
}

/// A counter of microjoules, one for each processor package.
#[derive(Debug)]
struct Counter {
    name: String,
    file: PathBuf,
    /// It starts again from 0 after this.
    largest: u64,
}

/// Loads all threads for a while and reads the counters before and after; none, with a note, where there are none.
pub(super) fn measure(
    folder: &Path,
    effort: &Effort,
    threads: usize,
    step: &mut dyn FnMut(&str) -> Result<()>,
    notes: &mut Vec<String>,
) -> Result<Option<Energy>> {
    step("reading the energy counter")?;
    let load = || {
        let pool = Pool::new(threads);
        if let Some(it) = probe::arithmetic(Kind::F32, fastest()) {
            // One round, and the one before it that is not counted.
            probe::rates(&pool, 1, effort.busy / 2, |_, _| {
                std::hint::black_box(it.run());
                it.operations()
            });
        }
    };
    match under_load(folder, load) {
        Ok(energy) => Ok(Some(energy)),
        Err(why) => {
            notes.push(format!("no power figure: {why}"));
            Ok(None)
        }
    }
}

fn under_load(folder: &Path, load: impl FnOnce()) -> Result<Energy, String> {
    let counters = Counters(counters(folder)?);
    let before = counters.read()?;
    let start = Instant::now();
    load();
    let time = start.elapsed();
    let after = counters.read()?;
    energy(counters.names(), counters.joules(&before, &after), time)
}

fn energy(counters: Vec<String>, joules: f64, time: Duration) -> Result<Energy, String> {
    let seconds = time.as_secs_f64();
    let busy_watts = joules / seconds;
    if joules == 0.0 || !busy_watts.is_finite() {
        return Err(format!("the counter {} stands still", counters.join(", ")));
    }
    Ok(Energy { counters, seconds, busy_watts })
}

/// The counters of whole packages. Those of their parts (`intel-rapl:0:0`) are contained in them.
fn counters(folder: &Path) -> Result<Vec<Counter>, String> {
    let entries = fs::read_dir(folder).map_err(|_| format!("there is no {}", folder.display()))?;
    let mut zones: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    zones.sort();
    let mut counters = Vec::new();
    for zone in zones {
        let fact = |name: &str| Some(fs::read_to_string(zone.join(name)).ok()?.trim().to_string());
        let Some(name) = fact("name").filter(|name| name.starts_with("package")) else { continue };
        let whole =
            zone.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("intel-rapl:"));
        if whole.is_none_or(|number| number.contains(':')) {
            continue;
        }
        let largest = fact("max_energy_range_uj").and_then(|it| it.parse().ok()).unwrap_or(u64::MAX);
        counters.push(Counter { name, file: zone.join("energy_uj"), largest });
    }
    if counters.is_empty() { Err(format!("no energy counter in {}", folder.display())) } else { Ok(counters) }
}

fn read_all(counters: &[Counter]) -> Result<Vec<u64>, String> {
    counters.iter().map(Counter::read).collect()
}

impl Counter {
    fn read(&self) -> Result<u64, String> {
        let name = self.file.display();
        let text =
            fs::read_to_string(&self.file).map_err(|error| format!("{name} can't be read: {error}"))?;
        text.trim().parse().map_err(|_| format!("{name} holds no number"))
    }

    /// Microjoules between two readings, the counter having started again once at most.
    fn between(&self, before: u64, after: u64) -> u64 {
        if after >= before {
            after - before
        } else {
            self.largest.saturating_sub(before).saturating_add(after)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder as Linux shows it: two packages, a part of one, and the platform.
    fn powercap() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("temporary folder");
        for (zone, name, energy) in [
            ("intel-rapl", "", "0"),
            ("intel-rapl:0", "package-0", "1000000"),
            ("intel-rapl:0:0", "core", "500000"),
            ("intel-rapl:1", "package-1", "9000000"),
            ("intel-rapl:2", "psys", "7000000"),
            ("intel-rapl-mmio:0", "package-0", "1000000"),
        ] {
            let zone = folder.path().join(zone);
            fs::create_dir(&zone).expect("folder");
            fs::write(zone.join("name"), format!("{name}\n")).expect("file");
            fs::write(zone.join("energy_uj"), format!("{energy}\n")).expect("file");
            fs::write(zone.join("max_energy_range_uj"), "10000000\n").expect("file");
        }
        folder
    }

    #[test]
    fn packages_are_added_up_and_may_start_again() {
        let folder = powercap();
        let set = |zone: &str, energy: &str| {
            fs::write(folder.path().join(zone).join("energy_uj"), energy).expect("file");
        };
        let energy = under_load(folder.path(), || {
            set("intel-rapl:0", "3000000");
            set("intel-rapl:1", "500000");
            set("intel-rapl:2", "9000000");
            std::thread::sleep(Duration::from_millis(10));
        })
        .expect("counters");
        assert_eq!(energy.counters, ["package-0", "package-1"]);
        // 2 J of the first; 1 J up to the end and 0.5 J from 0 of the second.
        let joules = energy.busy_watts * energy.seconds;
        assert!((joules - 3.5).abs() < 1e-9 && energy.seconds >= 0.01, "{energy:?}");
    }

    #[test]
    fn without_a_counter_there_is_a_reason() {
        let empty = tempfile::tempdir().expect("temporary folder");
        let still = powercap();
        let broken = powercap();
        fs::write(broken.path().join("intel-rapl:1/energy_uj"), "much").expect("file");
        for (folder, word) in [
            (empty.path().join("nowhere"), "there is no"),
            (empty.path().into(), "no energy counter"),
            (still.path().into(), "stands still"),
            (broken.path().into(), "no number"),
        ] {
            let why = under_load(&folder, || ()).expect_err(word);
            assert!(why.contains(word), "{why}");
        }
    }
}
