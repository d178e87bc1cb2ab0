//! What a unit is worth while a model trains: `|Σ g w − ½ F w²|`, from running averages of the gradient `g` and of its square.
//!
//! Sums go over the weights with which a unit's result enters the stream; without them it is out. A unit that leaves changes them by
//! `−w`, the loss by `−g w + ½ F w²` each as far as curvature is diagonal. The gradient of a step is a mean over its
//! tokens, whose square is smaller than the mean square of single tokens' gradients by their number where they cancel, as near
//! a minimum they do: `F` is the average of the square times the number of tokens.

use ounce_model::Spec;
use ounce_train::Param;

use crate::prune::structured::Scores;
use crate::prune::structured::saliency::{add, is_entrance};

/// Running averages of gradients.
#[derive(Debug, Clone)]
pub struct Fisher {
    /// What of an average a step leaves.
    pub(super) decay: f32,
    pub(super) steps: i32,
    /// Of each parameter; empty for those that are no entrances.
    pub(super) first: Vec<Vec<f32>>,
    pub(super) second: Vec<Vec<f32>>,
}

impl Fisher {
    /// Nothing seen yet.
    pub fn new(params: &[Param], decay: f32) -> Fisher {
        let zeros = |param: &Param| match is_entrance(&param.name, true) {
            true => vec![0.0; param.value.len()],
            false => Vec::new(),
        };
        let first: Vec<Vec<f32>> = params.iter().map(zeros).collect();
        Fisher { decay, steps: 0, second: first.clone(), first }
    }

    /// Takes in the gradients of a step, means over so many tokens.
    pub fn see(&mut self, params: &[Param], tokens: usize) {
        self.steps += 1;
        let (decay, tokens) = (self.decay, tokens as f32);
        for ((param, first), second) in params.iter().zip(&mut self.first).zip(&mut self.second) {
            for ((g, first), second) in param.grad.iter().zip(first).zip(second) {
                *first += (1.0 - decay) * (g - *first);
                *second += (1.0 - decay) * (g * g * tokens - *second);
            }
        }
    }

    /// The worth of each unit.
    pub fn worth(&self, spec: &Spec, params: &[Param]) -> Scores {
        let mut scores = Scores::zeros(spec, true);
        scores.stream = vec![0.0; spec.hidden_size];
        // Averages that began at zero are too small in the first steps.
        let whole = 1.0 - self.decay.powi(self.steps.max(1));
        for ((param, first), second) in params.iter().zip(&self.first).zip(&self.second) {
            let change = param.value.iter().zip(first.iter().zip(second)).map(|(w, (g, f))| {
                f64::from(g / whole) * f64::from(*w) - 0.5 * f64::from(f / whole) * f64::from(*w).powi(2)
            });
            if !first.is_empty() {
                add(&mut scores, spec, &param.name, param.shape[1], change);
            }
        }
        let all = scores.heads.iter_mut().chain(&mut scores.channels).flatten().chain(&mut scores.stream);
        all.for_each(|score| *score = score.abs());
        scores
    }
}
