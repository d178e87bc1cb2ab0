//! Int8 activations as the kernels read them.
//!
//! Blocks of 32 or more values share a scale `max|x| / 127`; values are rounded to nearest, ties to even. Up to eight
//! tokens lie side by side, on AMX sixteen, an *octet* of `width` tokens: for each 32 columns (a unit) the values of its first token, of its
//! second … So a kernel reads one stream, at distances from its head that are known when it is compiled.
//!
//! What kernels would have to compute for each token and unit is computed once here: sums of the values, for weights
//! with an offset or a minimum, and what sums of products begin with.

use super::planes::UNIT;
use crate::isa::Isa;
use crate::pool::{Pool, SharedOut};

/// Values whose sum is kept.
const SUM_BLOCK: usize = 16;
/// Sums of a unit.
const SUMS: usize = UNIT / SUM_BLOCK;

/// Tokens of an octet, at most; on AMX twice as many.
pub(super) const OCTET: usize = 8;

/// Tokens that lie side by side: on AMX those of a tile, two octets.
fn side_by_side() -> usize {
    if Isa::current() == Isa::Amx { 2 * OCTET } else { OCTET }
}

/// Fewer values than this are prepared sooner than threads are woken for them.
const SHARED_FROM: usize = 1 << 13;

/// Blocks after which what belongs to them fills whole cache lines.
const LINES: usize = 16;

/// `1.5 · 2^23`: an integer below 2^22 added to the bits of this f32 is added to its value. A sum of products that begins
/// with these bits is an f32 without a conversion, this much too large.
pub(crate) const MAGIC: f32 = 12_582_912.0;

/// How values are brought to int8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Int8 {
    /// Values that share a scale, a multiple of 32.
    pub block: usize,
    /// What weights are too large by when they are multiplied as unsigned numbers.
    pub offset: u8,
    /// Values of a unit whose products are summed together: 32, or 16.
    pub part: usize,
}

impl Int8 {
    /// Bytes that so many tokens take, with what goes with their values.
    pub(super) fn bytes(self, tokens: usize, columns: usize) -> usize {
        let padded = tokens.next_multiple_of(tokens.next_power_of_two().clamp(1, side_by_side()));
        let unit = UNIT + SUMS * size_of::<i16>() + UNIT / self.part * (size_of::<i32>() + size_of::<f32>());
        padded * (columns / UNIT * unit + columns / self.block * size_of::<[f32; 2]>())
    }
}

/// Int8 values of some tokens, and what goes with them. A *slot* is a token's place in a unit of an octet:
/// `(octet · units + unit) · width + token`.
#[derive(Debug, Default)]
pub(super) struct Ints {
    width: usize,
    units: usize,
    blocks: usize,
    parts: usize,
    /// 32 for a slot.
    values: Vec<i8>,
    /// Two for a slot.
    sums: Vec<i16>,
    /// One for each part of a slot: the bits of [`MAGIC`] less offset times sum.
    starts: Vec<i32>,
    /// One for each part of a slot: sum times scale.
    weighted: Vec<f32>,
    /// Scale, and −[`MAGIC`] times scale: `(octet · blocks + block) · width + token`.
    scales: Vec<[f32; 2]>,
}

/// Where a kernel reads the tokens from one on.
#[derive(Clone, Copy)]
pub(super) struct IntsAt {
    pub values: *const i8,
    pub sums: *const i16,
    pub starts: *const i32,
    pub weighted: *const f32,
    pub scales: *const [f32; 2],
    /// Slots from one unit to the next, scales from one block to the next.
    pub width: usize,
}

