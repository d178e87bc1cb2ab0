//! A task's file: YAML with the keys of lm-evaluation-harness.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Error, Result};

/// Keys that mean something here.
const KNOWN: [&str; 27] = [
    "task",
    "task_alias",
    "include",
    "dataset_path",
    "dataset_kwargs",
    "training_split",
    "validation_split",
    "test_split",
    "fewshot_split",
    "fewshot_config",
    "num_fewshot",
    "output_type",
    "doc_to_text",
    "doc_to_target",
    "doc_to_choice",
    "description",
    "target_delimiter",
    "fewshot_delimiter",
    "generation_kwargs",
    "repeats",
    "metric_list",
    "filter_list",
    "metadata",
    "dataset_name",
    "unsafe_code",
    "tag",
    "group",
];
/// Keys that change no score.
const IGNORED: [&str; 2] = ["should_decontaminate", "doc_to_decontamination_query"];
/// Keys that would change what is asked, and need Python or pictures.
const UNSUPPORTED: [(&str, &str); 8] = [
    ("process_docs", "change the data beforehand, or put it into the templates"),
    ("process_results", "use a metric of metric_list"),
    ("custom_dataset", "name files in dataset_kwargs.data_files"),
    ("use_prompt", "write doc_to_text and doc_to_target"),
    ("doc_to_image", "only text is asked"),
    ("doc_to_audio", "only text is asked"),
    ("gen_prefix", "put it at the end of doc_to_text"),
    ("class", "write the task with templates"),
];
/// Files that include each other stop here.
const INCLUDES: usize = 8;

/// How a model is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// Which of several continuations is likeliest.
    MultipleChoice,
    /// What the model writes, up to a stop text.
    GenerateUntil,
    /// How likely one continuation is.
    Loglikelihood,
    /// How likely a whole text is.
    LoglikelihoodRolling,
}

/// Where one split's documents come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The files, in order.
    pub files: Vec<PathBuf>,
    /// What they are, where the name doesn't tell: `json`, `csv`, `text` (one document a line) or `parquet`.
    pub kind: Option<String>,
    /// Names of a table's columns, where its first line has none.
    pub columns: Option<Vec<String>>,
    /// What separates a table's columns.
    pub delimiter: Option<char>,
    /// The key under which a JSON file holds its list of documents.
    pub field: Option<String>,
    /// How texts are encoded, where not as UTF-8.
    pub encoding: Option<String>,
}

/// A task as its file describes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// Its name.
    pub task: String,
    /// How the model is asked.
    #[serde(rename = "output_type", default = "generate_until")]
    pub output: Output,
    dataset_path: Option<String>,
    #[serde(default)]
    dataset_kwargs: DataArguments,
    training_split: Option<String>,
    validation_split: Option<String>,
    test_split: Option<String>,
    fewshot_split: Option<String>,
    #[serde(default)]
    pub(super) fewshot_config: Fewshot,
    /// Solved examples before each question.
    pub num_fewshot: Option<usize>,
    #[serde(default)]
    pub(super) doc_to_text: Value,
    #[serde(default)]
    pub(super) doc_to_target: Value,
    #[serde(default)]
    pub(super) doc_to_choice: Value,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default = "space")]
    pub(super) target_delimiter: String,
    #[serde(default = "blank_line")]
    pub(super) fewshot_delimiter: String,
    #[serde(default)]
    pub(super) generation_kwargs: Map<String, Value>,
    #[serde(default = "one")]
    pub(super) repeats: usize,
    pub(super) metric_list: Option<Vec<Map<String, Value>>>,
    pub(super) filter_list: Option<Vec<Map<String, Value>>>,
    #[serde(default)]
    metadata: Map<String, Value>,
    /// The folder that files are named from; none for a task that is part of a program.
    #[serde(skip)]
    folder: Option<PathBuf>,
    /// Files given in place of the task's own, by split.
    #[serde(skip)]
    given: BTreeMap<String, Vec<PathBuf>>,
    /// Everything that the file says.
    #[serde(skip)]
    pub raw: Map<String, Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct DataArguments {
    data_files: Option<Value>,
    column_names: Option<Vec<String>>,
    delimiter: Option<char>,
    sep: Option<char>,
    field: Option<String>,
    encoding: Option<String>,
}

