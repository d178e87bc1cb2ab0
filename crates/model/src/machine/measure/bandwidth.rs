//! Bytes read a second: from memory, in small and huge pages, and from the second-level cache.

use std::time::Duration;

use memmap2::MmapMut;
use ounce_kernels::isa::Isa;
use ounce_kernels::pool::{Pool, part};
use ounce_kernels::probe;

use super::arithmetic::{self, fastest};
use super::rate::rate;
use super::{Effort, thread_counts, threads_in_words};
use crate::machine::{Cache, Memory, Pages, Rate, Read, host};
use crate::{Error, Result};

const HUGE_PAGE: u64 = 2 << 20;
const SMALL_PAGE: usize = 4096;
/// Long enough for some ten megabytes, as places of memory differ.
const ROUND: Duration = Duration::from_millis(5);
/// What one call of the loop reads: some ten microseconds' worth.
const BURST: usize = 128 << 10;
/// Bytes of a cache whose size is not known to read from: every processor of the last decade has that much.
const USUAL_CACHE: u64 = 256 << 10;

/// What is measured, and in what.
pub(super) struct Plan<'e> {
    effort: &'e Effort,
    threads: usize,
    isa: Isa,
    buffer_bytes: u64,
    /// The largest cache.
    largest_cache: u64,
    /// What each thread reads in its second-level cache: half of it, as other things lie there too.
    cache_bytes: usize,
    prefetch: Vec<usize>,
}

/// Memory of which every page has been written.
struct Buffer {
    map: MmapMut,
    pages: Pages,
}

