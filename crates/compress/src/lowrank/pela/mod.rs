//! PELA (method 007): a trained model is factorised, repaired once in a short intermediate training on general text, and fine-tuned
//! afterwards as if it were the original.
//!
//! "PELA: Learning Parameter-Efficient Models with Low-Rank Approximation", arXiv 2310.10700.
//!
//! - **Factors** (section 3.1): `W ≈ B A`, `B = U_r S_r^½`, `A = S_r^½ V_rᵀ`, of a rank at which both have `1/k` of the weights:
//!   [`factorise`](super::factorise) without calibration.
//! - **Feature distillation** (section 3.2): the streams behind the layers are held to the original's:
//!   `ounce_train::distil`, `ounce heal --features`.
//! - **Weight perturbation** (section 3.3): `(‖B A − W‖_∞ − ε)²`, as a mean over pairs, so that no entry of a product wanders far:
//!   `deviation`. The norm is the greatest entry's, as in the public code.
//!
//! Losses add up: `L = L_task + a L_features + c L_weights`.

mod demonstrate;
mod tasks;

use std::sync::Arc;

use ounce_eval::method::{Family, Method};
use ounce_kernels::gemm::{Compute, Operand, Workspace, gemm};
use ounce_kernels::pool::Pool;
use ounce_model::Model;
use ounce_model::spec_tensors::{EXPAND, REDUCE};
use ounce_train::distil::WeightLoss;
use ounce_train::net::Net;
use ounce_train::{Param, Trainable};

use crate::{Error, Result};

const NUMBER: u16 = 7;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "PELA",
    family: Family::LowRank,
    paper: "PELA: Learning Parameter-Efficient Models with Low-Rank Approximation",
    arxiv: Some("2310.10700"),
    gives: "A pretrained model is factorised to between two thirds and one third of its size, repaired once on general data, and afterwards fine-tuned as usual.",
    claim: "A third to two thirds of the parameters of DeiT-B, Swin and ALBEF go for about 0.6 points of average loss.",
    command: Some(
        "ounce factorize MODEL --ratio 0.5 --plain -o THIN && ounce heal THIN --teacher MODEL --text FILE --features 1 -o HEALED",
    ),
    demonstrate: Some(demonstrate::demonstrate),
};

/// A factorised matrix with what it stood for.
struct Pair {
    /// Places among the parameters.
    reduce: usize,
    expand: usize,
    original: Arc<[f32]>,
    rows: usize,
    columns: usize,
    rank: usize,
}

/// The loss that keeps products near to the original's matrices: `weight` times the mean over pairs of
/// `(max |B A − W| − slack)²`.
///
/// # Errors
/// If nothing of the student is factorised, or the original has no such matrix.
pub fn deviation(student: &Net, original: &Model, weight: f64, slack: f64) -> Result<WeightLoss<'static>> {
    let spec = &student.skeleton().spec;
    let place = |name: String| student.params().iter().position(|param| param.name == name);
    let mut pairs = Vec::new();
    for (name, &rank) in &spec.ranks {
        let (Some(reduce), Some(expand)) =
            (place(format!("{name}{REDUCE}")), place(format!("{name}{EXPAND}")))
        else {
            continue;
        };
        let (rows, columns) = (student.params()[expand].shape[0], student.params()[reduce].shape[1]);
        let original = original.weights.f32(&format!("{name}.weight"))?;
        if original.len() != rows * columns {
            return Err(Error::matrix(
                name,
                "has another shape in the original; name the model that this one was made from",
            ));
        }
        pairs.push(Pair { reduce, expand, original: original.into(), rows, columns, rank });
    }
    if pairs.is_empty() {
        return Err(Error::Option("the model has no factorised layers that are trained".into()));
    }
    let share = weight / pairs.len() as f64;
    let mut workspace = Workspace::default();
    Ok(Box::new(move |params, scale| {
        pairs.iter().map(|pair| pair.run(params, share, slack, scale, &mut workspace)).sum()
    }))
}

