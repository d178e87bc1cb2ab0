//! The format on GGUF: two F32 tensors an entry, `NAME.in_sum2` and `NAME.counts`, and three keys.

use std::collections::BTreeMap;
use std::path::Path;

use ounce_kernels::DType;

use super::{Entry, Imatrix, floats};
use crate::formats::gguf::{GgufFile, GgufHeader, GgufWriter, Tensor};
use crate::storage::Bytes;
use crate::{Error, Result};

const TYPE_KEY: &str = "general.type";
const TYPE: &str = "imatrix";
const DATASETS_KEY: &str = "imatrix.datasets";
const CHUNK_COUNT_KEY: &str = "imatrix.chunk_count";
const CHUNK_SIZE_KEY: &str = "imatrix.chunk_size";
const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// Reads a file's bytes. Tensors of other names are left alone, as llama.cpp does.
pub(super) fn read(bytes: Bytes, path: &Path) -> Result<Imatrix> {
    let file = GgufFile::parse(bytes, path)?;
    let none = || Error::format(path, "is no importance matrix; make one with llama-imatrix");
    if file.get::<&str>(TYPE_KEY)?.is_some_and(|kind| kind != TYPE) {
        return Err(none());
    }
    let mut pairs: BTreeMap<&str, [Option<&Tensor>; 2]> = BTreeMap::new();
    for tensor in file.tensors() {
        for (place, suffix) in [SUMS, COUNTS].into_iter().enumerate() {
            if let Some(name) = tensor.name.strip_suffix(suffix) {
                pairs.entry(name).or_default()[place] = Some(tensor);
            }
        }
    }
    if pairs.is_empty() {
        return Err(none());
    }
    let mut imatrix = Imatrix {
        datasets: file.get::<&[String]>(DATASETS_KEY)?.unwrap_or_default().to_vec(),
        chunk_count: file.get(CHUNK_COUNT_KEY)?.unwrap_or(0),
        chunk_size: file.get(CHUNK_SIZE_KEY)?.unwrap_or(0),
        entries: BTreeMap::new(),
    };
    for (name, pair) in pairs {
        let wrong = |what: String| Error::tensor(path, name, format!("{what}; make the file again"));
        let [Some(sums), Some(counts)] = pair else {
            return Err(wrong(format!("has only one of {SUMS} and {COUNTS}")));
        };
        if let Some(other) = [sums, counts].into_iter().find(|tensor| tensor.dtype != DType::F32) {
            return Err(wrong(format!("is stored as {}, but should be F32", other.dtype)));
        }
        let entry = Entry::new(floats(&sums.data), floats(&counts.data)).map_err(wrong)?;
        imatrix.add(path, name.to_string(), entry)?;
    }
    Ok(imatrix)
}

/// Writes a file; keys, tensors and shapes in llama.cpp's order.
pub(super) fn write(imatrix: &Imatrix, path: &Path) -> Result<u64> {
    if imatrix.entries.is_empty() {
        return Err(Error::format(path, "would hold no entries; run some text through the model first"));
    }
    let mut header = GgufHeader::new();
    header.set(TYPE_KEY, TYPE);
    header.set(DATASETS_KEY, imatrix.datasets.clone());
    header.set(CHUNK_COUNT_KEY, imatrix.chunk_count);
    header.set(CHUNK_SIZE_KEY, imatrix.chunk_size);
    for (name, entry) in &imatrix.entries {
        let Entry { in_sum2, counts, width } = entry;
        if *width == 0 || counts.is_empty() || Some(in_sum2.len()) != width.checked_mul(counts.len()) {
            let what =
                format!("has {} sums for {} counts and a width of {width}", in_sum2.len(), counts.len());
            return Err(Error::tensor(path, name, what));
        }
        // ggml leaves out a slowest dimension of 1.
        let shape = |width: usize| if counts.len() == 1 { vec![width] } else { vec![counts.len(), width] };
        header.tensor(format!("{name}{SUMS}"), DType::F32, &shape(*width));
        header.tensor(format!("{name}{COUNTS}"), DType::F32, &shape(1));
    }
    let mut writer = GgufWriter::create(path, &header)?;
    for (name, Entry { in_sum2, counts, .. }) in &imatrix.entries {
        writer.write(&format!("{name}{SUMS}"), &bytes_of(in_sum2))?;
        writer.write(&format!("{name}{COUNTS}"), &bytes_of(counts))?;
    }
    writer.finish()
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
