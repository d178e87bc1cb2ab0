//! Blocks of the codebook formats that are written: what [`super::parts`] takes apart, put together.

use super::search::{Near, Scales};
use crate::quant::block::put_f16;

/// A scale's four bits.
fn bits(scale: u8) -> u8 {
    scale >> 1
}

/// Two scales of four bits a byte, the first in the low half.
fn put_scales(scales: &Scales, bytes: &mut [u8]) {
    for (byte, pair) in bytes.iter_mut().zip(scales.scales.as_chunks::<2>().0) {
        *byte = bits(pair[0]) | bits(pair[1]) << 4;
    }
}

pub(super) fn iq2_xxs(scales: &Scales, chosen: &[Near], block: &mut [u8]) {
    put_f16(block, 0, scales.factor);
    let groups = block[2..].as_chunks_mut::<8>().0.iter_mut().zip(chosen.as_chunks::<4>().0);
    for ((stored, chosen), scale) in groups.zip(scales.scales) {
        let mut word = u32::from(bits(scale)) << 28;
        for (at, near) in chosen.iter().enumerate() {
            stored[at] = near.place as u8;
            word |= u32::from(near.signs & 127) << (7 * at);
        }
        stored[4..].copy_from_slice(&word.to_le_bytes());
    }
}

pub(super) fn iq2_xs(scales: &Scales, chosen: &[Near], block: &mut [u8]) {
    put_f16(block, 0, scales.factor);
    for (stored, near) in block[2..66].as_chunks_mut::<2>().0.iter_mut().zip(chosen) {
        *stored = (near.place | u16::from(near.signs & 127) << 9).to_le_bytes();
    }
    put_scales(scales, &mut block[66..]);
}

pub(super) fn iq2_s(scales: &Scales, chosen: &[Near], block: &mut [u8]) {
    put_f16(block, 0, scales.factor);
    for (at, near) in chosen.iter().enumerate() {
        block[2 + at] = near.place as u8;
        block[34 + at] = near.signs;
        block[66 + at / 4] |= ((near.place >> 8) as u8) << (at % 4 * 2);
    }
    put_scales(scales, &mut block[74..]);
}
