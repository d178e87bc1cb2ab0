use super::*;
use crate::quant::{decode, encode};

/// Values like a layer's: bell-shaped with some outliers, rows of `row` values.
fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let mut bell = move || (0..12).map(|_| uniform()).sum::<f32>() - 6.0;
    (0..count).map(|index| 0.02 * bell() * if index % 97 == 0 { 4.0 } else { 1.0 }).collect()
}

fn weighted_error(values: &[f32], weights: &[f32], bytes: &[u8], dtype: DType) -> f64 {
    let mut decoded = vec![0.0; values.len()];
    decode(dtype, bytes, &mut decoded).unwrap();
    let each = values.iter().zip(&decoded).zip(weights.iter().cycle());
    each.map(|((x, y), w)| f64::from(*w) * f64::from(x - y).powi(2)).sum()
}

#[test]
fn every_block_format_has_a_grid() {
    let written = |dtype: &DType| dtype.is_block() && crate::quant::can_encode(*dtype);
    for dtype in DType::all().filter(written) {
        assert_eq!(Grid::of(dtype).is_none(), Lattice::of(dtype).is_some(), "{dtype}");
        let grid = Grid::of(dtype).or(Grid::free(dtype)).unwrap_or_else(|| panic!("{dtype} has no grid"));
        assert!(grid.block_len() / grid.part() <= PARTS, "{dtype}");
    }
}

#[test]
fn what_the_grid_says_is_what_the_block_holds() {
    for grid in table::GRIDS {
        let x = values(grid.block_len(), 3);
        let scales = grid.fit(&x, &vec![1.0; grid.block_len()]);
        let (codes, expected): (Vec<u8>, Vec<f32>) =
            x.iter().enumerate().map(|(i, &x)| grid.nearest(&scales, i / grid.part(), x)).unzip();
        let mut block = vec![0xff; grid.dtype.block_bytes()];
        grid.put(&scales, &codes, &mut block);
        let mut found = vec![0.0; grid.block_len()];
        decode(grid.dtype, &block, &mut found).unwrap();
        for (expected, found) in expected.iter().zip(&found) {
            assert!((expected - found).abs() <= 1e-6 * expected.abs().max(1e-3), "{}", grid.dtype);
        }
    }
}

#[test]
fn scales_and_levels_are_read_as_they_were_put() {
    for grid in table::GRIDS {
        let x = values(grid.block_len(), 4);
        let scales = grid.fit(&x, &vec![1.0; grid.block_len()]);
        let codes: Vec<u8> =
            x.iter().enumerate().map(|(i, &x)| grid.nearest(&scales, i / grid.part(), x).0).collect();
        let mut block = vec![0xff; grid.dtype.block_bytes()];
        grid.put(&scales, &codes, &mut block);
        let found = grid.scales(&block);
        let parts = grid.block_len() / grid.part();
        for part in 0..parts {
            let both = |it: &Scales| (it.step(part), it.offset(part));
            assert_eq!(both(&found), both(&scales), "{} {part}", grid.dtype);
        }
        let mut levels = vec![0.0; grid.block_len()];
        grid.block_levels(&block, &mut levels);
        let expected: Vec<f32> = codes.iter().map(|&code| grid.levels.of(code)).collect();
        assert_eq!(levels, expected, "{}", grid.dtype);
        // Other scales, and the codes are still there.
        let larger: Vec<f32> = x.iter().map(|x| 3.0 * x).collect();
        let other = grid.fit(&larger, &vec![1.0; grid.block_len()]);
        let mut moved = block.clone();
        grid.put_scales(&other, &mut moved);
        assert_ne!(moved, block, "{}", grid.dtype);
        grid.block_levels(&moved, &mut levels);
        assert_eq!(levels, expected, "{}", grid.dtype);
        grid.put_scales(&scales, &mut moved);
        assert_eq!(moved, block, "{}", grid.dtype);
    }
}

