//! The size of gradients.

use crate::grad::join;
use crate::pool::{Pool, SharedOut};
use crate::vector::{dispatch, fused};

/// Values that are summed in f32 before their sum is added to the others in f64. Fixed, so that the result does not
/// depend on the threads.
const BLOCK: usize = 4096;

/// Partial sums of a block.
const LANES: usize = 64;

/// `Σ x²`.
pub fn sum_of_squares(pool: &Pool, x: &[f32]) -> f64 {
    let blocks = x.len().div_ceil(BLOCK);
    if blocks < 4 {
        return x.chunks(BLOCK).map(block).sum();
    }
    let mut sums = vec![0.0f64; blocks];
    let shared = SharedOut::new(&mut sums);
    pool.split(blocks, 1, |part| {
        // SAFETY: threads have disjoint blocks.
        let sums = unsafe { shared.part(part.clone()) };
        for (sum, x) in sums.iter_mut().zip(x[part.start * BLOCK..].chunks(BLOCK)) {
            *sum = block(x);
        }
    });
    sums.iter().sum()
}

fn block(x: &[f32]) -> f64 {
    #[inline(always)]
    fn run<const FUSED: bool>(x: &[f32]) -> f64 {
        let (chunks, rest) = x.as_chunks::<LANES>();
        let mut sums = [0.0f32; LANES];
        for chunk in chunks {
            for lane in 0..LANES {
                sums[lane] = fused::<FUSED>(chunk[lane], chunk[lane], sums[lane]);
            }
        }
        for (lane, &x) in rest.iter().enumerate() {
            sums[lane] = fused::<FUSED>(x, x, sums[lane]);
        }
        join(sums)
    }
    dispatch!(run(x: &[f32]) -> f64)
}
