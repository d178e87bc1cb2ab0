//! Agreement beyond chance, and intervals of proportions.
//!
//! Cohen's kappa (1960) for two labellers, Fleiss' (1971) and Krippendorff's alpha (1970) for any number; Wilson's score interval (1927).

/// Cohen's `κ = (p_o − p_e) / (1 − p_e)` of two labellers' labels: `p_o` is how often they agree, `p_e` how often they
/// would if each kept to how often it gives each label. NaN without texts, 1 where both give one and the same label always.
pub fn cohen(a: &[usize], b: &[usize]) -> f64 {
    let count = a.len().min(b.len()) as f64;
    let labels = a.iter().chain(b).max().map_or(0, |most| most + 1);
    let mut shares = vec![[0.0; 2]; labels];
    a.iter().zip(b).for_each(|(a, b)| {
        shares[*a][0] += 1.0 / count;
        shares[*b][1] += 1.0 / count;
    });
    let observed = a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / count;
    beyond(observed, shares.iter().map(|[a, b]| a * b).sum())
}

/// Fleiss' kappa: `counts` has how many labellers gave each label, a row a text. Rows may differ in their sum; those of
/// fewer than two labellers say nothing. NaN if all do.
pub fn fleiss(counts: &[Vec<usize>]) -> f64 {
    let labels = counts.iter().map(Vec::len).max().unwrap_or(0);
    let mut shares = vec![0.0; labels];
    let (mut pairs, mut texts, mut all) = (0.0, 0.0, 0.0);
    for row in counts {
        let raters: usize = row.iter().sum();
        if raters < 2 {
            continue;
        }
        let agreeing: usize = row.iter().map(|&count| count * count.saturating_sub(1)).sum();
        pairs += agreeing as f64 / (raters * (raters - 1)) as f64;
        texts += 1.0;
        all += raters as f64;
        shares.iter_mut().zip(row).for_each(|(share, &count)| *share += count as f64);
    }
    beyond(pairs / texts, shares.iter().map(|share| (share / all).powi(2)).sum())
}

/// Krippendorff's alpha of labels without an order (1970): `1 − D_o / D_e`, the disagreement within texts by what it would be if labels were
/// dealt out to texts by chance. `counts` as [`fleiss`] has them; unlike there texts count by their labels, and small samples are corrected for.
pub fn krippendorff(counts: &[Vec<usize>]) -> f64 {
    let labels = counts.iter().map(Vec::len).max().unwrap_or(0);
    let (mut sums, mut all, mut observed) = (vec![0.0; labels], 0.0, 0.0);
    for row in counts {
        let raters = row.iter().sum::<usize>() as f64;
        if raters < 2.0 {
            continue;
        }
        let same: f64 = row.iter().map(|&count| (count * count) as f64).sum();
        observed += (raters * raters - same) / (raters - 1.0);
        all += raters;
        sums.iter_mut().zip(row).for_each(|(sum, &count)| *sum += count as f64);
    }
    let same: f64 = sums.iter().map(|sum: &f64| sum * sum).sum();
    let expected = (all * all - same) / (all - 1.0);
    // One label alone: there is nothing to disagree on.
    if all > 0.0 && expected == 0.0 { 1.0 } else { 1.0 - observed / expected }
}

fn beyond(observed: f64, expected: f64) -> f64 {
    // Where chance alone would always agree, there is nothing beyond it.
    if expected >= 1.0 { 1.0 } else { (observed - expected) / (1.0 - expected) }
}

/// The normal distribution's 97.5 % point, for intervals of 95 %.
pub const Z95: f64 = 1.959_963_984_540_054;