/// How examples are chosen and written, where it differs from the questions.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Fewshot {
    sampler: Option<String>,
    split: Option<String>,
    pub samples: Option<Vec<super::Document>>,
    pub fewshot_indices: Option<Vec<usize>>,
    pub doc_to_text: Option<Value>,
    pub doc_to_target: Option<Value>,
    pub doc_to_choice: Option<Value>,
    pub target_delimiter: Option<String>,
    pub fewshot_delimiter: Option<String>,
}

fn generate_until() -> Output {
    Output::GenerateUntil
}

fn space() -> String {
    " ".to_string()
}

fn blank_line() -> String {
    "\n\n".to_string()
}

fn one() -> usize {
    1
}

impl Config {
    /// Reads a file, and those that it includes. Data files are named from its folder.
    ///
    /// # Errors
    /// If it can't be read, is no YAML, or asks for what is not supported.
    pub fn open(path: &Path) -> Result<Config> {
        let raw = included(path, 0)?;
        let folder = path.parent().map(Path::to_path_buf);
        Config::new(raw, folder, &path.display().to_string())
    }

    /// Reads a task from text; its data is given by [`Config::give`] or documents.
    ///
    /// # Errors
    /// As [`Config::open`].
    pub fn parse(yaml: &str, name: &str) -> Result<Config> {
        Config::new(mapping(yaml, name)?, None, name)
    }

    fn new(mut raw: Map<String, Value>, folder: Option<PathBuf>, place: &str) -> Result<Config> {
        raw.retain(|_, value| !value.is_null());
        check_keys(&raw, place)?;
        let mut config: Config = serde_json::from_value(Value::Object(raw.clone())).map_err(|error| {
            Error::task(place, format!("{error}; docs/evaluation.md lists what keys hold"))
        })?;
        (config.folder, config.raw) = (folder, raw);
        config.check().map_err(|what| Error::task(place, what))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if self.task.is_empty() || self.task.contains(['/', '\\']) {
            return Err(format!("{:?} is no name for a task; \"task\" should be a word", self.task));
        }
        let missing = |key: &str| Err(format!("\"{key}\" is missing; {:?} tasks need it", self.raw_output()));
        let needs_text = self.output != Output::LoglikelihoodRolling;
        if needs_text && self.doc_to_text.is_null() {
            return missing("doc_to_text");
        }
        if self.doc_to_target.is_null() {
            return missing("doc_to_target");
        }
        if self.output == Output::MultipleChoice && self.doc_to_choice.is_null() {
            return missing("doc_to_choice");
        }
        if self.repeats == 0 {
            return Err("\"repeats\" should be 1 or more".into());
        }
        match self.fewshot_config.sampler.as_deref() {
            None | Some("default" | "first_n") => Ok(()),
            Some(other) => Err(format!("the sampler {other:?} is not supported; default and first_n are")),
        }
    }

    /// The output type as the file writes it.
    pub(super) fn raw_output(&self) -> &str {
        self.raw.get("output_type").and_then(Value::as_str).unwrap_or("generate_until")
    }

    /// The task's version, as its file says.
    pub fn version(&self) -> Value {
        self.metadata.get("version").cloned().unwrap_or(Value::Null)
    }

    /// Sets the number of examples, unless the file says that there are none, as the harness does.
    pub fn ask_with_examples(&mut self, count: usize) {
        if self.num_fewshot != Some(0) {
            self.num_fewshot = Some(count);
        }
    }

    /// Sets arguments of generation in place of the file's.
    pub fn generate_with(&mut self, arguments: &[(String, Value)]) {
        for (name, value) in arguments {
            self.generation_kwargs.insert(name.clone(), value.clone());
        }
        self.raw.insert("generation_kwargs".to_string(), Value::Object(self.generation_kwargs.clone()));
    }

    /// Takes a split's documents from these files; `None` is the split that is asked about.
    pub fn give(&mut self, split: Option<&str>, files: Vec<PathBuf>) {
        let split = split.or(self.asked_split()).unwrap_or("test").to_string();
        if self.asked_split().is_none() {
            self.test_split = Some(split.clone());
        }
        self.given.insert(split, files);
    }

    /// The split with the questions.
    pub(super) fn asked_split(&self) -> Option<&str> {
        self.test_split.as_deref().or(self.validation_split.as_deref())
    }

