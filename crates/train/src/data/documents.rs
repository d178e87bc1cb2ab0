//! Documents of evaluation tasks, from every file that training data can come from.

use std::path::Path;

use ounce_eval::tasks::{Document, Source};
use serde_json::Value;

use super::readers::{Content, Kind, ReadOptions, Records, Separator, expand};

/// Largest file of which a part is taken by a key; it is in memory as a whole.
const MAX_WHOLE: u64 = 1 << 30;

/// The documents of a source, as the harness's loader gives them: objects of JSON, rows of tables with numbers as numbers,
/// lines of text as `text`.
///
/// # Errors
/// A sentence that says what can't be read, and where.
pub fn documents(source: &Source) -> Result<Vec<Document>, String> {
    let told = |error: crate::Error| error.to_string();
    let kind = match (source.kind.as_deref(), source.delimiter) {
        (Some("json"), _) => Some(Kind::Json),
        (Some("text"), _) => Some(Kind::Text),
        (Some("parquet"), _) => Some(Kind::Parquet),
        (_, Some('\t')) => Some(Kind::Tsv),
        (_, Some(',')) => Some(Kind::Csv),
        (_, Some(other)) => {
            return Err(format!("tables separated by {other:?} are not supported; commas and tabs are"));
        }
        // The name tells commas from tabs.
        (_, None) => None,
    };
    let files = expand(&source.files).map_err(told)?;
    if let Some(key) = &source.field {
        let parts = files.iter().map(|file| part(file, key)).collect::<Result<Vec<_>, _>>()?;
        return Ok(parts.concat());
    }
    let separator = Separator::Never;
    let options =
        ReadOptions { separator, kind, columns: source.columns.clone(), encoding: source.encoding.clone() };
    let mut documents = Vec::new();
    let mut table = false;
    for record in Records::of_files(files, &options).map_err(told)? {
        let record = record.map_err(told)?;
        match record.content {
            Content::Fields(fields) => documents.push(fields),
            Content::Text(text) => documents.extend(
                text.lines().map(|line| Document::from_iter([("text".to_string(), Value::from(line))])),
            ),
        }
        table |= is_table(&record.place.file, kind);
    }
    if table {
        number_columns(&mut documents);
    }
    Ok(documents)
}

fn is_table(file: &Path, kind: Option<Kind>) -> bool {
    matches!(kind.unwrap_or_else(|| super::readers::kind_of(file)), Kind::Csv | Kind::Tsv)
}

/// The list under a key of a JSON file.
fn part(file: &Path, key: &str) -> Result<Vec<Document>, String> {
    let wrong = |what: String| format!("{}: {what}", file.display());
    let text = super::readers::whole(file, MAX_WHOLE).map_err(|error| error.to_string())?;
    let all: Value =
        serde_json::from_slice(&text).map_err(|error| wrong(format!("not valid JSON ({error})")))?;
    let Some(Value::Array(items)) = all.get(key) else {
        return Err(wrong(format!("it has no list under the key {key:?}")));
    };
    let object = |item: &Value| item.as_object().cloned();
    let objects: Option<Vec<Document>> = items.iter().map(object).collect();
    objects.ok_or_else(|| wrong(format!("the list under {key:?} should hold objects")))
}

/// Columns that hold numbers only, or truths only, become such, and what is empty in any becomes nothing.
fn number_columns(documents: &mut [Document]) {
    let Some(first) = documents.first() else { return };
    for column in first.keys().cloned().collect::<Vec<_>>() {
        let all = |fits: fn(&str) -> bool| {
            let texts =
                documents.iter().filter_map(|it| it.get(&column)?.as_str()).filter(|text| !text.is_empty());
            texts.clone().next().is_some() && texts.clone().all(fits)
        };
        let read: fn(&str) -> Value = if all(|it| it.parse::<i64>().is_ok()) {
            |it| it.parse::<i64>().map_or(Value::Null, Value::from)
        } else if all(|it| it.parse::<f64>().is_ok_and(f64::is_finite)) {
            |it| it.parse::<f64>().map_or(Value::Null, Value::from)
        } else if all(|it| matches!(it, "True" | "False" | "true" | "false")) {
            |it| Value::from(it.eq_ignore_ascii_case("true"))
        } else {
            |it| Value::from(it)
        };
        for document in documents.iter_mut() {
            if let Some(value) = document.get_mut(&column) {
                *value = value.as_str().filter(|text| !text.is_empty()).map_or(Value::Null, read);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    fn read(name: &str, text: &str, change: impl FnOnce(&mut Source)) -> Result<Value, String> {
        let folder = tempfile::tempdir().unwrap();
        let file: PathBuf = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let mut source = Source {
            files: vec![file],
            kind: None,
            columns: None,
            delimiter: None,
            field: None,
            encoding: None,
        };
        change(&mut source);
        documents(&source).map(|found| json!(found))
    }

    #[test]
    fn tables_have_numbers_and_names_may_be_given() {
        let found = read("a.csv", "q,n,x\nA,1,0.5\n\"B, b\",2,\n", |_| ()).unwrap();
        assert_eq!(found, json!([{"q": "A", "n": 1, "x": 0.5}, {"q": "B, b", "n": 2, "x": null}]));
        let columns = Some(vec!["sentence".to_string(), "label".to_string()]);
        let found = read("a.tsv", "good film\t1\nbad\t0\n", |it| it.columns = columns.clone()).unwrap();
        assert_eq!(found, json!([{"sentence": "good film", "label": 1}, {"sentence": "bad", "label": 0}]));
        let error = read("a.tsv", "a\tb\tc\n", |it| it.columns = columns).unwrap_err();
        assert!(error.contains("3 values") && error.contains("2 columns"), "{error}");
    }

    #[test]
    fn json_and_text_are_documents() {
        assert_eq!(read("a.jsonl", "{\"a\": 1}\n{\"a\": 2}\n", |_| ()).unwrap(), json!([{"a": 1}, {"a": 2}]));
        let nested = "{\"examples\": [\n{\"input\": \"x\"}]}";
        assert_eq!(
            read("a.json", nested, |it| it.field = Some("examples".into())).unwrap(),
            json!([{"input": "x"}])
        );
        assert!(
            read("a.json", nested, |it| it.field = Some("rows".into())).unwrap_err().contains("\"rows\"")
        );
        let lines = read("a.txt", "0 How?\n1 Who?\n", |it| it.kind = Some("text".into())).unwrap();
        assert_eq!(lines, json!([{"text": "0 How?"}, {"text": "1 Who?"}]));
        assert!(read("a.csv", "a;b\n", |it| it.delimiter = Some(';')).is_err());
    }
}
