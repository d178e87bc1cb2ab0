//! The rows of a pass, each with what its own adapter adds.

use std::sync::Arc;

use ounce_kernels::matmul::{add_scaled, dot};
use ounce_kernels::pool::Pool;
use ounce_kernels::vector::add;
use ounce_model::spec::{Activation, Attention};
use smallvec::SmallVec;

use super::Adapter;
use crate::feed_forward::activate;

/// Rows that a thread takes at a time.
const ROWS: usize = 4;

/// What is added to the results of a layer or half: through a narrow place, from what it was given or from the results.
#[derive(Debug)]
pub(super) struct Delta {
    output: usize,
    input: usize,
    /// `[inner, input]`
    reduce: Vec<f32>,
    /// `[inner, output]`, with the factor in it.
    expand: Vec<f32>,
    /// Of both sides, `[inner]` and `[output]`, with what stands between; a product of matrices has none.
    between: Option<([Vec<f32>; 2], Activation)>,
    /// Whether it sees the results; else what led to them.
    behind: bool,
}

impl Delta {
    pub fn product(output: usize, input: usize, reduce: Vec<f32>, expand: Vec<f32>) -> Delta {
        Delta { output, input, reduce, expand, between: None, behind: false }
    }

    pub fn network(
        output: usize,
        reduce: Vec<f32>,
        expand: Vec<f32>,
        bias: [Vec<f32>; 2],
        activation: Activation,
        beside: bool,
    ) -> Delta {
        let between = Some((bias, activation));
        Delta { output, input: output, reduce, expand, between, behind: !beside }
    }

    /// How many numbers it has.
    pub fn values(&self) -> usize {
        let biases = self.between.as_ref().map_or(0, |it| it.0.iter().map(Vec::len).sum());
        self.reduce.len() + self.expand.len() + biases
    }

    /// Adds to a row's results; `x` is what the layer or half was given for it.
    pub fn add(&self, x: &[f32], y: &mut [f32], inner: &mut SmallVec<[f32; 64]>) {
        inner.clear();
        let seen = if self.behind { &*y } else { x };
        inner.extend(self.reduce.chunks_exact(self.input).map(|a| dot(a, seen)));
        if let Some(([bias, _], activation)) = &self.between {
            add(inner, bias);
            activate(*activation, inner);
        }
        for (value, b) in inner.iter().zip(self.expand.chunks_exact(self.output)) {
            add_scaled(*value, b, y);
        }
        if let Some(([_, bias], _)) = &self.between {
            add(y, bias);
        }
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

    /// Does something to each row that has an adapter for which `wants` holds: `rows` are `width` values each.
    fn each<'b>(
        &'b self,
        rows: &mut [f32],
        width: usize,
        wants: impl Fn(&Adapter) -> bool,
        then: impl Fn(&'b Adapter, usize, &mut [f32], &mut SmallVec<[f32; 64]>) + Sync,
    ) {
        let mut ends: SmallVec<[(usize, Option<&Adapter>); 16]> = SmallVec::new();
        let mut end = 0;
        for (count, adapter) in &self.parts {
            end += count;
            ends.push((end, adapter.as_deref().filter(|it| wants(it))));
        }
        if ends.iter().all(|it| it.1.is_none()) {
            return;
        }
        Pool::global().split_chunks(rows, ROWS * width, |task, rows| {
            let mut between = SmallVec::new();
            for (index, row) in rows.chunks_exact_mut(width).enumerate() {
                let at = task * ROWS + index;
                if let Some((_, Some(adapter))) = ends.get(ends.partition_point(|it| it.0 <= at)) {
                    then(adapter, at, row, &mut between);
                }
            }
        });
    }

    /// Sends embedded rows, `[rows, width]`, through what is around the layers.
    pub(crate) fn enter(&self, rows: &mut [f32], width: usize) {
        self.each(
            rows,
            width,
            |it| !it.around.is_empty(),
            |adapter, _, row, between| adapter.around.iter().for_each(|it| it.enter(row, between)),
        );
    }

    /// Sends what the last norm gave back through it.
    pub(crate) fn leave(&self, rows: &mut [f32], width: usize) {
        self.each(
            rows,
            width,
            |it| !it.around.is_empty(),
            |adapter, _, row, between| adapter.around.iter().rev().for_each(|it| it.leave(row, between)),
        );
    }

    /// Adds what a layer's queries, `[rows, heads · head size]`, find in the keys and values of adapters.
    pub(crate) fn look(&self, layer: usize, shape: &Attention, queries: &[f32], mixed: &mut [f32]) {
        let width = shape.query_width();
        self.each(
            mixed,
            width,
            |it| it.looks.contains_key(&layer),
            |adapter, at, row, between| {
                if let Some(look) = adapter.looks.get(&layer) {
                    look.add(shape, &queries[at * width..(at + 1) * width], row, between);
                }
            },
        );
    }

    /// Adds what the rows' adapters add to the results of a layer or half, `y` for `x`; gives the bytes that were read and the operations.
    pub(crate) fn add(&self, name: &str, x: &[f32], y: &mut [f32]) -> (usize, usize) {
        let mut deltas: SmallVec<[(usize, &[Delta]); 16]> = SmallVec::new();
        let mut end = 0;
        for (rows, adapter) in &self.parts {
            end += rows;
            let own = adapter.as_ref().and_then(|it| it.deltas.get(name));
            deltas.push((end, own.map_or(&[], Vec::as_slice)));
        }
        let Some(any) = deltas.iter().find_map(|it| it.1.first()) else { return (0, 0) };
        let output = any.output;
        let input = x.len() / (y.len() / output).max(1);
        Pool::global().split_chunks(y, ROWS * output, |task, y| {
            let mut inner: SmallVec<[f32; 64]> = SmallVec::new();
            for (index, y) in y.chunks_exact_mut(output).enumerate() {
                let row = task * ROWS + index;
                let at = deltas.partition_point(|it| it.0 <= row);
                for delta in deltas.get(at).map_or(&[][..], |it| it.1) {
                    delta.add(&x[row * input..(row + 1) * input], y, &mut inner);
                }
            }
        });
        let mut start = 0;
        let (mut bytes, mut operations) = (0, 0);
        for (end, deltas) in &deltas {
            let values: usize = deltas.iter().map(Delta::values).sum();
            bytes += values * size_of::<f32>();
            operations += 2 * values * (end - start);
            start = *end;
        }
        (bytes, operations)
    }
}
