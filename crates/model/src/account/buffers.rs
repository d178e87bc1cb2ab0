//! Memory of forward passes besides weights and cache: the buffers that the engine takes and gives back, in its order. A
//! buffer is used again by the next piece of work that it is large enough for, so the sum is found by going through a pass.

use ounce_kernels::packed::{Form, PackedMatrix};

use super::pass::{Held, Matrix, Pass, Place, Work, pieces};
use crate::Result;
use crate::spec::{Experts, FeedForwardKind, Layer, Mlp, Residual, Spec};

/// Bytes of an activation.
const ACTIVATION: usize = 4;

/// Buffers as the engine keeps them: the tightest free one is taken.
#[derive(Debug, Default)]
struct Buffers {
    free: Vec<usize>,
    held: usize,
}

impl Buffers {
    fn take(&mut self, len: usize) -> usize {
        let fitting = self.free.iter().enumerate().rev().filter(|(_, capacity)| **capacity >= len);
        match fitting.min_by_key(|(_, capacity)| **capacity) {
            Some((index, _)) => self.free.swap_remove(index),
            None => {
                self.held += len;
                len
            }
        }
    }

    fn give(&mut self, capacity: usize) {
        if capacity > 0 {
            self.free.push(capacity);
        }
    }

    fn mlp(&mut self, mlp: &Mlp, vectors: usize, hidden: usize) -> usize {
        let inner = self.take(vectors * mlp.width);
        if mlp.gated {
            let up = self.take(vectors * mlp.width);
            self.give(up);
        }
        let out = self.take(vectors * hidden);
        self.give(inner);
        out
    }

    /// Experts get equal shares of the vectors.
    fn experts(&mut self, experts: &Experts, vectors: usize, hidden: usize) -> usize {
        let out = self.take(vectors * hidden);
        let scores = self.take(vectors * experts.count);
        let takers = (vectors * experts.used).div_ceil(experts.count.max(1));
        for _ in 0..experts.count.min(vectors * experts.used) {
            let results = self.mlp(&experts.expert, takers, hidden);
            self.give(results);
        }
        self.give(scores);
        if let Some(shared) = &experts.shared {
            let results = self.mlp(shared, vectors, hidden);
            let gates = if experts.shared_gate { self.take(vectors) } else { 0 };
            self.give(results);
            self.give(gates);
        }
        out
    }

    fn layer(&mut self, layer: &Layer, vectors: usize, hidden: usize) {
        let stream = vectors * hidden;
        let mut beside = (layer.residual == Residual::Parallel).then(|| self.take(stream));
        if let Some(attention) = &layer.attention {
            let input = self.take(stream);
            let (query, kv) = (vectors * attention.query_width(), vectors * attention.kv_width());
            let [queries, keys, values] = [query, kv, kv].map(|len| self.take(len));
            let mixed = self.take(query);
            [queries, keys, values].into_iter().for_each(|buffer| self.give(buffer));
            let out = self.take(stream);
            [mixed, out].into_iter().for_each(|buffer| self.give(buffer));
            if layer.residual == Residual::ParallelSharedNorm {
                beside = Some(input);
            } else {
                self.give(input);
            }
        }
        if let Some(feed_forward) = &layer.feed_forward {
            let input = beside.unwrap_or_else(|| self.take(stream));
            let branch = match &feed_forward.kind {
                FeedForwardKind::Dense(mlp) => self.mlp(mlp, vectors, hidden),
                FeedForwardKind::Experts(experts) => self.experts(experts, vectors, hidden),
            };
            self.give(branch);
            self.give(input);
        }
    }

    /// The engine's pass, up to the hidden states.
    fn hidden(&mut self, spec: &Spec, vectors: usize) -> usize {
        let mut x = self.take(vectors * spec.embedding_width());
        if spec.embedding.projected_from.is_some() {
            let stream = self.take(vectors * spec.hidden_size);
            self.give(x);
            x = stream;
        }
        for layer in &spec.layers {
            self.layer(layer, vectors, spec.hidden_size);
        }
        x
    }

    fn head(&mut self, spec: &Spec, vectors: usize) {
        let Some(head) = spec.head.as_ref().filter(|_| vectors > 0) else { return };
        let dense = head.transform.map(|_| self.take(vectors * spec.embedding_width()));
        let logits = self.take(vectors * spec.vocab_size);
        dense.into_iter().for_each(|dense| self.give(dense));
        self.give(logits);
    }
}

/// Bytes of the buffers that passes one after the other leave behind: activations, logits, and activations in the forms that
/// the kernels take.
///
/// # Errors
/// If a weight has no format.
pub fn bytes(spec: &Spec, passes: &[Pass], held: &Held<'_>) -> Result<u64> {
    let mut buffers = Buffers::default();
    let mut forms: u64 = 0;
    for pass in passes {
        let hidden = buffers.hidden(spec, pass.vectors());
        buffers.head(spec, pass.logits);
        buffers.give(hidden);
        forms = forms.max(form_bytes(spec, *pass, held)?);
    }
    Ok((buffers.held * ACTIVATION) as u64 + forms)
}

/// Bytes of the largest activations in the form that their matrix's kernel takes.
fn form_bytes(spec: &Spec, pass: Pass, held: &Held<'_>) -> Result<u64> {
    let mut most = 0;
    for piece in pieces(spec, pass) {
        let Work::Product { matrices, vectors, .. } = &piece.work else { continue };
        for matrix in matrices {
            let place = held.place(spec, matrix)?;
            most = most.max(prepared_bytes(&place, matrix, vectors.ceil() as usize));
        }
    }
    Ok(most)
}

/// Bytes of vectors in the form in which a matrix's kernel takes them; none for a matrix that is not packed.
fn prepared_bytes(place: &Place, matrix: &Matrix, vectors: usize) -> u64 {
    let form = PackedMatrix::form_of(place.dtype).filter(|_| place.packed);
    form.map_or(0, |form: Form| form.bytes(vectors, matrix.columns) as u64)
}
