//! safetensors files, one or several shards, memory-mapped. The header is parsed and checked by the
//! `safetensors` crate; this file finds shards, keeps bytes and says clearly what is wrong.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};

use ounce_kernels::DType;
use safetensors::{SafeTensorError, SafeTensors};

use crate::storage::Bytes;
use crate::weights::{Tensor, TensorSource, bytes_of};
use crate::{Error, Result};

/// Where a tensor lies.
#[derive(Debug, Clone)]
struct Entry {
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
}

/// The tensors of one file, or of all shards of a model.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    order: Vec<String>,
    tensors: HashMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

impl SafetensorsFile {
    /// Maps a file and checks its header.
    ///
    /// # Errors
    /// If it can't be opened or its header is damaged.
    pub fn open(path: &Path) -> Result<SafetensorsFile> {
        SafetensorsFile::parse(Bytes::map(path)?, path)
    }

    /// Checks the header of a file's bytes; `path` is used in messages.
    ///
    /// # Errors
    /// If the header is damaged, or a tensor's shape does not fit its bytes.
    pub fn parse(bytes: Bytes, path: &Path) -> Result<SafetensorsFile> {
        let (header, metadata) = SafeTensors::read_metadata(&bytes)
            .map_err(|error| Error::format(path, explain(&error, bytes.len())))?;
        let start = header + 8;
        let mut file = SafetensorsFile {
            path: path.to_path_buf(),
            order: Vec::new(),
            tensors: HashMap::new(),
            metadata: BTreeMap::new(),
        };
        if let Some(pairs) = metadata.metadata() {
            file.metadata.extend(pairs.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        for name in metadata.offset_keys() {
            let Some(info) = metadata.info(&name) else { continue };
            let stored = info.dtype.to_string();
            let Some(dtype) = DType::from_safetensors_name(&stored) else {
                let what =
                    format!("has the type {stored}, which ounce does not read; convert it to F16 or BF16");
                return Err(Error::tensor(path, name, what));
            };
            let (from, to) = info.data_offsets;
            let range =
                start.checked_add(from).zip(start.checked_add(to)).filter(|range| range.1 <= bytes.len());
            let fits = bytes_of(dtype, &info.shape) == to.checked_sub(from);
            let Some((from, to)) = range.filter(|_| fits) else {
                let what = format!(
                    "its shape {:?} does not fit its bytes {from}..{to}; fetch the file again",
                    info.shape
                );
                return Err(Error::tensor(path, name, what));
            };
            let entry = Entry { dtype, shape: info.shape.clone(), data: bytes.slice(from..to) };
            file.order.push(name.clone());
            file.tensors.insert(name, entry);
        }
        Ok(file)
    }

    /// Opens the weights of a model folder: `model.safetensors`, or the shards that
    /// `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// If there are none, a shard is missing, or index and shards contradict each other.
    pub fn open_folder(folder: &Path) -> Result<SafetensorsFile> {
        let index = folder.join("model.safetensors.index.json");
        if index.is_file() {
            return SafetensorsFile::open_shards(folder, &index);
        }
        let single = folder.join("model.safetensors");
        if single.is_file() {
            return SafetensorsFile::open(&single);
        }
        let pickle =
            ["pytorch_model.bin", "pytorch_model.bin.index.json"].iter().any(|it| folder.join(it).is_file());
        Err(Error::format(
            folder,
            if pickle {
                "has only pickle weights (pytorch_model.bin), which run code when loaded and are refused; \
                 save the model as safetensors with transformers' save_pretrained"
            } else {
                "has no model.safetensors and no model.safetensors.index.json; fetch the weights with ounce pull"
            },
        ))
    }

    fn open_shards(folder: &Path, index: &Path) -> Result<SafetensorsFile> {
        let text = std::fs::read(index).map_err(Error::io(index))?;
        let value: serde_json::Value = serde_json::from_slice(&text)
            .map_err(|error| Error::format(index, format!("is no valid JSON ({error}); fetch it again")))?;
        let map = value.get("weight_map").and_then(serde_json::Value::as_object);
        let map = map.ok_or_else(|| Error::format(index, "has no weight_map object; fetch it again"))?;
        let mut wanted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, shard) in map {
            let shard = shard.as_str().filter(|shard| is_plain_name(shard)).ok_or_else(|| {
                Error::tensor(
                    index,
                    tensor.as_str(),
                    format!("its shard {shard} is no file name in the same folder"),
                )
            })?;
            wanted.entry(shard).or_default().push(tensor);
        }
        let mut all = SafetensorsFile {
            path: folder.to_path_buf(),
            order: Vec::new(),
            tensors: HashMap::new(),
            metadata: BTreeMap::new(),
        };
        for (shard, tensors) in wanted {
            let path = folder.join(shard);
            if !path.is_file() {
                let what =
                    format!("is listed in {} but missing; the download is incomplete", index.display());
                return Err(Error::format(path, what));
            }
            let file = SafetensorsFile::open(&path)?;
            if let Some(missing) = tensors.iter().find(|tensor| !file.tensors.contains_key(**tensor)) {
                return Err(Error::tensor(path, *missing, "is listed in the index but not in this shard"));
            }
            if let Some(extra) =
                file.order.iter().find(|name| map.get(*name).and_then(|it| it.as_str()) != Some(shard))
            {
                return Err(Error::tensor(
                    path,
                    extra.as_str(),
                    "is in this shard but the index does not list it there",
                ));
            }
            all.order.extend(file.order);
            all.tensors.extend(file.tensors);
            all.metadata.extend(file.metadata);
        }
        Ok(all)
    }

    /// The header's `__metadata__` pairs.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

/// Whether an index's shard is a plain file name: no path may lead out of the model's folder.
fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
}

/// One sentence for each way a header can be wrong.
fn explain(error: &SafeTensorError, size: usize) -> String {
    let what = match error {
        SafeTensorError::HeaderTooSmall => {
            format!("is only {size} bytes long, too short for a safetensors file")
        }
        SafeTensorError::HeaderTooLarge => "its header claims to be larger than 100 MB".to_string(),
        SafeTensorError::InvalidHeaderLength => format!("its header is longer than the file of {size} bytes"),
        SafeTensorError::InvalidHeader(_) => "its header is not text in UTF-8".to_string(),
        SafeTensorError::InvalidHeaderDeserialization(error) => {
            format!("its header can't be parsed ({error})")
        }
        SafeTensorError::InvalidOffset(tensor) => {
            format!("the bytes of tensor {tensor} overlap another's, leave a hole or lie outside the file")
        }
        SafeTensorError::TensorInvalidInfo => {
            "a tensor's shape and byte range contradict each other".to_string()
        }
        SafeTensorError::MetadataIncompleteBuffer => "the tensors do not end where the file does".to_string(),
        SafeTensorError::ValidationOverflow => {
            "a tensor's shape multiplies to more than 2^64 values".to_string()
        }
        other => format!("is no valid safetensors file ({other})"),
    };
    format!("{what}; the file is damaged or incomplete, fetch it again")
}

impl TensorSource for SafetensorsFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<&str> {
        self.order.iter().map(String::as_str).collect()
    }

    fn info(&self, name: &str) -> Option<(DType, &[usize])> {
        self.tensors.get(name).map(|entry| (entry.dtype, entry.shape.as_slice()))
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        let entry = self.tensors.get(name).ok_or_else(|| Error::tensor(&self.path, name, "is missing"))?;
        Ok(Tensor { dtype: entry.dtype, shape: entry.shape.clone(), data: entry.data.clone() })
    }
}
