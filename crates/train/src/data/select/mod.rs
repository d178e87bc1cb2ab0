//! Which part of instruction data to train on: CDAS of CodeACT (arXiv 2408.02193), the hard and diverse part.
//!
//! The model itself tells how hard an example is: `IFD = PPL(answer | question) / PPL(answer)`, with
//! `PPL = exp(mean loss over the answer's tokens)`. From 1 on, the question is no help, so question and answer do not
//! belong together, and the example is dropped. The others are grouped by what their questions mean, and of each group
//! the hardest are kept. [`judge`] measures both with the model.

mod judge;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

pub(crate) use judge::scale_to_one;
pub use judge::{Judgement, centre, judge};

/// What is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SelectSettings {
    /// The part of each group that is kept, 0.4 in the paper.
    pub ratio: f64,
    /// Groups, 10 in the paper.
    pub clusters: usize,
    /// Decides where the groups begin.
    pub seed: u64,
}

impl Default for SelectSettings {
    fn default() -> SelectSettings {
        SelectSettings { ratio: 0.4, clusters: 10, seed: 42 }
    }
}

/// The mean loss of an answer's tokens, in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerLoss {
    /// After its question.
    pub with_question: f64,
    /// Without anything in front.
    pub alone: f64,
}

impl AnswerLoss {
    /// How hard it is to follow the instruction; from 1 on, the question does not help.
    pub fn ifd(self) -> f64 {
        (self.with_question - self.alone).exp()
    }
}

/// What was selected and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// The examples that are kept, in their order.
    pub kept: Vec<usize>,
    /// How many were dropped because their question does not help.
    pub misaligned: usize,
    /// How hard each example is.
    pub ifd: Vec<f64>,
    /// The group of each example.
    pub clusters: Vec<u32>,
}

/// Selects from `count` examples. `loss` measures an example's answer with the model that is to be trained; `embed` gives
/// what its question means as a vector, all of one length.
///
/// # Errors
/// If a closure fails, a loss is no number, vectors differ in length, the settings make no sense, or nothing is kept.
pub fn select(
    count: usize,
    mut loss: impl FnMut(usize) -> Result<AnswerLoss>,
    mut embed: impl FnMut(usize) -> Result<Vec<f32>>,
    settings: &SelectSettings,
) -> Result<Selection> {
    if !(settings.ratio > 0.0 && settings.ratio <= 1.0) || settings.clusters == 0 {
        return Err(Error::Settings(
            "the part to keep is above 0 and at most 1, of one group or more".into(),
        ));
    }
    let mut ifd = Vec::with_capacity(count);
    for example in 0..count {
        let hard = loss(example)?.ifd();
        if !hard.is_finite() {
            return Err(Error::Settings(format!(
                "the loss of example {example} is no number; is its answer empty?"
            )));
        }
        ifd.push(hard);
    }
    let mut points = Vec::new();
    for example in 0..count {
        let vector = embed(example)?;
        if vector.is_empty() || vector.len() * example != points.len() {
            return Err(Error::Settings(format!(
                "the vector of example {example} has another length than the first"
            )));
        }
        points.extend(vector);
    }
    let clusters = k_means(&points, count, settings.clusters, settings.seed);
    let mut kept = Vec::new();
    for cluster in 0..settings.clusters as u32 {
        let of_cluster = (0..count).filter(|&example| clusters[example] == cluster && ifd[example] < 1.0);
        let mut hardest: Vec<usize> = of_cluster.collect();
        // Stable: of equally hard ones the first is kept.
        hardest.sort_by(|a, b| ifd[*b].total_cmp(&ifd[*a]));
        hardest.truncate((settings.ratio * hardest.len() as f64) as usize);
        kept.extend(hardest);
    }
    kept.sort_unstable();
    let misaligned = ifd.iter().filter(|ifd| **ifd >= 1.0).count();
    if kept.is_empty() {
        return Err(Error::Settings(format!(
            "nothing is left of {count} examples: {misaligned} have a question that does not help, and {} of what remains \
             of each of {} groups is less than one; take fewer groups",
            settings.ratio, settings.clusters
        )));
    }
    Ok(Selection { kept, misaligned, ifd, clusters })
}

/// Rounds of k-means at most; it nearly always settles in a tenth of them.
const ROUNDS: usize = 300;

