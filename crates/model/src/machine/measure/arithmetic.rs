//! Multiply-adds a second, of one thread and of all.

use std::time::Duration;

use ounce_kernels::isa::{Isa, amx};
use ounce_kernels::pool::Pool;
use ounce_kernels::probe;

use super::rate::rate;
use super::{Effort, thread_counts, threads_in_words};
use crate::Result;
use crate::machine::{OpKind, Peak};

/// Short, to fit between other programs' time slices.
pub(super) const ROUND: Duration = Duration::from_millis(1);

/// Steps that [`measure`] reports, at most.
pub(super) fn steps(threads: usize) -> usize {
    thread_counts(threads, false).len() * OpKind::ALL.len()
}

/// The fastest path of this processor, whatever the kernels are told to use.
pub(super) fn fastest() -> Isa {
    Isa::available().last().copied().unwrap_or(Isa::Plain)
}

pub(super) fn measure(
    effort: &Effort,
    threads: usize,
    step: &mut dyn FnMut(&str) -> Result<()>,
    notes: &mut Vec<String>,
) -> Result<Vec<Peak>> {
    if amx::present().any() && !amx::permitted().any() {
        notes.push("the processor has AMX tiles, but the system does not permit their use".to_string());
    }
    let mut peaks = Vec::new();
    for threads in thread_counts(threads, false) {
        let pool = Pool::new(threads);
        for kind in OpKind::ALL {
            let Some(it) = probe::arithmetic(kind.probe(), fastest()) else { continue };
            step(&format!("multiplying {}, {}", kind.name(), threads_in_words(threads)))?;
            let ops_per_second = rate(&pool, effort.time, ROUND, |_, _| {
                std::hint::black_box(it.run());
                it.operations()
            });
            peaks.extend(ops_per_second.map(|ops_per_second| Peak {
                kind,
                instruction: it.instruction().to_string(),
                threads: pool.threads(),
                ops_per_second,
            }));
        }
    }
    Ok(peaks)
}
