//! What a unit is worth while a model trains: `|Σ g w − ½ F w²|`, from running averages of the gradient `g` and of its square.
//!
//! Sums go over the weights with which a unit's result enters the stream; without them it is out. A unit that leaves changes them by
//! `−w`, the loss by `−g w + ½ F w²` each as far as curvature is diagonal. The gradient of a step is a mean over its
//! tokens, whose square is smaller than the mean square of single tokens' gradients by their number where they cancel, as near
//! a minimum they do: `F` is the average of the square times the number of tokens.

use ounce_model::Spec;
use ounce_train::Param;

use crate::prune::structured::saliency::{add, is_entrance, parts, slopes, zeros};
use crate::prune::structured::{Cut, Scores};

/// What of some units stays.
fn taken(scores: &Scores, cut: &Cut) -> Scores {
    let take = |values: &Vec<f64>, kept: Option<&Vec<usize>>| match kept {
        Some(kept) => kept.iter().map(|&at| values[at]).collect(),
        None => values.clone(),
    };
    let layers = || cut.layers.iter().enumerate().filter_map(|(at, layer)| Some((at, layer.as_ref()?)));
    Scores {
        heads: layers().map(|(at, it)| take(&scores.heads[at], it.kv_heads.as_ref())).collect(),
        channels: layers().map(|(at, it)| take(&scores.channels[at], it.channels.as_ref())).collect(),
        stream: take(&scores.stream, cut.stream.as_ref()),
        comparable: scores.comparable,
    }
}

/// Running averages of gradients.
#[derive(Debug, Clone)]
pub struct Fisher {
    /// What of an average a step leaves.
    pub(super) decay: f32,
    pub(super) steps: i32,
    /// Of each parameter; empty for those that are no entrances.
    pub(super) first: Vec<Vec<f32>>,
    pub(super) second: Vec<Vec<f32>>,
    /// Of each unit's factor `z`: the derivative of the loss by it, `d = Σ g w`, and `n d²`.
    pub(super) factors: [Scores; 2],
}

impl Fisher {
    /// The factors' averages of a cut model.
    pub(super) fn factors_of(&self, cut: &Cut) -> [Scores; 2] {
        [0, 1].map(|at| taken(&self.factors[at], cut))
    }

    /// Nothing seen yet.
    pub fn new(spec: &Spec, params: &[Param], decay: f32) -> Fisher {
        let zeros_of = |param: &Param| match is_entrance(&param.name, true) {
            true => vec![0.0; param.value.len()],
            false => Vec::new(),
        };
        let first: Vec<Vec<f32>> = params.iter().map(zeros_of).collect();
        Fisher {
            decay,
            steps: 0,
            second: first.clone(),
            first,
            factors: [zeros(spec, true), zeros(spec, true)],
        }
    }

    /// Takes in the gradients of a step, means over so many tokens.
    pub fn see(&mut self, spec: &Spec, params: &[Param], tokens: usize) {
        self.steps += 1;
        let (decay, tokens) = (self.decay, tokens as f32);
        let mut slopes = slopes(spec, params, true);
        let [first, second] = &mut self.factors;
        for ((slopes, first), second) in parts(&mut slopes).zip(parts(first)).zip(parts(second)) {
            for ((d, first), second) in slopes.iter().zip(first).zip(second) {
                *first += (1.0 - f64::from(decay)) * (d - *first);
                *second += (1.0 - f64::from(decay)) * (d * d * f64::from(tokens) - *second);
            }
        }
        for ((param, first), second) in params.iter().zip(&mut self.first).zip(&mut self.second) {
            for ((g, first), second) in param.grad.iter().zip(first).zip(second) {
                *first += (1.0 - decay) * (g - *first);
                *second += (1.0 - decay) * (g * g * tokens - *second);
            }
        }
    }

    /// The worth of each unit by its factor: `|E[d]| + ½ n E[d²]`, which counts how its weights change the loss together, where [`Fisher::worth`]
    /// takes them for independent.
    pub fn worth_of_factors(&self) -> Scores {
        let whole = f64::from(1.0 - self.decay.powi(self.steps.max(1)));
        let [mut scores, mut second] = self.factors.clone();
        for (score, second) in parts(&mut scores).zip(parts(&mut second)) {
            score.iter_mut().zip(second).for_each(|(score, f)| *score = (score.abs() + 0.5 * *f) / whole);
        }
        scores
    }

    /// The worth of each unit, `|Σ g w − ½ F w²|`.
    pub fn worth(&self, spec: &Spec, params: &[Param]) -> Scores {
        let mut scores = zeros(spec, true);
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
        parts(&mut scores).flatten().for_each(|score| *score = score.abs());
        scores
    }
}
