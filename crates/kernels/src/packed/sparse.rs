//! Panels of matrices with many zeros: masks of the values that are there, and these values one after the other.
//!
//! A dense panel is lines of 64 bytes: 32 values of F16 or BF16, 16 of F32. Of each line a mask keeps a bit for every value, and what
//! is not zero stands packed in the order of the bits, so that a matrix with a share `s` of zeros takes `1 − s + 1/16` of its
//! bytes (1/32 for F32), whatever pattern the zeros have: two of four cost what a format of their own would. A line of masks is
//! followed by the values of its lines (16, or 32 of F32), so that a panel is one stream. Decoding is bound by
//! bytes, so it gains what they shrink by. Few tokens with BF16 put values back in registers; otherwise a thread expands a panel
//! into its second-level cache, where the dense kernel of the format takes it, and many tokens share that work.

use std::cell::RefCell;

use super::dispatch::Kernel;
use super::{Activations, PANEL};
use crate::pool::Pool;

/// Bytes of a line.
const LINE: usize = 64;

/// The least share of zeros for which panels are kept sparse. Below, what bytes are saved the expansion takes: see the table of
/// densities in `docs/performance.md`.
const WORTH: f64 = 0.25;

/// Panels that are looked at to see whether a matrix has zeros at all: one of so many.
const LOOKED_AT: usize = 32;

/// Where the panels of a sparse matrix lie.
#[derive(Debug)]
pub(super) struct Sparse {
    /// Bytes at which each panel begins, and the end of the last.
    starts: Vec<usize>,
    /// Bytes of a value: 2 or 4.
    value: usize,
}

/// Reads whole lines behind the last value.
const SLACK: usize = LINE;

impl Sparse {
    /// Lays out a matrix, stored as values of `value` bytes in rows, if it has zeros enough and this processor expands fast.
    pub(super) fn plan(stored: &[u8], row_bytes: usize, value: usize, panel_bytes: usize) -> Option<Sparse> {
        if !expands_fast() || !panel_bytes.is_multiple_of(LINE) || row_bytes == 0 {
            return None;
        }
        let panels: Vec<&[u8]> = stored.chunks(PANEL * row_bytes).collect();
        let zeros: usize = panels.iter().step_by(LOOKED_AT).map(|panel| count_zeros(panel, value)).sum();
        let looked: usize = panels.iter().step_by(LOOKED_AT).map(|panel| panel.len() / value).sum();
        if (zeros as f64) < WORTH * looked as f64 {
            return None;
        }
        Sparse::always(stored, row_bytes, value, panel_bytes)
    }

    /// As [`Sparse::plan`], whatever the zeros and the processor.
    pub(super) fn always(
        stored: &[u8],
        row_bytes: usize,
        value: usize,
        panel_bytes: usize,
    ) -> Option<Sparse> {
        if !panel_bytes.is_multiple_of(LINE) || row_bytes == 0 {
            return None;
        }
        let panels: Vec<&[u8]> = stored.chunks(PANEL * row_bytes).collect();
        let mut sizes = vec![0usize; panels.len()];
        let masks = mask_lines(panel_bytes, value) * LINE;
        Pool::global().split_chunks(&mut sizes, 1, |panel, size| {
            let kept = panels[panel].len() / value - count_zeros(panels[panel], value);
            size[0] = (masks + kept * value).next_multiple_of(LINE);
        });
        let mut starts = Vec::with_capacity(sizes.len() + 1);
        let mut at = 0usize;
        starts.push(at);
        for size in sizes {
            at += size;
            starts.push(at);
        }
        Some(Sparse { starts, value })
    }

    /// Bytes of so many panels if a share of their values is zero and this processor expands fast; nothing if too few are.
    pub(super) fn expected(
        panels: usize,
        values: usize,
        value: usize,
        panel_bytes: usize,
        zeros: f64,
    ) -> Option<usize> {
        if !expands_fast() || !panel_bytes.is_multiple_of(LINE) || zeros < WORTH {
            return None;
        }
        let kept = ((1.0 - zeros.min(1.0)) * values as f64).round() as usize * value;
        // Panels end with whole lines: half a line of each is empty.
        Some(panels * (mask_lines(panel_bytes, value) * LINE + LINE / 2) + kept + SLACK)
    }

    /// Bytes of all panels.
    pub(super) fn bytes(&self) -> usize {
        self.starts.last().map_or(0, |end| end + SLACK)
    }

