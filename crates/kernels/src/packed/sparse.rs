//! Panels of matrices with many zeros: a mask of the values that are there, and these values one after the other.
//!
//! A dense panel is lines of 64 bytes: 32 values of F16 or BF16, 16 of F32. Of each line a mask keeps a bit for every value, and what
//! is not zero stands packed in the order of the bits, so that a matrix with a share `s` of zeros takes `1 − s + 1/16` of its
//! bytes (1/32 for F32), whatever pattern the zeros have: two of four cost what a format of their own would. Decoding is bound by
//! bytes, so it gains what they shrink by. Few tokens with BF16 put values back in registers; otherwise a thread expands a panel
//! into its second-level cache, where the dense kernel of the format takes it, and many tokens share that work.

use std::cell::RefCell;

use super::buffer::Buffer;
use super::{Activations, PANEL, QuantError};
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
        if !expands_fast() || !panel_bytes.is_multiple_of(LINE) {
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
        let masks = panel_bytes / (8 * value);
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

    /// Bytes of all panels.
    fn bytes(&self) -> usize {
        self.starts.last().map_or(0, |end| end + SLACK)
    }

    /// Packs every panel: `pack` writes the dense one.
    pub(super) fn pack(
        &self,
        panel_bytes: usize,
        pack: impl Fn(usize, &mut [u8]) + Sync,
    ) -> Result<Buffer, QuantError> {
        let bytes = self.bytes();
        let mut data =
            Buffer::zeroed(bytes).map_err(|error| QuantError::Memory { bytes, reason: error.to_string() })?;
        let mut parts = Vec::with_capacity(self.starts.len());
        let mut rest = data.as_mut_slice();
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
        Ok(data)
    }

    /// The masks of a panel, and its values with all that follows them: a line can be read at each.
    pub(super) fn panel<'d>(&self, data: &'d [u8], panel: usize, panel_bytes: usize) -> (&'d [u8], &'d [u8]) {
        let own = &data[self.starts[panel]..];
        assert!(own.len() >= self.starts[panel + 1] - self.starts[panel] + SLACK, "panels and slack");
        own.split_at(panel_bytes / (8 * self.value))
    }
}

/// Gives the dense form of a panel to `then`.
pub(super) fn expanded(masks: &[u8], values: &[u8], panel_bytes: usize, then: impl FnOnce(&[u8])) {
    EXPANDED.with_borrow_mut(|lines| {
        lines.resize(lines.len().max(panel_bytes / LINE), Line([0; LINE]));
        let lines = &mut lines[..panel_bytes / LINE];
        expand(masks, values, panel_bytes / (8 * masks.len()), lines);
        // SAFETY: lines are bytes.
        let dense = unsafe { std::slice::from_raw_parts(lines.as_ptr().cast::<u8>(), panel_bytes) };
        then(dense);
    });
}

