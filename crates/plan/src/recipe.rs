//! Recipes: the steps from a model to a smaller one, as a file that a person can read and change.
//!
//! A step names a command of ounce and its flags, so that whatever the command line can do a recipe can: `type = "q4_k"`
//! is `--type q4_k`, `act-order = true` is `--act-order`, a list is the flag several times. Model, target and what belongs
//! to a run and not to a result are the runner's.
//!
//! ```toml
//! [run]
//! context = 4096
//! kv = "q8_0"
//!
//! [[step]]
//! do = "quantize"
//! type = "q4_k"
//! keep = ["output.weight=q8_0"]
//! ```

use std::path::Path;

use ounce_model::storage::AtomicFile;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::{Error, Result};

/// Commands that make a model of a model.
pub const STEPS: [&str; 5] = ["prune", "factorize", "heal", "quantize", "convert"];

/// Flags that belong to the runner.
const RUNNERS: [&str; 8] = ["output", "force", "fresh", "dry-run", "explain", "json", "threads", "no-test"];

/// The largest file that is read as a recipe.
const MOST_BYTES: u64 = 1 << 20;

/// How the result is meant to be run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Positions of the cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<usize>,
    /// How keys and values are cached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv: Option<String>,
    /// Threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The command, one of [`STEPS`].
    #[serde(rename = "do")]
    pub command: String,
    /// Its flags.
    #[serde(flatten)]
    pub flags: Table,
}

/// Steps in their order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// How the result is meant to be run.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub run: Run,
    /// What is done.
    #[serde(default, rename = "step")]
    pub steps: Vec<Step>,
}

fn is_usual(run: &Run) -> bool {
    *run == Run::default()
}

impl Step {
    /// A step with some flags.
    pub fn new(command: &str, flags: impl IntoIterator<Item = (&'static str, Value)>) -> Step {
        Step {
            command: command.to_owned(),
            flags: flags.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }

    /// The flags as a command line has them.
    ///
    /// # Errors
    /// In one sentence, if a value is no text, number, switch or list of those, or a flag is the runner's.
    pub fn arguments(&self) -> Result<Vec<String>, String> {
        let mut arguments = Vec::new();
        for (name, value) in &self.flags {
            let flag = name.replace('_', "-");
            if RUNNERS.contains(&flag.as_str()) {
                return Err(format!("{name} is not a recipe's to say; give it on the command line"));
            }
            let several = match value {
                Value::Array(values) => values.as_slice(),
                one => std::slice::from_ref(one),
            };
            for value in several {
                let text = match value {
                    Value::String(text) => text.clone(),
                    Value::Integer(number) => number.to_string(),
                    Value::Float(number) => number.to_string(),
                    Value::Boolean(true) => {
                        arguments.push(format!("--{flag}"));
                        continue;
                    }
                    Value::Boolean(false) => continue,
                    _ => {
                        return Err(format!(
                            "{name} should be a text, a number, true, false or a list of those"
                        ));
                    }
                };
                arguments.push(format!("--{flag}={text}"));
            }
        }
        Ok(arguments)
    }
}

impl Recipe {
    /// Reads a recipe; `path` is for messages.
    ///
    /// # Errors
    /// If it is no TOML of this form, has no steps, or a step names no command.
    pub fn parse(text: &str, path: &Path) -> Result<Recipe> {
        let wrong = |what: String| Error::Option(format!("{}: {what}", path.display()));
        let recipe: Recipe =
            toml::from_str(text).map_err(|error| wrong(error.to_string().trim().replace('\n', " ")))?;
        for (index, step) in recipe.steps.iter().enumerate() {
            if !STEPS.contains(&step.command.as_str()) {
                let nearest = nearest(&step.command);
                return Err(wrong(format!(
                    "step {}: there is no step {:?}; did you mean {nearest:?}? There are {}",
                    index + 1,
                    step.command,
                    STEPS.join(" and ")
                )));
            }
            step.arguments()
                .map_err(|what| wrong(format!("step {} ({}): {what}", index + 1, step.command)))?;
        }
        if recipe.steps.is_empty() {
            return Err(wrong("it has no [[step]]".to_owned()));
        }
        Ok(recipe)
    }

    /// Reads a recipe's file.
    ///
    /// # Errors
    /// As [`Recipe::parse`], and if the file can't be read or is too large to be one.
    pub fn open(path: &Path) -> Result<Recipe> {
        let io = |error: std::io::Error| Error::Option(format!("{}: {error}", path.display()));
        let size = std::fs::metadata(path).map_err(io)?.len();
        if size > MOST_BYTES {
            return Err(Error::Option(format!("{}: {size} bytes are too many for a recipe", path.display())));
        }
        Recipe::parse(&std::fs::read_to_string(path).map_err(io)?, path)
    }

    /// As a file has it, with comments before it.
    ///
    /// # Errors
    /// If a value can't be written as TOML.
    pub fn to_text(&self, comments: &[String]) -> Result<String> {
        let mut text: String = comments.iter().map(|line| format!("# {line}\n")).collect();
        if !text.is_empty() {
            text.push('\n');
        }
        text += &toml::to_string_pretty(self).map_err(|error| Error::Option(error.to_string()))?;
        Ok(text)
    }

    /// Writes it to a file, whole or not at all.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, path: &Path, comments: &[String]) -> Result<()> {
        use std::io::Write as _;
        let text = self.to_text(comments)?;
        let io = |error: std::io::Error| Error::Option(format!("{}: {error}", path.display()));
        let mut file = AtomicFile::create(path)?;
        file.write_all(text.as_bytes()).map_err(io)?;
        Ok(file.commit()?)
    }
}

/// The step whose name is most like this one.
fn nearest(wanted: &str) -> &'static str {
    let likeness = |name: &str| strsim::normalized_damerau_levenshtein(&wanted.to_lowercase(), name);
    STEPS.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or(STEPS[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Recipe> {
        Recipe::parse(text, Path::new("r.toml"))
    }

    #[test]
    fn flags_are_those_of_the_command_line() {
        let recipe = parse(
            "[run]\nkv = \"q8_0\"\n[[step]]\ndo = \"quantize\"\ntype = \"q4_k\"\nbytes = 90\nact_order = true\ndamping = 0.02\n\
             keep = [\"a=q8_0\", \"b=keep\"]\n",
        )
        .unwrap();
        let mut arguments = recipe.steps[0].arguments().unwrap();
        arguments.sort();
        assert_eq!(
            arguments,
            ["--act-order", "--bytes=90", "--damping=0.02", "--keep=a=q8_0", "--keep=b=keep", "--type=q4_k"]
        );
        assert_eq!(recipe.run.kv.as_deref(), Some("q8_0"));
        let again = parse(&recipe.to_text(&["a note".into()]).unwrap()).unwrap();
        assert_eq!(again, recipe);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let said = |text: &str| parse(text).unwrap_err().to_string();
        let step = said("[[step]]\ndo = \"quantise\"\n");
        assert!(step.contains("step 1") && step.contains("\"quantize\""), "{step}");
        assert!(said("[[step]]\ndo = \"quantize\"\noutput = \"x\"\n").contains("command line"));
        assert!(said("[[step]]\ndo = \"quantize\"\ntype = { a = 1 }\n").contains("type should be"));
        assert!(said("").contains("no [[step]]"));
        assert!(said("[ru]\n").contains("ru"));
        assert!(said("[[step]\n").starts_with("r.toml: "));
    }
}
