//! A model of many shapes: which layers leave at which depth, which heads and channels at which width, and the model of a shape.

use std::collections::HashMap;

use ounce_model::families::spec_of;
use ounce_model::{Model, Spec, Tensor, Weights};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::depth::{self, DepthSet};
use super::width::{self, Fluctuation};
use crate::prune::learning::mean_loss;
use crate::prune::structured::compensate::compensate;
use crate::prune::structured::groups::{attention, mlp};
use crate::prune::structured::{self, Cut, LayerCut, Limits, Target, choose, saliency};
use crate::stages::not_empty;
use crate::{Error, Result};

/// A shape: how many layers stay, and which width of those there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    /// Layers that leave.
    pub removed: usize,
    /// Its width's place among [`Settings::widths`].
    pub width: usize,
}

/// Which shapes there are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Shares of heads and channels that stay, falling, 1 first.
    pub widths: Vec<f64>,
    /// The most layers that leave.
    pub most_removed: usize,
    /// Layers at the end that always stay.
    pub protected: usize,
    /// Channels stay in multiples of this.
    pub multiple: usize,
    /// How a width is made.
    #[serde(default)]
    pub way: Way,
}

/// How the parts of a width are chosen, and what answers for those that leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// As the paper has it: each layer keeps the same share, by fluctuation; biases hold the means of what leaves.
    #[default]
    Alike,
    /// The width is a share of the layers' weights: parts leave by worth for each weight, wherever that is (a Taylor score), and what stays is fitted to the whole by
    /// least squares.
    Fitted,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            widths: vec![1.0, 0.875, 0.75, 0.625],
            most_removed: 0,
            protected: 1,
            multiple: 32,
            way: Way::Alike,
        }
    }
}

/// A model of many shapes. Weights are the model's own; those that training changes come from outside.
#[derive(Debug, Clone)]
pub struct Elastic {
    /// The whole model.
    pub model: Model,
    /// The same with biases of zero where means of what leaves can stand; none if its family has no such biases.
    biased: Option<Model>,
    /// Which shapes there are.
    pub settings: Settings,
    /// What leaves at each depth.
    pub sets: Vec<DepthSet>,
    /// Of each width and layer, what stays.
    pub kept: Vec<Vec<LayerCut>>,
    /// Of each width, the tensors that answer for what leaves, by name: biases, or matrices of the whole shape.
    pub answers: Vec<HashMap<String, Vec<f32>>>,
}

