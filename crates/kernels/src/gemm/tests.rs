//! Products against plain sums in f64, for every path, layout and ragged shape.

use super::blocks::{Path, Values};
use super::*;
use crate::DType;
use crate::quant;

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

/// A dense factor that lies one way or the other, its lines further apart than they are long; NaN between them.
struct Factor {
    data: Vec<f32>,
    stride: usize,
    by_rows: bool,
}

impl Factor {
    fn new(rows: usize, columns: usize, by_rows: bool, seed: u64) -> Factor {
        let (lines, length) = if by_rows { (rows, columns) } else { (columns, rows) };
        let stride = length + 3;
        let mut data = noise(lines * stride, seed);
        for line in data.chunks_exact_mut(stride) {
            line[length..].fill(f32::NAN);
        }
        data.truncate((lines * stride).saturating_sub(3));
        Factor { data, stride, by_rows }
    }

    fn operand(&self) -> Operand<'_> {
        let Factor { data, stride, .. } = self;
        if self.by_rows { Operand::rows(data, *stride) } else { Operand::columns(data, *stride) }
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        let (line, index) = if self.by_rows { (row, column) } else { (column, row) };
        self.data[line * self.stride + index]
    }
}

/// Every path through the kernels that this processor can run.
fn paths() -> Vec<Path> {
    let mut paths = Vec::new();
    for isa in Isa::available() {
        for values in [Values::Single, Values::Rounded] {
            paths.push(Path { isa, values, shape: tile::shape(isa) });
        }
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Avx512 && std::arch::is_x86_feature_detected!("avx512bf16") {
            paths.push(Path { isa, values: Values::Pairs, shape: tile::shape(isa) });
        }
    }
    paths
}

fn to_bf16(value: f32) -> f32 {
    half::bf16::from_f32(value).to_f32()
}

/// One side of the error of a sum of this length: each block's is that of its own length, and blocks add up.
fn tolerance(k: usize, size: f64) -> f64 {
    let steps = k.min(DEPTH) + k / DEPTH + 2;
    size * steps as f64 * f64::from(f32::EPSILON) + 1e-30
}

/// Shapes around the sizes of tiles and blocks, none, one, and more than a block of each kind.
const SHAPES: [(usize, usize, usize); 17] = [
    (0, 5, 3),
    (5, 0, 3),
    (5, 7, 0),
    (1, 1, 1),
    (1, 100, 300),
    (100, 1, 17),
    (3, 16, 2),
    (6, 17, 16),
    (7, 33, 257),
    (13, 15, 31),
    (14, 32, 256),
    (15, 48, 255),
    (29, 65, 40),
    (64, 64, 64),
    (253, 31, 20),
    (300, 70, 513),
    (9, 3100, 33),
];

#[test]
fn every_path_gives_the_sums_of_products_for_every_layout() {
    let pool = Pool::new(2);
    let mut workspace = Workspace::default();
    for (m, n, k) in SHAPES {
        for layout in 0..4 {
            let a = Factor::new(m, k, layout % 2 == 0, 1);
            let b = Factor::new(k, n, layout / 2 == 0, 2);
            let out_stride = n + layout;
            let before = noise(m * out_stride, 3);
            for path in paths() {
                // Both ways at every other layout: half the time.
                let accumulate = (layout + usize::from(path.values == Values::Single)).is_multiple_of(2);
                let mut out = before.clone();
                let shape = (m, n, k);
                path.multiply(
                    &pool,
                    shape,
                    a.operand(),
                    b.operand(),
                    accumulate,
                    &mut out,
                    out_stride,
                    &mut workspace,
                );
                let value = |x: f32| if path.values == Values::Single { x } else { to_bf16(x) };
                for (index, (&found, &before)) in out.iter().zip(&before).enumerate() {
                    let (row, column) = (index / out_stride, index % out_stride);
                    if column >= n {
                        assert_eq!(found, before, "what lies between rows is left alone");
                        continue;
                    }
                    let start = if accumulate { f64::from(before) } else { 0.0 };
                    let terms =
                        (0..k).map(|i| f64::from(value(a.at(row, i))) * f64::from(value(b.at(i, column))));
                    let (sum, size) =
                        terms.fold((start, start.abs()), |(sum, size), term| (sum + term, size + term.abs()));
                    assert!(
                        (f64::from(found) - sum).abs() <= tolerance(k, size),
                        "{:?} {:?} {shape:?} layout {layout}, {row}, {column}: {found} for {sum}",
                        path.isa,
                        path.values
                    );
                }
            }
        }
    }
}

fn product(
    path: Path,
    threads: usize,
    shape: (usize, usize, usize),
    a: Operand<'_>,
    b: Operand<'_>,
) -> Vec<f32> {
    let (m, n, _) = shape;
    let mut out = vec![f32::NAN; m * n];
    path.multiply(&Pool::new(threads), shape, a, b, false, &mut out, n, &mut Workspace::default());
    out
}

