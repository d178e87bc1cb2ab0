//! What stays of a model, and the model that is left.
//!
//! A cut model computes what the whole one computes with the same weights set to zero (`Cut::masked`); a test holds every
//! kind of cut to that. RMSNorm over a narrower stream divides by a smaller width `d'`: with weights times `√(d/d')` and
//! epsilon times `d/d'` it computes the same.

use std::sync::Arc;

use ounce_kernels::quant;
use ounce_model::families::reshaped;
use ounce_model::spec::{FeedForwardKind, Norm, Norms, Spec};
use ounce_model::storage::Bytes;
use ounce_model::{Model, Tensor, Weights};
use serde::{Deserialize, Serialize};

use super::groups::{self, Unit, along_stream, attention, kv_range, mlp, query_range};
use super::source::CutSource;
use crate::{Error, Result};

/// What stays of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LayerCut {
    /// Key/value heads that stay, rising; all of them where nothing is said, no attention where none is left.
    pub kv_heads: Option<Vec<usize>>,
    /// Channels of the feed-forward half that stay, the same way.
    pub channels: Option<Vec<usize>>,
}

/// What stays of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Layer by layer of the whole model; none for one that leaves.
    pub layers: Vec<Option<LayerCut>>,
    /// Channels of the residual stream that stay, rising; all where nothing is said.
    pub stream: Option<Vec<usize>>,
}

/// Rows and columns of a tensor that stay; all where nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keep {
    /// Rows, or elements of a vector.
    pub rows: Option<Vec<usize>>,
    /// Columns.
    pub columns: Option<Vec<usize>>,
}

/// A tensor of the cut model: its name there, its name in the whole model, and what stays of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Its name in the cut model.
    pub name: String,
    /// Its name in the whole model.
    pub from: String,
    /// What stays of it.
    pub keep: Keep,
}

impl Cut {
    /// The cut that leaves everything.
    pub fn nothing(spec: &Spec) -> Cut {
        Cut { layers: vec![Some(LayerCut::default()); spec.layers.len()], stream: None }
    }

    /// What stays without these units.
    ///
    /// # Errors
    /// If there is no such unit, or it can't be cut out.
    pub fn without(spec: &Spec, units: &[Unit]) -> Result<Cut> {
        let mut cut = Cut::nothing(spec);
        for &unit in units {
            groups::check(spec, unit)?;
            cut.remove(spec, unit);
        }
        Ok(cut)
    }

    /// Takes a unit out too; nothing changes if it is out already.
    pub(crate) fn remove(&mut self, spec: &Spec, unit: Unit) {
        fn take(list: &mut Option<Vec<usize>>, all: usize, gone: usize) {
            list.get_or_insert_with(|| (0..all).collect()).retain(|&it| it != gone);
        }
        match unit {
            Unit::Heads { layer, kv_head } => {
                let all = attention(spec, layer).map_or(0, |it| it.kv_heads);
                if let Some(left) = &mut self.layers[layer] {
                    take(&mut left.kv_heads, all, kv_head);
                }
            }
            Unit::Channel { layer, channel } => {
                let all = mlp(spec, layer).map_or(0, |it| it.width);
                if let Some(left) = &mut self.layers[layer] {
                    take(&mut left.channels, all, channel);
                }
            }
            Unit::Layer { layer } => self.layers[layer] = None,
            Unit::Stream { channel } => take(&mut self.stream, spec.hidden_size, channel),
        }
    }

    /// Numbers of the layers that stay.
    pub fn kept_layers(&self) -> Vec<usize> {
        (0..self.layers.len()).filter(|&layer| self.layers[layer].is_some()).collect()
    }

