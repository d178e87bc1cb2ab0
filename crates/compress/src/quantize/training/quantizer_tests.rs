use ounce_kernels::quant;
use ounce_kernels::quant::groups::write_block;

use super::*;

fn wave(count: usize, speed: f32, size: f32) -> Vec<f32> {
    (0..count).map(|at| (at as f32 * speed).sin() * size).collect()
}

fn packed(dtype: DType, values: &[f32], columns: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    quant::encode_rows(dtype, values, columns, &mut bytes).unwrap();
    bytes
}

/// A matrix between the levels, with clipped values on both sides, and scales that are no whole numbers.
fn matrix(dtype: DType) -> Quantized {
    let original: Vec<f32> =
        wave(3 * 256, 0.37, 0.2).iter().zip(wave(768, 0.011, 0.1)).map(|(a, b)| a + b).collect();
    let mut matrix =
        Quantized::begin(dtype, &packed(dtype, &original, 256), &original, 256, Start::Weights).unwrap();
    let Numbers { factors, seconds, parts, minimums } = &mut matrix.scales;
    factors.iter_mut().enumerate().for_each(|(at, factor)| *factor *= 0.6 + 0.05 * (at % 4) as f32);
    seconds.iter_mut().for_each(|second| *second *= 0.8);
    for numbers in [parts, minimums] {
        numbers.iter_mut().enumerate().for_each(|(at, it)| *it += 0.3 * ((at % 3) as f32 - 1.0));
    }
    matrix.confine();
    matrix
}

const FORMATS: [DType; 12] = [
    DType::G2x32,
    DType::G2x64,
    DType::G3x64,
    DType::G4x128,
    DType::Q2K,
    DType::Q3K,
    DType::Q4K,
    DType::Q5K,
    DType::Q6K,
    DType::Q4_1,
    DType::IQ4XS,
    DType::IQ4NL,
];

#[test]
fn what_is_packed_is_what_training_saw() {
    for dtype in FORMATS {
        let matrix = matrix(dtype);
        let (mut seen, mut stored) = (vec![0.0; 768], vec![0.0; 768]);
        matrix.values(&mut seen);
        quant::decode(dtype, &matrix.pack(), &mut stored).unwrap();
        for (seen, stored) in seen.iter().zip(&stored) {
            assert!((seen - stored).abs() <= 1e-6 * stored.abs().max(0.1), "{dtype}: {seen} {stored}");
        }
    }
    assert!(Quantized::begin(DType::F16, &[], &[], 32, Start::Weights).is_none());
    assert!(Quantized::begin(DType::MXFP4, &[], &[], 32, Start::Weights).is_none());
}

/// What the straight-through estimator differentiates: the difference that rounding made to a weight, to `s`, `m` and `z` and to
/// factors stays as it is while they move; what is clipped stays on its level.
fn surrogate(matrix: &Quantized, at: &Quantized) -> Vec<f32> {
    let (len, part) = (matrix.grid.block_len(), matrix.grid.part());
    let value = |(index, &weight): (usize, &f32)| {
        let (block, at_part) = (index / len, index % len / part);
        let stored = matrix.stored(block);
        let place = Place::of(matrix.grid, &stored, at_part);
        let moved = |of: fn(&Numbers) -> &Vec<f32>, index: usize| match of(&matrix.scales).get(index) {
            Some(then) => of(&at.scales)[index] - then,
            None => 0.0,
        };
        let part_index = block * (len / part) + at_part;
        let factor = stored.factor + moved(|it| &it.factors, block);
        let second = if matrix.grid.has_zero_points() {
            factor
        } else {
            stored.second + moved(|it| &it.seconds, block)
        };
        let step = factor * (f32::from(stored.scales[at_part]) + moved(|it| &it.parts, part_index));
        let offset = -second * (f32::from(stored.minimums[at_part]) + moved(|it| &it.minimums, part_index));
        let (then, level) = ((weight - place.offset) * place.inverse, place.level(weight));
        if then.round_ties_even() < place.low || then.round_ties_even() > place.high {
            step * level + offset
        } else {
            at.weights[index] + step * (level - then)
        }
    };
    matrix.weights.iter().enumerate().map(value).collect()
}

