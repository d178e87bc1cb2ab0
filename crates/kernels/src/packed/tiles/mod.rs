//! Products on AMX: sixteen tokens times sixteen rows in one instruction.
//!
//! A tile register holds 16 rows of 64 bytes. Activations are the left factor: a token a row. Weights are the right one,
//! whose rows are what a panel holds anyway: two bf16 or four int8 of each of sixteen matrix rows. Sums are tokens by
//! matrix rows. Tiles are named in assembly, for which Rust has no stable functions.

mod bf16;
mod int8;

use std::arch::asm;

use super::Tiles;
use crate::isa::amx::{Shape, Shapes};

pub(super) use int8::{Parted, Unit, kernel};

/// Tokens of a tile.
pub(super) const TOKENS: usize = 16;

/// Products of bf16.
pub(super) const BF16: Tiles = Tiles { kernel: bf16::kernel, from: 1 };

/// Sets the tiles' shapes.
///
/// # Safety
/// The process may use tiles, and the shapes are such as tiles can have. Who is done with them
/// gives their state back by `tilerelease`, so that switching threads need not save it.
unsafe fn configure(tiles: [Shape; 8]) {
    let shapes = Shapes::new(tiles);
    // SAFETY: reads the 64 bytes of `shapes`, which name shapes that every AMX unit has.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &shapes, options(nostack, readonly)) };
}

/// An instruction on tiles with an address and a stride.
macro_rules! tile_memory {
    ($instruction:expr, $address:expr, $stride:expr) => {
        asm!($instruction, at = in(reg) $address, stride = in(reg) $stride, options(nostack))
    };
}
use tile_memory;