impl Ints {
    /// Takes `x`, `[tokens, columns]`.
    pub(super) fn fill(&mut self, x: &[f32], columns: usize, form: Int8, pool: &Pool) {
        assert!(columns.is_multiple_of(form.block) && form.block.is_multiple_of(UNIT), "whole blocks");
        let tokens = x.len() / columns;
        let width = tokens.next_power_of_two().min(side_by_side());
        (self.width, self.units, self.blocks) = (width, columns / UNIT, columns / form.block);
        self.parts = UNIT / form.part;
        let padded = tokens.next_multiple_of(width);
        let slots = padded * self.units;
        // What a last octet lacks is multiplied too, and comes to nothing: any numbers will do.
        self.values.resize(slots * UNIT, 0);
        self.sums.resize(slots * SUMS, 0);
        self.starts.resize(slots * self.parts, 0);
        self.weighted.resize(slots * self.parts, 0.0);
        self.scales.resize(padded * self.blocks, [0.0; 2]);
        let (units, blocks) = (self.units, self.blocks);
        let out = Out {
            values: SharedOut::new(&mut self.values),
            sums: SharedOut::new(&mut self.sums),
            starts: SharedOut::new(&mut self.starts),
            weighted: SharedOut::new(&mut self.weighted),
            scales: SharedOut::new(&mut self.scales),
        };
        let pool = if x.len() < SHARED_FROM { Pool::single() } else { pool };
        // By blocks of octets, not by tokens: what belongs to the tokens of an octet lies in the same cache lines, and
        // threads that write into one line wait for each other.
        pool.split(padded / width * blocks, LINES, |part| {
            let mut next = part.start;
            while next < part.end {
                let (octet, first) = (next / blocks, next % blocks);
                let range = first..blocks.min(first + part.end - next);
                next += range.len();
                for token in octet * width..tokens.min((octet + 1) * width) {
                    let place = token % width;
                    let slot = (octet * units + range.start * (form.block / UNIT)) * width + place;
                    let at = At { slot, scale: (octet * blocks + range.start) * width + place, width };
                    let x = &x[token * columns..][range.start * form.block..range.end * form.block];
                    quantize(x, form, at, &out);
                }
            }
        });
    }

    /// Bytes that the buffers hold.
    pub(super) fn bytes(&self) -> usize {
        let scales = self.scales.capacity() * size_of::<[f32; 2]>();
        let wide = self.starts.capacity() * size_of::<i32>() + self.weighted.capacity() * size_of::<f32>();
        self.values.capacity() + self.sums.capacity() * size_of::<i16>() + wide + scales
    }

    /// Where a kernel reads the tokens from `first` on, no more of them than the octet has left.
    #[inline]
    pub(super) fn at(&self, first: usize) -> IntsAt {
        let (octet, place) = (first / self.width, first % self.width);
        let slot = octet * self.units * self.width + place;
        let scale = octet * self.blocks * self.width + place;
        IntsAt {
            values: self.values[slot * UNIT..].as_ptr(),
            sums: self.sums[slot * SUMS..].as_ptr(),
            starts: self.starts[slot * self.parts..].as_ptr(),
            weighted: self.weighted[slot * self.parts..].as_ptr(),
            scales: self.scales[scale..].as_ptr(),
            width: self.width,
        }
    }

    /// A value and its scale; for tests.
    #[cfg(test)]
    pub(super) fn value(&self, token: usize, column: usize) -> (i8, f32) {
        let (octet, place) = (token / self.width, token % self.width);
        let slot = (octet * self.units + column / UNIT) * self.width + place;
        let block = column / (self.units / self.blocks * UNIT);
        let scale = (octet * self.blocks + block) * self.width + place;
        (self.values[slot * UNIT + column % UNIT], self.scales[scale][0])
    }
}

/// Where threads write.
struct Out<'o> {
    values: SharedOut<'o, i8>,
    sums: SharedOut<'o, i16>,
    starts: SharedOut<'o, i32>,
    weighted: SharedOut<'o, f32>,
    scales: SharedOut<'o, [f32; 2]>,
}

/// The places of a token.
#[derive(Clone, Copy)]
struct At {
    slot: usize,
    scale: usize,
    width: usize,
}

