//! A model of many shapes: which layers leave at which depth, which heads and channels at which width, and the model of a shape.

use std::collections::HashMap;

use ounce_model::families::spec_of;
use ounce_model::{Model, Tensor, Weights};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::depth::{self, DepthSet};
use super::width::{self, Fluctuation};
use crate::prune::learning::mean_loss;
use crate::prune::structured::groups::{attention, mlp};
use crate::prune::structured::{Cut, LayerCut};
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
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { widths: vec![1.0, 0.875, 0.75, 0.625], most_removed: 0, protected: 1, multiple: 32 }
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
    /// Of each width, the biases that answer for what leaves, by name.
    pub biases: Vec<HashMap<String, Vec<f32>>>,
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
            let cut = crate::prune::structured::choose::without_layers(&model.spec, removed)?;
            mean_loss(&cut.apply(model)?, sequences)
        })?;
        progress(1.0)?;
        Elastic::new(model, settings, sets, &seen)
    }

    fn new(model: &Model, settings: &Settings, sets: Vec<DepthSet>, seen: &Fluctuation) -> Result<Elastic> {
        let falling = settings.widths.is_sorted_by(|a, b| a > b);
        if settings.widths.first() != Some(&1.0) || !falling || settings.widths.iter().any(|it| *it <= 0.0) {
            return Err(Error::Option(format!(
                "widths should fall from 1 and stay above 0, found {:?}",
                settings.widths
            )));
        }
        let kept = settings
            .widths
            .iter()
            .map(|&share| stays(model, &seen.scores, share, settings.multiple))
            .collect();
        let elastic = Elastic::of_parts(model, settings.clone(), sets, kept, Vec::new())?;
        let biases =
            (0..settings.widths.len()).map(|width| elastic.lost(width, seen)).collect::<Result<_>>()?;
        Ok(Elastic { biases, ..elastic })
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
        biases: Vec<HashMap<String, Vec<f32>>>,
    ) -> Result<Elastic> {
        Ok(Elastic { model: model.clone(), biased: with_biases(model)?, settings, sets, kept, biases })
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
        let (base, biases) = match (&self.biased, self.biases.get(shape.width)) {
            (Some(biased), Some(biases)) if !biases.is_empty() => (biased, Some(biases)),
            _ => (&self.model, None),
        };
        let biases = biases
            .into_iter()
            .flatten()
            .map(|(name, values)| (name.clone(), Tensor::from_f32(&[values.len()], values)));
        let weights: Weights = base.weights.replaced(tensors.into_iter().chain(biases))?;
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

    /// The same without biases that answer for what left: for comparison.
    pub fn without_biases(&self) -> Elastic {
        Elastic { biases: vec![HashMap::new(); self.settings.widths.len()], ..self.clone() }
    }
}

/// What stays of each layer at a width: of heads and channels each the share that is worth most, one head and one multiple at least.
fn stays(
    model: &Model,
    scores: &crate::prune::structured::Scores,
    share: f64,
    multiple: usize,
) -> Vec<LayerCut> {
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
