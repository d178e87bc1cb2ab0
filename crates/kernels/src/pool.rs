//! Threads that share one piece of work at a time, with a static split: thread `i` of `n` always gets the
//! same part, so results do not depend on timing.
//!
//! A step of a model is some hundred short pieces of work in a row. Handing each to sleeping threads would cost
//! more than the work, so the workers spin for a while before they sleep, and nothing is allocated or locked
//! while they are awake. One caller uses the pool at a time; a second one waits.

use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;

/// Looks at the work counter before a thread goes to sleep, about a tenth of a second's worth: between two
/// tokens nobody sleeps, between two answers everybody does.
const SPINS: usize = 200_000;

/// A piece of work: called on every thread with its number.
type Job = dyn Fn(usize) + Sync;

/// What caller and workers share.
struct Shared {
    /// Counts the pieces of work; a change is the signal to start.
    round: AtomicUsize,
    /// The current piece; valid while `left` is not 0.
    job: Cell<Option<*const Job>>,
    /// Workers that have not finished the current piece.
    left: AtomicUsize,
    /// Whether a worker's part panicked.
    panicked: AtomicBool,
    /// Whether the workers should end.
    stop: AtomicBool,
    /// Workers that sleep or are about to.
    sleepers: AtomicUsize,
    /// Sleeping workers wait here.
    bed: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is written only by the one caller that holds the pool's lock, while no worker reads it (`left` is
// 0), and read by workers only after the release store of `round` that follows the write. The pointee is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is used only while the caller that it came from waits in `run`.
unsafe impl Send for Shared {}

/// A set of threads; the calling thread is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    caller: Mutex<()>,
}

impl Pool {
    /// A pool of `threads` threads, the caller included; at least one.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            round: AtomicUsize::new(0),
            job: Cell::new(None),
            left: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            bed: Mutex::new(()),
            wake: Condvar::new(),
        });
        let spawn = |number: usize| {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name(format!("ounce-{number}"));
            builder.spawn(move || work(&shared, number))
        };
        // Fewer threads than asked for are slower, not wrong.
        let workers: Vec<JoinHandle<()>> =
            (1..threads.max(1)).map_while(|number| spawn(number).ok()).collect();
        Pool { shared, workers, caller: Mutex::new(()) }
    }

    /// The pool of the whole program: one thread a core, or as [`set_threads`] said before its first use.
    pub fn global() -> &'static Pool {
        GLOBAL.get_or_init(|| {
            let wanted = WANTED.load(Ordering::Relaxed);
            let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
            Pool::new(if wanted == 0 { cores } else { wanted })
        })
    }

    /// A pool of the caller alone.
    pub fn single() -> &'static Pool {
        static SINGLE: OnceLock<Pool> = OnceLock::new();
        SINGLE.get_or_init(|| Pool::new(1))
    }

    /// Threads, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job` on every thread with the thread's number and returns when all are done.
    ///
    /// # Panics
    /// If `job` panics on any thread, after all threads are done with it.
    pub fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            return job(0);
        }
        // A panic of an earlier job leaves nothing half-done: every thread had finished before it went on.
        let _turn = self.caller.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let shared = &self.shared;
        // SAFETY: only the lifetime is changed. No worker touches the job after `left` has reached 0, and this
        // function does not return, nor unwind, before that.
        let erased = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static Job>(job) };
        shared.job.set(Some(std::ptr::from_ref(erased)));
        shared.left.store(self.workers.len(), Ordering::Relaxed);
        shared.round.fetch_add(1, Ordering::SeqCst);
        // Both counters are sequentially consistent: either this sees the sleeper, or the sleeper sees the round.
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            drop(shared.bed.lock());
            shared.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        for spin in 0.. {
            if shared.left.load(Ordering::Acquire) == 0 {
                break;
            }
            pause(spin);
        }
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!shared.panicked.swap(false, Ordering::Relaxed), "a thread of the pool panicked");
    }

    /// Calls `job` on every thread with its part of `0..items`: as even as possible in whole multiples of `unit`.
    pub fn split(&self, items: usize, unit: usize, job: impl Fn(Range<usize>) + Sync) {
        let threads = self.threads();
        self.run(&|thread| {
            let part = part(items, unit, thread, threads);
            if !part.is_empty() {
                job(part);
            }
        });
    }

    /// Calls `job` once for every `chunk` values of `data`, with the chunk's number; each thread has a run of them.
    pub fn split_chunks<T: Send>(&self, data: &mut [T], chunk: usize, job: impl Fn(usize, &mut [T]) + Sync) {
        let (length, base) = (data.len(), SendPointer(data.as_mut_ptr()));
        self.split(length.div_ceil(chunk.max(1)), 1, |part| {
            for number in part {
                let range = number * chunk..((number + 1) * chunk).min(length);
                // SAFETY: the range lies inside `data`, which is borrowed exclusively for this call, and chunks do
                // not overlap, so no other thread has a reference into it.
                job(number, unsafe {
                    std::slice::from_raw_parts_mut(base.get().add(range.start), range.len())
                });
            }
        });
    }
}

