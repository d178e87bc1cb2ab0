//! Named tensors, memory-mapped and read lazily: opening touches headers only, a tensor's bytes are paged
//! in when it is used. [`Weights`] speaks ounce's names; [`TensorSource`] is a file or set of files with its
//! own names; the rules of [`crate::names`] connect the two.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ounce_kernels::{DType, quant};

use crate::storage::Bytes;
use crate::{Error, Result};

/// Bytes of a tensor that are read together, about.
const READ_BYTES: usize = 64 << 10;

thread_local! {
    /// The stored form of the rows that this thread reads.
    static STORED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A stored tensor: format, row-major shape and bytes. Rows (the last dimension) are whole blocks.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// How values are stored.
    pub dtype: DType,
    /// Row-major shape; the last number is the row length.
    pub shape: Vec<usize>,
    /// The values, row after row.
    pub data: Bytes,
}

/// Number of values of a shape; `None` if it does not fit.
pub fn values_of(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n))
}

/// Bytes of a tensor whose rows are stored in `dtype`; `None` if rows are no whole blocks or it overflows.
pub fn bytes_of(dtype: DType, shape: &[usize]) -> Option<usize> {
    let (&row, rows) = shape.split_last().unwrap_or((&1, &[]));
    dtype.bytes_for(row)?.checked_mul(values_of(rows)?)
}

impl Tensor {
    /// A tensor of f32 values.
    ///
    /// # Panics
    /// If `shape` has not as many places as there are values.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Tensor {
        assert_eq!(values_of(shape), Some(values.len()), "one value per place");
        let data = if cfg!(target_endian = "little") {
            bytemuck::cast_slice::<f32, u8>(values).to_vec()
        } else {
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        };
        Tensor { dtype: DType::F32, shape: shape.to_vec(), data: Bytes::from(data) }
    }

    /// Length of a row; 1 for scalars.
    pub fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Number of rows; 1 for vectors.
    pub fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// Number of values.
    pub fn values(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row_len() / self.dtype.block_len() * self.dtype.block_bytes()
    }

    /// The bytes of row `index`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, index: usize) -> &[u8] {
        let bytes = self.row_bytes();
        &self.data[index * bytes..(index + 1) * bytes]
    }

    /// The values as f32 without a copy, if they are stored so, aligned, on a little-endian machine.
    pub fn as_f32(&self) -> Option<&[f32]> {
        if self.dtype != DType::F32 || cfg!(target_endian = "big") {
            return None;
        }
        bytemuck::try_cast_slice(&self.data).ok()
    }

    /// Decodes row `index` into `out`, which has the row's length.
    ///
    /// # Errors
    /// If the format holds no weights.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn decode_row(&self, index: usize, out: &mut [f32]) -> Result<(), quant::QuantError> {
        quant::decode(self.dtype, self.row(index), out)
    }

    /// Decodes the rows from `first` on that fill `out`, without a look at a mapping: of a mapped file these rows alone are read
    /// ([`Bytes::read_at`]), by way of a buffer that each thread keeps.
    ///
    /// # Errors
    /// If the file can't be read any more, or the format holds no weights.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn read_rows(&self, first: usize, out: &mut [f32]) -> std::io::Result<()> {
        let (start, length) = (first * self.row_bytes(), out.len() / self.row_len() * self.row_bytes());
        let decoded = if self.data.is_mapped() {
            STORED.with_borrow_mut(|bytes| {
                bytes.resize(length, 0);
                self.data.read_at(start, bytes)?;
                Ok::<_, std::io::Error>(quant::decode(self.dtype, bytes, out))
            })?
        } else {
            quant::decode(self.dtype, &self.data[start..start + length], out)
        };
        decoded.map_err(std::io::Error::other)
    }

    /// All values as f32.
    ///
    /// # Errors
    /// If the format holds no weights, or the bytes are not those of the shape.
    pub fn to_f32(&self) -> Result<Vec<f32>, quant::QuantError> {
        let mut out = vec![0.0; self.values()];
        quant::decode(self.dtype, &self.data, &mut out)?;
        Ok(out)
    }

    /// Whether the bytes are exactly those of the shape, each row whole blocks.
    pub(crate) fn is_whole(&self) -> bool {
        bytes_of(self.dtype, &self.shape) == Some(self.data.len())
    }
}

