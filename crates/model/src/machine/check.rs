//! What the types of a profile can't express: every figure is one that a machine can have.

use super::{FORMAT, Machine, Pages, Rate, Read};

/// More bytes a second than any core reads from its cache.
const MOST_BYTES_PER_THREAD: f64 = 2e12;
/// More operations a second than any core does, matrix unit included.
const MOST_OPS_PER_THREAD: f64 = 1e15;
/// More than any processor draws.
const MOST_WATTS: f64 = 1e5;
/// More threads than any machine has.
const MOST_THREADS: usize = 1 << 16;

impl Machine {
    /// Checks that all figures are there, positive, finite and possible.
    ///
    /// # Errors
    /// The first flaw, as a clause such as `cpu.cores is 0`.
    pub fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("its format is {}, this version of ounce reads {FORMAT}", self.format));
        }
        positive("cpu.cores", self.cpu.cores as u64)?;
        positive("memory.total_bytes", self.memory.total_bytes)?;
        if self.memory.available_bytes > self.memory.total_bytes {
            return Err("memory.available_bytes is more than memory.total_bytes".to_string());
        }
        for cache in &self.caches {
            positive("the size of a cache", cache.bytes)?;
            positive("the sharers of a cache", cache.shared_by as u64)?;
        }
        for (name, rows) in [("memory_reads", &self.memory_reads), ("cache_reads", &self.cache_reads)] {
            if rows.is_empty() {
                return Err(format!("{name} is empty"));
            }
            rows.iter().try_for_each(|row| read(name, row))?;
        }
        if !self.memory_reads.iter().any(|row| row.pages == Pages::Small) {
            return Err("memory_reads has no row for small pages".to_string());
        }
        if self.peaks.is_empty() {
            return Err("peaks is empty".to_string());
        }
        for peak in &self.peaks {
            let name = format!("the peak of {}", peak.kind.name());
            threads(&name, peak.threads)?;
            rate(&name, peak.ops_per_second, MOST_OPS_PER_THREAD * peak.threads as f64)?;
        }
        if let Some(disk) = &self.disk {
            positive("disk.bytes", disk.bytes)?;
            figure("disk.bytes_per_second", disk.bytes_per_second, MOST_BYTES_PER_THREAD)?;
            if disk.cached_share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
                return Err("disk.cached_share is not from 0 to 1".to_string());
            }
        }
        if let Some(energy) = &self.energy {
            figure("energy.seconds", energy.seconds, 3600.0)?;
            figure("energy.busy_watts", energy.busy_watts, MOST_WATTS)?;
        }
        Ok(())
    }
}

fn read(name: &str, row: &Read) -> Result<(), String> {
    threads(name, row.threads)?;
    positive(&format!("{name}.buffer_bytes"), row.buffer_bytes)?;
    rate(name, row.bytes_per_second, MOST_BYTES_PER_THREAD * row.threads as f64)
}

fn threads(name: &str, threads: usize) -> Result<(), String> {
    if (1..=MOST_THREADS).contains(&threads) { Ok(()) } else { Err(format!("{name} has {threads} threads")) }
}

fn rate(name: &str, rate: Rate, most: f64) -> Result<(), String> {
    figure(name, rate.best, most)?;
    figure(name, rate.median, most)?;
    if rate.cpu_share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
        return Err(format!("{name}: cpu_share is not from 0 to 1"));
    }
    if rate.median > rate.best { Err(format!("{name}: the median is above the best")) } else { Ok(()) }
}

/// A NaN is in no range.
fn figure(name: &str, value: f64, most: f64) -> Result<(), String> {
    if value > 0.0 && value <= most { Ok(()) } else { Err(format!("{name} is {value}")) }
}

fn positive(name: &str, value: u64) -> Result<(), String> {
    if value > 0 { Ok(()) } else { Err(format!("{name} is 0")) }
}
