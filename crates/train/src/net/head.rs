//! From the residual stream to the loss and back. Only rows with a target are computed, a chunk of them at a time: the
//! logits of a whole batch never exist.

use ounce_kernels::grad::activation::{Activation as Function, plain, plain_backward};
use ounce_model::account::training::logit_rows;
use ounce_model::spec::{Activation, Classifier, Scored, Spec};

use super::build::Builder;
use super::context::Context;
use super::feed_forward::function;
use super::linear::Linear;
use super::norm::{Norm, Stats};
use crate::loss::{Chunk, LogitLoss};
use crate::{Batch, IGNORE, Loss, Result};

/// Which rows of a batch have an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// Those with a target.
    Targets,
    /// The first of each sequence with a label.
    First,
    /// The last of each sequence with a label.
    Last,
    /// All, for spans.
    All,
}

impl Reads {
    /// The rows with an output, and the target of each.
    pub fn rows(self, batch: &Batch) -> (Vec<usize>, Vec<u32>) {
        let ends = batch.lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        let row = |(end, length): (usize, &usize)| if self == Reads::First { end - length } else { end - 1 };
        match self {
            Reads::Targets => {
                let targets = batch.targets.iter().copied().enumerate();
                targets.filter(|&(_, target)| target != IGNORE).unzip()
            }
            Reads::All => ((0..batch.tokens.len()).collect(), vec![0; batch.tokens.len()]),
            Reads::First | Reads::Last => {
                let rows = ends.zip(&batch.lengths).map(row).zip(batch.labels.iter().copied());
                rows.filter(|&(_, label)| label != IGNORE).unzip()
            }
        }
    }

    /// The name of a classifier's matrix, its rows, and the nonlinearity behind its dense layer, if it has one.
    pub fn of(classifier: Classifier) -> (&'static str, Reads, Option<Activation>) {
        match classifier.of {
            Scored::Text { last: false, dense } => ("classifier", Reads::First, dense),
            Scored::Text { last: true, dense } => ("classifier", Reads::Last, dense),
            Scored::Tokens => ("token_classifier", Reads::Targets, None),
            Scored::Spans => ("span_classifier", Reads::All, None),
        }
    }
}

/// The last norm and the output matrix, of a language model or a classifier.
#[derive(Debug)]
pub(crate) struct Head {
    final_norm: Option<Norm>,
    transform: Option<(Linear, Function, Option<Norm>)>,
    matrix: Linear,
    scale: f32,
    softcap: Option<f32>,
    reads: Reads,
    /// How many different targets there are: words or labels.
    pub outputs: usize,
}

/// The layer in front of a masked language model's matrix, as a forward pass leaves it.
struct Transformed {
    raw: Vec<f32>,
    active: Vec<f32>,
    stats: Option<Stats>,
}

impl Head {
    /// None for bare encoders.
    pub fn build(from: &mut Builder<'_>, spec: &Spec) -> Result<Option<Head>> {
        let final_norm = Norm::build(from, "final_norm", spec.final_norm)?;
        if let Some(classifier) = spec.classifier {
            return Head::classifier(from, final_norm, classifier).map(Some);
        }
        let Some(head) = &spec.head else { return Ok(None) };
        let transform = match head.transform {
            Some(spec) => {
                let dense = from.linear("head.dense", true)?;
                Some((dense, function(spec.activation), Norm::build(from, "head.norm", Some(spec.norm))?))
            }
            None => None,
        };
        let bias = from.optional("head.bias", head.bias)?;
        let name = if head.tied { "embed.tokens.weight" } else { "head.weight" };
        let matrix = from.linear_of(name, bias)?;
        let outputs = matrix.output;
        let (scale, softcap, reads) = (head.scale, head.softcap, Reads::Targets);
        Ok(Some(Head { final_norm, transform, matrix, scale, softcap, reads, outputs }))
    }

    fn classifier(from: &mut Builder<'_>, final_norm: Option<Norm>, classifier: Classifier) -> Result<Head> {
        let (name, reads, dense) = Reads::of(classifier);
        let transform = match dense {
            Some(activation) => Some((from.linear("classifier.dense", true)?, function(activation), None)),
            None => None,
        };
        let matrix = from.linear(name, classifier.bias)?;
        let outputs = classifier.labels;
        Ok(Head { final_norm, transform, matrix, scale: 1.0, softcap: None, reads, outputs })
    }

    /// Whether targets are labels, not words.
    pub fn is_span(&self) -> bool {
        self.reads == Reads::All
    }

