//! Labels of texts by a model with an adapter: by its classifier, by the words of a gap, or by likeness to descriptions.

use ounce_kernels::softmax::softmax;
use ounce_model::Model;
use ounce_model::families::classifier::label_names;
use ounce_model::spec::Scored;
use ounce_train::Trainable;
use ounce_train::data::labelled::texts::{Labelled, examples};
use ounce_train::data::labelled::{Example, Target, batch};
use ounce_train::net::Options;

use crate::folder::Folder;
use crate::methods::crosstune::{BlackBox, CrossTune, Frozen};
use crate::{Adapted, Error, Result};

/// A model with an adapter that labels texts.
#[derive(Debug)]
pub struct Labeller<'m> {
    names: Vec<String>,
    how: How<'m>,
    limit: usize,
}

#[derive(Debug)]
enum How<'m> {
    Network(Box<Adapted>),
    Described(Box<CrossTune>, Box<Frozen<'m>>),
}

impl<'m> Labeller<'m> {
    /// The adapter of a folder on its model; texts have `limit` tokens at most.
    ///
    /// # Errors
    /// If the adapter is of another model, or labels no texts.
    pub fn open(model: &'m Model, folder: &Folder, limit: usize) -> Result<Labeller<'m>> {
        if folder.own.as_ref().is_some_and(|own| own.settings.cross.is_some()) {
            let made = CrossTune::open(model, folder)?;
            let limit = limit.min(made.cross.limit);
            let encoder = Frozen::new(model, made.cross.template.clone(), limit)?;
            let names = made.cross.labels.clone();
            return Ok(Labeller { names, how: How::Described(Box::new(made), Box::new(encoder)), limit });
        }
        let net = Adapted::open(model, folder, Options::default(), &[], false)?;
        let names = match (&net.settings().cloze, net.skeleton().spec.classifier) {
            (Some(cloze), _) => cloze.names(),
            (None, Some(classifier)) if matches!(classifier.of, Scored::Text { .. }) => {
                label_names(&net.skeleton().config, classifier.labels)
            }
            _ => {
                let what = "gives no labels to texts; ounce tune --objective classify trains one that does";
                return Err(Error::folder(&folder.path, what));
            }
        };
        Ok(Labeller { names, how: How::Network(Box::new(net)), limit })
    }

    /// The labels.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The probability of each label for a text, and whether the text was cut.
    ///
    /// # Errors
    /// If the text can't be tokenized.
    pub fn label(&mut self, text: &str) -> Result<(Vec<f32>, bool)> {
        let net = match &mut self.how {
            How::Network(net) => net,
            How::Described(made, encoder) => {
                let before = encoder.cut;
                let state = encoder.encode(text)?;
                return Ok((made.probabilities(&state)?, encoder.cut > before));
            }
        };
        let model = net.skeleton();
        let tokenizer =
            model.tokenizer.as_ref().ok_or_else(|| Error::Option("the model has no tokenizer".into()))?;
        let types = model.spec.embedding.token_types > 1;
        let (example, cut) = match &net.settings().cloze {
            Some(cloze) => cloze.template.example(tokenizer, text, Some(0), self.limit, types)?,
            None => {
                let labelled = Labelled { text: text.to_owned(), pair: None, label: self.names[0].clone() };
                let (mut all, cut) = examples(tokenizer, &[labelled], &self.names, self.limit, types)?;
                let nothing = Example { ids: Vec::new(), types: Vec::new(), target: Target::Label(0) };
                (all.pop().unwrap_or(nothing), cut > 0)
            }
        };
        if example.ids.is_empty() {
            return Err(Error::Option("an empty text has no label".into()));
        }
        let mut scores = net.scores(&batch([&example]))?;
        softmax(&mut scores);
        Ok((scores, cut))
    }
}
