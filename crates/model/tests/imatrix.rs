//! Importance matrices: files made by the `gguf` Python package and by hand (`tests/golden/imatrix.py`), round
//! trips, and damage.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use ounce_kernels::DType;
use ounce_model::Result;
use ounce_model::formats::gguf::{GgufHeader, GgufWriter};
use ounce_model::formats::imatrix::{Entry, Imatrix};
use ounce_model::storage::Bytes;

const DENSE: &str = "blk.0.attn_q.weight";
const EXPERTS: &str = "blk.1.ffn_down_exps.weight";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/imatrix").join(name)
}

fn parse(bytes: &[u8]) -> Result<Imatrix> {
    Imatrix::parse(Bytes::from(bytes.to_vec()), "a.imatrix")
}

fn refused(bytes: &[u8], words: &str) {
    let error = parse(bytes).unwrap_err().to_string();
    assert!(error.contains("a.imatrix") && error.contains(words), "should say {words:?}: {error}");
}

fn example() -> Imatrix {
    let dense = Entry::new(vec![1.0, 2.0, 3.0], vec![2.0]).unwrap();
    let experts = Entry::new(vec![4.0, 8.0, 0.0, 0.0], vec![4.0, 0.0]).unwrap();
    Imatrix {
        datasets: vec!["a.txt".into(), "b.txt".into()],
        chunk_count: 7,
        chunk_size: 512,
        entries: BTreeMap::from([(DENSE.to_string(), dense), (EXPERTS.to_string(), experts)]),
    }
}

