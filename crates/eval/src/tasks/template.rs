//! Templates of a task's file: Jinja as the harness renders it, with Python's way to write values.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use ounce_model::chat::python_method;

use super::python::Pattern;

/// Steps that one rendering may take.
const FUEL: u64 = 5_000_000;

/// A task's templates, compiled.
#[derive(Debug)]
pub(super) struct Templates {
    environment: Environment<'static>,
}

/// What a field of a task's file says of a document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Field {
    /// The value of a column.
    Column(String),
    /// A single expression, whose value is taken as it is.
    Expression(String),
    /// A template with this name.
    Template(String),
    /// A value that is the same for all documents.
    Constant(serde_json::Value),
}

impl Templates {
    pub fn new() -> Templates {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        environment.set_syntax(syntax.expect("the usual delimiters"));
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(python_method);
        environment.set_formatter(|out, state, value| match value.kind() {
            ValueKind::String | ValueKind::Undefined => minijinja::escape_formatter(out, state, value),
            _ => Ok(out.write_str(&written(value))?),
        });
        environment.add_filter("regex_replace", regex_replace);
        Templates { environment }
    }

    /// Compiles a field. `columns` are the documents' keys: a field that is one of them is its value.
    ///
    /// # Errors
    /// If it is no template.
    pub fn field(
        &mut self,
        name: &str,
        value: &serde_json::Value,
        columns: &[String],
    ) -> Result<Field, String> {
        let serde_json::Value::String(source) = value else { return Ok(Field::Constant(value.clone())) };
        if columns.contains(source) {
            return Ok(Field::Column(source.clone()));
        }
        let wrong =
            |error: minijinja::Error| format!("\"{name}\" is no Jinja template ({})", sentence(&error));
        if let Some(expression) = single_expression(source) {
            self.environment.compile_expression(expression).map_err(wrong)?;
            return Ok(Field::Expression(expression.to_string()));
        }
        self.environment.add_template_owned(name.to_string(), source.clone()).map_err(wrong)?;
        Ok(Field::Template(name.to_string()))
    }

    /// What a field says of a document: texts of templates are texts, expressions have the value that they have.
    ///
    /// # Errors
    /// If the template names something that the document doesn't have, or fails otherwise.
    pub fn value(&self, field: &Field, document: &super::Document) -> Result<serde_json::Value, String> {
        let failed =
            |error: minijinja::Error| format!("the template can't be filled in ({})", sentence(&error));
        match field {
            Field::Constant(value) => Ok(value.clone()),
            Field::Column(name) => Ok(document.get(name).cloned().unwrap_or_default()),
            Field::Template(name) => {
                let template = self.environment.get_template(name).map_err(failed)?;
                template.render(Value::from(Serde(document))).map(Into::into).map_err(failed)
            }
            Field::Expression(source) => {
                let expression = self.environment.compile_expression(source).map_err(failed)?;
                let value = expression.eval(Value::from(Serde(document))).map_err(failed)?;
                if value.is_undefined() {
                    return Err(format!("{source:?} is nothing that the document has"));
                }
                serde_json::to_value(&value)
                    .map_err(|error| format!("{source:?} has no plain value ({error})"))
            }
        }
    }

    /// What a field says, as text.
    ///
    /// # Errors
    /// As [`Templates::value`].
    pub fn text(&self, field: &Field, document: &super::Document) -> Result<String, String> {
        Ok(match self.value(field, document)? {
            serde_json::Value::String(text) => text,
            other => written(&Value::from(Serde(&other))),
        })
    }

    /// The value of a Python literal such as `['a', 'b']`.
    pub fn literal(&self, text: &str) -> Option<serde_json::Value> {
        let value = self.environment.compile_expression(text).ok()?.eval(()).ok()?;
        if value.is_undefined() { None } else { serde_json::to_value(&value).ok() }
    }
}

