//! Headers of safetensors files.

use std::path::Path;

use ounce_model::formats::safetensors::SafetensorsFile;
use ounce_model::storage::Bytes;
use ounce_model::weights::TensorSource;
use ounce_model::{Error, Result};

use crate::refused;

/// A file of this header and data.
pub fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

/// A file of one tensor `a` of four bytes.
fn one(dtype: &str, shape: &str, offsets: &str) -> Vec<u8> {
    let entry = format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#);
    file(&entry, &[0; 4])
}

fn parse(bytes: Vec<u8>) -> Result<SafetensorsFile> {
    SafetensorsFile::parse(Bytes::from(bytes), Path::new("model.safetensors"))
}

#[test]
fn damaged_headers_are_refused() {
    let two = |a: &str, b: &str| {
        let entry = |name: &str, offsets: &str| {
            format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":{offsets}}}"#)
        };
        file(&format!("{{{},{}}}", entry("a", a), entry("b", b)), &[0; 8])
    };
    let twice = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
        "a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let nested = format!(r#"{{"a":{}"#, "[".repeat(100_000));
    let cases: Vec<(Vec<u8>, &[&str])> = vec![
        (Vec::new(), &["is only 0 bytes long", "fetch it again"]),
        (vec![0; 7], &["is only 7 bytes long"]),
        (u64::MAX.to_le_bytes().to_vec(), &["claims to be larger than 100 MB"]),
        (100_000_001u64.to_le_bytes().to_vec(), &["claims to be larger than 100 MB"]),
        (vec![3, 0, 0, 0, 0, 0, 0, 0, b'{', b'}'], &["its header is longer than the file of 10 bytes"]),
        (vec![0; 8], &["its header can't be parsed (EOF"]),
        (vec![1, 0, 0, 0, 0, 0, 0, 0, 0xff], &["is not text in UTF-8"]),
        (file("{", &[]), &["can't be parsed (EOF"]),
        (file("[]", &[]), &["can't be parsed"]),
        (file(&nested, &[]), &["can't be parsed"]),
        (file(r#"{"a":{}}"#, &[]), &["can't be parsed (missing field"]),
        (file(r#"{"__metadata__":{"format":1}}"#, &[]), &["can't be parsed"]),
        (file("{}", &[0]), &["the tensors do not end where the file does"]),
        (one("F32", "[0]", "[0,0]"), &["the tensors do not end where the file does"]),
        (one("F32", "[2]", "[0,8]"), &["the tensors do not end where the file does"]),
        (one("F32", "[288230376151711744]", "[0,1152921504606846976]"), &["do not end where the file does"]),
        (one("F32", "[2]", "[0,4]"), &["tensor a: its shape [2] of F32 does not fit its bytes 0..4"]),
        (one("F32", "[]", "[0,3]"), &["tensor a: its shape [] of F32 does not fit its bytes 0..3"]),
        (one("F32", "[4611686018427387904,4]", "[0,4]"), &["tensor a: its shape", "does not fit"]),
        (one("F32", "[4611686018427387904]", "[0,4]"), &["tensor a: its shape", "does not fit"]),
        (one("F32", "[1,1,1,1,1,1,1,1,2]", "[0,4]"), &["its shape of 9 dimensions of F32 does not fit"]),
        (one("F32", "[18446744073709551616]", "[0,4]"), &["can't be parsed"]),
        (one("F32", "[-1]", "[0,4]"), &["can't be parsed"]),
        (one("F32", "[1.5]", "[0,4]"), &["can't be parsed"]),
        (one("F32", "[1]", "[-4,0]"), &["can't be parsed"]),
        (one("F32", "[1]", "[4,0]"), &["tensor a: its bytes overlap", "hole"]),
        (one("F32", "[1]", "[4,8]"), &["tensor a: its bytes overlap", "hole"]),
        (two("[0,4]", "[0,4]"), &["its bytes overlap another's"]),
        (two("[0,4]", "[5,9]"), &["tensor b: its bytes overlap", "leave a hole"]),
        (one("X9", "[1]", "[0,4]"), &["can't be parsed (unknown variant"]),
        (one("U32", "[1]", "[0,4]"), &["tensor a: has the type U32", "convert it to F16 or BF16"]),
        (one("F4", "[8]", "[0,4]"), &["tensor a: has the type F4"]),
        (one("F4", "[7]", "[0,4]"), &["tensor a: its shape [7] of F4 does not fit"]),
        (file(twice, &[0; 4]), &["tensor a: is listed twice in the header"]),
        (b"version https://git-lfs.github.com/spec/v1\noid".to_vec(), &["Git LFS pointer", "git lfs pull"]),
    ];
    for (bytes, words) in cases {
        let case = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        let words: Vec<&str> = words.iter().copied().chain(["model.safetensors: "]).collect();
        refused(&case, &words, || parse(bytes));
    }
}

#[test]
fn a_zero_does_not_hide_sizes_that_overflow() {
    let header = r#"{"a":{"dtype":"F32","shape":[0,1099511627776,1099511627776],"data_offsets":[0,0]}}"#;
    refused("zero", &["tensor a: its shape", "does not fit"], || parse(file(header, &[])));
}

#[test]
fn unusual_files_are_read() {
    let header = r#"{"":{"dtype":"F32","shape":[],"data_offsets":[0,4]},
        "ü\n":{"dtype":"BOOL","shape":[0,3],"data_offsets":[4,4]},"__metadata__":{"format":"pt"}}"#;
    let file = parse(file(header, &1.5f32.to_le_bytes())).unwrap();
    let scalar = file.tensor("").unwrap();
    assert_eq!((scalar.rows(), scalar.row_len(), scalar.to_f32().unwrap()), (1, 1, vec![1.5]));
    assert_eq!(file.info("ü\n").unwrap().1, [0, 3]);
    assert_eq!(file.metadata()["format"], "pt");
    assert!(file.tensor("missing").unwrap_err().to_string().contains("tensor missing: is missing"));
}

#[test]
fn no_cut_and_no_changed_byte_panics_or_reads_beyond_the_file() {
    let header = r#"{"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}}"#;
    let whole = file(header, &[7; 16]);
    assert!(parse(whole.clone()).is_ok());
    for length in 0..whole.len() {
        assert!(matches!(parse(whole[..length].to_vec()), Err(Error::Format { .. } | Error::Tensor { .. })));
    }
    for at in 0..whole.len() - 16 {
        for byte in [0, b'"', b'0', b'9', b'{', b'}', b',', 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            if let Ok(file) = parse(bytes) {
                for name in file.names() {
                    let tensor = file.tensor(name).unwrap();
                    assert!(!tensor.dtype.is_weight() || tensor.to_f32().is_ok(), "{name}");
                }
            }
        }
    }
}
