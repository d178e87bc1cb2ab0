//! Which words stand for a label, and how their logits become its score.

use ounce_kernels::softmax::log_sum_exp;
use ounce_model::tokenizer::Tokenizer;
use ounce_train::loss::{Chunk, LogitLoss};
use serde::{Deserialize, Serialize};

use super::template::Template;
use crate::{Error, Result};

/// A label and the words that stand for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Its name, as data has it.
    pub name: String,
    /// The tokens of each word.
    pub words: Vec<Vec<u32>>,
}

/// Labels as a user writes them, `good=great,fine;bad=poor`, or a line each; a label without words stands for itself.
///
/// # Errors
/// If there are fewer than two, or one comes twice.
pub fn parse(text: &str) -> Result<Vec<(String, Vec<String>)>> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    for entry in text.split([';', '\n']).map(str::trim).filter(|entry| !entry.is_empty()) {
        let (name, words) = entry.split_once('=').unwrap_or((entry, ""));
        let name = name.trim().to_owned();
        let mut words: Vec<String> =
            words.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect();
        if words.is_empty() {
            words.push(name.clone());
        }
        if all.iter().any(|(other, _)| *other == name) {
            return Err(Error::Option(format!("the verbalizer has the label {name:?} twice")));
        }
        all.push((name, words));
    }
    if all.len() < 2 {
        return Err(Error::Option(format!(
            "the verbalizer has {} labels; write two or more, as in good=great,fine;bad=poor",
            all.len()
        )));
    }
    Ok(all)
}

/// The labels with the tokens of their words, and which words have several tokens.
///
/// # Errors
/// If the vocabulary can't spell a word, or two labels have the same words.
pub fn labels(
    tokenizer: &Tokenizer,
    template: &Template,
    named: &[(String, Vec<String>)],
) -> Result<(Vec<Label>, Vec<String>)> {
    let mut several = Vec::new();
    let mut all: Vec<Label> = Vec::new();
    for (name, words) in named {
        let mut tokens = Vec::new();
        for word in words {
            let ids = tokenizer
                .encode(&if template.gap_blank { format!(" {word}") } else { word.clone() }, false)?;
            if ids.is_empty() || ids.iter().any(|&id| tokenizer.special().unk == Some(id)) {
                return Err(Error::Option(format!(
                    "the model's vocabulary can't spell {word:?}, a word of the label {name:?}; choose another word"
                )));
            }
            if ids.len() > 1 {
                several.push(word.clone());
            }
            tokens.push(ids);
        }
        if let Some(other) = all.iter().find(|label| label.words == tokens) {
            return Err(Error::Option(format!(
                "the labels {:?} and {name:?} have the same words, so nothing tells them apart",
                other.name
            )));
        }
        all.push(Label { name: name.clone(), words: tokens });
    }
    Ok((all, several))
}

/// Tokens with their weights in a label's score: the mean over its words of the mean over a word's tokens.
pub(super) fn weights(label: &Label) -> Vec<(usize, f32)> {
    let words = label.words.len() as f32;
    let word = |ids: &Vec<u32>| {
        let share = 1.0 / (words * ids.len() as f32);
        ids.iter().map(move |&id| (id as usize, share)).collect::<Vec<_>>()
    };
    label.words.iter().flat_map(word).collect()
}

/// Cross-entropy with the gap's label, whose scores are weighted sums of words' logits; keeps all scores, `[rows, labels]`.
pub(super) struct Verbalized<'l> {
    /// By label.
    pub weights: &'l [Vec<(usize, f32)>],
    /// What was found.
    pub scores: Vec<f32>,
}

impl LogitLoss for Verbalized<'_> {
    fn chunk(&mut self, chunk: Chunk<'_>, scale: Option<f32>) -> f64 {
        let mut sum = 0.0;
        let capped = |logit: f32| chunk.softcap.map_or(logit, |cap| cap * (logit / cap).tanh());
        let slope = |logit: f32| chunk.softcap.map_or(1.0, |cap| 1.0 - (logit / cap).tanh().powi(2));
        for (logits, &target) in chunk.logits.chunks_exact_mut(chunk.width).zip(chunk.targets) {
            let score =
                |words: &Vec<(usize, f32)>| words.iter().map(|&(id, share)| share * capped(logits[id])).sum();
            let scores: Vec<f32> = self.weights.iter().map(score).collect();
            let all = log_sum_exp(&scores);
            sum += all - f64::from(scores[target as usize]);
            if let Some(scale) = scale {
                let slopes: Vec<Vec<f32>> = (self.weights.iter())
                    .map(|words| words.iter().map(|&(id, _)| slope(logits[id])).collect())
                    .collect();
                logits.fill(0.0);
                for (label, (words, slopes)) in self.weights.iter().zip(&slopes).enumerate() {
                    let given = (f64::from(scores[label]) - all).exp() as f32;
                    let gradient = scale * (given - f32::from(u8::from(label == target as usize)));
                    for (&(id, share), slope) in words.iter().zip(slopes) {
                        logits[id] += gradient * share * slope;
                    }
                }
            }
            self.scores.extend(scores);
        }
        sum
    }
}
