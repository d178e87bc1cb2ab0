//! Linear layers with a change beside them, and with coefficients on what they are given, as slots of the general network.

use std::sync::Arc;

use candle_core::Tensor;
use ounce_train::Result;
use ounce_train::graph::ops::{node, read, tensor};
use ounce_train::graph::{Linear, Slot, Weight};

/// The matrix with values added at these places. Backward the matrix gets the whole gradient, each value that of its place.
///
/// # Errors
/// If there are not as many values as places.
pub(super) fn scattered(matrix: &Tensor, values: &Tensor, places: &Arc<[u32]>) -> Result<Tensor> {
    let (matrix, values) = (matrix.contiguous()?, values.contiguous()?);
    let out = read([&matrix, &values], |[matrix, values]| {
        let mut out = matrix.to_vec();
        places.iter().zip(values).for_each(|(place, value)| out[*place as usize] += value);
        out
    })?;
    let (places, shape) = (places.clone(), values.shape().clone());
    Ok(node("scattered", &[&matrix, &values], out, matrix.shape(), move |behind| {
        let own: Vec<f32> = read([&behind.gradient], |[gradient]| {
            places.iter().map(|place| gradient[*place as usize]).collect()
        })?;
        let of_matrix = behind.wanted[0].then(|| behind.gradient.clone());
        Ok(vec![of_matrix, Some(tensor(own, &shape)?)])
    })?)
}

/// What is added to a matrix.
pub(super) struct Change {
    /// U `[out, r]` and V `[r, in]`.
    pub low_rank: [Weight; 2],
    /// The free entries, and where they are; none if there are none.
    pub sparse: Option<(Weight, Arc<[u32]>)>,
    /// α.
    pub scale: f64,
}

/// `y = (W ⊙ S₁ + α (U V + S₂)) (c ⊙ x) + bias`.
pub(super) struct DseeSlot {
    pub linear: Linear,
    /// `W ⊙ S₁`, frozen.
    pub base: Tensor,
    pub change: Option<Change>,
    /// Coefficients, each on as many neighbouring numbers of the input.
    pub coefficients: Option<Weight>,
}

impl DseeSlot {
    fn matrix(&self) -> Result<Tensor> {
        let Some(Change { low_rank: [u, v], sparse, scale }) = &self.change else {
            return Ok(self.base.clone());
        };
        let mut change = u.tensor()?.matmul(&v.tensor()?)?;
        if let Some((values, places)) = sparse {
            change = scattered(&change, &values.tensor()?, places)?;
        }
        Ok((&self.base + (change * *scale)?)?)
    }

    /// The coefficient of each number of the input.
    fn spread(&self) -> Result<Option<Tensor>> {
        let Some(weight) = &self.coefficients else { return Ok(None) };
        let count = weight.shape()[0];
        let each = weight.tensor()?.unsqueeze(1)?.broadcast_as((count, self.linear.input / count))?;
        Ok(Some(each.contiguous()?.flatten_all()?))
    }
}

impl Slot for DseeSlot {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = match self.spread()? {
            Some(spread) => x.broadcast_mul(&spread)?,
            None => x.clone(),
        };
        self.linear.with_matrix(&x, self.matrix()?)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.linear.vars();
        if let Some(change) = &self.change {
            weights.extend(change.low_rank.iter().cloned());
            weights.extend(change.sparse.iter().map(|it| it.0.clone()));
        }
        weights.extend(self.coefficients.clone());
        weights
    }

    fn merged(&self) -> Result<Option<Tensor>> {
        let matrix = self.matrix()?;
        Ok(Some(match self.spread()? {
            Some(spread) => matrix.broadcast_mul(&spread)?,
            None => matrix,
        }))
    }
}
