use std::io::Write;

use serde_json::json;

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn write(folder: &tempfile::TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn read(path: &Path, options: &ReadOptions) -> Result<Vec<Record>> {
    Records::open(&[path.to_path_buf()], options)?.collect()
}

fn texts(name: &str, content: &[u8], separator: Separator) -> Vec<String> {
    let folder = folder();
    let path = write(&folder, name, content);
    let options = ReadOptions { separator, ..ReadOptions::default() };
    let records = read(&path, &options).unwrap().into_iter();
    records
        .map(|record| match record.content {
            Content::Text(text) => text,
            Content::Fields(fields) => fields["text"].as_str().unwrap().to_string(),
        })
        .collect()
}

/// The one error that reading this file ends with, without the folder.
fn error(name: &str, content: &[u8]) -> String {
    let folder = folder();
    let path = write(&folder, name, content);
    let error = read(&path, &ReadOptions::default()).unwrap_err().to_string();
    error.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn texts_are_cut_at_their_separator() {
    let story = b"\xEF\xBB\xBFOne.\nTwo.\n<|endoftext|>\n\n<|endoftext|>\n Three.\n\nFour.";
    assert_eq!(texts("a.txt", story, Separator::default()), ["One.\nTwo.", " Three.\n\nFour."]);
    let lines = b"One.\r\n\r\n \nTwo.\nThree.\n";
    assert_eq!(texts("a.txt", lines, Separator::BlankLines), ["One.", "Two.\nThree."]);
    assert_eq!(texts("a", b"One.\n\nTwo.\n", Separator::Never), ["One.\n\nTwo.\n"]);
    assert!(texts("a.txt", b" \n\n", Separator::default()).is_empty());
}

#[test]
fn other_encodings_become_utf_8() {
    let folder = folder();
    let path = write(&folder, "a.txt", b"Caf\xE9 \xFC\n");
    let with = |encoding: &str| {
        let options = ReadOptions { encoding: Some(encoding.to_string()), ..ReadOptions::default() };
        read(&path, &options).map(|records| records[0].content.clone())
    };
    for name in ["latin-1", "iso-8859-1", "windows-1252"] {
        assert_eq!(with(name).unwrap(), Content::Text("Caf\u{e9} \u{fc}".into()), "{name}");
    }
    assert!(with("klingon").unwrap_err().to_string().contains("no text encoding"));
    assert!(error("a.txt", b"Caf\xE9").contains("not UTF-8"));
}

#[test]
fn json_is_read_by_lines_or_as_an_array() {
    let lines = b"{\"text\": \"a\"}\n\n{\"text\": \"b\"}";
    assert_eq!(texts("a.jsonl", lines, Separator::default()), ["a", "b"]);
    let array = br#" [ {"text": "a, ] \" {", "x": [1, {"y": 2}]} ,
        {"text": "b"}
    ] "#;
    assert_eq!(texts("a.json", array, Separator::default()), ["a, ] \" {", "b"]);
    let named =
        b"{\n  \"1\": {\"text\": \"a, } {\", \"x\": [{}]},\n\"2:\": {\"text\": \"b\", \"id\": 7}\n}\n";
    assert_eq!(texts("a.json", named, Separator::default()), ["a, } {", "b"]);
    assert_eq!(texts("a.json", b"[\"a\", \"b\"]", Separator::default()), ["a", "b"]);
    assert!(texts("a.json", b"[]", Separator::default()).is_empty());
    assert!(texts("a.jsonl", b"", Separator::default()).is_empty());
}

#[test]
fn tables_have_columns() {
    let folder = folder();
    let path = write(&folder, "a.csv", b"id,text\n1,\"a, \"\"b\"\"\nc\"\n2,d\n");
    let records = read(&path, &ReadOptions::default()).unwrap();
    let fields = |record: &Record| match &record.content {
        Content::Fields(fields) => Value::Object(fields.clone()),
        Content::Text(text) => panic!("{text}"),
    };
    assert_eq!(fields(&records[0]), json!({"id": "1", "text": "a, \"b\"\nc"}));
    assert!(records[1].place.to_string().ends_with("a.csv:4"), "{}", records[1].place);
    let path = write(&folder, "a.tsv", b"id\ttext\n1\ta, b\n");
    assert_eq!(fields(&read(&path, &ReadOptions::default()).unwrap()[0]), json!({"id": "1", "text": "a, b"}));
}

#[test]
fn packed_files_are_unpacked() {
    let mut packed = Vec::new();
    // Several members behind each other are one file, as `cat` makes them.
    for part in ["{\"text\": \"a\"}\n", "{\"text\": \"b\"}\n"] {
        let mut encoder = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast());
        encoder.write_all(part.as_bytes()).unwrap();
        encoder.finish().unwrap();
    }
    assert_eq!(texts("a.jsonl.gz", &packed, Separator::default()), ["a", "b"]);
    assert_eq!(
        error("a.jsonl.gz", &packed[..packed.len() - 12]).split(" (").next(),
        Some("a.jsonl.gz: the gzip file is damaged or cut off")
    );
    assert!(error("b.jsonl.gz", b"not packed").contains("damaged or cut off"));
}

