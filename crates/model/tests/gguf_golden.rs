//! GGUF files made by the `gguf` Python package (`tests/golden/gguf_container.py`): read, and written again.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use ounce_kernels::DType;
use ounce_model::Error;
use ounce_model::formats::gguf::{Array, GgufFile, GgufHeader, GgufWriter, Value};
use ounce_model::storage::Bytes;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/gguf").join(name)
}

#[test]
fn every_metadata_kind_is_read() {
    let file = GgufFile::open(golden("all.gguf")).unwrap();
    assert_eq!(file.version(), 3);
    let turtle = "żółw 🐢".to_owned();
    let nested = |items: &[&[i32]]| Array::Nested(items.iter().map(|i| Array::I32(i.to_vec())).collect());
    let texts = |items: &[&str]| Array::String(items.iter().map(|&text| text.to_owned()).collect());
    let expected: Vec<(&str, Value)> = vec![
        ("general.architecture", "none".into()),
        ("general.alignment", 64u32.into()),
        ("one.uint8", 200u8.into()),
        ("many.uint8", vec![200u8, 1].into()),
        ("one.int8", (-100i8).into()),
        ("many.int8", vec![-100i8, 1].into()),
        ("one.uint16", 60000u16.into()),
        ("many.uint16", vec![60000u16, 1].into()),
        ("one.int16", (-30000i16).into()),
        ("many.int16", vec![-30000i16, 1].into()),
        ("one.uint32", 4_000_000_000u32.into()),
        ("many.uint32", vec![4_000_000_000u32, 1].into()),
        ("one.int32", (-2_000_000_000i32).into()),
        ("many.int32", vec![-2_000_000_000i32, 1].into()),
        ("one.float32", 0.1f32.into()),
        ("many.float32", vec![0.1f32, 1.0].into()),
        ("one.bool", true.into()),
        ("many.bool", vec![true, false].into()),
        ("one.string", turtle.clone().into()),
        ("many.string", vec![turtle, String::new()].into()),
        ("one.uint64", u64::MAX.into()),
        ("many.uint64", vec![u64::MAX, 1].into()),
        ("one.int64", i64::MIN.into()),
        ("many.int64", vec![i64::MIN, 1].into()),
        ("one.float64", 0.1f64.into()),
        ("many.float64", vec![0.1f64, 1.0].into()),
        ("many.array", Value::Array(nested(&[&[1, 2, 3], &[4]]))),
        (
            "many.array.deep",
            Value::Array(Array::Nested(vec![
                Array::Nested(vec![texts(&["a"])]),
                Array::Nested(vec![texts(&["b", "c"])]),
            ])),
        ),
    ];
    let found: Vec<(&str, Value)> = file.metadata().iter().map(|(key, value)| (key, value.clone())).collect();
    assert_eq!(found, expected);
}

#[test]
fn every_tensor_type_is_read_with_row_major_shape_and_its_bytes() {
    let file = GgufFile::open(golden("all.gguf")).unwrap();
    let types: Vec<DType> = file.tensors().iter().map(|tensor| tensor.dtype).collect();
    let mut in_gguf: Vec<DType> = DType::all().filter(|dtype| dtype.ggml_id().is_some()).collect();
    in_gguf.sort_by_key(|dtype| dtype.ggml_id());
    assert_eq!(types, in_gguf);
    for (number, tensor) in file.tensors().iter().enumerate() {
        assert_eq!(tensor.name, format!("tensor.{}", tensor.dtype.name()));
        let block = tensor.dtype.block_len();
        let shape = [vec![block], vec![2, block], vec![3, 1, block], vec![2, 1, 2, block]];
        assert_eq!(tensor.shape, shape[number % 4], "{}", tensor.name);
        let size = tensor.dtype.bytes_for(tensor.shape.iter().product()).unwrap();
        let expected: Vec<u8> = (0..size).map(|i| ((7 * i + number) % 251) as u8).collect();
        assert!(*tensor.data == expected[..], "{}", tensor.name);
        assert!(tensor.data.is_mapped());
    }
}

#[test]
fn writing_the_same_content_gives_the_same_bytes() {
    let original = std::fs::read(golden("all.gguf")).unwrap();
    let file = GgufFile::parse(Bytes::from(original.clone()), "all.gguf").unwrap();
    let mut header = GgufHeader::new();
    for (key, value) in file.metadata().iter() {
        header.set(key, value.clone());
    }
    for tensor in file.tensors() {
        header.tensor(&tensor.name, tensor.dtype, &tensor.shape);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("again.gguf");
    let mut writer = GgufWriter::create(&path, &header).unwrap();
    for tensor in file.tensors() {
        writer.write(&tensor.name, &tensor.data).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), original.len() as u64);
    assert_eq!(header.file_bytes().unwrap(), original.len() as u64);
    assert!(std::fs::read(&path).unwrap() == original);
}

#[test]
fn any_part_opens_the_whole() {
    for part in 1..=3 {
        let file = GgufFile::open(golden(&format!("parts-0000{part}-of-00003.gguf"))).unwrap();
        assert_eq!(file.parts().len(), 3);
        assert_eq!(file.path(), golden("parts-00001-of-00003.gguf"));
        assert_eq!(file.require::<u32>("none.answer").unwrap(), 42);
        for number in 0..5u8 {
            let tensor = file.tensor(&format!("t{number}")).unwrap();
            assert_eq!((tensor.dtype, tensor.shape.as_slice()), (DType::F32, &[8][..]));
            assert!(*tensor.data == f32::from(number).to_le_bytes().repeat(8)[..], "t{number}");
        }
        assert_eq!(file.tensors().len(), 5);
    }
}

#[test]
fn incomplete_or_mixed_up_parts_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let place = |number: usize| folder.path().join(format!("parts-0000{number}-of-00003.gguf"));
    let copy = |from: usize, to: &Path| {
        std::fs::copy(golden(&format!("parts-0000{from}-of-00003.gguf")), to).unwrap();
    };
    let message = |path: &Path| GgufFile::open(path).unwrap_err().to_string();

    copy(1, &place(1));
    copy(3, &place(3));
    let missing = message(&place(1));
    assert!(missing.contains("00002-of-00003.gguf: part 2 of 3 is missing"), "{missing}");

    copy(1, &place(2));
    let mixed = message(&place(1));
    assert!(mixed.contains("00002-of-00003.gguf: does not say that it is part 2 of 3"), "{mixed}");

    let renamed = folder.path().join("model.gguf");
    copy(1, &renamed);
    let misnamed = message(&renamed);
    assert!(misnamed.contains("name must end in -00001-of-00003.gguf"), "{misnamed}");

    let bytes = std::fs::read(golden("parts-00002-of-00003.gguf")).unwrap();
    let alone = GgufFile::parse(Bytes::from(bytes), "part").unwrap_err().to_string();
    assert!(alone.contains("one of 3 parts"), "{alone}");
}

#[test]
fn big_endian_files_are_recognised() {
    let error = GgufFile::open(golden("big_endian.gguf")).unwrap_err();
    assert!(matches!(&error, Error::Format { .. }), "{error:?}");
    assert!(error.to_string().contains("big-endian"), "{error}");
}
