//! Who is asked for predictions.

use crate::loss::{Predictions, TeacherRows};
use crate::net::{Net, Watched};
use crate::{Batch, Result};

/// What a teacher says of a batch.
#[derive(Debug)]
pub struct Lesson {
    /// Its predictions for the batch's targets.
    pub rows: Box<dyn TeacherRows>,
    /// The streams behind the layers that were asked for, in their order, `[tokens, hidden]` each.
    pub streams: Vec<Vec<f32>>,
}

/// Gives predictions to learn from.
pub trait Teacher {
    /// Entries of its vocabulary.
    fn vocabulary(&self) -> usize;

    /// Layers and their width, if it can show the streams between them.
    fn streams(&self) -> Option<(usize, usize)>;

    /// Its predictions for a batch, and its streams behind some layers.
    ///
    /// # Errors
    /// If the batch does not fit it, or what it kept can't be read.
    fn lesson(&mut self, batch: &Batch, layers: &[usize]) -> Result<Lesson>;
}

/// A network that runs along, without gradients.
#[derive(Debug)]
pub struct LiveTeacher(pub Net);

impl Teacher for LiveTeacher {
    fn vocabulary(&self) -> usize {
        self.0.skeleton().spec.vocab_size
    }

    fn streams(&self) -> Option<(usize, usize)> {
        let spec = &self.0.skeleton().spec;
        Some((spec.layers.len(), spec.hidden_size))
    }

    fn lesson(&mut self, batch: &Batch, layers: &[usize]) -> Result<Lesson> {
        let mut rows = Predictions::default();
        let mut seen: Vec<Vec<f32>> = vec![Vec::new(); layers.len()];
        let mut see = |layer: usize, stream: &[f32]| {
            for (seen, _) in seen.iter_mut().zip(layers).filter(|(_, wanted)| **wanted == layer) {
                *seen = stream.to_vec();
            }
        };
        self.0.run_with_streams(batch, None, &mut rows, &mut Watched(&mut see))?;
        Ok(Lesson { rows: Box::new(rows), streams: seen })
    }
}

/// A teacher that several students have in turn.
impl<T: Teacher + ?Sized> Teacher for &mut T {
    fn vocabulary(&self) -> usize {
        (**self).vocabulary()
    }

    fn streams(&self) -> Option<(usize, usize)> {
        (**self).streams()
    }

    fn lesson(&mut self, batch: &Batch, layers: &[usize]) -> Result<Lesson> {
        (**self).lesson(batch, layers)
    }
}
