//! What models scored on every item of a benchmark, as a file of JSON lines.

use std::path::Path;

use ounce_train::{Error, Result};
use serde::{Deserialize, Serialize};

/// The largest file that is read.
const LARGEST_FILE_BYTES: u64 = 1 << 30;

/// One model's line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelScores {
    /// Its name.
    pub model: String,
    /// Operations that its training took (6 · parameters · tokens). None for a model of another family, which only
    /// shows how the part that can be forecast and the whole score go together.
    #[serde(default)]
    pub compute: Option<f64>,
    /// Its loss, for the forecast by way of the loss that others make.
    #[serde(default)]
    pub loss: Option<f64>,
    /// From 0 to 1 for each item: the share of many answers that were right, or the right answer's probability.
    pub scores: Vec<f64>,
}

/// The line that may come first.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    chance: Chance,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Chance {
    All(f64),
    Each(Vec<f64>),
}

/// Models by items.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Every model.
    pub models: Vec<ModelScores>,
    /// What guessing scores on each item.
    pub chance: Vec<f64>,
}

impl Scores {
    /// Checks that all models have the same items.
    ///
    /// # Errors
    /// If they differ, a score is not from 0 to 1, a compute is not above 0, or a name occurs twice.
    pub fn new(models: Vec<ModelScores>, chance: Vec<f64>) -> Result<Scores> {
        let items = chance.len();
        let wrong = |what: String| Err(Error::Fit(what));
        if items == 0 || models.is_empty() {
            return wrong("a forecast needs scores of models on items, and there are none".into());
        }
        if let Some(item) = chance.iter().position(|it| !(0.0..1.0).contains(it)) {
            return wrong(format!(
                "what guessing scores should be from 0 to below 1; for item {item} it is {}",
                chance[item]
            ));
        }
        for (at, model) in models.iter().enumerate() {
            let name = &model.model;
            if model.scores.len() != items {
                let found = model.scores.len();
                return wrong(format!("{name} has scores of {found} items, the others of {items}"));
            }
            if let Some(item) = model.scores.iter().position(|it| !(0.0..=1.0).contains(it)) {
                return wrong(format!(
                    "{name}: the score of item {item} is {}, and scores are from 0 to 1",
                    model.scores[item]
                ));
            }
            let figures = [("compute", model.compute), ("loss", model.loss)];
            for (what, value) in figures {
                if let Some(value) = value.filter(|it| !(*it > 0.0 && it.is_finite())) {
                    return wrong(format!("{name}: {what} should be above 0, found {value}"));
                }
            }
            if models[..at].iter().any(|it| it.model == *name) {
                return wrong(format!("{name} stands there twice; each model needs a name of its own"));
            }
        }
        Ok(Scores { models, chance })
    }

    /// Reads a file: one line `{"model": …, "compute": …, "scores": […]}` a model; before them, if guessing scores more
    /// than `chance`, a line `{"chance": 0.25}` or one with a list for all items.
    ///
    /// # Errors
    /// If it can't be read, is too large, or a line is no such object; the line is named.
    pub fn read(path: &Path, chance: Option<f64>) -> Result<Scores> {
        let bytes = std::fs::metadata(path).map_err(Error::io(path))?.len();
        if bytes > LARGEST_FILE_BYTES {
            return Err(Error::file(
                path,
                format!("{bytes} bytes are too many; the most is {LARGEST_FILE_BYTES}"),
            ));
        }
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        parse(&text, chance).map_err(|error| match error {
            Error::Fit(what) => Error::file(path, what),
            other => other,
        })
    }

    /// The mean over items of what guessing scores.
    pub fn guessing(&self) -> f64 {
        mean(self.chance.iter().copied())
    }
}

fn parse(text: &str, chance: Option<f64>) -> Result<Scores> {
    let mut head = None;
    let mut models: Vec<ModelScores> = Vec::new();
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    for (number, line) in lines {
        let fault = |error: serde_json::Error| Error::Fit(format!("line {}: {error}", number + 1));
        if models.is_empty() && head.is_none() && line.contains("\"chance\"") {
            head = Some(serde_json::from_str::<Head>(line).map_err(fault)?.chance);
        } else {
            models.push(serde_json::from_str(line).map_err(fault)?);
        }
    }
    let items = models.first().map_or(0, |model| model.scores.len());
    let chance = match (chance, head) {
        (Some(all), _) | (None, Some(Chance::All(all))) => vec![all; items],
        (None, Some(Chance::Each(each))) if each.len() == items => each,
        (None, Some(Chance::Each(each))) => {
            let found = each.len();
            return Err(Error::Fit(format!("chance is given for {found} items, scores are of {items}")));
        }
        (None, None) => vec![0.0; items],
    };
    Scores::new(models, chance)
}

/// The mean of some values; 0 of none.
pub(super) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = values.into_iter().fold((0.0, 0usize), |(sum, count), it| (sum + it, count + 1));
    sum / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_what_guessing_scores() {
        let text = "{\"chance\": [0.25, 0.5]}\n\n{\"model\": \"a\", \"compute\": 1e9, \"scores\": [0.5, 1]}\n\
                    {\"model\": \"b\", \"scores\": [0, 0.125]}\n";
        let scores = parse(text, None).expect("reads");
        assert_eq!(scores.chance, [0.25, 0.5]);
        assert_eq!((scores.models[0].compute, scores.models[1].compute), (Some(1e9), None));
        assert_eq!(parse(text, Some(0.1)).expect("reads").chance, [0.1, 0.1]);
    }

    #[test]
    fn each_flaw_is_named() {
        let good = "{\"model\": \"a\", \"compute\": 1e9, \"scores\": [0.5, 1]}\n";
        for (text, word) in [
            (String::new(), "there are none"),
            (format!("{good}{good}"), "twice"),
            (format!("{good}{{\"model\": \"b\", \"scores\": [1]}}"), "scores of 1 items"),
            (good.replace("0.5", "1.5"), "from 0 to 1"),
            (good.replace("1e9", "-1"), "above 0"),
            (good.replace("compute", "computer"), "line 1"),
            (format!("{{\"chance\": [0.5]}}\n{good}"), "given for 1 items"),
            (format!("{{\"chance\": 1}}\n{good}"), "below 1"),
        ] {
            let error = parse(&text, None).expect_err(word).to_string();
            assert!(error.contains(word), "{error:?} should say {word:?}");
        }
    }
}
