//! The loss on streams behind layers: how far the student's are from the teacher's.
//!
//! `w / L · Σ_l Σ (h − h_T)² / Σ h_T²` over the student's `L` layers and a batch's tokens: the mean squared error that PELA (arXiv
//! 2310.10700) and others use, measured by the size of the teacher's stream, so that one weight `w` suits models whose streams
//! grow differently.

use crate::Batch;
use crate::net::StreamLoss;

/// The layer of the teacher that each of the student's is compared with: the one at the same height.
pub(super) fn teacher_layers(student: usize, teacher: usize) -> Vec<usize> {
    (1..=student).map(|layer| (layer * teacher / student).saturating_sub(1)).collect()
}

/// The loss on a batch.
#[derive(Debug)]
pub(super) struct Features<'t> {
    /// The teacher's streams, one for each of the student's layers, `[tokens, hidden]`.
    teacher: &'t [Vec<f32>],
    /// Weight of a layer in the batch's sum over targets.
    weight: f64,
}

impl<'t> Features<'t> {
    pub fn new(teacher: &'t [Vec<f32>], weight: f32, batch: &Batch) -> Features<'t> {
        let weight = f64::from(weight) * batch.counted() as f64 / teacher.len().max(1) as f64;
        Features { teacher, weight }
    }
}

impl StreamLoss for Features<'_> {
    fn layer(&mut self, layer: usize, stream: &[f32], scale: Option<f32>) -> (f64, Option<Vec<f32>>) {
        let teacher = &self.teacher[layer];
        let size: f64 = teacher.iter().map(|h| f64::from(*h).powi(2)).sum();
        let factor = self.weight / size.max(1e-30);
        let error: f64 = stream.iter().zip(teacher).map(|(h, of)| f64::from(h - of).powi(2)).sum();
        let gradient = scale.map(|scale| {
            let factor = (2.0 * factor * f64::from(scale)) as f32;
            stream.iter().zip(teacher).map(|(h, of)| factor * (h - of)).collect()
        });
        (factor * error, gradient)
    }
}