/// Tensors under a file format's own names.
pub trait TensorSource: Send + Sync {
    /// The file or folder, for messages.
    fn path(&self) -> &Path;
    /// Every tensor's name, in file order.
    fn names(&self) -> Vec<&str>;
    /// Format and shape of a tensor, without reading it.
    fn info(&self, name: &str) -> Option<(DType, &[usize])>;
    /// A tensor; its bytes are shared with the file's mapping.
    ///
    /// # Errors
    /// If there is no such tensor.
    fn tensor(&self, name: &str) -> Result<Tensor>;
}

/// Tensors held in memory, under any names.
#[derive(Debug, Default)]
pub struct MemorySource {
    path: PathBuf,
    order: Vec<String>,
    tensors: HashMap<String, Tensor>,
}

impl MemorySource {
    /// An empty set; `path` is used in messages.
    pub fn new(path: impl AsRef<Path>) -> MemorySource {
        MemorySource { path: path.as_ref().to_path_buf(), ..MemorySource::default() }
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        let name = name.into();
        if self.tensors.insert(name.clone(), tensor).is_none() {
            self.order.push(name);
        }
    }
}

impl TensorSource for MemorySource {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<&str> {
        self.order.iter().map(String::as_str).collect()
    }

    fn info(&self, name: &str) -> Option<(DType, &[usize])> {
        self.tensors.get(name).map(|tensor| (tensor.dtype, tensor.shape.as_slice()))
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        let tensor = self.tensors.get(name);
        tensor.cloned().ok_or_else(|| Error::tensor(&self.path, name, "is missing"))
    }
}

/// Where one of ounce's tensors lies in a source.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The source's name for the tensor that holds it.
    pub file_name: String,
    /// How to take it out.
    pub take: crate::names::Take,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// A model's weights under ounce's names.
#[derive(Clone)]
pub struct Weights {
    source: Arc<dyn TensorSource>,
    places: Arc<HashMap<String, Place>>,
    order: Arc<Vec<String>>,
    unused: Arc<Vec<String>>,
    /// Tensors that stand in for the source's.
    replaced: Arc<HashMap<String, Tensor>>,
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weights({} tensors in {})", self.order.len(), self.source.path().display())
    }
}

impl Weights {
    pub(crate) fn new(
        source: Arc<dyn TensorSource>,
        places: Vec<(String, Place)>,
        unused: Vec<String>,
    ) -> Weights {
        let order = places.iter().map(|(name, _)| name.clone()).collect();
        let places = places.into_iter().collect();
        Weights {
            source,
            places: Arc::new(places),
            order: Arc::new(order),
            unused: Arc::new(unused),
            replaced: Arc::default(),
        }
    }

    /// These weights with other tensors in the place of some: of the same shapes, in any format.
    ///
    /// # Errors
    /// As [`Weights::replace`].
    pub fn replaced(&self, tensors: impl IntoIterator<Item = (String, Tensor)>) -> Result<Weights> {
        let mut weights = self.clone();
        tensors.into_iter().try_for_each(|(name, tensor)| weights.replace(name, tensor))?;
        Ok(weights)
    }

    /// Puts another tensor in the place of one: of the same shape, in any format. Other clones of these weights keep what
    /// they have.
    ///
    /// # Errors
    /// If there is no such tensor, or the new one has another shape or too few or many bytes.
    pub fn replace(&mut self, name: String, tensor: Tensor) -> Result<()> {
        let Some((_, shape)) = self.info(&name) else {
            return Err(Error::tensor(
                self.path(),
                name,
                "is missing from the model, so nothing can stand in for it",
            ));
        };
        if shape != tensor.shape || !tensor.is_whole() {
            let what = format!("has the shape {shape:?}; what is to stand in for it has {:?}", tensor.shape);
            return Err(Error::tensor(self.path(), name, what));
        }
        Arc::make_mut(&mut self.replaced).insert(name, tensor);
        Ok(())
    }