impl<'e> Plan<'e> {
    pub(super) fn new(effort: &'e Effort, threads: usize, memory: Memory, caches: &[Cache]) -> Plan<'e> {
        let isa = fastest();
        let room = (memory.total_bytes / 8).min(memory.available_bytes / 4);
        let buffer_bytes = effort.buffer_bytes.min(room).max(HUGE_PAGE) / HUGE_PAGE * HUGE_PAGE;
        let cache = host::second_level(caches).unwrap_or(USUAL_CACHE).min(buffer_bytes / threads as u64);
        let prefetch = effort.prefetch.iter().copied().filter(|&it| it == 0 || probe::prefetches(isa));
        Plan {
            effort,
            threads,
            isa,
            buffer_bytes,
            largest_cache: host::largest(caches).unwrap_or(0),
            cache_bytes: (cache / 2) as usize,
            prefetch: prefetch.collect(),
        }
    }

    fn memory_threads(&self) -> Vec<usize> {
        thread_counts(self.threads, self.effort.every_power_of_two)
    }

    /// Steps that are reported, at most.
    pub(super) fn steps(&self) -> usize {
        let reads = self.memory_threads().len() * self.prefetch.len();
        2 * (1 + reads + thread_counts(self.threads, false).len())
    }

    /// Reads of memory, and reads of caches.
    pub(super) fn measure(
        &self,
        step: &mut dyn FnMut(&str) -> Result<()>,
        notes: &mut Vec<String>,
    ) -> Result<(Vec<Read>, Vec<Read>)> {
        if self.buffer_bytes < self.largest_cache.saturating_mul(4) {
            notes.push(format!(
                "memory was read in a buffer of {} MiB; the largest cache is said to have {} MiB (virtual machines say \
                 what their host has), so some of it may have come from there",
                self.buffer_bytes >> 20,
                self.largest_cache >> 20
            ));
        }
        let (mut memory, mut caches) = (Vec::new(), Vec::new());
        for pages in [Pages::Small, Pages::Huge] {
            step("taking memory")?;
            let buffer = match self.buffer(pages)? {
                Ok(buffer) => buffer,
                Err(why) => {
                    notes.push(why);
                    continue;
                }
            };
            self.read_memory(&buffer, step, &mut memory)?;
            self.read_caches(&buffer, step, &mut caches)?;
        }
        Ok((memory, caches))
    }

    /// A buffer in such pages, or why there is none.
    fn buffer(&self, pages: Pages) -> Result<Result<Buffer, String>> {
        let mut map = MmapMut::map_anon(self.buffer_bytes as usize).map_err(|error| {
            Error::unsupported(format!(
                "no {} MiB of memory to measure with: {error}",
                self.buffer_bytes >> 20
            ))
        })?;
        if let Err(error) = advise(&map, pages)
            && pages == Pages::Huge
        {
            return Ok(Err(format!("no figures for huge pages, which the system does not give: {error}")));
        }
        let huge_before = huge_bytes();
        write_all(&mut map, &Pool::new(self.threads));
        if pages == Pages::Huge {
            let (Some(before), Some(after)) = (huge_before, huge_bytes()) else {
                return Ok(Err(
                    "no figures for huge pages: the system does not tell whether it gave any".into()
                ));
            };
            let share = after.saturating_sub(before) as f64 / self.buffer_bytes as f64;
            if share < 0.9 {
                let percent = share * 100.0;
                return Ok(Err(format!(
                    "no figures for huge pages: the system gave them for {percent:.0} % of the buffer"
                )));
            }
        }
        Ok(Ok(Buffer { map, pages }))
    }

    fn read_memory(
        &self,
        buffer: &Buffer,
        step: &mut dyn FnMut(&str) -> Result<()>,
        rows: &mut Vec<Read>,
    ) -> Result<()> {
        for threads in self.memory_threads() {
            let pool = Pool::new(threads);
            let threads = pool.threads();
            for &ahead in &self.prefetch {
                step(&format!("reading memory, {}", threads_in_words(threads)))?;
                let bytes_per_second = read_all(&buffer.map, &pool, self.isa, ahead, self.effort.time);
                rows.extend(bytes_per_second.map(|bytes_per_second| Read {
                    threads,
                    buffer_bytes: self.buffer_bytes,
                    pages: buffer.pages,
                    prefetch_bytes: ahead,
                    bytes_per_second,
                }));
            }
        }
        Ok(())
    }

    fn read_caches(
        &self,
        buffer: &Buffer,
        step: &mut dyn FnMut(&str) -> Result<()>,
        rows: &mut Vec<Read>,
    ) -> Result<()> {
        let passes = BURST.div_ceil(self.cache_bytes).max(4);
        for threads in thread_counts(self.threads, false) {
            let pool = Pool::new(threads);
            let threads = pool.threads();
            step(&format!("reading caches, {}", threads_in_words(threads)))?;
            let bytes_per_second = rate(&pool, self.effort.time, arithmetic::ROUND, |thread, _| {
                let own = &buffer.map[thread * self.cache_bytes..][..self.cache_bytes];
                for _ in 0..passes {
                    std::hint::black_box(probe::read(self.isa, own, 0));
                }
                (passes * own.len()) as u64
            });
            rows.extend(bytes_per_second.map(|bytes_per_second| Read {
                threads,
                buffer_bytes: (threads * self.cache_bytes) as u64,
                pages: buffer.pages,
                prefetch_bytes: 0,
                bytes_per_second,
            }));
        }
        Ok(())
    }
}

/// Writes to every page: one that was never written is one page of zeros for all.
pub(super) fn write_all(map: &mut MmapMut, pool: &Pool) {
    pool.split_chunks(map, HUGE_PAGE as usize, |number, chunk| {
        chunk.iter_mut().step_by(SMALL_PAGE).for_each(|byte| *byte = number as u8 | 1);
    });
}

/// Bytes a second that the pool's threads read, each its part, again and again for so long.
pub(super) fn read_all(map: &MmapMut, pool: &Pool, isa: Isa, ahead: usize, time: Duration) -> Option<Rate> {
    rate(pool, time, ROUND, |thread, number| {
        let own = &map[part(map.len(), BURST, thread, pool.threads())];
        // A later round goes on where the earlier one stopped: what it reads was not read lately.
        let bursts = own.len().div_ceil(BURST).max(1);
        let start = number % bursts * BURST;
        let burst = &own[start.min(own.len())..(start + BURST).min(own.len())];
        std::hint::black_box(probe::read(isa, burst, ahead));
        burst.len() as u64
    })
}

/// Asks for pages of one size.
#[cfg(target_os = "linux")]
pub(super) fn advise(map: &MmapMut, pages: Pages) -> std::io::Result<()> {
    map.advise(match pages {
        Pages::Small => memmap2::Advice::NoHugePage,
        Pages::Huge => memmap2::Advice::HugePage,
    })
}

#[cfg(not(target_os = "linux"))]
pub(super) fn advise(_: &MmapMut, pages: Pages) -> std::io::Result<()> {
    match pages {
        Pages::Small => Ok(()),
        Pages::Huge => {
            Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "not asked for on this system"))
        }
    }
}

/// Bytes of this process that lie in huge pages; none where the system doesn't tell.
fn huge_bytes() -> Option<u64> {
    let facts = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = facts.lines().find(|line| line.starts_with("AnonHugePages:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn buffer_bytes(total_bytes: u64, available_bytes: u64) -> u64 {
        let effort = Effort::thorough();
        Plan::new(&effort, 2, Memory { total_bytes, available_bytes }, &[]).buffer_bytes
    }

    #[test]
    fn the_buffer_is_a_small_part_of_memory() {
        assert_eq!(buffer_bytes(64 * GIB, 32 * GIB), GIB);
        assert_eq!(buffer_bytes(4 * GIB, 4 * GIB), GIB / 2);
        assert_eq!(buffer_bytes(64 * GIB, GIB), GIB / 4);
        assert_eq!(buffer_bytes(1, 0), HUGE_PAGE);
    }

    #[test]
    fn what_many_threads_read_of_caches_lies_in_the_buffer() {
        let caches = [Cache { level: 2, kind: host::CacheKind::Unified, bytes: 64 << 20, shared_by: 1 }];
        let effort = Effort::quick();
        let memory = Memory { total_bytes: GIB, available_bytes: GIB };
        for threads in [1, 3, 64] {
            let plan = Plan::new(&effort, threads, memory, &caches);
            assert!((plan.cache_bytes * threads) as u64 <= plan.buffer_bytes, "{threads} threads");
            assert!(plan.cache_bytes > 0);
        }
    }
}
