//! CrossTune (Luo et al., "CrossTune: Black-Box Few-Shot Classification with Label Enhancement", arXiv 2403.12468, section 3): a small head on
//! the states of an encoder that nobody may change, which knows each label by a sentence that describes it.
//!
//! The encoder is called once for each text and once for each description, and gives `h` and `d_y`, `[d]`: the state of a gap behind the text,
//! or the mean of its tokens' states. Each is brought to mean 0 and deviation 1 over the texts to learn from, since states of encoders all
//! point one way. With `D = [d_1 … d_C]`:
//!
//! `a = softmax(W_q h · (W_k D)ᵀ / √k)` by heads of width `k`, `z = LN(h + W_o a W_v D)`, `z = LN(z + W₂ relu(W₁ z + b₁) + b₂)`,
//! `p(y) = softmax_y(z · W_s d_y / √d)`; or `p(y)` is `a_y`, averaged over heads (`--labels-by attention`). `W_o`, `W₂` begin as zeros and `W_s` as
//! the identity. How many heads there are, and how the score is taken, are choices made here.
//!
//! **Switch**: generated texts are used only if a teacher that learned from them too labels what is held out better than one that did not;
//! those whose teacher's label is not the one they were made for are dropped, and the others are learned with the teacher's probabilities.
//!
//! Parameters: `6 p d + d² + p + 5 d`.

mod demonstrate;
mod head;
mod switch;

use ounce_engine::Engine;
use ounce_eval::method::{Family, Method};
use ounce_model::Model;
use ounce_model::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

pub use self::head::{Course, Head, Taught};
pub use self::switch::{Switched, Teacher, switch};
use super::cloze::template::Template;
use crate::adapter::Array;
use crate::folder::{Folder, Own};
use crate::net::identify;
use crate::{Error, Kind, Result, Settings};

const NUMBER: u16 = 105;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "CrossTune",
    family: Family::Peft,
    paper: "CrossTune: Black-Box Few-Shot Classification with Label Enhancement",
    arxiv: Some("2403.12468"),
    gives: "A classifier is trained on the outputs of an encoder nobody may change, from one descriptive sentence per class and few examples.",
    claim: "5.7 points better on average than gradient-free black-box tuning on seven text classification sets.",
    command: Some("ounce tune ENCODER --data FILE --descriptions FILE -o ADAPTER"),
    demonstrate: Some(demonstrate::demonstrate),
};

/// What files say of a head besides its numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cross {
    /// The labels.
    pub labels: Vec<String>,
    /// What describes each.
    pub descriptions: Vec<String>,
    /// Where the state is read; none for the mean of all.
    pub template: Option<Template>,
    /// Inner width.
    pub width: usize,
    /// Whether attention is the probability.
    pub by_attention: bool,
    /// Tokens of a text at most.
    pub limit: usize,
}

/// What gives states: nothing else is asked of an encoder.
pub trait BlackBox {
    /// The state of a text, `[d]`.
    ///
    /// # Errors
    /// If the encoder can't read it.
    fn encode(&mut self, text: &str) -> Result<Vec<f32>>;
}

/// A model on this machine as a black box.
#[derive(Debug)]
pub struct Frozen<'m> {
    model: &'m Model,
    engine: Engine,
    template: Option<Template>,
    limit: usize,
    /// How often it was asked.
    pub calls: u64,
    /// Texts that were cut.
    pub cut: u64,
}

impl<'m> Frozen<'m> {
    /// An encoder; texts have `limit` tokens at most.
    ///
    /// # Errors
    /// If the model can't be loaded.
    pub fn new(model: &'m Model, template: Option<Template>, limit: usize) -> Result<Frozen<'m>> {
        let engine = Engine::new(model).map_err(|error| Error::Option(error.to_string()))?;
        Ok(Frozen { model, engine, template, limit, calls: 0, cut: 0 })
    }

    fn tokenizer(&self) -> Result<&'m Tokenizer> {
        self.model.tokenizer.as_ref().ok_or_else(|| Error::Option("the model has no tokenizer".into()))
    }
}

