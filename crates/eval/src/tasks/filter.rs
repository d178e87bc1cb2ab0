//! What is made of a model's answers before they are compared.

use serde_json::{Map, Value};

use super::python::Pattern;

/// Steps under a name; scores are told for each name.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    /// As in `exact_match,NAME`.
    pub name: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
enum Step {
    Regex { pattern: Pattern, select: i64, fallback: String },
    TakeFirst,
    TakeFirstK(usize),
    MajorityVote,
    Lowercase,
    Uppercase,
    RemoveWhitespace,
    Map { map: Map<String, Value>, default: Option<String> },
}

/// The filters that a task's file lists; one that changes nothing if it lists none.
///
/// # Errors
/// If a filter is unknown or lacks something.
pub(super) fn filters(list: Option<&[Map<String, Value>]>) -> Result<Vec<Filter>, String> {
    let Some(list) = list else {
        return Ok(vec![Filter { name: "none".into(), steps: vec![Step::TakeFirst] }]);
    };
    list.iter().map(filter).collect()
}

fn filter(spec: &Map<String, Value>) -> Result<Filter, String> {
    let name = spec.get("name").and_then(Value::as_str).ok_or("a filter of filter_list has no \"name\"")?;
    let steps = spec.get("filter").and_then(Value::as_array);
    let steps = steps.ok_or_else(|| format!("the filter {name:?} has no list \"filter\" of steps"))?;
    let steps = steps.iter().map(|spec| step(spec).map_err(|what| format!("the filter {name:?}: {what}")));
    Ok(Filter { name: name.to_string(), steps: steps.collect::<Result<_, _>>()? })
}

fn step(spec: &Value) -> Result<Step, String> {
    let text = |key: &str| spec.get(key).and_then(Value::as_str);
    let function = text("function").ok_or("a step has no \"function\"")?;
    Ok(match function {
        "regex" => Step::Regex {
            pattern: Pattern::new(text("regex_pattern").unwrap_or(r"#### (\-?[0-9\.\,]+)"))?,
            select: spec.get("group_select").and_then(Value::as_i64).unwrap_or(0),
            fallback: text("fallback").unwrap_or("[invalid]").to_string(),
        },
        "take_first" => Step::TakeFirst,
        "take_first_k" => {
            let k = spec.get("k").and_then(Value::as_u64).filter(|k| *k > 0);
            Step::TakeFirstK(k.ok_or("take_first_k needs \"k\", 1 or more")? as usize)
        }
        "majority_vote" => Step::MajorityVote,
        "lowercase" => Step::Lowercase,
        "uppercase" => Step::Uppercase,
        "remove_whitespace" => Step::RemoveWhitespace,
        "map" => Step::Map {
            map: spec.get("mapping_dict").and_then(Value::as_object).cloned().unwrap_or_default(),
            default: text("default_value").map(str::to_string),
        },
        other => {
            return Err(format!(
                "{other:?} is not supported; regex, take_first, take_first_k, majority_vote, lowercase, uppercase, \
                 remove_whitespace and map are"
            ));
        }
    })
}

impl Filter {
    /// Its answers in place of the model's, at least one.
    ///
    /// # Errors
    /// If a regular expression comes to no end.
    pub fn apply(&self, answers: &[String]) -> Result<Vec<String>, String> {
        let mut answers = answers.to_vec();
        for step in &self.steps {
            match step {
                Step::TakeFirst => answers.truncate(1),
                Step::TakeFirstK(k) => answers.truncate(*k),
                Step::MajorityVote => answers = majority(&answers).into_iter().collect(),
                step => {
                    for answer in &mut answers {
                        *answer = step.changed(answer)?;
                    }
                }
            }
        }
        Ok(answers)
    }
}

impl Step {
    fn changed(&self, answer: &str) -> Result<String, String> {
        Ok(match self {
            Step::Regex { pattern, select, fallback } => {
                let found = pattern.find_all(answer)?;
                let at = if *select < 0 { found.len() as i64 + select } else { *select };
                let groups = usize::try_from(at).ok().and_then(|at| found.get(at));
                let text = match groups.map(Vec::as_slice) {
                    Some([only]) => Some(*only),
                    Some(several) => several.iter().copied().find(|text| !text.is_empty()),
                    None => None,
                };
                text.map_or_else(|| fallback.clone(), |text| text.trim().to_string())
            }
            Step::Lowercase => answer.to_lowercase(),
            Step::Uppercase => answer.to_uppercase(),
            Step::RemoveWhitespace => answer.trim().to_string(),
            Step::Map { map, default } => match map.get(answer) {
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => default.clone().unwrap_or_else(|| "None".to_string()),
            },
            Step::TakeFirst | Step::TakeFirstK(_) | Step::MajorityVote => answer.to_string(),
        })
    }
}

/// The commonest answer, the first of equally common ones.
fn majority(answers: &[String]) -> Option<String> {
    let count = |text: &String| answers.iter().filter(|it| *it == text).count();
    let mut best: Option<&String> = None;
    for answer in answers {
        if best.is_none_or(|best| count(answer) > count(best)) {
            best = Some(answer);
        }
    }
    best.cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn apply(steps: Value, answers: &[&str]) -> Result<Vec<String>, String> {
        let spec = json!({"name": "f", "filter": steps});
        let filters = filters(Some(&[spec.as_object().unwrap().clone()]))?;
        filters[0].apply(&answers.iter().map(|it| it.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn numbers_are_found_as_in_gsm8k() {
        let strict = json!([{"function": "regex", "regex_pattern": "#### (\\-?[0-9\\.\\,]+)"}, {"function": "take_first"}]);
        assert_eq!(apply(strict.clone(), &["a 3\n#### 1,234", "x"]).unwrap(), ["1,234"]);
        assert_eq!(apply(strict, &["no number"]).unwrap(), ["[invalid]"]);
        let flexible = json!([{"function": "regex", "group_select": -1,
            "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)"}, {"function": "take_first"}]);
        assert_eq!(apply(flexible, &["He has $12 and 5."]).unwrap(), ["5."]);
    }

    #[test]
    fn answers_vote_and_change() {
        let vote = json!([{"function": "lowercase"}, {"function": "remove_whitespace"}, {"function": "majority_vote"}]);
        assert_eq!(apply(vote, &["B", " a", "A "]).unwrap(), ["a"]);
        let map = json!([{"function": "map", "mapping_dict": {"yes": "1"}, "default_value": "0"}]);
        assert_eq!(apply(map, &["yes", "perhaps"]).unwrap(), ["1", "0"]);
        assert_eq!(
            apply(json!([{"function": "take_first_k", "k": 2}]), &["a", "b", "c"]).unwrap(),
            ["a", "b"]
        );
        assert!(
            apply(json!([{"function": "custom"}]), &["a"])
                .unwrap_err()
                .contains("\"custom\" is not supported")
        );
        assert!(apply(json!([{"function": "regex", "regex_pattern": "("}]), &["a"]).is_err());
    }
}
