//! Takes a model's weights into a network: which become parameters, which stay as they are stored.

use ounce_kernels::DType;
use ounce_kernels::quant::grid::Grid;
use ounce_model::spec_tensors::{EXPAND, REDUCE};
use ounce_model::{Tensor, Weights};

use super::beside::{Beside, Pair};
use super::embedding::Table;
use super::linear::{Linear, Matrix};
use super::steps::Packed;
use crate::{Param, ParamKind, Result};

/// Collects parameters while the parts of a network are made.
pub(crate) struct Builder<'m> {
    pub weights: &'m Weights,
    pub params: Vec<Param>,
    /// Frozen matrices whose step sizes are trained.
    pub packed: Vec<Packed>,
    /// Whether frozen matrices in blocks become such.
    pub steps: bool,
    /// Which weights are trained, by name.
    pub trains: &'m dyn Fn(&str) -> bool,
    /// What stands beside the layer of a name, which has so many outputs and inputs.
    pub pairs: Option<&'m Pairs<'m>>,
}

/// From a layer's name, outputs and inputs to what stands beside it.
pub type Pairs<'p> = dyn Fn(&str, usize, usize) -> Result<Option<Pair>> + 'p;

/// What a weight of this name and shape is.
pub(crate) fn kind_of(name: &str, shape: &[usize]) -> ParamKind {
    match name {
        _ if name.ends_with(".bias") => ParamKind::Bias,
        "head.weight" => ParamKind::Head,
        "embed.projection.weight" => ParamKind::Matrix,
        _ if name.starts_with("embed.") && shape.len() > 1 => ParamKind::Embedding,
        _ if shape.len() == 1 => ParamKind::Norm,
        _ => ParamKind::Matrix,
    }
}

/// A table whose rows can be decoded one by one; none if it is F32, which a parameter is as well.
pub(crate) fn stored_table(weights: &Weights, name: &str) -> Result<Option<Tensor>> {
    let table = weights.get(name)?;
    if table.dtype == DType::F32 {
        return Ok(None);
    }
    let seen = table.decode_row(0, &mut vec![0.0; table.row_len()]);
    seen.map_err(|error| ounce_model::Error::tensor(weights.path(), name, error.to_string()))?;
    Ok(Some(table))
}

impl<'m> Builder<'m> {
    /// Nothing taken in yet.
    pub fn new(weights: &'m Weights, trains: &'m dyn Fn(&str) -> bool) -> Builder<'m> {
        Builder { weights, params: Vec::new(), packed: Vec::new(), steps: false, trains, pairs: None }
    }

    /// The index of the parameter of this name, which is taken in if it is new.
    pub fn param(&mut self, name: &str) -> Result<usize> {
        if let Some(known) = self.params.iter().position(|param| param.name == name) {
            return Ok(known);
        }
        let tensor = self.weights.get(name)?;
        let value = self.weights.f32(name)?;
        let mut param = Param::new(name, &tensor.shape, kind_of(name, &tensor.shape), value);
        if !(self.trains)(name) {
            param.freeze();
        }
        self.params.push(param);
        Ok(self.params.len() - 1)
    }

    /// The table of vectors of this name: a parameter if it is trained or one already.
    pub fn table(&mut self, name: &str) -> Result<Table> {
        let own = (self.trains)(name) || self.params.iter().any(|param| param.name == name);
        match if own { None } else { stored_table(self.weights, name)? } {
            Some(table) => Ok(Table::Stored(table)),
            None => Ok(Table::Param(self.param(name)?)),
        }
    }

    /// The index of the packed matrix of this name, which is taken in with its step sizes if it is new.
    fn packed(&mut self, name: &str, tensor: &Tensor, grid: &'static Grid) -> usize {
        if let Some(known) = self.packed.iter().position(|packed| packed.name == name) {
            return known;
        }
        let (packed, steps) = Packed::take(name, tensor, grid, self.params.len());
        self.params.extend(steps);
        self.packed.push(packed);
        self.packed.len() - 1
    }

    /// The parameter of this name if `there`.
    pub fn optional(&mut self, name: &str, there: bool) -> Result<Option<usize>> {
        if there { self.param(name).map(Some) } else { Ok(None) }
    }

    /// The linear layer `{name}.weight`, `{name}.bias`.
    pub fn linear(&mut self, name: &str, bias: bool) -> Result<Linear> {
        let bias = self.optional(&format!("{name}.bias"), bias)?;
        if self.weights.contains(&format!("{name}{REDUCE}")) {
            let reduce = self.linear_of(&format!("{name}{REDUCE}"), None)?;
            let expand = self.linear_of(&format!("{name}{EXPAND}"), bias)?;
            let (input, output) = (reduce.input, expand.output);
            return Ok(Linear {
                matrix: Matrix::Factors(Box::new([reduce, expand])),
                bias: None,
                input,
                output,
                beside: None,
            });
        }
        let mut linear = self.linear_of(&format!("{name}.weight"), bias)?;
        if let Some(pairs) = self.pairs
            && let Some(Pair { a, b, scale }) = pairs(name, linear.output, linear.input)?
        {
            let thin = |matrix, input, output| Linear {
                matrix: Matrix::Param(matrix),
                bias: None,
                input,
                output,
                beside: None,
            };
            let rank = a.shape[0];
            let reduce = thin(self.own(a), linear.input, rank);
            let expand = thin(self.own(b), rank, linear.output);
            linear.beside = Some(Box::new(Beside { reduce, expand, scale }));
        }
        Ok(linear)
    }

    /// The index of a parameter that is none of the model's, which is taken in if it is new.
    fn own(&mut self, param: Param) -> usize {
        if let Some(known) = self.params.iter().position(|known| known.name == param.name) {
            return known;
        }
        self.params.push(param);
        self.params.len() - 1
    }

    /// The linear layer with the matrix of this name. A frozen one stays as it is stored unless that is f32, which a
    /// parameter is as well.
    pub fn linear_of(&mut self, name: &str, bias: Option<usize>) -> Result<Linear> {
        let tensor = self.weights.get(name)?;
        let (output, input) = (tensor.rows(), tensor.row_len());
        let stays = !(self.trains)(name) && !self.params.iter().any(|param| param.name == name);
        let matrix = match (stays, self.steps.then(|| Grid::free(tensor.dtype)).flatten()) {
            (true, Some(grid)) => Matrix::Steps(self.packed(name, &tensor, grid)),
            (true, None) => Matrix::Stored(tensor),
            (false, _) => Matrix::Param(self.param(name)?),
        };
        Ok(Linear { matrix, bias, input, output, beside: None })
    }
}
