//! Which weight gets which format, and how large the file becomes.

use std::collections::{BTreeMap, HashMap};

use ounce_kernels::DType;
use ounce_model::formats::gguf_model;
use ounce_model::storage::Bytes;
use ounce_model::weights::bytes_of;
use ounce_model::{Model, Tensor};
use serde::Serialize;

use crate::{Error, Result};

/// Matrices that are stored in one format: one tensor of the file, or all experts of a layer's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unit {
    /// Its name in a GGUF file, by which users know it.
    pub name: String,
    /// ounce's names of the matrices in it.
    pub matrices: Vec<String>,
    /// Rows of all of them.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
}

impl Unit {
    /// Values of all matrices.
    pub fn values(&self) -> usize {
        self.rows * self.columns
    }

    /// Bytes in a format that fits the rows, without padding.
    pub fn bytes(&self, dtype: DType) -> Option<usize> {
        bytes_of(dtype, &[self.rows, self.columns])
    }

    /// Whether it is the table of token vectors or the head.
    pub fn is_outer(&self) -> bool {
        self.matrices.iter().any(|name| matches!(name.as_str(), "embed.tokens.weight" | "head.weight"))
    }
}

/// The weights of a model that can be quantized: the matrices of its layers, the head and the token vectors. Norms,
/// biases, position vectors and routers stay as they are.
///
/// # Errors
/// If GGUF, whose grouping and names are used, has no place for the model.
pub fn units(model: &Model) -> Result<Vec<Unit>> {
    let mut units = Vec::new();
    for (name, parts) in gguf_model::matrices(model)? {
        let stays = |part: &String| {
            let inner = ["embed.positions", "embed.types", ".router", ".shared_gate"];
            inner.iter().any(|it| part.trim_end_matches(".weight").ends_with(it))
        };
        if parts.iter().any(stays) {
            continue;
        }
        let shapes: Option<Vec<&[usize]>> =
            parts.iter().map(|part| model.weights.info(part).map(|it| it.1)).collect();
        let Some(shapes) = shapes else { continue };
        let [_, columns] = shapes[0] else { continue };
        let rows = shapes.iter().map(|shape| shape[0]).sum();
        units.push(Unit { name, matrices: parts, rows, columns: *columns });
    }
    Ok(units)
}

/// Formats by matrix; what is not named keeps its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// ounce's name of a matrix to its format.
    pub formats: BTreeMap<String, String>,
    #[serde(skip)]
    dtypes: HashMap<String, DType>,
}

impl Plan {
    /// A plan from a choice for each unit; none keeps it. Rows that are no whole blocks of a format take what
    /// [`DType::fitting`] says.
    ///
    /// # Errors
    /// If nothing with so few bits fits the rows of a unit.
    pub fn new<'u>(choices: impl IntoIterator<Item = (&'u Unit, Option<DType>)>) -> Result<Plan> {
        let mut plan = Plan::default();
        for (unit, dtype) in choices {
            let Some(dtype) = dtype else { continue };
            let fitting = dtype.fitting(unit.columns).ok_or_else(|| {
                Error::matrix(
                    &unit.name,
                    format!(
                        "rows of {} values are no whole blocks of {dtype} ({}) or of a smaller format that stands in \
                         for it; keep it with --keep '{}=bf16'",
                        unit.columns,
                        dtype.block_len(),
                        unit.name
                    ),
                )
            })?;
            for matrix in &unit.matrices {
                plan.formats.insert(matrix.clone(), fitting.name().to_owned());
                plan.dtypes.insert(matrix.clone(), fitting);
            }
        }
        Ok(plan)
    }

    /// The format of a matrix.
    pub fn dtype(&self, matrix: &str) -> Option<DType> {
        self.dtypes.get(matrix).copied()
    }

    /// The model as it will be, all new weights zero: for forecasts of files.
    ///
    /// # Errors
    /// If the plan names a matrix that the model does not have.
    pub fn placeholder(&self, model: &Model) -> Result<Model> {
        let mut tensors = Vec::new();
        let mut most = 0;
        for (name, &dtype) in &self.dtypes {
            let shape = model.weights.info(name).map(|it| it.1.to_vec());
            let shape = shape.ok_or_else(|| Error::matrix(name, "is no weight of this model"))?;
            let bytes = bytes_of(dtype, &shape).unwrap_or(0);
            most = most.max(bytes);
            tensors.push((name.clone(), dtype, shape, bytes));
        }
        // One stretch of zeros for all; the system gives such pages out only when somebody looks.
        let zeros = Bytes::from(vec![0u8; most]);
        let tensors = tensors
            .into_iter()
            .map(|(name, dtype, shape, bytes)| (name, Tensor { dtype, shape, data: zeros.slice(0..bytes) }));
        Ok(Model { weights: model.weights.replaced(tensors)?, ..model.clone() })
    }
}
