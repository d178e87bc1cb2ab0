//! A model of several components that is judged item by item.

use std::collections::HashMap;

use super::criterion::Matrix;
use crate::{Error, Result};

/// A part of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Places of its matrices among the subject's.
    pub matrices: Vec<usize>,
}

/// A model whose components are pruned, and what it is judged by.
pub trait Subject {
    /// Its matrices that may be pruned.
    fn matrices(&self) -> &[Matrix];

    /// Its components.
    fn components(&self) -> &[Component];

    /// A number for each item that it is judged by, the same items in the same order each time, with these matrices in the place of
    /// its own.
    ///
    /// # Errors
    /// If it can't be run.
    fn items(&mut self, pruned: &HashMap<usize, Vec<f32>>) -> Result<Vec<f64>>;

    /// What items come to together, the higher the better: their mean, where nothing else is said.
    fn quality(&self, items: &mut dyn Iterator<Item = f64>) -> f64 {
        let (mut sum, mut count) = (0.0, 0u32);
        items.for_each(|item| (sum, count) = (sum + item, count + 1));
        sum / f64::from(count.max(1))
    }

    /// Weights of a component.
    fn weights(&self, component: usize) -> u64 {
        let own = &self.components()[component].matrices;
        own.iter().map(|&at| self.matrices()[at].values.len() as u64).sum()
    }
}

/// Whether a name is of a pattern, in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|behind| {
            rest.is_empty()
                || behind
                    .char_indices()
                    .map(|it| it.0)
                    .chain([behind.len()])
                    .any(|at| matches(rest, &behind[at..]))
        }),
    }
}

/// Components by patterns of names, `(name, pattern)` each; a matrix is of the first whose pattern it has.
///
/// # Errors
/// If nothing has a pattern.
pub fn components(matrices: &[Matrix], patterns: &[(String, String)]) -> Result<Vec<Component>> {
    let mut found: Vec<Component> =
        patterns.iter().map(|(name, _)| Component { name: name.clone(), matrices: Vec::new() }).collect();
    for (at, matrix) in matrices.iter().enumerate() {
        if let Some(place) = patterns.iter().position(|(_, pattern)| matches(pattern, &matrix.name)) {
            found[place].matrices.push(at);
        }
    }
    match found.iter().position(|component| component.matrices.is_empty()) {
        None => Ok(found),
        Some(at) => Err(Error::Option(format!(
            "no matrix is left for {}; names are such as {}, and {:?} should fit some that no pattern before it does",
            patterns[at].0,
            matrices.first().map_or("layers.0.attention.query", |it| it.name.as_str()),
            patterns[at].1
        ))),
    }
}
