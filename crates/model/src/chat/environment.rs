//! The Jinja environment chat templates expect: that of transformers, which runs them in Python.
//!
//! Blocks are trimmed, `tojson` is Python's, strings and lists have Python's methods, `raise_exception`, `strftime_now`
//! and the `{% generation %}` blocks are there. Work is counted, so that no template runs for ever.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{AutoEscape, Environment, ErrorKind, State};
use minijinja_contrib::pycompat;

use super::python::{self, JsonStyle};
use crate::{Error, Result};

/// The variable that holds the time for `strftime_now`; no template can name it by accident.
pub(super) const NOW: &str = "__now_unix_seconds";

/// Steps a template may take, and 64-byte pieces it may make: a conversation of megabytes stays far below, and the
/// worst template ends within seconds.
const FUEL: u64 = 5_000_000;

/// An environment with these templates compiled, by name.
pub(super) fn with_templates(sources: &[(String, String)]) -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(explain)?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(python_method);
    environment.add_filter("tojson", tojson);
    // Python's strings are lists of characters to these tests, and its None is no list.
    environment.add_test("iterable", |value: &Value| is_list(value));
    environment.add_test("sequence", |value: &Value| is_list(value) && value.kind() != ValueKind::Iterable);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    for (name, source) in sources {
        environment.add_template_owned(name.clone(), prepared(source)).map_err(|error| {
            Error::text(format!("the chat template {name:?} can't be read ({})", sentence(&error)))
        })?;
    }
    Ok(environment)
}

/// The source with line ends as Jinja reads them, and with `{% generation %}` blocks, which only mark the assistant's
/// text for training, as blocks that are always taken. Those trim white space alike.
fn prepared(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        rest = tag;
        let Some(end) = tag.find("%}") else { break };
        let inside = &tag[..end];
        let word = inside.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        let replacement = match word {
            "generation" => "if true",
            "endgeneration" => "endif",
            _ => continue,
        };
        out.push_str(&inside.replacen(word, replacement, 1));
        rest = &tag[end..];
    }
    out.push_str(rest);
    out
}

/// What a failed template tells the user.
pub(super) fn explain(error: minijinja::Error) -> Error {
    let what = match error.kind() {
        ErrorKind::OutOfFuel => {
            "the chat template doesn't come to an end; the model's template is damaged".to_string()
        }
        ErrorKind::InvalidOperation if error.detail().is_some_and(|detail| detail.starts_with(REFUSED)) => {
            let reason = error.detail().unwrap_or_default().trim_start_matches(REFUSED);
            format!("the chat template refuses these messages: {reason}")
        }
        _ => format!("the chat template failed ({})", sentence(&error)),
    };
    Error::text(what)
}

fn sentence(error: &minijinja::Error) -> String {
    let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
    let detail = error.detail().map_or(String::new(), |detail| format!(": {detail}"));
    format!("{line}{}{detail}", error.kind())
}

/// Begins the message of an error the template raised itself.
const REFUSED: &str = "\u{1}";

fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("{REFUSED}{message}")))
}

fn strftime_now(state: &State, format: &str) -> Result<String, minijinja::Error> {
    let now = state.lookup(NOW).and_then(|now| i64::try_from(now).ok()).unwrap_or_default();
    python::strftime(format, now).map_err(|what| minijinja::Error::new(ErrorKind::InvalidOperation, what))
}

fn is_list(value: &Value) -> bool {
    use ValueKind::{Iterable, Map, Seq, String, Undefined};
    matches!(value.kind(), Iterable | Map | Seq | String | Undefined)
}

