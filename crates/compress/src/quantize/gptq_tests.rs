use ounce_engine::Tap;
use ounce_kernels::DType;
use ounce_kernels::quant::lattice::Lattice;
use ounce_kernels::quant::{self, grid};

use super::*;
use crate::quantize::golden_tests::{floats, golden};
use crate::quantize::moments::{Collector, trace};

/// Inputs whose columns are correlated and of different size, `[tokens, n]`.
fn inputs(tokens: usize, n: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let factors = 24;
    let mixing: Vec<f32> = (0..factors * n).map(|_| uniform()).collect();
    let mut x = Vec::new();
    for _ in 0..tokens {
        let hidden: Vec<f32> = (0..factors).map(|_| uniform()).collect();
        for column in 0..n {
            let common: f32 = (0..factors).map(|f| hidden[f] * mixing[f * n + column]).sum();
            x.push((common + 0.3 * uniform()) * (1.0 + (column % 7) as f32));
        }
    }
    x
}

fn weights(rows: usize, n: usize) -> Vec<f32> {
    (0..rows * n)
        .map(|i| ((i * 7919 % 10007) as f32 / 10007.0 - 0.5) + ((i * 31 % 97) as f32 / 97.0 - 0.5))
        .collect()
}

fn hessian(x: &[f32], n: usize, options: &Options) -> Hessian {
    let mut collector = Collector::new(true);
    collector.observe(&["layer"], x, n);
    Hessian::new(collector.moments("layer").unwrap(), options).unwrap()
}

/// The loss of bytes as a share of the weights'.
fn loss_of(bytes: &[u8], dtype: DType, w: &[f32], hessian: &Hessian) -> f64 {
    let mut decoded = vec![0.0; w.len()];
    quant::decode(dtype, bytes, &mut decoded).unwrap();
    let difference: Vec<f32> = w.iter().zip(&decoded).map(|(a, b)| a - b).collect();
    trace(&difference, &hessian.full, hessian.n) / trace(w, &hessian.full, hessian.n)
}

#[test]
fn each_step_leaves_less_than_the_one_before() {
    let (rows, n) = (24, 512);
    let x = inputs(2000, n);
    let w = weights(rows, n);
    for dtype in DType::all().filter(|dtype| dtype.is_block() && quant::can_encode(*dtype)) {
        let options = Options::default();
        let hessian = hessian(&x, n, &options);
        let mut rounded = Vec::new();
        quant::encode_rows(dtype, &w, n, &mut rounded).unwrap();
        let rounded = loss_of(&rounded, dtype, &w, &hessian);
        let importance: Vec<f32> = (0..n).map(|i| hessian.full[i * n + i]).collect();
        let mut weighted = Vec::new();
        grid::encode_weighted(dtype, &w, n, &importance, &mut weighted).unwrap();
        let weighted = loss_of(&weighted, dtype, &w, &hessian);
        let found = match Grid::of(dtype) {
            Some(grid) => quantize(&w, grid, &hessian, &options),
            None => {
                let lattice = Lattice::of(dtype).unwrap();
                crate::quantize::codebook::quantize(&w, lattice, &hessian, &options).unwrap()
            }
        };
        let stored = loss_of(&found.bytes, dtype, &w, &hessian);
        println!(
            "{:7} encode {rounded:.2e}, weighted {:.2}, GPTQ {:.2}, descent {:.2}",
            dtype.name(),
            weighted / rounded,
            found.error_before_descent / rounded,
            found.error / rounded
        );
        assert!((stored - found.error).abs() <= 1e-3 * found.error, "{dtype}: {stored} {}", found.error);
        if let Some(grid) = Grid::of(dtype) {
            // What rounding says of its loss as it goes, beside the loss of the bytes.
            let alone = quantize(&w, grid, &hessian, &Options { descent: 0, ..options });
            let stored = loss_of(&alone.bytes, dtype, &w, &hessian);
            assert!((stored - alone.error).abs() <= 1e-3 * alone.error, "{dtype}: {stored} {}", alone.error);
            assert_eq!(alone.error, found.error_before_descent, "{dtype}");
        }
        assert!(found.error < found.error_before_descent, "{dtype}");
        assert!(
            found.error_before_descent < weighted && found.error_before_descent < 0.8 * rounded,
            "{dtype}"
        );
    }
}

