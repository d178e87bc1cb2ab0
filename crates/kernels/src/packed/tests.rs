//! Packed products against the product of decoded weights and decoded activations, for every format, path, token
//! count and ragged number of rows.

use super::*;
use crate::quant;

const FORMATS: [DType; 41] = [
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::Q8_0,
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::IQ4NL,
    DType::MXFP4,
    DType::Q2K,
    DType::Q3K,
    DType::Q4K,
    DType::Q5K,
    DType::Q6K,
    DType::IQ4XS,
    DType::IQ1S,
    DType::IQ1M,
    DType::IQ2XXS,
    DType::IQ2XS,
    DType::IQ2S,
    DType::IQ3XXS,
    DType::IQ3S,
    DType::TQ1_0,
    DType::TQ2_0,
    DType::G2x32,
    DType::G2x64,
    DType::G2x128,
    DType::G2x256,
    DType::G3x32,
    DType::G3x64,
    DType::G3x128,
    DType::G3x256,
    DType::G4x32,
    DType::G4x64,
    DType::G4x128,
    DType::G4x256,
    DType::G8x32,
    DType::G8x64,
    DType::G8x128,
    DType::G8x256,
];

/// Where the f16 scales of a block stand.
fn scales(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::Q2K => &[80, 82],
        DType::Q3K => &[108],
        DType::Q6K => &[208],
        DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => &[0, 2],
        DType::TQ1_0 => &[52],
        DType::TQ2_0 => &[64],
        _ => &[0],
    }
}

/// Puts an f16 wherever the block has one.
fn put_scales(dtype: DType, half: [u8; 2], block: &mut [u8]) {
    if dtype == DType::IQ1M {
        // Four bits above each of four words.
        let bits = [half[0] & 15, half[0] >> 4, half[1] & 15, half[1] >> 4];
        for (word, bits) in block[48..].as_chunks_mut::<2>().0.iter_mut().zip(bits) {
            word[1] = word[1] & 15 | bits << 4;
        }
        return;
    }
    scales(dtype).iter().for_each(|&at| block[at..at + 2].copy_from_slice(&half));
}

/// Stored rows of noise: encoded where there is an encoder, else any bytes with reasonable f16 (or power) scales.
fn stored(dtype: DType, rows: usize, columns: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if quant::can_encode(dtype) {
        quant::encode(dtype, &noise(rows * columns, 7), &mut bytes).unwrap();
        return bytes;
    }
    bytes.resize(dtype.bytes_for(rows * columns).unwrap(), 0);
    let random = noise(bytes.len(), 5);
    bytes.iter_mut().zip(&random).for_each(|(byte, x)| *byte = (x.abs() * 1e6) as u32 as u8);
    for (block, x) in bytes.chunks_exact_mut(dtype.block_bytes()).zip(&random) {
        if dtype == DType::MXFP4 {
            block[0] = 120 + block[0] % 10;
            continue;
        }
        put_scales(dtype, half::f16::from_f32(x * 0.1).to_le_bytes(), block);
    }
    bytes
}

/// Repeatable values without structure.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next() + next() + next()).collect()
}

struct Case {
    packed: PackedMatrix,
    decoded: Vec<f32>,
    activations: Activations,
}

fn case(dtype: DType, rows: usize, columns: usize, tokens: usize) -> Case {
    let bytes = stored(dtype, rows, columns);
    let mut decoded = vec![0.0; rows * columns];
    quant::decode(dtype, &bytes, &mut decoded).unwrap();
    let packed = PackedMatrix::pack(dtype, &bytes, rows, columns).unwrap();
    let mut activations = Activations::for_every_path();
    packed.prepare(&noise(tokens * columns, 11), &Pool::new(1), &mut activations);
    Case { packed, decoded, activations }
}

/// The exact product of the decoded weights with the quantized activations, and the sum of its terms' sizes.
fn exact(case: &Case, token: usize, row: usize) -> (f64, f64) {
    let (x, columns) = (&case.activations, case.packed.columns());
    let weights = &case.decoded[row * columns..(row + 1) * columns];
    let terms =
        weights.iter().enumerate().map(|(column, &weight)| x.value(token, column) * f64::from(weight));
    terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
}