impl BlackBox for Frozen<'_> {
    fn encode(&mut self, text: &str) -> Result<Vec<f32>> {
        let types = self.model.spec.embedding.token_types > 0;
        let (ids, cut) = match &self.template {
            Some(template) => {
                let (example, cut) = template.example(self.tokenizer()?, text, None, self.limit, false)?;
                (example.ids, cut)
            }
            None => {
                let mut ids = self.tokenizer()?.encode(text, true)?;
                let cut = ids.len() > self.limit;
                ids.truncate(self.limit);
                (ids, cut)
            }
        };
        self.cut += u64::from(cut);
        if ids.is_empty() {
            return Err(Error::Option("an empty text has no state".into()));
        }
        self.calls += 1;
        let kinds = if types { vec![0; ids.len()] } else { Vec::new() };
        let states = self.engine.encode(&ids, &kinds).map_err(|error| Error::Option(error.to_string()))?;
        let width = states.len() / ids.len();
        let gap = self.template.as_ref().and_then(|template| ids.iter().rposition(|id| *id == template.mask));
        if let Some(gap) = gap {
            return Ok(states[gap * width..][..width].to_vec());
        }
        let mut mean = vec![0.0; width];
        for state in states.chunks_exact(width) {
            mean.iter_mut().zip(state).for_each(|(sum, value)| *sum += value / ids.len() as f32);
        }
        Ok(mean)
    }
}

/// Mean and deviation of each number of states.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    mean: Vec<f32>,
    deviation: Vec<f32>,
}

impl Scale {
    /// Those of states of `width`, one behind the other.
    pub fn of(states: &[f32], width: usize) -> Scale {
        let count = (states.len() / width.max(1)).max(1) as f32;
        let (mut mean, mut deviation) = (vec![0.0f32; width], vec![0.0f32; width]);
        for state in states.chunks_exact(width) {
            mean.iter_mut().zip(state).for_each(|(sum, value)| *sum += value / count);
        }
        for state in states.chunks_exact(width) {
            let pairs = state.iter().zip(&mean);
            deviation
                .iter_mut()
                .zip(pairs)
                .for_each(|(sum, (value, mean))| *sum += (value - mean).powi(2) / count);
        }
        // One text alone has no deviation.
        deviation.iter_mut().for_each(|it| *it = if *it > 1e-12 { it.sqrt() } else { 1.0 });
        Scale { mean, deviation }
    }

    /// States brought to mean 0 and deviation 1.
    pub fn apply(&self, states: &[f32]) -> Vec<f32> {
        let width = self.mean.len();
        let one = |(at, value): (usize, &f32)| (value - self.mean[at % width]) / self.deviation[at % width];
        states.iter().enumerate().map(one).collect()
    }
}

/// A head with the labels it knows.
#[derive(Debug, Clone)]
pub struct CrossTune {
    /// What files say of it.
    pub cross: Cross,
    /// The trained part.
    pub head: Head,
    scale: Scale,
    /// States of descriptions, scaled, `[labels, d]`.
    labels: Vec<f32>,
}

impl CrossTune {
    /// A new head: asks the encoder for each description; `states`, `[texts, d]`, are those of the texts to learn from, as the encoder gave
    /// them.
    ///
    /// # Errors
    /// If there are fewer than two labels, or the encoder fails.
    pub fn new(encoder: &mut dyn BlackBox, cross: Cross, states: &[f32], seed: u64) -> Result<CrossTune> {
        if cross.labels.len() < 2 {
            return Err(Error::Option(format!(
                "there are descriptions of {} labels; a classifier tells two or more apart",
                cross.labels.len()
            )));
        }
        let mut described = Vec::new();
        for text in &cross.descriptions {
            described.extend(encoder.encode(text)?);
        }
        let width = described.len() / cross.labels.len();
        if states.is_empty() || !states.len().is_multiple_of(width) {
            return Err(Error::Option("there are no states of texts to learn from".into()));
        }
        let scale = Scale::of(states, width);
        // Descriptions are sentences of their own kind: what they have in common tells nothing apart.
        let labels = Scale::of(&described, width).apply(&described);
        let head = Head::new(width, cross.width, cross.by_attention, seed)?;
        Ok(CrossTune { cross, head, scale, labels })
    }

