//! The most memory that a piece of work holds at a time, counted where it is asked for. Resident memory can't tell: allocators
//! keep what was freed, and a process's peak never falls.
//!
//! A program that wants to be asked has [`Meter`] as its global allocator. It is the system's, and counts while a [`high_water`] runs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};

/// The system's allocator, which [`high_water`] can ask.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meter;

static RUNS: AtomicBool = AtomicBool::new(false);
/// Set by the first allocation that is counted: whether a [`Meter`] is there at all.
static PRESENT: AtomicBool = AtomicBool::new(false);
static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn count(by: isize) {
    if !RUNS.load(Ordering::Relaxed) {
        return;
    }
    let live = LIVE.fetch_add(by, Ordering::Relaxed) + by;
    if by > 0 {
        PRESENT.store(true, Ordering::Relaxed);
        PEAK.fetch_max(live, Ordering::Relaxed);
    }
}

// SAFETY: every method hands its arguments to the system's allocator as they came, and counts beside that.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the same contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the same contract.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the same contract.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Gives memory that nobody uses any more back to the system, where the system's allocator would keep it: for programs that run long and
/// hold little at the end of much.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes no pointer and locks what it looks at itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What the work gives, and the most bytes above those at its beginning that all threads together held; none if the program has no
/// [`Meter`]. Memory of mapped files is not counted, and zeros are even where nothing has touched them yet. Work that others
/// measure waits.
pub fn high_water<T>(work: impl FnOnce() -> T) -> (T, Option<u64>) {
    /// Counts no longer, even if the work panics.
    struct Stop;
    impl Drop for Stop {
        fn drop(&mut self) {
            RUNS.store(false, Ordering::Relaxed);
        }
    }
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    LIVE.store(0, Ordering::Relaxed);
    PEAK.store(0, Ordering::Relaxed);
    PRESENT.store(false, Ordering::Relaxed);
    RUNS.store(true, Ordering::Relaxed);
    let stop = Stop;
    let found = work();
    drop(stop);
    let peak = PEAK.load(Ordering::Relaxed).max(0) as u64;
    (found, PRESENT.load(Ordering::Relaxed).then_some(peak))
}