#[test]
fn every_path_gives_the_product_of_what_the_blocks_stand_for() {
    for dtype in FORMATS {
        for (rows, columns, tokens) in [(1, 256, 1), (16, 512, 3), (37, 256, 8), (48, 1024, 9), (5, 2048, 70)]
        {
            let case = case(dtype, rows, columns, tokens);
            for isa in Isa::available() {
                let mut out = vec![f32::NAN; tokens * rows];
                case.packed.multiply_with(isa, &case.activations, &Pool::new(2), &mut out);
                for token in 0..tokens {
                    for row in 0..rows {
                        let (sum, size) = exact(&case, token, row);
                        let found = f64::from(out[token * rows + row]);
                        // Q4_K subtracts its minima at the end, so its intermediate sums are larger than the terms.
                        assert!(
                            (found - sum).abs() <= 1e-5 * size + 1e-6,
                            "{dtype} {isa:?} {rows}x{columns}, token {token}, row {row}: {found} for {sum}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_token_alone_gives_what_it_gives_among_others_on_any_number_of_threads() {
    for dtype in FORMATS {
        let case = case(dtype, 50, 512, 19);
        let pool = Pool::new(1);
        let mut together = vec![0.0; 19 * 50];
        case.packed.multiply(&case.activations, &Pool::new(3), &mut together);
        let x = noise(19 * 512, 11);
        for token in 0..19 {
            let (mut alone, mut out) = (Activations::for_every_path(), vec![0.0; 50]);
            case.packed.prepare(&x[token * 512..(token + 1) * 512], &pool, &mut alone);
            case.packed.multiply(&alone, &pool, &mut out);
            assert_eq!(out, together[token * 50..(token + 1) * 50], "{dtype}, token {token}");
        }
    }
}

#[test]
fn extreme_values_do_not_saturate() {
    // The largest products that each format can make: codes at the ends of their range with values of ±127.
    let pool = Pool::new(1);
    for dtype in FORMATS.into_iter().filter(|dtype| dtype.is_block()) {
        let columns = dtype.block_len();
        for byte in [0x00, 0x7f, 0x80, 0xff] {
            let mut bytes = vec![byte; dtype.block_bytes()];
            match dtype {
                DType::MXFP4 => bytes[0] = 127,
                _ => put_scales(dtype, [0x00, 0x3c], &mut bytes),
            }
            let mut decoded = vec![0.0; columns];
            quant::decode(dtype, &bytes, &mut decoded).unwrap();
            for value in [127.0, -127.0] {
                let packed = PackedMatrix::pack(dtype, &bytes, 1, columns).unwrap();
                let mut activations = Activations::for_every_path();
                packed.prepare(&vec![value; columns], &pool, &mut activations);
                let case = Case { packed, decoded: decoded.clone(), activations };
                let (sum, size) = exact(&case, 0, 0);
                for isa in Isa::available() {
                    let mut out = [0.0];
                    case.packed.multiply_with(isa, &case.activations, &pool, &mut out);
                    let found = f64::from(out[0]);
                    assert!(
                        (found - sum).abs() <= 1e-6 * size,
                        "{dtype} {isa:?}, bytes {byte:#x}, values {value}: {found} for {sum}"
                    );
                }
            }
        }
    }
}

#[test]
fn unsupported_shapes_are_refused() {
    assert!(PackedMatrix::pack(DType::I8, &[0; 256], 1, 256).is_err());
    assert!(PackedMatrix::pack(DType::Q4K, &[0; 143], 1, 256).is_err());
    assert!(!PackedMatrix::supports(DType::Q4K, 128) && PackedMatrix::supports(DType::Q8_0, 96));
}

/// A matrix in groups of noise: codes, scales, zero points.
fn in_groups(bits: usize, group: usize, rows: usize, columns: usize) -> (Vec<u8>, Vec<half::f16>, Vec<u8>) {
    let byte = |x: &f32| (x.abs() * 1e6) as u32 as u8;
    let codes = noise(rows * columns, 3).iter().map(|x| byte(x) >> (8 - bits)).collect();
    let count = rows * columns / group;
    let scales = noise(count, 4).iter().map(|&x| half::f16::from_f32(x * 0.1)).collect();
    let zeros = noise(count, 5).iter().map(|x| byte(x) >> (8 - bits)).collect();
    (codes, scales, zeros)
}

#[test]
fn group_formats_give_the_product_of_what_they_stand_for_on_every_path() {
    for bits in [2, 3, 4, 8] {
        for group in [32, 64, 128, 256] {
            let (rows, columns, tokens) = (37, 512, 9);
            let (codes, scales, zeros) = in_groups(bits, group, rows, columns);
            let matrix = Groups { bits, group, rows, columns, codes: &codes, scales: &scales, zeros: &zeros };
            let packed = PackedMatrix::pack_groups(&matrix).unwrap();
            let weight = |index: usize| {
                let at = index / group;
                scales[at].to_f32() * (f32::from(codes[index]) - f32::from(zeros[at]))
            };
            let decoded = (0..rows * columns).map(weight).collect();
            let mut activations = Activations::for_every_path();
            packed.prepare(&noise(tokens * columns, 11), &Pool::new(1), &mut activations);
            let case = Case { packed, decoded, activations };
            for isa in Isa::available() {
                let mut out = vec![f32::NAN; tokens * rows];
                case.packed.multiply_with(isa, &case.activations, &Pool::new(2), &mut out);
                for token in 0..tokens {
                    for row in 0..rows {
                        let (sum, size) = exact(&case, token, row);
                        let found = f64::from(out[token * rows + row]);
                        assert!(
                            (found - sum).abs() <= 1e-5 * size + 1e-6,
                            "{bits} bits, groups of {group}, {isa:?}: {found} for {sum}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn tiles_give_the_bits_of_the_kernels_without_them() {
    if !Isa::Amx.is_available() {
        println!("skipped: this processor has no AMX");
        return;
    }
    let integers = FORMATS.into_iter().filter(|dtype| dtype.is_block());
    for (dtype, tokens) in
        integers.flat_map(|dtype| [5, 7, 8, 9, 16, 17, 67, 81].map(|tokens| (dtype, tokens)))
    {
        // Units that fill no whole number of blocks, and panels that are not full.
        let case = case(dtype, 37, dtype.block_len() * 5, tokens);
        both_ways(&case.packed, &case.activations, &dtype.to_string());
    }
    for (bits, group) in
        [2, 3, 4, 8].into_iter().flat_map(|bits| [32, 64, 128, 256].map(|group| (bits, group)))
    {
        let (rows, columns) = (20, group * 5);
        let (codes, scales, mut zeros) = in_groups(bits, group, rows, columns);
        for largest in [zeros[3], 128, 129, 255] {
            zeros[3] = largest;
            let matrix = Groups { bits, group, rows, columns, codes: &codes, scales: &scales, zeros: &zeros };
            let packed = PackedMatrix::pack_groups(&matrix).unwrap();
            let mut x = Activations::for_every_path();
            packed.prepare(&noise(11 * columns, 11), &Pool::new(1), &mut x);
            both_ways(&packed, &x, &format!("{bits} bits, groups of {group}, a zero point of {largest}"));
        }
    }
}

/// Multiplies with and without tiles.
fn both_ways(packed: &PackedMatrix, x: &Activations, name: &str) {
    let [mut with, mut without] = [(); 2].map(|()| vec![f32::NAN; x.tokens() * packed.rows()]);
    packed.multiply_with(Isa::Amx, x, &Pool::new(2), &mut with);
    packed.multiply_with(Isa::Avx512, x, &Pool::new(2), &mut without);
    let bits = |sums: &[f32]| sums.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&with), bits(&without), "{name}, {} tokens", x.tokens());
}

#[test]
fn groups_that_do_not_hold_together_are_refused() {
    let (codes, scales, zeros) = in_groups(4, 32, 2, 64);
    let good =
        Groups { bits: 4, group: 32, rows: 2, columns: 64, codes: &codes, scales: &scales, zeros: &zeros };
    assert!(PackedMatrix::pack_groups(&good).is_ok());
    let infinite = [half::f16::INFINITY; 4];
    for bad in [
        Groups { bits: 5, ..good },
        Groups { group: 48, ..good },
        Groups { columns: 32, ..good },
        Groups { rows: usize::MAX, ..good },
        Groups { bits: 3, ..good },
        Groups { scales: &infinite, ..good },
        Groups { zeros: &zeros[1..], ..good },
    ] {
        assert!(PackedMatrix::pack_groups(&bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_damaged_scale_is_found_where_it_is() {
    let mut bytes = stored(DType::Q8_0, 40, 64);
    bytes[34 * 55..34 * 55 + 2].copy_from_slice(&half::f16::NAN.to_le_bytes());
    let error = PackedMatrix::pack(DType::Q8_0, &bytes, 40, 64).unwrap_err();
    assert_eq!(error, QuantError::Scale { dtype: DType::Q8_0, offset: 34 * 55 });
}

#[test]
fn all_that_was_packed_is_reported() {
    let (rows, columns) = (5000, 1024);
    let bytes = vec![0; DType::Q8_0.bytes_for(rows * columns).unwrap()];
    let ranges = std::sync::Mutex::new(Vec::new());
    let note = |range: Range<usize>| ranges.lock().unwrap().push(range);
    PackedMatrix::pack_and(DType::Q8_0, &bytes, rows, columns, note).unwrap();
    let mut ranges = ranges.into_inner().unwrap();
    ranges.sort_by_key(|range| range.start);
    assert!(ranges.len() > 1 && ranges[0].start == 0);
    let end = ranges.iter().fold(0, |end, range| {
        assert!(range.start <= end, "nothing is left out before {range:?}");
        end.max(range.end)
    });
    assert_eq!(end, bytes.len());
}

#[test]
fn stored_groups_are_packed_as_groups_that_lie_apart() {
    for (bits, group) in
        [2, 3, 4, 8].into_iter().flat_map(|bits| [32, 64, 128, 256].map(|group| (bits, group)))
    {
        let (rows, columns) = (21, 512);
        let (codes, scales, mut zeros) = in_groups(bits, group, rows, columns);
        // Zero points beyond the tiles' reach, and none.
        for largest in [200, 1] {
            zeros[rows * columns / group - 1] = largest;
            let matrix = Groups { bits, group, rows, columns, codes: &codes, scales: &scales, zeros: &zeros };
            let apart = PackedMatrix::pack_groups(&matrix).unwrap();
            let dtype = DType::groups(bits, group).unwrap();
            let mut bytes = vec![0; dtype.bytes_for(rows * columns).unwrap()];
            for (at, block) in bytes.chunks_exact_mut(dtype.block_bytes()).enumerate() {
                let codes = &codes[at * group..][..group];
                quant::groups::write_block(bits, scales[at], zeros[at], codes, block);
            }
            let stored = PackedMatrix::pack(dtype, &bytes, rows, columns).unwrap();
            assert!(stored.data.as_slice() == apart.data.as_slice(), "{dtype}");
            assert_eq!(stored.tiles.is_some(), apart.tiles.is_some(), "{dtype}, a zero point of {largest}");
            assert_eq!(PackedMatrix::bytes_for(dtype, rows, columns), Some(stored.bytes()));
        }
    }
}

#[test]
fn activations_take_the_bytes_that_their_form_says() {
    for dtype in [DType::F32, DType::BF16, DType::Q8_0, DType::Q4K, DType::Q6K] {
        let form = PackedMatrix::form_of(dtype).unwrap();
        let matrix =
            PackedMatrix::pack(dtype, &vec![0; 16 * dtype.bytes_for(1024).unwrap()], 16, 1024).unwrap();
        for tokens in [1, 3, 8, 21] {
            let mut activations = Activations::new();
            matrix.prepare(&vec![0.5; tokens * 1024], Pool::single(), &mut activations);
            assert_eq!(activations.bytes(), form.bytes(tokens, 1024), "{dtype} {tokens}");
        }
    }
    assert_eq!(PackedMatrix::form_of(DType::I8), None);
}

#[test]
fn matrices_with_zeros_left_out_multiply_as_they_do_dense() {
    let pool = Pool::new(2);
    for (dtype, rows, columns) in [(DType::BF16, 50, 66), (DType::F16, 16, 34), (DType::F32, 33, 20)] {
        let value = value_bytes(dtype).unwrap();
        let mut values: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * 0.37).sin()).collect();
        values.iter_mut().enumerate().filter(|(i, _)| i * 7 % 10 < 6).for_each(|(_, value)| *value = 0.0);
        values[0] = -0.0;
        let mut bytes = Vec::new();
        crate::quant::encode_rows(dtype, &values, columns, &mut bytes).unwrap();
        let layout = layout(dtype).unwrap();
        let (row_bytes, panel_bytes) = (columns * value, layout.bytes * (columns / layout.block));
        let pack = |panel: usize, out: &mut [u8]| {
            let rows = PANEL * row_bytes;
            (layout.pack)(&bytes[panel * rows..bytes.len().min((panel + 1) * rows)], row_bytes, out);
        };
        let dense = PackedMatrix::new(layout, rows, columns, None, pack).unwrap();
        let sparse = Sparse::always(&bytes, row_bytes, value, panel_bytes).unwrap();
        let sparse = PackedMatrix::new(layout, rows, columns, Some(sparse), pack).unwrap();
        assert!(sparse.is_sparse() && sparse.bytes() < dense.bytes());
        for tokens in [1, 3, 70] {
            let x: Vec<f32> = (0..tokens * columns).map(|i| (i as f32 * 0.11).cos()).collect();
            let mut activations = Activations::for_every_path();
            dense.prepare(&x, &pool, &mut activations);
            for isa in Isa::available() {
                let mut out = [vec![0.0; tokens * rows], vec![1.0; tokens * rows]];
                let [a, b] = &mut out;
                dense.multiply_with(isa, &activations, &pool, a);
                sparse.multiply_with(isa, &activations, &pool, b);
                assert_eq!(out[0], out[1], "{dtype} {tokens} {isa:?}");
            }
        }
    }
    // What has no zeros stays dense, what is mostly zeros does not where that is fast.
    let dense = PackedMatrix::pack(DType::F32, &[1; 4 * 16 * 64], 16, 64).unwrap();
    assert!(!dense.is_sparse());
    let sparse = PackedMatrix::pack(DType::F32, &[0; 4 * 16 * 64], 16, 64).unwrap();
    assert_eq!(sparse.is_sparse(), sparse::expands_fast());
}
