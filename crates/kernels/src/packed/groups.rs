//! ounce's own group formats: `w = d · (c − z)` with codes c of 2, 3, 4 or 8 bits, where 32, 64, 128 or 256 values of a
//! row share the f16 scale d and the whole zero point z. What GPTQ, AWQ and their like make fits in without loss.
//!
//! A panel ([`panel`](super::panel)): groups of codes (see [`planes`](super::planes)) with sixteen scales (f16) and sixteen
//! zero points (a byte each). Activations are int8 with a scale for a group; a group adds `d · a · (Σ c · v − z · Σ v)`,
//! the sums exact in integers.

use half::f16;

use super::dispatch::{self, Product, Tile};
use super::panel::Blocks;
use super::planes::{self, UNIT};
use super::product::signed;
use super::simd::Simd;
#[cfg(target_arch = "x86_64")]
use super::tiles::{Parted, Unit};
use super::{Form, Int8, Layout, PANEL, Tiles};
use crate::DType;
use crate::quant::groups as stored;

/// Codes of a matrix in groups, `[rows, columns]`, with a scale and a zero point for each group of a row.
#[derive(Debug, Clone, Copy)]
pub struct Groups<'a> {
    /// Bits of a code: 2, 3, 4 or 8.
    pub bits: usize,
    /// Values of a group: 32, 64, 128 or 256.
    pub group: usize,
    /// Rows.
    pub rows: usize,
    /// Columns, a multiple of `group`.
    pub columns: usize,
    /// `[rows, columns]`, each below 2^bits.
    pub codes: &'a [u8],
    /// `[rows, columns / group]`.
    pub scales: &'a [f16],
    /// `[rows, columns / group]`.
    pub zeros: &'a [u8],
}

/// Bytes of a group's scales and zero points.
const EXTRAS: usize = PANEL * 3;
/// Offset of the zero points in them.
const ZEROS_AT: usize = PANEL * 2;

/// Sizes of a group for a whole panel.
const fn blocks(bits: usize, group: usize) -> Blocks {
    Blocks { codes: planes::unit_bytes(bits) * (group / UNIT), extras: EXTRAS }
}

/// The layout of a number of bits and a group size.
pub(super) fn layout(bits: usize, group: usize) -> Option<&'static Layout> {
    macro_rules! layouts {
        ($($bits:literal)*) => {
            match (bits, group) {
                $(
                    ($bits, 32) => Some(const { &layout_of::<$bits, 32>() }),
                    ($bits, 64) => Some(const { &layout_of::<$bits, 64>() }),
                    ($bits, 128) => Some(const { &layout_of::<$bits, 128>() }),
                    ($bits, 256) => Some(const { &layout_of::<$bits, 256>() }),
                )*
                _ => None,
            }
        };
    }
    layouts!(2 3 4 8)
}

const fn layout_of<const BITS: usize, const GROUP: usize>() -> Layout {
    Layout {
        block: GROUP,
        bytes: blocks(BITS, GROUP).bytes(),
        form: Form::Int8(Int8 { block: GROUP, offset: 0, part: UNIT }),
        pack: pack_stored::<BITS, GROUP>,
        kernel: dispatch::kernel::<Grouped<BITS, GROUP>>,
        tiles: tiles::<BITS, GROUP>(),
    }
}

/// Whether a code of up to four bits less its zero point fits a signed byte everywhere, as tiles want it.
pub(super) fn differences_fit(mut zeros: impl Iterator<Item = u8>) -> bool {
    zeros.all(|zero| zero <= 128)
}

/// The same of stored blocks; true for other formats, whose tiles take all there is.
pub(super) fn stored_differences_fit(dtype: DType, stored: &[u8]) -> bool {
    let zeros = || stored.chunks_exact(dtype.block_bytes()).map(|block| block[2]);
    dtype.group_shape().is_none() || differences_fit(zeros())
}

/// Packs stored rows into a panel, a block at a time.
fn pack_stored<const BITS: usize, const GROUP: usize>(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    let (sizes, block_bytes) = (const { blocks(BITS, GROUP) }, const { stored::block_bytes(BITS, GROUP) });
    let mut codes = [0; GROUP];
    for (row, blocks) in rows.chunks_exact(row_bytes).enumerate() {
        for (index, block) in blocks.chunks_exact(block_bytes).enumerate() {
            let (scale, zero) = stored::read_block(BITS, block, &mut codes);
            let (units, extras) = sizes.split(out, index, row_bytes / block_bytes);
            put_group(BITS, row, &codes, scale, zero, units, extras);
        }
    }
}

/// Puts a row's group into the units and extras of a panel's group.
fn put_group(
    bits: usize,
    row: usize,
    codes: &[u8],
    scale: f16,
    zero: u8,
    units: &mut [u8],
    extras: &mut [u8],
) {
    let units = units.chunks_exact_mut(planes::unit_bytes(bits));
    for (unit, codes) in units.zip(codes.as_chunks::<UNIT>().0) {
        // Eight bits go in as signed numbers, 128 less.
        let codes = if bits == 8 { codes.map(|code| code ^ 0x80) } else { *codes };
        planes::put(bits, row, &codes, unit);
    }
    extras[row * 2..][..2].copy_from_slice(&scale.to_le_bytes());
    extras[ZEROS_AT + row] = zero;
}

