//! What memory gives right now, for a share beside a figure that was measured in the same moment: other tenants of a machine
//! can halve it from one minute to the next.

use std::time::Duration;

use memmap2::MmapMut;
use ounce_kernels::isa::Isa;
use ounce_kernels::pool::Pool;

use super::arithmetic::fastest;
use super::bandwidth::{advise, read_all, write_all};
use crate::machine::Pages;
use crate::{Error, Result};

/// More than any cache that one virtual machine has for itself.
const BYTES: usize = 512 << 20;
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
        write_all(&mut map, pool);
        Ok(Alongside { map, isa: fastest() })
    }

    /// Bytes a second that a plain loop on all threads of the pool reads, by the median of rounds of 5 ms in `time`.
    pub fn read(&self, pool: &Pool, time: Duration) -> f64 {
        let found = AHEAD.map(|ahead| read_all(&self.map, pool, self.isa, ahead, time / AHEAD.len() as u32));
        found.into_iter().flatten().fold(0.0, |best, it| it.median.max(best))
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
