//! Text given on the command line, through a pipe, or in a file.

use std::io::{IsTerminal, Read};
use std::path::Path;

use anyhow::{Context, bail};

/// Reads all of stdin, which must be UTF-8.
///
/// # Errors
/// If it can't be read or is no UTF-8.
pub fn stdin() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).context("stdin can't be read")?;
    utf8(bytes, "stdin")
}

/// Whether somebody sits at stdin.
pub fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// The text given, or stdin for `-`, or a pipe where nothing was given.
///
/// # Errors
/// If nothing was given and nothing is piped in, or stdin can't be read.
pub fn given_or_stdin(text: Option<&str>, what: &str) -> anyhow::Result<String> {
    match text {
        Some("-") => stdin(),
        Some(text) => Ok(text.to_string()),
        None if stdin_is_terminal() => bail!("there is no {what}; give it as an argument or pipe it in"),
        None => stdin(),
    }
}

/// Reads a text file; `-` is stdin.
///
/// # Errors
/// If it can't be read or is no UTF-8.
pub fn file(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        return stdin();
    }
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    utf8(bytes, &path.display().to_string())
}

fn utf8(bytes: Vec<u8>, what: &str) -> anyhow::Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow::anyhow!("{what} is no UTF-8 text: the byte at {at} begins no character; convert it to UTF-8")
    })
}

/// Reads a comma-separated list of token ids.
///
/// # Errors
/// A sentence that names what is no id.
pub fn ids(text: &str) -> Result<Vec<u32>, String> {
    let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            part.parse().map_err(|_| format!("{part:?} is no token id; write numbers, such as 1,2,3"))
        })
        .collect()
}