/// An output of which threads write disjoint parts that do not lie in one piece.
pub(crate) struct SharedOut<'o, T = f32> {
    pointer: *mut T,
    length: usize,
    borrow: std::marker::PhantomData<&'o mut [T]>,
}

// SAFETY: who calls `write` or `part` promises that no place is used by two threads.
unsafe impl<T: Send> Sync for SharedOut<'_, T> {}

impl<'o, T> SharedOut<'o, T> {
    /// Borrows an output.
    pub(crate) fn new(out: &'o mut [T]) -> SharedOut<'o, T> {
        SharedOut { pointer: out.as_mut_ptr(), length: out.len(), borrow: std::marker::PhantomData }
    }

    /// Copies values to a place.
    ///
    /// # Safety
    /// No other thread writes to these places while the output is borrowed.
    #[inline]
    pub(crate) unsafe fn write(&self, at: usize, values: &[T])
    where
        T: Copy,
    {
        assert!(at + values.len() <= self.length, "inside the output");
        // SAFETY: the range is inside the output, just checked, and the caller's alone.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), self.pointer.add(at), values.len()) };
    }

    /// A part as a slice.
    ///
    /// # Safety
    /// Nobody else uses these places while the slice lives.
    #[inline]
    #[allow(clippy::mut_from_ref)] // the caller's promise stands in for the exclusive borrow
    pub(crate) unsafe fn part<'s>(&'s self, range: Range<usize>) -> &'s mut [T]
    where
        'o: 's,
    {
        assert!(range.start <= range.end && range.end <= self.length, "inside the output");
        // SAFETY: the range is inside the output, just checked, and the caller's alone.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.len()) }
    }

    /// Where `rows` rows of `width` values begin, `stride` apart, from `first` on.
    #[inline]
    pub(crate) fn tile(&self, first: usize, rows: usize, width: usize, stride: usize) -> *mut T {
        assert!(rows > 0 && first + (rows - 1) * stride + width <= self.length, "inside the output");
        self.pointer.wrapping_add(first)
    }
}

/// A pointer that may cross threads; who makes one sees to it that they do not share what it points to.
struct SendPointer<T>(*mut T);

// SAFETY: only `split_chunks` makes one, for disjoint chunks of a slice whose items may cross threads.
unsafe impl<T: Send> Sync for SendPointer<T> {}

impl<T> SendPointer<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

/// Thread `thread`'s part of `0..items` when `threads` share it in whole multiples of `unit`.
pub fn part(items: usize, unit: usize, thread: usize, threads: usize) -> Range<usize> {
    let units = items.div_ceil(unit);
    let at = |thread: usize| (units * thread / threads * unit).min(items);
    at(thread)..at(thread + 1)
}

static GLOBAL: OnceLock<Pool> = OnceLock::new();
static WANTED: AtomicUsize = AtomicUsize::new(0);