#[test]
fn steps_of_codebook_formats_are_read_and_put() {
    for grid in table::CODEBOOKS {
        let lattice = Lattice::of(grid.dtype).unwrap();
        let x = values(256, 6);
        let mut block = vec![0; grid.dtype.block_bytes()];
        lattice.encode(&x, &[1.0; 256], &mut block);
        let (mut decoded, mut levels) = (vec![0.0; 256], vec![0.0; 256]);
        decode(grid.dtype, &block, &mut decoded).unwrap();
        grid.block_levels(&block, &mut levels);
        let scales = grid.scales(&block);
        for (at, (value, level)) in decoded.iter().zip(&levels).enumerate() {
            assert_eq!(*value, scales.step(at / grid.part()) * level, "{} {at}", grid.dtype);
        }
        assert!(levels.iter().all(|level| [8.0, 25.0, 43.0].contains(&level.abs())));
        let mut moved = block.clone();
        let mut other = scales;
        other.factor *= 2.0;
        other.scales[3] ^= 6;
        grid.put_scales(&other, &mut moved);
        assert_eq!(grid.scales(&moved).step(3), other.step(3));
        let mut same = vec![0.0; 256];
        grid.block_levels(&moved, &mut same);
        assert_eq!(levels, same);
        grid.put_scales(&scales, &mut moved);
        assert_eq!(moved, block);
    }
}

#[test]
fn a_cell_is_where_its_level_is_nearest() {
    for grid in table::GRIDS {
        let (low, high) = grid.levels.ends();
        for step in 0..=400 {
            let x = low - 1.0 + (high - low + 2.0) * step as f32 / 400.0 + 1e-3;
            let (_, level) = grid.levels.nearest(x);
            let (below, above) = grid.levels.cell(level);
            assert!(below <= x && x <= above, "{} {x}: {level} has {below}..{above}", grid.dtype);
        }
        assert_eq!(grid.levels.cell(low).0, f32::NEG_INFINITY);
        assert_eq!(grid.levels.cell(high).1, f32::INFINITY);
    }
}

#[test]
fn the_search_leaves_less_than_encode_does() {
    for grid in table::GRIDS {
        let row = 1024;
        let x = values(8 * row, 5);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        encode_weighted(grid.dtype, &x, row, &[], &mut ours).unwrap();
        encode(grid.dtype, &x, &mut theirs).unwrap();
        let flat =
            weighted_error(&x, &[1.0], &ours, grid.dtype) / weighted_error(&x, &[1.0], &theirs, grid.dtype);
        // Columns of very different importance.
        let importance: Vec<f32> = values(row, 9).iter().map(|x| (x * 150.0).exp()).collect();
        let mut weighted = Vec::new();
        encode_weighted(grid.dtype, &x, row, &importance, &mut weighted).unwrap();
        let gain = weighted_error(&x, &importance, &weighted, grid.dtype)
            / weighted_error(&x, &importance, &theirs, grid.dtype);
        println!("{:8} error of encode: flat {flat:.3}, weighted {gain:.3}", grid.dtype.name());
        assert!(flat < 1.0, "{}: {flat}", grid.dtype);
        assert!(gain < flat, "{}: {gain} {flat}", grid.dtype);
    }
}

#[test]
fn blocks_of_one_value_and_of_zeros_are_stored() {
    for grid in table::GRIDS {
        for x in [0.0f32, 0.25, -0.25] {
            let mut bytes = Vec::new();
            encode_weighted(grid.dtype, &vec![x; grid.block_len()], grid.block_len(), &[], &mut bytes)
                .unwrap();
            let mut found = vec![1.0; grid.block_len()];
            decode(grid.dtype, &bytes, &mut found).unwrap();
            for found in found {
                assert!((found - x).abs() <= 0.01 * x.abs(), "{}: {x} became {found}", grid.dtype);
            }
        }
    }
}

#[test]
fn values_that_are_no_numbers_are_refused_and_unseen_columns_kept() {
    let mut x = values(512, 1);
    let mut out = vec![7];
    let mut importance = vec![1.0; 256];
    importance[..32].fill(0.0);
    encode_weighted(DType::Q4_0, &x, 256, &importance, &mut out).unwrap();
    let mut found = vec![0.0; 512];
    decode(DType::Q4_0, &out[1..], &mut found).unwrap();
    assert!(found[..32].iter().any(|x| *x != 0.0));
    out.truncate(1);
    x[300] = f32::NAN;
    let error = encode_weighted(DType::Q4_0, &x, 256, &[], &mut out).unwrap_err();
    assert!(matches!(error, QuantError::Range { first: 288, end: 320, .. }), "{error}");
    assert_eq!(out, [7]);
}
