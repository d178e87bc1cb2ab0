//! What is counted: the metrics of a task's `metric_list`.

use serde_json::{Map, Value};

use super::Output;
use super::measure::Aggregation;
use super::python::Pattern;
use super::task::Gold;
use crate::answers::{Articles, best};
use crate::perplexity::TextSize;

/// Seconds that a program may take where the task doesn't say.
const PROGRAM_SECONDS: f64 = 3.0;

/// One metric.
#[derive(Debug, Clone)]
pub(super) struct Metric {
    /// As scores are told under it.
    pub name: String,
    pub higher_is_better: bool,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Accuracy(Norm),
    ChoiceF1,
    GreedyChoice,
    Greedy,
    Perplexity,
    Rolling {
        per: Per,
        aggregation: Aggregation,
    },
    ExactMatch(Exact),
    WordF1,
    /// `k`, seconds for a program, and whether the question is its beginning.
    Pass {
        k: usize,
        seconds: f64,
        with_prompt: bool,
    },
}

/// By what a choice's log-likelihood is divided, or what is taken from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Norm {
    None,
    Characters,
    Bytes,
    Unconditional,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Per {
    Word,
    Byte,
}

/// What `exact_match` overlooks.
#[derive(Debug, Clone, Default)]
pub(super) struct Exact {
    ignored: Vec<Pattern>,
    case: bool,
    punctuation: bool,
    numbers: bool,
}

/// The metrics of a task, or those that its output type usually has.
///
/// # Errors
/// If one is unknown, or not for this output type.
pub(super) fn metrics(list: Option<&[Map<String, Value>]>, output: Output) -> Result<Vec<Metric>, String> {
    let usual = |names: &[&str]| -> Vec<Map<String, Value>> {
        names.iter().map(|name| Map::from_iter([("metric".to_string(), Value::from(*name))])).collect()
    };
    let list = list.map_or_else(
        || {
            usual(match output {
                Output::MultipleChoice => &["acc", "acc_norm"],
                Output::GenerateUntil => &["exact_match"],
                Output::Loglikelihood => &["perplexity", "acc"],
                Output::LoglikelihoodRolling => &["word_perplexity", "byte_perplexity", "bits_per_byte"],
            })
        },
        <[_]>::to_vec,
    );
    if list.is_empty() {
        return Err("metric_list is empty; leave it out for the usual metrics".into());
    }
    let mut metrics = Vec::new();
    for spec in &list {
        metrics.extend(read(spec, output)?);
    }
    Ok(metrics)
}

fn read(spec: &Map<String, Value>, output: Output) -> Result<Vec<Metric>, String> {
    let name =
        spec.get("metric").and_then(Value::as_str).ok_or("an entry of metric_list has no \"metric\"")?;
    let rolling = |per, aggregation| Kind::Rolling { per, aggregation };
    let kind = match (output, name) {
        (Output::MultipleChoice, "acc") => Kind::Accuracy(Norm::None),
        (Output::MultipleChoice, "acc_norm") => Kind::Accuracy(Norm::Characters),
        (Output::MultipleChoice, "acc_bytes") => Kind::Accuracy(Norm::Bytes),
        (Output::MultipleChoice, "acc_mutual_info") => Kind::Accuracy(Norm::Unconditional),
        (Output::MultipleChoice, "f1") => Kind::ChoiceF1,
        (Output::MultipleChoice, "exact_match") => Kind::GreedyChoice,
        (Output::Loglikelihood, "acc") => Kind::Greedy,
        (Output::Loglikelihood, "perplexity") => Kind::Perplexity,
        (Output::LoglikelihoodRolling, "word_perplexity") => {
            rolling(Per::Word, Aggregation::WeightedPerplexity)
        }
        (Output::LoglikelihoodRolling, "byte_perplexity") => {
            rolling(Per::Byte, Aggregation::WeightedPerplexity)
        }
        (Output::LoglikelihoodRolling, "bits_per_byte") => rolling(Per::Byte, Aggregation::BitsPerByte),
        (Output::GenerateUntil, "exact_match") => Kind::ExactMatch(exact(spec)?),
        (Output::GenerateUntil, "f1") => Kind::WordF1,
        (Output::GenerateUntil, "pass@k" | "pass_at_k") => return passes(spec),
        _ => {
            let known = match output {
                Output::MultipleChoice => "acc, acc_norm, acc_bytes, acc_mutual_info, f1 and exact_match",
                Output::Loglikelihood => "perplexity and acc",
                Output::LoglikelihoodRolling => "word_perplexity, byte_perplexity and bits_per_byte",
                Output::GenerateUntil => "exact_match, f1 and pass@k",
            };
            return Err(format!("{name:?} is no metric of this output type; {known} are"));
        }
    };
    let higher_is_better = !matches!(kind, Kind::Perplexity | Kind::Rolling { .. });
    Ok(vec![Metric { name: name.to_string(), higher_is_better, kind }])
}

