//! Promises of the formats on any input: error bounds of decode(encode(x)), refusals, damaged scales.
//!
//! The bounds are those in the formats' own files (`src/quant/`).

#![allow(clippy::unwrap_used)]

use ounce_kernels::DType;
use ounce_kernels::quant::{
    QuantError, can_encode, check_scales, decode, decode_rows, encode, encode_rows, groups,
};
use proptest::prelude::*;

fn round_trip(dtype: DType, values: &[f32]) -> Vec<f32> {
    let mut bytes = Vec::new();
    encode(dtype, values, &mut bytes).unwrap();
    assert_eq!(bytes.len(), dtype.bytes_for(values.len()).unwrap());
    let mut decoded = vec![0.0; values.len()];
    decode(dtype, &bytes, &mut decoded).unwrap();
    decoded
}

/// The stated bound for one value `x` of a block.
fn bound(dtype: DType, block: &[f32], x: f32) -> f64 {
    let of = |exponent: i32| 2f64.powi(exponent);
    let min = f64::from(block.iter().copied().fold(f32::MAX, f32::min));
    let max = f64::from(block.iter().copied().fold(f32::MIN, f32::max));
    let a = max.abs().max(min.abs());
    let range = max - min;
    let x = f64::from(x.abs());
    if let Some((bits, _)) = dtype.group_shape() {
        let (range, top) = (max.max(0.0) - min.min(0.0), of(bits as i32) - 1.0);
        return range / (2.0 * top) * (1.0 + of(-10)) + range * of(-11) + (top + 1.0) * of(-25);
    }
    match dtype {
        DType::F32 => 0.0,
        DType::F16 => (x * of(-11)).max(of(-25)),
        DType::BF16 => (x * of(-8)).max(of(-134)),
        DType::F8E4M3 => (x * of(-4)).max(of(-10)),
        DType::F8E5M2 => (x * of(-3)).max(of(-17)),
        DType::Q4_0 => a / 8.0 * (1.0 + of(-8)) + 8.0 * of(-25),
        DType::Q4_1 => range / 30.0 * (1.0 + of(-6)) + min.abs() * of(-11) + 16.0 * of(-25),
        DType::Q5_0 => a / 16.0 * (1.0 + of(-7)) + 16.0 * of(-25),
        DType::Q5_1 => range / 62.0 * (1.0 + of(-5)) + min.abs() * of(-11) + 32.0 * of(-25),
        DType::Q8_0 => a / 254.0 * (1.0 + of(-3)) + 127.0 * of(-25),
        DType::Q2K => max.max(0.0) - min.min(0.0) + 16.0 * 4.0 * of(-25),
        DType::Q3K | DType::IQ4XS => a + 32.0 * 128.0 * of(-25),
        DType::IQ4NL => a / 5.0 + 128.0 * of(-25),
        DType::MXFP4 => a / 4.0 + of(-127),
        DType::TQ1_0 | DType::TQ2_0 => a / 2.0 * (1.0 + of(-9)) + of(-25),
        DType::IQ2XXS | DType::IQ2XS | DType::IQ2S => a * 1.5 + 43.0 * 4.0 * of(-25),
        DType::Q4K | DType::Q5K => (max.max(0.0) - min.min(0.0)) / 3.0 + 63.0 * 32.0 * of(-25),
        DType::Q6K => a / 16.0 + 128.0 * 32.0 * of(-25),
        _ => panic!("no bound for {dtype}"),
    }
}

/// Rows of one super-block: magnitudes over many decades, zeros, constants, sparse rows.
fn rows() -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![
        4 => -1.0f32..1.0,
        1 => Just(0.0),
        1 => (-1.0f32..1.0, -12i32..4).prop_map(|(x, exponent)| x * 10f32.powi(exponent)),
    ];
    let mixed = prop::collection::vec(value, 256);
    let shifted = (mixed.clone(), -3.0f32..3.0, -8i32..3)
        .prop_map(|(row, by, exponent)| row.iter().map(|x| (x + by) * 10f32.powi(exponent)).collect());
    prop_oneof![mixed, shifted, (-400.0f32..400.0).prop_map(|x| vec![x; 256])]
}

