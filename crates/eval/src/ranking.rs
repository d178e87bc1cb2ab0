//! Measures of rankings, from the place of what should be found; equals stand in front, so nothing is won by giving all the same.

/// The place, from 1, of each wanted thing among scores, best first.
pub fn places(scores: &[f64], wanted: &[usize]) -> Vec<usize> {
    let place = |&at: &usize| {
        let before = scores
            .iter()
            .enumerate()
            .filter(|&(other, score)| other != at && *score >= scores[at] && !wanted.contains(&other));
        // Wanted things do not stand in each other's way, but only one has a place.
        let better =
            wanted.iter().filter(|&&other| other != at && (scores[other], at) > (scores[at], other)).count();
        1 + before.count() + better
    };
    wanted.iter().map(place).collect()
}

/// One over the first place, 0 beyond `cut`: averaged over queries, the MRR.
pub fn reciprocal_rank(places: &[usize], cut: usize) -> f64 {
    places.iter().min().filter(|&&place| place <= cut).map_or(0.0, |&place| 1.0 / place as f64)
}

/// The share of wanted things within `cut` places.
pub fn recall(places: &[usize], cut: usize) -> f64 {
    places.iter().filter(|&&place| place <= cut).count() as f64 / places.len().max(1) as f64
}

/// Gains `1 / log₂(1 + place)` within `cut` places, by what the best order would have.
pub fn ndcg(places: &[usize], cut: usize) -> f64 {
    let gain = |place: usize| 1.0 / (1.0 + place as f64).log2();
    let found: f64 = places.iter().filter(|&&place| place <= cut).map(|&place| gain(place)).sum();
    let best: f64 = (1..=places.len().min(cut)).map(gain).sum();
    if best > 0.0 { found / best } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_those_by_hand() {
        let scores = [0.1, 0.9, 0.5, 0.5, 0.2];
        // 0.9 is before it, and its equal.
        assert_eq!(places(&scores, &[2]), [3]);
        assert_eq!(places(&scores, &[1, 0]), [1, 5]);
        assert_eq!(places(&[0.3; 4], &[1]), [4]);
        assert!((reciprocal_rank(&[3, 7], 10) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(reciprocal_rank(&[11], 10), 0.0);
        assert_eq!(recall(&[1, 5], 4), 0.5);
        let best = 1.0 + 1.0 / 3f64.log2();
        assert!((ndcg(&[1, 5], 10) - (1.0 + 1.0 / 6f64.log2()) / best).abs() < 1e-12);
        assert_eq!((ndcg(&[1], 10), ndcg(&[11], 10)), (1.0, 0.0));
    }
}
