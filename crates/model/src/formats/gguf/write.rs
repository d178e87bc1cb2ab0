//! Writing a GGUF file, version 3: first what will be in it, then the tensors' bytes one after another.
//!
//! [`GgufHeader`] declares metadata and tensors and knows the file's size; [`GgufWriter`] checks it, writes it and
//! takes the data in the declared order, in pieces of any size, so that no more than a piece is in memory. The file
//! appears under its name when everything was written ([`GgufWriter::finish`]); dropped before, it leaves nothing.
//! Limits that only ggml has (names below 64 bytes) are kept, because ggml is to read the files.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use ounce_kernels::DType;

use super::value::{Array, Value};
use super::{MAX_DIMENSIONS, MAX_NESTING, Metadata, read};
use crate::storage::AtomicFile;
use crate::{Error, Result};

/// Longest key that the format allows, in bytes.
const MAX_KEY_BYTES: usize = 65_535;
/// Longest tensor name that ggml reads, in bytes.
const MAX_NAME_BYTES: usize = 63;

/// What a file will hold: metadata in order, then tensors in order.
#[derive(Debug, Clone, Default)]
pub struct GgufHeader {
    metadata: Metadata,
    tensors: Vec<Declared>,
}

#[derive(Debug, Clone)]
struct Declared {
    name: String,
    dtype: DType,
    /// Row-major.
    shape: Vec<usize>,
}

impl GgufHeader {
    /// Nothing yet.
    pub fn new() -> GgufHeader {
        GgufHeader::default()
    }