/// `json.dumps` with the arguments transformers lets through, in its order: ensure_ascii, indent, separators, sort_keys.
fn tojson(value: Value, arguments: Rest<Value>, kwargs: Kwargs) -> Result<String, minijinja::Error> {
    let wrong = |what: String| minijinja::Error::new(ErrorKind::InvalidOperation, what);
    if value.is_undefined() {
        return Err(wrong("an undefined value can't be written as JSON".into()));
    }
    let argument = |position: usize, name: &str| -> Result<Option<Value>, minijinja::Error> {
        let found = match arguments.get(position) {
            Some(value) => Some(value.clone()),
            None => kwargs.get::<Option<Value>>(name)?,
        };
        Ok(found.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let mut style = JsonStyle::default();
    if let Some(ascii) = argument(0, "ensure_ascii")? {
        style.ascii = ascii.is_true();
    }
    if let Some(indent) = argument(1, "indent")? {
        let text = match (indent.as_str(), usize::try_from(indent.clone())) {
            (Some(text), _) => text.to_string(),
            (None, Ok(width)) if width <= 64 => " ".repeat(width),
            _ => return Err(wrong(format!("an indent of {indent} is not possible"))),
        };
        style.indent = Some(text);
    }
    if let Some(separators) = argument(2, "separators")? {
        let parts: Vec<Value> = separators.try_iter()?.collect();
        match parts.iter().map(|part| part.as_str()).collect::<Vec<_>>()[..] {
            [Some(item), Some(key)] => style.separators = Some((item.to_string(), key.to_string())),
            _ => return Err(wrong("separators are two texts".into())),
        }
    }
    style.sort_keys = argument(3, "sort_keys")?.is_some_and(|sort| sort.is_true());
    kwargs.assert_all_used()?;
    let json = serde_json::to_value(&value)
        .map_err(|e| wrong(format!("the value can't be written as JSON ({e})")))?;
    Ok(python::dumps(&json, &style))
}

/// Python's methods of strings, lists and dictionaries, for templates that were written for it: those of the contributed
/// set and the few that templates use beyond it. A callback for [`Environment::set_unknown_method_callback`].
///
/// # Errors
/// If the value has no such method, or `index` finds nothing.
pub fn python_method(
    state: &mut State,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, minijinja::Error> {
    if value.kind() == ValueKind::String {
        let text = value.as_str().unwrap_or_default();
        match (name, arguments) {
            ("removeprefix", [prefix]) => {
                return Ok(prefix
                    .as_str()
                    .and_then(|prefix| text.strip_prefix(prefix))
                    .unwrap_or(text)
                    .into());
            }
            ("removesuffix", [suffix]) => {
                return Ok(suffix
                    .as_str()
                    .and_then(|suffix| text.strip_suffix(suffix))
                    .unwrap_or(text)
                    .into());
            }
            ("partition", [separator]) => {
                let cut =
                    separator.as_str().filter(|s| !s.is_empty()).and_then(|s| Some((text.split_once(s)?, s)));
                return Ok(match cut {
                    Some(((before, after), separator)) => Value::from_iter([before, separator, after]),
                    None => Value::from_iter([text, "", ""]),
                });
            }
            ("rpartition", [separator]) => {
                let cut = separator
                    .as_str()
                    .filter(|s| !s.is_empty())
                    .and_then(|s| Some((text.rsplit_once(s)?, s)));
                return Ok(match cut {
                    Some(((before, after), separator)) => Value::from_iter([before, separator, after]),
                    None => Value::from_iter(["", "", text]),
                });
            }
            ("rsplit", [separator, count]) => {
                let (Some(separator), Ok(count)) = (separator.as_str(), usize::try_from(count.clone()))
                else {
                    return Err(minijinja::Error::from(ErrorKind::UnknownMethod));
                };
                let mut parts: Vec<&str> = text.rsplitn(count.saturating_add(1), separator).collect();
                parts.reverse();
                return Ok(Value::from_iter(parts));
            }
            _ => {}
        }
    }
    if let (ValueKind::Seq, "index", [wanted]) = (value.kind(), name, arguments) {
        let missing = || {
            minijinja::Error::new(
                ErrorKind::InvalidOperation,
                format!("{wanted:?} is not in the list {value:?}"),
            )
        };
        return value.try_iter()?.position(|item| item == *wanted).map(Value::from).ok_or_else(missing);
    }
    pycompat::unknown_method_callback(state, value, name, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_blocks_are_always_taken() {
        let source = "{%- generation -%}a{% endgeneration %}{% raw %}{% generationx %}{% endraw %}";
        assert_eq!(prepared(source), "{%- if true -%}a{% endif %}{% raw %}{% generationx %}{% endraw %}");
        assert_eq!(prepared("a\r\nb{%"), "a\nb{%");
    }

    #[test]
    fn python_methods_beyond_the_contributed_set() {
        let source = "{{ 'a.b.c'.rsplit('.', 1)[0] }} {{ 'a.b.c'.partition('.')[2] }} {{ 'xab'.removeprefix('x') }} \
                      {{ 'abx'.removesuffix('x') }} {{ 'a.b.c'.rpartition('.')|join('/') }} {{ ['a', 'b'].index('b') }}";
        let environment = with_templates(&[("t".into(), source.into())]).unwrap();
        assert_eq!(environment.get_template("t").unwrap().render(()).unwrap(), "a.b b.c ab ab a.b/./c 1");
    }
}
