//! Where evidence is kept unless the user says otherwise, and how a table of it is printed.

use std::path::{Path, PathBuf};

use ounce_eval::method::{Evidence, Row};
use ounce_lab::store::Store;

use crate::{output, units, user_data};

/// The folder of evidence inside ounce's own repository.
const IN_REPOSITORY: &str = "docs/evidence";

/// The store in that folder, or the usual one: `docs/evidence` where there is such a folder, else the user's own.
pub fn store(folder: Option<PathBuf>) -> Store {
    let usual = || match user_data::folder() {
        Some(folder) if !Path::new(IN_REPOSITORY).is_dir() => folder.join("evidence"),
        _ => PathBuf::from(IN_REPOSITORY),
    };
    Store::new(folder.unwrap_or_else(usual))
}

/// `2 of 3 hold`.
pub fn summary(evidence: &Evidence) -> String {
    let held = evidence.expectations.iter().filter(|expectation| expectation.holds).count();
    format!("{held} of {} hold", evidence.expectations.len())
}

/// Prints what was measured: rows, expectations, notes and cost.
///
/// # Errors
/// If stdout can't be written.
pub fn print(evidence: &Evidence) -> anyhow::Result<()> {
    // Rows that measure the same things stand in one table.
    let names = |row: &Row| row.values.iter().map(|value| value.name.clone()).collect::<Vec<_>>();
    let mut tables: Vec<(Vec<String>, Vec<&Row>)> = Vec::new();
    for row in &evidence.rows {
        let names = names(row);
        match tables.iter_mut().find(|(known, _)| *known == names) {
            Some((_, rows)) => rows.push(row),
            None => tables.push((names, vec![row])),
        }
    }
    for (_, rows) in &tables {
        print_rows(rows, &evidence.baseline)?;
        output::line("")?;
    }
    for expectation in &evidence.expectations {
        let verdict = if expectation.holds { "holds" } else { "FAILS" };
        output::line(format!("{verdict}  {}: {}", expectation.text, expectation.measured))?;
    }
    for note in &evidence.notes {
        output::line(format!("note   {note}"))?;
    }
    let peak = evidence
        .cost
        .peak_bytes
        .map(|bytes| format!(", {} at most", units::bytes(bytes)))
        .unwrap_or_default();
    output::line(format!("seed {}, {:.1} s{peak}", evidence.seed, evidence.cost.seconds))
}

/// One table of rows with the same values.
fn print_rows(rows: &[&Row], baseline: &str) -> anyhow::Result<()> {
    let heads: Vec<String> = rows[0]
        .values
        .iter()
        .map(|it| if it.unit.is_empty() { it.name.clone() } else { format!("{} ({})", it.name, it.unit) })
        .collect();
    let head: Vec<&str> = std::iter::once("").chain(heads.iter().map(String::as_str)).collect();
    let mut table = output::table(&head);
    for row in rows {
        let mark = if row.label == baseline { " (baseline)" } else { "" };
        let values = row.values.iter().map(|value| number(value.value));
        table.add_row(std::iter::once(format!("{}{mark}", row.label)).chain(values));
    }
    output::print_table(&table)
}

/// A measured number with five digits that count.
fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_string()
    } else if !(1e-4..1e7).contains(&size) {
        format!("{value:.4e}")
    } else if value.fract() == 0.0 {
        format!("{value}")
    } else {
        let places = (4 - size.log10().floor() as i32).clamp(0, 8) as usize;
        format!("{value:.places$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_five_digits() {
        for (value, text) in
            [(0.0, "0"), (1.0 / 3.0, "0.33333"), (1234.56789, "1234.6"), (1e9, "1.0000e9"), (4096.0, "4096")]
        {
            assert_eq!(number(value), text);
        }
    }
}