proptest! {
    #[test]
    fn errors_stay_within_the_stated_bounds(row in rows()) {
        for dtype in DType::all().filter(|dtype| can_encode(*dtype)) {
            let limit = if dtype == DType::F8E4M3 { 448.0 } else { 5e4 };
            let values: Vec<f32> = row.iter().map(|x| x.clamp(-limit, limit)).collect();
            let decoded = round_trip(dtype, &values);
            for (values, decoded) in values.chunks(dtype.block_len()).zip(decoded.chunks(dtype.block_len())) {
                for (x, back) in values.iter().zip(decoded) {
                    let error = (f64::from(*x) - f64::from(*back)).abs();
                    let bound = bound(dtype, values, *x);
                    prop_assert!(error <= bound, "{dtype}: {x:e} became {back:e}, off by {error:e} > {bound:e}");
                }
            }
        }
    }

    #[test]
    fn any_bytes_decode_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..1000), shift in 0usize..8) {
        let bytes = &bytes[shift.min(bytes.len())..];
        for dtype in DType::all() {
            let blocks = bytes.len() / dtype.block_bytes();
            let mut out = vec![0.0; blocks * dtype.block_len()];
            let whole = &bytes[..blocks * dtype.block_bytes()];
            prop_assert_eq!(decode(dtype, whole, &mut out).is_ok(), dtype.is_weight());
            if dtype.is_block() && check_scales(dtype, whole).is_none() {
                prop_assert!(out.iter().all(|x| x.is_finite() || dtype == DType::MXFP4), "{}", dtype);
            }
        }
    }
}

proptest! {
    #[test]
    fn groups_are_one_stream_of_bits(codes in prop::collection::vec(any::<u8>(), 256), zero in any::<u8>()) {
        let scale = half::f16::from_f32(0.37);
        for dtype in DType::all() {
            let Some((bits, group)) = dtype.group_shape() else { continue };
            let codes: Vec<u8> = codes[..group].iter().map(|code| code >> (8 - bits)).collect();
            let mut block = vec![0xa5; dtype.block_bytes()];
            groups::write_block(bits, scale, zero, &codes, &mut block);
            let bit = |at: usize| block[3 + at / 8] >> (at % 8) & 1;
            let mut values = vec![0.0; group];
            decode(dtype, &block, &mut values).unwrap();
            for (i, &code) in codes.iter().enumerate() {
                let naive = (0..bits).fold(0, |code, k| code | bit(i * bits + k) << k);
                prop_assert_eq!(naive, code, "{} code {}", dtype, i);
                let value = f64::from(scale) * (f64::from(code) - f64::from(zero));
                prop_assert_eq!(f64::from(values[i]), value, "exact in f32");
            }
            let mut back = vec![0; group];
            prop_assert_eq!(groups::read_block(bits, &block, &mut back), (scale, zero));
            prop_assert_eq!(back, codes);
        }
    }
}

/// Root mean square error over deviation for normally distributed values; the K formats promise it.
#[test]
fn normal_weights_keep_their_precision() {
    // A sum of twelve uniform numbers (of a fixed linear congruential generator) is near enough to normal.
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let values: Vec<f32> = (0..64 * 256).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect();
    for (dtype, at_least, at_most) in [
        (DType::Q2K, 0.25, 0.35),
        (DType::Q3K, 0.12, 0.2),
        (DType::Q4K, 0.06, 0.08),
        (DType::Q5K, 0.03, 0.04),
        (DType::Q6K, 0.01, 0.02),
        (DType::IQ4NL, 0.07, 0.09),
        (DType::IQ4XS, 0.07, 0.09),
        (DType::MXFP4, 0.1, 0.15),
        (DType::IQ2XXS, 0.3, 0.34),
        (DType::IQ2XS, 0.25, 0.3),
        (DType::IQ2S, 0.2, 0.25),
    ] {
        let decoded = round_trip(dtype, &values);
        let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x * x)).sum::<f64>();
        let error = squares(&mut values.iter().zip(&decoded).map(|(x, back)| x - back));
        let relative = (error / squares(&mut values.iter().copied())).sqrt();
        assert!((at_least..at_most).contains(&relative), "{dtype}: {relative}");
    }
}

#[test]
fn wrong_lengths_are_refused_with_the_numbers() {
    let mut out = [0.0; 33];
    assert_eq!(
        decode(DType::Q4_0, &[0; 18], &mut out),
        Err(QuantError::Partial { dtype: DType::Q4_0, block: 32, values: 33 })
    );
    for found in [17, 19, 36] {
        let wrong = QuantError::Size { dtype: DType::Q4_0, values: 32, expected: 18, found };
        assert_eq!(decode(DType::Q4_0, &vec![0; found], &mut out[..32]), Err(wrong));
    }
    let mut bytes = vec![7];
    let partial = Err(QuantError::Partial { dtype: DType::Q4K, block: 256, values: 32 });
    assert_eq!(encode(DType::Q4K, &[0.0; 32], &mut bytes), partial);
    // The whole is a number of blocks here, a row is not.
    assert_eq!(encode_rows(DType::Q4K, &[0.0; 256], 32, &mut bytes), partial);
    assert_eq!(decode_rows(DType::Q4K, &[0; 144], 32, &mut [0.0; 256]), partial);
    assert_eq!(bytes, [7]);
}

#[test]
fn empty_input_is_an_empty_row() {
    for dtype in DType::all().filter(|dtype| dtype.is_weight()) {
        decode(dtype, &[], &mut []).unwrap();
        decode_rows(dtype, &[], 0, &mut []).unwrap();
        if can_encode(dtype) {
            let mut bytes = Vec::new();
            encode(dtype, &[], &mut bytes).unwrap();
            encode_rows(dtype, &[], dtype.block_len(), &mut bytes).unwrap();
            assert!(bytes.is_empty(), "{dtype}");
        }
    }
}

