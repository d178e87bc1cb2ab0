//! A progress bar on stderr that appears once the work has lasted a second, and only on a terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work shorter than this shows no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the bar counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Tokens.
    Tokens,
    /// Things without a unit of their own.
    Items,
    /// Parts of the work; only their share is shown.
    Share,
}

/// A bar; dropping it removes it from the screen.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    start: Instant,
    shown: bool,
}

impl Progress {
    /// A bar for work that counts up to a total told later.
    pub fn new(what: &str, unit: Unit) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        let counts = match unit {
            Unit::Bytes => "{binary_bytes} of {binary_total_bytes} · {binary_bytes_per_sec}",
            Unit::Tokens => "{human_pos} of {human_len} tokens · {per_sec}",
            Unit::Items => "{human_pos} of {human_len}",
            Unit::Share => "{percent} %",
        };
        let template = format!("{{msg}} [{{wide_bar}}] {counts} · {{eta}} left");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.to_string());
        Progress { bar, start: Instant::now(), shown: false }
    }

    /// Moves the bar.
    pub fn set(&mut self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        if !self.shown && self.start.elapsed() > PATIENCE && std::io::stderr().is_terminal() {
            self.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// Prints a line above the bar, to stderr.
    pub fn print(&self, line: &str) {
        if self.shown { self.bar.println(line) } else { eprintln!("{line}") }
    }

    /// Changes the words in front of the bar.
    pub fn say(&self, what: &str) {
        self.bar.set_message(what.to_string());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