impl Pair {
    /// The pair's loss; adds its gradient times the scale.
    fn run(
        &self,
        params: &mut [Param],
        share: f64,
        slack: f64,
        scale: f32,
        workspace: &mut Workspace,
    ) -> f64 {
        let Pair { rows, columns, rank, .. } = *self;
        let mut product = vec![0.0f32; rows * columns];
        let left = Operand::rows(&params[self.expand].value, rank);
        let right = Operand::rows(&params[self.reduce].value, columns);
        let size = (rows, columns, rank);
        gemm(Pool::global(), Compute::F32, size, left, right, false, &mut product, columns, workspace);
        let far = |at: usize| product[at] - self.original[at];
        let greatest =
            (0..product.len()).fold(0, |best, at| if far(at).abs() > far(best).abs() { at } else { best });
        let error = f64::from(far(greatest));
        let beyond = error.abs() - slack;
        // Of the one entry that counts: dL/dE = 2 (|E| − ε) sign(E).
        let slope = (2.0 * share * beyond * error.signum()) as f32 * scale;
        let (row, column) = (greatest / columns, greatest % columns);
        let of_row = params[self.expand].value[row * rank..(row + 1) * rank].to_vec();
        let of_column: Vec<f32> =
            (0..rank).map(|k| params[self.reduce].value[k * columns + column]).collect();
        if params[self.expand].is_trainable() {
            let grad = &mut params[self.expand].grad[row * rank..(row + 1) * rank];
            grad.iter_mut().zip(&of_column).for_each(|(grad, a)| *grad += slope * a);
        }
        if params[self.reduce].is_trainable() {
            let grad = &mut params[self.reduce].grad;
            of_row.iter().enumerate().for_each(|(k, b)| grad[k * columns + column] += slope * b);
        }
        share * beyond * beyond
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{factorised, model};
    use super::*;

    #[test]
    fn the_deviation_and_its_gradient_are_those_of_the_definition() {
        let (thin, done) = factorised(false);
        let mut net = Net::from_model(&thin, Default::default()).expect("a network");
        let mut loss = deviation(&net, &model(), 3.0, 1e-3).expect("a loss");
        // Written out for one pair after the other.
        let mut expected = 0.0;
        for it in &done {
            let [a, b] =
                [REDUCE, EXPAND].map(|end| thin.weights.f32(&format!("{}{end}", it.name)).expect("there"));
            let w = model().weights.f32(&format!("{}.weight", it.name)).expect("there");
            let greatest = (0..w.len()).map(|at| {
                let (row, column) = (at / it.columns, at % it.columns);
                let product: f32 =
                    (0..it.rank).map(|k| b[row * it.rank + k] * a[k * it.columns + column]).sum();
                (product - w[at]).abs()
            });
            expected += 3.0 / done.len() as f64 * (f64::from(greatest.fold(0.0, f32::max)) - 1e-3).powi(2);
        }
        let found = loss(net.params_mut(), 1.0);
        assert!((found - expected).abs() < 1e-5 * expected, "{found} {expected}");
        let gradients: Vec<Vec<f32>> = net.params().iter().map(|param| param.grad.clone()).collect();
        let mut checked = 0;
        for (index, gradient) in gradients.iter().enumerate() {
            let Some(place) = gradient.iter().position(|x| x.abs() > 1e-3) else { continue };
            let mut at = |by: f32| {
                net.params_mut()[index].value[place] += by;
                let found = loss(net.params_mut(), 0.0);
                net.params_mut()[index].value[place] -= by;
                found
            };
            let slope = (at(1e-3) - at(-1e-3)) / 2e-3;
            assert!(
                (slope - f64::from(gradient[place])).abs() < 0.02 * slope.abs() + 1e-4,
                "{index}: {slope} {}",
                gradient[place]
            );
            checked += 1;
        }
        assert!(checked >= 14, "{checked}");
        let whole = Net::from_model(&model(), Default::default()).expect("a network");
        assert!(deviation(&whole, &model(), 1.0, 1e-3).is_err());
    }
}
