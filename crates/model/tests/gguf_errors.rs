//! What GGUF reading refuses: each message with the shortest bytes that cause it, and no panic on any bytes.

#![allow(clippy::unwrap_used)]

use ounce_model::formats::gguf::{GgufFile, GgufHeader, GgufWriter, Value};
use ounce_model::storage::Bytes;
use ounce_model::{Error, Result};
use proptest::prelude::*;

/// Builds files piece by piece, right or wrong.
#[derive(Clone, Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn header(tensors: u64, keys: u64) -> Raw {
        Raw::default().bytes(b"GGUF").u32(3).u64(tensors).u64(keys)
    }

    fn bytes(mut self, bytes: &[u8]) -> Raw {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u32(self, x: u32) -> Raw {
        self.bytes(&x.to_le_bytes())
    }

    fn u64(self, x: u64) -> Raw {
        self.bytes(&x.to_le_bytes())
    }

    fn string(self, text: &[u8]) -> Raw {
        self.u64(text.len() as u64).bytes(text)
    }

    fn key(self, name: &str, kind: u32) -> Raw {
        self.string(name.as_bytes()).u32(kind)
    }

    fn tensor(self, name: &str, stored: &[u64], type_id: u32, offset: u64) -> Raw {
        let raw = self.string(name.as_bytes()).u32(stored.len() as u32);
        stored.iter().fold(raw, |raw, &size| raw.u64(size)).u32(type_id).u64(offset)
    }

    /// Pads the header and adds `size` bytes of data.
    fn data(mut self, size: usize) -> Raw {
        self.0.resize(self.0.len().next_multiple_of(32) + size, 0);
        self
    }

    fn parse(self) -> Result<GgufFile> {
        GgufFile::parse(Bytes::from(self.0), "model.gguf")
    }
}

const U8: u32 = 0;
const U32: u32 = 4;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const F32: u32 = 0;
const Q4_0: u32 = 2;

fn nested(levels: usize) -> Raw {
    let raw = Raw::header(0, 1).key("k", ARRAY);
    let raw = (1..levels).fold(raw, |raw, _| raw.u32(ARRAY).u64(1));
    raw.u32(U8).u64(1).bytes(&[5])
}

#[test]
fn file_headers_are_checked() {
    let cases: Vec<(Raw, &str)> = vec![
        (Raw::default(), "is no GGUF file: it has only 0 bytes"),
        (Raw::default().bytes(b"GGU"), "is no GGUF file: it has only 3 bytes"),
        (Raw::default().bytes(b"PK\x03\x04"), r"is no GGUF file: it starts with "),
        (Raw::default().bytes(b"tjgg"), "is a GGML file from before GGUF"),
        (Raw::default().bytes(b"GGUF"), "the version needs 4 bytes at byte 4, but the file has only 0 more"),
        (Raw::default().bytes(b"GGUF").u32(1), "GGUF version 1, whose lengths have 32 bits"),
        (Raw::default().bytes(b"GGUF").u32(3 << 24), "is a big-endian GGUF file"),
        (Raw::default().bytes(b"GGUF").u32(4), "is GGUF version 4; only versions 2 and 3"),
        (Raw::default().bytes(b"GGUF").u32(3), "the tensor count needs 8 bytes"),
        (Raw::default().bytes(b"GGUF").u32(3).u64(0), "the metadata count needs 8 bytes"),
        (Raw::header(0, u64::MAX), "no room for 18446744073709551615 metadata keys"),
        (Raw::header(u64::MAX, 0), "no room for 18446744073709551615 tensors"),
    ];
    check(cases, |error| matches!(error, Error::Format { .. }));
}

