//! Which place of a small array each weight of a long row reads, and with which sign.

/// The places of rows of matrices in an array of `size` numbers; nothing but a seed is kept of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Fold {
    size: usize,
    seed: u64,
    /// Values of each matrix, in order, with its factor `λ`.
    matrices: Vec<(usize, f32)>,
}

/// Steele and others' SplitMix64: bits that look random of a number.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Fold {
    /// Matrices of so many values, each with the deviation it begins with, in an array of `size` numbers with deviation `sigma`. A `size` beyond
    /// all values is cut to them.
    ///
    /// # Panics
    /// If there is nothing to store, or nowhere.
    pub fn new(matrices: &[(usize, f64)], size: usize, sigma: f64, seed: u64) -> Fold {
        let all: usize = matrices.iter().map(|it| it.0).sum();
        assert!(size > 0 && all > 0 && sigma > 0.0, "weights, and places for them");
        let matrices =
            matrices.iter().map(|&(count, deviation)| (count, (deviation / sigma) as f32)).collect();
        Fold { size: size.min(all), seed, matrices }
    }

    /// Numbers of the array.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Calls `job` with each weight's matrix, number in it, place, and factor with its sign.
    fn each(&self, mut job: impl FnMut(usize, usize, usize, f32)) {
        let (mut part, mut inside, mut turn) = (0u64, 0, 0);
        let mut number = 0u64;
        let seed = mix(self.seed);
        for (matrix, &(count, factor)) in self.matrices.iter().enumerate() {
            for at in 0..count {
                if inside == self.size {
                    (inside, part) = (0, part + 1);
                    turn = (mix(seed ^ mix(part)) % self.size as u64) as usize;
                }
                let place = inside + turn;
                let place = if place >= self.size { place - self.size } else { place };
                // A bit of one mixed word for each of 64 weights in a row.
                let sign = mix(seed.wrapping_add(number / 64)) >> (number % 64) & 1;
                job(matrix, at, place, if sign == 1 { -factor } else { factor });
                inside += 1;
                number += 1;
            }
        }
    }

    /// The array from which the first part reads exactly these weights.
    pub fn begin(&self, weights: &[&[f32]]) -> Vec<f32> {
        let mut array = vec![0.0; self.size];
        let mut left = self.size;
        self.each(|matrix, at, place, factor| {
            if left > 0 {
                left -= 1;
                array[place] = if factor == 0.0 { 0.0 } else { weights[matrix][at] / factor };
            }
        });
        array
    }

    /// The weights: `w_j = s_j λ ψ[h(j)]`.
    pub fn gather(&self, array: &[f32], weights: &mut [&mut [f32]]) {
        self.each(|matrix, at, place, factor| weights[matrix][at] = factor * array[place]);
    }

    /// Adds to the array's gradient that of the weights: `Σ s_j λ g_j`.
    pub fn scatter(&self, gradients: &[&[f32]], array: &mut [f32]) {
        self.each(|matrix, at, place, factor| array[place] += factor * gradients[matrix][at]);
    }

    /// `Γ_i = 1 / Σ λ²` over the weights that read place `i`.
    pub fn scaling(&self) -> Vec<f32> {
        let mut sums = vec![0.0f64; self.size];
        self.each(|_, _, place, factor| sums[place] += f64::from(factor).powi(2));
        sums.iter().map(|sum| if *sum > 0.0 { (1.0 / sum) as f32 } else { 0.0 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MATRICES: [(usize, f64); 3] = [(50, 0.1), (30, 0.2), (23, 0.4)];

    fn rows(values: &mut [Vec<f32>]) -> Vec<&mut [f32]> {
        values.iter_mut().map(Vec::as_mut_slice).collect()
    }

    fn empty() -> Vec<Vec<f32>> {
        MATRICES.iter().map(|it| vec![0.0; it.0]).collect()
    }

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        (0..count as u64).map(|at| (mix(seed ^ mix(at)) >> 40) as f32 / (1 << 24) as f32 - 0.5).collect()
    }

    #[test]
    fn places_are_shared_evenly_and_signs_both_occur() {
        for size in [1, 7, 10, 50, 103, 500] {
            let fold = Fold::new(&MATRICES, size, 0.1, 3);
            let (mut loads, mut minus) = (vec![0usize; fold.size()], 0);
            fold.each(|_, _, place, factor| {
                loads[place] += 1;
                minus += usize::from(factor < 0.0);
            });
            let most = 103usize.div_ceil(fold.size());
            assert!(loads.iter().all(|load| *load == most || *load + 1 == most), "{size} {loads:?}");
            assert!((30..73).contains(&minus), "{minus}");
        }
        assert_eq!(Fold::new(&MATRICES, 500, 0.1, 3).size(), 103);
    }

    #[test]
    fn scattering_is_the_transpose_of_gathering() {
        let fold = Fold::new(&MATRICES, 17, 0.1, 9);
        let array = numbers(17, 1);
        let mut weights = empty();
        fold.gather(&array, &mut rows(&mut weights));
        let gradients: Vec<Vec<f32>> = MATRICES.iter().map(|it| numbers(it.0, it.0 as u64)).collect();
        let mut back = vec![0.0; 17];
        fold.scatter(&gradients.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut back);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let forward: f32 = weights.iter().zip(&gradients).map(|(w, g)| dot(w, g)).sum();
        assert!((forward - dot(&array, &back)).abs() < 1e-4);
    }

    #[test]
    fn a_step_of_gradient_descent_does_not_hang_on_the_deviation_and_is_the_usual_one_unshared() {
        let gradients: Vec<Vec<f32>> = MATRICES.iter().map(|it| numbers(it.0, it.0 as u64)).collect();
        let slices: Vec<&[f32]> = gradients.iter().map(Vec::as_slice).collect();
        let began: Vec<Vec<f32>> = MATRICES.iter().map(|it| numbers(it.0, 77 + it.0 as u64)).collect();
        let moved = |size: usize, sigma: f64| -> (Vec<f32>, Vec<f32>) {
            let fold = Fold::new(&MATRICES, size, sigma, 5);
            let mut array = fold.begin(&began.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let mut before = empty();
            fold.gather(&array, &mut rows(&mut before));
            let mut slope = vec![0.0; fold.size()];
            fold.scatter(&slices, &mut slope);
            array.iter_mut().zip(slope.iter().zip(fold.scaling())).for_each(|(x, (s, g))| *x -= 0.5 * s * g);
            let mut after = empty();
            fold.gather(&array, &mut rows(&mut after));
            let steps = before.concat().iter().zip(after.concat()).map(|(a, b)| b - a).collect();
            (before.concat(), steps)
        };
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        let (before, steps) = moved(103, 0.01);
        assert!(near(&before, &began.concat()));
        assert!(near(&steps, &gradients.concat().iter().map(|g| -0.5 * g).collect::<Vec<_>>()));
        assert!(near(&moved(20, 1e-3).1, &moved(20, 10.0).1));
        assert!(near(&moved(20, 1.0).0[..20], &began.concat()[..20]));
    }
}
