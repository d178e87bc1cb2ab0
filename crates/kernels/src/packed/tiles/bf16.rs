//! Products of bf16. Tiles 0 to 3 hold sums, 5 weights, 6 sixteen tokens, 7 the tokens that are left over.

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::{Activations, PANEL, TOKEN_BLOCK};
use super::{Shape, TOKENS, configure, tile_memory};

/// Products of a panel of bf16 with up to [`TOKEN_BLOCK`] tokens.
pub(super) fn kernel(panel: &[u8], x: &Activations, first: usize, tokens: usize, sums: &mut [[f32; PANEL]]) {
    let values: [*const u8; 4] =
        std::array::from_fn(|tile| x.halves((first + tile * TOKENS).min(first + tokens - 1)).as_ptr().cast());
    let tiles = tokens.div_ceil(TOKENS);
    let left = tokens - (tiles - 1) * TOKENS;
    assert!(tokens <= TOKEN_BLOCK && sums.len() >= tokens, "a block of tokens");
    // SAFETY: this kernel is chosen only where tiles are permitted; a panel holds sixteen pairs for each pair of columns,
    // whose number is a multiple of 32; each token has as many values.
    unsafe {
        let mut shapes = [Shape { rows: TOKENS, bytes: 64 }; 8];
        shapes[tiles - 1].rows = left;
        shapes[7].rows = left;
        configure(shapes);
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
