//! What a machine can do, measured: how fast it reads memory and disk, and how many multiplications it does.
//!
//! - [`Machine`]: the profile as data, with the figures that a forecast asks for. Rates are per second, sizes bytes.
//! - [`host`]: what the system says about itself without measuring: processor, caches, memory.
//! - [`measure`](measure()): makes a profile. [`Effort`] says how long it may take.
//! - [`Machine::load_cached`], [`Machine::store`]: the profile in a file; one of another machine is not taken for this.

mod check;
pub mod host;
mod measure;
mod store;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ounce_kernels::probe::Kind;
use serde::{Deserialize, Serialize};

pub use host::{Cache, Cpu, Memory};
pub use measure::energy::Counters as EnergyCounters;
pub use measure::{Alongside, DiskTarget, Effort, cpu_time, measure};
pub use store::Lookup;

/// Version of the file format; a file of another one is measured again.
pub const FORMAT: u32 = 1;

/// A measured machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of ounce that measured.
    pub tool_version: String,
    /// When, in seconds since 1970-01-01 UTC.
    pub measured_at_unix_seconds: u64,
    /// Whether it was measured in a hurry ([`Effort::quick`]).
    pub quick: bool,
    /// The processor.
    pub cpu: Cpu,
    /// The caches that the first core uses; empty where the system doesn't list them.
    pub caches: Vec<Cache>,
    /// Memory when it was measured.
    pub memory: Memory,
    /// Reading a buffer much larger than the caches, one row for each number of threads, page size and prefetch.
    pub memory_reads: Vec<Read>,
    /// Reading a buffer in each core's second-level cache.
    pub cache_reads: Vec<Read>,
    /// Multiply-adds in registers.
    pub peaks: Vec<Peak>,
    /// Reading a file; none where it could not be measured.
    pub disk: Option<Disk>,
    /// Power under load; none without a counter.
    pub energy: Option<Energy>,
    /// What was not measured, and what makes a figure doubtful, in sentences.
    pub notes: Vec<String>,
}

/// A rate that was measured several times.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// The best round: what the machine can do.
    pub best: f64,
    /// The middle round.
    pub median: f64,
    /// Share of the time in which the threads had a core each, from 0 to 1: below 1 if other programs took cores
    /// away, and then the best round may be too low. None where the system doesn't tell.
    pub cpu_share: Option<f64>,
}

/// Size of the pages that a buffer lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pages {
    /// The usual ones, as mapped files have them.
    Small,
    /// Huge pages, as ounce asks for where it holds weights in memory of its own.
    Huge,
}

/// One way to read memory, and how fast it was.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// Threads that read at the same time, each its own part.
    pub threads: usize,
    /// Bytes of all parts together.
    pub buffer_bytes: u64,
    /// Pages of the buffer.
    pub pages: Pages,
    /// How many bytes ahead of the one being read were asked for; 0 for none.
    pub prefetch_bytes: usize,
    /// Bytes a second of all threads together.
    pub bytes_per_second: Rate,
}

/// What is multiplied, and with which sort of instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpKind {
    /// f32.
    F32,
    /// Pairs of bf16, summed in f32.
    Bf16,
    /// int8, summed in i32.
    Int8,
    /// bf16 with matrix instructions: AMX tiles, `bfmmla`.
    MatrixBf16,
    /// int8 with matrix instructions: AMX tiles, `smmla`.
    MatrixInt8,
}

/// Multiplications and additions of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peak {
    /// What is multiplied.
    pub kind: OpKind,
    /// The instruction that was timed.
    pub instruction: String,
    /// Threads that computed at the same time.
    pub threads: usize,
    /// Operations a second of all threads together; a multiply-add counts as two.
    pub ops_per_second: Rate,
}

/// A file read in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The file, or the folder of a temporary one.
    pub path: PathBuf,
    /// Whether the file was made for the measurement.
    pub temporary: bool,
    /// Bytes that were read.
    pub bytes: u64,
    /// How fast.
    pub bytes_per_second: f64,
    /// Share of the file that was still in memory after the system had been asked to drop it, from 0 to 1; none where
    /// that can't be found out. The rest may still come from a cache of the disk's own, or of a virtual machine's host.
    pub cached_share: Option<f64>,
}

impl Disk {
    /// Whether the figure may be memory's and not the disk's.
    pub fn may_be_cached(&self) -> bool {
        self.cached_share.is_none_or(|share| share > 0.0)
    }
}

/// Power that the processor's energy counter shows while all threads multiply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Energy {
    /// The counters that were added up, such as `package-0`.
    pub counters: Vec<String>,
    /// Seconds of load.
    pub seconds: f64,
    /// Joules a second under load.
    pub busy_watts: f64,
}

