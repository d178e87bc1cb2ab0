//! Fewer points for the same picture, and running means.

/// No series is drawn with more points.
pub const MOST: usize = 2000;

/// At most [`MOST`] of the points: the first, the last, and the lowest and highest of each bucket between, so that no
/// spike is lost. Takes and gives points of a picture, x and y in 0 to 1: buckets are columns of it.
pub fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let [first, inner @ .., last] = &points[..] else { return points };
    if points.len() <= MOST {
        return points;
    }
    let buckets = MOST / 2 - 1;
    let ordered = points.windows(2).all(|pair| pair[0].0 <= pair[1].0);
    let bucket = |index: usize| {
        // Points that go back and forth would begin a bucket again and again.
        let share = if ordered { inner[index].0 } else { index as f64 / inner.len() as f64 };
        ((share * buckets as f64) as usize).min(buckets - 1)
    };
    let mut kept = vec![*first];
    let mut begin = 0;
    while begin < inner.len() {
        let (mut low, mut high, mut end) = (begin, begin, begin + 1);
        while end < inner.len() && bucket(end) == bucket(begin) {
            low = if inner[end].1 < inner[low].1 { end } else { low };
            high = if inner[end].1 > inner[high].1 { end } else { high };
            end += 1;
        }
        kept.push(inner[low.min(high)]);
        if low != high {
            kept.push(inner[low.max(high)]);
        }
        begin = end;
    }
    kept.push(*last);
    kept
}

/// Means over a window around each point, of up to `half` points on each side: fewer near the beginning, where a loss
/// falls steeply, and none behind the last.
pub fn smooth(points: &[(f64, f64)], half: usize) -> Vec<(f64, f64)> {
    let mut sums = vec![0.0];
    for (index, point) in points.iter().enumerate() {
        sums.push(sums[index] + point.1);
    }
    let mean = |index: usize| {
        let reach = half.min(index / 2);
        let (begin, end) = (index - reach, (index + reach + 1).min(points.len()));
        (sums[end] - sums[begin]) / (end - begin) as f64
    };
    points.iter().enumerate().map(|(index, point)| (point.0, mean(index))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flat line with a spike up and one down.
    fn spiky(count: usize) -> Vec<(f64, f64)> {
        let mut points: Vec<_> = (0..count).map(|i| (i as f64 / (count - 1) as f64, 0.5)).collect();
        points[count / 3].1 = 1.0;
        points[count / 3 + 1].1 = 0.0;
        points
    }

    #[test]
    fn spikes_survive() {
        for count in [2001, 2500, 100_003] {
            let points = spiky(count);
            let kept = thin(points.clone());
            assert!(kept.len() <= MOST, "{} of {count}", kept.len());
            for index in [0, count / 3, count / 3 + 1, count - 1] {
                assert!(kept.contains(&points[index]), "point {index} of {count}");
            }
            assert!(kept.windows(2).all(|pair| pair[0].0 < pair[1].0), "the order changed");
        }
    }

    #[test]
    fn points_in_any_order_become_few() {
        let points: Vec<_> = (0..50_000).map(|i| (f64::from(i * 7919 % 1000) / 1000.0, 0.5)).collect();
        assert!(thin(points).len() <= MOST);
        let one_column: Vec<_> = (0..5000).map(|i| (0.25, f64::from(i) / 5000.0)).collect();
        assert_eq!(thin(one_column).len(), 4);
    }

    #[test]
    fn few_points_stay() {
        assert_eq!(thin(spiky(MOST)), spiky(MOST));
        assert_eq!(thin(Vec::new()), []);
    }

    #[test]
    fn means_are_those_of_the_window() {
        let points: Vec<_> = [9.0, 3.0, 5.0, 1.0, 7.0, 2.0].into_iter().map(|y| (0.0, y)).collect();
        let means: Vec<f64> = smooth(&points, 2).into_iter().map(|point| point.1).collect();
        let expected = [9.0, 3.0, 3.0, 13.0 / 3.0, 15.0 / 4.0, 10.0 / 3.0];
        for (mean, expected) in means.iter().zip(expected) {
            assert!((mean - expected).abs() < 1e-12, "{means:?}");
        }
    }
}
