//! Writing GGUF: what was declared comes back, in pieces or at once; mistakes are refused and leave nothing.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use ounce_kernels::DType;
use ounce_model::formats::gguf::{Array, GgufFile, GgufHeader, GgufWriter, Value};
use proptest::prelude::*;

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn data_may_come_in_pieces_and_tensors_may_be_empty() {
    let mut header = GgufHeader::new();
    header.set("general.name", "old");
    header.set("answer", 42u32);
    header.set("general.name", "new");
    header.tensor("none", DType::F32, &[0]);
    header.tensor("scalar", DType::F32, &[]);
    header.tensor("matrix", DType::Q8_0, &[3, 32]);
    header.tensor("nothing", DType::F16, &[0, 4]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.gguf");
    let mut writer = GgufWriter::create(&path, &header).unwrap();
    writer.write("none", &[]).unwrap();
    writer.write("scalar", &1.5f32.to_le_bytes()).unwrap();
    let matrix: Vec<u8> = (0..102).collect();
    for piece in matrix.chunks(7) {
        writer.write("matrix", piece).unwrap();
    }
    let size = writer.finish().unwrap();

    assert_eq!(size, std::fs::metadata(&path).unwrap().len());
    assert_eq!(size, header.file_bytes().unwrap());
    let file = GgufFile::open(&path).unwrap();
    let keys: Vec<&str> = file.metadata().iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["general.name", "answer"]);
    assert_eq!(file.require::<&str>("general.name").unwrap(), "new");
    let shapes: Vec<&[usize]> = file.tensors().iter().map(|tensor| tensor.shape.as_slice()).collect();
    assert_eq!(shapes, [&[0][..], &[], &[3, 32], &[0, 4]]);
    assert_eq!(*file.tensor("matrix").unwrap().data, matrix[..]);
    assert_eq!(*file.tensor("scalar").unwrap().data, 1.5f32.to_le_bytes());
}

#[test]
fn an_abandoned_file_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.gguf");
    let mut header = GgufHeader::new();
    header.tensor("t", DType::F32, &[4]);

    drop(GgufWriter::create(&path, &header).unwrap());
    assert_eq!(files_in(folder.path()), 0);

    let mut incomplete = GgufWriter::create(&path, &header).unwrap();
    incomplete.write("t", &[0; 12]).unwrap();
    let message = incomplete.finish().unwrap_err().to_string();
    assert!(message.contains("out.gguf: tensor t: lacks 4 of 16 bytes"), "{message}");
    assert_eq!(files_in(folder.path()), 0);
}

#[test]
fn wrong_data_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut header = GgufHeader::new();
    header.tensor("t", DType::F32, &[4]);
    header.tensor("u", DType::F32, &[4]);
    let mut writer = GgufWriter::create(folder.path().join("out.gguf"), &header).unwrap();
    let mut refuse = |name: &str, bytes: &[u8], expected: &str| {
        let message = writer.write(name, bytes).unwrap_err().to_string();
        assert!(message.contains(expected), "{expected:?} != {message:?}");
    };
    refuse("u", &[0; 16], "tensor u: was written out of order; tensor t is due");
    refuse("t", &[0; 17], "tensor t: got 17 bytes where 16 of 16 were due");
    writer.write("t", &[0; 16]).unwrap();
    writer.write("u", &[0; 16]).unwrap();
    let message = writer.write("u", &[0]).unwrap_err().to_string();
    assert!(message.contains("tensor u: was written after the last tensor"), "{message}");
}

#[test]
fn headers_that_no_reader_accepts_are_refused() {
    let tensor = |name: &str, dtype: DType, shape: &[usize]| {
        let mut header = GgufHeader::new();
        header.tensor(name, dtype, shape);
        header
    };
    let key = |key: &str, value: Value| {
        let mut header = GgufHeader::new();
        header.set(key, value);
        header
    };
    let mut twice = tensor("t", DType::F32, &[1]);
    twice.tensor("t", DType::F32, &[1]);
    let mut too_large = tensor("t", DType::F32, &[1 << 61]);
    too_large.tensor("u", DType::F32, &[1 << 61]);
    too_large.tensor("v", DType::F32, &[1 << 61]);
    let deep = (0..4).fold(Array::U8(vec![]), |array, _| Array::Nested(vec![array]));
    let cases = [
        (tensor("", DType::F32, &[1]), "its name has 0 bytes; 1 to 63 are possible"),
        (tensor(&"n".repeat(64), DType::F32, &[1]), "its name has 64 bytes"),
        (tensor("t", DType::F32, &[1; 5]), "tensor t: has 5 dimensions, more than 4"),
        (tensor("t", DType::F8E4M3, &[1]), "tensor t: GGUF has no type F8_E4M3; write it as BF16 or F16"),
        (
            tensor("t", DType::Q4K, &[256, 255]),
            "rows of 255 values are no whole number of Q4_K blocks of 256",
        ),
        (
            tensor("t", DType::F32, &[usize::MAX, 2]),
            "tensor t: its shape [18446744073709551615, 2] is too large",
        ),
        (too_large, "makes the file too large"),
        (twice, "tensor t: is declared twice"),
        (key("", 1u8.into()), r#"metadata key "" has 0 bytes; 1 to 65535 are possible"#),
        (key(&"k".repeat(65_536), 1u8.into()), "has 65536 bytes"),
        (key("k", Value::Array(deep)), r#"metadata key "k" is nested deeper than 4 levels"#),
        (key("general.alignment", 24u32.into()), "general.alignment is 24, which is no power of two"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (header, expected) in cases {
        let Err(error) = GgufWriter::create(folder.path().join("out.gguf"), &header) else {
            panic!("accepted, expected {expected:?}");
        };
        assert!(error.to_string().contains(expected), "{expected:?} != {error}");
        assert!(header.file_bytes().is_err());
    }
    assert_eq!(files_in(folder.path()), 0);
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        (-1e30f32..1e30).prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        prop::collection::vec(".{0,5}", 0..5).prop_map(Value::from),
        prop::collection::vec(any::<i32>(), 0..5).prop_map(Value::from),
        prop::collection::vec(prop::collection::vec(any::<u16>(), 0..3).prop_map(Array::U16), 0..3)
            .prop_map(|items| Value::Array(Array::Nested(items))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_back(
        entries in prop::collection::btree_map("[a-z.]{1,12}", value(), 0..6),
        rows in prop::collection::vec(0usize..5, 0..5),
        alignment in 0u32..9,
    ) {
        let mut header = GgufHeader::new();
        header.set("general.alignment", 1u32 << alignment);
        for (key, value) in &entries {
            header.set(key.clone(), value.clone());
        }
        for (number, &rows) in rows.iter().enumerate() {
            header.tensor(format!("t{number}"), DType::Q4_0, &[rows, 32]);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.gguf");
        let mut writer = GgufWriter::create(&path, &header).unwrap();
        let data = |number: usize| vec![number as u8; rows[number] * 18];
        for number in 0..rows.len() {
            writer.write(&format!("t{number}"), &data(number)).unwrap();
        }
        prop_assert_eq!(writer.finish().unwrap(), std::fs::metadata(&path).unwrap().len());
        let file = GgufFile::open(&path).unwrap();
        prop_assert_eq!(file.metadata().len(), entries.len() + 1);
        for (key, value) in &entries {
            prop_assert_eq!(file.metadata().get(key), Some(value));
        }
        for (number, tensor) in file.tensors().iter().enumerate() {
            prop_assert_eq!(&tensor.shape, &[rows[number], 32]);
            prop_assert_eq!(&*tensor.data, &data(number)[..]);
        }
    }
}