/// The paper's algorithm as it is written: with the inverse's Cholesky factor, scales given.
fn as_written(w: &[f32], n: usize, h: &[f64], grid: &Grid, scales: &Scales) -> Vec<u8> {
    // The inverse by Gauss and Jordan, then its upper Cholesky factor.
    let mut a: Vec<f64> = h.to_vec();
    let mut inverse = vec![0.0; n * n];
    (0..n).for_each(|i| inverse[i * n + i] = 1.0);
    for i in 0..n {
        let pivot = a[i * n + i];
        for j in 0..n {
            a[i * n + j] /= pivot;
            inverse[i * n + j] /= pivot;
        }
        for k in (0..n).filter(|&k| k != i) {
            let factor = a[k * n + i];
            for j in 0..n {
                a[k * n + j] -= factor * a[i * n + j];
                inverse[k * n + j] -= factor * inverse[i * n + j];
            }
        }
    }
    let mut upper = vec![0.0; n * n];
    for i in 0..n {
        for j in i..n {
            let sum: f64 = (0..i).map(|k| upper[k * n + i] * upper[k * n + j]).sum();
            let rest = inverse[i * n + j] - sum;
            upper[i * n + j] = if i == j { rest.sqrt() } else { rest / upper[i * n + i] };
        }
    }
    let mut current: Vec<f64> = w.iter().map(|x| f64::from(*x)).collect();
    let mut codes = vec![0; w.len()];
    for (row, codes) in current.chunks_exact_mut(n).zip(codes.chunks_exact_mut(n)) {
        for k in 0..n {
            let (code, value) = grid.nearest(scales, k % grid.block_len() / grid.part(), row[k] as f32);
            codes[k] = code;
            let error = (row[k] - f64::from(value)) / upper[k * n + k];
            for j in k + 1..n {
                row[j] -= error * upper[k * n + j];
            }
        }
    }
    codes
}

#[test]
fn the_codes_are_those_of_the_paper() {
    let (rows, n) = (6, 160);
    let options = Options { descent: 0, ..Options::default() };
    let hessian = hessian(&inputs(900, n), n, &options);
    let w = weights(rows, n);
    let grid = Grid::of(DType::Q4_0).unwrap();
    // One scale for all, so that only the feedback is compared.
    let scales = Scales { factor: 0.125, second: 0.0, scales: [1; grid::PARTS], minimums: [0; grid::PARTS] };
    let h: Vec<f64> = hessian.full.iter().map(|x| f64::from(*x)).collect();
    let expected = as_written(&w, n, &h, grid, &scales);
    let fixed = Fixed(scales);
    let found = fixed.feed_back(&w, grid, &hessian);
    let differ = expected.iter().zip(&found).filter(|(a, b)| a != b).count();
    // A value halfway between two levels may fall to either side.
    assert!(differ * 200 <= found.len(), "{differ} of {} codes differ", found.len());
}

#[test]
fn the_codes_are_those_of_another_implementation() {
    let golden = &golden()["gptq"];
    let (x, w) = (floats(&golden["inputs"]), floats(&golden["weights"]));
    let n = golden["width"].as_u64().unwrap() as usize;
    let hessian = hessian(&x, n, &Options { descent: 0, ..Options::default() });
    let factor = golden["scale"].as_f64().unwrap() as f32;
    let scales = Scales { factor, second: 0.0, scales: [1; grid::PARTS], minimums: [0; grid::PARTS] };
    let found = Fixed(scales).feed_back(&w, Grid::of(DType::Q4_0).unwrap(), &hessian);
    let expected = floats(&golden["codes"]);
    assert_eq!(found.len(), expected.len());
    let differ = found.iter().zip(&expected).filter(|(a, b)| f32::from(**a) != **b).count();
    println!("{differ} of {} codes differ", found.len());
    // A value halfway between two levels may fall to either side.
    assert!(differ * 200 <= found.len(), "{differ} of {} codes differ", found.len());
}

/// [`super::feed_back`] with given scales.
struct Fixed(Scales);

impl Fixed {
    fn feed_back(&self, w: &[f32], grid: &Grid, hessian: &Hessian) -> Vec<u8> {
        round_columns(w, grid, hessian, |_, _| self.0).0.codes
    }
}

#[test]
fn columns_by_activity_keep_blocks_contiguous() {
    let (rows, n) = (16, 256);
    let x = inputs(1500, n);
    let w = weights(rows, n);
    let grid = Grid::of(DType::Q4K).unwrap();
    let options = Options { order: Order::Activity, ..Options::default() };
    let by_activity = hessian(&x, n, &options);
    let found = quantize(&w, grid, &by_activity, &options);
    let stored = loss_of(&found.bytes, DType::Q4K, &w, &by_activity);
    assert!((stored - found.error).abs() <= 1e-3 * found.error);
    let mut rounded = Vec::new();
    quant::encode_rows(DType::Q4K, &w, n, &mut rounded).unwrap();
    assert!(found.error < 0.7 * loss_of(&rounded, DType::Q4K, &w, &by_activity));
}

#[test]
fn a_layer_that_saw_nothing_says_so_and_one_that_saw_zeros_is_rounded() {
    let options = Options::default();
    let nothing = Moments::new(64, true);
    assert!(Hessian::new(&nothing, &options).unwrap_err().contains("longer calibration text"));
    let zeros = hessian(&[0.0; 640], 64, &options);
    let w = weights(4, 64);
    let found = quantize(&w, Grid::of(DType::Q8_0).unwrap(), &zeros, &options);
    assert!(found.error < 1e-4, "{}", found.error);
    let bad = hessian_of_nan();
    assert!(bad.unwrap_err().contains("not finite"));
}

fn hessian_of_nan() -> Result<Hessian, String> {
    let mut collector = Collector::new(true);
    collector.observe(&["layer"], &[f32::NAN; 64], 64);
    Hessian::new(collector.moments("layer").unwrap(), &Options::default())
}