#[test]
fn threads_and_company_do_not_change_a_bit() {
    // Larger than what one thread does alone; shares by rows, and by columns.
    for (m, n, k) in [(150, 70, 300), (20, 400, 290)] {
        for by_rows in [true, false] {
            let (a, b) = (Factor::new(m, k, true, 1), Factor::new(k, n, by_rows, 2));
            for path in paths() {
                let one = product(path, 1, (m, n, k), a.operand(), b.operand());
                for threads in [2, 3] {
                    assert_eq!(one, product(path, threads, (m, n, k), a.operand(), b.operand()), "{path:?}");
                }
                for row in [0, 5, m - 1] {
                    let alone = Operand::rows(&a.data[row * a.stride..], a.stride);
                    let found = product(path, 1, (1, n, k), alone, b.operand());
                    assert_eq!(found, one[row * n..(row + 1) * n], "{path:?}: a row alone");
                }
                let column =
                    Factor { data: (0..k).map(|i| b.at(i, n - 2)).collect(), stride: 1, by_rows: true };
                let found = product(path, 1, (m, 1, k), a.operand(), column.operand());
                let expected: Vec<f32> = one.chunks_exact(n).map(|row| row[n - 2]).collect();
                assert_eq!(found, expected, "{path:?}: a column alone");
            }
        }
    }
}

#[test]
fn paths_that_fuse_agree_to_the_bit() {
    let (m, n, k) = (40, 70, 600);
    let (a, b) = (Factor::new(m, k, false, 1), Factor::new(k, n, true, 2));
    let of = |isa| {
        product(
            Path { isa, values: Values::Single, shape: tile::shape(isa) },
            1,
            (m, n, k),
            a.operand(),
            b.operand(),
        )
    };
    let fusing: Vec<Isa> = Isa::available().into_iter().filter(|&isa| isa != Isa::Plain).collect();
    for pair in fusing.windows(2) {
        assert_eq!(of(pair[0]), of(pair[1]), "{pair:?}");
    }
}

#[test]
fn stored_operands_give_what_their_decoded_values_give() {
    for dtype in DType::all().filter(|&dtype| quant::can_encode(dtype)) {
        // Rows longer than what is used, lines and pieces that begin inside a block, more than one block deep.
        let (lines, used, row_len) = (37, 520, 768);
        let mut bytes = Vec::new();
        quant::encode(dtype, &noise(lines * row_len, 7), &mut bytes).unwrap();
        let mut decoded = vec![0.0; lines * row_len];
        quant::decode(dtype, &bytes, &mut decoded).unwrap();
        let other = noise(40 * row_len, 9);
        let (stored_rows, rows) =
            (Operand::stored_rows(dtype, &bytes, row_len), Operand::rows(&decoded, row_len));
        let (stored_columns, columns) =
            (Operand::stored_columns(dtype, &bytes, row_len), Operand::columns(&decoded, row_len));
        for isa in Isa::available() {
            for values in [Values::Single, Values::Rounded] {
                let path = Path { isa, values, shape: tile::shape(isa) };
                let equal = |shape, a: [Operand<'_>; 2], b: [Operand<'_>; 2]| {
                    let found = product(path, 2, shape, a[0], b[0]);
                    assert_eq!(found, product(path, 2, shape, a[1], b[1]), "{dtype} {path:?} {shape:?}");
                };
                let dense = Operand::rows(&other, row_len);
                // x · Wᵀ, dy · W, and the same with the weight as the left factor.
                equal((20, lines, used), [dense; 2], [stored_columns, columns]);
                equal((20, used, lines), [dense; 2], [stored_rows, rows]);
                let turned = Operand::columns(&other, row_len);
                equal((lines, 20, used), [stored_rows, rows], [turned; 2]);
                equal((used, 20, lines), [stored_columns, columns], [turned; 2]);
            }
        }
    }
}

#[test]
fn rounding_is_that_of_the_format() {
    let mut values = noise(1000, 3);
    values.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-40, 1.003_906_3, 1.011_718_8]);
    let expected: Vec<f32> = values.iter().map(|&value| to_bf16(value)).collect();
    let mut found = values.clone();
    bf16::round(&mut found);
    assert_eq!(found, expected);
    let mut nan = [f32::NAN, f32::from_bits(0x7f80_0001)];
    bf16::round(&mut nan);
    assert!(nan.iter().all(|x| x.is_nan()));
}

#[test]
fn a_workspace_grows_once() {
    let (pool, mut workspace) = (Pool::new(1), Workspace::default());
    let x = noise(64 * 64, 1);
    let mut out = vec![0.0; 64 * 64];
    let mut run = |size: usize, workspace: &mut Workspace| {
        let operand = Operand::rows(&x, 64);
        gemm(&pool, Compute::F32, (size, size, size), operand, operand, false, &mut out, 64, workspace);
        workspace.bytes()
    };
    let large = run(64, &mut workspace);
    assert!(large > 0);
    assert_eq!(run(8, &mut workspace), large);
    assert_eq!(run(64, &mut workspace), large);
}

#[test]
#[should_panic(expected = "B: 8 x 9 values with stride 9 in a slice of 71")]
fn a_factor_that_is_too_short_is_refused() {
    let (x, mut out) = ([0.0; 71], [0.0; 90]);
    let (a, b) = (Operand::rows(&x, 8), Operand::rows(&x, 9));
    gemm(&Pool::new(1), Compute::F32, (8, 9, 8), a, b, false, &mut out, 9, &mut Workspace::default());
}
