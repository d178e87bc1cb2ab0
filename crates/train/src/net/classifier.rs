//! A model with a classifier in place of its head, as it is before it is trained on labels.

use ounce_model::spec::{Scored, Spec};
use ounce_model::weights::MemorySource;
use ounce_model::{Model, Weights, families};
use serde_json::{Map, json};

use super::Init;
use crate::{Error, Result};

/// What a new classifier gives scores to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Texts.
    Texts,
    /// Tokens.
    Tokens,
    /// Starts and ends of answers.
    Spans,
}

impl Task {
    /// The task of a model's classifier.
    pub fn of(scored: Scored) -> Task {
        match scored {
            Scored::Text { .. } => Task::Texts,
            Scored::Tokens => Task::Tokens,
            Scored::Spans => Task::Spans,
        }
    }

    /// How transformers calls such models, behind the family's name.
    fn class(self) -> &'static str {
        match self {
            Task::Texts => "ForSequenceClassification",
            Task::Tokens => "ForTokenClassification",
            Task::Spans => "ForQuestionAnswering",
        }
    }
}

/// The model with a classifier of these labels (none are needed for spans), its settings changed accordingly. Weights that
/// the model has are taken; those it lacks, and a classifier of other labels, are drawn by `init` and `seed`.
///
/// # Errors
/// If transformers, whose names files carry, has no such class for the family.
pub fn with_classifier(model: &Model, task: Task, labels: &[String], init: Init, seed: u64) -> Result<Model> {
    let mut config = model.config.clone();
    let class = class_of(&model.spec, task)?;
    let map = config.map_mut();
    map.insert("architectures".to_string(), json!([class]));
    if task != Task::Spans {
        let names: Map<_, _> =
            labels.iter().enumerate().map(|(id, name)| (id.to_string(), json!(name))).collect();
        let ids: Map<_, _> = labels.iter().enumerate().map(|(id, name)| (name.clone(), json!(id))).collect();
        map.insert("id2label".to_string(), json!(names));
        map.insert("label2id".to_string(), json!(ids));
    }
    let (_, spec) = families::spec_of(&config)?;
    let fresh = init.weights(&spec, seed);
    let mut source = MemorySource::new(model.weights.path());
    for info in spec.tensors() {
        let known = model.weights.info(&info.name).is_some_and(|(_, shape)| shape == info.shape);
        let tensor = if known { model.weights.get(&info.name)? } else { fresh.get(&info.name)? };
        source.insert(info.name, tensor);
    }
    Ok(Model { spec, config, weights: Weights::in_memory(source), ..model.clone() })
}

/// The name of the family's class for a task.
fn class_of(spec: &Spec, task: Task) -> Result<String> {
    let none = || {
        Error::Unsupported(format!(
            "models of the family {} can't be made {} models",
            spec.family,
            task.class()
        ))
    };
    let family = families::by_name(&spec.family).ok_or_else(none)?;
    let own = family.architectures.iter().find(|class| class.ends_with(task.class()));
    if let Some(class) = own {
        return Ok((*class).to_string());
    }
    // Decoders have such classes under the same stem.
    let stem = family.architectures.iter().find_map(|class| class.strip_suffix("ForCausalLM"));
    stem.filter(|_| spec.causal).map(|stem| format!("{stem}{}", task.class())).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn golden(name: &str) -> Model {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name);
        Model::open(path).unwrap()
    }

    #[test]
    fn the_encoder_stays_and_the_classifier_is_new() {
        let model = golden("models/albert_mlm");
        let labels = ["no".to_string(), "yes".to_string(), "perhaps".to_string()];
        let made = with_classifier(&model, Task::Texts, &labels, Init::default(), 3).unwrap();
        assert!(made.spec.head.is_none() && made.spec.classifier.unwrap().labels == 3);
        assert_eq!(families::classifier::label_names(&made.config, 3), labels);
        let name = "layers.0.attention.query.weight";
        assert_eq!(made.weights.f32(name).unwrap(), model.weights.f32(name).unwrap());
        assert!(
            made.weights.contains("classifier.dense.weight") && !made.weights.contains("head.dense.weight")
        );
        let other = with_classifier(&made, Task::Texts, &labels[..2], Init::default(), 3).unwrap();
        assert_eq!(other.weights.get("classifier.weight").unwrap().shape, [2, 32]);
        let spans = with_classifier(&made, Task::Spans, &[], Init::default(), 3).unwrap();
        assert_eq!(spans.spec.classifier.unwrap().of, Scored::Spans);
    }

    #[test]
    fn families_without_such_a_class_are_refused() {
        // transformers has GPT2ForQuestionAnswering, but its name does not follow from the language model's.
        let error = with_classifier(&golden("models/gpt2"), Task::Spans, &[], Init::default(), 1);
        assert!(error.expect_err("no such class").to_string().contains("can't be made ForQuestionAnswering"));
        let made = with_classifier(
            &golden("models/llama"),
            Task::Texts,
            &["a".into(), "b".into()],
            Init::default(),
            1,
        );
        assert!(made.expect("LlamaForSequenceClassification").spec.head.is_none());
    }
}