#[test]
fn metadata_is_checked() {
    let one = |kind| Raw::header(0, 1).key("k", kind);
    let alignment = |x: u32| Raw::header(0, 1).key("general.alignment", U32).u32(x);
    let split = |count: u8| Raw::header(0, 1).key("split.count", U8).bytes(&[count]);
    let cases: Vec<(Raw, &str)> = vec![
        (
            Raw::header(0, 1).u64(1 << 60).bytes(&[0; 5]),
            "the name of metadata key 0 needs 1152921504606846976 bytes",
        ),
        (Raw::header(0, 1).string(b"\xff").bytes(&[0; 4]), "the name of metadata key 0 is not UTF-8"),
        (Raw::header(0, 1).key("", U8).bytes(&[1]), "metadata key 0 has no name"),
        (
            Raw::header(0, 2).key("k", U8).bytes(&[1]).key("k", U8).bytes(&[1]),
            "metadata key k occurs twice (before byte 47)",
        ),
        (one(13).bytes(&[0]), "metadata key k is of the unknown kind 13"),
        (one(U32).bytes(&[0]), "metadata key k needs 4 bytes at byte 37, but the file has only 1 more"),
        (one(BOOL).bytes(&[2]), "metadata key k should be true (1) or false (0) but is 2"),
        (one(STRING).u64(2).bytes(b"a"), "metadata key k needs 2 bytes"),
        (one(STRING).string(b"\xc3\x28"), "metadata key k is not UTF-8"),
        (one(ARRAY).u32(13).u64(0), "the items of metadata key k is of the unknown kind 13"),
        (one(ARRAY).u32(U32).bytes(&[0]), "the length of metadata key k needs 8 bytes"),
        (one(ARRAY).u32(U32).u64(2).u32(7), "no room for 2 items of metadata key k"),
        (one(ARRAY).u32(STRING).u64(u64::MAX), "no room for 18446744073709551615 items"),
        (one(ARRAY).u32(BOOL).u64(1).bytes(&[3]), "should be true (1) or false (0) but is 3"),
        (nested(5), "metadata key k is nested deeper than 4 levels"),
        (alignment(0), "general.alignment is 0, which is no power of two"),
        (alignment(48), "general.alignment is 48, which is no power of two"),
        (
            Raw::header(0, 1).key("general.alignment", STRING).string(b"32"),
            "general.alignment is of kind string, expected a whole number",
        ),
        (split(2), "is one of 2 parts but metadata key split.no, saying which, is missing"),
        (
            Raw::header(0, 2).key("split.count", U8).bytes(&[2]).key("split.no", U8).bytes(&[2]),
            "split.no is 2, but there are only 2 parts",
        ),
    ];
    check(cases, |error| matches!(error, Error::Format { .. }));
    // The neighbours of refused files.
    for raw in [nested(4), alignment(64), split(1), split(0)] {
        raw.parse().unwrap();
    }
}

#[test]
fn tensors_are_checked() {
    let one = |stored: &[u64], type_id, offset| Raw::header(1, 0).tensor("t", stored, type_id, offset);
    let two = |first: u64, second: u64| {
        Raw::header(2, 0).tensor("t", &[9], F32, first).tensor("u", &[9], F32, second).data(128)
    };
    let cases: Vec<(Raw, &str)> = vec![
        (one(&[1; 5], F32, 0), "tensor t: has 5 dimensions, more than 4"),
        (one(&[33], Q4_0, 0), "tensor t: rows of 33 values are no whole number of Q4_0 blocks of 32"),
        (one(&[1 << 32, 1 << 32], F32, 0), "tensor t: its dimensions [4294967296, 4294967296] are too large"),
        (one(&[1 << 62], F32, 0), "tensor t: its dimensions [4611686018427387904] are too large"),
        (
            one(&[8], F32, 0).data(31),
            "tensor t: needs 32 bytes at offset 0 of the data, which starts at byte 64",
        ),
        (one(&[8], F32, 32).data(32), "tensor t: needs 32 bytes at offset 32"),
        (one(&[8], F32, u64::MAX - 31).data(32), "tensor t: needs 32 bytes at offset 18446744073709551584"),
        (one(&[8], F32, 4).data(64), "tensor t: offset 4 is no multiple of the alignment 32"),
        (two(0, 32), "tensor u: its data overlaps that of tensor t"),
        (two(64, 64), "overlaps"),
        (two(32, 0), "tensor t: its data overlaps that of tensor u"),
        (Raw::header(2, 0).tensor("t", &[0], F32, 0).tensor("t", &[0], F32, 0), "tensor t: occurs twice"),
        (one(&[8], 4, 0), "is of type Q4_2 (4), which was retired"),
        (one(&[8], 33, 0), "is of type Q4_0_8_8 (33), which was retired"),
        (one(&[8], 15, 0), "is of type Q8_K (15), which is not for files"),
        (one(&[8], 40, 0), "is of type NVFP4 (40), which is not supported; quantize the model to Q4_K"),
        (one(&[8], 99, 0), "is of the unknown type 99"),
    ];
    check(cases, |error| matches!(error, Error::Tensor { .. }));
    for raw in
        [two(0, 64), two(64, 0), one(&[8], F32, 0).data(32), one(&[], F32, 0).data(4), one(&[0], F32, 0)]
    {
        raw.parse().unwrap();
    }
    let cut = Raw::header(1, 0).string(b"t").u32(1).u64(8).u32(F32).u32(0).parse().unwrap_err();
    assert!(cut.to_string().contains("tensor t needs 8 bytes"), "{cut}");
}

