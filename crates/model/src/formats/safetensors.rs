//! safetensors files, one or several shards, memory-mapped. The header is parsed and checked by the
//! `safetensors` crate; this file finds shards, refuses names listed twice, keeps bytes and says clearly what is
//! wrong with which tensor.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use ounce_kernels::DType;
use safetensors::tensor::TensorInfo;
use safetensors::{SafeTensorError, SafeTensors};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::hf::files::{MAX_INDEX_BYTES, is_plain_name, read};
use crate::storage::Bytes;
use crate::weights::{Tensor, TensorSource, bytes_of, values_of};
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
        if bytes.starts_with(b"version https://git-lfs") {
            let what = "is a Git LFS pointer, not the weights; run git lfs pull in its folder";
            return Err(Error::format(path, what));
        }
        if let Some(name) = header_text(&bytes).and_then(first_duplicate) {
            return Err(Error::tensor(path, name, "is listed twice in the header; fetch the file again"));
        }
        let (header, metadata) =
            SafeTensors::read_metadata(&bytes).map_err(|error| explain(&error, &bytes, path))?;
        let start = header + 8;
        let mut file = SafetensorsFile::empty(path);
        if let Some(pairs) = metadata.metadata() {
            file.metadata.extend(pairs.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        for name in metadata.offset_keys() {
            let Some(info) = metadata.info(&name) else { continue };
            let entry =
                entry(info, start, &bytes).map_err(|what| Error::tensor(path, name.as_str(), what))?;
            file.order.push(name.clone());
            file.tensors.insert(name, entry);
        }
        Ok(file)
    }

    fn empty(path: &Path) -> SafetensorsFile {
        SafetensorsFile {
            path: path.to_path_buf(),
            order: Vec::new(),
            tensors: HashMap::new(),
            metadata: BTreeMap::new(),
        }
    }

    /// Opens the weights of a model folder: `model.safetensors` or, where there is none, the shards that
    /// `model.safetensors.index.json` lists (the order of transformers, if a folder has both).
    ///
    /// # Errors
    /// If there are none, a shard is missing, or index and shards contradict each other.
    pub fn open_folder(folder: &Path) -> Result<SafetensorsFile> {
        let single = folder.join("model.safetensors");
        if single.is_file() {
            return SafetensorsFile::open(&single);
        }
        let index = folder.join("model.safetensors.index.json");
        if let Some(text) = read(&index, MAX_INDEX_BYTES)? {
            return SafetensorsFile::open_shards(folder, &index, &text);
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

    fn open_shards(folder: &Path, index: &Path, text: &[u8]) -> Result<SafetensorsFile> {
        let value: serde_json::Value = serde_json::from_slice(text)
            .map_err(|error| Error::format(index, format!("is no valid JSON ({error}); fetch it again")))?;
        let map = value.get("weight_map").and_then(serde_json::Value::as_object);
        let map = map.ok_or_else(|| Error::format(index, "has no weight_map object; fetch it again"))?;
        let mut wanted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, shard) in map {
            let shard = shard.as_str().filter(|shard| is_plain_name(shard)).ok_or_else(|| {
                Error::tensor(
                    index,
                    tensor.as_str(),
                    format!("its shard {shard} is no file name in the same folder; fetch the index again"),
                )
            })?;
            wanted.entry(shard).or_default().push(tensor);
        }
        let mut all = SafetensorsFile::empty(folder);
        for (shard, tensors) in wanted {
            let path = folder.join(shard);
            if !path.is_file() {
                let what = format!(
                    "is listed in {} but is no file here; the download is incomplete, fetch it",
                    index.display()
                );
                return Err(Error::format(path, what));
            }
            let file = SafetensorsFile::open(&path)?;
            if let Some(missing) = tensors.iter().find(|tensor| !file.tensors.contains_key(**tensor)) {
                return Err(Error::tensor(
                    path,
                    *missing,
                    "is listed in the index but not in this shard; index and shards belong to different \
                     versions, fetch all of them again",
                ));
            }
            if let Some(extra) =
                file.order.iter().find(|name| map.get(*name).and_then(|it| it.as_str()) != Some(shard))
            {
                return Err(Error::tensor(
                    path,
                    extra.as_str(),
                    "is in this shard but the index does not list it there; index and shards belong to different \
                     versions, fetch all of them again",
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

/// Checks one entry of a header whose data begins at byte `start`.
fn entry(info: &TensorInfo, start: usize, bytes: &Bytes) -> Result<Entry, String> {
    let stored = info.dtype.to_string();
    let dtype = DType::from_safetensors_name(&stored).ok_or_else(|| {
        format!("has the type {stored}, which ounce does not read; convert it to F16 or BF16")
    })?;
    // A zero among the sizes would hide that the others overflow.
    let sizes: Vec<usize> = info.shape.iter().copied().filter(|&size| size != 0).collect();
    let (from, to) = info.data_offsets;
    let data = (start.checked_add(from).zip(start.checked_add(to)))
        .filter(|_| values_of(&sizes).is_some() && bytes_of(dtype, &info.shape) == to.checked_sub(from))
        .and_then(|(from, to)| bytes.try_slice(from..to));
    match data {
        Some(data) => Ok(Entry { dtype, shape: info.shape.clone(), data }),
        None => Err(format!("its shape {} does not fit its bytes {from}..{to}; {AGAIN}", brief(&info.shape))),
    }
}

/// What to do about damage.
const AGAIN: &str = "the file is damaged or incomplete, fetch it again";

/// A shape for a message, cut short if it is absurdly long.
fn brief(shape: &[usize]) -> String {
    if shape.len() <= 8 { format!("{shape:?}") } else { format!("of {} dimensions", shape.len()) }
}

/// The JSON text of a header, as far as its length can be believed.
fn header_text(bytes: &[u8]) -> Option<&[u8]> {
    let length = bytes.first_chunk::<8>().map(|length| u64::from_le_bytes(*length))?;
    bytes[8..].get(..usize::try_from(length).ok()?)
}

/// The first name that a header lists twice: parsers keep the last entry without a word, and another tool might
/// keep the first.
fn first_duplicate(text: &[u8]) -> Option<String> {
    struct Duplicate(Option<String>);
    impl<'de> Deserialize<'de> for Duplicate {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Duplicate, D::Error> {
            deserializer.deserialize_map(Names)
        }
    }
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = Duplicate;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Duplicate, A::Error> {
            let (mut seen, mut duplicate) = (HashSet::new(), None);
            while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                if let Some(name) = seen.replace(name) {
                    duplicate.get_or_insert(name);
                }
            }
            Ok(Duplicate(duplicate))
        }
    }
    serde_json::from_slice::<Duplicate>(text).ok()?.0
}

/// One sentence for each way a header can be wrong.
fn explain(error: &SafeTensorError, bytes: &[u8], path: &Path) -> Error {
    let size = bytes.len();
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
            let what = "its bytes overlap another's, leave a hole or lie outside the file";
            return Error::tensor(path, tensor.as_str(), format!("{what}; {AGAIN}"));
        }
        SafeTensorError::TensorInvalidInfo
        | SafeTensorError::ValidationOverflow
        | SafeTensorError::MisalignedSlice => {
            if let Some((name, info)) = header_text(bytes).and_then(first_misfit) {
                let (from, to) = info.data_offsets;
                let what = format!(
                    "its shape {} of {} does not fit its bytes {from}..{to}",
                    brief(&info.shape),
                    info.dtype
                );
                return Error::tensor(path, name, format!("{what}; {AGAIN}"));
            }
            "a tensor's shape and byte range contradict each other".to_string()
        }
        SafeTensorError::MetadataIncompleteBuffer => "the tensors do not end where the file does".to_string(),
        other => format!("is no valid safetensors file ({other})"),
    };
    Error::format(path, format!("{what}; {AGAIN}"))
}

/// The first tensor of a header whose shape does not fit its bytes.
fn first_misfit(text: &[u8]) -> Option<(String, TensorInfo)> {
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text).ok()?;
    header.into_iter().find_map(|(name, info)| {
        let info: TensorInfo = serde_json::from_value(info).ok()?;
        let bits = values_of(&info.shape).and_then(|values| values.checked_mul(info.dtype.bitsize()));
        let found = info.data_offsets.1.checked_sub(info.data_offsets.0).and_then(|it| it.checked_mul(8));
        (bits.is_none() || bits != found).then_some((name, info))
    })
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