    /// Packs every panel into bytes that are zero: `pack` writes the dense one.
    pub(super) fn pack(&self, data: &mut [u8], panel_bytes: usize, pack: impl Fn(usize, &mut [u8]) + Sync) {
        let mut parts = Vec::with_capacity(self.starts.len());
        let mut rest = data;
        for pair in self.starts.windows(2) {
            let (part, after) = rest.split_at_mut(pair[1] - pair[0]);
            parts.push(part);
            rest = after;
        }
        Pool::global().split_chunks(&mut parts, 1, |panel, part| {
            let mut dense = vec![0; panel_bytes];
            pack(panel, &mut dense);
            compress(&dense, self.value, part[0]);
        });
    }

    /// A panel with all that follows it: a line can be read at each value.
    pub(super) fn panel<'d>(&self, data: &'d [u8], panel: usize) -> &'d [u8] {
        let own = &data[self.starts[panel]..];
        assert!(own.len() >= self.starts[panel + 1] - self.starts[panel] + SLACK, "panels and slack");
        own
    }

    /// Gives the dense form of a panel to `then`.
    pub(super) fn expanded(&self, panel: &[u8], panel_bytes: usize, then: impl FnOnce(&[u8])) {
        EXPANDED.with_borrow_mut(|lines| {
            lines.resize(lines.len().max(panel_bytes / LINE), Line([0; LINE]));
            let lines = &mut lines[..panel_bytes / LINE];
            expand(panel, self.value, lines);
            // SAFETY: lines are bytes.
            let dense = unsafe { std::slice::from_raw_parts(lines.as_ptr().cast::<u8>(), panel_bytes) };
            then(dense);
        });
    }
}

/// A kernel for two panels and one token.
pub(super) type PairKernel = fn([&[u8]; 2], &Activations, &mut [[f32; PANEL]]);

/// Kernels that put values back in registers.
#[derive(Clone, Copy)]
pub(super) struct Fused {
    /// Sums of a panel with up to [`super::TILE`] tokens from `first` on.
    pub one: Kernel,
    /// Sums of two panels with the only token.
    pub pair: PairKernel,
}

/// A cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u8; LINE]);

