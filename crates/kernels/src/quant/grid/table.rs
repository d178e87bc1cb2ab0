//! The formats: levels, parts, and how scales and codes are written.

use half::f16;

use super::search::one;
use super::{Grid, Kind, Levels, PARTS, Scales};
use crate::DType;
use crate::quant::block::{f16_at, put_f16, put_halves};
use crate::quant::{groups, iq4, mxfp4, q2_k, q3_k, q4_k, q5, q5_k, q6_k, ternary};

/// Twice the numbers of E2M1 in rising order, and their codes.
const E2M1: [i8; 16] = [-12, -8, -6, -4, -3, -2, -1, 0, 0, 1, 2, 3, 4, 6, 8, 12];
const E2M1_CODES: [u8; 16] = [15, 14, 13, 12, 11, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7];
const IN_ORDER: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

const fn range(low: i16, high: i16) -> Levels {
    Levels::Range { low, high }
}

const IQ4: Levels = Levels::Table { levels: &iq4::TABLE, codes: &IN_ORDER };

/// One of ounce's group formats.
const fn of_groups<const BITS: usize>(dtype: DType, group: usize) -> Grid {
    Grid {
        dtype,
        part: group,
        levels: range(0, (1 << BITS) - 1),
        kind: Kind::Zero,
        head: &[(0, groups::HEAD)],
        put_scales: |scales, block| {
            put_f16(block, 0, scales.factor);
            block[2] = scales.minimums[0];
        },
        scales: |block| {
            let factor = f16_at(block, 0);
            Scales { second: factor, minimums: [block[2]; PARTS], ..one(factor) }
        },
        put_codes: |codes, block| groups::pack_codes(BITS, codes, &mut block[groups::HEAD..]),
    }
}

