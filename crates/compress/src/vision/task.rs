//! The two tasks of the study: does a picture show fire, and where; how networks learn them, and how they are judged.

use candle_core::Tensor;
use ounce_train::optim::{Optimizer, Options};
use ounce_train::vision::scenes::{CHANNELS, Frame, SIDE, VALUES};
use ounce_train::vision::{Architecture, Hook, Net, Norms, loss};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::qat::Qat;
use crate::Result;

/// What is asked of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Fire or none: one logit.
    Classify,
    /// Which pixels burn: a logit each.
    Segment,
}

impl Task {
    /// The network for it.
    pub fn architecture(self) -> Architecture {
        match self {
            Task::Classify => Architecture::classifier((SIDE, SIDE), CHANNELS, [16, 16, 32, 32]),
            Task::Segment => Architecture::segmenter((SIDE, SIDE), CHANNELS, [16, 16, 32]),
        }
    }

    /// The truth of a frame.
    pub fn target(self, frame: &Frame) -> Vec<f32> {
        match self {
            Task::Classify => vec![if frame.burns() { 1.0 } else { 0.0 }],
            Task::Segment => frame.mask.clone(),
        }
    }

    /// Cross-entropy; where few pixels burn, Dice beside it.
    fn loss(self, logits: &Tensor, targets: &[f32]) -> ounce_train::Result<Tensor> {
        let dice = if self == Task::Segment { 1.0 } else { 0.0 };
        loss::binary(&logits.flatten_all()?, targets, dice)
    }

    /// Frames to learn from: for masks those that burn, and a few others.
    pub fn frames(self, frames: Vec<Frame>) -> Vec<Frame> {
        match self {
            Task::Classify => frames,
            Task::Segment => {
                let quiet =
                    frames.iter().filter(|frame| !frame.burns()).step_by(6).cloned().collect::<Vec<_>>();
                frames.into_iter().filter(Frame::burns).chain(quiet).collect()
            }
        }
    }
}

/// How a network learns.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Passes over the frames.
    pub epochs: usize,
    /// The learning rate at the start; it falls to 0 along a cosine.
    pub rate: f64,
    /// From which share of the steps on batch norms keep their running statistics; 1 for never.
    pub freeze: f64,
    /// Order of frames.
    pub seed: u64,
}

/// Frames of a batch.
const BATCH: usize = 16;

