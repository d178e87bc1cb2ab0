//! Results go to stdout, everything else to stderr. A reader that closes stdout ends the command quietly.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// Whoever read stdout has enough.
#[derive(Debug, thiserror::Error)]
#[error("stdout was closed")]
pub struct ClosedPipe;

/// Writes text to stdout at once, without adding a line end.
///
/// # Errors
/// [`ClosedPipe`], or what the system says.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ClosedPipe.into()),
        other => Ok(other?),
    }
}

/// Writes a line to stdout.
///
/// # Errors
/// As [`print()`].
pub fn line(text: impl Display) -> anyhow::Result<()> {
    print(&format!("{text}\n"))
}

/// Writes a value to stdout as indented JSON.
///
/// # Errors
/// As [`print()`].
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Writes a line to stderr; a closed stderr loses it.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A borderless table; cells wrap to the terminal's width, and are left alone where there is no terminal.
pub fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.to_vec());
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table
}

/// Writes a table to stdout, without the blanks around its lines.
///
/// # Errors
/// As [`print()`].
pub fn print_table(table: &Table) -> anyhow::Result<()> {
    let lines: Vec<String> =
        table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_string()).collect();
    line(lines.join("\n"))
}