/// Every format with blocks.
pub(super) const GRIDS: &[Grid] = &[
    of_groups::<2>(DType::G2x32, 32),
    of_groups::<2>(DType::G2x64, 64),
    of_groups::<2>(DType::G2x128, 128),
    of_groups::<2>(DType::G2x256, 256),
    of_groups::<3>(DType::G3x32, 32),
    of_groups::<3>(DType::G3x64, 64),
    of_groups::<3>(DType::G3x128, 128),
    of_groups::<3>(DType::G3x256, 256),
    of_groups::<4>(DType::G4x32, 32),
    of_groups::<4>(DType::G4x64, 64),
    of_groups::<4>(DType::G4x128, 128),
    of_groups::<4>(DType::G4x256, 256),
    of_groups::<8>(DType::G8x32, 32),
    of_groups::<8>(DType::G8x64, 64),
    of_groups::<8>(DType::G8x128, 128),
    of_groups::<8>(DType::G8x256, 256),
    Grid {
        dtype: DType::TQ1_0,
        part: 256,
        levels: range(-1, 1),
        kind: Kind::One,
        head: &[(52, 54)],
        put_scales: |scales, block| put_f16(block, 52, scales.factor),
        scales: |block| one(f16_at(block, 52)),
        put_codes: |codes, block| ternary::put_threes(codes, &mut block[..52]),
    },
    Grid {
        dtype: DType::TQ2_0,
        part: 256,
        levels: range(-1, 1),
        kind: Kind::One,
        head: &[(64, 66)],
        put_scales: |scales, block| put_f16(block, 64, scales.factor),
        scales: |block| one(f16_at(block, 64)),
        put_codes: |codes, block| ternary::put_two_bits(codes, &mut block[..64]),
    },
    Grid {
        dtype: DType::Q4_0,
        part: 32,
        levels: range(-8, 7),
        kind: Kind::One,
        head: &[(0, 2)],
        put_scales: |scales, block| put_f16(block, 0, scales.factor),
        scales: |block| one(f16_at(block, 0)),
        put_codes: |codes, block| put_halves(of_32(codes), &mut block[2..]),
    },
    Grid {
        dtype: DType::Q4_1,
        part: 32,
        levels: range(0, 15),
        kind: Kind::Offset,
        head: &[(0, 4)],
        put_scales: put_offset,
        scales: |block| Scales { second: -f16_at(block, 2), minimums: [1; PARTS], ..one(f16_at(block, 0)) },
        put_codes: |codes, block| put_halves(of_32(codes), &mut block[4..]),
    },
    Grid {
        dtype: DType::Q5_0,
        part: 32,
        levels: range(-16, 15),
        kind: Kind::One,
        head: &[(0, 2)],
        put_scales: |scales, block| put_f16(block, 0, scales.factor),
        scales: |block| one(f16_at(block, 0)),
        put_codes: |codes, block| q5::put_codes(of_32(codes), &mut block[2..]),
    },
    Grid {
        dtype: DType::Q5_1,
        part: 32,
        levels: range(0, 31),
        kind: Kind::Offset,
        head: &[(0, 4)],
        put_scales: put_offset,
        scales: |block| Scales { second: -f16_at(block, 2), minimums: [1; PARTS], ..one(f16_at(block, 0)) },
        put_codes: |codes, block| q5::put_codes(of_32(codes), &mut block[4..]),
    },
    Grid {
        dtype: DType::Q8_0,
        part: 32,
        levels: range(-127, 127),
        kind: Kind::One,
        head: &[(0, 2)],
        put_scales: |scales, block| put_f16(block, 0, scales.factor),
        scales: |block| one(f16_at(block, 0)),
        put_codes: |codes, block| {
            // Code 0 is -127.
            block[2..].iter_mut().zip(codes).for_each(|(byte, code)| *byte = code.wrapping_sub(127));
        },
    },
    Grid {
        dtype: DType::Q2K,
        part: 16,
        levels: range(0, 3),
        kind: Kind::SuperMinimum { top: 15 },
        head: &[(0, 16), (80, 84)],
        put_scales: |scales, block| {
            for (part, byte) in block[..16].iter_mut().enumerate() {
                *byte = scales.scales[part] as u8 | scales.minimums[part] << 4;
            }
            put_f16(block, 80, scales.factor);
            put_f16(block, 82, scales.second);
        },
        scales: |block| Scales {
            factor: f16_at(block, 80),
            second: f16_at(block, 82),
            scales: std::array::from_fn(|part| (block[part] & 15) as i8),
            minimums: std::array::from_fn(|part| block[part] >> 4),
        },
        put_codes: q2_k::put_codes,
    },
    Grid {
        dtype: DType::Q3K,
        part: 16,
        levels: range(-4, 3),
        kind: Kind::Super { low: -32, high: 31 },
        head: &[(96, 110)],
        put_scales: |scales, block| {
            q3_k::put_scales(&scales.scales, &mut block[96..108]);
            put_f16(block, 108, scales.factor);
        },
        scales: |block| Scales { scales: q3_k::scales(&block[96..108]), ..one(f16_at(block, 108)) },
        put_codes: q3_k::put_codes,
    },
    Grid {
        dtype: DType::Q4K,
        part: 32,
        levels: range(0, 15),
        kind: Kind::SuperMinimum { top: 63 },
        head: &[(0, 16)],
        put_scales: put_q4_k_scales,
        scales: q4_k_scales,
        put_codes: q4_k::put_codes,
    },
    Grid {
        dtype: DType::Q5K,
        part: 32,
        levels: range(0, 31),
        kind: Kind::SuperMinimum { top: 63 },
        head: &[(0, 16)],
        put_scales: put_q4_k_scales,
        scales: q4_k_scales,
        put_codes: q5_k::put_codes,
    },
    Grid {
        dtype: DType::Q6K,
        part: 16,
        levels: range(-32, 31),
        kind: Kind::Super { low: -128, high: 127 },
        head: &[(q6_k::SCALES, q6_k::BYTES)],
        put_scales: |scales, block| {
            put_f16(block, q6_k::SUPER_SCALE, scales.factor);
            let stored = &mut block[q6_k::SCALES..][..PARTS];
            stored.iter_mut().zip(&scales.scales).for_each(|(byte, scale)| *byte = *scale as u8);
        },
        scales: |block| Scales {
            scales: std::array::from_fn(|part| block[q6_k::SCALES + part] as i8),
            ..one(f16_at(block, q6_k::SUPER_SCALE))
        },
        put_codes: q6_k::put_codes,
    },
    Grid {
        dtype: DType::IQ4NL,
        part: 32,
        levels: IQ4,
        kind: Kind::One,
        head: &[(0, 2)],
        put_scales: |scales, block| put_f16(block, 0, scales.factor),
        scales: |block| one(f16_at(block, 0)),
        put_codes: |codes, block| put_halves(of_32(codes), &mut block[2..]),
    },
    Grid {
        dtype: DType::IQ4XS,
        part: 32,
        levels: IQ4,
        kind: Kind::Super { low: -32, high: 31 },
        head: &[(0, 8)],
        put_scales: |scales, block| {
            put_f16(block, 0, scales.factor);
            iq4::put_scales(&std::array::from_fn(|part| scales.scales[part]), block);
        },
        scales: |block| {
            let stored = iq4::scales(block);
            Scales { scales: std::array::from_fn(|part| stored[part % 8]), ..one(f16_at(block, 0)) }
        },
        put_codes: |codes, block| {
            for (group, codes) in codes.as_chunks::<32>().0.iter().enumerate() {
                put_halves(codes, &mut block[8 + 16 * group..]);
            }
        },
    },
    Grid {
        dtype: DType::MXFP4,
        part: 32,
        levels: Levels::Table { levels: &E2M1, codes: &E2M1_CODES },
        kind: Kind::PowerOfTwo,
        head: &[(0, 1)],
        // The search gives powers of two that the format has.
        put_scales: |scales, block| block[0] = (scales.factor.to_bits() >> 23) as u8 + 1,
        scales: |block| one(mxfp4::half_scale(block[0])),
        put_codes: |codes, block| put_halves(of_32(codes), &mut block[1..]),
    },
];

