//! Reading a request's body field by field. Unknown fields are ignored, null is as good as absent, and a wrong type is
//! told with the field's name.

use serde_json::{Map, Value};

use crate::error::{ApiError, ApiResult};

/// The fields of an object.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// The names of the objects around it, each with a dot behind it.
    prefix: &'static str,
}

impl<'a> Fields<'a> {
    /// The fields of a body.
    ///
    /// # Errors
    /// If it is no object.
    pub fn of(body: &'a Value) -> ApiResult<Fields<'a>> {
        let map = body.as_object().ok_or_else(|| ApiError::invalid("the body should be a JSON object"))?;
        Ok(Fields { map, prefix: "" })
    }

    /// The value of a field, null as none.
    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn read<T>(
        &self,
        name: &str,
        what: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> ApiResult<Option<T>> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => {
                let name = format!("{}{name}", self.prefix);
                Err(ApiError::field(&name, format!("{name} should be {what}, found {}", short(value))))
            }
        }
    }

    /// A text.
    pub fn text(&self, name: &str) -> ApiResult<Option<&'a str>> {
        self.read(name, "a text", Value::as_str)
    }

    /// A text that has to be there.
    pub fn required_text(&self, name: &str) -> ApiResult<&'a str> {
        self.text(name)?.ok_or_else(|| self.missing(name))
    }

    /// What to say of a field that has to be there.
    pub fn missing(&self, name: &str) -> ApiError {
        let name = format!("{}{name}", self.prefix);
        ApiError::field(&name, format!("{name} is missing"))
    }

    /// A number.
    pub fn number(&self, name: &str) -> ApiResult<Option<f32>> {
        self.read(name, "a number", |value| value.as_f64().map(|number| number as f32))
    }

    /// A whole number from 0 on.
    pub fn count(&self, name: &str) -> ApiResult<Option<usize>> {
        self.read(name, "a whole number from 0 on", |value| {
            // Some clients write whole numbers as 16.0.
            let whole = || value.as_f64().filter(|it| it.fract() == 0.0 && (0.0..9e15).contains(it));
            value.as_u64().or_else(|| whole().map(|it| it as u64)).map(|it| it as usize)
        })
    }

    /// A whole number.
    pub fn integer(&self, name: &str) -> ApiResult<Option<i64>> {
        self.read(name, "a whole number", |value| {
            value.as_i64().or_else(|| value.as_u64().map(|it| it as i64))
        })
    }

    /// True or false.
    pub fn flag(&self, name: &str) -> ApiResult<Option<bool>> {
        self.read(name, "true or false", Value::as_bool)
    }

    /// A list.
    pub fn list(&self, name: &str) -> ApiResult<Option<&'a [Value]>> {
        self.read(name, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    /// An object.
    pub fn object(&self, name: &str) -> ApiResult<Option<&'a Map<String, Value>>> {
        self.read(name, "an object", Value::as_object)
    }

    /// The fields of an object; `prefix` is its name with a dot.
    pub fn inner(&self, name: &str, prefix: &'static str) -> ApiResult<Option<Fields<'a>>> {
        Ok(self.read(name, "an object", Value::as_object)?.map(|map| Fields { map, prefix }))
    }

    /// A text or a list of texts.
    pub fn texts(&self, name: &str) -> ApiResult<Vec<String>> {
        let read = |value: &Value| match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(list) => list.iter().map(|text| text.as_str().map(String::from)).collect(),
            _ => None,
        };
        Ok(self.read(name, "a text or a list of texts", read)?.unwrap_or_default())
    }
}

/// A value for a message, cut if it is long.
fn short(value: &Value) -> String {
    let mut text: String = value.to_string().chars().take(61).collect();
    if text.chars().count() > 60 {
        text.pop();
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn wrong_types_name_the_field() {
        let body = json!({"n": "two", "stop": ["a", 1], "seed": null, "x": 1, "stream_options": {"include_usage": 1}});
        let fields = Fields::of(&body).unwrap();
        let error = fields.count("n").unwrap_err();
        assert_eq!(error.param.as_deref(), Some("n"));
        assert_eq!(error.message, "n should be a whole number from 0 on, found \"two\"");
        assert!(fields.texts("stop").is_err() && fields.integer("seed").unwrap().is_none());
        let inner = fields.inner("stream_options", "stream_options.").unwrap().unwrap();
        assert_eq!(
            inner.flag("include_usage").unwrap_err().param.as_deref(),
            Some("stream_options.include_usage")
        );
        assert!(Fields::of(&json!([1])).is_err());
    }
}