fn exact(spec: &Map<String, Value>) -> Result<Exact, String> {
    let flag = |key: &str| spec.get(key).and_then(Value::as_bool).unwrap_or(false);
    let ignored =
        spec.get("regexes_to_ignore").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let ignored =
        ignored.iter().map(|it| Pattern::new(it.as_str().ok_or("regexes_to_ignore should hold texts")?));
    Ok(Exact {
        ignored: ignored.collect::<Result<_, _>>()?,
        case: flag("ignore_case"),
        punctuation: flag("ignore_punctuation"),
        numbers: flag("ignore_numbers"),
    })
}

fn passes(spec: &Map<String, Value>) -> Result<Vec<Metric>, String> {
    let wrong = || "\"k\" of pass@k should be a number of 1 or more, or a list of such".to_string();
    let ks: Vec<Option<u64>> = match spec.get("k") {
        None => vec![Some(1)],
        Some(Value::Array(ks)) => ks.iter().map(Value::as_u64).collect(),
        Some(k) => vec![k.as_u64()],
    };
    let seconds = spec.get("timeout").and_then(Value::as_f64).unwrap_or(PROGRAM_SECONDS);
    if !(seconds > 0.0 && seconds <= 3600.0) {
        return Err(format!(
            "\"timeout\" of pass@k should be above 0 and at most 3600 seconds, found {seconds}"
        ));
    }
    let with_prompt = spec.get("with_prompt").and_then(Value::as_bool).unwrap_or(true);
    ks.into_iter()
        .map(|k| {
            let k = k.filter(|k| *k > 0).ok_or_else(wrong)? as usize;
            let kind = Kind::Pass { k, seconds, with_prompt };
            Ok(Metric { name: format!("pass@{k}"), higher_is_better: true, kind })
        })
        .collect()
}

impl Metric {
    pub fn aggregation(&self) -> Aggregation {
        match self.kind {
            Kind::ChoiceF1 => Aggregation::F1,
            Kind::Perplexity => Aggregation::Perplexity,
            Kind::Rolling { aggregation, .. } => aggregation,
            _ => Aggregation::Mean,
        }
    }

    /// Whether each choice's likelihood without the question is needed.
    pub fn needs_unconditional(&self) -> bool {
        matches!(self.kind, Kind::Accuracy(Norm::Unconditional))
    }
}

/// What a model says of the choices of a question.
#[derive(Debug)]
pub(super) struct Judged<'a> {
    pub choices: &'a [String],
    pub likelihoods: &'a [f64],
    pub greedy: &'a [bool],
    /// Without the question; empty where no metric needs it.
    pub unconditional: &'a [f64],
}

impl Kind {
    /// Of a question with choices.
    pub fn of_choices(&self, judged: &Judged<'_>, gold: &Gold) -> [f64; 2] {
        let right = |place: usize| f64::from(u8::from(gold.is_place(place)));
        match self {
            Kind::Accuracy(norm) => [right(judged.best(*norm)), 0.0],
            Kind::ChoiceF1 => {
                [gold.first_place().map_or(-1.0, |it| it as f64), judged.best(Norm::None) as f64]
            }
            Kind::GreedyChoice => {
                let greedy = (0..judged.greedy.len()).any(|at| judged.greedy[at] && gold.is_place(at));
                [f64::from(u8::from(greedy)), 0.0]
            }
            _ => [f64::NAN, 0.0],
        }
    }

    /// Of one continuation.
    pub fn of_likelihood(&self, log_likelihood: f64, greedy: bool) -> [f64; 2] {
        match self {
            Kind::Greedy => [f64::from(u8::from(greedy)), 0.0],
            _ => [log_likelihood, 0.0],
        }
    }

    /// Of a whole text.
    pub fn of_text(&self, log_likelihood: f64, text: &str) -> [f64; 2] {
        let size = TextSize::of(text);
        let count = match self {
            Kind::Rolling { per: Per::Word, .. } => size.words,
            _ => size.bytes,
        };
        [log_likelihood, count as f64]
    }

    /// Of a written answer.
    ///
    /// # Errors
    /// If a regular expression comes to no end.
    pub fn of_answer(&self, answer: &str, expected: &[String]) -> Result<[f64; 2], String> {
        Ok(match self {
            Kind::ExactMatch(exact) => {
                let ours = exact.plain(answer)?;
                let mut same = false;
                for expected in expected {
                    same |= exact.plain(expected)? == ours;
                }
                [f64::from(u8::from(same)), 0.0]
            }
            Kind::WordF1 => [best(answer, expected, Articles::English).f1, 0.0],
            _ => [f64::NAN, 0.0],
        })
    }
}