    /// Everything that a cut must be to be made: parts that are there, something left, units that can be cut out.
    fn check(&self, spec: &Spec) -> Result<()> {
        if self.layers.len() != spec.layers.len() {
            let what = format!(
                "the cut is of a model of {} layers, not of {}",
                self.layers.len(),
                spec.layers.len()
            );
            return Err(Error::Option(what));
        }
        if self.layers.iter().all(Option::is_none) {
            return Err(Error::Option(
                "a cut that leaves no layer leaves no model; keep one at least".into(),
            ));
        }
        if self.stream.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::Option("a residual stream needs one channel at least".into()));
        }
        let rising = |list: &Option<Vec<usize>>| list.iter().all(|list| list.is_sorted_by(|a, b| a < b));
        for (layer, left) in self.layers.iter().enumerate() {
            let Some(left) = left else { continue };
            if !rising(&left.kv_heads) || !rising(&left.channels) {
                return Err(Error::Option(format!(
                    "parts of layer {layer} that stay should be named once, rising"
                )));
            }
            let last =
                |list: &Option<Vec<usize>>| list.as_ref().map(|list| list.last().copied().unwrap_or(0));
            if let Some(kv_head) = last(&left.kv_heads) {
                groups::check(spec, Unit::Heads { layer, kv_head })?;
            }
            if let Some(channel) = last(&left.channels) {
                groups::check(spec, Unit::Channel { layer, channel })?;
            }
        }
        if let Some(&channel) = self.stream.as_ref().and_then(|list| list.last()) {
            groups::check(spec, Unit::Stream { channel })?;
        }
        if self.layers.iter().any(Option::is_none) {
            groups::check(spec, Unit::Layer { layer: 0 })?;
        }
        Ok(())
    }

    /// The architecture that is left. With `holes` layers that leave stay as layers without parts.
    ///
    /// # Errors
    /// If the cut does not fit the spec or leaves nothing.
    pub fn spec(&self, spec: &Spec, holes: bool) -> Result<Spec> {
        self.check(spec)?;
        let mut left = spec.clone();
        left.layers.clear();
        let narrower = |norm: Norm| match &self.stream {
            Some(kept) => Norm { eps: norm.eps * (spec.hidden_size as f32 / kept.len() as f32), ..norm },
            None => norm,
        };
        let narrow = |norms: &Norms| Norms {
            before: norms.before.map(narrower),
            after: norms.after.map(narrower),
            residual: norms.residual.map(narrower),
        };
        for (layer, cut) in spec.layers.iter().zip(&self.layers) {
            let mut layer = layer.clone();
            match cut {
                None if holes => (layer.attention, layer.feed_forward) = (None, None),
                None => continue,
                Some(cut) => {
                    if let (Some(attention), Some(kept)) = (&mut layer.attention, &cut.kv_heads) {
                        let group = attention.heads / attention.kv_heads;
                        (attention.heads, attention.kv_heads) = (group * kept.len(), kept.len());
                    }
                    layer.attention = layer.attention.filter(|it| it.kv_heads > 0);
                    if let (Some(half), Some(kept)) = (&mut layer.feed_forward, &cut.channels)
                        && let FeedForwardKind::Dense(mlp) = &mut half.kind
                    {
                        mlp.width = kept.len();
                    }
                    let empty = cut.channels.as_ref().is_some_and(Vec::is_empty);
                    layer.feed_forward = layer.feed_forward.filter(|_| !empty);
                }
            }
            if let Some(attention) = &mut layer.attention {
                attention.norms = narrow(&attention.norms);
                // One epsilon serves all norms of a configuration; those of heads hardly notice.
                if let Some(norm) = &mut attention.qk_norm {
                    norm.norm = narrower(norm.norm);
                }
            }
            if let Some(half) = &mut layer.feed_forward {
                half.norms = narrow(&half.norms);
            }
            left.layers.push(layer);
        }
        left.final_norm = left.final_norm.map(narrower);
        left.embedding.norm = left.embedding.norm.map(narrower);
        left.hidden_size = self.stream.as_ref().map_or(spec.hidden_size, Vec::len);
        Ok(left)
    }

    /// What stays of a tensor of the whole model; none if all of it leaves.
    pub fn keep(&self, spec: &Spec, name: &str) -> Option<Keep> {
        let mut keep = Keep::default();
        let (rows, columns) = along_stream(name);
        if let Some(kept) = &self.stream {
            keep.rows = rows.then(|| kept.clone());
            keep.columns = columns.then(|| kept.clone());
        }
        let Some((layer, part)) = name.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) else {
            return Some(keep);
        };
        let layer: usize = layer.parse().ok()?;
        let cut = self.layers.get(layer)?.as_ref()?;
        let spread = |kept: &[usize], range: &dyn Fn(usize) -> std::ops::Range<usize>| -> Vec<usize> {
            kept.iter().flat_map(|&it| range(it)).collect()
        };
        if let (Some(part), Some(kept), Some(heads)) =
            (part.strip_prefix("attention."), &cut.kv_heads, attention(spec, layer))
        {
            if kept.is_empty() {
                return None;
            }
            let linear = part.split('.').next().unwrap_or_default();
            match linear {
                "query" => keep.rows = Some(spread(kept, &|it| query_range(heads, it))),
                "key" | "value" => keep.rows = Some(spread(kept, &|it| kv_range(heads, it))),
                "output" if part.ends_with(".weight") => {
                    keep.columns = Some(spread(kept, &|it| query_range(heads, it)));
                }
                "query_norm" | "key_norm" => {
                    let own = part.split('.').nth(1).and_then(|it| it.parse::<usize>().ok());
                    let group = if linear == "query_norm" { heads.heads / heads.kv_heads } else { 1 };
                    if own.is_some_and(|head| !kept.contains(&(head / group))) {
                        return None;
                    }
                }
                _ => {}
            }
        }
        if let (Some(part), Some(kept), Some(_)) =
            (part.strip_prefix("feed_forward."), &cut.channels, mlp(spec, layer))
        {
            if kept.is_empty() {
                return None;
            }
            match part {
                "gate.weight" | "gate.bias" | "up.weight" | "up.bias" => keep.rows = Some(kept.clone()),
                "down.weight" => keep.columns = Some(kept.clone()),
                _ => {}
            }
        }
        Some(keep)
    }

    /// The tensors of the cut model, in the order in which its spec lists them. With `holes` as `Cut::spec`.
    ///
    /// # Errors
    /// As `Cut::spec`.
    pub fn moved(&self, spec: &Spec, holes: bool) -> Result<Vec<Moved>> {
        self.check(spec)?;
        let mut numbers = vec![None; self.layers.len()];
        for (place, layer) in self.kept_layers().into_iter().enumerate() {
            numbers[layer] = Some(if holes { layer } else { place });
        }
        let moved = spec.tensors().into_iter().filter_map(|tensor| {
            let keep = self.keep(spec, &tensor.name)?;
            let name = self.new_name(spec, &tensor.name, &numbers);
            Some(Moved { name, from: tensor.name, keep })
        });
        Ok(moved.collect())
    }

    /// A tensor's name in the cut model: layers, and heads with norms of their own, are numbered anew.
    fn new_name(&self, spec: &Spec, name: &str, numbers: &[Option<usize>]) -> String {
        let mut parts: Vec<String> = name.split('.').map(str::to_owned).collect();
        let Some(layer) = parts.get(1).and_then(|it| it.parse::<usize>().ok()) else {
            return name.to_owned();
        };
        if let Some(number) = numbers.get(layer).copied().flatten() {
            parts[1] = number.to_string();
        }
        let kept = self.layers.get(layer).and_then(|cut| cut.as_ref()?.kv_heads.as_ref());
        let head = parts.get(4).and_then(|it| it.parse::<usize>().ok());
        if let (Some(kept), Some(head), Some(heads)) = (kept, head, attention(spec, layer))
            && parts[2] == "attention"
        {
            let group = if parts[3] == "query_norm" { heads.heads / heads.kv_heads } else { 1 };
            if let Some(place) = kept.iter().position(|&it| it == head / group) {
                parts[4] = (place * group + head % group).to_string();
            }
        }
        parts.join(".")
    }

    /// The model that is left. Its weights are cut out when they are read, so that nothing is held twice.
    ///
    /// # Errors
    /// If the cut does not fit or leaves nothing, matrices are stored in blocks that it would break, or the family's
    /// configuration can't say the shape.
    pub fn apply(&self, model: &Model) -> Result<Model> {
        let kept = self.kept_layers();
        let mut holes = false;
        let mut spec = self.spec(&model.spec, holes)?;
        let config = reshaped(&model.config, &spec, &kept).or_else(|error| {
            if kept.len() == self.layers.len() {
                return Err(Error::from(error));
            }
            // Families whose layers take turns by their number keep an empty layer in the place of a lost one.
            holes = true;
            spec = self.spec(&model.spec, holes)?;
            let all: Vec<usize> = (0..self.layers.len()).collect();
            Ok(reshaped(&model.config, &spec, &all)?)
        })?;
        let source = CutSource::new(&model.weights, &model.spec, self.moved(&model.spec, holes)?)?;
        let weights = Weights::of_source(Arc::new(source));
        for tensor in spec.tensors() {
            let found = weights.info(&tensor.name).map(|(_, shape)| shape);
            if found != Some(&tensor.shape[..]) {
                let what = format!("is cut to {found:?} where the cut model has {:?}", tensor.shape);
                return Err(Error::matrix(tensor.name, what));
            }
        }
        Ok(Model { spec, weights, config, ..model.clone() })
    }

    /// The whole model's weights with zeros where the cut takes something out.
    ///
    /// # Errors
    /// If the cut does not fit, a weight can't be read, or a layer leaves whose norm follows the sum: then no mask computes the
    /// same.
    pub fn masked(&self, model: &Model) -> Result<Weights> {
        self.check(&model.spec)?;
        for (layer, _) in self.layers.iter().enumerate().filter(|(_, cut)| cut.is_none()) {
            let layer = &model.spec.layers[layer];
            let norms =
                [layer.attention.as_ref().map(|it| it.norms), layer.feed_forward.as_ref().map(|it| it.norms)];
            if norms.into_iter().flatten().any(|norms| norms.residual.is_some()) {
                return Err(Error::Option(
                    "a layer with a norm behind the sum has no mask; cut it out".into(),
                ));
            }
        }
        let mut masked = Vec::new();
        for info in model.spec.tensors() {
            let keep = self.keep(&model.spec, &info.name);
            if keep == Some(Keep::default()) {
                continue;
            }
            let tensor = model.weights.get(&info.name)?;
            let mut values = tensor.to_f32().map_err(|error| Error::matrix(&info.name, error))?;
            match keep {
                None => values.fill(0.0),
                Some(keep) => keep.mask(&mut values, &info.shape),
            }
            let mut bytes = Vec::new();
            quant::encode_rows(tensor.dtype, &values, tensor.row_len(), &mut bytes)
                .map_err(|error| Error::matrix(&info.name, error))?;
            masked.push((info.name, Tensor { data: Bytes::from(bytes), ..tensor }));
        }
        Ok(model.weights.replaced(masked)?)
    }
}