/// Wilson's interval of a proportion of which `right` of `of` were seen: all proportions from which that is at most `z`
/// standard deviations away. 0 to 1 without any.
pub fn wilson(right: usize, of: usize, z: f64) -> [f64; 2] {
    if of == 0 {
        return [0.0, 1.0];
    }
    let (n, p) = (of as f64, right as f64 / of as f64);
    let middle = p + z * z / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let whole = 1.0 + z * z / n;
    [((middle - half) / whole).max(0.0), ((middle + half) / whole).min(1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chance of agreement counted out over all pairs of one labeller's label with the other's.
    #[test]
    fn cohens_kappa_is_the_counted_one() {
        let (a, b) = (vec![0, 0, 1, 1, 2, 0, 1, 2, 2, 0], vec![0, 1, 1, 1, 2, 0, 0, 2, 1, 0]);
        let (mut observed, mut chance) = (0.0, 0.0);
        for (i, x) in a.iter().enumerate() {
            for (j, y) in b.iter().enumerate() {
                chance += f64::from(u8::from(x == y)) / 100.0;
                observed += f64::from(u8::from(i == j && x == y)) / 10.0;
            }
        }
        assert!((cohen(&a, &b) - (observed - chance) / (1.0 - chance)).abs() < 1e-12);
        // The example of textbooks: 20, 5, 10, 15 of 50.
        let pairs: Vec<(usize, usize)> = [((0, 0), 20), ((0, 1), 5), ((1, 0), 10), ((1, 1), 15)]
            .iter()
            .flat_map(|&(pair, n)| vec![pair; n])
            .collect();
        let (a, b): (Vec<usize>, Vec<usize>) = pairs.into_iter().unzip();
        assert!((cohen(&a, &b) - 0.4).abs() < 1e-12);
        assert_eq!(cohen(&[1, 1], &[1, 1]), 1.0);
        assert!(cohen(&[], &[]).is_nan());
    }

    /// Fleiss' own example: ten subjects, fourteen raters, five categories; he gives 0.210.
    #[test]
    fn fleiss_kappa_is_that_of_the_paper() {
        let rows = [
            [0, 0, 0, 0, 14],
            [0, 2, 6, 4, 2],
            [0, 0, 3, 5, 6],
            [0, 3, 9, 2, 0],
            [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0],
            [3, 2, 6, 3, 0],
            [2, 5, 3, 2, 2],
            [6, 5, 2, 1, 0],
            [0, 2, 2, 3, 7],
        ];
        let counts: Vec<Vec<usize>> = rows.iter().map(|row| row.to_vec()).collect();
        assert!((fleiss(&counts) - 0.210).abs() < 5e-4, "{}", fleiss(&counts));
        // A text with one vote changes nothing.
        let more = [&counts[..], &[vec![1, 0, 0, 0, 0]]].concat();
        assert_eq!(fleiss(&more), fleiss(&counts));
    }

    /// The interval's ends are where the seen part lies `z` deviations off.
    #[test]
    fn wilsons_ends_solve_their_equation() {
        for (right, of) in [(0usize, 10usize), (7, 10), (10, 10), (181, 200), (1, 3)] {
            let seen = right as f64 / of as f64;
            for end in wilson(right, of, Z95) {
                // In squares: a deviation of nothing is exact only there.
                let (off, variance) = ((seen - end).powi(2), end * (1.0 - end) / of as f64);
                assert!((off - Z95 * Z95 * variance).abs() < 1e-12, "{right} of {of}: {end}");
            }
        }
        assert_eq!(wilson(0, 0, Z95), [0.0, 1.0]);
    }

    /// Krippendorff's own example of two observers and ten units: 0.095.
    #[test]
    fn alpha_is_that_of_the_example() {
        let (a, b) = ([0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]);
        let rows: Vec<Vec<usize>> = a
            .iter()
            .zip(b)
            .map(|(&a, b)| (0..2).map(|label| usize::from(a == label) + usize::from(b == label)).collect())
            .collect();
        assert!((krippendorff(&rows) - 0.095).abs() < 1e-3, "{}", krippendorff(&rows));
        assert_eq!(krippendorff(&[vec![2, 0], vec![0, 2], vec![1, 0]]), 1.0);
        assert_eq!(krippendorff(&[vec![3, 0], vec![2, 0]]), 1.0);
        assert!(krippendorff(&[vec![1, 0]]).is_nan());
    }
}
