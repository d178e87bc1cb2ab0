//! Classifiers on top of a family: which class of `architectures` asks for one, and its labels.

use crate::spec::{Activation, Classifier, Scored, Spec};
use crate::{Config, Result};

/// Labels above this are damage.
const MAX_LABELS: usize = 1 << 20;

/// Puts a classifier in place of the head where `architectures` names one. `dense` is the nonlinearity of the dense
/// layer in front of a text's scores, which read the first position in encoders and the last in decoders.
///
/// # Errors
/// If a key is wrong.
pub fn add(config: &Config, spec: &mut Spec, dense: Option<Activation>) -> Result<()> {
    let classes = config.texts_opt("architectures")?.unwrap_or_default();
    let named = |end: &str| classes.iter().any(|class| class.ends_with(end));
    let of = if named("ForSequenceClassification") {
        Scored::Text { last: spec.causal, dense }
    } else if named("ForTokenClassification") {
        Scored::Tokens
    } else if named("ForQuestionAnswering") {
        Scored::Spans
    } else {
        return Ok(());
    };
    let labels = match of {
        Scored::Spans => 2,
        _ => labels(config)?,
    };
    // Decoders score texts without a bias.
    let bias = !(spec.causal && matches!(of, Scored::Text { .. }));
    spec.head = None;
    spec.classifier = Some(Classifier { labels, of, bias });
    Ok(())
}

/// The number of labels: of `id2label`, else `num_labels`, else 2, as transformers has it.
fn labels(config: &Config) -> Result<usize> {
    let named = config.get("id2label").and_then(|names| names.as_object()).map(|names| names.len());
    let labels = match named {
        Some(labels) => labels,
        None => config.size_or("num_labels", 2)?,
    };
    if labels == 0 || labels > MAX_LABELS {
        return Err(
            config.error("id2label", format!("names {labels} labels; a classifier has 1 to {MAX_LABELS}"))
        );
    }
    Ok(labels)
}

/// The names of the labels, in order; numbers where the configuration names none.
pub fn label_names(config: &Config, labels: usize) -> Vec<String> {
    let names = config.get("id2label").and_then(|names| names.as_object());
    let name = |label: usize| names?.get(&label.to_string())?.as_str().map(str::to_string);
    (0..labels).map(|label| name(label).unwrap_or_else(|| format!("LABEL_{label}"))).collect()
}
