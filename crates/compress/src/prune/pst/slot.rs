//! A linear layer whose matrix is masked by scores that learn, as a slot of the general network.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::Tensor;
use ounce_train::graph::ops::{node, read, tensor};
use ounce_train::graph::{Linear, Slot, Weight};
use ounce_train::{ParamKind, Result};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::train::Way;
use crate::prune::lowest;

/// The share of each matrix that is out, shared by all slots of a network and raised between steps.
#[derive(Debug, Clone, Default)]
pub struct Share(Arc<AtomicU64>);

impl Share {
    /// Sets it.
    pub fn set(&self, share: f64) {
        self.0.store(share.to_bits(), Ordering::Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// `M ⊙ W`, with `M` 0 at the `⌊share · count⌋` lowest scores, of equal ones the later, and 1 elsewhere. Backward: `∂W = M ⊙ ∂`, and
/// straight through the ranking `∂S = W ⊙ ∂`.
///
/// # Errors
/// If there are not as many scores as weights.
pub fn masked(weights: &Tensor, scores: &Tensor, share: f64) -> Result<Tensor> {
    let (weights, scores) = (weights.contiguous()?, scores.contiguous()?);
    let (values, out) = read([&weights, &scores], |[weights, scores]| {
        let mut out = vec![false; scores.len()];
        lowest(scores, (share * scores.len() as f64) as usize).into_iter().for_each(|at| out[at] = true);
        let values: Vec<f32> = weights.iter().zip(&out).map(|(w, out)| if *out { 0.0 } else { *w }).collect();
        (values, out)
    })?;
    let kept = weights.clone();
    Ok(node("masked", &[&weights, &scores], values, weights.shape(), move |behind| {
        let [to_weights, to_scores, _] = behind.wanted;
        let (dw, ds) = read([&kept, &behind.gradient], |[weights, gradient]| {
            let dw = to_weights
                .then(|| gradient.iter().zip(&out).map(|(g, out)| if *out { 0.0 } else { *g }).collect());
            let ds = to_scores.then(|| gradient.iter().zip(weights).map(|(g, w)| g * w).collect());
            (dw, ds)
        })?;
        let shape = kept.shape();
        Ok(vec![
            dw.map(|it: Vec<f32>| tensor(it, shape)).transpose()?,
            ds.map(|it: Vec<f32>| tensor(it, shape)).transpose()?,
        ])
    })?)
}

/// `|W'| + A B + R 1ᵀ + 1 Cᵀ`: `a` `[n, r]`, `b` `[r, k]`, `rows` `[n]`, `columns` `[k]`.
///
/// # Errors
/// If the shapes don't fit.
pub fn importance(
    weights: &Tensor,
    a: &Tensor,
    b: &Tensor,
    rows: &Tensor,
    columns: &Tensor,
) -> Result<Tensor> {
    let learned = a.matmul(b)?.broadcast_add(&rows.unsqueeze(1)?)?.broadcast_add(&columns.unsqueeze(0)?)?;
    Ok((weights.abs()? + learned)?)
}

/// What weights are ranked by.
enum Ranking {
    /// Their size now.
    Size,
    /// Their size at first.
    FirstSize,
    /// Size and what was learned of it, in small matrices: A, B, R and C.
    LowRank([Weight; 4]),
    /// A learned score for each.
    Scores(Weight),
}

/// `y = x (M ⊙ W')ᵀ + bias`.
pub struct PrunedSlot {
    linear: Linear,
    /// The frozen matrix, decoded once; none if it learns.
    base: Option<Tensor>,
    /// U and V.
    change: Option<[Weight; 2]>,
    ranking: Ranking,
    share: Share,
}

impl PrunedSlot {
    /// Takes the place of a layer; its matrix and bias must be as they should be, frozen or not.
    ///
    /// # Errors
    /// If the matrix can't be decoded.
    pub fn new(
        name: &str,
        linear: Linear,
        way: Way,
        share: Share,
        random: &mut ChaCha8Rng,
    ) -> Result<PrunedSlot> {
        let (n, k) = (linear.output, linear.input);
        // Of a variance at which the product of both is of the variance of the second.
        let mut drawn = |name: String, rank: usize| {
            let reach = (3.0 / rank as f32).sqrt();
            let values = (0..n * rank).map(|_| random.random_range(-reach..reach)).collect();
            Weight::new(&name, &[n, rank], ParamKind::Matrix, values)
        };
        let zeros = |name: String, shape: &[usize], kind: ParamKind| {
            Weight::new(&name, shape, kind, vec![0.0; shape.iter().product()])
        };
        let mut pair = |of: &str, rank: usize| -> Result<[Weight; 2]> {
            Ok([
                drawn(format!("{name}.{of}_out"), rank)?,
                zeros(format!("{name}.{of}_in"), &[rank, k], ParamKind::Matrix)?,
            ])
        };
        let (change, ranking) = match way {
            Way::Pst { rank, score_rank } => {
                let change = pair("change", rank)?;
                let [a, b] = pair("score", score_rank)?;
                let rows = zeros(format!("{name}.score_rows"), &[n], ParamKind::Bias)?;
                let columns = zeros(format!("{name}.score_columns"), &[k], ParamKind::Bias)?;
                (Some(change), Ranking::LowRank([a, b, rows, columns]))
            }
            Way::Gradual { rank } => (Some(pair("change", rank)?), Ranking::Size),
            Way::AtOnce { rank } => (Some(pair("change", rank)?), Ranking::FirstSize),
            Way::Movement => {
                (None, Ranking::Scores(zeros(format!("{name}.scores"), &[n, k], ParamKind::Matrix)?))
            }
        };
        let base = match way {
            Way::Movement => None,
            _ => Some(linear.dense()?.detach()),
        };
        Ok(PrunedSlot { linear, base, change, ranking, share })
    }

    /// `M ⊙ W'`.
    fn matrix(&self) -> Result<Tensor> {
        let base = self.base.clone().map_or_else(|| self.linear.dense(), Ok)?;
        let weights = match &self.change {
            Some([u, v]) => (&base + u.tensor()?.matmul(&v.tensor()?)?)?,
            None => base.clone(),
        };
        let scores = match &self.ranking {
            Ranking::Size => weights.detach().abs()?,
            Ranking::FirstSize => base.abs()?,
            Ranking::LowRank([a, b, rows, columns]) => {
                importance(&weights, &a.tensor()?, &b.tensor()?, &rows.tensor()?, &columns.tensor()?)?
            }
            Ranking::Scores(scores) => scores.tensor()?,
        };
        masked(&weights, &scores, self.share.get())
    }
}

impl Slot for PrunedSlot {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear.with_matrix(x, self.matrix()?)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.linear.vars();
        weights.extend(self.change.iter().flatten().cloned());
        match &self.ranking {
            Ranking::LowRank(learned) => weights.extend(learned.iter().cloned()),
            Ranking::Scores(scores) => weights.push(scores.clone()),
            Ranking::Size | Ranking::FirstSize => {}
        }
        weights
    }

    fn merged(&self) -> Result<Option<Tensor>> {
        Ok(Some(self.matrix()?))
    }
}