/// Kernels that put values back in registers.
#[derive(Clone, Copy)]
pub(super) struct Fused {
    /// Sums of a panel with up to [`super::TILE`] tokens from `first` on.
    pub one: fn(
        masks: &[u8],
        values: &[u8],
        x: &Activations,
        first: usize,
        tokens: usize,
        sums: &mut [[f32; PANEL]],
    ),
    /// Sums of two panels, by their masks and values, with the only token.
    pub pair: fn(panels: [(&[u8], &[u8]); 2], x: &Activations, sums: &mut [[f32; PANEL]]),
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

/// Masks first, then the values that are there.
fn compress(dense: &[u8], value: usize, out: &mut [u8]) {
    let mask_bytes = LINE / value / 8;
    let masks = dense.len() / LINE * mask_bytes;
    let mut at = masks;
    for (index, line) in dense.chunks_exact(LINE).enumerate() {
        let mut mask = 0u32;
        for (bit, bytes) in line.chunks_exact(value).enumerate() {
            if !is_zero(bytes) {
                mask |= 1 << bit;
                out[at..at + value].copy_from_slice(bytes);
                at += value;
            }
        }
        out[index * mask_bytes..][..mask_bytes].copy_from_slice(&mask.to_le_bytes()[..mask_bytes]);
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

fn expand(masks: &[u8], values: &[u8], value: usize, out: &mut [Line]) {
    assert_eq!(masks.len(), out.len() * (LINE / value / 8), "a mask for every line");
    #[cfg(target_arch = "x86_64")]
    if expands_fast() {
        debug_assert!({
            let kept: usize = masks.iter().map(|mask| mask.count_ones() as usize).sum();
            values.len() >= kept * value + SLACK
        });
        // SAFETY: the instructions are there; `compress` wrote masks and values together, so that these are as many as the bits
        // of the masks, and behind the last panel a line is left.
        unsafe {
            match value {
                2 => x86::expand_halves(masks, values.as_ptr(), out),
                _ => x86::expand_words(masks, values.as_ptr(), out),
            }
        }
        return;
    }
    expand_plainly(masks, values, value, out);
}

fn expand_plainly(masks: &[u8], values: &[u8], value: usize, out: &mut [Line]) {
    let mut at = 0;
    for (line, mask) in out.iter_mut().zip(masks.chunks_exact(LINE / value / 8)) {
        for (bit, place) in line.0.chunks_exact_mut(value).enumerate() {
            if mask[bit / 8] >> (bit % 8) & 1 == 1 {
                place.copy_from_slice(&values[at..at + value]);
                at += value;
            } else {
                place.fill(0);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::*;

    use super::{LINE, Line};

    /// Loads a line into a register. The compiler would make the load a part of the expansion, and an expansion from memory takes
    /// four times as long as a load and an expansion between registers (Zen 5).
    ///
    /// # Safety
    /// The processor has AVX-512; the line can be read.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn load(from: *const u8) -> __m512i {
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

    /// # Safety
    /// The processor has the instructions; every line of `out` has a mask of 32 bits, and at each place where the values of a mask
    /// begin a line can be read.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
    pub(super) unsafe fn expand_halves(masks: &[u8], mut values: *const u8, out: &mut [Line]) {
        // SAFETY: the same contract.
        unsafe {
            for (index, line) in out.iter_mut().enumerate() {
                let mask = masks.as_ptr().add(index * 4).cast::<u32>().read_unaligned();
                _mm_prefetch::<_MM_HINT_T0>(values.wrapping_add(1024).cast());
                let packed = load(values);
                _mm512_store_si512(line.0.as_mut_ptr().cast(), _mm512_maskz_expand_epi16(mask, packed));
                values = values.add(2 * mask.count_ones() as usize);
            }
        }
    }

    /// # Safety
    /// As [`expand_halves`], with masks of 16 bits.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
    pub(super) unsafe fn expand_words(masks: &[u8], mut values: *const u8, out: &mut [Line]) {
        const { assert!(LINE == 64) };
        // SAFETY: the same contract.
        unsafe {
            for (index, line) in out.iter_mut().enumerate() {
                let mask = masks.as_ptr().add(index * 2).cast::<u16>().read_unaligned();
                _mm_prefetch::<_MM_HINT_T0>(values.wrapping_add(1024).cast());
                let packed = load(values);
                _mm512_store_si512(line.0.as_mut_ptr().cast(), _mm512_maskz_expand_epi32(mask, packed));
                values = values.add(4 * mask.count_ones() as usize);
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
            words in proptest::collection::vec(prop_oneof![Just(0u32), any::<u32>()], 16..200),
            value in prop_oneof![Just(2usize), Just(4)],
        ) {
            let dense: Vec<u8> = words[..words.len() / 16 * 16].iter().flat_map(|word| word.to_le_bytes()).collect();
            // Zeros lose their sign, nothing else changes.
            let expected: Vec<u8> =
                dense.chunks(value).flat_map(|it| if is_zero(it) { vec![0; value] } else { it.to_vec() }).collect();
            let masks = dense.len() / (8 * value);
            let mut packed = vec![0; masks + dense.len() + SLACK];
            compress(&dense, value, &mut packed);
            let lines = || vec![Line([7; LINE]); dense.len() / LINE];
            let (mut plain, mut fast) = (lines(), lines());
            expand_plainly(&packed[..masks], &packed[masks..], value, &mut plain);
            expand(&packed[..masks], &packed[masks..], value, &mut fast);
            let bytes = |lines: &[Line]| lines.iter().flat_map(|line| line.0).collect::<Vec<u8>>();
            prop_assert_eq!(bytes(&plain), expected.clone());
            prop_assert_eq!(bytes(&fast), expected);
        }
    }
}
