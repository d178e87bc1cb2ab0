//! Distillation on logits: a student's predictions are brought near to a teacher's, by any `Divergence`.
//!
//! The loss of a target is `(1 − h) T² D(p_T, q_T) + h (−ln q[target])`, with `p_T` and `q_T` the predictions of teacher and
//! student with logits divided by the temperature `T`, and `h` the part of the text's own next token.

mod adaptive;
mod divergence;
mod taid;

use rayon::prelude::*;

pub use adaptive::Adaptive;
pub use divergence::{Divergence, ForwardKl, Js, Kind, ReverseKl, SkewKl, SkewReverseKl, Tvd};
pub use taid::{Taid, TaidOptions};

use super::{Chunk, LogitLoss};
use crate::IGNORE;

/// A teacher's predictions for the targets of a batch, in their order.
pub trait TeacherRows: std::fmt::Debug + Sync {
    /// Targets that it has predictions for.
    fn rows(&self) -> usize;

    /// Logarithms of the teacher's probabilities for one target. `student` has the student's, by which what the teacher is
    /// not known for may be shared out.
    fn fill(&self, row: usize, student: &[f32], into: &mut [f32]);
}

/// Collects a teacher's predictions, `[targets of the batch, vocabulary]`, as logarithms of probabilities.
#[derive(Debug, Clone, Default)]
pub struct Predictions {
    /// The logarithms.
    pub values: Vec<f32>,
    width: usize,
}

impl Predictions {
    /// From logarithms of probabilities, rows of so many entries.
    pub fn new(values: Vec<f32>, width: usize) -> Predictions {
        Predictions { values, width }
    }

    /// Entries of the vocabulary; 0 before anything was collected.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Mean entropy of the rows, in nats: what a cross-entropy with these predictions has beyond the KL from them. 0 without rows.
    pub fn entropy(&self) -> f64 {
        let share = |log: &f32| match f64::from(*log).exp() {
            0.0 => 0.0,
            share => share * f64::from(*log),
        };
        let sum: f64 = self.values.par_iter().map(share).sum();
        -sum / self.rows().max(1) as f64
    }
}

impl LogitLoss for Predictions {
    fn chunk(&mut self, chunk: Chunk<'_>, _: Option<f32>) -> f64 {
        let Chunk { logits, width, softcap, .. } = chunk;
        self.width = width;
        logits.par_chunks_exact_mut(width).for_each(|logits| log_softmax(logits, softcap));
        self.values.extend_from_slice(logits);
        0.0
    }
}

impl TeacherRows for Predictions {
    fn rows(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    fn fill(&self, row: usize, _student: &[f32], into: &mut [f32]) {
        into.copy_from_slice(&self.values[row * self.width..][..self.width]);
    }
}

/// How predictions are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Softness {
    /// What logits of both are divided by.
    pub temperature: f32,
    /// The part of the text's own next token in the loss, 0 to 1.
    pub hard: f32,
}

impl Default for Softness {
    fn default() -> Softness {
        Softness { temperature: 1.0, hard: 0.0 }
    }
}

/// The loss by predictions of a teacher that were collected on the same batch.
#[derive(Debug)]
pub struct Distillation<'t> {
    teacher: &'t dyn TeacherRows,
    divergence: &'t dyn Divergence,
    softness: Softness,
    /// Targets that came so far.
    at: usize,
    /// Sum of their divergences.
    soft: f64,
}

impl<'t> Distillation<'t> {
    /// KL from `Predictions` of a batch, which comes next.
    pub fn new(teacher: &'t Predictions) -> Distillation<'t> {
        Distillation::by(teacher, &ForwardKl, Softness::default())
    }

    /// Any divergence from a teacher's predictions of a batch, which comes next.
    pub fn by(
        teacher: &'t dyn TeacherRows,
        divergence: &'t dyn Divergence,
        softness: Softness,
    ) -> Distillation<'t> {
        Distillation { teacher, divergence, softness, at: 0, soft: 0.0 }
    }