#[test]
fn formats_without_encoder_say_so() {
    for dtype in DType::all().filter(|dtype| !can_encode(*dtype)) {
        let mut bytes = Vec::new();
        let refused = encode(dtype, &vec![0.0; dtype.block_len()], &mut bytes);
        assert_eq!(refused, Err(QuantError::Unsupported { dtype, what: "written" }));
        assert!(bytes.is_empty(), "{dtype}");
    }
}

#[test]
fn block_formats_refuse_what_is_not_finite() {
    for dtype in DType::all().filter(|dtype| can_encode(*dtype) && dtype.is_block()) {
        let len = dtype.block_len();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
            let mut values = vec![0.5; 3 * len];
            values[2 * len - 1] = bad;
            let refused = Err(QuantError::Range { dtype, first: len, end: 2 * len });
            let mut bytes = Vec::new();
            assert_eq!(encode(dtype, &values, &mut bytes), refused, "{bad}");
            assert!(bytes.is_empty(), "{dtype}");
        }
    }
}

#[test]
fn rows_name_the_first_bad_block_of_the_whole() {
    let mut values = vec![0.5; 1 << 18];
    for bad in [200_000, 150_001, 250_000] {
        values[bad] = f32::NAN;
    }
    let refused = QuantError::Range { dtype: DType::Q8_0, first: 149_984, end: 150_016 };
    assert_eq!(encode_rows(DType::Q8_0, &values, 64, &mut Vec::new()), Err(refused));
}

#[test]
fn plain_formats_keep_infinities_and_refuse_overflow() {
    let cases = [
        (DType::F16, 65519.996, 65520.0),
        (DType::BF16, f32::from_bits(0x7f7f_7fff), f32::from_bits(0x7f7f_8000)),
        (DType::F8E4M3, 464.0, 464.00003),
        (DType::F8E5M2, 61439.996, 61440.0),
    ];
    for (dtype, fits, too_large) in cases {
        assert!(round_trip(dtype, &[fits, -fits]).iter().all(|x| x.is_finite()), "{dtype}");
        let refused = Err(QuantError::Range { dtype, first: 1, end: 2 });
        assert_eq!(encode(dtype, &[1.0, -too_large], &mut Vec::new()), refused);
        let kept = round_trip(dtype, &[f32::NAN, f32::NEG_INFINITY]);
        assert!(kept[0].is_nan(), "{dtype}");
        assert!(kept[1] == f32::NEG_INFINITY || dtype == DType::F8E4M3, "{dtype}");
    }
}

#[test]
fn damaged_scales_are_found_at_their_block() {
    let scales: [(DType, &[usize]); 12] = [
        (DType::Q4_0, &[0]),
        (DType::Q4_1, &[0, 2]),
        (DType::Q5_0, &[0]),
        (DType::Q5_1, &[0, 2]),
        (DType::Q8_0, &[0]),
        (DType::Q2K, &[80, 82]),
        (DType::Q3K, &[108]),
        (DType::Q4K, &[0, 2]),
        (DType::Q5K, &[0, 2]),
        (DType::Q6K, &[208]),
        (DType::IQ4NL, &[0]),
        (DType::IQ4XS, &[0]),
    ];
    for (dtype, places) in scales {
        let block = dtype.block_bytes();
        assert_eq!(check_scales(dtype, &vec![0; 4 * block]), None);
        for place in places {
            // Infinity, negative infinity, two NaNs; then the largest finite number.
            for bits in [0x7c00u16, 0xfc00, 0x7c01, 0x7e00] {
                let mut bytes = vec![0; 4 * block];
                bytes[2 * block + place..][..2].copy_from_slice(&bits.to_le_bytes());
                assert_eq!(check_scales(dtype, &bytes), Some(2 * block), "{dtype} {bits:x}");
            }
            let mut bytes = vec![0; block];
            bytes[*place..][..2].copy_from_slice(&0x7bffu16.to_le_bytes());
            assert_eq!(check_scales(dtype, &bytes), None, "{dtype}");
        }
    }
    for dtype in DType::all().filter(|dtype| dtype.group_shape().is_some()) {
        let block = dtype.block_bytes();
        let mut bytes = vec![0xff; 3 * block];
        (0..3).for_each(|i| bytes[i * block + 1] = 0x7b);
        assert_eq!(check_scales(dtype, &bytes), None, "{dtype}");
        bytes[block + 1] = 0xfc;
        assert_eq!(check_scales(dtype, &bytes), Some(block), "{dtype}");
    }
    assert_eq!(check_scales(DType::MXFP4, &[[0xfe; 17], [0xff; 17]].concat()), Some(17));
    assert_eq!(check_scales(DType::F32, &f32::NAN.to_le_bytes()), None);
}
