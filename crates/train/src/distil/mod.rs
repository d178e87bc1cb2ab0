//! Distillation: a network learns from another one's predictions, and from the streams between its layers if asked.
//!
//! - `teacher`: who is asked, a network that runs along or what was kept of one.
//! - `kept`: a teacher's predictions in a file, the likeliest tokens of each target in 8 bits.
//! - `translated`: a teacher with another tokenizer.
//! - `streams`: the loss on the streams between layers; `projected` and `relations`: lessons for a student of another width.
//! - `Distilled`: a student and its teacher as the training loop knows networks.
//!
//! How predictions are compared stands in `Divergence` and its implementations.

pub mod kept;
pub mod projected;
pub mod relations;
mod streams;
pub mod teacher;
mod translated;

use std::path::Path;

use serde_json::Value;

pub use kept::{KeptTeacher, Losses};
pub use teacher::{Lesson, LiveTeacher, Teacher};
pub use translated::TranslatedTeacher;

use self::streams::{Features, teacher_layers};
use crate::loss::{Distillation, Divergence, ForwardKl, Softness};
use crate::net::Net;
use crate::{Batch, Error, Loss, Param, Result, Trainable};

/// How a student is taught.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Options {
    /// How predictions are compared.
    pub softness: Softness,
    /// Weight of the loss on the streams behind layers; 0 for none.
    pub features: f32,
}

/// A loss on the weights themselves: its value, with its gradient, times the scale, added to the weights' own.
pub type WeightLoss<'t> = Box<dyn FnMut(&mut [Param], f32) -> f64 + 't>;

/// A student with its teacher. As a loss it has what it learns by; judged (`Trainable::loss`) it is by the KL from the
/// teacher's predictions at temperature 1, whatever it learns by.
pub struct Distilled<'t> {
    student: Net,
    teacher: Box<dyn Teacher + 't>,
    divergence: Box<dyn Divergence>,
    options: Options,
    weight_loss: Option<WeightLoss<'t>>,
    /// Teacher's layer of each of the student's, if streams are compared.
    layers: Vec<usize>,
    /// Divergences of the batches of the step that is being done.
    pending: Loss,
}

impl<'t> Distilled<'t> {
    /// A student that learns from a teacher.
    ///
    /// # Errors
    /// If they predict different vocabularies, or streams are to be compared and have different widths or are not known.
    pub fn new(
        student: Net,
        teacher: Box<dyn Teacher + 't>,
        divergence: Box<dyn Divergence>,
        options: Options,
    ) -> Result<Distilled<'t>> {
        let own = &student.skeleton().spec;
        let Softness { temperature, hard } = options.softness;
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(Error::Settings(format!("the temperature should be above 0, found {temperature}")));
        }
        let features = options.features >= 0.0 && options.features.is_finite();
        if !(features && (0.0..=1.0).contains(&hard)) {
            return Err(Error::Settings(
                "the part of the text's own tokens should be from 0 to 1, the weight of streams 0 or more"
                    .into(),
            ));
        }
        if own.vocab_size != teacher.vocabulary() {
            return Err(Error::Unsupported(format!(
                "the teacher predicts {} tokens and the student {}; distillation compares token by token, so both need the same \
                 vocabulary",
                teacher.vocabulary(),
                own.vocab_size
            )));
        }
        let mut layers = Vec::new();
        if options.features > 0.0 {
            let Some((count, width)) = teacher.streams() else {
                return Err(Error::Unsupported(
                    "kept predictions have no streams between layers; leave the file out, or the weight of streams".into(),
                ));
            };
            if width != own.hidden_size {
                return Err(Error::Unsupported(format!(
                    "the teacher's layers are {width} wide and the student's {}; streams can be compared where widths are equal",
                    own.hidden_size
                )));
            }
            layers = teacher_layers(own.layers.len(), count);
        }
        Ok(Distilled {
            student,
            teacher,
            divergence,
            options,
            weight_loss: None,
            layers,
            pending: Loss::default(),
        })
    }

    /// Adds a loss on the weights, once a micro-batch, of which it is a mean as the others are.
    pub fn with_weight_loss(mut self, loss: WeightLoss<'t>) -> Distilled<'t> {
        self.weight_loss = Some(loss);
        self
    }

    /// The student.
    pub fn student(&self) -> &Net {
        &self.student
    }

    /// The student, to be used otherwise.
    pub fn student_mut(&mut self) -> &mut Net {
        &mut self.student
    }

    /// The student, as it has become.
    pub fn into_student(self) -> Net {
        self.student
    }

    /// What it learns by.
    pub fn divergence(&self) -> &dyn Divergence {
        &*self.divergence
    }
}

impl Trainable for Distilled<'_> {
    fn params(&self) -> &[Param] {
        self.student.params()
    }

    fn params_mut(&mut self) -> &mut [Param] {
        self.student.params_mut()
    }

    fn loss(&mut self, batch: &Batch) -> Result<Loss> {
        let lesson = self.teacher.lesson(batch, &[])?;
        let mut loss = Distillation::by(&*lesson.rows, &ForwardKl, Softness::default());
        self.student.run(batch, None, &mut loss)
    }

    fn accumulate(&mut self, batch: &Batch, scale: f32) -> Result<Loss> {
        let lesson = self.teacher.lesson(batch, &self.layers)?;
        let mut loss = Distillation::by(&*lesson.rows, &*self.divergence, self.options.softness);
        let mut found = if self.options.features > 0.0 {
            let mut features = Features::new(&lesson.streams, self.options.features, batch);
            self.student.run_with_streams(batch, Some(scale), &mut loss, &mut features)?
        } else {
            self.student.run(batch, Some(scale), &mut loss)?
        };
        self.pending += Loss { sum: loss.soft(), count: found.count };
        if let Some(of_weights) = &mut self.weight_loss {
            let times = found.count as f32;
            found.sum += of_weights(self.student.params_mut(), scale * times) * f64::from(times);
        }
        Ok(found)
    }

    fn stepped(&mut self, _loss: f64) {
        self.divergence.stepped(std::mem::take(&mut self.pending).mean());
    }

    fn memory(&self) -> Value {
        self.divergence.memory()
    }

    fn remember(&mut self, memory: &Value) -> Result<()> {
        self.pending = Loss::default();
        self.divergence.remember(memory)
    }

    fn workspace_bytes(&self, tokens: usize) -> usize {
        self.student.workspace_bytes(tokens)
    }

    fn save(&self, folder: &Path) -> Result<()> {
        self.student.save(folder)
    }
}

#[cfg(test)]
pub(crate) mod tests;
