//! Takes a model's weights into a network of slots.

use ounce_model::spec::Norm as NormSpec;
use ounce_model::{Tensor, Weights};

use super::norm::Norm;
use super::ops::Kernels;
use super::slot::{Linear, Matrix, Slot};
use super::weight::Weight;
use crate::Result;
use crate::net::kind_of;

/// Makes the slot of the layer of a name (`layers.3.attention.query`) of its parts.
pub type Wrap<'m> = dyn FnMut(&str, Linear) -> Result<Box<dyn Slot>> + 'm;

/// A slot and the names it stands for in the model.
pub(super) struct Place {
    pub slot: Box<dyn Slot>,
    /// Name of the model's matrix.
    pub matrix: String,
}

/// Collects weights while the parts of a network are made.
pub(super) struct Builder<'m> {
    pub source: &'m Weights,
    pub trains: &'m dyn Fn(&str) -> bool,
    pub wrap: &'m mut Wrap<'m>,
    pub on: Kernels,
    pub weights: Vec<Weight>,
}

impl Builder<'_> {
    /// The weight of this name, which is read if it is new.
    pub fn weight(&mut self, name: &str) -> Result<Weight> {
        if let Some(known) = self.known(name) {
            return Ok(known);
        }
        let shape = self.source.get(name)?.shape;
        let weight = Weight::new(name, &shape, kind_of(name, &shape), self.source.f32(name)?)?;
        if !(self.trains)(name) {
            weight.freeze();
        }
        self.weights.push(weight.clone());
        Ok(weight)
    }

    fn known(&self, name: &str) -> Option<Weight> {
        self.weights.iter().find(|weight| weight.name() == name).cloned()
    }

    /// The table of this name as it is stored, if it is frozen and no weight already; F32 tables become weights.
    pub fn stored(&self, name: &str) -> Result<Option<Tensor>> {
        match (self.trains)(name) || self.known(name).is_some() {
            true => Ok(None),
            false => crate::net::stored_table(self.source, name),
        }
    }

    /// The weight of this name if `there`.
    pub fn optional(&mut self, name: &str, there: bool) -> Result<Option<Weight>> {
        if there { self.weight(name).map(Some) } else { Ok(None) }
    }

    /// The norm of this name if `spec` says there is one.
    pub fn norm(&mut self, name: &str, spec: Option<NormSpec>) -> Result<Option<Norm>> {
        let Some(spec) = spec else { return Ok(None) };
        let weight = self.weight(&format!("{name}.weight"))?;
        let bias = self.optional(&format!("{name}.bias"), spec.bias)?;
        Ok(Some(Norm { on: self.on, spec, weight, bias }))
    }

    /// The slot of the layer `{name}.weight`, `{name}.bias`.
    pub fn slot(&mut self, name: &str, bias: bool) -> Result<Place> {
        let bias = self.optional(&format!("{name}.bias"), bias)?;
        self.slot_of(name, &format!("{name}.weight"), bias)
    }

    /// The slot `name` with the matrix of another name. A frozen matrix stays as it is stored, unless it is a weight
    /// already.
    pub fn slot_of(&mut self, name: &str, matrix: &str, bias: Option<Weight>) -> Result<Place> {
        let tensor = self.source.get(matrix)?;
        let (output, input) = (tensor.rows(), tensor.row_len());
        let own = match self.known(matrix) {
            None if !(self.trains)(matrix) => Matrix::Stored(tensor),
            _ => Matrix::Weight(self.weight(matrix)?),
        };
        let slot = (self.wrap)(name, Linear { matrix: own, bias, input, output, on: self.on })?;
        for weight in slot.vars() {
            match self.known(weight.name()) {
                Some(known) if known.var().id() == weight.var().id() => {}
                Some(_) => {
                    return Err(crate::Error::Unsupported(format!(
                        "two weights are called {}; the name of a slot's weight must begin with the slot's",
                        weight.name()
                    )));
                }
                None => self.weights.push(weight),
            }
        }
        Ok(Place { slot, matrix: matrix.to_string() })
    }
}