/// Sets the threads of [`Pool::global`]; returns false if it is already running with another number.
pub fn set_threads(threads: usize) -> bool {
    WANTED.store(threads, Ordering::Relaxed);
    GLOBAL.get().is_none_or(|pool| pool.threads() == threads)
}

/// A worker's life: wait for a round, do its part, report.
fn work(shared: &Shared, number: usize) {
    let mut seen = 0;
    loop {
        seen = next_round(shared, seen);
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        if let Some(job) = shared.job.get() {
            // SAFETY: the caller waits in `run` until this thread has lowered `left`, so the job is alive.
            let part = catch_unwind(AssertUnwindSafe(|| unsafe { (*job)(number) }));
            if part.is_err() {
                shared.panicked.store(true, Ordering::Relaxed);
            }
        }
        shared.left.fetch_sub(1, Ordering::Release);
    }
}

/// One look's worth of waiting. The first looks are the quick ones; later ones leave the core to others now and
/// then, without which more threads than cores would wait for each other's time slices.
fn pause(spin: usize) {
    if spin > 4096 && spin.is_multiple_of(64) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

/// Waits, awake at first, until the round is no longer `seen`.
fn next_round(shared: &Shared, seen: usize) -> usize {
    for spin in 0..SPINS {
        let round = shared.round.load(Ordering::Acquire);
        if round != seen {
            return round;
        }
        pause(spin);
    }
    let mut bed = shared.bed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    shared.sleepers.fetch_add(1, Ordering::SeqCst);
    loop {
        let round = shared.round.load(Ordering::SeqCst);
        if round != seen {
            shared.sleepers.fetch_sub(1, Ordering::SeqCst);
            return round;
        }
        bed = shared.wake.wait(bed).unwrap_or_else(|poisoned| poisoned.into_inner());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.round.fetch_add(1, Ordering::SeqCst);
        drop(self.shared.bed.lock());
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches its job's panics; it has nothing to report here.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_everything_once_in_whole_units() {
        for (items, unit, threads) in [(0, 4, 3), (1, 16, 2), (100, 16, 3), (64, 16, 2), (7, 1, 8)] {
            let parts: Vec<_> = (0..threads).map(|thread| part(items, unit, thread, threads)).collect();
            assert_eq!(parts.iter().cloned().flatten().collect::<Vec<_>>(), (0..items).collect::<Vec<_>>());
            assert!(parts.iter().all(|part| part.start % unit == 0 || part.start == items), "{parts:?}");
        }
    }

    #[test]
    fn every_thread_runs_every_round() {
        let pool = Pool::new(3);
        let counts: Vec<AtomicUsize> = (0..3).map(|_| AtomicUsize::new(0)).collect();
        for _ in 0..1000 {
            pool.run(&|thread| {
                counts[thread].fetch_add(1, Ordering::Relaxed);
            });
        }
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1000));
    }

    #[test]
    fn sleeping_workers_wake_up() {
        let pool = Pool::new(2);
        let sum = AtomicUsize::new(0);
        pool.split(10, 1, |part| {
            sum.fetch_add(part.len(), Ordering::Relaxed);
        });
        std::thread::sleep(std::time::Duration::from_millis(300));
        pool.split(10, 1, |part| {
            sum.fetch_add(part.len(), Ordering::Relaxed);
        });
        assert_eq!(sum.load(Ordering::Relaxed), 20);
    }

    #[test]
    fn a_panic_on_a_worker_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2);
        let caught =
            catch_unwind(AssertUnwindSafe(|| pool.run(&|thread| assert_eq!(thread, 0, "on purpose"))));
        assert!(caught.is_err());
        let done = AtomicUsize::new(0);
        pool.run(&|_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn callers_from_several_threads_take_turns() {
        let pool = Pool::new(2);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        pool.split(8, 1, |part| {
                            total.fetch_add(part.len(), Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 3200);
    }
}
