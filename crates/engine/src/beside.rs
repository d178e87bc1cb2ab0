//! Low-rank changes beside frozen weights, chosen by sequence: `y = W x + s B (A x)`.
//!
//! An [`Adapter`] is a set of such changes for the layers of one engine (LoRA, arXiv 2106.09685, equation 3). Every sequence of a batch
//! may have another one, or none: the frozen weights are read once for all, then each row gets what its own adapter adds. A row is computed
//! by itself, so that a sequence gets in a batch what it gets alone.

use std::collections::HashMap;
use std::sync::Arc;

use ounce_kernels::matmul::{add_scaled, dot};
use ounce_kernels::pool::Pool;
use smallvec::SmallVec;

use crate::engine::Engine;
use crate::error::{Error, Result};

/// Rows that a thread takes at a time.
const ROWS: usize = 4;

/// A change of one linear layer.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// The layer, as ounce calls its weight, without `.weight`: `layers.0.attention.query`.
    pub name: String,
    /// The width between both matrices.
    pub rank: usize,
    /// `A`, `[rank, in]`.
    pub reduce: Vec<f32>,
    /// `B`, `[out, rank]`.
    pub expand: Vec<f32>,
    /// The factor `s` on their product.
    pub scale: f32,
}

/// Changes of an engine's layers, to be used by any number of its sequences.
#[derive(Debug)]
pub struct Adapter {
    engine: u64,
    deltas: HashMap<String, Delta>,
}

#[derive(Debug)]
struct Delta {
    output: usize,
    input: usize,
    /// `[rank, in]`
    reduce: Vec<f32>,
    /// `[rank, out]`, with the factor in it: a row of it is added for each value between the matrices.
    expand: Vec<f32>,
}

impl Adapter {
    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let values = |it: &Delta| it.reduce.len() + it.expand.len();
        self.deltas.values().map(values).sum::<usize>() * size_of::<f32>()
    }

    /// Whether it was made for this engine.
    pub(crate) fn is_of(&self, engine: &Engine) -> bool {
        self.engine == engine.id()
    }
}

impl Engine {
    /// An adapter for this engine's layers.
    ///
    /// # Errors
    /// If a change is of no linear layer of the model's attention or feed-forward parts, has other sides than it, comes twice, or is no number.
    pub fn adapter(&self, changes: Vec<LowRank>) -> Result<Arc<Adapter>> {
        let shapes: HashMap<String, Vec<usize>> =
            self.spec().tensors().into_iter().map(|it| (it.name, it.shape)).collect();
        let mut deltas = HashMap::new();
        for LowRank { name, rank, reduce, mut expand, scale } in changes {
            let wrong = |what: String| Error::Unsuitable(format!("the adapter's change of {name} {what}"));
            // Experts are given a part of the rows, and the head those that are wanted.
            let outside =
                !name.starts_with("layers.") || name.contains(".experts.") || name.contains(".router");
            let shape = shapes.get(&format!("{name}.weight")).filter(|it| it.len() == 2 && !outside);
            let Some(&[output, input]) = shape.map(Vec::as_slice) else {
                return Err(wrong("can't be run beside the weights; merge it (ounce merge)".into()));
            };
            if rank == 0 || reduce.len() != rank * input || expand.len() != output * rank {
                return Err(wrong(format!(
                    "has {} and {} values at rank {rank}; a layer of {output} × {input} has {} and {}",
                    reduce.len(),
                    expand.len(),
                    rank * input,
                    output * rank
                )));
            }
            if !scale.is_finite() || !reduce.iter().chain(&expand).all(|it| it.is_finite()) {
                return Err(wrong("has values that are no numbers".into()));
            }
            expand = (0..rank * output).map(|at| scale * expand[at % output * rank + at / output]).collect();
            let delta = Delta { output, input, reduce, expand };
            if deltas.insert(name.clone(), delta).is_some() {
                return Err(wrong("comes twice".into()));
            }
        }
        Ok(Arc::new(Adapter { engine: self.id(), deltas }))
    }
}

/// Which rows of a pass have which adapter.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    parts: Vec<(usize, Option<Arc<Adapter>>)>,
}

impl Beside {
    /// Takes note of a pass: rows of each sequence, and its adapter.
    pub(crate) fn set<'a>(&mut self, parts: impl Iterator<Item = (usize, Option<&'a Arc<Adapter>>)>) {
        self.parts.clear();
        self.parts.extend(parts.map(|(rows, adapter)| (rows, adapter.cloned())));
        if self.parts.iter().all(|it| it.1.is_none()) {
            self.parts.clear();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.parts.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Adds what the rows' adapters add to a linear layer's outputs, `y` for `x`; gives the bytes that were read and the operations.
    pub(crate) fn add(&self, name: &str, x: &[f32], y: &mut [f32]) -> (usize, usize) {
        let mut deltas: SmallVec<[(usize, Option<&Delta>); 16]> = SmallVec::new();
        let mut end = 0;
        for (rows, adapter) in &self.parts {
            end += rows;
            deltas.push((end, adapter.as_ref().and_then(|it| it.deltas.get(name))));
        }
        let Some(any) = deltas.iter().find_map(|it| it.1) else { return (0, 0) };
        let (input, output) = (any.input, any.output);
        Pool::global().split_chunks(y, ROWS * output, |task, y| {
            let mut between: SmallVec<[f32; 64]> = SmallVec::new();
            for (index, y) in y.chunks_exact_mut(output).enumerate() {
                let row = task * ROWS + index;
                let at = deltas.partition_point(|it| it.0 <= row);
                let Some(delta) = deltas.get(at).and_then(|it| it.1) else { continue };
                let x = &x[row * input..(row + 1) * input];
                between.clear();
                between.extend(delta.reduce.chunks_exact(input).map(|a| dot(a, x)));
                for (value, b) in between.iter().zip(delta.expand.chunks_exact(output)) {
                    add_scaled(*value, b, y);
                }
            }
        });
        let mut start = 0;
        let (mut bytes, mut operations) = (0, 0);
        for (end, delta) in &deltas {
            let values = delta.map_or(0, |it| it.reduce.len() + it.expand.len());
            bytes += values * size_of::<f32>();
            operations += 2 * values * (end - start);
            start = *end;
        }
        (bytes, operations)
    }
}
