//! Measures a machine, one concern a file.

mod alongside;
mod arithmetic;
mod bandwidth;
mod disk;
pub(super) mod energy;
mod rate;

pub use alongside::Alongside;
pub use rate::cpu_time;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Cpu, FORMAT, Machine, Memory, host, unix_seconds};
use crate::{Error, Result};

/// How thoroughly to measure.
#[derive(Debug, Clone, PartialEq)]
pub struct Effort {
    /// Whether this is the effort of somebody in a hurry; noted in the profile.
    pub quick: bool,
    /// How long to measure each rate, in rounds of some milliseconds.
    pub time: Duration,
    /// The largest buffer that memory is read from, in bytes.
    pub buffer_bytes: u64,
    /// Distances of prefetching to try, in bytes; 0 for none.
    pub prefetch: Vec<usize>,
    /// Whether to measure memory with 1, 2, 4 … threads, or only with one and all.
    pub every_power_of_two: bool,
    /// Bytes of the file to read, at most.
    pub disk_bytes: u64,
    /// The longest time that writing, and then reading, the file may take.
    pub disk_time: Duration,
    /// How long to load the processor for its energy counter, if it has one.
    pub busy: Duration,
}

impl Effort {
    /// Some ten seconds.
    pub fn thorough() -> Effort {
        Effort {
            quick: false,
            time: Duration::from_millis(160),
            buffer_bytes: 1 << 30,
            prefetch: vec![0, 512, 1024, 2048],
            every_power_of_two: true,
            disk_bytes: 256 << 20,
            disk_time: Duration::from_secs(2),
            busy: Duration::from_secs(1),
        }
    }

    /// A few seconds.
    pub fn quick() -> Effort {
        Effort {
            quick: true,
            time: Duration::from_millis(40),
            buffer_bytes: 256 << 20,
            prefetch: vec![0, 1024],
            every_power_of_two: false,
            disk_bytes: 64 << 20,
            disk_time: Duration::from_millis(750),
            busy: Duration::from_millis(500),
        }
    }
}

/// Which file is read to measure the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskTarget {
    /// A temporary file in this folder.
    Folder(PathBuf),
    /// This file, which stays as it is; the system is asked to forget what it holds of it in memory.
    File(PathBuf),
}

/// Told before every step what comes, and how many of all steps are done; its error ends the measurement.
pub type OnStep<'a> = &'a mut dyn FnMut(&str, usize, usize) -> Result<()>;

/// Measures this machine with up to `threads` threads.
///
/// # Errors
/// What `on_step` returns; [`Error::Unsupported`] if there is no memory to measure with; [`Error::Io`] or
/// [`Error::Format`] if a file that was named can't be read. What can't be measured otherwise is told in
/// [`Machine::notes`].
pub fn measure(effort: &Effort, threads: usize, disk: &DiskTarget, on_step: OnStep<'_>) -> Result<Machine> {
    let threads = threads.max(1);
    let memory = Memory::now()
        .ok_or_else(|| Error::unsupported("this system does not tell how much memory it has"))?;
    let (cpu, caches) = (Cpu::detect(), host::caches());
    let mut notes = Vec::new();
    let plan = bandwidth::Plan::new(effort, threads, memory, &caches);
    let total = disk::STEPS + plan.steps() + arithmetic::steps(threads) + 1;
    let mut done = 0;
    let mut step = |what: &str| {
        done += 1;
        on_step(what, done - 1, total)
    };
    // First, since it alone can fail.
    let disk = disk::measure(disk, effort, &mut step, &mut notes)?;
    let (memory_reads, cache_reads) = plan.measure(&mut step, &mut notes)?;
    let peaks = arithmetic::measure(effort, threads, &mut step, &mut notes)?;
    let energy = energy::measure(Path::new(energy::COUNTERS), effort, threads, &mut step, &mut notes)?;
    Ok(Machine {
        format: FORMAT,
        tool_version: env!("CARGO_PKG_VERSION").to_string(),
        measured_at_unix_seconds: unix_seconds(),
        quick: effort.quick,
        cpu,
        caches,
        memory,
        memory_reads,
        cache_reads,
        peaks,
        disk,
        energy,
        notes,
    })
}

/// 1, 2, 4 … up to `threads`, and that number itself; or only one and all.
fn thread_counts(threads: usize, every_power_of_two: bool) -> Vec<usize> {
    let powers = std::iter::successors(Some(1), |count| every_power_of_two.then_some(count * 2));
    powers.take_while(|&count| count < threads).chain([threads]).collect()
}

/// `1 thread`, `2 threads`.
fn threads_in_words(threads: usize) -> String {
    format!("{threads} {}", if threads == 1 { "thread" } else { "threads" })
}

#[cfg(test)]
mod tests {
    use super::super::{OpKind, Pages};
    use super::*;

    /// The least that goes through every step.
    fn least() -> Effort {
        Effort {
            time: Duration::from_millis(2),
            buffer_bytes: 8 << 20,
            disk_bytes: 2 << 20,
            busy: Duration::from_millis(20),
            ..Effort::quick()
        }
    }

    #[test]
    fn a_measured_machine_has_every_figure_and_is_possible() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut steps = Vec::new();
        let machine =
            measure(&least(), 2, &DiskTarget::Folder(folder.path().into()), &mut |_, done, total| {
                steps.push((done, total));
                Ok(())
            })
            .expect("measures");
        assert_eq!(machine.check(), Ok(()));
        assert_eq!(machine.threads(), 2);
        for threads in [1, 2] {
            assert!(machine.read_bandwidth_in(Pages::Small, threads) > 0.0);
            assert!(machine.cache_bandwidth(threads) > 0.0);
            for kind in [OpKind::F32, OpKind::Int8] {
                assert!(machine.peak_ops(kind, threads).is_some_and(|it| it > 0.0), "{kind:?}");
            }
        }
        let disk = machine.disk.expect("a folder that can be written");
        assert!(disk.temporary && disk.bytes == 2 << 20, "{disk:?}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 0, "no file stays");
        // Huge pages that the system keeps, or kinds that the processor lacks, are skipped, never counted twice.
        assert!(steps.iter().all(|&(done, total)| done < total && total == steps[0].1), "{steps:?}");
        assert!(steps.iter().map(|it| it.0).eq(0..steps.len()), "{steps:?}");
    }

    #[test]
    fn an_error_of_the_caller_ends_it_at_every_step() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let target = DiskTarget::Folder(folder.path().into());
        for stop in [0, 1, 5, 8] {
            let result = measure(&least(), 1, &target, &mut |_, done, _| {
                if done == stop { Err(Error::Interrupted) } else { Ok(()) }
            });
            assert!(matches!(result, Err(Error::Interrupted)), "step {stop}: {result:?}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 0, "no file stays");
    }

    #[test]
    fn threads_double_up_to_all_of_them() {
        assert_eq!(thread_counts(1, true), [1]);
        assert_eq!(thread_counts(2, true), [1, 2]);
        assert_eq!(thread_counts(12, true), [1, 2, 4, 8, 12]);
        assert_eq!(thread_counts(16, true), [1, 2, 4, 8, 16]);
        assert_eq!(thread_counts(16, false), [1, 16]);
        assert_eq!(thread_counts(1, false), [1]);
    }
}