/// Trains on frames; steps of quantization learn too if there are any.
///
/// # Errors
/// If training diverges or `progress` stops it; it is told the share that is done.
pub fn fit(
    net: &mut Net,
    task: Task,
    frames: &[Frame],
    schedule: &Schedule,
    hook: &mut Learner<'_>,
    mut progress: impl FnMut(f64) -> Result<()>,
) -> Result<()> {
    let options = Options { beta2: 0.99, weight_decay: 0.01, ..Options::default() };
    let mut optimizer = Optimizer::new(options.clone(), &net.params)?;
    let mut of_steps = match hook {
        Learner::Quantized(qat) => Some(Optimizer::new(options, qat.params())?),
        Learner::Plain(_) => None,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(schedule.seed);
    let mut order: Vec<usize> = (0..frames.len()).collect();
    let steps = schedule.epochs * frames.len().div_ceil(BATCH);
    let mut step = 0;
    for _ in 0..schedule.epochs {
        order.shuffle(&mut rng);
        for batch in order.chunks(BATCH) {
            let done = step as f64 / steps as f64;
            progress(done)?;
            let rate = schedule.rate * 0.5 * (1.0 + (done * std::f64::consts::PI).cos());
            let norms = if done >= schedule.freeze { Norms::Running } else { Norms::Batch };
            let mut images = Vec::with_capacity(batch.len() * VALUES);
            batch.iter().for_each(|&at| images.extend_from_slice(&frames[at].image));
            let targets: Vec<f32> = batch.iter().flat_map(|&at| task.target(&frames[at])).collect();
            let loss = |out: &Tensor| task.loss(out, &targets);
            match hook {
                Learner::Plain(hook) => {
                    net.learn(&mut optimizer, rate, &images, norms, *hook, loss)?;
                }
                Learner::Quantized(qat) => {
                    qat.params().iter_mut().for_each(|param| param.grad.fill(0.0));
                    net.learn(&mut optimizer, rate, &images, norms, *qat, loss)?;
                    if let Some(of_steps) = &mut of_steps {
                        of_steps.step(qat.params(), rate, 1.0);
                        qat.refresh()?;
                    }
                }
            }
            step += 1;
        }
    }
    Ok(())
}

/// What changes a network's pass while it learns.
pub enum Learner<'h> {
    /// Nothing that learns.
    Plain(&'h mut dyn Hook),
    /// Fake quantization with its steps.
    Quantized(&'h mut Qat),
}

/// How well logits fit the truth.
#[derive(Debug, Clone, Copy, Default)]
pub struct Score {
    /// Share of right answers.
    pub accuracy: f64,
    /// Of fire: `2 TP / (2 TP + FP + FN)`; of masks the Dice coefficient.
    pub f1: f64,
    /// Mean of the intersections over unions of fire and of the rest.
    pub iou: f64,
    /// Mean cross-entropy.
    pub loss: f64,
}

/// Scores logits, all of a test set together; what is above `threshold` counts as fire.
pub fn score(logits: &[f32], targets: &[f32], threshold: f32) -> Score {
    let (mut hit, mut alarm, mut miss, mut quiet, mut loss) = (0.0f64, 0.0f64, 0.0f64, 0.0f64, 0.0f64);
    for (&logit, &target) in logits.iter().zip(targets) {
        let x = f64::from(logit);
        loss += x.max(0.0) - x * f64::from(target) + (-x.abs()).exp().ln_1p();
        match (logit > threshold, target > 0.5) {
            (true, true) => hit += 1.0,
            (true, false) => alarm += 1.0,
            (false, true) => miss += 1.0,
            (false, false) => quiet += 1.0,
        }
    }
    let count = logits.len().max(1) as f64;
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 1.0 };
    Score {
        accuracy: (hit + quiet) / count,
        f1: share(2.0 * hit, 2.0 * hit + alarm + miss),
        iou: (share(hit, hit + alarm + miss) + share(quiet, quiet + alarm + miss)) / 2.0,
        loss: loss / count,
    }
}

/// The threshold with the best F1 on logits of a validation set, of some between −3 and 3.
pub fn tune(logits: &[f32], targets: &[f32]) -> f32 {
    let thresholds = (-12..=12).map(|step| step as f32 * 0.25);
    let scored = thresholds.map(|it| (score(logits, targets, it).f1, it));
    scored.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.abs().total_cmp(&a.1.abs()))).map_or(0.0, |best| best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_the_counts() {
        let (logits, targets) = ([2.0, 1.0, -1.0, -2.0, 3.0, -3.0], [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
        let found = score(&logits, &targets, 0.0);
        assert!((found.accuracy - 4.0 / 6.0).abs() < 1e-12);
        assert!((found.f1 - 4.0 / 6.0).abs() < 1e-12);
        assert!((found.iou - 0.5).abs() < 1e-12);
        let p = |x: f64| 1.0 / (1.0 + (-x).exp());
        let terms = [p(2.0), 1.0 - p(1.0), p(-1.0), 1.0 - p(-2.0), p(3.0), 1.0 - p(-3.0)];
        let loss = -terms.iter().map(|it| it.ln()).sum::<f64>() / 6.0;
        assert!((found.loss - loss).abs() < 1e-12);
        assert_eq!(tune(&[0.9, 0.8, 0.4, 0.3], &[1.0, 1.0, 0.0, 0.0]), 0.5);
        assert_eq!(score(&[-1.0], &[0.0], 0.0).f1, 1.0);
    }
}