/// Packs the rows from `first` on into a panel.
pub(super) fn pack(matrix: &Groups<'_>, first: usize, out: &mut [u8]) {
    let Groups { bits, group, columns, .. } = *matrix;
    let (groups, sizes) = (columns / group, blocks(bits, group));
    for row in 0..PANEL.min(matrix.rows - first) {
        let codes = &matrix.codes[(first + row) * columns..][..columns];
        for (index, codes) in codes.chunks_exact(group).enumerate() {
            let (units, extras) = sizes.split(out, index, groups);
            let at = (first + row) * groups + index;
            put_group(bits, row, codes, matrix.scales[at], matrix.zeros[at], units, extras);
        }
    }
}

/// The kernel of AMX's tiles. Codes of eight bits less their zero points do not fit a byte.
const fn tiles<const BITS: usize, const GROUP: usize>() -> Option<Tiles> {
    #[cfg(target_arch = "x86_64")]
    return if BITS < 8 { Some(super::tiles::kernel::<Grouped<BITS, GROUP>>()) } else { None };
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// The product of a format.
struct Grouped<const BITS: usize, const GROUP: usize>;

impl<const BITS: usize, const GROUP: usize> Product for Grouped<BITS, GROUP> {
    const TAKEN_APART: bool = true;

    #[inline(always)]
    unsafe fn sums<S: Simd, const T: usize>(panel: &[u8], tile: Tile<'_>, sums: &mut [[f32; PANEL]]) {
        let (groups, sizes, unit_bytes) =
            (tile.x.columns() / GROUP, const { blocks(BITS, GROUP) }, planes::unit_bytes(BITS));
        let x = tile.x.ints_at(tile.first());
        // SAFETY: all offsets stay inside the panel and the tokens' activations (`groups` groups each).
        unsafe {
            let mut total = [S::splat(0.0); T];
            for group in 0..groups {
                let (codes, extras) = sizes.places(group, groups);
                let (codes, extras) = (panel.as_ptr().add(codes), panel.as_ptr().add(extras));
                S::prefetch(extras);
                // Signed codes are 128 less than what the zero point refers to, unless they are multiplied as unsigned.
                let shift = if BITS == 8 && !S::FLIPPED { 128 } else { 0 };
                let zero = S::widen_unsigned(extras.add(ZEROS_AT));
                let negative = S::subtract_shifted::<0>(S::splat_int(shift), zero);
                let offsets = S::pair(negative, negative);
                let mut dot = [S::splat_int(0); T];
                for unit in 0..GROUP / UNIT {
                    let at = codes.add(unit * unit_bytes);
                    for line in 0..unit_bytes / 64 {
                        S::prefetch(at.add(line * 64));
                    }
                    let weights = planes::get::<S, BITS>(at);
                    let weights = if BITS == 8 { signed::<S>(weights) } else { weights };
                    let slot = (group * (GROUP / UNIT) + unit) * x.width;
                    for (t, dot) in dot.iter_mut().enumerate() {
                        *dot = S::dot_pair(*dot, offsets, x.sums.add((slot + t) * 2));
                    }
                    dot = S::dots_of(dot, &weights, BITS, x.values.add(slot * UNIT));
                }
                let scale = S::halves(extras);
                for t in 0..T {
                    let [x_scale, _] = *x.scales.add(group * x.width + t);
                    let both = S::multiply(scale, S::splat(x_scale));
                    total[t] = S::multiply_add(S::to_floats(dot[t]), both, total[t]);
                }
            }
            for t in 0..T {
                S::store(total[t], sums[t].as_mut_ptr());
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl<const BITS: usize, const GROUP: usize> Parted for Grouped<BITS, GROUP> {
    const BLOCK: usize = GROUP / UNIT;
    const PARTS: usize = 1;
    const RUN: usize = GROUP / UNIT;
    const MINIMA: bool = false;
    const SCALES_FIRST: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn take_apart(panel: &[u8], columns: usize, first: usize, count: usize, to: *mut Unit) {
        use super::simd::Avx512;
        use std::arch::x86_64::{_mm512_mullo_epi32, _mm512_set1_epi32, _mm512_sub_epi8};
        let (groups, sizes, unit_bytes) =
            (columns / GROUP, const { blocks(BITS, GROUP) }, planes::unit_bytes(BITS));
        // SAFETY: the units lie in the panel, and `to` has room for them.
        unsafe {
            for index in 0..count {
                let (group, unit) = ((first + index) / Self::RUN, (first + index) % Self::RUN);
                let (codes, extras) = sizes.places(group, groups);
                let codes = panel.as_ptr().add(codes + unit * unit_bytes);
                let extras = panel.as_ptr().add(extras);
                for line in 0..unit_bytes / 64 {
                    Avx512::prefetch(codes.add(line * 64));
                }
                // A row's zero point in each of its four bytes.
                let zeros = Avx512::widen_unsigned(extras.add(ZEROS_AT));
                let zeros = _mm512_mullo_epi32(zeros, _mm512_set1_epi32(0x0101_0101));
                let mut weights = planes::get::<Avx512, BITS>(codes);
                weights.iter_mut().for_each(|weights| *weights = _mm512_sub_epi8(*weights, zeros));
                let to = to.add(index);
                (&raw mut (*to).codes).write(weights);
                if unit == 0 {
                    (&raw mut (*to).scales[0]).write(Avx512::halves(extras));
                }
            }
        }
    }
}