/// Groups `count` points, `[count, width]`, by k-means from a k-means++ start: the group of each. The same seed gives the
/// same groups, on any number of threads.
pub fn k_means(points: &[f32], count: usize, clusters: usize, seed: u64) -> Vec<u32> {
    let clusters = clusters.min(count);
    if clusters == 0 {
        return Vec::new();
    }
    let width = points.len() / count;
    let point = |i: usize| &points[i * width..(i + 1) * width];
    let mut centres = start(points, count, width, clusters, seed);
    let mut groups = vec![0u32; count];
    for round in 0..ROUNDS {
        let nearest: Vec<(u32, f64)> =
            (0..count).into_par_iter().map(|i| nearest(point(i), &centres, width)).collect();
        let settled = round > 0 && nearest.iter().zip(&groups).all(|((group, _), before)| group == before);
        groups = nearest.iter().map(|(group, _)| *group).collect();
        if settled {
            break;
        }
        let mut sizes = vec![0usize; clusters];
        centres.fill(0.0);
        for (i, &group) in groups.iter().enumerate() {
            sizes[group as usize] += 1;
            let centre = &mut centres[group as usize * width..][..width];
            centre.iter_mut().zip(point(i)).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        for (group, &size) in sizes.iter().enumerate() {
            let centre = &mut centres[group * width..][..width];
            if size > 0 {
                centre.iter_mut().for_each(|sum| *sum /= size as f64);
            } else {
                // A group that lost all its points begins again at the one that fits worst.
                let worst = (0..count).max_by(|a, b| nearest[*a].1.total_cmp(&nearest[*b].1)).unwrap_or(0);
                centre.iter_mut().zip(point(worst)).for_each(|(sum, value)| *sum = f64::from(*value));
            }
        }
    }
    groups
}

/// Centres to begin with: points, each drawn with a chance that grows with the square of its distance to those before.
fn start(points: &[f32], count: usize, width: usize, clusters: usize, seed: u64) -> Vec<f64> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut distances = vec![f64::INFINITY; count];
    let mut centres: Vec<f64> = Vec::with_capacity(clusters * width);
    let mut drawn = random.random_range(0..count);
    loop {
        let centre = &points[drawn * width..(drawn + 1) * width];
        centres.extend(centre.iter().map(|value| f64::from(*value)));
        if centres.len() >= clusters * width.max(1) {
            return centres;
        }
        let last = centres[centres.len() - width..].to_vec();
        distances.par_iter_mut().enumerate().for_each(|(i, distance)| {
            *distance = distance.min(squared_distance(&points[i * width..(i + 1) * width], &last));
        });
        let mut left = random.random::<f64>() * distances.iter().sum::<f64>();
        drawn = distances.iter().rposition(|distance| *distance > 0.0).unwrap_or(0);
        for (i, distance) in distances.iter().enumerate() {
            left -= distance;
            if left < 0.0 && *distance > 0.0 {
                drawn = i;
                break;
            }
        }
    }
}

/// The nearest centre (the first of equally near ones) and the square of its distance.
fn nearest(point: &[f32], centres: &[f64], width: usize) -> (u32, f64) {
    let mut best = (0, f64::INFINITY);
    for (group, centre) in centres.chunks_exact(width).enumerate() {
        let distance = squared_distance(point, centre);
        if distance < best.1 {
            best = (group as u32, distance);
        }
    }
    best
}

fn squared_distance(point: &[f32], centre: &[f64]) -> f64 {
    point.iter().zip(centre).map(|(a, b)| (f64::from(*a) - b) * (f64::from(*a) - b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points around three places.
    fn points(count: usize) -> Vec<f32> {
        (0..count)
            .flat_map(|i| {
                let wobble = (i as f32 * 0.7).sin();
                [(i % 3) as f32 * 10.0 + wobble, wobble * 0.5]
            })
            .collect()
    }

    #[test]
    fn groups_that_lie_apart_are_found() {
        for seed in 0..10 {
            let groups = k_means(&points(60), 60, 3, seed);
            assert_eq!(groups, k_means(&points(60), 60, 3, seed));
            for i in 0..60 {
                assert_eq!(groups[i], groups[i % 3], "{seed} {i}");
            }
            assert_ne!(groups[0], groups[1]);
            assert_ne!(groups[1], groups[2]);
        }
        assert_eq!(k_means(&points(2), 2, 10, 1).len(), 2);
        assert!(k_means(&[], 0, 10, 1).is_empty());
        // Equal points can't be told apart, and that is no reason to fail.
        assert_eq!(k_means(&[1.0; 8], 4, 3, 1).len(), 4);
    }

    #[test]
    fn the_hardest_of_each_group_are_kept() {
        // Every tenth question does not help; the others are harder the later they come.
        let loss = |i: usize| {
            let ifd = if i % 10 == 9 { 1.0 + i as f64 } else { i as f64 / 100.0 };
            Ok(AnswerLoss { with_question: 2.0 + f64::ln(ifd.max(1e-9)), alone: 2.0 })
        };
        let points = points(60);
        let embed = |i: usize| Ok(points[2 * i..2 * i + 2].to_vec());
        let settings = SelectSettings { ratio: 0.5, clusters: 3, seed: 1 };
        let selection = select(60, loss, embed, &settings).unwrap();
        assert_eq!(selection.misaligned, 6);
        // 20 in each group, 18 of which are usable.
        for place in 0..3 {
            let usable: Vec<usize> = (0..60).filter(|i| i % 3 == place && i % 10 != 9).collect();
            let kept: Vec<usize> = selection.kept.iter().copied().filter(|i| i % 3 == place).collect();
            assert_eq!(kept, usable[usable.len() - usable.len() / 2..]);
        }
        assert!((selection.ifd[50] - 0.5).abs() < 1e-9);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let loss = |with_question| move |_| Ok(AnswerLoss { with_question, alone: 1.0 });
        let embed = |_| Ok(vec![0.0]);
        let settings = SelectSettings::default();
        let says = |outcome: Result<Selection>| outcome.unwrap_err().to_string();
        assert!(
            says(select(50, loss(2.0), embed, &settings)).contains("50 have a question that does not help")
        );
        assert!(says(select(1, loss(0.5), embed, &settings)).contains("take fewer groups"));
        assert!(says(select(2, loss(f64::NAN), embed, &settings)).contains("example 0 is no number"));
        assert!(says(select(2, loss(0.5), |i| Ok(vec![0.0; i + 1]), &settings)).contains("another length"));
        let none = SelectSettings { ratio: 0.0, ..settings };
        assert!(says(select(2, loss(0.5), embed, &none)).contains("above 0"));
    }
}