    /// The sum of divergences so far, without temperature and the text's own tokens.
    pub fn soft(&self) -> f64 {
        self.soft
    }

    /// The loss of one row and its divergence alone; with a scale the loss's gradient takes the logits' place.
    fn row(&self, row: usize, target: u32, logits: &mut [f32], chunk: &Rest, room: &mut Room) -> (f64, f64) {
        let Softness { temperature, hard } = self.softness;
        let Room { teacher, gradient, student } = room;
        let slopes: Option<Vec<f32>> =
            chunk.softcap.map(|cap| logits.iter().map(|x| 1.0 - (x / cap).tanh().powi(2)).collect());
        log_softmax(logits, chunk.softcap);
        self.teacher.fill(row, logits, teacher);
        let hard_loss = if target == IGNORE { 0.0 } else { f64::from(-logits[target as usize]) };
        let soft: &[f32] = if temperature == 1.0 {
            logits
        } else {
            student.copy_from_slice(logits);
            for softened in [&mut *student, &mut *teacher] {
                softened.iter_mut().for_each(|x| *x /= temperature);
                log_softmax(softened, None);
            }
            student
        };
        let wanted = chunk.scale.is_some().then_some(&mut **gradient);
        let divergence = self.divergence.row(teacher, soft, wanted);
        if let Some(scale) = chunk.scale {
            // T² of the loss, 1/T of the logits.
            let factor = scale * (1.0 - hard) * temperature;
            for (q, gradient) in logits.iter_mut().zip(gradient.iter()) {
                *q = factor * gradient + scale * hard * q.exp();
            }
            if target != IGNORE {
                logits[target as usize] -= scale * hard;
            }
            if let Some(slopes) = slopes {
                logits.iter_mut().zip(slopes).for_each(|(gradient, slope)| *gradient *= slope);
            }
        }
        let (hard, temperature) = (f64::from(hard), f64::from(temperature));
        ((1.0 - hard) * temperature * temperature * divergence + hard * hard_loss, divergence)
    }
}

/// What all rows of a chunk have in common.
struct Rest {
    scale: Option<f32>,
    softcap: Option<f32>,
}

/// Buffers of a row.
struct Room {
    teacher: Vec<f32>,
    gradient: Vec<f32>,
    student: Vec<f32>,
}

impl LogitLoss for Distillation<'_> {
    fn chunk(&mut self, chunk: Chunk<'_>, scale: Option<f32>) -> f64 {
        let Chunk { logits, width, softcap, targets, .. } = chunk;
        let first = self.at;
        self.at += targets.len();
        assert!(self.teacher.rows() >= self.at, "the teacher saw the same targets");
        let rest = Rest { scale, softcap };
        let room = || {
            let new = || vec![0.0; width];
            Room { teacher: new(), gradient: new(), student: new() }
        };
        let rows = logits.par_chunks_exact_mut(width).zip(targets).enumerate();
        let losses: Vec<(f64, f64)> = rows
            .map_init(room, |room, (row, (logits, &target))| {
                self.row(first + row, target, logits, &rest, room)
            })
            .collect();
        self.soft += losses.iter().map(|(_, soft)| soft).sum::<f64>();
        losses.iter().map(|(loss, _)| loss).sum()
    }
}

/// Logits, capped if they are to be, become logarithms of probabilities.
pub(crate) fn log_softmax(logits: &mut [f32], softcap: Option<f32>) {
    if let Some(cap) = softcap {
        logits.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
    }
    let greatest = logits.iter().fold(f32::NEG_INFINITY, |greatest, &x| greatest.max(x));
    let total: f64 = logits.iter().map(|x| f64::from((x - greatest).exp())).sum();
    let all = greatest + total.ln() as f32;
    logits.iter_mut().for_each(|x| *x -= all);
}

#[cfg(test)]
mod tests;
