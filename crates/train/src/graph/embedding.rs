//! From token ids to the residual stream.

use std::sync::Arc;

use candle_core::Tensor;
use ounce_model::spec::{Positions, Spec};

use super::build::{Builder, Place};
use super::hook::Hook;
use super::norm::{Norm, apply};
use super::ops::{self, Kernels};
use super::weight::Weight;
use crate::net::check_positions;
use crate::{Batch, Result};

/// Where the token vectors are.
enum Table {
    Weight(Weight),
    /// Frozen, in the format in which they were stored.
    Stored(ounce_model::Tensor),
}

/// Token vectors, what is added to them, and their norm.
pub(super) struct Embedding {
    on: Kernels,
    tokens: Table,
    positions: Option<(Weight, Positions)>,
    types: Option<Weight>,
    norm: Option<Norm>,
    /// From the tables' width to the stream's, where they differ.
    projection: Option<Place>,
    scale: f32,
    /// Factor on the gradient that reaches the tables.
    shrink: f32,
}

impl Embedding {
    pub fn build(from: &mut Builder<'_>, spec: &Spec, shrink: f32) -> Result<Embedding> {
        let embedding = &spec.embedding;
        let positions = from.optional("embed.positions.weight", embedding.positions.is_some())?;
        Ok(Embedding {
            on: from.on,
            tokens: match from.stored("embed.tokens.weight")? {
                Some(table) => Table::Stored(table),
                None => Table::Weight(from.weight("embed.tokens.weight")?),
            },
            positions: positions.zip(embedding.positions),
            types: from.optional("embed.types.weight", embedding.token_types > 0)?,
            norm: from.norm("embed.norm", embedding.norm)?,
            projection: match embedding.projected_from {
                Some(_) => Some(from.slot("embed.projection", true)?),
                None => None,
            },
            scale: embedding.scale,
            shrink,
        })
    }

    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.projection.iter()
    }

    /// The residual stream `[tokens, hidden]`.
    pub fn forward(&self, batch: &Batch, hook: &mut dyn Hook) -> Result<Tensor> {
        check_positions(
            batch,
            self.positions.as_ref().map(|it| it.1),
            self.types.as_ref().map_or(1, |it| it.shape()[0]),
        )?;
        let rows = |table: &Weight, ids: Arc<[u32]>, scale: f32| {
            ops::gather(self.on, &table.tensor()?, &ids, scale, self.shrink)
        };
        let tokens = match &self.tokens {
            Table::Weight(table) => rows(table, batch.tokens.as_slice().into(), self.scale)?,
            Table::Stored(table) => {
                let mut x = vec![0.0; batch.tokens.len() * table.row_len()];
                crate::net::gather_stored(self.on.pool, table, &batch.tokens, self.scale, &mut x);
                ops::tensor(x, (batch.tokens.len(), table.row_len()))?
            }
        };
        let mut x = hook.embedded(tokens)?;
        if let Some(table) = &self.types {
            let types = match batch.types.is_empty() {
                true => vec![0; batch.tokens.len()].into(),
                false => batch.types.as_slice().into(),
            };
            x = (x + rows(table, types, 1.0)?)?;
        }
        if let Some((table, positions)) = &self.positions {
            let ids = batch.lengths.iter().flat_map(|&length| 0..length);
            let ids = ids.map(|position| (position + positions.offset) as u32).collect();
            x = (x + rows(table, ids, 1.0)?)?;
        }
        let x = apply(&self.norm, x)?;
        match &self.projection {
            Some(place) => place.slot.forward(&x),
            None => Ok(x),
        }
    }
}