thread_local! {
    /// The panel that this thread multiplies.
    static EXPANDED: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

fn is_zero(value: &[u8]) -> bool {
    // Zero with a sign is zero too: the highest bit is the sign of every format here.
    let (last, rest) = value.split_last().unwrap_or((&0, &[]));
    last & 0x7F == 0 && rest.iter().all(|&byte| byte == 0)
}

fn count_zeros(stored: &[u8], value: usize) -> usize {
    if value == 2 {
        let halves = stored.as_chunks::<2>().0;
        halves.iter().filter(|half| u16::from_le_bytes(**half) & 0x7FFF == 0).count()
    } else {
        let words = stored.as_chunks::<4>().0;
        words.iter().filter(|word| u32::from_le_bytes(**word) & 0x7FFF_FFFF == 0).count()
    }
}

/// Lines of which one line of masks tells.
const fn lines_a_mask(value: usize) -> usize {
    8 * value
}

/// Lines of masks of a panel.
fn mask_lines(panel_bytes: usize, value: usize) -> usize {
    (panel_bytes / LINE).div_ceil(lines_a_mask(value))
}

/// Lines of masks, each followed by the values that are there.
fn compress(dense: &[u8], value: usize, out: &mut [u8]) {
    let mask_bytes = LINE / value / 8;
    let mut at = 0;
    for lines in dense.chunks(lines_a_mask(value) * LINE) {
        let masks = at;
        at += LINE;
        for (index, line) in lines.chunks_exact(LINE).enumerate() {
            let mut mask = 0u32;
            for (bit, bytes) in line.chunks_exact(value).enumerate() {
                if !is_zero(bytes) {
                    mask |= 1 << bit;
                    out[at..at + value].copy_from_slice(bytes);
                    at += value;
                }
            }
            out[masks + index * mask_bytes..][..mask_bytes]
                .copy_from_slice(&mask.to_le_bytes()[..mask_bytes]);
        }
    }
}

/// Whether this processor has instructions that put packed values at the places of a mask.
pub(super) fn expands_fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    return crate::isa::Isa::current().vectors() == crate::isa::Isa::Avx512
        && is_x86_feature_detected!("avx512vbmi2");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The dense lines of a panel. A line can be read at every value.
fn expand(panel: &[u8], value: usize, out: &mut [Line]) {
    #[cfg(target_arch = "x86_64")]
    if expands_fast() {
        // SAFETY: the instructions are there; `compress` wrote masks and values together, so that these are as many as the bits
        // of the masks, and behind the last panel a line is left.
        unsafe {
            match value {
                2 => x86::expand_halves(panel.as_ptr(), out),
                _ => x86::expand_words(panel.as_ptr(), out),
            }
        }
        return;
    }
    expand_plainly(panel, value, out);
}

fn expand_plainly(panel: &[u8], value: usize, out: &mut [Line]) {
    let mut at = 0;
    for lines in out.chunks_mut(lines_a_mask(value)) {
        let masks = &panel[at..at + LINE];
        at += LINE;
        for (line, mask) in lines.iter_mut().zip(masks.chunks_exact(LINE / value / 8)) {
            for (bit, place) in line.0.chunks_exact_mut(value).enumerate() {
                if mask[bit / 8] >> (bit % 8) & 1 == 1 {
                    place.copy_from_slice(&panel[at..at + value]);
                    at += value;
                } else {
                    place.fill(0);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::*;

    use super::{LINE, Line, lines_a_mask};

    /// Loads a line into a register. The compiler would make the load a part of the expansion, and with expansions from memory the
    /// product takes 1.9 (one token) to 2.5 times (eight) as long as with a load and an expansion between registers (Zen 5).
    ///
    /// # Safety
    /// The processor has AVX-512; the line can be read.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(from: *const u8) -> __m512i {
        let line;
        // SAFETY: the line can be read, and nothing else is touched.
        unsafe {
            std::arch::asm!(
                "vmovdqu64 {line}, [{from}]",
                line = out(zmm_reg) line,
                from = in(reg) from,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        line
    }

    /// Puts the values of one or more panels back, a line of each at a time, for `then`, which is told the line's number.
    ///
    /// # Safety
    /// The processor has the instructions; panels of `lines` lines as [`super::compress`] writes them begin at `from`, and a line can
    /// be read at each of their values.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
    pub(in super::super) unsafe fn halves<const N: usize>(
        mut from: [*const u8; N],
        lines: usize,
        mut then: impl FnMut(usize, [__m512i; N]),
    ) {
        // SAFETY: the same contract.
        unsafe {
            for first in (0..lines).step_by(lines_a_mask(2)) {
                let masks = from.map(<*const u8>::cast::<u32>);
                from.iter_mut().for_each(|from| *from = from.add(LINE));
                for index in 0..lines_a_mask(2).min(lines - first) {
                    let mut line = [_mm512_setzero_si512(); N];
                    for n in 0..N {
                        let mask = masks[n].add(index).read_unaligned();
                        _mm_prefetch::<_MM_HINT_T0>(from[n].wrapping_add(2048).cast());
                        line[n] = _mm512_maskz_expand_epi16(mask, load(from[n]));
                        from[n] = from[n].add(2 * mask.count_ones() as usize);
                    }
                    then(first + index, line);
                }
            }
        }
    }

    /// # Safety
    /// As [`halves`], for as many lines as `out` has.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
    pub(super) unsafe fn expand_halves(from: *const u8, out: &mut [Line]) {
        // SAFETY: the same contract; lines are aligned.
        unsafe {
            halves([from], out.len(), |index, [line]| {
                _mm512_store_si512(out[index].0.as_mut_ptr().cast(), line);
            });
        }
    }

    /// # Safety
    /// As [`expand_halves`], of a panel of words.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
    pub(super) unsafe fn expand_words(mut from: *const u8, out: &mut [Line]) {
        // SAFETY: the same contract.
        unsafe {
            for lines in out.chunks_mut(lines_a_mask(4)) {
                let masks = from.cast::<u16>();
                from = from.add(LINE);
                for (index, line) in lines.iter_mut().enumerate() {
                    let mask = masks.add(index).read_unaligned();
                    _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(2048).cast());
                    let packed = load(from);
                    _mm512_store_si512(line.0.as_mut_ptr().cast(), _mm512_maskz_expand_epi32(mask, packed));
                    from = from.add(4 * mask.count_ones() as usize);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_compressed_is_expanded_again(
            words in proptest::collection::vec(prop_oneof![Just(0u32), any::<u32>()], 16..900),
            value in prop_oneof![Just(2usize), Just(4)],
        ) {
            let dense: Vec<u8> = words[..words.len() / 16 * 16].iter().flat_map(|word| word.to_le_bytes()).collect();
            // Zeros lose their sign, nothing else changes.
            let expected: Vec<u8> =
                dense.chunks(value).flat_map(|it| if is_zero(it) { vec![0; value] } else { it.to_vec() }).collect();
            let mut packed = vec![0; mask_lines(dense.len(), value) * LINE + dense.len() + SLACK];
            compress(&dense, value, &mut packed);
            let lines = || vec![Line([7; LINE]); dense.len() / LINE];
            let (mut plain, mut fast) = (lines(), lines());
            expand_plainly(&packed, value, &mut plain);
            expand(&packed, value, &mut fast);
            let bytes = |lines: &[Line]| lines.iter().flat_map(|line| line.0).collect::<Vec<u8>>();
            prop_assert_eq!(bytes(&plain), expected.clone());
            prop_assert_eq!(bytes(&fast), expected);
        }
    }
}
