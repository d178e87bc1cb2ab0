//! What memory gives right now, for a share beside a figure that was measured in the same moment: other tenants of a machine
//! can halve it from one minute to the next.

use std::time::Duration;

use memmap2::MmapMut;
use ounce_kernels::pool::{Pool, part};
use ounce_kernels::{isa::Isa, probe};

use super::arithmetic::fastest;
use super::bandwidth::advise;
use super::rate::rate;
use crate::machine::Pages;
use crate::{Error, Result};

/// More than any cache that one virtual machine has for itself.
const BYTES: usize = 512 << 20;
const SMALL_PAGE: usize = 4096;
const ROUND: Duration = Duration::from_millis(5);
const BURST: usize = 128 << 10;
/// Distances in bytes at which memory is asked for ahead; the better one counts.
const AHEAD: [usize; 2] = [0, 1024];

/// Memory to read between other measurements.
pub struct Alongside {
    map: MmapMut,
    isa: Isa,
}

impl Alongside {
    /// Takes 512 MiB of memory and writes to all of it, in huge pages where the system gives them.
    ///
    /// # Errors
    /// If there is no such memory.
    pub fn new(pool: &Pool) -> Result<Alongside> {
        let mut map = MmapMut::map_anon(BYTES).map_err(|error| {
            Error::unsupported(format!("no {} MiB of memory to measure with: {error}", BYTES >> 20))
        })?;
        // Where there are none the figure is that of small pages.
        let _ = advise(&map, Pages::Huge);
        pool.split_chunks(&mut map, 2 << 20, |number, chunk| {
            chunk.iter_mut().step_by(SMALL_PAGE).for_each(|byte| *byte = number as u8 | 1);
        });
        Ok(Alongside { map, isa: fastest() })
    }

    /// Bytes a second that a plain loop on all threads of the pool reads, by the median of rounds of 5 ms in `time`.
    pub fn read(&self, pool: &Pool, time: Duration) -> f64 {
        let mut best = 0.0f64;
        for ahead in AHEAD {
            let found = rate(pool, time / AHEAD.len() as u32, ROUND, |thread, number| {
                let own = &self.map[part(self.map.len(), BURST, thread, pool.threads())];
                let start = number % own.len().div_ceil(BURST).max(1) * BURST;
                let burst = &own[start.min(own.len())..(start + BURST).min(own.len())];
                std::hint::black_box(probe::read(self.isa, burst, ahead));
                burst.len() as u64
            });
            best = best.max(found.map_or(0.0, |it| it.median));
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_at_some_rate() {
        let pool = Pool::new(2);
        let found = Alongside::new(&pool).unwrap().read(&pool, Duration::from_millis(20));
        // Slower than a disk, or faster than any memory, would be a fault of the measurement.
        assert!((1e8..1e13).contains(&found), "{found}");
    }
}
