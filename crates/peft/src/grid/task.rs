//! What a grid teaches.

use ounce_model::Model;
use ounce_train::data::BatchSource;

use super::cell::Value;
use crate::{Adapted, Error, Result};

/// What is being judged.
pub type Learner = Adapted;

/// Examples that stand in front of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shots {
    /// How many.
    pub count: usize,
    /// Whether they are those nearest to the question, not drawn by chance.
    pub nearest: bool,
    /// Whether the nearest one's answer is copied, and no model asked.
    pub copied: bool,
    /// What is random begins with it.
    pub seed: u64,
}

/// A task and the model that it is taught to.
pub trait Task {
    /// Its name.
    fn name(&self) -> &str;

    /// The model's name.
    fn model_name(&self) -> &str;

    /// All that its data hangs on; runs of another identity are not taken for this one's.
    fn identity(&self) -> String;

    /// The model, with a new head if the task needs one.
    fn model(&self) -> &Model;

    /// The beginnings of the names of a new head's weights.
    fn heads(&self) -> Vec<String> {
        Vec::new()
    }

    /// Batches to learn from, without an end.
    ///
    /// # Errors
    /// If the data can't be read.
    fn source(&self, seed: u64) -> Result<Box<dyn BatchSource>>;

    /// What rates are chosen by, on data that is neither learned from nor judged by: a loss in nats.
    ///
    /// # Errors
    /// If the data does not fit the model.
    fn loss(&self, learner: &mut Learner) -> Result<f64>;

    /// How good it is on data kept for this: first what counts most.
    ///
    /// # Errors
    /// If the data does not fit the model.
    fn judge(&self, learner: &mut Learner, seed: u64) -> Result<Vec<Value>>;

    /// Whether more of the first value is better.
    fn more_is_better(&self) -> bool {
        true
    }

    /// The same with examples in front of each question, and nothing learned.
    ///
    /// # Errors
    /// If the task has no examples to show.
    fn shown(&self, _learner: &mut Learner, _shots: Shots) -> Result<Vec<Value>> {
        Err(Error::Option(format!("{} has no examples that can stand in front of a question", self.name())))
    }
}
