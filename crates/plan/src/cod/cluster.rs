//! Items that models find hard in the same way: the mean shift of pass-rate vectors, improved.
//!
//! A flat kernel of a fixed radius is shifted from every populated cell of a grid to the mean of what lies within, until it rests.
//! Two things differ from the usual mean shift: an item belongs to a cluster only if it lies within the radius of its *mean*, and
//! a cluster of too few items is none; what is left over is clustered again until nothing new comes of it. So the
//! spread within a cluster is bounded, and nobody has to say how many clusters there are. (COD, arXiv 2502.17262, section 3.2.)

use std::collections::BTreeMap;

/// How alike items must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// The most that an item may be away from its cluster's mean: the root mean square of the differences of their pass rates.
    pub radius: f64,
    /// Items of a cluster at least.
    pub least: usize,
}

/// Steps of a shift, and how little of the radius it must move to rest.
const STEPS: usize = 100;
const REST: f64 = 1e-3;

/// The cluster of each point, numbered by size; none for outliers.
///
/// # Panics
/// If the points differ in length, or the radius is not above 0.
pub fn cluster(points: &[Vec<f64>], options: &Options) -> Vec<Option<usize>> {
    assert!(options.radius > 0.0, "a radius above 0");
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut rest: Vec<usize> = (0..points.len()).collect();
    loop {
        let modes = modes(points, &rest, options.radius);
        let mut found = assign(points, &rest, &modes, options.radius);
        found.retain(|group| group.len() >= options.least.max(1));
        if found.is_empty() {
            break;
        }
        let mut taken = vec![false; points.len()];
        found.iter().flatten().for_each(|&at| taken[at] = true);
        rest.retain(|&at| !taken[at]);
        groups.extend(found);
    }
    groups.sort_by_key(|group| (std::cmp::Reverse(group.len()), group[0]));
    let mut of = vec![None; points.len()];
    for (number, group) in groups.iter().enumerate() {
        group.iter().for_each(|&at| of[at] = Some(number));
    }
    of
}

/// Where kernels come to rest, the most populated first, none within a radius of another.
fn modes(points: &[Vec<f64>], rest: &[usize], radius: f64) -> Vec<Vec<f64>> {
    let mut cells: BTreeMap<Vec<i64>, Vec<usize>> = BTreeMap::new();
    for &at in rest {
        let cell = points[at].iter().map(|x| (x / radius).round() as i64).collect();
        cells.entry(cell).or_default().push(at);
    }
    let mut found: Vec<(usize, Vec<f64>)> = Vec::new();
    for members in cells.values() {
        let Some(mut centre) = mean(points, members) else { continue };
        let mut within = Vec::new();
        for _ in 0..STEPS {
            within = near(points, rest, &centre, radius);
            let Some(moved) = mean(points, &within) else { break };
            let step = distance(&moved, &centre);
            centre = moved;
            if step < REST * radius {
                break;
            }
        }
        found.push((within.len(), centre));
    }
    found.sort_by(|a, b| {
        b.0.cmp(&a.0).then_with(|| a.1.partial_cmp(&b.1).unwrap_or(std::cmp::Ordering::Equal))
    });
    let mut kept: Vec<Vec<f64>> = Vec::new();
    for (_, centre) in found {
        if kept.iter().all(|other| distance(other, &centre) > radius) {
            kept.push(centre);
        }
    }
    kept
}

/// The points nearest to each mode that are also within the radius of their common mean.
fn assign(points: &[Vec<f64>], rest: &[usize], modes: &[Vec<f64>], radius: f64) -> Vec<Vec<usize>> {
    let mut groups = vec![Vec::new(); modes.len()];
    for &at in rest {
        let distances = modes.iter().map(|mode| distance(mode, &points[at])).enumerate();
        let nearest = distances.min_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((mode, _)) = nearest.filter(|(_, far)| *far <= radius) {
            groups[mode].push(at);
        }
    }
    for group in &mut groups {
        // Whoever leaves moves the mean, so that others may have to leave too; each round there are fewer.
        while let Some(centre) = mean(points, group) {
            let before = group.len();
            group.retain(|&at| distance(&points[at], &centre) <= radius);
            if group.len() == before {
                break;
            }
        }
    }
    groups.retain(|group| !group.is_empty());
    groups
}

fn near(points: &[Vec<f64>], of: &[usize], centre: &[f64], radius: f64) -> Vec<usize> {
    of.iter().copied().filter(|&at| distance(&points[at], centre) <= radius).collect()
}

fn mean(points: &[Vec<f64>], of: &[usize]) -> Option<Vec<f64>> {
    let mut sum = vec![0.0; points[*of.first()?].len()];
    for &at in of {
        sum.iter_mut().zip(&points[at]).for_each(|(sum, x)| *sum += x);
    }
    sum.iter_mut().for_each(|sum| *sum /= of.len() as f64);
    Some(sum)
}

/// Root mean square of the differences.
pub(super) fn distance(a: &[f64], b: &[f64]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum();
    (squares / a.len().max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn groups_are_found_and_strays_are_left_out() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let centres = [[0.1, 0.2, 0.3], [0.8, 0.8, 0.9], [0.1, 0.6, 0.9]];
        let mut points = Vec::new();
        for (count, centre) in [40, 25, 10].into_iter().zip(centres) {
            for _ in 0..count {
                points.push(centre.map(|x: f64| x + rng.random_range(-0.05..0.05)).to_vec());
            }
        }
        points.push(vec![0.9, 0.1, 0.1]);
        points.push(vec![0.9, 0.12, 0.1]);
        let found = cluster(&points, &Options { radius: 0.12, least: 5 });
        let expected: Vec<Option<usize>> = [(40, Some(0)), (25, Some(1)), (10, Some(2)), (2, None)]
            .into_iter()
            .flat_map(|(n, it)| vec![it; n])
            .collect();
        assert_eq!(found, expected);
        // Two are enough if two are asked for.
        let found = cluster(&points, &Options { radius: 0.12, least: 2 });
        assert_eq!(found[75..], [Some(3), Some(3)]);
    }

    #[test]
    fn nobody_is_farther_than_the_radius_from_the_mean() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let points: Vec<Vec<f64>> = (0..300).map(|_| (0..4).map(|_| rng.random::<f64>()).collect()).collect();
        let options = Options { radius: 0.2, least: 4 };
        let found = cluster(&points, &options);
        let count = found.iter().flatten().max().map_or(0, |most| most + 1);
        assert!(count > 3, "{count}");
        for number in 0..count {
            let members: Vec<usize> = (0..300).filter(|&at| found[at] == Some(number)).collect();
            let centre = mean(&points, &members).expect("members");
            assert!(members.len() >= options.least);
            assert!(members.iter().all(|&at| distance(&points[at], &centre) <= options.radius + 1e-12));
        }
    }
}
