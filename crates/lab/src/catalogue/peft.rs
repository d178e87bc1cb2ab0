//! Adapters: small trained parts beside frozen weights.

use ounce_eval::method::{Family, Method};

const FAMILY: Family = Family::Peft;

pub(super) const PLANNED: &[Method] = &[
    Method::planned(
        16,
        "Clinical prompt learning",
        FAMILY,
        "Clinical Prompt Learning with Frozen Language Models",
        Some("2205.05535"),
        "A few labelled documents suffice to classify text: the question becomes a gap to fill, and only a few thousand numbers are trained.",
        "Prompts on frozen models match or beat fine-tuning in part of the clinical tasks, most clearly with few examples.",
    ),
    Method::planned(
        101,
        "Few-shot content analysis",
        FAMILY,
        "Few-shot learning for automated content analysis: Efficient coding of arguments and claims in the debate on arms deliveries to Ukraine",
        None,
        "Cloze patterns and label words turn some dozens of marked sentences into a classifier whose weights are a few MB to share.",
        "Adapters with pattern-exploiting training are as valid as full fine-tuning, and a related earlier task helps much.",
    ),
    Method::planned(
        105,
        "CrossTune",
        FAMILY,
        "CrossTune: Black-Box Few-Shot Classification with Label Enhancement",
        Some("2403.12468"),
        "A classifier is trained on the outputs of an encoder nobody may change, from one descriptive sentence per class and few examples.",
        "5.7 points better on average than gradient-free black-box tuning on seven text classification sets.",
    ),
    Method::planned(
        130,
        "IAA for retrieval",
        FAMILY,
        "Scattered or Connected? An Optimized Parameter-efficient Tuning Approach for Information Retrieval",
        Some("2208.09847"),
        "A retriever or re-ranker is tuned through small linked modules that converge as calmly as full training does.",
        "Modules under 1 % alone trail full fine-tuning in retrieval, and connecting them reaches or beats it.",
    ),
];
