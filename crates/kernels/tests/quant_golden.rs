//! Every stored format against files made by other tools; bit for bit. `tests/golden/quant.py` made them.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use ounce_kernels::DType;
use ounce_kernels::quant::lattice::Lattice;
use ounce_kernels::quant::{can_encode, decode, decode_rows, encode, encode_rows};

const ROW: usize = 256;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/quant").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    let path = golden(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn floats(name: &str) -> Vec<f32> {
    bytes(name).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn assert_same(dtype: DType, found: &[f32], expected: &[f32]) {
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
        assert!(same, "{dtype}: value {index} is {found:e}, expected {expected:e}");
    }
}

/// Whether other tools have the format, and more than bytes to copy.
fn of_others(dtype: DType) -> bool {
    dtype != DType::F32 && dtype.group_shape().is_none()
}

#[test]
fn decoding_gives_the_bits_of_the_reference_tools() {
    for dtype in DType::all().filter(|dtype| dtype.is_weight() && of_others(*dtype)) {
        let stored = bytes(&format!("decode/{}.bin", dtype.name()));
        let expected = floats(&format!("decode/{}.f32", dtype.name()));
        let mut found = vec![0.0; expected.len()];
        decode(dtype, &stored, &mut found).unwrap();
        assert_same(dtype, &found, &expected);
    }
}

#[test]
fn decoding_needs_no_alignment() {
    for dtype in DType::all().filter(|dtype| dtype.is_weight() && of_others(*dtype)) {
        let stored = bytes(&format!("decode/{}.bin", dtype.name()));
        let expected = floats(&format!("decode/{}.f32", dtype.name()));
        let mut found = vec![0.0; expected.len()];
        for shift in 1..8 {
            let shifted = [&vec![0xff; shift], stored.as_slice()].concat();
            decode(dtype, &shifted[shift..], &mut found).unwrap();
            assert_same(dtype, &found, &expected);
        }
    }
}

/// The input of the golden encoders; the 8-bit floats got it cut to their range.
fn encoder_input(dtype: DType) -> Vec<f32> {
    let limit = match dtype {
        DType::F8E4M3 => 448.0,
        DType::F8E5M2 => 57344.0,
        _ => f32::MAX,
    };
    floats("values.f32").into_iter().map(|x| x.clamp(-limit, limit)).collect()
}

#[test]
fn encoding_gives_the_bits_of_the_reference_tools() {
    // Of points near to values ounce finds others, and nearer ones.
    let same = |dtype: &DType| can_encode(*dtype) && of_others(*dtype) && Lattice::of(*dtype).is_none();
    for dtype in DType::all().filter(same) {
        let values = encoder_input(dtype);
        let expected = bytes(&format!("encode/{}.bin", dtype.name()));
        let row_bytes = dtype.bytes_for(ROW).unwrap();
        for (row, values) in values.chunks(ROW).enumerate() {
            let mut found = Vec::new();
            encode(dtype, values, &mut found).unwrap_or_else(|error| panic!("row {row}: {error}"));
            let expected = &expected[row * row_bytes..][..row_bytes];
            let differs = found.iter().zip(expected).position(|(found, expected)| found != expected);
            assert_eq!(differs, None, "{dtype}: row {row} differs from this byte on");
        }
    }
}

#[test]
fn rows_in_parallel_give_the_same_as_one_after_another() {
    for dtype in DType::all().filter(|dtype| can_encode(*dtype)) {
        // Enough rows for several tasks, so that their order could go wrong.
        let values = encoder_input(dtype).repeat(16);
        let mut one_by_one = Vec::new();
        encode(dtype, &values, &mut one_by_one).unwrap();
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut encoded = b"kept".to_vec();
            pool.install(|| encode_rows(dtype, &values, ROW, &mut encoded)).unwrap();
            assert!(encoded.starts_with(b"kept"), "{dtype}");
            assert!(encoded[4..] == one_by_one, "{dtype}: {threads} threads");

            let mut decoded = vec![0.0; values.len()];
            pool.install(|| decode_rows(dtype, &encoded[4..], ROW, &mut decoded)).unwrap();
            let mut expected = vec![0.0; values.len()];
            decode(dtype, &one_by_one, &mut expected).unwrap();
            assert_same(dtype, &decoded, &expected);
        }
    }
}