impl Machine {
    /// Bytes a second that so many threads read from memory together, in the best way that was measured. More threads
    /// than were measured read as fast as the most that were; numbers in between lie on the line.
    pub fn read_bandwidth(&self, threads: usize) -> f64 {
        self.read_bandwidth_in(Pages::Huge, threads).max(self.read_bandwidth_in(Pages::Small, threads))
    }

    /// As [`Machine::read_bandwidth`], in pages of one size: a mapped file has small ones. 0 for huge pages where
    /// there are none.
    pub fn read_bandwidth_in(&self, pages: Pages, threads: usize) -> f64 {
        let rows = self.memory_reads.iter().filter(|row| row.pages == pages);
        at_threads(rows.map(|row| (row.threads, row.bytes_per_second.best)), threads).unwrap_or(0.0)
    }

    /// Bytes a second that so many threads read together, each from its own second-level cache.
    pub fn cache_bandwidth(&self, threads: usize) -> f64 {
        let rows = self.cache_reads.iter();
        at_threads(rows.map(|row| (row.threads, row.bytes_per_second.best)), threads).unwrap_or(0.0)
    }

    /// Operations a second of so many threads together, a multiply-add counted as two; none where the processor has no
    /// instruction of that kind.
    pub fn peak_ops(&self, kind: OpKind, threads: usize) -> Option<f64> {
        let rows = self.peaks.iter().filter(|row| row.kind == kind);
        at_threads(rows.map(|row| (row.threads, row.ops_per_second.best)), threads)
    }

    /// The most threads it was measured with.
    pub fn threads(&self) -> usize {
        self.memory_reads.iter().map(|row| row.threads).max().unwrap_or(0)
    }

    /// How far the threads had the machine for themselves in the rate that was disturbed most, from 0 to 1; figures of
    /// a machine on which other programs ran may be too low. Where the system does not tell who had the cores, the
    /// middle round is compared with the best.
    pub fn steadiness(&self) -> f64 {
        let reads = self.memory_reads.iter().chain(&self.cache_reads).map(|row| row.bytes_per_second);
        let rates = reads.chain(self.peaks.iter().map(|row| row.ops_per_second));
        rates.map(|rate| rate.cpu_share.unwrap_or(rate.median / rate.best)).fold(1.0, f64::min)
    }

    /// How long ago it was measured; 0 if the clock has been set back since.
    pub fn age(&self) -> Duration {
        Duration::from_secs(unix_seconds().saturating_sub(self.measured_at_unix_seconds))
    }
}

/// Seconds since 1970; 0 before.
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// The rate at a number of threads, from what was measured at some. What a few threads did, more can do as well, so a
/// disturbed measurement of many does not count against them. None without measurements.
fn at_threads(measured: impl Iterator<Item = (usize, f64)>, threads: usize) -> Option<f64> {
    let mut points: Vec<(usize, f64)> = measured.collect();
    points.sort_by_key(|&(threads, _)| threads);
    let best_up_to = |at: usize| {
        points.iter().filter(|(threads, _)| *threads <= at).map(|(_, rate)| *rate).reduce(f64::max)
    };
    let threads = threads.max(1);
    let above = points.iter().map(|(at, _)| *at).find(|&at| at >= threads);
    let below = points.iter().map(|(at, _)| *at).rfind(|&at| at <= threads);
    match (below, above) {
        (Some(low), Some(high)) if low < high => {
            let share = (threads - low) as f64 / (high - low) as f64;
            let (slow, fast) = (best_up_to(low)?, best_up_to(high)?);
            Some(slow + (fast - slow) * share)
        }
        (Some(low), _) => best_up_to(low),
        (None, Some(high)) => Some(best_up_to(high)? * threads as f64 / high as f64),
        (None, None) => None,
    }
}

impl OpKind {
    /// Every kind.
    pub const ALL: [OpKind; 5] =
        [OpKind::F32, OpKind::Bf16, OpKind::Int8, OpKind::MatrixBf16, OpKind::MatrixInt8];

    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            OpKind::F32 => "f32",
            OpKind::Bf16 => "bf16",
            OpKind::Int8 => "int8",
            OpKind::MatrixBf16 => "bf16 matrix",
            OpKind::MatrixInt8 => "int8 matrix",
        }
    }

    fn probe(self) -> Kind {
        match self {
            OpKind::F32 => Kind::F32,
            OpKind::Bf16 => Kind::Bf16,
            OpKind::Int8 => Kind::Int8,
            OpKind::MatrixBf16 => Kind::MatrixBf16,
            OpKind::MatrixInt8 => Kind::MatrixInt8,
        }
    }
}

#[cfg(test)]
mod tests;
