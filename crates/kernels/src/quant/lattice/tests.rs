use super::search::{DIMS, NEAR, Sums};
use super::*;

/// Numbers that are about normal.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
    let mut even = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0 - 0.5
    };
    (0..count).map(|_| (0..12).map(|_| even()).sum::<f32>() * 0.1).collect()
}

const WRITTEN: [DType; 3] = [DType::IQ2XXS, DType::IQ2XS, DType::IQ2S];

#[test]
fn the_cheapest_points_are_those_that_trying_all_signs_finds() {
    for dtype in WRITTEN {
        let lattice = Lattice::of(dtype).unwrap();
        let even = dtype != DType::IQ2S;
        for seed in 0..6 {
            let x: [f32; DIMS] = noise(DIMS, seed).try_into().unwrap();
            let w: [f32; DIMS] = std::array::from_fn(|at| 0.5 + (at as f32 * 1.7 + seed as f32).sin().abs());
            let (step, mut sums, mut near) = (0.006, Sums::default(), [Near::default(); NEAR]);
            lattice.sum(&x, &w, &mut sums);
            let found = lattice.near(&sums, step, &mut near);
            let error = |near: &Near| -> f32 {
                let levels = lattice.levels(near);
                (0..DIMS).map(|at| w[at] * (x[at] - step * levels[at]).powi(2)).sum()
            };
            let mut best = f32::INFINITY;
            for place in 0..lattice.points() as u16 {
                for signs in 0..=255u8 {
                    if !even || signs.count_ones() % 2 == 0 {
                        best = best.min(error(&Near { place, signs, cost: 0.0 }));
                    }
                }
            }
            assert_eq!(found, NEAR);
            assert!((error(&near[0]) - best).abs() <= 1e-6, "{dtype}: {} {best}", error(&near[0]));
            assert_eq!(lattice.cheapest(&sums, step).0, usize::from(near[0].place));
            let common: f32 = x.iter().zip(w).map(|(x, w)| w * x * x).sum();
            for pair in near.windows(2) {
                assert!(pair[0].cost <= pair[1].cost);
            }
            for near in near {
                assert!((error(&near) - common - near.cost).abs() < 1e-6, "{dtype}: {near:?}");
                assert!(!even || near.signs.count_ones() % 2 == 0);
            }
        }
    }
}

#[test]
fn what_is_written_is_read_and_near() {
    // The shares of squared error that the formats leave on normal values; more points leave less.
    let mut last = 1.0;
    for dtype in WRITTEN {
        let lattice = Lattice::of(dtype).unwrap();
        let (values, weights) = (noise(BLOCK * 8, 3), vec![1.0; BLOCK]);
        let (mut error, mut all) = (0.0, 0.0);
        for values in values.chunks_exact(BLOCK) {
            let mut block = vec![0xff; dtype.block_bytes()];
            lattice.encode(values, &weights, &mut block);
            let mut found = [0.0; BLOCK];
            decode(dtype, &block, &mut found);
            error += values.iter().zip(found).map(|(x, y)| (x - y) * (x - y)).sum::<f32>();
            all += values.iter().map(|x| x * x).sum::<f32>();
        }
        let share = error / all;
        println!("{dtype}: {share}");
        assert!(share < last && share < 0.15 && share > 0.04, "{dtype}: {share}");
        last = share;
        // Nothing stays nothing, and large numbers are no trouble.
        let mut block = vec![0xff; dtype.block_bytes()];
        lattice.encode(&[0.0; BLOCK], &weights, &mut block);
        let mut found = [1.0; BLOCK];
        decode(dtype, &block, &mut found);
        assert!(found.iter().all(|x| *x == 0.0));
        lattice.encode(&[1e9; BLOCK], &weights, &mut block);
        assert!(!is_finite(dtype, &block));
    }
}
