//! What stands behind a claim: a measured figure, a paper alone, or nothing here yet.

use ounce_eval::method::{Evidence, Row};
use serde::Serialize;

use super::{NUMBER_RESOURCES, technique::Technique};

/// What can be said of a technique.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "standing", rename_all = "kebab-case")]
pub enum Claim {
    /// It was measured by the demonstration of method 3.
    Measured {
        /// The figures beside those of the baseline, in words.
        figures: String,
        /// Of the method whose evidence it is.
        method: u16,
    },
    /// A method of the catalogue about it was demonstrated.
    Demonstrated {
        /// How many expectations hold.
        held: usize,
        /// Of how many.
        of: usize,
        /// Of the method whose evidence it is.
        method: u16,
    },
    /// It can be used, and nothing was measured here.
    PaperOnly,
    /// It can't be used here.
    NotBuilt,
}

impl Claim {
    /// As a person reads it.
    pub fn text(&self) -> String {
        match self {
            Claim::Measured { figures, method } => format!("{figures} (measured, method {method})"),
            Claim::Demonstrated { held, of, method } => {
                format!("{held} of {of} expectations hold (method {method})")
            }
            Claim::PaperOnly => "paper only".to_string(),
            Claim::NotBuilt => "not built yet".to_string(),
        }
    }

    /// What the evidence says of a technique. Measured figures come first; a demonstration of a method about it next, but only
    /// where the technique can be used.
    pub fn of(technique: &Technique, evidence: &[Evidence]) -> Claim {
        let of = |number: u16| evidence.iter().find(|it| it.method == number);
        if let Some(found) = of(NUMBER_RESOURCES)
            && let (Some(row), Some(baseline)) = (found.row(technique.id), baseline(found, technique.id))
        {
            return Claim::Measured { figures: figures(row, baseline), method: NUMBER_RESOURCES };
        }
        if technique.command.is_none() {
            return Claim::NotBuilt;
        }
        // The surveys' own evidence is about many techniques, and says nothing of one.
        let own = technique.numbers.iter().filter(|number| !super::NUMBERS.contains(number));
        match own.filter_map(|&number| of(number)).next() {
            Some(found) => Claim::Demonstrated {
                held: found.expectations.iter().filter(|it| it.holds).count(),
                of: found.expectations.len(),
                method: found.method,
            },
            None => Claim::PaperOnly,
        }
    }
}

/// The row that a technique's row is to be read beside: the baseline that measures the same.
fn baseline<'e>(evidence: &'e Evidence, id: &str) -> Option<&'e Row> {
    let names = |row: &Row| row.values.iter().map(|value| value.name.clone()).collect::<Vec<_>>();
    let own = names(evidence.row(id)?);
    let plain = [evidence.baseline.as_str(), super::demonstrate::PLAIN_TRAINING];
    plain.iter().filter_map(|label| evidence.row(label)).find(|row| names(row) == own)
}

/// The figures that differ, by the baseline's.
fn figures(row: &Row, baseline: &Row) -> String {
    let mut parts = Vec::new();
    for (value, plain) in row.values.iter().zip(&baseline.values) {
        if plain.value == 0.0 || !plain.value.is_finite() {
            continue;
        }
        let ratio = value.value / plain.value;
        if (ratio - 1.0).abs() >= 0.005 {
            parts.push(format!("{} ×{ratio:.2}", value.name));
        }
    }
    if parts.is_empty() { "no figure differs by half a percent".to_string() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::super::registry::technique;
    use super::*;

    #[test]
    fn claims_say_what_stands_behind_them() {
        let mut evidence = Evidence::new(3, 1, "as it is");
        evidence.rows.push(Row::new("as it is").with("file bytes", 100.0, "").with("perplexity", 10.0, ""));
        evidence.rows.push(Row::new("8-bit").with("file bytes", 53.0, "").with("perplexity", 10.01, ""));
        let mut other = Evidence::new(75, 1, "a");
        other.expect("a", "b", true);
        other.expect("c", "d", false);
        let all = [evidence, other];
        let claim = |id: &str| Claim::of(technique(id).expect("known"), &all);
        assert_eq!(claim("8-bit").text(), "file bytes ×0.53 (measured, method 3)");
        assert_eq!(claim("block-ap").text(), "1 of 2 expectations hold (method 75)");
        assert_eq!(claim("4-bit-hqq"), Claim::PaperOnly);
        assert_eq!(claim("structured"), Claim::NotBuilt);
    }
}