impl Judged<'_> {
    /// The place of the best choice, the first of equal ones.
    fn best(&self, norm: Norm) -> usize {
        let value = |at: usize| {
            let likelihood = self.likelihoods[at];
            match norm {
                Norm::None => likelihood,
                Norm::Characters => likelihood / self.choices[at].chars().count() as f64,
                Norm::Bytes => likelihood / self.choices[at].len() as f64,
                Norm::Unconditional => likelihood - self.unconditional.get(at).copied().unwrap_or(0.0),
            }
        };
        let better = |best: usize, at: usize| if value(at) > value(best) { at } else { best };
        (0..self.likelihoods.len()).fold(0, better)
    }
}

impl Exact {
    fn plain(&self, text: &str) -> Result<String, String> {
        let mut text = text.to_string();
        for pattern in &self.ignored {
            text = pattern.replace(&text, "")?;
        }
        if self.case {
            text = text.to_lowercase();
        }
        text.retain(|c| {
            !(self.punctuation && c.is_ascii_punctuation() || self.numbers && c.is_ascii_digit())
        });
        Ok(text)
    }
}

/// The chance that one of `k` of these answers is right, estimated without bias from `right` of `count` (Chen et al. 2021,
/// arXiv 2107.03374, equation 1).
pub fn pass_at(k: usize, count: usize, right: usize) -> f64 {
    if count - right < k {
        return 1.0;
    }
    let miss: f64 = (count - right + 1..=count).map(|at| 1.0 - k as f64 / at as f64).product();
    1.0 - miss
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metric(spec: Value, output: Output) -> Result<Vec<Metric>, String> {
        metrics(Some(&[spec.as_object().unwrap().clone()]), output)
    }

    #[test]
    fn choices_are_compared_by_sum_character_byte_and_surprise() {
        let choices = ["a".to_string(), "four".to_string(), "éé".to_string()];
        let judged = Judged {
            choices: &choices,
            likelihoods: &[-2.0, -3.0, -2.4],
            greedy: &[false, true, false],
            unconditional: &[-1.0, -1.0, -3.0],
        };
        let places =
            [Norm::None, Norm::Characters, Norm::Bytes, Norm::Unconditional].map(|norm| judged.best(norm));
        assert_eq!(places, [0, 1, 2, 2]);
        let gold = Gold::Places(vec![Some(1)]);
        assert_eq!(Kind::GreedyChoice.of_choices(&judged, &gold), [1.0, 0.0]);
        assert_eq!(Kind::ChoiceF1.of_choices(&judged, &gold), [1.0, 0.0]);
        assert_eq!(Kind::Accuracy(Norm::None).of_choices(&judged, &Gold::Places(vec![None])), [0.0, 0.0]);
    }

    #[test]
    fn exact_match_overlooks_what_it_is_told_to() {
        let spec = json!({"metric": "exact_match", "ignore_case": true, "ignore_punctuation": true,
            "regexes_to_ignore": [",", "\\$", "(?s).*#### "]});
        let metrics = metric(spec, Output::GenerateUntil).unwrap();
        let same = |answer: &str, expected: &str| {
            metrics[0].kind.of_answer(answer, &[expected.to_string()]).unwrap()[0]
        };
        assert_eq!(same("$1,234.", "so\n#### 1234"), 1.0);
        assert_eq!(same("It's", "its"), 1.0);
        assert_eq!(same("5", "6"), 0.0);
        let f1 = metric(json!({"metric": "f1"}), Output::GenerateUntil).unwrap();
        let found = f1[0].kind.of_answer("the red fish", &["blue".into(), "a red dog".into()]).unwrap();
        assert!((found[0] - 0.5).abs() < 1e-12);
    }

    #[test]
    fn pass_at_k_is_the_unbiased_estimate() {
        // Python, from the paper: 1 - comb(n - c, k) / comb(n, k).
        for (k, count, right, expected) in
            [(1, 10, 3, 0.3), (2, 10, 3, 1.0 - 21.0 / 45.0), (5, 5, 1, 1.0), (1, 4, 0, 0.0)]
        {
            assert!((pass_at(k, count, right) - expected).abs() < 1e-12);
        }
        let names: Vec<String> = metric(json!({"metric": "pass@k", "k": [1, 10]}), Output::GenerateUntil)
            .unwrap()
            .into_iter()
            .map(|it| it.name)
            .collect();
        assert_eq!(names, ["pass@1", "pass@10"]);
        assert!(metric(json!({"metric": "pass@k", "k": 0}), Output::GenerateUntil).is_err());
    }

    #[test]
    fn metrics_belong_to_output_types() {
        let error = metric(json!({"metric": "bleu"}), Output::GenerateUntil).unwrap_err();
        assert!(error.contains("exact_match, f1 and pass@k"), "{error}");
        let usual = metrics(None, Output::LoglikelihoodRolling).unwrap();
        assert!(usual.len() == 3 && usual.iter().all(|it| !it.higher_is_better));
        assert!(metrics(Some(&[]), Output::MultipleChoice).is_err());
    }
}
