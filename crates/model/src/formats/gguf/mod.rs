//! GGUF: the container of llama.cpp's models, versions 2 and 3, little-endian. Knows no architecture.
//!
//! A file is a header (ordered metadata, then name, shape, type and place of every tensor) and the tensors' bytes.
//! [`GgufFile`] maps a file, or all parts of a split one, and checks the whole header before it hands out anything;
//! tensor data is not touched until somebody reads it. [`GgufWriter`] streams a new file tensor by tensor. What the
//! keys and tensor names mean is the families' business; what the bytes mean is `ounce_kernels::quant`'s.
//!
//! Shapes are row-major here, slowest dimension first, as everywhere in ounce; the file stores the reverse.

mod read;
mod split;
mod value;
mod write;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ounce_kernels::DType;

use crate::storage::Bytes;
use crate::{Error, Result};

pub use value::{Array, FromValue, Kind, Value};
pub use write::{GgufHeader, GgufWriter};

/// Arrays inside arrays inside arrays: no known file has more than two levels.
const MAX_NESTING: usize = 4;
/// Dimensions of a tensor; ggml has no more.
const MAX_DIMENSIONS: usize = 4;
/// Tensor data starts at multiples of this unless `general.alignment` says otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";

/// Keys and values in the order of the file; keys are unique.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    places: HashMap<String, usize>,
}

impl Metadata {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.places.get(key).map(|&place| &self.entries[place].1)
    }

    /// Sets a key: a new one goes to the end, a known one keeps its place.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.places.get(&key) {
            Some(&place) => self.entries[place].1 = value,
            None => {
                self.places.insert(key.clone(), self.entries.len());
                self.entries.push((key, value));
            }
        }
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// A stored tensor.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Its name, unique in the file.
    pub name: String,
    /// How its values are stored.
    pub dtype: DType,
    /// Row-major shape; the last dimension is a whole number of blocks. Empty for a single value.
    pub shape: Vec<usize>,
    /// The stored bytes: exactly as many as shape and type need, at any alignment.
    pub data: Bytes,
}

/// A GGUF file whose header was read and checked.
#[derive(Debug, Clone)]
pub struct GgufFile {
    parts: Vec<PathBuf>,
    version: u32,
    metadata: Metadata,
    tensors: Vec<Tensor>,
    places: HashMap<String, usize>,
}

impl GgufFile {
    /// Maps a file and reads its header; of a split file any part may be named and all parts are opened.
    ///
    /// # Errors
    /// [`Error::Io`] if a file can't be opened, [`Error::Format`] or [`Error::Tensor`] for whatever is wrong with
    /// it, in the order: file header, metadata, tensors, parts.
    pub fn open(path: impl AsRef<Path>) -> Result<GgufFile> {
        let path = path.as_ref();
        let part = read::parse(Bytes::map(path)?, path)?;
        match split::Split::of(&part.metadata, path)? {
            Some(split) => split::open_all(&split, path),
            None => GgufFile::join(vec![(path.to_path_buf(), part)]),
        }
    }

    /// Reads a file that is in memory. `path` is only used in messages.
    ///
    /// # Errors
    /// As [`GgufFile::open`]; also if the bytes are one part of a split file, whose other parts are unknown.
    pub fn parse(bytes: Bytes, path: impl AsRef<Path>) -> Result<GgufFile> {
        let path = path.as_ref();
        let part = read::parse(bytes, path)?;
        if let Some(split) = split::Split::of(&part.metadata, path)? {
            let what =
                format!("this is one of {} parts; open it by its path to find the others", split.count);
            return Err(Error::format(path, what));
        }
        GgufFile::join(vec![(path.to_path_buf(), part)])
    }

    /// One file of one or more parts. The first part's metadata counts.
    fn join(parts: Vec<(PathBuf, read::Part)>) -> Result<GgufFile> {
        let mut file = GgufFile {
            parts: Vec::new(),
            version: 0,
            metadata: Metadata::default(),
            tensors: Vec::new(),
            places: HashMap::new(),
        };
        for (path, part) in parts {
            for tensor in part.tensors {
                if file.places.insert(tensor.name.clone(), file.tensors.len()).is_some() {
                    return Err(Error::tensor(path, tensor.name, "occurs twice; the file is damaged"));
                }
                file.tensors.push(tensor);
            }
            if file.parts.is_empty() {
                file.version = part.version;
                file.metadata = part.metadata;
            }
            file.parts.push(path);
        }
        Ok(file)
    }

    /// The file, or the first part of a split one.
    pub fn path(&self) -> &Path {
        &self.parts[0]
    }

    /// The files it consists of; more than one if it is split.
    pub fn parts(&self) -> &[PathBuf] {
        &self.parts
    }

    /// The format's version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// All keys and values. For single keys, [`GgufFile::get`] and [`GgufFile::require`] check types as well.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors in the order of the file.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.places.get(name).map(|&place| &self.tensors[place])
    }

    /// The value of an optional key.
    ///
    /// # Errors
    /// [`Error::Format`] if the key is there with a value that can't be a `T`.
    pub fn get<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>> {
        self.metadata.get(key).map(|value| taken(value, key, self.path())).transpose()
    }

    /// The value of a key that must be there.
    ///
    /// # Errors
    /// [`Error::Format`] if the key is missing or its value can't be a `T`.
    pub fn require<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T> {
        self.get(key)?.ok_or_else(|| {
            let what = format!("metadata key {key} is missing; convert the model again with a current tool");
            Error::format(self.path(), what)
        })
    }
}

/// A metadata value as a Rust type, or what is wrong with it.
fn taken<'a, T: FromValue<'a>>(value: &'a Value, key: &str, path: &Path) -> Result<T> {
    T::from_value(value).ok_or_else(|| {
        let what = format!("metadata key {key} is {}, expected {}", value.describe(), T::WANTED);
        Error::format(path, what)
    })
}
