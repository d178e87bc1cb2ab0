//! What a network says of labelled data, compared with what is right: accuracy, F1, exact match.

use ounce_eval::answers::{self, Articles};
use serde::Serialize;

use super::questions::{Asked, Question};
use super::{Example, Target, batch};
use crate::{IGNORE, Result, Trainable};

/// How right a network is, each from 0 to 1. What does not apply is none.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Metrics {
    /// The part of texts, or of tokens, with the right label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// The part of answers whose words are those expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact_match: Option<f64>,
    /// Of answers: F1 over words, averaged. Of tokens: F1 over those with a label other than `O`. Of texts: F1 of each
    /// label, averaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub f1: Option<f64>,
}

impl std::fmt::Display for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [("accuracy", self.accuracy), ("exact match", self.exact_match), ("F1", self.f1)];
        let parts =
            parts.iter().filter_map(|(name, value)| Some(format!("{name} {:.1} %", 100.0 * (*value)?)));
        f.write_str(&parts.collect::<Vec<_>>().join(", "))
    }
}

/// Data that a network is judged on.
#[derive(Debug, Clone)]
pub enum Judge {
    /// Labels of texts.
    Texts {
        /// The texts.
        examples: Vec<Example>,
        /// How many labels there are.
        labels: usize,
    },
    /// Labels of tokens.
    Tokens {
        /// The sentences.
        examples: Vec<Example>,
        /// How many labels there are.
        labels: usize,
        /// The label of what is nothing special.
        outside: Option<u32>,
    },
    /// Answers.
    Spans {
        /// Questions with their windows.
        questions: Vec<(Question, Asked)>,
        /// Whose articles do not count.
        articles: Articles,
    },
}

impl Judge {
    /// Sends the data through a network, so many sequences at a time, and counts.
    ///
    /// # Errors
    /// If the network gives no scores, or the data does not fit it.
    pub fn judge(&self, net: &mut dyn Trainable, at_once: usize) -> Result<Metrics> {
        match self {
            Judge::Texts { examples, labels } => {
                let counts = count(net, examples, *labels, at_once)?;
                Ok(Metrics {
                    accuracy: Some(counts.accuracy()),
                    f1: Some(counts.macro_f1()),
                    exact_match: None,
                })
            }
            Judge::Tokens { examples, labels, outside } => {
                let counts = count(net, examples, *labels, at_once)?;
                Ok(Metrics {
                    accuracy: Some(counts.accuracy()),
                    f1: Some(counts.f1(*outside)),
                    exact_match: None,
                })
            }
            Judge::Spans { questions, articles } => {
                // Only where some have no answer can none be the answer.
                let may_lack = questions.iter().any(|(question, _)| question.answers.is_empty());
                let (mut exact, mut f1) = (0.0, 0.0);
                for (question, asked) in questions {
                    let answer = find(net, asked, at_once)?;
                    let found = answer.filter(|found| !may_lack || found.score >= found.nothing);
                    let text = found.map_or("", |found| question.context[found.bytes].trim());
                    let expected: Vec<&str> =
                        question.answers.iter().map(|(text, _)| text.as_str()).collect();
                    let matched = answers::best(text, &expected, *articles);
                    exact += matched.exact;
                    f1 += matched.f1;
                }
                let count = questions.len().max(1) as f64;
                Ok(Metrics { accuracy: None, exact_match: Some(exact / count), f1: Some(f1 / count) })
            }
        }
    }

    /// The same with less: about the first `sequences`, one at least.
    pub fn first(mut self, sequences: usize) -> Judge {
        match &mut self {
            Judge::Texts { examples, .. } | Judge::Tokens { examples, .. } => {
                examples.truncate(sequences.max(1))
            }
            Judge::Spans { questions, .. } => {
                let mut windows = 0;
                let fitting = questions.iter().take_while(|(_, asked)| {
                    windows += asked.windows.len();
                    windows <= sequences
                });
                let fitting = fitting.count().max(1);
                questions.truncate(fitting);
            }
        }
        self
    }
}

