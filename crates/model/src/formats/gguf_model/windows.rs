//! Sliding windows: GGUF's width and pattern, and `config.json`'s `sliding_window` and `layer_types`.
//!
//! The pattern is a list of flags, or a period `n` that leaves every n-th layer without a window. A file that has
//! none uses its architecture's own rule.

use serde_json::{Map, Value as Json, json};

use super::facts::Facts;
use crate::formats::gguf::{Array, Metadata, Value};
use crate::spec::Spec;
use crate::{Error, Result};

/// Which layers have a window in a file that has no pattern.
pub(super) type Rule = fn(usize) -> bool;

/// Every layer.
pub(super) fn all(_: usize) -> bool {
    true
}

/// Reads the window, which may be absent, into `sliding_window` (null then) and `layer_types`.
pub(super) fn read(facts: &Facts<'_>, rule: Rule, map: &mut Map<String, Json>) -> Result<bool> {
    let window = facts.get::<u64>("attention.sliding_window")?.filter(|&window| window > 0);
    map.insert("sliding_window".to_string(), json!(window));
    let windowed = match window {
        Some(_) => pattern(facts, rule)?,
        None => vec![false; facts.layers()?],
    };
    let kind = |windowed: &bool| if *windowed { "sliding_attention" } else { "full_attention" };
    map.insert("layer_types".to_string(), json!(windowed.iter().map(kind).collect::<Vec<_>>()));
    Ok(window.is_some())
}

fn pattern(facts: &Facts<'_>, rule: Rule) -> Result<Vec<bool>> {
    let key = "attention.sliding_window_pattern";
    let layers = facts.layers()?;
    let flags: Option<Vec<bool>> = match facts.metadata.get(&format!("{}.{key}", facts.arch.name)) {
        None => Some((0..layers).map(rule).collect()),
        Some(Value::Array(Array::Bool(flags))) => Some(flags.clone()),
        Some(Value::Array(_)) => {
            facts.get::<Vec<i64>>(key)?.map(|flags| flags.into_iter().map(|flag| flag != 0).collect())
        }
        Some(_) => {
            facts.get::<usize>(key)?.map(|period| (0..layers).map(|it| periodic(it, period)).collect())
        }
    };
    flags.filter(|flags| flags.len() == layers).ok_or_else(|| {
        let what = format!("metadata key {}.{key} should have {layers} flags", facts.arch.name);
        Error::format(facts.path, what)
    })
}

/// Whether a layer has a window where every `period`-th has none; no period, no windows.
fn periodic(layer: usize, period: usize) -> bool {
    period > 1 && !(layer + 1).is_multiple_of(period)
}

/// Writes the first window's width, and the pattern where it is not the rule's.
pub(super) fn write(spec: &Spec, arch: &str, rule: Rule, metadata: &mut Metadata) {
    let windows: Vec<Option<usize>> =
        spec.layers.iter().map(|layer| layer.attention.as_ref().and_then(|it| it.window)).collect();
    let Some(width) = windows.iter().flatten().next() else { return };
    metadata.insert(format!("{arch}.attention.sliding_window"), Value::U32(*width as u32));
    let key = format!("{arch}.attention.sliding_window_pattern");
    let follows = |rule: &dyn Fn(usize) -> bool| {
        windows.iter().enumerate().all(|(layer, window)| window.is_some() == rule(layer))
    };
    if follows(&rule) {
        return;
    }
    // Programs whose rule has a period read a number, but no list.
    match (2..=windows.len()).find(|&period| follows(&|layer| periodic(layer, period))) {
        Some(period) => metadata.insert(key, Value::U32(period as u32)),
        None => metadata.insert(key, windows.iter().map(Option::is_some).collect::<Vec<bool>>()),
    }
}