/// Quantizes a token.
fn quantize(x: &[f32], form: Int8, at: At, out: &Out<'_>) {
    #[cfg(target_arch = "x86_64")]
    {
        if Isa::current().vectors() == Isa::Avx512 {
            // SAFETY: the processor has AVX-512 F, BW, VL, DQ and VNNI when this path is chosen.
            return unsafe { quantize_avx512(x, form, at, out) };
        }
        if Isa::current().vectors() == Isa::Avx2 {
            // SAFETY: the processor has AVX2 when this path is chosen.
            return unsafe { quantize_avx2(x, form, at, out) };
        }
    }
    quantize_blocks(x, form, at, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn quantize_avx512(x: &[f32], form: Int8, at: At, out: &Out<'_>) {
    use std::arch::x86_64::*;
    let magic = _mm512_set1_ps(MAGIC);
    let mut slot = at.slot;
    for (block, x) in x.chunks_exact(form.block).enumerate() {
        let mut greatest = _mm512_setzero_ps();
        for x in x.as_chunks::<SUM_BLOCK>().0 {
            // SAFETY: sixteen values are there.
            let x = unsafe { _mm512_loadu_ps(x.as_ptr()) };
            greatest = _mm512_max_ps(_mm512_abs_ps(x), greatest);
        }
        let greatest = _mm512_reduce_max_ps(greatest);
        let (scale, inverse) = scale_of(greatest, block, at, out);
        let inverse = _mm512_set1_ps(inverse);
        for x in x.as_chunks::<UNIT>().0 {
            let (low, high) = x.split_at(SUM_BLOCK);
            // SAFETY: sixteen values are in each half.
            let (low, high) = unsafe { (_mm512_loadu_ps(low.as_ptr()), _mm512_loadu_ps(high.as_ptr())) };
            let low = _mm512_castps_si512(_mm512_add_ps(_mm512_mul_ps(low, inverse), magic));
            let high = _mm512_castps_si512(_mm512_add_ps(_mm512_mul_ps(high, inverse), magic));
            let zero = _mm512_castps_si512(magic);
            let low = _mm512_cvtepi32_epi8(_mm512_sub_epi32(low, zero));
            let high = _mm512_cvtepi32_epi8(_mm512_sub_epi32(high, zero));
            let values = _mm256_set_m128i(high, low);
            let fours = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), values);
            let pairs = _mm256_hadd_epi32(fours, fours);
            let sums = _mm256_hadd_epi32(pairs, pairs);
            let sums = [_mm256_extract_epi32::<0>(sums), _mm256_extract_epi32::<4>(sums)];
            let mut bytes = [0i8; UNIT];
            // SAFETY: 32 bytes are there.
            unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), values) };
            keep(&bytes, sums, scale, slot, form, out);
            slot += at.width;
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn quantize_avx2(x: &[f32], form: Int8, at: At, out: &Out<'_>) {
    quantize_blocks(x, form, at, out);
}

#[inline(always)]
fn quantize_blocks(x: &[f32], form: Int8, at: At, out: &Out<'_>) {
    let mut slot = at.slot;
    for (block, x) in x.chunks_exact(form.block).enumerate() {
        let mut greatest = [0.0f32; SUM_BLOCK];
        for x in x.as_chunks::<SUM_BLOCK>().0 {
            for lane in 0..SUM_BLOCK {
                greatest[lane] = greatest[lane].max(x[lane].abs());
            }
        }
        let greatest = greatest.iter().copied().fold(0.0, f32::max);
        let (scale, inverse) = scale_of(greatest, block, at, out);
        for x in x.as_chunks::<UNIT>().0 {
            // Adding and taking away 1.5 · 2^23 rounds to nearest even in one vector instruction each.
            let whole = x.map(|x| (x * inverse + MAGIC).to_bits() as i32 - MAGIC.to_bits() as i32);
            let sum = |half: usize| whole[half * SUM_BLOCK..(half + 1) * SUM_BLOCK].iter().sum();
            keep(&whole.map(|whole| whole as i8), [sum(0), sum(1)], scale, slot, form, out);
            slot += at.width;
        }
    }
}