/// One entry of the older format.
fn old_entry(name: &str, chunks: i32, values: &[f32]) -> Vec<u8> {
    let mut bytes = (name.len() as i32).to_le_bytes().to_vec();
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend(chunks.to_le_bytes());
    bytes.extend((values.len() as i32).to_le_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

fn old_file(entries: &[Vec<u8>]) -> Vec<u8> {
    [&(entries.len() as i32).to_le_bytes()[..], &entries.concat()].concat()
}

#[test]
fn both_formats_weigh_columns_as_llama_quantize_does() {
    let text = std::fs::read_to_string(golden("expected.json")).unwrap();
    let expected: HashMap<String, HashMap<String, Vec<f32>>> = serde_json::from_str(&text).unwrap();
    for (file, kind) in [("new.gguf", "new"), ("old.dat", "old")] {
        let imatrix = Imatrix::open(golden(file)).unwrap();
        assert_eq!(imatrix.entries.keys().collect::<Vec<_>>(), [DENSE, EXPERTS]);
        for (name, means) in &expected[kind] {
            assert_eq!(&imatrix.importance(name).unwrap(), means, "{file}: {name}");
        }
        assert_eq!(imatrix.importance("output.weight"), None);
        assert_eq!(imatrix.chunk_count, 3);
    }
    let new = Imatrix::open(golden("new.gguf")).unwrap();
    assert_eq!(
        (new.datasets.as_slice(), new.chunk_size),
        (&["texts/wiki ü.txt".into(), "code.txt".into()][..], 512)
    );
    assert_eq!((new.entries[EXPERTS].width, new.entries[DENSE].width), (4, 8));
    assert_eq!(new.entries[EXPERTS].counts, [1000.0, 0.0, 2072.0]);
    let old = Imatrix::open(golden("old.dat")).unwrap();
    assert_eq!((old.datasets.as_slice(), old.chunk_size), (&["code.txt".to_string()][..], 0));
    assert_eq!((old.entries[EXPERTS].width, old.entries[EXPERTS].counts.len()), (12, 1));
}

#[test]
fn written_files_are_those_of_the_python_package_and_read_back_equal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.gguf");
    let written = Imatrix::open(golden("new.gguf")).unwrap().write(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len() as u64, written);
    assert!(bytes == std::fs::read(golden("new.gguf")).unwrap(), "other bytes");
    let old = Imatrix::open(golden("old.dat")).unwrap();
    for imatrix in [example(), old, Imatrix { datasets: Vec::new(), ..example() }] {
        imatrix.write(&path).unwrap();
        assert_eq!(Imatrix::open(&path).unwrap(), imatrix);
    }
}

#[test]
fn means_are_sums_by_counts() {
    let imatrix = example();
    assert_eq!(imatrix.importance(DENSE).unwrap(), [0.5, 1.0, 1.5]);
    assert_eq!(
        imatrix.importance(EXPERTS).unwrap(),
        [1.0, 2.0, 1.0, 1.0],
        "an expert without tokens weighs 1"
    );
    let old = parse(&old_file(&[old_entry("a", 0, &[3.0, 5.0]), old_entry("b", 2, &[3.0, 5.0])])).unwrap();
    assert_eq!(
        old.importance("a").unwrap(),
        [3.0, 5.0],
        "values without a number of chunks are means already"
    );
    assert_eq!(old.importance("b").unwrap(), [1.5, 2.5]);
}

#[test]
fn files_cut_off_anywhere_are_refused() {
    let new = std::fs::read(golden("new.gguf")).unwrap();
    // The last tensor holds three numbers; what pads it may be missing.
    let padding = 32 - 3 * 4;
    for length in 0..new.len() - padding {
        assert!(parse(&new[..length]).is_err(), "{length} bytes of {}", new.len());
    }
    assert!(parse(&new[..new.len() - padding]).is_ok());
    let old = std::fs::read(golden("old.dat")).unwrap();
    // The oldest files end behind the entries, or behind the number of chunks.
    let name = 4 + "code.txt".len();
    let whole = [old.len(), old.len() - name, old.len() - name - 4];
    for length in 0..=old.len() {
        assert_eq!(parse(&old[..length]).is_ok(), whole.contains(&length), "{length} bytes of {}", old.len());
    }
    refused(&[&old[..], b"x"].concat(), "behind its end");
}

#[test]
fn single_changed_bytes_give_an_error_or_consistent_entries() {
    for file in ["new.gguf", "old.dat"] {
        let bytes = std::fs::read(golden(file)).unwrap();
        for place in 0..bytes.len() {
            for change in [0xff, 0x80, 1] {
                let mut damaged = bytes.clone();
                damaged[place] ^= change;
                let Ok(imatrix) = parse(&damaged) else { continue };
                for (name, entry) in &imatrix.entries {
                    assert_eq!(entry.in_sum2.len(), entry.width * entry.counts.len());
                    assert!(imatrix.importance(name).unwrap().iter().all(|mean| mean.is_finite()));
                }
            }
        }
    }
}

#[test]
fn huge_counts_in_old_files_take_no_memory() {
    let huge = i32::MAX.to_le_bytes();
    refused(&huge, "2147483647 entries");
    refused(&(-1i32).to_le_bytes(), "count of -1");
    refused(&0i32.to_le_bytes(), "0 entries");
    refused(b"not a matrix at all", "no importance matrix");
    refused(b"", "0 more");
    let one = 1i32.to_le_bytes();
    refused(&[&one[..], &huge, &[0; 12]].concat(), "2147483647 bytes");
    refused(&[&one[..], &one, b"a", &one, &huge, &[0; 12]].concat(), "8589934588 bytes");
    refused(&[&one[..], &one, b"\xff", &one, &one, &[0; 4]].concat(), "UTF-8");
    refused(&old_file(&[old_entry("a", 1, &[]), vec![0; 20]]), "0 sums");
    refused(&old_file(&[old_entry("a", 1, &[f32::NAN])]), "NaN for sum 0");
    refused(&old_file(&[old_entry("a", 1, &[0.0, -1.0])]), "-1 for sum 1");
    refused(&old_file(&[old_entry("a", 1, &[1.0]), old_entry("a", 1, &[1.0])]), "twice");
}

#[test]
fn gguf_files_that_are_something_else_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let refused = |kind: Option<&str>, tensors: &[(&str, DType, usize)], words: &str| {
        let mut header = GgufHeader::new();
        kind.into_iter().for_each(|kind| header.set("general.type", kind));
        tensors.iter().for_each(|&(name, dtype, len)| header.tensor(name, dtype, &[len]));
        let mut writer = GgufWriter::create(&path, &header).unwrap();
        for &(name, dtype, len) in tensors {
            writer.write(name, &vec![0; dtype.bytes_for(len).unwrap()]).unwrap();
        }
        writer.finish().unwrap();
        let error = Imatrix::open(&path).unwrap_err().to_string();
        assert!(error.contains("x.gguf") && error.contains(words), "should say {words:?}: {error}");
    };
    let (f32, sums, counts) = (DType::F32, "a.weight.in_sum2", "a.weight.counts");
    refused(Some("model"), &[(sums, f32, 2), (counts, f32, 1)], "no importance matrix");
    refused(None, &[("a.weight", f32, 2)], "no importance matrix");
    refused(None, &[], "no importance matrix");
    refused(Some("imatrix"), &[(sums, f32, 2)], "only one");
    refused(Some("imatrix"), &[(counts, f32, 2)], "only one");
    refused(Some("imatrix"), &[(sums, DType::F16, 2), (counts, f32, 1)], "F16");
    refused(Some("imatrix"), &[(sums, f32, 3), (counts, f32, 2)], "3 sums for 2 counts");
    refused(Some("imatrix"), &[(sums, f32, 2), (counts, f32, 0)], "0 counts");
    refused(Some("imatrix"), &[(sums, f32, 0), (counts, f32, 1)], "0 sums");
}

#[test]
fn what_no_tool_would_read_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let with =
        |name: &str, entry: Entry| Imatrix { entries: [(name.to_string(), entry)].into(), ..example() };
    let sound = example().entries[DENSE].clone();
    for (imatrix, words) in [
        (Imatrix::default(), "no entries"),
        (with("a", Entry { width: 2, ..sound.clone() }), "width of 2"),
        (with("a", Entry { counts: Vec::new(), ..sound.clone() }), "0 counts"),
        (with(&"a".repeat(56), sound), "bytes"),
    ] {
        let error = imatrix.write(&path).unwrap_err().to_string();
        assert!(error.contains(words), "should say {words:?}: {error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
