//! How much a second is done when threads repeat a piece of work.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::pool::Pool;

/// Repeats `burst` on all threads of the pool for `rounds` rounds of about `time` each, after a first one that is not
/// counted, and returns the units that all threads together did in a second, round by round.
///
/// `burst` gets the thread's number and how many bursts this thread did before, over all rounds, and returns the units
/// it did. It should last some microseconds at least (the clock is read after each) and much less than a round: a
/// round ends when the thread that is last has finished its burst.
pub fn rates(
    pool: &Pool,
    rounds: usize,
    time: Duration,
    burst: impl Fn(usize, usize) -> u64 + Sync,
) -> Vec<f64> {
    let done: Vec<AtomicUsize> = (0..pool.threads()).map(|_| AtomicUsize::new(0)).collect();
    let round = |_| {
        let units = AtomicU64::new(0);
        let start = Instant::now();
        pool.run(&|thread| {
            let mut number = done[thread].load(Ordering::Relaxed);
            let mut own = 0;
            loop {
                own += burst(thread, number);
                number += 1;
                if start.elapsed() >= time {
                    break;
                }
            }
            done[thread].store(number, Ordering::Relaxed);
            units.fetch_add(own, Ordering::Relaxed);
        });
        units.into_inner() as f64 / start.elapsed().as_secs_f64()
    };
    // In the first round threads wake up, clocks rise and caches fill.
    (0..=rounds).map(round).skip(1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn every_thread_counts_its_bursts_over_all_rounds() {
        let pool = Pool::new(2);
        let seen = Mutex::new([Vec::new(), Vec::new()]);
        let rates = rates(&pool, 3, Duration::from_micros(50), |thread, number| {
            seen.lock().unwrap()[thread].push(number);
            7
        });
        assert_eq!(rates.len(), 3);
        for numbers in seen.into_inner().unwrap() {
            assert!(numbers.len() >= 4, "a burst in each round, the first included");
            assert!(numbers.iter().copied().eq(0..numbers.len()));
        }
    }

    #[test]
    fn a_rate_is_units_over_time() {
        let slept = Duration::from_millis(5);
        let rates = rates(&Pool::new(1), 2, Duration::ZERO, |_, _| {
            std::thread::sleep(slept);
            1000
        });
        // One burst a round: a sleep may last longer than asked for, never shorter.
        let most = 1000.0 / slept.as_secs_f64();
        assert!(rates.iter().all(|&rate| rate > 0.0 && rate <= most), "{rates:?}");
    }
}