    /// These weights and others besides, at the end: for models that get a part more, as an output matrix of their own.
    /// A tensor that is there already is replaced.
    ///
    /// # Errors
    /// If a tensor has too few or many bytes, or replaces one of another shape.
    pub fn extended(&self, tensors: impl IntoIterator<Item = (String, Tensor)>) -> Result<Weights> {
        let (mut order, mut replaced) = (Vec::clone(&self.order), HashMap::clone(&self.replaced));
        for (name, tensor) in tensors {
            let other = self.info(&name).filter(|(_, shape)| *shape != tensor.shape);
            if other.is_some() || !tensor.is_whole() {
                return Err(Error::tensor(
                    self.path(),
                    name,
                    "can't be added with such a shape and so many bytes",
                ));
            }
            if replaced.insert(name.clone(), tensor).is_none() && !self.places.contains_key(&name) {
                order.push(name);
            }
        }
        Ok(Weights { order: Arc::new(order), replaced: Arc::new(replaced), ..self.clone() })
    }

    /// Tensors held in memory under ounce's own names, in the order in which they were inserted.
    pub fn in_memory(source: MemorySource) -> Weights {
        Weights::of_source(Arc::new(source))
    }

    /// Tensors of a source that calls them by ounce's own names, taken from it when they are used.
    pub fn of_source(source: Arc<dyn TensorSource>) -> Weights {
        let place = |name: &str| {
            let shape = source.info(name).map(|(_, shape)| shape.to_vec()).unwrap_or_default();
            let take = crate::names::Take::Range { start: 0 };
            (name.to_owned(), Place { file_name: name.to_owned(), take, shape })
        };
        let places = source.names().into_iter().map(place).collect();
        Weights::new(source, places, Vec::new())
    }

    /// Where the tensors lie, for messages.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// ounce's names, in the order of use.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(String::as_str)
    }

    /// Tensors of the source that the model has no use for.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// Whether there is such a tensor.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name) || self.replaced.contains_key(name)
    }

    /// Stored format and shape of a tensor, without reading it.
    pub fn info(&self, name: &str) -> Option<(DType, &[usize])> {
        if let Some(tensor) = self.replaced.get(name) {
            return Some((tensor.dtype, &tensor.shape));
        }
        let place = self.places.get(name)?;
        let (dtype, _) = self.source.info(&place.file_name)?;
        Some((dtype, &place.shape))
    }

    /// The source's name of the tensor that holds `name`.
    pub fn file_name(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|place| place.file_name.as_str())
    }

    /// A tensor. Its bytes are shared with the file where the layout allows, else gathered.
    ///
    /// # Errors
    /// If there is no such tensor or its bytes can't be taken out of the file's layout.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        if let Some(tensor) = self.replaced.get(name) {
            return Ok(tensor.clone());
        }
        let place = self.places.get(name);
        let place = place.ok_or_else(|| Error::tensor(self.path(), name, "is missing from the model"))?;
        let stored = self.source.tensor(&place.file_name)?;
        let source = stored.data.clone();
        let taken = place
            .take
            .apply(stored, &place.shape)
            .map_err(|what| Error::tensor(self.path(), &place.file_name, what))?;
        if !taken.data.is_mapped() {
            // From here on the copy is what is read.
            source.release();
        }
        Ok(taken)
    }

    /// A tensor's values as f32.
    ///
    /// # Errors
    /// As [`Weights::get`], and if the values can't be decoded.
    pub fn f32(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.get(name)?;
        let wrong = |error: String| Error::tensor(self.path(), name, error);
        if !tensor.data.is_mapped() {
            return tensor.to_f32().map_err(|error| wrong(error.to_string()));
        }
        // A look at the mapping would bring what lies around these values into memory too.
        let mut values = vec![0.0; tensor.values()];
        let rows = (READ_BYTES / tensor.row_bytes().max(1)).max(1);
        for (part, values) in values.chunks_mut((rows * tensor.row_len()).max(1)).enumerate() {
            tensor.read_rows(part * rows, values).map_err(|error| wrong(error.to_string()))?;
        }
        Ok(values)
    }
}
