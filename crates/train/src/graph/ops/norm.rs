//! RMSNorm and LayerNorm along the last dimension.

use candle_core::Tensor;
use ounce_kernels::grad::norm::{layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};
use ounce_model::spec::{Norm, NormKind};

use super::{Kernels, check_last, node, read, tensor};
use crate::Result;

/// The norm that `spec` says of every row of `x`; `weight` and `bias` are `[width]`. RMSNorm has no bias.
///
/// # Errors
/// If the shapes do not fit each other.
pub fn norm(on: Kernels, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, spec: &Norm) -> Result<Tensor> {
    match spec.kind {
        NormKind::Rms => rms(on, x, weight, spec),
        NormKind::Layer => layer(on, x, weight, bias, spec),
    }
}

/// What is added to the stored weight.
fn offset(spec: &Norm) -> f32 {
    if spec.plus_one { 1.0 } else { 0.0 }
}

fn rms(on: Kernels, x: &Tensor, weight: &Tensor, spec: &Norm) -> Result<Tensor> {
    let width = weight.dims1()?;
    check_last("norm", x, width)?;
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let (offset, eps) = (offset(spec), spec.eps);
    let mut out = vec![0.0; x.elem_count()];
    let mut inverse = vec![0.0; x.elem_count() / width];
    read([&x, &weight], |[x, weight]| {
        rms_norm(on.pool, x, width, weight, offset, eps, &mut out, &mut inverse);
    })?;
    let (own, factors) = (x.clone(), weight.clone());
    Ok(node("rms_norm", &[&x, &weight], out, x.shape(), move |behind| {
        let (mut dx, mut dw) = (vec![0.0; own.elem_count()], vec![0.0; width]);
        read([&own, &factors, &behind.gradient], |[x, weight, dy]| {
            let dw = behind.wanted[1].then_some(dw.as_mut_slice());
            rms_norm_backward(on.pool, x, width, weight, offset, &inverse, dy, &mut dx, dw);
        })?;
        Ok(vec![Some(tensor(dx, own.shape())?), Some(tensor(dw, width)?)])
    })?)
}

fn layer(on: Kernels, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, spec: &Norm) -> Result<Tensor> {
    let width = weight.dims1()?;
    check_last("norm", x, width)?;
    if let Some(bias) = bias {
        check_last("norm's bias", bias, width)?;
    }
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let bias = bias.map(Tensor::contiguous).transpose()?;
    let (offset, eps) = (offset(spec), spec.eps);
    let rows = x.elem_count() / width;
    let (mut out, mut mean, mut inverse) = (vec![0.0; x.elem_count()], vec![0.0; rows], vec![0.0; rows]);
    // Without a bias the weight stands in for it among what is read, unused.
    read([&x, &weight, bias.as_ref().unwrap_or(&weight)], |[x, weight, values]| {
        let values = bias.is_some().then_some(values);
        layer_norm(on.pool, x, width, weight, offset, values, eps, &mut out, &mut mean, &mut inverse);
    })?;
    let inputs: Vec<&Tensor> = [Some(&x), Some(&weight), bias.as_ref()].into_iter().flatten().collect();
    let (own, factors, biased) = (x.clone(), weight.clone(), bias.is_some());
    Ok(node("layer_norm", &inputs, out, x.shape(), move |behind| {
        let mut dx = vec![0.0; own.elem_count()];
        let (mut dw, mut db) = (vec![0.0; width], vec![0.0; width]);
        read([&own, &factors, &behind.gradient], |[x, weight, dy]| {
            let dw = behind.wanted[1].then_some(dw.as_mut_slice());
            let db = behind.wanted[2].then_some(db.as_mut_slice());
            layer_norm_backward(on.pool, x, width, weight, offset, &mean, &inverse, dy, &mut dx, dw, db);
        })?;
        let mut gradients = vec![Some(tensor(dx, own.shape())?), Some(tensor(dw, width)?)];
        if biased {
            gradients.push(Some(tensor(db, width)?));
        }
        Ok(gradients)
    })?)
}
