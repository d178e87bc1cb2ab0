//! Distillation on logits: the Kullback-Leibler divergence of a student's predictions from a teacher's.
//!
//! `Σ p (ln p − ln q)` over the vocabulary, with `p` the teacher's probabilities and `q` the student's; its gradient on the
//! student's logits is `q − p`. "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, at temperature 1.

use rayon::prelude::*;

use super::{Chunk, LogitLoss};

/// Collects a teacher's predictions, `[targets of the batch, vocabulary]`, as logarithms of probabilities.
#[derive(Debug, Clone, Default)]
pub struct Predictions(pub Vec<f32>);

impl LogitLoss for Predictions {
    fn chunk(&mut self, chunk: Chunk<'_>, _: Option<f32>) -> f64 {
        let Chunk { logits, width, softcap, .. } = chunk;
        logits.par_chunks_exact_mut(width).for_each(|logits| log_softmax(logits, softcap));
        self.0.extend_from_slice(logits);
        0.0
    }
}

/// The divergence from predictions of a teacher that were collected on the same batch.
#[derive(Debug)]
pub struct Distillation<'t> {
    teacher: &'t [f32],
}

impl<'t> Distillation<'t> {
    /// From [`Predictions`] of a batch, which comes next.
    pub fn new(teacher: &'t Predictions) -> Distillation<'t> {
        Distillation { teacher: &teacher.0 }
    }
}

impl LogitLoss for Distillation<'_> {
    fn chunk(&mut self, chunk: Chunk<'_>, scale: Option<f32>) -> f64 {
        let Chunk { logits, width, softcap, .. } = chunk;
        assert!(self.teacher.len() >= logits.len(), "the teacher saw the same targets");
        let (own, rest) = self.teacher.split_at(logits.len());
        self.teacher = rest;
        let rows = logits.par_chunks_exact_mut(width).zip(own.par_chunks_exact(width));
        let losses: Vec<f64> = rows.map(|(logits, teacher)| row(logits, teacher, scale, softcap)).collect();
        losses.iter().sum()
    }
}

/// The divergence of one row; with a scale its gradient takes the logits' place.
fn row(logits: &mut [f32], teacher: &[f32], scale: Option<f32>, softcap: Option<f32>) -> f64 {
    let slopes: Option<Vec<f32>> =
        softcap.map(|cap| logits.iter().map(|x| 1.0 - (x / cap).tanh().powi(2)).collect());
    log_softmax(logits, softcap);
    let divergence = |(q, p): (&f32, &f32)| f64::from(p.exp()) * f64::from(p - q);
    let loss = logits.iter().zip(teacher).map(divergence).sum();
    if let Some(scale) = scale {
        logits.iter_mut().zip(teacher).for_each(|(q, p)| *q = scale * (q.exp() - p.exp()));
        if let Some(slopes) = slopes {
            logits.iter_mut().zip(slopes).for_each(|(gradient, slope)| *gradient *= slope);
        }
    }
    loss
}

/// Logits, capped if they are to be, become logarithms of probabilities.
fn log_softmax(logits: &mut [f32], softcap: Option<f32>) {
    if let Some(cap) = softcap {
        logits.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
    }
    let greatest = logits.iter().fold(f32::NEG_INFINITY, |greatest, &x| greatest.max(x));
    let total: f64 = logits.iter().map(|x| f64::from((x - greatest).exp())).sum();
    let all = greatest + total.ln() as f32;
    logits.iter_mut().for_each(|x| *x -= all);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ounce_kernels::pool::Pool;

    fn chunk<'a>(logits: &'a mut [f32], softcap: Option<f32>) -> Chunk<'a> {
        let (targets, rows) = (&[0, 1], &[3, 4]);
        Chunk { pool: Pool::global(), logits, width: 5, targets, rows, softcap }
    }

    #[test]
    fn the_divergence_and_its_gradient_are_those_of_the_definition() {
        let wave = |speed: f32| -> Vec<f32> { (0..10).map(|at| 2.0 * (at as f32 * speed).sin()).collect() };
        for softcap in [None, Some(1.5)] {
            let capped = |x: f64| softcap.map_or(x, |cap: f32| f64::from(cap) * (x / f64::from(cap)).tanh());
            let probabilities = |logits: &[f32]| -> Vec<f64> {
                let exp: Vec<f64> = logits.iter().map(|&x| capped(f64::from(x)).exp()).collect();
                exp.chunks(5).flat_map(|row| row.iter().map(|x| x / row.iter().sum::<f64>())).collect()
            };
            let (teacher, student) = (wave(0.7), wave(1.9));
            let divergence = |student: &[f32]| -> f64 {
                let (p, q) = (probabilities(&teacher), probabilities(student));
                p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum()
            };
            let mut kept = Predictions::default();
            kept.chunk(chunk(&mut teacher.clone(), softcap), None);
            let mut gradient = student.clone();
            let loss = Distillation::new(&kept).chunk(chunk(&mut gradient, softcap), Some(0.5));
            assert!((loss - divergence(&student)).abs() < 1e-5, "{loss}");
            for (place, &gradient) in gradient.iter().enumerate() {
                let mut moved = student.clone();
                moved[place] += 1e-2;
                let above = divergence(&moved);
                moved[place] -= 2e-2;
                let expected = 0.5 * (above - divergence(&moved)) / 2e-2;
                assert!(
                    (f64::from(gradient) - expected).abs() < 1e-4,
                    "{softcap:?} {place}: {gradient} {expected}"
                );
            }
            let mut same = teacher.clone();
            let loss = Distillation::new(&kept).chunk(chunk(&mut same, softcap), Some(1.0));
            assert!(loss.abs() < 1e-6 && same.iter().all(|x| x.abs() < 1e-6), "a student like its teacher");
        }
    }
}
