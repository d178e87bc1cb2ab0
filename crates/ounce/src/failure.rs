//! From a command's result to an exit code and, at most, one sentence on stderr.

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Mutex;

use crate::output::{ClosedPipe, note};

/// How a command that ran to its end answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done, or yes.
    Done,
    /// It ran, and the answer is no.
    No,
}

/// The user stopped the command.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; nothing was left half-written")]
pub struct Interrupted;

/// Exit code of a command stopped by Ctrl-C, as shells expect it.
pub const INTERRUPTED: u8 = 130;

/// What the last panic said; a panic is a fault of this program, so its place matters.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Runs the program and reports how it went. A panic becomes one sentence and exit code 2.
pub fn guard(program: impl FnOnce() -> anyhow::Result<Outcome>) -> ExitCode {
    // Some panics are caught on purpose (a damaged tokenizer file), so the hook only remembers.
    panic::set_hook(Box::new(|info| {
        tracing::debug!("{info}");
        let text = info.to_string().replace('\n', " ");
        if let Ok(mut last) = PANIC.lock() {
            *last = Some(text);
        }
    }));
    match panic::catch_unwind(AssertUnwindSafe(program)) {
        Ok(Ok(Outcome::Done)) => ExitCode::SUCCESS,
        Ok(Ok(Outcome::No)) => ExitCode::from(1),
        Ok(Err(error)) => report(&error),
        Err(_) => {
            let what = PANIC.lock().ok().and_then(|last| last.clone()).unwrap_or_default();
            note(&format!("error: ounce itself is at fault; please report this: {what}"));
            ExitCode::from(2)
        }
    }
}

fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<ClosedPipe>() {
        return ExitCode::SUCCESS;
    }
    let stopped = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<Interrupted>()
            || matches!(cause.downcast_ref(), Some(ounce_model::Error::Interrupted))
            || matches!(
                cause.downcast_ref(),
                Some(ounce_engine::Error::Model(ounce_model::Error::Interrupted))
            )
            || matches!(
                cause.downcast_ref(),
                Some(ounce_eval::tasks::Error::Engine(ounce_engine::Error::Model(
                    ounce_model::Error::Interrupted
                )))
            )
            || matches!(
                cause.downcast_ref(),
                Some(
                    ounce_peft::Error::Model(ounce_model::Error::Interrupted)
                        | ounce_peft::Error::Train(ounce_train::Error::Model(
                            ounce_model::Error::Interrupted
                        ))
                )
            )
            || matches!(
                cause.downcast_ref(),
                Some(ounce_train::Error::Model(ounce_model::Error::Interrupted))
            )
    };
    note(&format!("error: {}", sentence(error)));
    ExitCode::from(if error.chain().any(stopped) { INTERRUPTED } else { 2 })
}

/// The chain of causes as one sentence; a cause that its parent already quotes is left out.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn causes_are_joined_once_each() {
        let io = std::io::Error::other("disk full");
        let inner: anyhow::Result<()> = Err(ounce_model::Error::io("/a")(io).into());
        let error = inner.context("the model was not written").unwrap_err();
        assert_eq!(sentence(&error), "the model was not written: /a: disk full");
    }
}
