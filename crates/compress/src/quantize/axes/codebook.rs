//! Mappings that aren't uniform: any levels, of which a value takes the nearest (the survey's section III.F), and the
//! extreme ones of one and two bits (section IV.C).

/// Levels in rising order.
#[derive(Debug, Clone, PartialEq)]
pub struct Codebook {
    levels: Vec<f32>,
}

impl Codebook {
    /// A codebook of these levels; none gives the single level 0.
    pub fn new(mut levels: Vec<f32>) -> Codebook {
        levels.retain(|level| level.is_finite());
        levels.sort_unstable_by(f32::total_cmp);
        levels.dedup();
        if levels.is_empty() {
            levels.push(0.0);
        }
        Codebook { levels }
    }

    /// Levels 0 and ±α 2^−k, k from 0 on, with α the largest absolute value: 2^b − 1 of them, products with which are
    /// shifts.
    pub fn powers_of_two(values: &[f32], bits: u32) -> Codebook {
        let most = values.iter().filter(|it| it.is_finite()).fold(0.0f32, |most, it| most.max(it.abs()));
        let powers = (0..(1 << (bits - 1)) - 1).map(|k| most * 0.5f32.powi(k));
        Codebook::new(powers.flat_map(|level| [level, -level]).chain([0.0]).collect())
    }

    /// Up to 2^b levels that are the means of the values nearest to them: Lloyd's algorithm from evenly spaced quantiles.
    pub fn k_means(values: &[f32], bits: u32) -> Codebook {
        let mut sorted: Vec<f32> = values.iter().copied().filter(|it| it.is_finite()).collect();
        if sorted.is_empty() {
            return Codebook::new(Vec::new());
        }
        sorted.sort_unstable_by(f32::total_cmp);
        let sums: Vec<f64> = std::iter::once(0.0)
            .chain(sorted.iter().scan(0.0, |sum, &value| {
                *sum += f64::from(value);
                Some(*sum)
            }))
            .collect();
        let count = 1usize << bits;
        let quantile = |level: usize| sorted[(2 * level + 1) * sorted.len() / (2 * count)];
        let mut book = Codebook::new((0..count).map(quantile).collect());
        for _ in 0..100 {
            // Cells end halfway between levels.
            let ends = book.levels.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
            let ends = ends.map(|end| sorted.partition_point(|&value| value <= end));
            let ends: Vec<usize> = [0].into_iter().chain(ends).chain([sorted.len()]).collect();
            let cells = ends.windows(2).zip(&book.levels).map(|(cell, &level)| match cell[1] - cell[0] {
                0 => level,
                values => ((sums[cell[1]] - sums[cell[0]]) / values as f64) as f32,
            });
            let next = Codebook::new(cells.collect());
            if next == book {
                break;
            }
            book = next;
        }
        book
    }

    /// ±α with α the mean absolute value, the least squared error of all two opposite levels (XNOR-Net, equation 6).
    pub fn binary(values: &[f32]) -> Codebook {
        let mean = values.iter().map(|&it| f64::from(it.abs())).sum::<f64>() / values.len().max(1) as f64;
        Codebook::new(vec![mean as f32, -mean as f32])
    }

    /// 0 and ±α with the least squared error: of the k largest absolute values with sum s, α = s/k, and k makes s²/k the
    /// largest (the exact solution of ternary weight networks, which take a threshold of 0.7 mean values instead).
    pub fn ternary(values: &[f32]) -> Codebook {
        let mut absolute: Vec<f32> = values.iter().map(|it| it.abs()).filter(|it| it.is_finite()).collect();
        absolute.sort_unstable_by(|a, b| b.total_cmp(a));
        let (mut sum, mut best) = (0.0f64, (-1.0, 0.0));
        for (index, &value) in absolute.iter().enumerate() {
            sum += f64::from(value);
            let count = (index + 1) as f64;
            if sum * sum / count > best.0 {
                best = (sum * sum / count, sum / count);
            }
        }
        let level = best.1 as f32;
        Codebook::new(vec![level, 0.0, -level])
    }

    /// The levels.
    pub fn levels(&self) -> &[f32] {
        &self.levels
    }

    /// The nearest level's number; of two equally near, the lower one's.
    pub fn code(&self, value: f32) -> usize {
        let above = self.levels.partition_point(|&level| level < value);
        match above {
            0 => 0,
            above if above == self.levels.len() => above - 1,
            above if value - self.levels[above - 1] <= self.levels[above] - value => above - 1,
            above => above,
        }
    }

    /// The nearest level.
    pub fn round(&self, value: f32) -> f32 {
        self.levels[self.code(value)]
    }
}

/// Signs, 64 a word, 1 for negative.
pub fn signs(values: &[f32]) -> Vec<u64> {
    let word = |values: &[f32]| {
        values
            .iter()
            .enumerate()
            .fold(0, |word, (at, value)| word | u64::from(value.is_sign_negative()) << at)
    };
    values.chunks(64).map(word).collect()
}

