//! Reading the header of one GGUF file: everything is checked against the file's size before memory is taken for it.
//!
//! Bytes go in, a [`Part`] comes out; tensor data is only located. Memory stays within a small multiple of the
//! header's size in the file, whatever the counts in it claim.

use std::fmt::Display;
use std::path::Path;

use ounce_kernels::DType;

use super::value::{Array, Kind, Value};
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAX_DIMENSIONS, MAX_NESTING, Metadata, Tensor, taken};
use crate::storage::Bytes;
use crate::{Error, Result};

/// What one file holds.
pub(super) struct Part {
    pub version: u32,
    pub metadata: Metadata,
    pub tensors: Vec<Tensor>,
}

/// Reads and checks the header of a file; `path` is for messages.
pub(super) fn parse(bytes: Bytes, path: &Path) -> Result<Part> {
    let mut cursor = Cursor { bytes: &bytes, at: 0, path };
    let version = cursor.version()?;
    let tensor_count = cursor.u64(&"the tensor count")?;
    let key_count = cursor.u64(&"the metadata count")?;

    // Key length, value kind and one byte of value.
    cursor.check_count(key_count, 8 + 4 + 1, &"metadata keys")?;
    let mut metadata = Metadata::default();
    for number in 0..key_count {
        let key = cursor.string(&format_args!("the name of metadata key {number}"))?;
        if key.is_empty() {
            return Err(cursor.damaged(format!("metadata key {number} has no name")));
        }
        if metadata.get(&key).is_some() {
            return Err(cursor.damaged(format!("metadata key {key} occurs twice")));
        }
        let value = cursor.value(&format_args!("metadata key {key}"))?;
        metadata.insert(key, value);
    }
    let alignment = alignment(&metadata, path)?;

    // Name length, number of dimensions, type and offset.
    cursor.check_count(tensor_count, 8 + 4 + 4 + 8, &"tensors")?;
    let infos = (0..tensor_count).map(|number| cursor.tensor_info(number)).collect::<Result<Vec<Info>>>()?;
    let data_start = (cursor.at as u64).next_multiple_of(alignment);
    let tensors = locate(infos, &bytes, data_start, alignment, path)?;
    Ok(Part { version, metadata, tensors })
}

/// The alignment that the metadata asks for.
pub(super) fn alignment(metadata: &Metadata, path: &Path) -> Result<u64> {
    let Some(value) = metadata.get(ALIGNMENT_KEY) else { return Ok(DEFAULT_ALIGNMENT) };
    let alignment: u32 = taken(value, ALIGNMENT_KEY, path)?;
    if !alignment.is_power_of_two() {
        let what = format!("metadata key {ALIGNMENT_KEY} is {alignment}, which is no power of two");
        return Err(Error::format(path, what));
    }
    Ok(alignment.into())
}

/// A tensor as the header declares it.
struct Info {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    bytes: usize,
    offset: u64,
}

/// Checks the places of all tensors and cuts their bytes out of the file.
fn locate(infos: Vec<Info>, bytes: &Bytes, start: u64, alignment: u64, path: &Path) -> Result<Vec<Tensor>> {
    let mut by_offset: Vec<&Info> = infos.iter().filter(|info| info.bytes > 0).collect();
    by_offset.sort_by_key(|info| info.offset);
    for pair in by_offset.windows(2) {
        // No overflow: the sum is compared in more bits than the file can have.
        if u128::from(pair[0].offset) + pair[0].bytes as u128 > u128::from(pair[1].offset) {
            let what = format!("its data overlaps that of tensor {}; the file is damaged", pair[0].name);
            return Err(Error::tensor(path, &pair[1].name, what));
        }
    }
    let mut tensors = Vec::with_capacity(infos.len());
    for info in infos {
        if info.offset % alignment != 0 {
            let what = format!("offset {} is no multiple of the alignment {alignment}", info.offset);
            return Err(Error::tensor(path, info.name, what));
        }
        let range = start
            .checked_add(info.offset)
            .and_then(|begin| usize::try_from(begin).ok())
            .and_then(|begin| Some(begin..begin.checked_add(info.bytes)?));
        // An empty tensor at the end of a file that leaves out the last padding has a place all the same.
        let data = if info.bytes == 0 { Some(bytes.slice(0..0)) } else { None };
        let Some(data) = data.or_else(|| bytes.try_slice(range?)) else {
            let what = format!(
                "needs {} bytes at offset {} of the data, which starts at byte {start}, but the file has {} bytes; \
                 it is cut off, fetch it again",
                info.bytes,
                info.offset,
                bytes.len()
            );
            return Err(Error::tensor(path, info.name, what));
        };
        tensors.push(Tensor { name: info.name, dtype: info.dtype, shape: info.shape, data });
    }
    Ok(tensors)
}

