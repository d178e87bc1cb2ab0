//! Codes of 2 to 8 bits in a panel: *units* of 32 columns of sixteen rows, split into planes of bits.
//!
//! A register of 64 bytes holds a *group*: four columns of sixteen rows, four bytes a row. A unit is eight groups.
//! Its planes follow one another: eight bits, 512 bytes (register g is group g); four bits, 256 bytes (register r
//! holds group r in the low halves, r + 4 in the high ones); two bits, 128 bytes (register r holds groups r, r + 2,
//! r + 4, r + 6 from the lowest bits on); one bit, 64 bytes (bit g is group g). Lower bits of a code are in the
//! wider plane: 5 = 4 + 1, 6 = 4 + 2, 3 = 2 + 1.

use super::PANEL;
use super::simd::Simd;

/// Columns of a unit.
pub(super) const UNIT: usize = 32;

/// Bytes of a unit.
pub(super) const fn unit_bytes(bits: usize) -> usize {
    UNIT * PANEL / 8 * bits
}

/// Writes the codes of one row's 32 columns into its places of a unit.
#[inline(always)]
pub(super) fn put(bits: usize, row: usize, codes: &[u8; UNIT], unit: &mut [u8]) {
    if bits == 8 {
        return put_plane(row, codes, unit);
    }
    let (mut unit, mut shift) = (unit, 0);
    if bits >= 4 {
        let (plane, rest) = unit.split_at_mut(256);
        let bytes: [u8; 16] = std::array::from_fn(|j| (codes[j] & 15) | (codes[j + 16] << 4));
        put_plane(row, &bytes, plane);
        (unit, shift) = (rest, 4);
    }
    if bits & 2 != 0 {
        let (plane, rest) = unit.split_at_mut(128);
        let two = |at: usize, to: usize| (codes[at] >> shift & 3) << to;
        let bytes: [u8; 8] =
            std::array::from_fn(|j| two(j, 0) | two(j + 8, 2) | two(j + 16, 4) | two(j + 24, 6));
        put_plane(row, &bytes, plane);
        (unit, shift) = (rest, shift + 2);
    }
    if bits & 1 != 0 {
        let one = |j: usize, k: usize| (codes[j + 4 * k] >> shift & 1) << k;
        let bytes: [u8; 4] = std::array::from_fn(|j| (0..8).fold(0, |byte, k| byte | one(j, k)));
        put_plane(row, &bytes, unit);
    }
}

/// Writes a row's bytes of a plane: four in each register.
#[inline(always)]
pub(super) fn put_plane<const N: usize>(row: usize, bytes: &[u8; N], plane: &mut [u8]) {
    for (register, four) in plane.chunks_exact_mut(64).zip(bytes.as_chunks::<4>().0) {
        register[row * 4..][..4].copy_from_slice(four);
    }
}

/// The eight groups of a unit, a code a byte.
///
/// # Safety
/// As [`Simd`]'s functions; a whole unit can be read.
#[inline(always)]
pub(super) unsafe fn get<S: Simd, const BITS: usize>(unit: *const u8) -> [S::Bytes; 8] {
    // SAFETY: the same contract. Written out so that every shift is a constant.
    unsafe {
        [
            group::<S, BITS, 0>(unit),
            group::<S, BITS, 1>(unit),
            group::<S, BITS, 2>(unit),
            group::<S, BITS, 3>(unit),
            group::<S, BITS, 4>(unit),
            group::<S, BITS, 5>(unit),
            group::<S, BITS, 6>(unit),
            group::<S, BITS, 7>(unit),
        ]
    }
}

/// # Safety
/// As [`get`].
#[inline(always)]
unsafe fn group<S: Simd, const BITS: usize, const G: usize>(unit: *const u8) -> S::Bytes {
    // SAFETY: the planes lie in the unit, see the head of this file.
    unsafe {
        let plane = |offset: usize, register: usize| S::bytes(unit.add(offset + register * 64));
        let two = |offset: usize, to: usize| bits::<S>(plane(offset, G % 2), G / 2 * 2, to, 3);
        let one = |offset: usize, to: usize| bits::<S>(plane(offset, 0), G, to, 1);
        match BITS {
            8 => plane(0, G),
            2 => two(0, 0),
            3 => S::or(two(0, 0), one(128, 2)),
            _ => {
                let four = bits::<S>(plane(0, G % 4), G / 4 * 4, 0, 15);
                match BITS {
                    5 => S::or(four, one(256, 4)),
                    6 => S::or(four, two(256, 4)),
                    _ => four,
                }
            }
        }
    }
}

/// The bits of `mask`, moved from one place of each byte to another.
///
/// # Safety
/// As [`Simd`]'s functions.
#[inline(always)]
unsafe fn bits<S: Simd>(a: S::Bytes, from: usize, to: usize, mask: u8) -> S::Bytes {
    // SAFETY: the same contract.
    unsafe {
        let moved = match (from.saturating_sub(to), to.saturating_sub(from)) {
            (1, _) => S::shift_right::<1>(a),
            (2, _) => S::shift_right::<2>(a),
            (3, _) => S::shift_right::<3>(a),
            (4, _) => S::shift_right::<4>(a),
            (5, _) => S::shift_right::<5>(a),
            (6, _) => S::shift_right::<6>(a),
            (7, _) => S::shift_right::<7>(a),
            (_, 1) => S::shift_left::<1>(a),
            (_, 2) => S::shift_left::<2>(a),
            (_, 3) => S::shift_left::<3>(a),
            (_, 4) => S::shift_left::<4>(a),
            _ => a,
        };
        S::and(moved, S::splat_byte(mask << to))
    }
}