/// The expression of a template that is nothing else.
fn single_expression(source: &str) -> Option<&str> {
    let inside = source.strip_prefix("{{")?.strip_suffix("}}")?;
    let plain = !inside.contains("{{")
        && !inside.contains("}}")
        && !inside.starts_with('-')
        && !inside.ends_with('-');
    plain.then(|| inside.trim())
}

/// A value as Python's `str` writes it.
fn written(value: &Value) -> String {
    match value.kind() {
        ValueKind::String => value.as_str().unwrap_or_default().to_string(),
        _ => repr(value),
    }
}

/// A value as Python's `repr` writes it.
fn repr(value: &Value) -> String {
    let listed = |open: &str, items: Vec<String>, close: &str| format!("{open}{}{close}", items.join(", "));
    match value.kind() {
        ValueKind::None => "None".to_string(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_string(),
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            listed("[", value.try_iter().into_iter().flatten().map(|item| repr(&item)).collect(), "]")
        }
        ValueKind::Map => {
            let pair = |key: Value| {
                let item = value.get_item(&key).unwrap_or_default();
                format!("{}: {}", repr(&key), repr(&item))
            };
            listed("{", value.try_iter().into_iter().flatten().map(pair).collect(), "}")
        }
        _ => value.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(mark);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == mark || c == '\\' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push(mark);
    out
}

fn regex_replace(text: &str, pattern: &str, replacement: &str) -> Result<String, minijinja::Error> {
    let replaced = Pattern::new(pattern).and_then(|pattern| pattern.replace(text, replacement));
    replaced.map_err(|what| minijinja::Error::new(ErrorKind::InvalidOperation, what))
}

fn sentence(error: &minijinja::Error) -> String {
    let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
    let detail = error.detail().map_or(String::new(), |detail| format!(": {detail}"));
    format!("{line}{}{detail}", error.kind()).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(source: &str) -> Result<serde_json::Value, String> {
        let document = json!({"q": "Who?", "n": 3, "yes": true, "no": null, "x": 0.5, "list": ["a", "it's", "q\"'\n"],
            "choices": {"label": ["A", "B"]}, "key": "B"});
        let document = document.as_object().unwrap();
        let columns: Vec<String> = document.keys().cloned().collect();
        let mut templates = Templates::new();
        let field = templates.field("doc_to_text", &json!(source), &columns)?;
        templates.value(&field, document)
    }

    #[test]
    fn columns_expressions_and_templates_have_their_values() {
        assert_eq!(value("n").unwrap(), 3);
        assert_eq!(value("{{choices.label.index(key)}}").unwrap(), 1);
        assert_eq!(value("{{[q, q.lower()]}}").unwrap(), json!(["Who?", "who?"]));
        assert_eq!(value("Q: {{q}}\n").unwrap(), "Q: Who?\n");
        assert_eq!(value("{{q.split(' ')[:-1]|join(' ')}}.").unwrap(), ".");
        assert_eq!(value("{{ q | regex_replace('(\\\\w+)', '<\\\\1>') }}!").unwrap(), "<Who>?!");
    }

    #[test]
    fn values_are_written_as_python_does() {
        let text = value("{{yes}} {{no}} {{n}} {{x}} {{list}} {{choices}}.").unwrap();
        assert_eq!(text, "True None 3 0.5 ['a', \"it's\", 'q\"\\'\\n'] {'label': ['A', 'B']}.");
        let templates = Templates::new();
        assert_eq!(templates.literal("['a', \"it's\"]"), Some(json!(["a", "it's"])));
        assert_eq!(templates.literal("[unknown"), None);
    }

    #[test]
    fn what_is_missing_is_said() {
        assert!(value("{{ who }}?").unwrap_err().contains("undefined"));
        assert!(value("{{ who }}").is_err());
        assert!(value("{% if %}").unwrap_err().contains("\"doc_to_text\" is no Jinja template"));
        assert!(
            value("{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}")
                .is_err()
        );
    }
}