/// A place in the header.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    path: &'a Path,
}

impl<'a> Cursor<'a> {
    fn damaged(&self, what: impl Display) -> Error {
        Error::format(self.path, format!("{what} (before byte {}); the file is damaged", self.at))
    }

    fn remaining(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The next `count` bytes.
    fn take(&mut self, count: u64, what: &dyn Display) -> Result<&'a [u8]> {
        if count > self.remaining() {
            let message = format!(
                "{what} needs {count} bytes at byte {}, but the file has only {} more; \
                 it is cut off or damaged, fetch it again",
                self.at,
                self.remaining()
            );
            return Err(Error::format(self.path, message));
        }
        // Fits: the count is at most what remains of a slice.
        let taken = &self.bytes[self.at..self.at + count as usize];
        self.at += count as usize;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &dyn Display) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &dyn Display) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &dyn Display) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Refuses a count of things that the rest of the file has no room for.
    fn check_count(&self, count: u64, least_bytes: u64, what: &dyn Display) -> Result<()> {
        if count > self.remaining() / least_bytes {
            return Err(self.damaged(format!("the file has no room for {count} {what}")));
        }
        Ok(())
    }

    fn version(&mut self) -> Result<u32> {
        let path = self.path;
        let unusable = |what: String| Err(Error::format(path, what));
        let magic: [u8; 4] = match self.bytes.first_chunk() {
            Some(magic) => *magic,
            None => return unusable(format!("is no GGUF file: it has only {} bytes", self.bytes.len())),
        };
        match &magic {
            b"GGUF" => {}
            b"ggml" | b"lmgg" | b"fmgg" | b"ggmf" | b"tjgg" | b"ggjt" | b"algg" | b"ggla" => {
                let what = "is a GGML file from before GGUF, which is not supported; \
                            convert the original model again with a current tool";
                return unusable(what.to_owned());
            }
            _ => {
                let what = format!("is no GGUF file: it starts with {:?}", magic.escape_ascii().to_string());
                return unusable(what);
            }
        }
        self.at = 4;
        let version = self.u32(&"the version")?;
        match version {
            2 | 3 => Ok(version),
            1 => unusable(
                "is GGUF version 1, whose lengths have 32 bits, which is not supported; \
                 convert the original model again with a current tool"
                    .to_owned(),
            ),
            _ if matches!(version.swap_bytes(), 1..=3) => unusable(
                "is a big-endian GGUF file, which is not supported; \
                 convert it with `gguf-convert-endian FILE little` of the gguf Python package"
                    .to_owned(),
            ),
            _ => unusable(format!("is GGUF version {version}; only versions 2 and 3 are known")),
        }
    }

    fn string(&mut self, what: &dyn Display) -> Result<String> {
        let length = self.u64(what)?;
        let bytes = self.take(length, what)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(self.damaged(format!("{what} is not UTF-8: {error}"))),
        }
    }

    fn bool(&mut self, what: &dyn Display) -> Result<bool> {
        let [byte] = self.array(what)?;
        match byte {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.damaged(format!("{what} should be true (1) or false (0) but is {byte}"))),
        }
    }

    fn kind(&mut self, what: &dyn Display) -> Result<Kind> {
        let id = self.u32(what)?;
        Kind::from_id(id).ok_or_else(|| self.damaged(format!("{what} is of the unknown kind {id}")))
    }

    fn value(&mut self, what: &dyn Display) -> Result<Value> {
        Ok(match self.kind(what)? {
            Kind::U8 => Value::U8(u8::from_le_bytes(self.array(what)?)),
            Kind::I8 => Value::I8(i8::from_le_bytes(self.array(what)?)),
            Kind::U16 => Value::U16(u16::from_le_bytes(self.array(what)?)),
            Kind::I16 => Value::I16(i16::from_le_bytes(self.array(what)?)),
            Kind::U32 => Value::U32(u32::from_le_bytes(self.array(what)?)),
            Kind::I32 => Value::I32(i32::from_le_bytes(self.array(what)?)),
            Kind::F32 => Value::F32(f32::from_le_bytes(self.array(what)?)),
            Kind::Bool => Value::Bool(self.bool(what)?),
            Kind::String => Value::String(self.string(what)?),
            Kind::Array => Value::Array(self.items(what, 1)?),
            Kind::U64 => Value::U64(u64::from_le_bytes(self.array(what)?)),
            Kind::I64 => Value::I64(i64::from_le_bytes(self.array(what)?)),
            Kind::F64 => Value::F64(f64::from_le_bytes(self.array(what)?)),
        })
    }

    fn items(&mut self, what: &dyn Display, depth: usize) -> Result<Array> {
        let kind = self.kind(&format_args!("the items of {what}"))?;
        let count = self.u64(&format_args!("the length of {what}"))?;
        self.check_count(count, kind.least_bytes(), &format_args!("items of {what}"))?;
        if kind == Kind::Array && depth == MAX_NESTING {
            return Err(self.damaged(format!("{what} is nested deeper than {MAX_NESTING} levels")));
        }
        Ok(match kind {
            Kind::U8 => Array::U8(self.numbers(count, u8::from_le_bytes, what)?),
            Kind::I8 => Array::I8(self.numbers(count, i8::from_le_bytes, what)?),
            Kind::U16 => Array::U16(self.numbers(count, u16::from_le_bytes, what)?),
            Kind::I16 => Array::I16(self.numbers(count, i16::from_le_bytes, what)?),
            Kind::U32 => Array::U32(self.numbers(count, u32::from_le_bytes, what)?),
            Kind::I32 => Array::I32(self.numbers(count, i32::from_le_bytes, what)?),
            Kind::F32 => Array::F32(self.numbers(count, f32::from_le_bytes, what)?),
            Kind::Bool => Array::Bool((0..count).map(|_| self.bool(what)).collect::<Result<_>>()?),
            Kind::String => Array::String((0..count).map(|_| self.string(what)).collect::<Result<_>>()?),
            Kind::Array => {
                Array::Nested((0..count).map(|_| self.items(what, depth + 1)).collect::<Result<_>>()?)
            }
            Kind::U64 => Array::U64(self.numbers(count, u64::from_le_bytes, what)?),
            Kind::I64 => Array::I64(self.numbers(count, i64::from_le_bytes, what)?),
            Kind::F64 => Array::F64(self.numbers(count, f64::from_le_bytes, what)?),
        })
    }

    /// `count` numbers of `N` bytes; the count was checked.
    fn numbers<const N: usize, T>(
        &mut self,
        count: u64,
        number: fn([u8; N]) -> T,
        what: &dyn Display,
    ) -> Result<Vec<T>> {
        let bytes = self.take(count * N as u64, what)?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| number(*bytes)).collect())
    }

    fn tensor_info(&mut self, number: u64) -> Result<Info> {
        let name = self.string(&format_args!("the name of tensor {number}"))?;
        let what = format!("tensor {name}");
        let dimensions = self.u32(&what)? as usize;
        if dimensions > MAX_DIMENSIONS {
            let many =
                format!("has {dimensions} dimensions, more than {MAX_DIMENSIONS}; the file is damaged");
            return Err(Error::tensor(self.path, name, many));
        }
        let stored = (0..dimensions).map(|_| self.u64(&what)).collect::<Result<Vec<u64>>>()?;
        let type_id = self.u32(&what)?;
        let offset = self.u64(&what)?;

        let wrong = |what: String| Error::tensor(self.path, &name, what);
        let dtype = DType::from_ggml_id(type_id).ok_or_else(|| wrong(unreadable_type(type_id)))?;
        let row = stored.first().copied().unwrap_or(1);
        if row % dtype.block_len() as u64 != 0 {
            let block = dtype.block_len();
            return Err(wrong(format!(
                "rows of {row} values are no whole number of {dtype} blocks of {block}"
            )));
        }
        let shape =
            stored.iter().rev().map(|&size| usize::try_from(size).ok()).collect::<Option<Vec<usize>>>();
        let bytes = shape.as_ref().and_then(|shape| {
            let values = shape.iter().try_fold(1usize, |values, &size| values.checked_mul(size))?;
            dtype.bytes_for(values)
        });
        match (shape, bytes) {
            (Some(shape), Some(bytes)) => Ok(Info { name, dtype, shape, bytes, offset }),
            _ => Err(wrong(format!("its dimensions {stored:?} are too large; the file is damaged"))),
        }
    }
}

/// Why tensors of a type that ounce does not read can't be read.
fn unreadable_type(id: u32) -> String {
    const SUPPORTED: &str = "quantize the model to Q4_K, Q6_K or Q8_0 instead";
    let name = match id {
        4 => "Q4_2",
        5 => "Q4_3",
        31 => "Q4_0_4_4",
        32 => "Q4_0_4_8",
        33 => "Q4_0_8_8",
        36 => "IQ4_NL_4_4",
        37 => "IQ4_NL_4_8",
        38 => "IQ4_NL_8_8",
        9 => "Q8_1",
        15 => "Q8_K",
        40 => "NVFP4",
        41 => "Q1_0",
        42 => "Q2_0",
        _ => return format!("is of the unknown type {id}; the file is damaged or newer than this program"),
    };
    match id {
        4 | 5 | 31..=33 | 36..=38 => format!("is of type {name} ({id}), which was retired; {SUPPORTED}"),
        9 | 15 => format!("is of type {name} ({id}), which is not for files; {SUPPORTED}"),
        _ => format!("is of type {name} ({id}), which is not supported; {SUPPORTED}"),
    }
}