    /// Sets a metadata key: a new one goes to the end, a known one keeps its place. `general.alignment` (a power of
    /// two, 32 if absent) takes effect.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.metadata.insert(key, value);
    }

    /// Declares the next tensor. `shape` is row-major, its last dimension a whole number of blocks of `dtype`.
    pub fn tensor(&mut self, name: impl Into<String>, dtype: DType, shape: &[usize]) {
        self.tensors.push(Declared { name: name.into(), dtype, shape: shape.to_vec() });
    }

    /// The size of the finished file in bytes.
    ///
    /// # Errors
    /// What [`GgufWriter::create`] would find wrong with the header.
    pub fn file_bytes(&self) -> Result<u64> {
        self.layout(Path::new("GGUF header")).map(|layout| layout.file_bytes)
    }

    /// Checks everything and works out the bytes of the header and the place of every tensor.
    fn layout(&self, path: &Path) -> Result<Layout> {
        for (key, value) in self.metadata.iter() {
            let wrong = |what: String| Err(Error::format(path, format!("metadata key {key:?} {what}")));
            if key.is_empty() || key.len() > MAX_KEY_BYTES {
                return wrong(format!("has {} bytes; 1 to {MAX_KEY_BYTES} are possible", key.len()));
            }
            if nesting(value) > MAX_NESTING {
                return wrong(format!("is nested deeper than {MAX_NESTING} levels"));
            }
        }
        let alignment = read::alignment(&self.metadata, path)?;

        let mut header = b"GGUF".to_vec();
        put(&mut header, &3u32.to_le_bytes());
        put(&mut header, &(self.tensors.len() as u64).to_le_bytes());
        put(&mut header, &(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in self.metadata.iter() {
            put_string(&mut header, key);
            put_value(&mut header, value);
        }
        let mut names = HashSet::new();
        let mut sizes = Vec::with_capacity(self.tensors.len());
        let mut offset = 0u64;
        for tensor in &self.tensors {
            let wrong = |what: String| Error::tensor(path, &tensor.name, what);
            if !names.insert(&tensor.name) {
                return Err(wrong("is declared twice".to_owned()));
            }
            let (type_id, bytes) = tensor.check().map_err(wrong)?;
            put_string(&mut header, &tensor.name);
            put(&mut header, &(tensor.shape.len() as u32).to_le_bytes());
            for size in tensor.shape.iter().rev() {
                put(&mut header, &(*size as u64).to_le_bytes());
            }
            put(&mut header, &type_id.to_le_bytes());
            put(&mut header, &offset.to_le_bytes());
            offset = offset
                .checked_add(bytes)
                .and_then(|end| end.checked_next_multiple_of(alignment))
                .ok_or_else(|| wrong("makes the file too large".to_owned()))?;
            sizes.push(bytes);
        }
        pad(&mut header, alignment);
        let file_bytes = (header.len() as u64)
            .checked_add(offset)
            .ok_or_else(|| Error::format(path, "would be too large for a file".to_owned()))?;
        Ok(Layout { header, sizes, alignment, file_bytes })
    }
}

impl Declared {
    /// The type's number and the data's size in bytes.
    fn check(&self) -> Result<(u32, u64), String> {
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES {
            return Err(format!(
                "its name has {} bytes; 1 to {MAX_NAME_BYTES} are possible",
                self.name.len()
            ));
        }
        if self.shape.len() > MAX_DIMENSIONS {
            return Err(format!("has {} dimensions, more than {MAX_DIMENSIONS}", self.shape.len()));
        }
        let dtype = self.dtype;
        let type_id = dtype.ggml_id().ok_or(format!("GGUF has no type {dtype}; write it as BF16 or F16"))?;
        let row = self.shape.last().copied().unwrap_or(1);
        if row % dtype.block_len() != 0 {
            let block = dtype.block_len();
            return Err(format!("rows of {row} values are no whole number of {dtype} blocks of {block}"));
        }
        let values = self.shape.iter().try_fold(1usize, |values, &size| values.checked_mul(size));
        let bytes = values.and_then(|values| dtype.bytes_for(values)).and_then(|bytes| bytes.try_into().ok());
        Ok((type_id, bytes.ok_or(format!("its shape {:?} is too large", self.shape))?))
    }
}

/// A checked header.
struct Layout {
    /// Everything before the data, padding included.
    header: Vec<u8>,
    /// Bytes of each tensor, without padding.
    sizes: Vec<u64>,
    alignment: u64,
    file_bytes: u64,
}

/// A file being written.
pub struct GgufWriter {
    file: AtomicFile,
    names: Vec<String>,
    layout: Layout,
    /// The tensor that the next bytes belong to, and how many it still lacks.
    current: usize,
    lacking: u64,
}

impl GgufWriter {
    /// Checks the header and writes it to a temporary file beside `path`.
    ///
    /// # Errors
    /// [`Error::Format`] or [`Error::Tensor`] for a header that no reader would accept: a key or name too long or
    /// twice, a type that GGUF does not have, rows that are no whole number of blocks. [`Error::Io`] if the file
    /// can't be written.
    pub fn create(path: impl AsRef<Path>, header: &GgufHeader) -> Result<GgufWriter> {
        let path = path.as_ref();
        let layout = header.layout(path)?;
        let mut file = AtomicFile::create(path)?;
        file.write_all(&layout.header).map_err(Error::io(path))?;
        let names = header.tensors.iter().map(|tensor| tensor.name.clone()).collect();
        let lacking = layout.sizes.first().copied().unwrap_or(0);
        let mut writer = GgufWriter { file, names, layout, current: 0, lacking };
        writer.skip_complete()?;
        Ok(writer)
    }

    /// Writes the next bytes of tensor `name`: all of them, or a piece; further pieces follow in further calls.
    /// Tensors come in the order in which they were declared; those without values need no call.
    ///
    /// # Errors
    /// [`Error::Tensor`] if another tensor is due or the tensor gets more bytes than declared, [`Error::Io`] if
    /// writing fails. After an error the file can't be finished any more.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let wrong = |what: String| Err(Error::tensor(self.file.path(), name, what));
        match self.names.get(self.current) {
            Some(due) if due == name => {}
            Some(due) => return wrong(format!("was written out of order; tensor {due} is due")),
            None => return wrong("was written after the last tensor".to_owned()),
        }
        let Some(lacking) = self.lacking.checked_sub(bytes.len() as u64) else {
            let (lacking, size) = (self.lacking, self.layout.sizes[self.current]);
            return wrong(format!("got {} bytes where {lacking} of {size} were due", bytes.len()));
        };
        self.file.write_all(bytes).map_err(Error::io(self.file.path()))?;
        self.lacking = lacking;
        self.skip_complete()
    }

    /// Pads complete tensors and moves on to the next one that lacks bytes.
    fn skip_complete(&mut self) -> Result<()> {
        while self.lacking == 0 && self.current < self.names.len() {
            let size = self.layout.sizes[self.current];
            let padding = (size.next_multiple_of(self.layout.alignment) - size) as usize;
            self.file.write_all(&vec![0; padding]).map_err(Error::io(self.file.path()))?;
            self.current += 1;
            self.lacking = self.layout.sizes.get(self.current).copied().unwrap_or(0);
        }
        Ok(())
    }

    /// Gives the complete file its name, replacing an older one. Returns its size in bytes.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor lacks bytes, [`Error::Io`] if writing or renaming fails; nothing is left then.
    pub fn finish(self) -> Result<u64> {
        if let Some(name) = self.names.get(self.current) {
            let what = format!("lacks {} of {} bytes", self.lacking, self.layout.sizes[self.current]);
            return Err(Error::tensor(self.file.path(), name, what));
        }
        self.file.commit()?;
        Ok(self.layout.file_bytes)
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
}

fn pad(out: &mut Vec<u8>, alignment: u64) {
    // Fits: alignments are 32-bit numbers.
    out.resize(out.len().next_multiple_of(alignment as usize), 0);
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    put(out, &(text.len() as u64).to_le_bytes());
    put(out, text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    put(out, &value.kind().id().to_le_bytes());
    match value {
        Value::U8(x) => put(out, &x.to_le_bytes()),
        Value::I8(x) => put(out, &x.to_le_bytes()),
        Value::U16(x) => put(out, &x.to_le_bytes()),
        Value::I16(x) => put(out, &x.to_le_bytes()),
        Value::U32(x) => put(out, &x.to_le_bytes()),
        Value::I32(x) => put(out, &x.to_le_bytes()),
        Value::F32(x) => put(out, &x.to_le_bytes()),
        Value::Bool(x) => put(out, &[u8::from(*x)]),
        Value::String(x) => put_string(out, x),
        Value::Array(x) => put_array(out, x),
        Value::U64(x) => put(out, &x.to_le_bytes()),
        Value::I64(x) => put(out, &x.to_le_bytes()),
        Value::F64(x) => put(out, &x.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    put(out, &array.kind().id().to_le_bytes());
    put(out, &(array.len() as u64).to_le_bytes());
    match array {
        Array::U8(items) => put(out, items),
        Array::I8(items) => items.iter().for_each(|x| put(out, &x.to_le_bytes())),
        Array::U16(items) => items.iter().for_each(|x| put(out, &x.to_le_bytes())),
        Array::I16(items) => items.iter().for_each(|x| put(out, &x.to_le_bytes())),
        Array::U32(items) => items.iter().for_each(|x| put(out, &x.to_le_bytes())),
        Array::I32(items) => items.iter().for_each(|x| put(out, &x.to_le_bytes())),
        Array::F32(items) => items.iter().for_each(|x| put(out, &x.to_le_bytes())),
        Array::Bool(items) => items.iter().for_each(|x| put(out, &[u8::from(*x)])),
        Array::String(items) => items.iter().for_each(|x| put_string(out, x)),
        Array::Nested(items) => items.iter().for_each(|x| put_array(out, x)),
        Array::U64(items) => items.iter().for_each(|x| put(out, &x.to_le_bytes())),
        Array::I64(items) => items.iter().for_each(|x| put(out, &x.to_le_bytes())),
        Array::F64(items) => items.iter().for_each(|x| put(out, &x.to_le_bytes())),
    }
}

/// Levels of arrays in a value: 0 for a single value, 1 for a plain array.
fn nesting(value: &Value) -> usize {
    fn of(array: &Array) -> usize {
        match array {
            Array::Nested(items) => 1 + items.iter().map(of).max().unwrap_or(1),
            _ => 1,
        }
    }
    match value {
        Value::Array(array) => of(array),
        _ => 0,
    }
}
