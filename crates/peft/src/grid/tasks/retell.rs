//! For language models: a sentence of a tale is told again in the present and without articles.

use std::sync::Arc;

use ounce_eval::method::{Lab, Text};
use ounce_model::Model;
use ounce_train::data::BatchSource;

use super::super::cell::Value;
use super::super::task::{Learner, Task};
use super::pairs::{Pair, Pairs, hits, loss};
use crate::study::retold;
use crate::{Error, Result};

/// Sentences of a step.
const SENTENCES: usize = 8;
/// Tokens of a sentence at most.
const LONGEST: usize = 24;
/// Sentences by which rates are chosen.
const CHOOSING: usize = 48;

/// The task.
pub struct Retell {
    model: Model,
    name: String,
    learn: Arc<[Pair]>,
    choose: Vec<Pair>,
    test: Vec<Pair>,
}

impl Retell {
    /// So many sentences to learn from and to be judged by.
    ///
    /// # Errors
    /// If the model has no tokenizer, or is no language model.
    pub fn new(lab: &dyn Lab, model: Model, name: &str, learn: usize, test: usize) -> Result<Retell> {
        let tokenizer = model.tokenizer.as_ref().filter(|_| model.spec.causal).ok_or_else(|| {
            Error::Option(format!("retell needs a language model with a tokenizer; {name} is none"))
        })?;
        let special = tokenizer.special();
        let end = special.eos.first().copied().or(special.bos).unwrap_or(0);
        let pairs = |kind: Text, count: usize| -> Result<Vec<Pair>> {
            let mut pairs = Vec::new();
            let text = lab.text(kind, count * 160);
            let sentences = text.split_inclusive(['.', '!', '?']).map(str::trim);
            for sentence in sentences.filter(|it| it.split_whitespace().count() > 3) {
                let again = retold(sentence);
                let question = tokenizer.encode(&format!("{sentence} ="), false)?;
                let mut answer = tokenizer.encode(&format!(" {again}"), false)?;
                answer.push(end);
                if again != sentence && question.len() <= LONGEST {
                    pairs.push(Pair { question: special.bos.into_iter().chain(question).collect(), answer });
                }
                if pairs.len() == count {
                    break;
                }
            }
            Ok(pairs)
        };
        let learn: Arc<[Pair]> = pairs(Text::Train, learn)?.into();
        let mut choose = pairs(Text::HeldOut, CHOOSING + test)?;
        let test = choose.split_off(CHOOSING.min(choose.len()));
        if test.is_empty() {
            return Err(Error::Option("there are too few sentences to retell".into()));
        }
        Ok(Retell { name: name.to_owned(), model, learn, choose, test })
    }
}

impl Task for Retell {
    fn name(&self) -> &str {
        "retell"
    }

    fn model_name(&self) -> &str {
        &self.name
    }

    fn identity(&self) -> String {
        super::identity(&self.model, &[&self.learn[..], &self.choose, &self.test])
    }

    fn model(&self) -> &Model {
        &self.model
    }

    fn source(&self, seed: u64) -> Result<Box<dyn BatchSource>> {
        Ok(Box::new(Pairs::new(self.learn.clone(), SENTENCES, seed)?))
    }

    fn loss(&self, learner: &mut Learner) -> Result<f64> {
        loss(learner, &self.choose)
    }

    fn judge(&self, learner: &mut Learner, _seed: u64) -> Result<Vec<Value>> {
        Ok(vec![
            Value::new("tokens right", 100.0 * hits(learner, &self.test)?, "%"),
            Value::new("loss", loss(learner, &self.test)?, "nats"),
        ])
    }
}
