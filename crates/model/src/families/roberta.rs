//! RoBERTa (arXiv 1907.11692) and XLM-RoBERTa (arXiv 1911.02116): BERT whose positions start behind the
//! padding id, and with another head.

use super::{Family, bert, classifier};
use crate::names::{Names, Rule, same};
use crate::spec::{Activation, Positions, Spec};
use crate::{Config, Result};

/// The family.
pub static ROBERTA: Family = Family {
    name: "roberta",
    model_types: &["roberta", "xlm-roberta", "camembert"],
    architectures: &[
        "RobertaModel",
        "RobertaForMaskedLM",
        "RobertaForSequenceClassification",
        "RobertaForTokenClassification",
        "RobertaForQuestionAnswering",
        "XLMRobertaModel",
        "XLMRobertaForMaskedLM",
        "XLMRobertaForSequenceClassification",
        "XLMRobertaForTokenClassification",
        "XLMRobertaForQuestionAnswering",
        "CamembertModel",
        "CamembertForMaskedLM",
        "CamembertForSequenceClassification",
        "CamembertForTokenClassification",
        "CamembertForQuestionAnswering",
    ],
    spec,
    names: Names {
        prefixes: &["roberta.", ""],
        rules: &[bert::ENCODER, HEAD, CLASSIFIER],
        ignore: &["position_ids"],
    },
};

const CLASSIFIER: &[Rule] = &[
    same("classifier.dense", &["classifier.dense"]),
    same("classifier.out_proj", &["classifier"]),
    same("classifier", &["token_classifier"]),
    same("qa_outputs", &["span_classifier"]),
];

const HEAD: &[Rule] = &[
    same("lm_head.dense", &["head.dense"]),
    same("lm_head.layer_norm", &["head.norm"]),
    same("lm_head", &["head"]),
];

fn spec(config: &Config) -> Result<Spec> {
    let mut spec = Spec { family: ROBERTA.name.to_string(), ..bert::encoder(config)? };
    let count = spec.context_length;
    let offset = config.size_or("pad_token_id", 1)? + 1;
    if offset >= count {
        let what = format!("positions start at {offset}, behind the {count} rows of the table");
        return Err(config.error("pad_token_id", what));
    }
    spec.embedding.positions = Some(Positions { count, offset });
    spec.context_length = count - offset;
    if bert::has_head(config)? {
        // Whatever the encoder uses, the head's nonlinearity is GELU.
        spec.head = Some(bert::masked_head(config, Activation::Gelu)?);
    }
    classifier::add(config, &mut spec, Some(Activation::Tanh))?;
    Ok(spec)
}