    /// The loss of a batch, and, if `scale` is given, the gradient of the stream `x` times it; gives `x` back.
    pub fn run(
        &self,
        x: Vec<f32>,
        batch: &Batch,
        scale: Option<f32>,
        loss: &mut dyn LogitLoss,
        cx: &mut Context<'_>,
    ) -> (Loss, Option<Vec<f32>>) {
        let width = self.transform.as_ref().map_or(self.matrix.input, |(dense, ..)| dense.input);
        let (rows, targets) = self.reads.rows(batch);
        let all = rows.len() == batch.tokens.len();
        let picked = if all { x } else { pick(x, &rows, width, cx) };
        let (hidden, final_stats) = match &self.final_norm {
            Some(norm) => {
                let (normed, stats) = norm.forward(&picked, cx);
                (normed, Some(stats))
            }
            None => (cx.copy(&picked), None),
        };
        let (input, transformed) = self.transform(hidden, cx);
        let mut dinput = scale.map(|_| cx.buffers.take(input.len()));
        if scale.is_some() && loss.looks_first() {
            self.chunks(&input, &targets, &rows, None, None, loss, cx);
        }
        let sum = self.chunks(&input, &targets, &rows, scale, dinput.as_deref_mut(), loss, cx);
        let count = if self.is_span() { batch.counted() } else { rows.len() };
        let total = Loss { sum, count };
        let Some(dinput) = dinput else {
            if let Some(Transformed { raw, active, stats }) = transformed {
                [raw, active].into_iter().for_each(|buffer| cx.buffers.give(buffer));
                stats.into_iter().for_each(|stats| stats.release(cx));
            }
            [input, picked].into_iter().for_each(|buffer| cx.buffers.give(buffer));
            final_stats.into_iter().for_each(|stats| stats.release(cx));
            return (total, None);
        };
        cx.buffers.give(input);
        let dhidden = self.untransform(transformed, dinput, &picked, cx);
        let dpicked = match (&self.final_norm, final_stats) {
            (Some(norm), Some(stats)) => {
                let mut dpicked = cx.zeros(dhidden.len());
                norm.backward(&picked, &stats, &dhidden, &mut dpicked, cx);
                stats.release(cx);
                cx.buffers.give(dhidden);
                dpicked
            }
            _ => dhidden,
        };
        cx.buffers.give(picked);
        if all {
            return (total, Some(dpicked));
        }
        let mut dx = cx.zeros(batch.tokens.len() * width);
        for (&row, d) in rows.iter().zip(dpicked.chunks_exact(width)) {
            dx[row * width..(row + 1) * width].copy_from_slice(d);
        }
        cx.buffers.give(dpicked);
        (total, Some(dx))
    }

    /// Logits, loss and their gradients, a chunk of rows at a time.
    fn chunks(
        &self,
        input: &[f32],
        targets: &[u32],
        rows: &[usize],
        scale: Option<f32>,
        mut dinput: Option<&mut [f32]>,
        loss: &mut dyn LogitLoss,
        cx: &mut Context<'_>,
    ) -> f64 {
        let (width, vocab) = (self.matrix.input, self.matrix.output);
        let step = logit_rows(vocab);
        let mut logits = cx.buffers.take(step.min(rows.len()) * vocab);
        let mut sum = 0.0;
        for (index, rows) in rows.chunks(step).enumerate() {
            let own = index * step * width..(index * step + rows.len()) * width;
            let logits = &mut logits[..rows.len() * vocab];
            self.matrix.forward(&input[own.clone()], logits, false, cx);
            self.scale(logits);
            let targets = &targets[index * step..][..rows.len()];
            let softcap = self.softcap;
            let chunk = Chunk { pool: cx.pool, logits, width: vocab, targets, rows, softcap };
            sum += loss.chunk(chunk, scale);
            if let Some(dinput) = dinput.as_deref_mut() {
                self.scale(logits);
                self.matrix.backward_weights(&input[own.clone()], logits, cx);
                self.matrix.backward_input(logits, &mut dinput[own], false, cx);
            }
        }
        cx.buffers.give(logits);
        sum
    }

    /// The factor on logits, and on their gradients.
    fn scale(&self, logits: &mut [f32]) {
        if self.scale != 1.0 {
            logits.iter_mut().for_each(|logit| *logit *= self.scale);
        }
    }

    fn transform(&self, hidden: Vec<f32>, cx: &mut Context<'_>) -> (Vec<f32>, Option<Transformed>) {
        let Some((dense, function, norm)) = &self.transform else { return (hidden, None) };
        let raw = dense.apply(&hidden, cx);
        cx.buffers.give(hidden);
        let mut active = cx.buffers.take(raw.len());
        plain(cx.pool, *function, &raw, &mut active);
        match norm {
            Some(norm) => {
                let (out, stats) = norm.forward(&active, cx);
                (out, Some(Transformed { raw, active, stats: Some(stats) }))
            }
            None => (cx.copy(&active), Some(Transformed { raw, active, stats: None })),
        }
    }

    /// From the gradient of the matrix's input to that of what [`Head::transform`] was given.
    fn untransform(
        &self,
        transformed: Option<Transformed>,
        dinput: Vec<f32>,
        picked: &[f32],
        cx: &mut Context<'_>,
    ) -> Vec<f32> {
        let (Some((dense, function, norm)), Some(Transformed { mut raw, active, stats })) =
            (&self.transform, transformed)
        else {
            return dinput;
        };
        let dactive = match (norm, stats) {
            (Some(norm), Some(stats)) => {
                let mut dactive = cx.zeros(dinput.len());
                norm.backward(&active, &stats, &dinput, &mut dactive, cx);
                cx.buffers.give(dinput);
                stats.release(cx);
                dactive
            }
            _ => dinput,
        };
        plain_backward(cx.pool, *function, &mut raw, &dactive);
        cx.buffers.give(active);
        // The dense layer's input was given back; it is the normed stream, made again.
        let hidden = match &self.final_norm {
            Some(norm) => {
                let (hidden, stats) = norm.forward(picked, cx);
                stats.release(cx);
                hidden
            }
            None => cx.copy(picked),
        };
        dense.backward_weights(&hidden, &raw, cx);
        let mut dhidden = cx.buffers.take(hidden.len());
        dense.backward_input(&raw, &mut dhidden, false, cx);
        [raw, hidden, dactive].into_iter().for_each(|buffer| cx.buffers.give(buffer));
        dhidden
    }
}

/// The given rows of `x`, which is given back.
fn pick(x: Vec<f32>, rows: &[usize], width: usize, cx: &mut Context<'_>) -> Vec<f32> {
    let mut picked = cx.buffers.take(rows.len() * width);
    for (&row, out) in rows.iter().zip(picked.chunks_exact_mut(width)) {
        out.copy_from_slice(&x[row * width..(row + 1) * width]);
    }
    cx.buffers.give(x);
    picked
}
