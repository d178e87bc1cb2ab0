//! What a weight is worth, and which weights become zero.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::prune::lowest;
use crate::{Error, Result};

/// A matrix and what is known of it.
#[derive(Debug, Clone, Default)]
pub struct Matrix {
    /// Its name.
    pub name: String,
    /// Columns, inputs of its layer.
    pub columns: usize,
    /// Its values, row by row.
    pub values: Vec<f32>,
    /// Mean square of each input on calibration data, `[columns]`; empty where nothing was looked at.
    pub inputs: Vec<f32>,
    /// The loss's gradient on calibration data; empty where nothing was looked at.
    pub gradient: Vec<f32>,
}

/// Among which weights those of the lowest scores go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Each row by itself.
    Row,
    /// Each matrix by itself.
    Matrix,
    /// All matrices of a component together.
    Component,
}

/// A way to score weights.
pub trait Criterion: std::fmt::Debug + Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Among which weights it compares.
    fn scope(&self) -> Scope;

    /// A score for each weight; those of the lowest go first.
    fn scores(&self, matrix: &Matrix) -> Vec<f32>;
}

/// `|w|`, among the weights of a matrix or of a whole component.
#[derive(Debug)]
pub struct Magnitude(pub Scope);

impl Criterion for Magnitude {
    fn name(&self) -> &'static str {
        if self.0 == Scope::Component { "magnitude, whole component" } else { "magnitude" }
    }

    fn scope(&self) -> Scope {
        self.0
    }

    fn scores(&self, matrix: &Matrix) -> Vec<f32> {
        matrix.values.iter().map(|w| w.abs()).collect()
    }
}

/// `|w| ‖x‖`, among the weights of a row (Wanda, arXiv 2306.11695).
#[derive(Debug)]
pub struct Wanda;

impl Criterion for Wanda {
    fn name(&self) -> &'static str {
        "Wanda"
    }

    fn scope(&self) -> Scope {
        Scope::Row
    }

    fn scores(&self, matrix: &Matrix) -> Vec<f32> {
        let rows = matrix.values.chunks_exact(matrix.columns.max(1));
        rows.flat_map(|row| row.iter().zip(&matrix.inputs).map(|(w, x)| w.abs() * x.sqrt())).collect()
    }
}

/// `|w g|`, the change of the loss to first order, among the weights of a component.
#[derive(Debug)]
pub struct Taylor;

impl Criterion for Taylor {
    fn name(&self) -> &'static str {
        "Taylor"
    }

    fn scope(&self) -> Scope {
        Scope::Component
    }

    fn scores(&self, matrix: &Matrix) -> Vec<f32> {
        matrix.values.iter().zip(&matrix.gradient).map(|(w, g)| (w * g).abs()).collect()
    }
}

/// Chance, for comparison.
#[derive(Debug)]
pub struct Random;

impl Criterion for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn scope(&self) -> Scope {
        Scope::Matrix
    }

    fn scores(&self, matrix: &Matrix) -> Vec<f32> {
        let seed =
            matrix.name.bytes().fold(7u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        matrix.values.iter().map(|_| random.random()).collect()
    }
}

/// All criteria.
pub const CRITERIA: [&dyn Criterion; 5] =
    [&Magnitude(Scope::Matrix), &Magnitude(Scope::Component), &Wanda, &Taylor, &Random];

/// Matrices of a component with zeros: of each row, each matrix or all together exactly `⌊sparsity · count⌋` weights.
///
/// # Errors
/// If a criterion needs what wasn't looked at, or a score is no number.
pub fn masked(criterion: &dyn Criterion, matrices: &[&Matrix], sparsity: f64) -> Result<Vec<Vec<f32>>> {
    let mut scores = Vec::with_capacity(matrices.len());
    for matrix in matrices {
        let own = criterion.scores(matrix);
        if own.len() != matrix.values.len() {
            return Err(Error::matrix(
                &matrix.name,
                format!("{} needs calibration data; give some", criterion.name()),
            ));
        }
        if own.iter().any(|score| !score.is_finite()) {
            return Err(Error::matrix(&matrix.name, "has weights that are no numbers; repair them first"));
        }
        scores.push(own);
    }
    let gone = |count: usize| (sparsity * count as f64) as usize;
    let mut values: Vec<Vec<f32>> = matrices.iter().map(|matrix| matrix.values.clone()).collect();
    match criterion.scope() {
        Scope::Component => {
            let all: Vec<f32> = scores.iter().flatten().copied().collect();
            let mut zero = vec![false; all.len()];
            lowest(&all, gone(all.len())).into_iter().for_each(|at| zero[at] = true);
            values
                .iter_mut()
                .flatten()
                .zip(zero)
                .filter(|(_, zero)| *zero)
                .for_each(|(value, _)| *value = 0.0);
        }
        scope => {
            for ((values, scores), matrix) in values.iter_mut().zip(&scores).zip(matrices) {
                let each = if scope == Scope::Row { matrix.columns.max(1) } else { values.len().max(1) };
                for (values, scores) in values.chunks_mut(each).zip(scores.chunks(each)) {
                    lowest(scores, gone(scores.len())).into_iter().for_each(|at| values[at] = 0.0);
                }
            }
        }
    }
    Ok(values)
}