/// The scale of a block, which it keeps, and what brings values to whole numbers.
#[inline(always)]
fn scale_of(greatest: f32, block: usize, at: At, out: &Out<'_>) -> (f32, f32) {
    let scale = rounded(greatest / 127.0);
    // SAFETY: a token's scales are written by the thread that has the token.
    unsafe { out.scales.write(at.scale + block * at.width, &[[scale, -MAGIC * scale]]) };
    (scale, if greatest > 0.0 { 127.0 / greatest } else { 0.0 })
}

/// Keeps a unit of a token.
#[inline(always)]
fn keep(values: &[i8; UNIT], sums: [i32; SUMS], scale: f32, slot: usize, form: Int8, out: &Out<'_>) {
    let (offset, parts) = (i32::from(form.offset), UNIT / form.part);
    let all = sums[0] + sums[1];
    let of_parts = if parts == 1 { [all, all] } else { sums };
    // SAFETY: a token's slots are written by the thread that has the token.
    unsafe {
        out.values.write(slot * UNIT, values);
        out.sums.write(slot * SUMS, &sums.map(|sum| sum as i16));
        for (part, &sum) in of_parts[..parts].iter().enumerate() {
            out.starts.write(slot * parts + part, &[MAGIC.to_bits() as i32 - offset * sum]);
            out.weighted.write(slot * parts + part, &[scale * sum as f32]);
        }
    }
}

/// To 22 bits, so that a product with [`MAGIC`], which has two, is exact.
#[inline(always)]
fn rounded(scale: f32) -> f32 {
    f32::from_bits((scale.to_bits() + 2) & !3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_within_half_a_step_and_sums_are_exact() {
        let x: Vec<f32> = (0..512 * 11).map(|i| (i as f32 * 0.37).sin() * (1.0 + i as f32 * 0.01)).collect();
        for (block, part, threads) in [(32, 32, 1), (256, 16, 1), (64, 32, 3)] {
            for tokens in [1, 2, 3, 7, 8, 9, 11] {
                let form = Int8 { block, offset: 8, part };
                let mut ints = Ints::default();
                ints.fill(&x[..tokens * 512], 512, form, &Pool::new(threads));
                for (index, x) in x[..tokens * 512].iter().enumerate() {
                    let (value, scale) = ints.value(index / 512, index % 512);
                    let error = (f32::from(value) * scale - x).abs();
                    assert!(error <= scale * 0.501, "{index}: {error} with scale {scale}");
                }
                for (token, unit) in (0..tokens).flat_map(|token| (0..16).map(move |unit| (token, unit))) {
                    let slot = (token / ints.width * 16 + unit) * ints.width + token % ints.width;
                    let sum = |from: usize, count: usize| {
                        (from..from + count)
                            .map(|i| i32::from(ints.value(token, unit * 32 + i).0))
                            .sum::<i32>()
                    };
                    for half in 0..2 {
                        assert_eq!(i32::from(ints.sums[slot * 2 + half]), sum(half * 16, 16));
                    }
                    for index in 0..32 / part {
                        let (at, exact) = (slot * (32 / part) + index, sum(index * part, part));
                        assert_eq!(ints.starts[at], MAGIC.to_bits() as i32 - 8 * exact);
                        assert_eq!(ints.weighted[at], ints.value(token, unit * 32).1 * exact as f32);
                    }
                }
            }
        }
    }

    #[test]
    fn scales_times_the_magic_number_are_exact() {
        for i in 0..1000 {
            let scale = rounded(1.3f32.powi(i % 200 - 100) * (1.0 + i as f32 * 0.001));
            assert_eq!(f64::from(MAGIC * scale), f64::from(MAGIC) * f64::from(scale));
        }
    }
}
