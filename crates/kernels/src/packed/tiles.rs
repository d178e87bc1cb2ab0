//! Products of bf16 on AMX: sixteen tokens times sixteen rows in one instruction.
//!
//! A tile register holds 16 rows of 64 bytes. Activations are the left factor: a token a row. Weights are the right one,
//! whose rows are what a panel holds anyway: two bf16 of each of sixteen matrix rows. Sums are tokens by matrix rows.
//!
//! Formats with a scale for 32 values gain nothing from int8 tiles: sums leave the tiles for every scale, and what is
//! saved in products goes into that. Tiles are named in assembly, for which Rust has no stable functions: 0 to 3 hold sums, 5 weights, 6
//! sixteen tokens, 7 the tokens that are left over.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Activations, PANEL, TILE_COLUMNS, TOKEN_BLOCK, Tiles};

/// Tokens of a tile.
const TOKENS: usize = 16;

/// Products of bf16. With a single token too: other kernels round differently, and a token's sums should not depend on
/// its company.
pub(super) const BF16: Tiles = Tiles { kernel: bf16, columns: TILE_COLUMNS };

/// The shapes of the eight tiles, as the processor reads them.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Sets the tiles' shapes: `left` tokens in tile 7 and in the sums `last`.
///
/// # Safety
/// The process may use tiles. Who is done with them gives their state back by `tilerelease`, so that switching threads
/// need not save it.
unsafe fn configure(left: usize, last: usize) {
    let mut shapes =
        Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    for sums in 0..4 {
        shapes.row_bytes[sums] = 64;
        shapes.rows[sums] = if sums == last { left as u8 } else { TOKENS as u8 };
    }
    for (tile, rows) in [(5, TOKENS), (6, TOKENS), (7, left)] {
        shapes.row_bytes[tile] = 64;
        shapes.rows[tile] = rows as u8;
    }
    // SAFETY: reads the 64 bytes of `shapes`, which name shapes that every AMX unit has.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &shapes, options(nostack, readonly)) };
}

/// An instruction on tiles with an address and a stride.
macro_rules! tile_memory {
    ($instruction:literal, $address:expr, $stride:expr) => {
        asm!($instruction, at = in(reg) $address, stride = in(reg) $stride, options(nostack))
    };
}

/// Products of a panel of bf16 with up to [`TOKEN_BLOCK`] tokens.
fn bf16(panel: &[u8], x: &Activations, first: usize, tokens: usize, sums: &mut [[f32; PANEL]]) {
    let values: [*const u8; 4] =
        std::array::from_fn(|tile| x.halves((first + tile * TOKENS).min(first + tokens - 1)).as_ptr().cast());
    let tiles = tokens.div_ceil(TOKENS);
    let left = tokens - (tiles - 1) * TOKENS;
    assert!(tokens <= TOKEN_BLOCK && sums.len() >= tokens, "a block of tokens");
    // SAFETY: this kernel is chosen only where tiles are permitted; a panel holds sixteen pairs for each pair of columns,
    // whose number is a multiple of 32; each token has as many values.
    unsafe {
        configure(left, tiles - 1);
        asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
        let stride = x.stride() * 2;
        for step in 0..x.columns() / 32 {
            let weights = panel.as_ptr().add(step * 1024);
            for line in 0..16 {
                _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(8192 + line * 64).cast());
            }
            tile_memory!("tileloadd tmm5, [{at} + {stride}]", weights, 64usize);
            // Rows of a tile are far apart, which hardware does not follow: without this 524 in place of 689 GFLOP/s.
            for token in 0..tokens {
                let at = values[0].wrapping_add(token * stride + (step + 4) * 64);
                _mm_prefetch::<_MM_HINT_T0>(at.cast());
            }
            let at = |tile: usize| values[tile].add(step * 64);
            macro_rules! product {
                ($tile:literal, $sums:literal) => {
                    if tiles > $tile + 1 {
                        tile_memory!("tileloadd tmm6, [{at} + {stride}]", at($tile), stride);
                        asm!(concat!("tdpbf16ps ", $sums, ", tmm6, tmm5"), options(nostack, nomem));
                    } else if tiles == $tile + 1 {
                        tile_memory!("tileloadd tmm7, [{at} + {stride}]", at($tile), stride);
                        asm!(concat!("tdpbf16ps ", $sums, ", tmm7, tmm5"), options(nostack, nomem));
                    }
                };
            }
            product!(0, "tmm0");
            product!(1, "tmm1");
            product!(2, "tmm2");
            product!(3, "tmm3");
        }
        let to = |tile: usize| sums.as_ptr().wrapping_add(tile * TOKENS);
        macro_rules! store {
            ($tile:literal, $instruction:literal) => {
                if tiles > $tile {
                    tile_memory!($instruction, to($tile), 64usize);
                }
            };
        }
        store!(0, "tilestored [{at} + {stride}], tmm0");
        store!(1, "tilestored [{at} + {stride}], tmm1");
        store!(2, "tilestored [{at} + {stride}], tmm2");
        store!(3, "tilestored [{at} + {stride}], tmm3");
        asm!("tilerelease", options(nostack, nomem));
    }
}