impl Keep {
    /// Sets to zero what does not stay of a tensor of this shape.
    ///
    /// # Panics
    /// If there are not as many values as the shape says.
    pub fn mask<T: Copy + Default>(&self, values: &mut [T], shape: &[usize]) {
        let (rows, columns) = extent(shape);
        assert_eq!(values.len(), rows * columns, "as many values as the shape says");
        let flags = |kept: &Option<Vec<usize>>, all: usize| -> Vec<bool> {
            let mut flags = vec![kept.is_none(); all];
            kept.iter().flatten().for_each(|&it| flags[it] = true);
            flags
        };
        let (keep_rows, keep_columns) = (flags(&self.rows, rows), flags(&self.columns, columns));
        for (row, stays) in values.chunks_exact_mut(columns.max(1)).zip(keep_rows) {
            row.iter_mut().zip(&keep_columns).for_each(|(value, column)| {
                if !(stays && *column) {
                    *value = T::default();
                }
            });
        }
    }

    /// What stays of the values of a tensor of this shape: weights, gradients, an optimizer's moments.
    ///
    /// # Panics
    /// As `Keep::mask`.
    pub fn take<T: Copy>(&self, values: &[T], shape: &[usize]) -> Vec<T> {
        let (rows, columns) = extent(shape);
        assert_eq!(values.len(), rows * columns, "as many values as the shape says");
        let mut taken = Vec::new();
        let mut row = |row: usize| {
            let row = &values[row * columns..(row + 1) * columns];
            match &self.columns {
                None => taken.extend_from_slice(row),
                Some(kept) => taken.extend(kept.iter().map(|&column| row[column])),
            }
        };
        match &self.rows {
            None => (0..rows).for_each(&mut row),
            Some(kept) => kept.iter().copied().for_each(&mut row),
        }
        taken
    }

    /// The shape of what stays.
    pub fn shape(&self, shape: &[usize]) -> Vec<usize> {
        let mut shape = shape.to_vec();
        if let (Some(rows), Some(first)) = (&self.rows, shape.first_mut()) {
            *first = rows.len();
        }
        if let (Some(columns), Some(last)) = (&self.columns, shape.last_mut()) {
            *last = columns.len();
        }
        shape
    }
}

/// Rows and columns; an element of a vector is a row.
fn extent(shape: &[usize]) -> (usize, usize) {
    (shape.first().copied().unwrap_or(1), shape.iter().skip(1).product())
}