/// Every case is refused with its message, and none panics if it ends earlier.
fn check(cases: Vec<(Raw, &str)>, right_kind: fn(&Error) -> bool) {
    for (raw, expected) in cases {
        let error = raw.clone().parse().unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("model.gguf: ") && message.contains(expected),
            "{expected:?} != {message:?}"
        );
        assert!(right_kind(&error), "{error:?}");
        for end in 0..raw.0.len() {
            let _ = GgufFile::parse(Bytes::from(raw.0[..end].to_vec()), "cut");
        }
    }
}

#[test]
fn wanted_types_are_explained() {
    let file = Raw::header(0, 3)
        .key("name", STRING)
        .string(b"x")
        .key("count", U32)
        .u32(u32::MAX)
        .key("list", ARRAY)
        .u32(BOOL)
        .u64(2)
        .bytes(&[0, 1])
        .parse()
        .unwrap();
    let cases = [
        (
            file.require::<u32>("name").map(drop),
            "name is of kind string, expected a whole number from 0 to 2^32 - 1",
        ),
        (
            file.require::<i32>("count").map(drop),
            "count is 4294967295 (u32), expected a whole number from -2^31",
        ),
        (
            file.require::<&str>("list").map(drop),
            "list is an array of 2 items of kind bool, expected a string",
        ),
        (file.get::<Vec<u64>>("list").map(drop), "expected an array of whole numbers that are not negative"),
        (file.require::<bool>("absent").map(drop), "metadata key absent is missing; convert the model again"),
    ];
    for (result, expected) in cases {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(expected), "{expected:?} != {message:?}");
    }
    assert_eq!(file.get::<bool>("absent").unwrap(), None);
    assert_eq!(file.require::<&[bool]>("list").unwrap(), [false, true]);
    assert_eq!(file.require::<u64>("count").unwrap(), u64::from(u32::MAX));
}

fn small_valid_file() -> Vec<u8> {
    let mut header = GgufHeader::new();
    header.set("a", "text");
    header.set("b", vec!["x".to_owned(), "yz".to_owned()]);
    header.set("c", vec![1.5f32, 2.5]);
    header.set("d", Value::Bool(true));
    header.tensor("t", ounce_kernels::DType::F32, &[2, 3]);
    header.tensor("u", ounce_kernels::DType::Q8_0, &[64]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.gguf");
    let mut writer = GgufWriter::create(&path, &header).unwrap();
    writer.write("t", &[1; 24]).unwrap();
    writer.write("u", &[2; 68]).unwrap();
    writer.finish().unwrap();
    std::fs::read(&path).unwrap()
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = GgufFile::parse(Bytes::from(bytes.clone()), "random");
        // Past the magic number and the version, where most random bytes end.
        let after = Raw::default().bytes(b"GGUF").u32(3).bytes(&bytes);
        let _ = after.parse();
        let few = Raw::header(u64::from(bytes.first().copied().unwrap_or(0) % 3), 1).bytes(&bytes);
        let _ = few.parse();
    }

    #[test]
    fn changed_files_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()) {
        let mut bytes = small_valid_file();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(file) = GgufFile::parse(Bytes::from(bytes.clone()), "changed") {
            // What was accepted is consistent: every tensor has the bytes its shape and type need.
            for tensor in file.tensors() {
                let values = tensor.shape.iter().product();
                prop_assert_eq!(tensor.dtype.bytes_for(values), Some(tensor.data.len()));
            }
        }
        bytes.truncate(cut.index(bytes.len()));
        let _ = GgufFile::parse(Bytes::from(bytes), "cut");
    }
}
