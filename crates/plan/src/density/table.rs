//! The table that is rated: a reference family, and models.

use std::path::Path;

use ounce_train::laws::scaling::Run;
use ounce_train::{Error, Result};
use serde::{Deserialize, Serialize};

/// The largest file that is read.
const LARGEST_FILE_BYTES: u64 = 64 << 20;

/// A member of the reference family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Parameters.
    pub size: f64,
    /// Tokens it was trained on.
    pub tokens: f64,
    /// Loss of the right answers, nats a byte or a token, as for all others.
    pub loss: f64,
    /// Score, 0 to 1.
    #[serde(default)]
    pub score: Option<f64>,
}

impl Member {
    /// As a point of the law.
    pub fn run(&self) -> Run {
        Run { params: self.size, tokens: self.tokens, loss: self.loss }
    }
}

/// A model to be rated.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rated {
    /// Its name.
    pub name: String,
    /// Parameters.
    pub size: f64,
    /// Parameters that a token uses, of a mixture of experts.
    #[serde(default)]
    pub active: Option<f64>,
    /// Bytes of its weights: half of them count as parameters where numbers are stored in fewer than 16 bits.
    #[serde(default)]
    pub bytes: Option<f64>,
    /// Loss of the right answers; with it the score is not asked.
    #[serde(default)]
    pub loss: Option<f64>,
    /// Score, 0 to 1.
    #[serde(default)]
    pub score: Option<f64>,
    /// When it came out, `2024-11-27`.
    #[serde(default)]
    pub date: Option<String>,
}

/// What is known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// What guessing scores.
    #[serde(default)]
    pub chance: f64,
    /// Items that scores are means over; tells how sure they are.
    #[serde(default)]
    pub instances: Option<f64>,
    /// Tokens that a reference model would have been trained on; the most of the family where not given.
    #[serde(default)]
    pub tokens: Option<f64>,
    /// The family.
    pub reference: Vec<Member>,
    /// Models to be rated.
    #[serde(default)]
    pub models: Vec<Rated>,
}

impl Table {
    /// Reads a JSON file.
    ///
    /// # Errors
    /// If it can't be read, is too large, is no such table, or a number is out of its range.
    pub fn read(path: &Path) -> Result<Table> {
        let bytes = std::fs::metadata(path).map_err(Error::io(path))?.len();
        if bytes > LARGEST_FILE_BYTES {
            return Err(Error::file(
                path,
                format!("{bytes} bytes are too many; the most is {LARGEST_FILE_BYTES}"),
            ));
        }
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let table: Table =
            serde_json::from_str(&text).map_err(|error| Error::file(path, error.to_string()))?;
        table.check().map_err(|what| Error::file(path, what))?;
        Ok(table)
    }

    /// The tokens at which sizes are compared.
    pub fn tokens(&self) -> f64 {
        self.tokens.unwrap_or_else(|| self.reference.iter().map(|it| it.tokens).fold(0.0, f64::max))
    }

    /// Pairs of loss and score of all that have both.
    pub fn links(&self) -> Vec<(f64, f64)> {
        let family = self.reference.iter().filter_map(|it| Some((it.loss, it.score?)));
        family.chain(self.models.iter().filter_map(|it| Some((it.loss?, it.score?)))).collect()
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// What is wrong, as a sentence.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..1.0).contains(&self.chance) {
            return Err(format!("chance should be from 0 to below 1, found {}", self.chance));
        }
        let positive = |name: &str, what: &str, value: Option<f64>| match value {
            Some(value) if !(value > 0.0 && value.is_finite()) => {
                Err(format!("{name}: {what} should be above 0, found {value}"))
            }
            _ => Ok(()),
        };
        let share = |name: &str, value: Option<f64>| match value {
            Some(value) if !(0.0..=1.0).contains(&value) => {
                Err(format!("{name}: a score is from 0 to 1, found {value}"))
            }
            _ => Ok(()),
        };
        positive("the table", "instances", self.instances)?;
        positive("the table", "tokens", self.tokens)?;
        for it in &self.reference {
            for (what, value) in [("size", it.size), ("tokens", it.tokens), ("loss", it.loss)] {
                positive(&it.name, what, Some(value))?;
            }
            share(&it.name, it.score)?;
        }
        for it in &self.models {
            let figures =
                [("size", Some(it.size)), ("active", it.active), ("bytes", it.bytes), ("loss", it.loss)];
            for (what, value) in figures {
                positive(&it.name, what, value)?;
            }
            share(&it.name, it.score)?;
            if it.loss.is_none() && it.score.is_none() {
                return Err(format!("{} has neither loss nor score", it.name));
            }
            if let Some(date) = &it.date {
                super::trend::days(date).map_err(|what| format!("{}: {what}", it.name))?;
            }
        }
        Ok(())
    }
}
