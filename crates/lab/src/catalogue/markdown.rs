//! Renders the catalogue as `docs/catalogue.md`: one table a family, with the state and the last evidence.

use super::methods;
use crate::store::{Error, Store};
use ounce_eval::method::{Evidence, Family, METHOD_COUNT, Method, State};
use std::fmt::Write;

const INTRODUCTION: &str = "\
# Catalogue of methods

ounce collects published methods that make models smaller, cheaper or easier to adapt. Each has a number, a command
once it works, and a demonstration that measures it against a baseline on generated fixtures. The last column says
how many of the expectations that were stated before measuring hold; details are in
`docs/evidence/`. *Claim* is what the paper says, not what was measured here.

This file is generated: `OUNCE_BLESS=1 cargo test -p ounce-lab catalogue` rewrites it.
";

/// The whole page.
///
/// # Errors
/// If the store holds a damaged file.
pub fn render(store: &Store) -> Result<String, Error> {
    let working = methods().iter().filter(|method| method.state() == State::Working).count();
    let mut page = format!("{INTRODUCTION}\n{working} of {METHOD_COUNT} methods work.\n");
    for family in Family::ALL {
        let _ = write!(page, "\n## {}\n\n", family.title());
        page.push_str("| | Method | What it gives | Claim | State | Evidence |\n|--:|---|---|---|---|---|\n");
        for method in methods().iter().filter(|method| method.family == family) {
            page.push_str(&row(method, store.read(method.number)?.as_ref()));
        }
    }
    Ok(page)
}

fn row(method: &Method, evidence: Option<&Evidence>) -> String {
    let paper = match method.arxiv {
        Some(id) => format!("[{}](https://arxiv.org/abs/{id})", escape(method.paper)),
        None => escape(method.paper),
    };
    let command = method.command.map(|command| format!("<br>`{}`", escape(command))).unwrap_or_default();
    format!(
        "| {:03} | **{}**<br>{paper}{command} | {} | {} | {} | {} |\n",
        method.number,
        escape(method.name),
        escape(method.gives),
        escape(method.claim),
        method.state(),
        evidence.map(summary).unwrap_or_default(),
    )
}

/// How many expectations hold, as a link to the file.
fn summary(evidence: &Evidence) -> String {
    let held = evidence.expectations.iter().filter(|expectation| expectation.holds).count();
    format!("[{held} of {} hold](evidence/{:03}.json)", evidence.expectations.len(), evidence.method)
}

/// Text that can stand in a table's cell.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    fn docs() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
    }

    /// `OUNCE_BLESS=1` writes the page in place of comparing it.
    #[test]
    fn the_page_on_disk_is_up_to_date() {
        let page = render(&Store::new(docs().join("evidence"))).expect("evidence can be read");
        let path = docs().join("catalogue.md");
        if std::env::var_os("OUNCE_BLESS").is_some() {
            std::fs::create_dir_all(docs()).expect("docs can be made");
            std::fs::write(&path, &page).expect("page can be written");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == page,
            "docs/catalogue.md is out of date; run OUNCE_BLESS=1 cargo test -p ounce-lab catalogue"
        );
    }

    #[test]
    fn every_row_has_the_columns_of_its_head() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let page = render(&Store::new(folder.path())).expect("an empty store is fine");
        let rows: Vec<&str> =
            page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| |")).collect();
        assert_eq!(rows.len(), usize::from(METHOD_COUNT));
        for row in rows {
            assert_eq!(row.replace("\\|", "").matches('|').count(), 7, "{row}");
        }
    }
}