#[test]
fn errors_name_the_file_and_the_record() {
    for (name, content, says) in [
        (
            "a.jsonl",
            b"{\"text\": \"a\"}\n{\"text\": }\n".as_slice(),
            "a.jsonl:2: not valid JSON (expected value at character 10)",
        ),
        (
            "a.json",
            b"{\n  \"text\": \"a\"\n}",
            "a.json, record 1: not a JSON object; a file that is one object has an object for each record",
        ),
        (
            "a.json",
            b"{ \"text\":\n \"a\"}",
            "a.json:1: not valid JSON (EOF while parsing a value); records are objects",
        ),
        ("a.jsonl", b"\n17\n", "a.jsonl:2: not a JSON object"),
        ("a.jsonl", b"{\"text\": \"\xFF\"}\n", "a.jsonl:1: the byte at 10 is not UTF-8"),
        ("a.json", b"[{\"text\": \"a\"} {\"text\": \"b\"}]", "a.json, record 1: not valid JSON"),
        ("a.json", b"[{\"text\": \"a\"}, {\"text\"", "a.json, record 2: the file ends inside this record"),
        ("a.json", b"[{\"text\": \"a\"}", "a.json, record 1: the file ends inside this record"),
        ("a.json", b"[1, ", "a.json, record 1: not a JSON object"),
        ("a.json", b"[{}, ", "a.json, record 2: the file ends before its last bracket"),
        ("a.json", b"{\n\"1\": {}, ", "a.json, record 2: the file ends before its last bracket"),
        ("a.json", b"{\n\"1\": [{}]}", "a.json, record 1: not a JSON object; a file that is one object"),
        ("a.json", b"[{}] {}", "a.json, record 2: something follows"),
        ("a.txt", b"One.\n<|endoftext|>\nTw\xC3.\n", "a.txt, record 2: the byte at 2 is not UTF-8"),
        ("a.csv", b"id,text\n1,a\n2\n", "a.csv:3: 1 values where the first line names 2 columns"),
        ("a.csv", b"id,text\n1,\xFF\n", "a.csv:2: column 2 is not UTF-8"),
        ("a.csv", b"id,id\n", "a.csv: two columns are called \"id\""),
        ("a.csv", b"", "a.csv: the table is empty"),
    ] {
        let error = error(name, content);
        assert!(error.starts_with(says), "{error}");
    }
}

#[test]
fn folders_and_patterns_are_sorted_and_must_fit_something() {
    let folder = folder();
    std::fs::create_dir_all(folder.path().join("b/.hidden")).unwrap();
    for name in ["c.txt", "a.jsonl.gz", "b/z.csv", "b/.hidden/x.txt", ".y.txt", "picture.png"] {
        write(&folder, name, b"");
    }
    let names = |path: &str| -> Vec<String> {
        let files = expand(&[folder.path().join(path)]).unwrap().into_iter();
        files.map(|file| file.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_string()).collect()
    };
    assert_eq!(names(""), ["a.jsonl.gz", "b/z.csv", "c.txt"]);
    assert_eq!(names("*.txt"), ["c.txt"]);
    assert_eq!(names("picture.png"), ["picture.png"]);
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    for (path, says) in
        [("*.zip", "no file fits"), ("nothing", "No such file"), ("empty", "no file with data")]
    {
        let error = expand(&[folder.path().join(path)]).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    assert!(expand(&[]).unwrap_err().to_string().contains("no file to read"));
}

#[test]
fn several_files_count_their_bytes() {
    let folder = folder();
    let paths = [write(&folder, "a.txt", b"One."), write(&folder, "b.jsonl", b"{\"text\": \"two\"}")];
    let mut records = Records::open(&paths, &ReadOptions::default()).unwrap();
    assert_eq!((records.bytes_read(), records.bytes_total()), (0, 19));
    assert_eq!(records.by_ref().count(), 2);
    assert_eq!(records.bytes_read(), 19);
}

#[test]
fn parquet_files_have_the_rows_that_pyarrow_wrote() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/parquet");
    let contents = |name: &str| -> Vec<Content> {
        let records = read(&golden.join(name), &ReadOptions::default()).unwrap();
        records.into_iter().map(|record| record.content).collect()
    };
    let rows = contents("rows.jsonl");
    for packing in ["none", "snappy", "gzip", "zstd"] {
        assert_eq!(contents(&format!("{packing}.parquet")), rows, "{packing}");
    }
    let mut records = Records::open(&[golden.join("snappy.parquet")], &ReadOptions::default()).unwrap();
    assert!(records.nth(4).unwrap().unwrap().place.to_string().ends_with("snappy.parquet, record 5"));
    assert_eq!(records.bytes_read(), records.bytes_total() / 2);
    records.by_ref().for_each(drop);
    assert_eq!(records.bytes_read(), records.bytes_total());
}

#[test]
fn damaged_parquet_files_are_refused() {
    assert!(error("a.parquet", b"PAR1 not").starts_with("a.parquet: not a readable Parquet file ("));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/parquet/snappy.parquet");
    let bytes = std::fs::read(golden).unwrap();
    let folder = folder();
    for at in (4..bytes.len()).step_by(7) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x55;
        // No promise that each change is noticed, but none may end the program.
        let path = write(&folder, "b.parquet", &bytes);
        if let Err(error) = read(&path, &ReadOptions::default()) {
            assert!(error.to_string().contains("b.parquet"), "{error}");
        }
    }
}
