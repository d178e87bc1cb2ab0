//! Activations in int8: blocks of 32 or 256 values share a scale `max|x| / 127`; values are rounded to nearest,
//! ties to even. Sums of sixteen values each are kept for formats whose weights have an offset.

use crate::pool::Pool;

/// Values whose sum is kept.
pub(crate) const SUM_BLOCK: usize = 16;

/// Quantized activations of some tokens, `[tokens, columns]`; the buffers are used again.
#[derive(Debug, Default)]
pub struct Activations {
    tokens: usize,
    columns: usize,
    block: usize,
    values: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i16>,
}

impl Activations {
    /// An empty set.
    pub fn new() -> Activations {
        Activations::default()
    }

    /// Tokens held.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Values of a token.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Values that share a scale.
    pub fn block(&self) -> usize {
        self.block
    }

    /// Quantizes `x`, `[tokens, columns]`.
    pub(crate) fn fill(&mut self, x: &[f32], columns: usize, block: usize, pool: &Pool) {
        assert!(columns.is_multiple_of(block) && x.len().is_multiple_of(columns), "whole blocks and tokens");
        self.tokens = x.len() / columns;
        self.columns = columns;
        self.block = block;
        self.values.resize(x.len(), 0);
        self.scales.resize(x.len() / block, 0.0);
        self.sums.resize(x.len() / SUM_BLOCK, 0);
        let mut rest = (&mut self.values[..], &mut self.scales[..], &mut self.sums[..]);
        // A few tokens are done sooner than threads are woken for them.
        let threads = if self.tokens < 8 { 1 } else { pool.threads() };
        let share = self.tokens.div_ceil(threads).max(1);
        let mut parts = Vec::with_capacity(threads);
        for x in x.chunks(share * columns) {
            let (values, scales, sums) = rest;
            let (values, more_values) = values.split_at_mut(x.len());
            let (scales, more_scales) = scales.split_at_mut(x.len() / block);
            let (sums, more_sums) = sums.split_at_mut(x.len() / SUM_BLOCK);
            rest = (more_values, more_scales, more_sums);
            parts.push(std::sync::Mutex::new((x, values, scales, sums)));
        }
        let work = |thread: usize| {
            let Some(part) = parts.get(thread) else { return };
            let mut part = part.lock().expect("each part is one thread's own");
            let (x, values, scales, sums) = &mut *part;
            quantize(x, block, values, scales, sums);
        };
        if threads == 1 { (0..parts.len()).for_each(work) } else { pool.run(&work) }
    }

    /// The values of a token.
    #[inline]
    pub(crate) fn values(&self, token: usize) -> &[i8] {
        &self.values[token * self.columns..(token + 1) * self.columns]
    }

    /// The scales of a token's blocks.
    #[inline]
    pub(crate) fn scales(&self, token: usize) -> &[f32] {
        let blocks = self.columns / self.block;
        &self.scales[token * blocks..(token + 1) * blocks]
    }

    /// Sums of each [`SUM_BLOCK`] values of a token.
    #[inline]
    pub(crate) fn sums(&self, token: usize) -> &[i16] {
        let blocks = self.columns / SUM_BLOCK;
        &self.sums[token * blocks..(token + 1) * blocks]
    }
}

/// Quantizes whole blocks.
fn quantize(x: &[f32], block: usize, values: &mut [i8], scales: &mut [f32], sums: &mut [i16]) {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::isa::Isa;
        if Isa::current() == Isa::Avx512 {
            // SAFETY: the processor has AVX-512 F, BW, VL and DQ when this path is chosen.
            return unsafe { quantize_avx512(x, block, values, scales, sums) };
        }
        if Isa::current() == Isa::Avx2 {
            // SAFETY: the processor has AVX2 when this path is chosen.
            return unsafe { quantize_avx2(x, block, values, scales, sums) };
        }
    }
    quantize_blocks(x, block, values, scales, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn quantize_avx512(x: &[f32], block: usize, values: &mut [i8], scales: &mut [f32], sums: &mut [i16]) {
    quantize_blocks(x, block, values, scales, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn quantize_avx2(x: &[f32], block: usize, values: &mut [i8], scales: &mut [f32], sums: &mut [i16]) {
    quantize_blocks(x, block, values, scales, sums);
}

/// The arithmetic, in loops that the compiler vectorises for the caller's instruction set.
#[inline(always)]
fn quantize_blocks(x: &[f32], block: usize, values: &mut [i8], scales: &mut [f32], sums: &mut [i16]) {
    let blocks = x.chunks_exact(block).zip(values.chunks_exact_mut(block)).zip(scales);
    for (((x, values), scale), sums) in blocks.zip(sums.chunks_exact_mut(block / SUM_BLOCK)) {
        let mut greatest = [0.0f32; SUM_BLOCK];
        for x in x.as_chunks::<SUM_BLOCK>().0 {
            for lane in 0..SUM_BLOCK {
                greatest[lane] = greatest[lane].max(x[lane].abs());
            }
        }
        let greatest = greatest.iter().copied().fold(0.0, f32::max);
        *scale = greatest / 127.0;
        let inverse = if greatest > 0.0 { 127.0 / greatest } else { 0.0 };
        let groups = x.as_chunks::<SUM_BLOCK>().0.iter().zip(values.as_chunks_mut::<SUM_BLOCK>().0);
        for ((x, values), sum) in groups.zip(sums) {
            let mut total = 0i32;
            for lane in 0..SUM_BLOCK {
                // Adding and taking away 1.5 · 2^23 rounds to nearest even in one vector instruction each.
                const ROUND: f32 = 12_582_912.0;
                let rounded = (x[lane] * inverse + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
                values[lane] = rounded as i8;
                total += rounded;
            }
            *sum = total as i16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_within_half_a_step_and_sums_are_exact() {
        let x: Vec<f32> = (0..512).map(|i| (i as f32 * 0.37).sin() * (1.0 + i as f32 * 0.01)).collect();
        for block in [32, 256] {
            let mut quantized = Activations::new();
            quantized.fill(&x, 256, block, &Pool::new(1));
            for token in 0..2 {
                let (values, scales) = (quantized.values(token), quantized.scales(token));
                for (index, &value) in values.iter().enumerate() {
                    let scale = scales[index / block];
                    let error = (f32::from(value) * scale - x[token * 256 + index]).abs();
                    assert!(error <= scale * 0.501, "{index}: {error} with scale {scale}");
                }
                for (index, &sum) in quantized.sums(token).iter().enumerate() {
                    let exact: i16 = values[index * 16..][..16].iter().map(|&value| i16::from(value)).sum();
                    assert_eq!(sum, exact);
                }
            }
        }
    }
}