/// The places of the largest scores, rising; of equal ones the earlier.
fn largest(scores: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// The model with biases of zero behind output and down matrices (and wherever its family has them with those).
fn with_biases(model: &Model) -> Result<Option<Model>> {
    let mut config = model.config.clone();
    for key in ["attention_bias", "mlp_bias"] {
        config.map_mut().insert(key.into(), json!(true));
    }
    let Ok((_, spec)) = spec_of(&config) else { return Ok(None) };
    let all = (0..spec.layers.len()).all(|layer| {
        attention(&spec, layer).is_none_or(|it| it.output_bias) && mlp(&spec, layer).is_none_or(|it| it.bias)
    });
    let new: Vec<(String, Tensor)> = (spec.tensors().into_iter())
        .filter(|tensor| !model.weights.contains(&tensor.name))
        .map(|tensor| {
            let zeros = vec![0.0; tensor.shape.iter().product()];
            (tensor.name, Tensor::from_f32(&tensor.shape, &zeros))
        })
        .collect();
    if !all || new.iter().any(|(name, _)| !name.ends_with(".bias")) {
        return Ok(None);
    }
    Ok(Some(Model { weights: model.weights.extended(new)?, spec, config, ..model.clone() }))
}

impl Settings {
    /// Refuses widths that can't be.
    fn check(&self) -> Result<()> {
        let falling = self.widths.is_sorted_by(|a, b| a > b);
        match self.widths.first() == Some(&1.0) && falling && self.widths.iter().all(|it| *it > 0.0) {
            true => Ok(()),
            false => Err(Error::Option(format!(
                "widths should fall from 1 and stay above 0, found {:?}",
                self.widths
            ))),
        }
    }
}

/// The matrices that can be fitted.
fn fitted_names(spec: &Spec) -> Vec<String> {
    let all = spec.tensors().into_iter().map(|tensor| tensor.name);
    all.filter(|name| saliency::is_entrance(name, false)).collect()
}

impl Elastic {
    /// Finds what leaves at which depth and width, on calibration text. `progress` is told the share that is done.
    ///
    /// # Errors
    /// If there is no text, the settings leave nothing, the model has layers without heads and channels that can be cut, or `progress` stops the work.
    pub fn find(
        model: &Model,
        settings: &Settings,
        sequences: &[Vec<u32>],
        progress: &mut dyn FnMut(f64) -> Result<()>,
    ) -> Result<Elastic> {
        not_empty(sequences)?;
        let seen = width::fluctuation(model, sequences.to_vec(), &mut |done, all| {
            progress(0.2 * done as f64 / all.max(1) as f64)
        })?;
        let layers = model.spec.layers.len();
        let candidates = depth::candidates(layers, settings.protected.max(1));
        let evaluations = 1 + candidates.len() * settings.most_removed;
        let mut done = 0;
        let sets = depth::choose(&candidates, settings.most_removed, &mut |removed| {
            progress(0.2 + 0.8 * (f64::from(done) / evaluations as f64).min(1.0))?;
            done += 1;
            let cut = choose::without_layers(&model.spec, removed)?;
            mean_loss(&cut.apply(model)?, sequences)
        })?;
        progress(1.0)?;
        match settings.way {
            Way::Alike => Elastic::new(model, settings, sets, &seen),
            Way::Fitted => Elastic::fitted(model, settings, sets, sequences),
        }
    }

    /// Widths of shapes that differ from layer to layer, fitted.
    fn fitted(
        model: &Model,
        settings: &Settings,
        sets: Vec<DepthSet>,
        sequences: &[Vec<u32>],
    ) -> Result<Elastic> {
        settings.check()?;
        let scores = saliency::taylor(model, sequences, false, &mut |_, _| Ok(()))?;
        let limits = Limits { multiple: settings.multiple, ..Limits::default() };
        let (mut kept, mut answers) = (Vec::new(), Vec::new());
        for share in &settings.widths {
            let cut = match *share < 1.0 {
                true => choose(&model.spec, &scores, Target::Share(1.0 - share), &limits)?,
                false => Cut::nothing(&model.spec),
            };
            let mut own = HashMap::new();
            if *share < 1.0 {
                let weights = compensate(model, &cut, sequences.to_vec(), &mut |_, _| Ok(()))?;
                for name in fitted_names(&model.spec) {
                    if cut.keep(&model.spec, &name).is_some_and(|keep| keep.columns.is_some()) {
                        own.insert(name.clone(), weights.f32(&name)?);
                    }
                }
            }
            kept.push(cut.layers.into_iter().map(Option::unwrap_or_default).collect());
            answers.push(own);
        }
        Elastic::of_parts(model, settings.clone(), sets, kept, answers)
    }

    /// A matrix of a width before adapters.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn base(&self, shape: Shape, name: &str) -> Result<Vec<f32>> {
        match self.answers.get(shape.width).and_then(|own| own.get(name)) {
            Some(values) => Ok(values.clone()),
            None => Ok(self.model.weights.f32(name)?),
        }
    }

    fn new(model: &Model, settings: &Settings, sets: Vec<DepthSet>, seen: &Fluctuation) -> Result<Elastic> {
        settings.check()?;
        let kept = settings
            .widths
            .iter()
            .map(|&share| stays(model, &seen.scores, share, settings.multiple))
            .collect();
        let elastic = Elastic::of_parts(model, settings.clone(), sets, kept, Vec::new())?;
        let answers =
            (0..settings.widths.len()).map(|width| elastic.lost(width, seen)).collect::<Result<_>>()?;
        Ok(Elastic { answers, ..elastic })
    }

    /// From what was found before.
    ///
    /// # Errors
    /// If a weight can't be added.
    pub fn of_parts(
        model: &Model,
        settings: Settings,
        sets: Vec<DepthSet>,
        kept: Vec<Vec<LayerCut>>,
        answers: Vec<HashMap<String, Vec<f32>>>,
    ) -> Result<Elastic> {
        let biased = if settings.way == Way::Alike { with_biases(model)? } else { None };
        Ok(Elastic { model: model.clone(), biased, settings, sets, kept, answers })
    }

    /// The biases of a width.
    fn lost(&self, width: usize, seen: &Fluctuation) -> Result<HashMap<String, Vec<f32>>> {
        let mut biases = HashMap::new();
        let Some(biased) = self.biased.as_ref().filter(|_| width > 0) else { return Ok(biases) };
        let cut = Cut { layers: self.kept[width].iter().cloned().map(Some).collect(), stream: None };
        for (name, means) in &seen.means {
            let Some(kept) = cut.keep(&self.model.spec, name).and_then(|keep| keep.columns) else { continue };
            let bias = format!("{}.bias", name.trim_end_matches(".weight"));
            let lost = width::lost_mean(&self.model.weights.f32(name)?, means, &kept);
            let sum = biased.weights.f32(&bias)?.iter().zip(lost).map(|(own, lost)| own + lost).collect();
            biases.insert(bias, sum);
        }
        Ok(biases)
    }

    /// All shapes, the largest first, the smallest last.
    pub fn shapes(&self) -> Vec<Shape> {
        let widths = 0..self.settings.widths.len();
        (0..self.sets.len())
            .flat_map(|removed| widths.clone().map(move |width| Shape { removed, width }))
            .collect()
    }

    /// What a gate is told of a shape: each layer 1 if it stays, and 1 at the place of the width.
    pub fn features(&self, shape: Shape) -> Vec<f32> {
        let removed = &self.sets[shape.removed].removed;
        let layers =
            (0..self.model.spec.layers.len()).map(|layer| f32::from(u8::from(!removed.contains(&layer))));
        let widths = (0..self.settings.widths.len()).map(|width| f32::from(u8::from(width == shape.width)));
        layers.chain(widths).collect()
    }

    /// What stays in a shape.
    pub fn cut(&self, shape: Shape) -> Cut {
        let mut layers: Vec<Option<LayerCut>> = self.kept[shape.width].iter().cloned().map(Some).collect();
        self.sets[shape.removed].removed.iter().for_each(|&layer| layers[layer] = None);
        Cut { layers, stream: None }
    }

    /// The whole model with these tensors in the place of its own, as it is before a cut to a shape.
    ///
    /// # Errors
    /// If a tensor has another shape.
    pub fn whole(&self, shape: Shape, tensors: Vec<(String, Tensor)>) -> Result<Model> {
        let (base, answers) = match (&self.biased, self.answers.get(shape.width)) {
            (Some(biased), Some(answers)) if !answers.is_empty() => (biased, Some(answers)),
            _ => (&self.model, self.answers.get(shape.width)),
        };
        let mut all: HashMap<String, Tensor> = HashMap::new();
        for (name, values) in answers.into_iter().flatten() {
            let whole = base.weights.info(name).map_or(vec![values.len()], |(_, shape)| shape.to_vec());
            all.insert(name.clone(), Tensor::from_f32(&whole, values));
        }
        // What training made of a matrix stands on its answer already.
        all.extend(tensors);
        let weights: Weights = base.weights.replaced(all)?;
        Ok(Model { weights, ..base.clone() })
    }

    /// The model of a shape, with these tensors in the place of the whole model's.
    ///
    /// # Errors
    /// If the shape can't be cut.
    pub fn at(&self, shape: Shape, tensors: Vec<(String, Tensor)>) -> Result<Model> {
        self.cut(shape).apply(&self.whole(shape, tensors)?)
    }

    /// Parameters of a shape.
    ///
    /// # Errors
    /// If the shape can't be cut.
    pub fn parameters(&self, shape: Shape) -> Result<u64> {
        Ok(self.cut(shape).spec(&self.whole(shape, Vec::new())?.spec, false)?.parameters())
    }

    /// The same with nothing that answers for what left: for comparison.
    pub fn without_answers(&self) -> Elastic {
        Elastic { answers: vec![HashMap::new(); self.settings.widths.len()], ..self.clone() }
    }
}

/// What stays of each layer at a width: of heads and channels each the share that is worth most, one head and one multiple at least.
fn stays(model: &Model, scores: &structured::Scores, share: f64, multiple: usize) -> Vec<LayerCut> {
    let spec = &model.spec;
    let part = |scores: &[f64], all: usize, multiple: usize| -> Option<Vec<usize>> {
        let wanted = (share * all as f64 / multiple as f64).round().max(1.0) as usize * multiple;
        (wanted < all).then(|| largest(scores, wanted))
    };
    (0..spec.layers.len())
        .map(|layer| {
            let heads = attention(spec, layer).map_or(0, |it| it.kv_heads);
            let channels = mlp(spec, layer).map_or(0, |it| it.width);
            LayerCut {
                kv_heads: part(&scores.heads[layer], heads, 1),
                channels: part(&scores.channels[layer], channels, multiple.max(1)),
            }
        })
        .collect()
}
