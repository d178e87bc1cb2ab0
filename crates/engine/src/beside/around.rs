//! An invertible network between embedding and layers, and its inverse before the head (MAD-X, arXiv 2005.00052, section 4):
//! `[e₁, e₂] = e`, `o₁ = F(e₂) + e₁`, `o₂ = G(o₁) + e₂`.

use smallvec::SmallVec;

use super::Narrow;
use super::rows::Delta;
use crate::error::{Error, Result};

/// The two networks of half the residual stream's width.
#[derive(Debug, Clone)]
pub struct Around {
    /// `F`.
    pub first: Narrow,
    /// `G`.
    pub second: Narrow,
}

/// Both ways.
#[derive(Debug)]
pub(super) struct Both {
    inwards: [Delta; 2],
    /// With the signs turned.
    outwards: [Delta; 2],
}

impl Around {
    /// Ready for a stream of this width.
    pub(super) fn both(self, width: usize) -> Result<Both> {
        if !width.is_multiple_of(2) {
            return Err(Error::Unsuitable(format!(
                "an invertible network halves the residual stream, whose width of {width} is odd"
            )));
        }
        let back = |it: &Narrow| Narrow { scale: -it.scale, ..it.clone() }.delta(width / 2, true);
        let outwards = [back(&self.first)?, back(&self.second)?];
        Ok(Both {
            inwards: [self.first.delta(width / 2, true)?, self.second.delta(width / 2, true)?],
            outwards,
        })
    }
}

impl Both {
    pub fn values(&self) -> usize {
        self.inwards.iter().chain(&self.outwards).map(Delta::values).sum()
    }

    /// From the embedding to what the layers see: one row.
    pub fn enter(&self, row: &mut [f32], inner: &mut SmallVec<[f32; 64]>) {
        let (first, second) = row.split_at_mut(row.len() / 2);
        self.inwards[0].add(second, first, inner);
        self.inwards[1].add(first, second, inner);
    }

    /// Back: one row.
    pub fn leave(&self, row: &mut [f32], inner: &mut SmallVec<[f32; 64]>) {
        let (first, second) = row.split_at_mut(row.len() / 2);
        self.outwards[1].add(first, second, inner);
        self.outwards[0].add(second, first, inner);
    }
}