    /// The split with the examples.
    pub(super) fn example_split(&self) -> Option<&str> {
        let named = self.fewshot_config.split.as_deref().or(self.fewshot_split.as_deref());
        if named.is_some() || self.fewshot_config.samples.is_some() {
            return named;
        }
        let splits = [&self.training_split, &self.validation_split, &self.test_split];
        splits.into_iter().find_map(|split| split.as_deref())
    }

    /// Whether examples may be the question itself, which is then left out.
    pub(super) fn examples_are_questions(&self) -> bool {
        let named = self.fewshot_config.split.as_deref().or(self.fewshot_split.as_deref());
        named == self.test_split.as_deref()
    }

    /// Whether the first examples are taken and none is drawn.
    pub(super) fn takes_first(&self) -> bool {
        self.fewshot_config.sampler.as_deref() == Some("first_n")
    }

    /// Where a split's documents are.
    ///
    /// # Errors
    /// If the task names no files for it.
    pub(super) fn source(&self, split: &str) -> Result<Source, String> {
        let arguments = &self.dataset_kwargs;
        let kind = match self.dataset_path.as_deref() {
            Some(kind @ ("json" | "csv" | "text" | "parquet")) => Some(kind.to_string()),
            _ => None,
        };
        let columns = arguments.column_names.clone();
        let delimiter = arguments.delimiter.or(arguments.sep);
        let (field, encoding) = (arguments.field.clone(), arguments.encoding.clone());
        if let Some(files) = self.given.get(split) {
            // What was given may be of another kind than what the task names.
            let kind = kind
                .filter(|_| self.dataset_kwargs.data_files.is_some() || columns.is_some() || field.is_some());
            return Ok(Source { files: files.clone(), kind, columns, delimiter, field, encoding });
        }
        let files = match &arguments.data_files {
            Some(Value::Object(splits)) => splits.get(split).map(file_names),
            // Files without a split are what the harness calls train.
            Some(files) => (split == "train").then(|| file_names(files)),
            None => None,
        };
        let Some(files) = files.filter(|files| !files.is_empty()) else {
            let whence = match &self.dataset_path {
                Some(path) if kind.is_none() => format!("{path:?} is not downloaded"),
                _ => "dataset_kwargs.data_files names none for it".to_string(),
            };
            let option = if Some(split) == self.asked_split() { String::new() } else { format!(":{split}") };
            return Err(format!(
                "there are no documents for the split {split:?} ({whence}); give a file: --data {}{option}=FILE",
                self.task
            ));
        };
        Ok(Source {
            files: files.into_iter().map(|name| self.place(&name)).collect(),
            kind,
            columns,
            delimiter,
            field,
            encoding,
        })
    }

    /// Files are named from the task's folder, else from where the program runs.
    fn place(&self, name: &str) -> PathBuf {
        let beside = self.folder.as_ref().map(|folder| folder.join(name));
        beside.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from(name))
    }
}

fn file_names(files: &Value) -> Vec<String> {
    match files {
        Value::String(name) => vec![name.clone()],
        Value::Array(names) => names.iter().filter_map(Value::as_str).map(str::to_string).collect(),
        _ => Vec::new(),
    }
}

/// A file with what it includes below its own keys.
fn included(path: &Path, depth: usize) -> Result<Map<String, Value>> {
    let place = path.display().to_string();
    if depth > INCLUDES {
        return Err(Error::task(place, "files include each other in a circle"));
    }
    let text = std::fs::read_to_string(path).map_err(ounce_model::Error::io(path))?;
    let mut own = mapping(&text, &place)?;
    let Some(base) = own.remove("include") else { return Ok(own) };
    let Some(base) = base.as_str() else {
        return Err(Error::task(place, "\"include\" should name a file"));
    };
    let mut all = included(&path.parent().unwrap_or(Path::new("")).join(base), depth + 1)?;
    all.extend(own);
    Ok(all)
}

/// The keys of a YAML text.
fn mapping(yaml: &str, place: &str) -> Result<Map<String, Value>> {
    if let Some(at) =
        yaml.lines().position(|line| !line.trim_start().starts_with('#') && line.contains("!function"))
    {
        let key = yaml.lines().nth(at).and_then(|line| line.split(':').next()).unwrap_or_default();
        return Err(Error::task(
            place,
            format!(
                "line {}: {:?} calls a function of Python, which is not supported; write it as a Jinja template",
                at + 1,
                key.trim().trim_start_matches("- ")
            ),
        ));
    }
    let options = serde_saphyr::options! { with_snippet: false };
    match serde_saphyr::from_str_with_options::<Value>(yaml, options) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::task(
            place,
            "no task: a task file is YAML with keys such as \"task\" and \"doc_to_text\"",
        )),
        Err(error) => {
            Err(Error::task(place, format!("not valid YAML ({})", error.to_string().replace('\n', " "))))
        }
    }
}