    /// Trains the head on texts' states, as the encoder gave them, with what is right; `held` decides which numbers are kept.
    ///
    /// # Errors
    /// If there is nothing to learn.
    pub fn train(&mut self, taught: &Taught, held: &Taught, course: Course) -> Result<()> {
        let scaled =
            |it: &Taught| Taught { states: self.scale.apply(&it.states), targets: it.targets.clone() };
        let (taught, held, labels) = (scaled(taught), scaled(held), self.labels.clone());
        self.head.train(&taught, &labels, course, &mut |head| match held.states.is_empty() {
            true => Ok(0.0),
            false => {
                Ok(accuracy(&head.probabilities(&held.states, &labels)?, &held.targets, labels_of(&held)))
            }
        })
    }

    /// Probabilities of labels for states as the encoder gave them.
    ///
    /// # Errors
    /// If they have another width.
    pub fn probabilities(&self, states: &[f32]) -> Result<Vec<f32>> {
        self.head.probabilities(&self.scale.apply(states), &self.labels)
    }

    /// As a folder, not yet written.
    ///
    /// # Errors
    /// If the model can't be read.
    pub fn folder(&self, path: &std::path::Path, model: &Model) -> Result<Folder> {
        let mut tensors: Vec<Array> = self.head.params.iter().map(Array::of).collect();
        let width = self.scale.mean.len();
        let array = |name: &str, shape: Vec<usize>, values: &[f32]| Array {
            name: format!("crosstune.{name}"),
            shape,
            values: values.to_vec(),
        };
        tensors.push(array("labels", vec![self.cross.labels.len(), width], &self.labels));
        tensors.push(array("mean", vec![width], &self.scale.mean));
        tensors.push(array("deviation", vec![width], &self.scale.deviation));
        let settings = Settings { cross: Some(self.cross.clone()), ..Settings::of(Kind::Crosstune) };
        let base = identify(model, &|_| false)?;
        let mut config = serde_json::Map::new();
        config.insert("peft_type".into(), "OUNCE_CROSSTUNE".into());
        config.insert("base_model_name_or_path".into(), base.name.clone().into());
        Ok(Folder {
            path: path.to_path_buf(),
            config,
            own: Some(Own { settings, base, labels: None }),
            tensors,
        })
    }

    /// The head of a folder, for its model.
    ///
    /// # Errors
    /// If the folder is of another model or damaged.
    pub fn open(model: &Model, folder: &Folder) -> Result<CrossTune> {
        let own = folder.own.as_ref().and_then(|own| Some((own, own.settings.cross.clone()?)));
        let Some((own, cross)) = own else {
            return Err(Error::folder(&folder.path, "holds no head of crosstune"));
        };
        if own.base.fingerprint != identify(model, &|_| false)?.fingerprint {
            return Err(Error::folder(
                &folder.path,
                format!("was made for another base ({}); name that one", own.base.name),
            ));
        }
        let find = |name: &str, count: usize| -> Result<Vec<f32>> {
            let found = folder.tensors.iter().find(|array| array.name == format!("crosstune.{name}"));
            let found = found.filter(|array| array.values.len() == count).ok_or_else(|| {
                Error::folder(
                    &folder.path,
                    format!("crosstune.{name} is missing or has another size; train it again"),
                )
            })?;
            Ok(found.values.clone())
        };
        let width = model.spec.hidden_size;
        let mut head = Head::new(width, cross.width, cross.by_attention, 0)?;
        for param in &mut head.params {
            let name = param.name.trim_start_matches("crosstune.").to_owned();
            param.value = find(&name, param.value.len())?;
        }
        let scale = Scale { mean: find("mean", width)?, deviation: find("deviation", width)? };
        let labels = find("labels", width * cross.labels.len())?;
        Ok(CrossTune { cross, head, scale, labels })
    }
}

fn labels_of(taught: &Taught) -> usize {
    // Rows of targets sum to one.
    let rows = taught.targets.iter().sum::<f32>().round().max(1.0) as usize;
    taught.targets.len() / rows
}

/// The share of texts whose likeliest label is the one with the largest target.
pub(crate) fn accuracy(probabilities: &[f32], targets: &[f32], labels: usize) -> f64 {
    let best = |row: &[f32]| (0..labels).fold(0, |best, at| if row[at] > row[best] { at } else { best });
    let rows = probabilities.chunks_exact(labels).zip(targets.chunks_exact(labels));
    let (mut right, mut all) = (0, 0);
    for (found, target) in rows {
        right += usize::from(best(found) == best(target));
        all += 1;
    }
    right as f64 / f64::from(all.max(1))
}

#[cfg(test)]
mod tests;
