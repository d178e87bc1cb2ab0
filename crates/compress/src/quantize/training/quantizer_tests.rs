use ounce_kernels::quant;

use super::*;

fn wave(count: usize, speed: f32, size: f32) -> Vec<f32> {
    (0..count).map(|at| (at as f32 * speed).sin() * size).collect()
}

fn packed(dtype: DType, values: &[f32], columns: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    quant::encode_rows(dtype, values, columns, &mut bytes).unwrap();
    bytes
}

/// A matrix between the levels, with clipped values on both sides, and uneven zero points.
fn matrix(dtype: DType) -> Quantized {
    let original = wave(3 * 128, 0.37, 0.2);
    let mut matrix =
        Quantized::begin(dtype, &packed(dtype, &original, 128), &original, 128, Start::Weights).unwrap();
    matrix.steps.iter_mut().enumerate().for_each(|(at, step)| *step *= 0.6 + 0.05 * (at % 4) as f32);
    matrix.zeros.iter_mut().enumerate().for_each(|(at, zero)| *zero += 0.3 * ((at % 3) as f32 - 1.0));
    matrix
}

#[test]
fn what_is_packed_is_what_training_saw() {
    for dtype in [DType::G2x32, DType::G2x64, DType::G3x64, DType::G4x128] {
        let matrix = matrix(dtype);
        let (mut seen, mut stored) = (vec![0.0; 384], vec![0.0; 384]);
        matrix.values(&mut seen);
        quant::decode(dtype, &matrix.pack(), &mut stored).unwrap();
        assert_eq!(seen, stored, "{dtype}");
    }
    assert!(Quantized::begin(DType::Q4_0, &[], &[], 32, Start::Weights).is_none());
}

/// Values beyond the ends, as the surrogate that the estimator differentiates has them: rounding errors of weights stay
/// as they are, zero points need not be whole.
fn surrogate(matrix: &Quantized, at: &Quantized) -> Vec<f32> {
    let group = matrix.group;
    let value = |(index, &weight): (usize, &f32)| {
        let grid = matrix.grid(index / group);
        let (level, top) = (grid.level(weight), grid.top);
        let (now, step) = (at.weights[index], at.steps[index / group]);
        // The stored zero point moves with the real one.
        let zero = grid.zero + at.zeros[index / group] - matrix.zeros[index / group];
        if level < 0.0 {
            -step * zero
        } else if level > top {
            step * (top - zero)
        } else {
            now + step * ((weight * grid.inverse).round_ties_even() - weight * grid.inverse)
        }
    };
    matrix.weights.iter().enumerate().map(value).collect()
}

#[test]
fn gradients_are_those_of_the_straight_through_surrogate() {
    for dtype in [DType::G2x32, DType::G3x64, DType::G4x32] {
        let matrix = matrix(dtype);
        let slope = wave(384, 1.7, 1.0);
        let mut gradient = slope.clone();
        let mut scales = matrix.gradients();
        matrix.backward(&mut gradient, &mut scales);
        let loss = |at: &Quantized| -> f64 {
            surrogate(&matrix, at).iter().zip(&slope).map(|(x, s)| f64::from(*x) * f64::from(*s)).sum()
        };
        let copy = || Quantized {
            weights: matrix.weights.clone(),
            steps: matrix.steps.clone(),
            zeros: matrix.zeros.clone(),
            ..matrix
        };
        fn slot(matrix: &mut Quantized, kind: usize) -> &mut Vec<f32> {
            match kind {
                0 => &mut matrix.weights,
                1 => &mut matrix.steps,
                _ => &mut matrix.zeros,
            }
        }
        let found = [&gradient, &scales.steps, &scales.zeros];
        for (kind, found) in found.into_iter().enumerate() {
            for (place, &gradient) in found.iter().enumerate() {
                let change = [1e-2, 1e-2, 0.25][kind];
                let (mut more, mut less) = (copy(), copy());
                slot(&mut more, kind)[place] += change;
                slot(&mut less, kind)[place] -= change;
                let expected = (loss(&more) - loss(&less)) / f64::from(2.0 * change);
                let off = (f64::from(gradient) - expected).abs();
                assert!(
                    off < 2e-3 + 1e-3 * expected.abs(),
                    "{dtype} {kind} {place}: {gradient} for {expected}"
                );
            }
        }
        let clipped = gradient.iter().filter(|it| **it == 0.0).count();
        assert!(clipped > 10 && clipped < 380, "{dtype}: both kinds of values, {clipped} clipped");
        assert!(scales.zeros.iter().any(|it| *it != 0.0));
    }
}

#[test]
fn a_start_from_codes_keeps_them_and_stays_near_the_weights() {
    for dtype in [DType::G2x64, DType::G4x64] {
        let original = wave(2 * 128, 0.37, 0.2);
        // Codes that rounding to the nearest would not choose.
        let pushed: Vec<f32> = original.iter().zip(wave(256, 2.9, 0.05)).map(|(w, p)| w + p).collect();
        let bytes = packed(dtype, &pushed, 128);
        let begin = |start| Quantized::begin(dtype, &bytes, &original, 128, start).unwrap();
        assert_eq!(begin(Start::Codes).pack(), bytes);
        assert_eq!(begin(Start::Values).pack(), bytes);
        assert_ne!(begin(Start::Weights).pack(), bytes);
        let far = |matrix: &Quantized| -> f32 {
            matrix.weights.iter().zip(&original).map(|(a, b)| (a - b).abs()).sum()
        };
        assert!(far(&begin(Start::Codes)) < 0.8 * far(&begin(Start::Values)), "{dtype}");
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
    assert_eq!((values, begun.steps[0]), (stored, 0.25));
}