/// The inner product of two rows of ±1 given by their [`signs`]: `n − 2 popcount(a ⊕ b)`, XNOR-Net's product.
pub fn sign_product(a: &[u64], b: &[u64], count: usize) -> i64 {
    let differ: u32 = a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum();
    count as i64 - 2 * i64::from(differ)
}

#[cfg(test)]
mod tests {
    use super::super::random;
    use super::*;

    fn sample(seed: u64, count: usize) -> Vec<f32> {
        let mut next = random::normal(seed);
        (0..count).map(|_| next()).collect()
    }

    fn error(values: &[f32], round: impl Fn(f32) -> f32) -> f64 {
        values.iter().map(|&value| f64::from(value - round(value)).powi(2)).sum()
    }

    #[test]
    fn the_nearest_level_is_found() {
        let values = sample(1, 300);
        for book in [Codebook::powers_of_two(&values, 4), Codebook::k_means(&values, 3)] {
            for &value in &values {
                let least =
                    book.levels().iter().map(|level| (level - value).abs()).fold(f32::INFINITY, f32::min);
                assert_eq!((book.round(value) - value).abs(), least);
            }
        }
        assert_eq!(Codebook::new(vec![]).round(3.0), 0.0);
    }

    #[test]
    fn powers_of_two_are_that() {
        let book = Codebook::powers_of_two(&[1.5, -3.0], 3);
        assert_eq!(book.levels(), [-3.0, -1.5, -0.75, 0.0, 0.75, 1.5, 3.0]);
    }

    #[test]
    fn k_means_is_a_fixed_point_and_beats_even_levels() {
        let values = sample(2, 1000);
        for bits in [1, 2, 3, 4] {
            let book = Codebook::k_means(&values, bits);
            assert_eq!(book.levels().len(), 1 << bits);
            for (number, &level) in book.levels().iter().enumerate() {
                let own: Vec<f64> =
                    values.iter().filter(|&&it| book.code(it) == number).map(|&it| f64::from(it)).collect();
                let mean = own.iter().sum::<f64>() / own.len() as f64;
                // 100 rounds come this near.
                assert!((mean - f64::from(level)).abs() < 2e-2, "{bits} bits: {mean} {level}");
            }
            let grid = super::super::Grid::of(&values, bits.max(2), super::super::Symmetry::Asymmetric);
            if bits >= 2 {
                assert!(error(&values, |it| book.round(it)) < error(&values, |it| grid.round(it)));
            }
        }
    }

    #[test]
    fn k_means_finds_what_a_search_over_all_partitions_finds() {
        let values = [-3.0f32, -2.9, -3.1, 0.1, 0.0, -0.1, 2.0, 2.1, 5.0, 5.2];
        let mut sorted = values;
        sorted.sort_by(f32::total_cmp);
        let cost = |cell: &[f32]| {
            let mean = cell.iter().sum::<f32>() / cell.len().max(1) as f32;
            error(cell, |_| mean)
        };
        let mut best = f64::INFINITY;
        for a in 1..10 {
            for b in a..10 {
                for c in b..10 {
                    let cells = [&sorted[..a], &sorted[a..b], &sorted[b..c], &sorted[c..]];
                    best = best.min(cells.into_iter().map(cost).sum());
                }
            }
        }
        let book = Codebook::k_means(&values, 2);
        assert!((error(&values, |it| book.round(it)) - best).abs() < 1e-6);
    }

    #[test]
    fn binary_and_ternary_are_the_best_of_all_codes() {
        for seed in 0..20 {
            let values = sample(seed + 10, 7);
            for (book, codes) in [(Codebook::binary(&values), 2usize), (Codebook::ternary(&values), 3)] {
                let mut best = f64::INFINITY;
                for mut number in 0..codes.pow(7) {
                    let code: Vec<f32> = (0..7)
                        .map(|_| {
                            let code = number % codes;
                            number /= codes;
                            if codes == 2 { code as f32 * 2.0 - 1.0 } else { code as f32 - 1.0 }
                        })
                        .collect();
                    // The best factor for these codes.
                    let squares: f32 = code.iter().map(|it| it * it).sum();
                    let factor = code.iter().zip(&values).map(|(a, b)| a * b).sum::<f32>() / squares.max(1.0);
                    let pairs = values.iter().zip(&code);
                    best = best.min(pairs.map(|(v, c)| f64::from(v - factor * c).powi(2)).sum());
                }
                let found = error(&values, |it| book.round(it));
                assert!(found <= best + 1e-5, "{codes} levels: {found} against {best}");
            }
        }
    }

    #[test]
    fn sign_products_are_products_of_signs() {
        let (a, b) = (sample(5, 150), sample(6, 150));
        let plain: f32 = a.iter().zip(&b).map(|(a, b)| a.signum() * b.signum()).sum();
        assert_eq!(sign_product(&signs(&a), &signs(&b), 150), plain as i64);
    }
}