/// The answer that a network finds to a question.
///
/// # Errors
/// If the network gives no scores, or the question does not fit it.
pub fn find(
    net: &mut dyn Trainable,
    asked: &Asked,
    at_once: usize,
) -> Result<Option<super::questions::Found>> {
    let mut scores = Vec::with_capacity(asked.windows.len());
    for windows in asked.windows.chunks(at_once.max(1)) {
        let all = net.scores(&batch(windows))?;
        let mut rest = &all[..];
        for window in windows {
            let (own, more) = rest.split_at(2 * window.ids.len());
            scores.push(own.to_vec());
            rest = more;
        }
    }
    Ok(asked.answer(&scores))
}

/// How often each label was given for each that was right.
struct Counts {
    labels: usize,
    /// `[right, given]`.
    pairs: Vec<usize>,
}

impl Counts {
    fn of(&self, right: usize, given: usize) -> f64 {
        self.pairs[right * self.labels + given] as f64
    }

    fn accuracy(&self) -> f64 {
        let same: f64 = (0..self.labels).map(|label| self.of(label, label)).sum();
        same / self.pairs.iter().sum::<usize>().max(1) as f64
    }

    /// Right ones, given ones and expected ones of a label.
    fn sums(&self, label: usize) -> (f64, f64, f64) {
        let given = (0..self.labels).map(|right| self.of(right, label)).sum();
        let expected = (0..self.labels).map(|given| self.of(label, given)).sum();
        (self.of(label, label), given, expected)
    }

    /// F1 of all labels but one together.
    fn f1(&self, outside: Option<u32>) -> f64 {
        let labels = (0..self.labels).filter(|&label| outside != Some(label as u32));
        let all = labels.map(|label| self.sums(label));
        let (same, given, expected) =
            all.fold((0.0, 0.0, 0.0), |sum, it| (sum.0 + it.0, sum.1 + it.1, sum.2 + it.2));
        if given + expected > 0.0 { 2.0 * same / (given + expected) } else { 1.0 }
    }

    /// F1 of each label that is given or expected, averaged.
    fn macro_f1(&self) -> f64 {
        let each = (0..self.labels)
            .map(|label| self.sums(label))
            .filter(|(_, given, expected)| given + expected > 0.0);
        let each: Vec<f64> = each.map(|(same, given, expected)| 2.0 * same / (given + expected)).collect();
        each.iter().sum::<f64>() / each.len().max(1) as f64
    }
}

fn count(net: &mut dyn Trainable, examples: &[Example], labels: usize, at_once: usize) -> Result<Counts> {
    let mut counts = Counts { labels, pairs: vec![0; labels * labels] };
    for examples in examples.chunks(at_once.max(1)) {
        let scores = net.scores(&batch(examples))?;
        let right = examples.iter().flat_map(|example| match &example.target {
            Target::Label(label) => std::slice::from_ref(label).iter(),
            Target::Tokens(labels) => labels.iter(),
            Target::Span(_) => [].iter(),
        });
        // Rows without a label have no scores.
        let right = right.copied().filter(|&label| label != IGNORE);
        for (row, right) in scores.chunks_exact(labels).zip(right) {
            let given = (0..labels).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a))).unwrap_or(0);
            counts.pairs[right as usize * labels + given] += 1;
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_give_the_usual_measures() {
        // Right 0: 3 times given 0, once 1; right 1: twice 1, once 0; label 2 never.
        let counts = Counts { labels: 3, pairs: vec![3, 1, 0, 1, 2, 0, 0, 0, 0] };
        assert!((counts.accuracy() - 5.0 / 7.0).abs() < 1e-12);
        assert!((counts.macro_f1() - (6.0 / 8.0 + 4.0 / 6.0) / 2.0).abs() < 1e-12);
        assert!((counts.f1(Some(0)) - 4.0 / 6.0).abs() < 1e-12);
        assert!((counts.f1(None) - 10.0 / 14.0).abs() < 1e-12);
    }

    #[test]
    fn measures_are_said_in_percent() {
        let metrics = Metrics { exact_match: Some(0.5), f1: Some(0.625), accuracy: None };
        assert_eq!(metrics.to_string(), "exact match 50.0 %, F1 62.5 %");
    }
}
