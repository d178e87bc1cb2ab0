//! Ctrl-C. Work that must end tidily holds a [`Watch`] and asks it now and then; everything else ends at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::failure::INTERRUPTED;

static WATCHES: AtomicUsize = AtomicUsize::new(0);
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Catches the signals that ask a program to end.
///
/// # Errors
/// If the system refuses the handler.
pub fn install() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        let nobody_asks = WATCHES.load(Ordering::SeqCst) == 0;
        let second_time = REQUESTED.swap(true, Ordering::SeqCst);
        if nobody_asks || second_time {
            std::process::exit(i32::from(INTERRUPTED));
        }
    })?;
    Ok(())
}

/// While it lives, Ctrl-C only sets a flag, which [`Watch::requested`] reads. A second Ctrl-C ends the program.
#[derive(Debug)]
pub struct Watch(());

impl Watch {
    /// Starts watching.
    pub fn start() -> Watch {
        // What an outer watch was told stays said.
        if WATCHES.fetch_add(1, Ordering::SeqCst) == 0 {
            REQUESTED.store(false, Ordering::SeqCst);
        }
        Watch(())
    }

    /// Whether the user wants the work to end.
    pub fn requested(&self) -> bool {
        REQUESTED.load(Ordering::SeqCst)
    }

    /// An error if the user wants the work to end; for progress callbacks of the model crate.
    ///
    /// # Errors
    /// [`ounce_model::Error::Interrupted`].
    pub fn check(&self) -> ounce_model::Result<()> {
        if self.requested() { Err(ounce_model::Error::Interrupted) } else { Ok(()) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if WATCHES.fetch_sub(1, Ordering::SeqCst) == 1 {
            REQUESTED.store(false, Ordering::SeqCst);
        }
    }
}
