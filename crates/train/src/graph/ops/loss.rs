//! Losses on logits. Their gradients are made together with their values, so nothing is computed twice.

use candle_core::Tensor;
use ounce_kernels::grad::bias::{add_bias, bias_backward};
use ounce_model::account::training::logit_rows;

use super::linear::add_weight_gradient;
use super::{Factor, Kernels, check_last, node, read, tensor};
use crate::loss::{Chunk, LogitLoss};
use crate::{Error, Result};

/// From rows to logits: `scale · (x · Wᵀ + b)`, with the cap that the loss applies.
#[derive(Debug, Clone)]
pub struct Head {
    /// `[vocabulary, hidden]`.
    pub matrix: Factor,
    /// `[vocabulary]`.
    pub bias: Option<Tensor>,
    /// Factor on the logits.
    pub scale: f32,
    /// `cap · tanh(logit / cap)`.
    pub softcap: Option<f32>,
}

fn check_targets(rows: usize, targets: &[u32], numbers: &[usize]) -> Result<()> {
    if targets.len() == rows && numbers.len() == rows {
        return Ok(());
    }
    Err(Error::Unsupported(format!("a loss of {rows} rows with {} targets", targets.len())))
}

/// The gradients of inputs times that of a loss; none where an input is not tracked.
fn times(gradients: &[Option<Tensor>], behind: &Tensor) -> candle_core::Result<Vec<Option<Tensor>>> {
    let factor = behind.to_scalar::<f32>()?;
    let times = |gradient: &Option<Tensor>| match gradient {
        Some(gradient) if factor != 1.0 => gradient.affine(f64::from(factor), 0.0).map(Some),
        gradient => Ok(gradient.clone()),
    };
    gradients.iter().map(times).collect()
}

/// The loss of rows `x` (`[rows, hidden]`) behind a head, as a scalar with its gradients and as a sum in f64. Logits
/// exist a chunk of rows at a time. `numbers` are the rows' numbers in the batch.
///
/// # Errors
/// If the shapes do not fit each other.
pub fn linear_loss(
    on: Kernels,
    x: &Tensor,
    head: &Head,
    targets: &[u32],
    numbers: &[usize],
    loss: &mut dyn LogitLoss,
) -> Result<(Tensor, f64)> {
    let (vocab, width) = head.matrix.size()?;
    check_last("loss", x, width)?;
    let rows = x.elem_count() / width;
    check_targets(rows, targets, numbers)?;
    let (x, matrix) = (x.contiguous()?, head.matrix.contiguous()?);
    let bias = head.bias.as_ref().map(Tensor::contiguous).transpose()?;
    let tracked = |tensor: Option<&Tensor>| tensor.is_some_and(Tensor::track_op);
    let [of_x, of_matrix, of_bias] = [Some(&x), matrix.dense(), bias.as_ref()].map(tracked);
    let gradient = of_x || of_matrix || of_bias;
    let mut dx = vec![0.0; if of_x { rows * width } else { 0 }];
    let mut dw = vec![0.0; if of_matrix { vocab * width } else { 0 }];
    let mut db = vec![0.0; if of_bias { vocab } else { 0 }];
    let step = logit_rows(vocab);
    let mut logits = vec![0.0; step.min(rows) * vocab];
    let mut sum = 0.0;
    if gradient && loss.looks_first() {
        look(on, &x, head, (targets, numbers), loss)?;
    }
    read([&x], |[x]| {
        for (index, numbers) in numbers.chunks(step).enumerate() {
            let own = index * step * width..(index * step + numbers.len()) * width;
            let logits = &mut logits[..numbers.len() * vocab];
            matrix.forward(on, (vocab, width), &x[own.clone()], logits)?;
            if let Some(bias) = &bias {
                read([bias], |[bias]| add_bias(on.pool, logits, bias))?;
            }
            scale(logits, head.scale);
            let targets = &targets[index * step..][..numbers.len()];
            let softcap = head.softcap;
            let chunk = Chunk { pool: on.pool, logits, width: vocab, targets, rows: numbers, softcap };
            sum += loss.chunk(chunk, gradient.then_some(1.0));
            if gradient {
                scale(logits, head.scale);
            }
            if of_bias {
                bias_backward(on.pool, logits, vocab, &mut db);
            }
            if of_matrix {
                add_weight_gradient(on, (vocab, width), &x[own.clone()], logits, &mut dw);
            }
            if of_x {
                matrix.backward(on, (vocab, width), logits, &mut dx[own])?;
            }
        }
        Ok::<_, candle_core::Error>(())
    })??;
    drop(logits);
    let mut gradients = vec![of_x.then(|| tensor(dx, x.shape())).transpose()?];
    if matrix.dense().is_some() {
        gradients.push(of_matrix.then(|| tensor(dw, (vocab, width))).transpose()?);
    }
    if bias.is_some() {
        gradients.push(of_bias.then(|| tensor(db, vocab)).transpose()?);
    }
    let inputs: Vec<&Tensor> = [Some(&x), matrix.dense(), bias.as_ref()].into_iter().flatten().collect();
    let value = node("linear_loss", &inputs, vec![sum as f32], (), move |behind| {
        times(&gradients, &behind.gradient)
    })?;
    Ok((value, sum))
}

/// Shows a loss all logits once, for one whose gradient hangs on them all.
fn look(
    on: Kernels,
    x: &Tensor,
    head: &Head,
    (targets, numbers): (&[u32], &[usize]),
    loss: &mut dyn LogitLoss,
) -> Result<()> {
    let still = Head {
        matrix: match &head.matrix {
            Factor::Dense(weight) => Factor::Dense(weight.detach()),
            stored => stored.clone(),
        },
        bias: head.bias.as_ref().map(Tensor::detach),
        ..*head
    };
    linear_loss(on, &x.detach(), &still, targets, numbers, loss)?;
    Ok(())
}

/// The loss of logits that are there, `[rows, vocabulary]`; their gradient is kept in the same size.
///
/// # Errors
/// If the shapes do not fit each other.
pub fn logit_loss(
    on: Kernels,
    logits: &Tensor,
    softcap: Option<f32>,
    targets: &[u32],
    numbers: &[usize],
    loss: &mut dyn LogitLoss,
) -> Result<(Tensor, f64)> {
    let (rows, width) = logits.dims2()?;
    check_targets(rows, targets, numbers)?;
    let logits = logits.contiguous()?;
    let mut values = read([&logits], |[logits]| logits.to_vec())?;
    let gradient = logits.track_op();
    if gradient && loss.looks_first() {
        let mut seen = values.clone();
        let chunk = Chunk { pool: on.pool, logits: &mut seen, width, targets, rows: numbers, softcap };
        loss.chunk(chunk, None);
    }
    let chunk = Chunk { pool: on.pool, logits: &mut values, width, targets, rows: numbers, softcap };
    let sum = loss.chunk(chunk, gradient.then_some(1.0));
    let gradients = [gradient.then(|| tensor(values, (rows, width))).transpose()?];
    let value = node("logit_loss", &[&logits], vec![sum as f32], (), move |behind| {
        times(&gradients, &behind.gradient)
    })?;
    Ok((value, sum))
}

/// The factor on logits, and on their gradients.
fn scale(logits: &mut [f32], factor: f32) {
    if factor != 1.0 {
        logits.iter_mut().for_each(|logit| *logit *= factor);
    }
}
