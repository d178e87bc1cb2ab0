//! A rate, and whether the threads that it was measured with had their cores for themselves.

use std::time::{Duration, Instant};

use ounce_kernels::pool::Pool;
use ounce_kernels::probe;

use crate::machine::Rate;

/// Repeats `burst` on all threads for about `time`, in rounds of `round`; see [`probe::rates`]. None if `time` is 0.
pub(super) fn rate(
    pool: &Pool,
    time: Duration,
    round: Duration,
    burst: impl Fn(usize, usize) -> u64 + Sync,
) -> Option<Rate> {
    let rounds = time.as_nanos().div_ceil(round.as_nanos().max(1)) as usize;
    let (start, cpu_start) = (Instant::now(), cpu_time());
    let rates = probe::rates(pool, rounds, round, burst);
    let wall = start.elapsed();
    let cpu_share = match (cpu_start, cpu_time()) {
        (Some(before), Some(after)) => Some(share(after.saturating_sub(before), wall, pool.threads())),
        _ => None,
    };
    summary(rates, cpu_share)
}

/// The share of the time in which threads that wanted a core each had one. They all work or wait awake for the others,
/// so each uses up the whole time of the core it has.
fn share(cpu: Duration, wall: Duration, threads: usize) -> f64 {
    let wanted = wall.as_secs_f64() * threads as f64;
    // Both clocks are read one after the other, so a little more than all is possible.
    if wanted > 0.0 { (cpu.as_secs_f64() / wanted).min(1.0) } else { 1.0 }
}

fn summary(mut rates: Vec<f64>, cpu_share: Option<f64>) -> Option<Rate> {
    rates.sort_by(f64::total_cmp);
    let best = *rates.last()?;
    Some(Rate { best, median: rates[rates.len() / 2], cpu_share })
}

/// Time that the threads of this process, those that ended included, have had a core; none where the system doesn't
/// tell.
#[cfg(target_os = "linux")]
pub fn cpu_time() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?))
}

#[cfg(not(target_os = "linux"))]
pub fn cpu_time() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_rate_is_the_best_and_the_middle_round() {
        let expected = Rate { best: 9.0, median: 5.0, cpu_share: Some(0.5) };
        assert_eq!(summary(vec![3.0, 9.0, 5.0], Some(0.5)), Some(expected));
        assert_eq!(summary(Vec::new(), None), None);
    }

    #[test]
    fn the_time_of_a_core_is_counted_for_every_thread() {
        let seconds = Duration::from_secs;
        assert_eq!(share(seconds(2), seconds(2), 1), 1.0);
        assert_eq!(share(seconds(2), seconds(2), 2), 0.5);
        assert_eq!(share(seconds(3), seconds(1), 2), 1.0);
        assert_eq!(share(seconds(0), seconds(1), 1), 0.0);
    }

    #[test]
    fn rounds_fill_the_time() {
        let bursts = AtomicUsize::new(0);
        let (time, round) = (Duration::from_micros(250), Duration::from_micros(100));
        let measured = rate(&Pool::new(1), time, round, |_, _| {
            bursts.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(round);
            1
        });
        assert!(
            measured.is_some_and(|it| it.best > 0.0 && it.best <= 1.0 / round.as_secs_f64()),
            "{measured:?}"
        );
        assert_eq!(bursts.into_inner(), 4, "three rounds and the one that is not counted");
        assert_eq!(rate(&Pool::new(1), Duration::ZERO, round, |_, _| 1), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn work_takes_time_of_a_core() {
        let before = cpu_time().expect("Linux tells");
        // Until the clock moves, which it would never do for a sleeping process.
        while cpu_time() == Some(before) {
            std::hint::spin_loop();
        }
        assert!(cpu_time().expect("Linux tells") > before);
    }
}