/// A codebook format: scales are odd, and d is divided by 8.
const fn codebook(
    dtype: DType,
    part: usize,
    head: &'static [(usize, usize)],
    put_scales: fn(&Scales, &mut [u8]),
    scales: fn(&[u8]) -> Scales,
) -> Grid {
    Grid {
        dtype,
        part,
        levels: range(-43, 43),
        kind: Kind::Codebook { high: 31 },
        head,
        put_scales,
        scales,
        put_codes: |_, _| {},
    }
}

/// The odd scale of four bits.
fn odd(bits: u8) -> i8 {
    (2 * (bits & 15) + 1) as i8
}

/// Two scales a byte.
fn pairs(block: &[u8], at: usize) -> Scales {
    let scale = |part: usize| odd(block[at + part / 2] >> (part % 2 * 4));
    Scales { scales: std::array::from_fn(scale), ..one(f16_at(block, 0) * 0.125) }
}

fn put_pairs(scales: &Scales, block: &mut [u8], at: usize) {
    put_f16(block, 0, scales.factor * 8.0);
    for (byte, pair) in block[at..].iter_mut().zip(scales.scales.as_chunks::<2>().0) {
        *byte = (pair[0] >> 1 | pair[1] >> 1 << 4) as u8;
    }
}

/// Codebook formats, of which steps can be trained.
pub(super) const CODEBOOKS: &[Grid] = &[
    codebook(
        DType::IQ2XXS,
        32,
        &[(0, 2)],
        |scales, block| {
            put_f16(block, 0, scales.factor * 8.0);
            for (group, scale) in block[2..].as_chunks_mut::<8>().0.iter_mut().zip(scales.scales) {
                group[7] = group[7] & 15 | (scale as u8 >> 1) << 4;
            }
        },
        |block| {
            let scale = |part: usize| odd(block[2 + part % 8 * 8 + 7] >> 4);
            Scales { scales: std::array::from_fn(scale), ..one(f16_at(block, 0) * 0.125) }
        },
    ),
    codebook(
        DType::IQ2XS,
        16,
        &[(0, 2), (66, 74)],
        |it, block| put_pairs(it, block, 66),
        |block| pairs(block, 66),
    ),
    codebook(
        DType::IQ2S,
        16,
        &[(0, 2), (74, 82)],
        |it, block| put_pairs(it, block, 74),
        |block| pairs(block, 74),
    ),
];

fn of_32(codes: &[u8]) -> &[u8; 32] {
    codes.as_array().expect("a block of 32 values")
}

/// F16 scale, then F16 offset.
fn put_offset(scales: &Scales, block: &mut [u8]) {
    put_f16(block, 0, scales.factor);
    block[2..4].copy_from_slice(&f16::from_f32(-scales.second).to_le_bytes());
}

fn q4_k_scales(block: &[u8]) -> Scales {
    let mut found = Scales { second: f16_at(block, 2), ..one(f16_at(block, 0)) };
    for part in 0..8 {
        let (scale, minimum) = q4_k::group_scale(&block[4..16], part);
        (found.scales[part], found.minimums[part]) = (scale as i8, minimum);
    }
    found
}

fn put_q4_k_scales(scales: &Scales, block: &mut [u8]) {
    put_f16(block, 0, scales.factor);
    put_f16(block, 2, scales.second);
    for part in 0..8 {
        let scale = scales.scales[part] as u8;
        q4_k::put_group_scale(&mut block[4..16], part, scale, scales.minimums[part]);
    }
}
