//! From token ids to the residual stream and back: gathered rows forward, added rows backward.

use ounce_kernels::grad::embedding::{gather, scatter_add};
use ounce_kernels::pool::Pool;
use ounce_model::Tensor;
use ounce_model::spec::{Positions, Spec};

use super::build::Builder;
use super::context::Context;
use super::linear::Linear;
use super::norm::{Norm, Stats};
use crate::{Batch, Error, Result};

/// Where the token vectors are.
#[derive(Debug)]
pub(crate) enum Table {
    /// Among the parameters.
    Param(usize),
    /// Frozen, in the format in which they were stored: a large vocabulary need not be decoded as a whole.
    Stored(Tensor),
}

/// Token vectors, what is added to them, and their norm.
#[derive(Debug)]
pub(crate) struct Embedding {
    tokens: Table,
    positions: Option<(usize, Positions)>,
    types: Option<usize>,
    norm: Option<Norm>,
    /// From the tables' width to the stream's, where they differ.
    projection: Option<Linear>,
    scale: f32,
    width: usize,
    /// Factor on the gradient that reaches the tables: GEB's guard against spikes shrinks it, 1 leaves it.
    pub gradient_scale: f32,
}

/// What a forward pass keeps: the sum before the norm, if there is one, and the input of the projection.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    norm: Option<(Vec<f32>, Stats)>,
    projected: Option<Vec<f32>>,
    positions: Vec<u32>,
}

impl Saved {
    pub fn release(self, cx: &mut Context<'_>) {
        if let Some((sum, stats)) = self.norm {
            cx.buffers.give(sum);
            stats.release(cx);
        }
        self.projected.into_iter().for_each(|input| cx.buffers.give(input));
    }
}

/// Refuses sequences longer than the table of positions and types outside theirs.
pub(crate) fn check_positions(batch: &Batch, positions: Option<Positions>, types: usize) -> Result<()> {
    let longest = batch.lengths.iter().copied().max().unwrap_or(0);
    if let Some(positions) = positions {
        let room = positions.count - positions.offset.min(positions.count);
        if longest > room {
            return Err(Error::Batch(format!(
                "a sequence of {longest} tokens is longer than the {room} positions that the model has; lower data.context"
            )));
        }
    }
    match batch.types.iter().find(|&&kind| kind as usize >= types) {
        Some(kind) => Err(Error::Batch(format!("token type {kind} is outside the model's {types} types"))),
        None => Ok(()),
    }
}

/// Rows of a stored table, `[ids, row]`, times a factor.
pub(crate) fn gather_stored(pool: &Pool, table: &Tensor, ids: &[u32], scale: f32, out: &mut [f32]) {
    pool.split_chunks(out, table.row_len(), |at, row| {
        // The builder saw that the format can be decoded.
        if table.decode_row(ids[at] as usize, row).is_err() {
            row.fill(f32::NAN);
        }
        row.iter_mut().for_each(|x| *x *= scale);
    });
}

impl Embedding {
    pub fn build(from: &mut Builder<'_>, spec: &Spec) -> Result<Embedding> {
        let embedding = &spec.embedding;
        let positions = from.optional("embed.positions.weight", embedding.positions.is_some())?;
        Ok(Embedding {
            tokens: from.table("embed.tokens.weight")?,
            positions: positions.zip(embedding.positions),
            types: from.optional("embed.types.weight", embedding.token_types > 0)?,
            norm: Norm::build(from, "embed.norm", embedding.norm)?,
            projection: match embedding.projected_from {
                Some(_) => Some(from.linear("embed.projection", true)?),
                None => None,
            },
            scale: embedding.scale,
            width: spec.embedding_width(),
            gradient_scale: 1.0,
        })
    }

    /// As [`check_positions`].
    pub fn check(&self, batch: &Batch, params: &[crate::Param]) -> Result<()> {
        let types = self.types.map_or(1, |types| params[types].shape[0]);
        check_positions(batch, self.positions.map(|(_, positions)| positions), types)
    }

    /// The residual stream `[tokens, hidden]`.
    pub fn forward(&self, batch: &Batch, cx: &mut Context<'_>) -> (Vec<f32>, Saved) {
        let mut x = cx.buffers.take(batch.tokens.len() * self.width);
        match &self.tokens {
            Table::Param(index) => {
                gather(cx.pool, &cx.params[*index].value, self.width, &batch.tokens, self.scale, &mut x);
            }
            Table::Stored(table) => gather_stored(cx.pool, table, &batch.tokens, self.scale, &mut x),
        }
        let mut saved = Saved::default();
        let mut add_rows = |table: usize, ids: &[u32], cx: &mut Context<'_>| {
            let mut rows = cx.buffers.take(x.len());
            gather(cx.pool, &cx.params[table].value, self.width, ids, 1.0, &mut rows);
            cx.add(1.0, &rows, &mut x);
            cx.buffers.give(rows);
        };
        if let Some(table) = self.types {
            match batch.types.is_empty() {
                true => add_rows(table, &vec![0; batch.tokens.len()], cx),
                false => add_rows(table, &batch.types, cx),
            }
        }
        if let Some((table, positions)) = self.positions {
            let ids = batch.lengths.iter().flat_map(|&length| 0..length);
            saved.positions = ids.map(|position| (position + positions.offset) as u32).collect();
            add_rows(table, &saved.positions, cx);
        }
        if let Some(norm) = &self.norm {
            let (normed, stats) = norm.forward(&x, cx);
            saved.norm = Some((std::mem::replace(&mut x, normed), stats));
        }
        if let Some(projection) = &self.projection {
            let stream = projection.apply(&x, cx);
            saved.projected = Some(std::mem::replace(&mut x, stream));
        }
        (x, saved)
    }

    /// Adds the gradient of the stream to those of the tables.
    pub fn backward(&self, batch: &Batch, saved: Saved, mut d: Vec<f32>, cx: &mut Context<'_>) {
        if let (Some(projection), Some(input)) = (&self.projection, saved.projected) {
            projection.backward_weights(&input, &d, cx);
            let mut dinput = cx.buffers.take(input.len());
            projection.backward_input(&d, &mut dinput, false, cx);
            cx.buffers.give(std::mem::replace(&mut d, dinput));
            cx.buffers.give(input);
        }
        if let (Some(norm), Some((sum, stats))) = (&self.norm, saved.norm) {
            let mut dsum = cx.zeros(d.len());
            norm.backward(&sum, &stats, &d, &mut dsum, cx);
            cx.buffers.give(std::mem::replace(&mut d, dsum));
            cx.buffers.give(sum);
            stats.release(cx);
        }
        let shrink = self.gradient_scale;
        let mut scatter = |table: usize, ids: &[u32], scale: f32| {
            let param = &mut cx.params[table];
            if param.is_trainable() {
                scatter_add(cx.pool, ids, self.width, scale * shrink, &d, &mut param.grad);
            }
        };
        if let Table::Param(tokens) = self.tokens {
            scatter(tokens, &batch.tokens, self.scale);
        }
        if let Some(table) = self.types {
            match batch.types.is_empty() {
                true => scatter(table, &vec![0; batch.tokens.len()], 1.0),
                false => scatter(table, &batch.types, 1.0),
            }
        }
        if let Some((table, _)) = self.positions {
            scatter(table, &saved.positions, 1.0);
        }
        cx.buffers.give(d);
    }
}