#[test]
fn gradients_are_those_of_the_straight_through_surrogate() {
    for dtype in FORMATS {
        let matrix = matrix(dtype);
        let slope = wave(768, 1.7, 1.0);
        let mut gradient = slope.clone();
        let mut scales = matrix.scales.zeros();
        matrix.backward(&mut gradient, &mut scales);
        let loss = |at: &Quantized| -> f64 {
            surrogate(&matrix, at).iter().zip(&slope).map(|(x, s)| f64::from(*x) * f64::from(*s)).sum()
        };
        let copy = || Quantized { weights: matrix.weights.clone(), scales: matrix.scales.clone(), ..matrix };
        fn slot(matrix: &mut Quantized, kind: usize) -> &mut Vec<f32> {
            match kind {
                0 => &mut matrix.weights,
                kind => matrix.scales.kinds_mut().into_iter().nth(kind - 1).unwrap(),
            }
        }
        let found = std::iter::once(&gradient).chain(scales.kinds());
        for (kind, found) in found.enumerate() {
            for (place, &gradient) in found.iter().enumerate().step_by(if kind == 0 { 7 } else { 1 }) {
                let change = [1e-2, 1e-2, 1e-2, 0.25, 0.25][kind];
                let (mut more, mut less) = (copy(), copy());
                slot(&mut more, kind)[place] += change;
                slot(&mut less, kind)[place] -= change;
                let expected = (loss(&more) - loss(&less)) / f64::from(2.0 * change);
                let off = (f64::from(gradient) - expected).abs();
                assert!(
                    off < 4e-3 + 1e-3 * expected.abs(),
                    "{dtype} {kind} {place}: {gradient} for {expected}"
                );
            }
            assert!(found.is_empty() || found.iter().any(|it| *it != 0.0), "{dtype} {kind}");
        }
        let clipped = gradient.iter().filter(|it| **it == 0.0).count();
        assert!(clipped < 760, "{dtype}: {clipped} clipped");
        if dtype.bits_per_value() < 5.0 {
            assert!(clipped > 5, "{dtype}: both kinds of values, {clipped} clipped");
        }
    }
}

#[test]
fn a_start_from_codes_keeps_them_and_stays_near_the_weights() {
    for dtype in [DType::G2x64, DType::G4x64, DType::Q2K, DType::Q3K, DType::Q4K, DType::IQ4XS] {
        let original = wave(2 * 256, 0.37, 0.2);
        // Codes that rounding to the nearest would not choose.
        let pushed: Vec<f32> = original.iter().zip(wave(512, 2.9, 0.05)).map(|(w, p)| w + p).collect();
        let bytes = packed(dtype, &pushed, 256);
        let begin = |start| Quantized::begin(dtype, &bytes, &original, 256, start).unwrap();
        assert_eq!(begin(Start::Codes).pack(), bytes, "{dtype}");
        assert_eq!(begin(Start::Values).pack(), bytes, "{dtype}");
        assert_ne!(begin(Start::Weights).pack(), bytes, "{dtype}");
        let far = |matrix: &Quantized| -> f32 {
            matrix.weights.iter().zip(&original).map(|(a, b)| (a - b).abs()).sum()
        };
        assert!(far(&begin(Start::Codes)) < 0.9 * far(&begin(Start::Values)), "{dtype}");
    }
}

#[test]
fn negative_steps_begin_mirrored_with_the_same_values() {
    let mut block = vec![0; DType::G2x32.block_bytes()];
    let codes: Vec<u8> = (0..32).map(|at| at % 4).collect();
    write_block(2, f16::from_f32(-0.25), 1, &codes, &mut block);
    let mut stored = vec![0.0; 32];
    quant::decode(DType::G2x32, &block, &mut stored).unwrap();
    let begun = Quantized::begin(DType::G2x32, &block, &stored, 32, Start::Values).unwrap();
    let mut values = vec![0.0; 32];
    begun.values(&mut values);
    assert_eq!((values, begun.scales.factors[0]), (stored, 0.25));
}
