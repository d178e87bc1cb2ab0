//! Nonlinearities.

use candle_core::Tensor;
pub use ounce_kernels::grad::activation::Activation;
use ounce_kernels::grad::activation::{self as kernel, gated_backward, plain_backward};

use super::{Kernels, node, read, tensor};
use crate::{Error, Result};

/// `act(x)`.
///
/// # Errors
/// If `x` is not f32.
pub fn plain(on: Kernels, function: Activation, x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let mut out = vec![0.0; x.elem_count()];
    read([&x], |[x]| kernel::plain(on.pool, function, x, &mut out))?;
    let own = x.clone();
    Ok(node("activation", &[&x], out, x.shape(), move |behind| {
        let dx = read([&own, &behind.gradient], |[x, dy]| {
            let mut dx = x.to_vec();
            plain_backward(on.pool, function, &mut dx, dy);
            dx
        })?;
        Ok(vec![Some(tensor(dx, own.shape())?)])
    })?)
}

/// `act(gate) ⊙ up`.
///
/// # Errors
/// If the shapes differ.
pub fn gated(on: Kernels, function: Activation, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.shape() != up.shape() {
        let (gate, up) = (gate.dims(), up.dims());
        return Err(Error::Unsupported(format!("a gate of shape {gate:?} for values of shape {up:?}")));
    }
    let (gate, up) = (gate.contiguous()?, up.contiguous()?);
    let mut out = vec![0.0; up.elem_count()];
    read([&gate, &up], |[gate, up]| kernel::gated(on.pool, function, gate, up, &mut out))?;
    let kept = [gate.clone(), up.clone()];
    Ok(node("gated", &[&gate, &up], out, up.shape(), move |behind| {
        let [gate, up] = &kept;
        let (dgate, dup) = read([gate, up, &behind.gradient], |[gate, up, dy]| {
            let (mut dgate, mut dup) = (gate.to_vec(), up.to_vec());
            gated_backward(on.pool, function, &mut dgate, &mut dup, dy);
            (dgate, dup)
        })?;
        Ok(vec![Some(tensor(dgate, gate.shape())?), Some(tensor(dup, up.shape())?)])
    })?)
}
