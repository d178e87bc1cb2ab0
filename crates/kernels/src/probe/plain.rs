//! What the compiler makes of plain code for the least processor of its kind, on operands in the first-level cache.

use std::hint::black_box;

use super::{Kind, Loop};

/// Sums that are kept at once.
const LANES: usize = 64;
/// Operands of one pass: 16 KiB of f32 in each of two arrays.
const LENGTH: usize = 4096;
const PASSES: usize = 8;
const OPERATIONS: u64 = (LENGTH * PASSES * 2) as u64;

pub(super) fn arithmetic(kind: Kind) -> Option<Loop> {
    match kind {
        Kind::F32 => Some(Loop { instruction: "compiled f32", operations: OPERATIONS, run: f32_sums }),
        Kind::Int8 => Some(Loop { instruction: "compiled int8", operations: OPERATIONS, run: int8_sums }),
        Kind::Bf16 | Kind::MatrixBf16 | Kind::MatrixInt8 => None,
    }
}

fn f32_sums() -> f64 {
    let ones = [1.0f32; LENGTH];
    let mut sums = [0.0f32; LANES];
    for _ in 0..PASSES {
        let (a, b) = (black_box(&ones), black_box(&ones));
        for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
            for lane in 0..LANES {
                sums[lane] += a[lane] * b[lane];
            }
        }
    }
    sums.iter().map(|&sum| f64::from(sum)).sum()
}

fn int8_sums() -> f64 {
    let ones = [1i8; LENGTH];
    let mut sums = [0i32; LANES];
    for _ in 0..PASSES {
        let (a, b) = (black_box(&ones), black_box(&ones));
        for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
            for lane in 0..LANES {
                sums[lane] += i32::from(a[lane]) * i32::from(b[lane]);
            }
        }
    }
    sums.iter().map(|&sum| f64::from(sum)).sum()
}
