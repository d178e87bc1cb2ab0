//! Products of AMX tiles. Rust has no stable functions for them, so the loops are assembly.

use std::arch::asm;

use super::{Kind, Loop};
use crate::isa::amx::{self, Shape, Shapes};

/// Tiles that are summed into; two of the eight hold the factors. A product takes some 50 cycles and a new one can
/// start every 16, so four would do.
const CHAINS: usize = 6;
/// Products of each sum in one run.
const STEPS: usize = 1024;
/// A tile: 16 rows of 64 bytes.
const ROWS: usize = 16;
const ROW_BYTES: usize = 64;

/// The loops of AMX, where the processor has it and the system lets this process use it.
pub(super) fn arithmetic(kind: Kind) -> Option<Loop> {
    let permitted = amx::permitted();
    let operations = |depth: usize| (CHAINS * STEPS * ROWS * ROWS * depth * 2) as u64;
    match kind {
        Kind::MatrixInt8 => permitted.int8.then_some(Loop {
            instruction: "tdpbssd",
            operations: operations(64),
            // SAFETY: int8 tiles were just permitted.
            run: || unsafe { int8() },
        }),
        Kind::MatrixBf16 => permitted.bf16.then_some(Loop {
            instruction: "tdpbf16ps",
            operations: operations(32),
            // SAFETY: bf16 tiles were just permitted.
            run: || unsafe { bf16() },
        }),
        Kind::F32 | Kind::Bf16 | Kind::Int8 => None,
    }
}

/// All eight tiles in full size.
const FULL: Shapes = Shapes::new([Shape { rows: ROWS, bytes: ROW_BYTES }; 8]);

/// A tile in memory, or the sum of one: `T` is what its 32-bit places hold.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Tile<T>([T; ROWS * ROW_BYTES / 4]);

/// The sum of all places, sixteen side by side: one after the other would take a tenth of the loop's own time.
fn total<T: Copy + Into<f64>>(tiles: &[Tile<T>]) -> f64 {
    let mut lanes = [0.0; 16];
    for tile in tiles {
        for row in tile.0.as_chunks::<16>().0 {
            for (lane, &place) in lanes.iter_mut().zip(row) {
                *lane += place.into();
            }
        }
    }
    lanes.iter().sum()
}

/// A loop over `$instruction` whose factors are tiles of the 32-bit pattern `$ones`, summed in `$sum`.
macro_rules! tile_loop {
    ($name:ident, $instruction:literal, $ones:expr, $sum:ty) => {
        /// # Safety
        /// The processor has the instruction, and the process may use tiles.
        unsafe fn $name() -> f64 {
            let ones = Tile([$ones; 256]);
            let mut sums = [Tile([<$sum>::default(); 256]); CHAINS];
            // SAFETY: reads one tile's shape and one tile, writes six tiles, all of the sizes declared above; the
            // registers are given back.
            unsafe {
                asm!(
                    "ldtilecfg [{shapes}]",
                    "tileloadd tmm6, [{ones} + {stride}]",
                    "tileloadd tmm7, [{ones} + {stride}]",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "tilezero tmm4",
                    "tilezero tmm5",
                    "2:",
                    concat!($instruction, " tmm0, tmm6, tmm7"),
                    concat!($instruction, " tmm1, tmm6, tmm7"),
                    concat!($instruction, " tmm2, tmm6, tmm7"),
                    concat!($instruction, " tmm3, tmm6, tmm7"),
                    concat!($instruction, " tmm4, tmm6, tmm7"),
                    concat!($instruction, " tmm5, tmm6, tmm7"),
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{sums} + {stride}], tmm0",
                    "tilestored [{sums} + {stride} + 1024], tmm1",
                    "tilestored [{sums} + {stride} + 2048], tmm2",
                    "tilestored [{sums} + {stride} + 3072], tmm3",
                    "tilestored [{sums} + {stride} + 4096], tmm4",
                    "tilestored [{sums} + {stride} + 5120], tmm5",
                    "tilerelease",
                    shapes = in(reg) &FULL,
                    ones = in(reg) &ones,
                    sums = in(reg) &mut sums,
                    stride = in(reg) ROW_BYTES,
                    steps = inout(reg) STEPS => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack)
                );
            }
            total(&sums)
        }
    };
}

tile_loop!(int8, "tdpbssd", 0x0101_0101_u32, i32);
tile_loop!(bf16, "tdpbf16ps", 0x3f80_3f80_u32, f32);
