//! The tile of AVX512_BF16: pairs of bf16 multiplied and summed in f32 by one instruction.

use std::arch::x86_64::*;

use super::tile::{Job, Kernel, LANES, by_rows, put};
use crate::packed::simd::Avx512;

/// The kernel for tiles of up to 8 rows and 3 vectors; a step of the job's depth is a pair.
pub(super) fn kernel(rows: usize, vectors: usize) -> Kernel {
    KERNELS[vectors - 1][rows - 1]
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
unsafe fn tile<const R: usize, const V: usize>(job: Job) {
    let Job { depth, a, a_stride, b, b_stride, panels, out, stride, columns, add } = job;
    // SAFETY: rows of A hold `depth` pairs each; a panel holds `depth` rows of `V` vectors of pairs; the output has `R`
    // rows of `columns` values for each panel. Loads keep bits as they are: pairs are no numbers.
    unsafe {
        let bits = |values: __m512i| std::mem::transmute::<__m512i, __m512bh>(values);
        for panel in 0..panels {
            let (b, out) = (b.add(panel * b_stride), out.add(panel * V * LANES));
            let mut sums = [[_mm512_setzero_ps(); V]; R];
            for step in 0..depth {
                let at = b.add(step * V * LANES);
                let vectors: [__m512bh; V] =
                    std::array::from_fn(|vector| bits(_mm512_loadu_si512(at.add(vector * LANES).cast())));
                for row in 0..R {
                    let two = bits(_mm512_set1_epi32(*a.add(row * a_stride + step).cast::<i32>()));
                    for vector in 0..V {
                        sums[row][vector] = _mm512_dpbf16_ps(sums[row][vector], vectors[vector], two);
                    }
                }
            }
            put::<Avx512, R, V>(sums, out, stride, columns, add);
        }
    }
}

static KERNELS: [[Kernel; 8]; 3] = [
    by_rows!(tile, 1: 1 2 3 4 5 6 7 8),
    by_rows!(tile, 2: 1 2 3 4 5 6 7 8),
    by_rows!(tile, 3: 1 2 3 4 5 6 7 8),
];
