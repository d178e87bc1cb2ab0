//! Two stages in which a student relearns (section 3.3): by its teacher, then by the text alone.

use ounce_model::Model;
use ounce_train::distil::{Lesson, LiveTeacher, Teacher};
use ounce_train::graph::Pass;
use ounce_train::loss::{Distillation, ForwardKl, Softness};
use ounce_train::methods::workbench;
use ounce_train::net::{Net, Options as NetOptions};
use ounce_train::optim::{self, Optimizer};
use ounce_train::{Batch, Loss, Trainable};

use super::student::{Echo, Student};
use crate::Result;
use crate::prune::learning::{Shuffled, descend, finite, silence};
use crate::stages::not_empty;

/// How a student is taught.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Steps by the teacher, and by the text alone.
    pub steps: [u64; 2],
    /// Tokens of a step, at least; whole sequences.
    pub tokens: usize,
    /// The highest learning rate; it falls along half a cosine over both stages.
    pub rate: f64,
    /// Temperature of predictions, and the part of the text's own tokens in the first stage.
    pub softness: Softness,
    /// Weight of the mean squared error between streams behind blocks.
    pub streams: f64,
    /// Seed of the order of sequences.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            steps: [200, 100],
            tokens: 2048,
            rate: 2e-3,
            softness: Softness { temperature: 2.0, hard: 0.5 },
            streams: 1.0,
            seed: 0,
        }
    }
}

/// The loss of the first stage on a batch, a sum over its targets: `h CE + (1 − h) T² KL`, and for each block `w` times the mean squared error
/// between the student's stream behind it and the teacher's, a target. With a scale its gradient is added.
pub(super) fn lesson_loss(
    student: &mut Student,
    lesson: &Lesson,
    batch: &Batch,
    options: &Options,
    scale: Option<f32>,
) -> Result<Loss> {
    let ends = student.block_ends();
    let Student { net, sources } = student;
    let each = options.streams * batch.counted() as f64;
    let mut objective = |pass: &Pass<'_>| {
        let mut echo = Echo::new(sources, &ends);
        let hidden = pass.hidden(&mut echo)?;
        let mut by = Distillation::by(&*lesson.rows, &ForwardKl, options.softness);
        let (mut value, mut loss) = pass.loss(&hidden, &mut by)?;
        for (stream, of) in echo.streams.iter().zip(&lesson.streams) {
            let of = candle_core::Tensor::from_slice(of, stream.shape(), stream.device())?;
            let error = ((stream - of)?.sqr()?.mean_all()? * each)?;
            loss.sum += f64::from(error.to_scalar::<f32>()?);
            value = (value + error)?;
        }
        Ok((value, loss))
    };
    Ok(net.run(batch, scale, &mut objective)?)
}

/// Lets a student relearn on token ids, one list a sequence. `progress` is told the steps done and in all.
///
/// # Errors
/// If there is no text, the teacher is of another shape, the loss is no number, or `progress` stops the work.
pub fn heal(
    student: &mut Student,
    teacher: &Model,
    sequences: &[Vec<u32>],
    options: &Options,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    not_empty(sequences)?;
    let total = options.steps[0] + options.steps[1];
    let mut teacher = LiveTeacher(Net::with_frozen(teacher, NetOptions::default(), &|_| false)?);
    let ends = student.block_ends();
    let mut optimizer = Optimizer::new(optim::Options::default(), student.net.params())?;
    let rates = workbench::cosine(options.rate, total);
    let mut text = Shuffled::new(sequences, options.seed);
    for step in 0..total {
        progress(step, total)?;
        let batch = Batch::next_token(text.next(options.tokens));
        let scale = 1.0 / batch.counted().max(1) as f32;
        silence(&mut student.net);
        let loss = if step < options.steps[0] {
            let lesson = teacher.lesson(&batch, &ends)?;
            lesson_loss(student, &lesson, &batch, options, Some(scale))?
        } else {
            student.run(&batch, Some(scale))?
        };
        finite(&loss)?;
        descend(&mut student.net, &mut optimizer, rates.rate(step));
    }
    progress(total, total)
}