fn check_keys(raw: &Map<String, Value>, place: &str) -> Result<()> {
    for key in raw.keys() {
        if let Some((_, instead)) = UNSUPPORTED.iter().find(|(name, _)| name == key) {
            return Err(Error::task(place, format!("\"{key}\" is not supported; {instead}")));
        }
        if !KNOWN.contains(&key.as_str()) && !IGNORED.contains(&key.as_str()) {
            let near = KNOWN.iter().map(|name| (strsim::normalized_damerau_levenshtein(key, name), name));
            let near = near.filter(|(likeness, _)| *likeness >= 0.6).max_by(|a, b| a.0.total_cmp(&b.0));
            let near = near.map(|(_, name)| format!("; did you mean \"{name}\"?")).unwrap_or_default();
            return Err(Error::task(place, format!("there is no key \"{key}\"{near}")));
        }
    }
    match raw.contains_key("task") {
        true => Ok(()),
        false => Err(Error::task(place, "\"task\" is missing; it names the task")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = "task: t\ndoc_to_text: q\ndoc_to_target: a\n";

    fn fails(yaml: &str) -> String {
        Config::parse(yaml, "t.yaml").unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_those_of_the_harness() {
        let config = Config::parse(TASK, "t").unwrap();
        assert_eq!(config.output, Output::GenerateUntil);
        assert_eq!((config.target_delimiter.as_str(), config.fewshot_delimiter.as_str()), (" ", "\n\n"));
        assert_eq!((config.repeats, config.num_fewshot), (1, None));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (yaml, words) in [
            ("process_docs: x\n", "\"process_docs\" is not supported"),
            ("doc_to_txt: x\n", "did you mean \"doc_to_text\"?"),
            (
                "metric_list:\n  - metric: !function utils.f\n",
                "line 5: \"metric\" calls a function of Python",
            ),
            ("output_type: guess\n", "guess"),
            ("output_type: multiple_choice\n", "\"doc_to_choice\" is missing"),
            ("fewshot_config:\n  sampler: odd\n", "sampler \"odd\""),
            ("repeats: 0\n", "repeats"),
            ("metric_list: {", "not valid YAML"),
        ] {
            let message = fails(&format!("{TASK}{yaml}"));
            assert!(message.starts_with("t.yaml: ") && message.contains(words), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
        assert!(fails("doc_to_text: q\n").contains("\"task\" is missing"));
        assert!(fails("- a\n").contains("no task"));
        assert!(fails("task: a/b\n").contains("no name"));
    }

    #[test]
    fn files_include_others_and_say_more() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        file("base.yaml", "task: base\ndoc_to_text: q\ndoc_to_target: a\nnum_fewshot: 3\n");
        file("own.yaml", "include: base.yaml\ntask: own\n");
        file("circle.yaml", "include: circle.yaml\n");
        file("d.jsonl", "{}\n");
        let mut config = Config::open(&folder.path().join("own.yaml")).unwrap();
        assert_eq!((config.task.as_str(), config.num_fewshot), ("own", Some(3)));
        config.ask_with_examples(1);
        assert_eq!(config.num_fewshot, Some(1));
        assert!(Config::open(&folder.path().join("circle.yaml")).unwrap_err().to_string().contains("circle"));
        file(
            "data.yaml",
            &format!("{TASK}test_split: test\ndataset_kwargs:\n  data_files: {{test: d.jsonl}}\n"),
        );
        let mut config = Config::open(&folder.path().join("data.yaml")).unwrap();
        assert_eq!(config.source("test").unwrap().files, [folder.path().join("d.jsonl")]);
        assert!(config.source("train").unwrap_err().contains("--data t:train=FILE"));
        config.generate_with(&[("max_gen_toks".to_string(), Value::from(8))]);
        assert_eq!(config.raw["generation_kwargs"]["max_gen_toks"], 8);
        config.give(None, vec!["other.csv".into()]);
        assert_eq!(config.source("test").unwrap().files, [Path::new("other.csv")]);
    }
}
