//! Softmax along the last dimension: `dx = p ⊙ (dp − Σ p ⊙ dp)`.

use candle_core::Tensor;
use ounce_kernels::softmax as kernel;

use super::{Kernels, last, node, read, tensor};
use crate::Result;

/// The softmax of every row.
///
/// # Errors
/// If `x` is not f32.
pub fn softmax(on: Kernels, x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let width = last(&x);
    let mut out = read([&x], |[x]| x.to_vec())?;
    on.pool.split_chunks(&mut out, width, |_, row| kernel::softmax(row));
    Ok(node("softmax", &[&x], out, x.shape(), move |behind| {
        let dx = read([behind.result, &behind.gradient], |[p, dp]| {
            let mut dx = dp.to_vec();
            on.pool.split_chunks(&mut dx, width, |row, dx| {
                let p = &p[row * width..][..width];
                let mean: f32 = dx.iter().zip(p).map(|(d, p)| d * p).sum();
                dx.iter_mut().zip(p).for_each(|(d, p)| *d = p * (*d - mean));
            });
            dx
        })?;
        Ok(vec![Some(tensor(dx, behind.result.shape())?)])
    })?)
}
