//! Domains and languages with little data.

use ounce_eval::method::{Family, Method};

const FAMILY: Family = Family::DomainLanguage;

pub(super) const PLANNED: &[Method] = &[
    Method::planned(
        50,
        "Few-shot cross-lingual prompting",
        FAMILY,
        "Few-Shot Cross-Lingual Transfer for Prompting Large Language Models in Low-Resource Languages",
        Some("2403.06018"),
        "Numbers with significance decide whether a language is best served by prompting, by translating first or by more training.",
        "For LLaMA-7B in Kinyarwanda, Hausa and Luganda, plain few-shot prompts are best on average.",
    ),
    Method::planned(
        59,
        "Vocabulary expansion",
        FAMILY,
        "How Can We Effectively Expand the Vocabulary of LLMs with 0.01GB of Target Language Text?",
        Some("2406.11477"),
        "A model learns new tokens from a few MB of text, so that a language it split badly costs less to read and write.",
        "With 30,000 sentences, simple initialisations beat random ones and FOCUS, and inference gets faster.",
    ),
    Method::planned(
        60,
        "Romanization adaptation",
        FAMILY,
        "Romanization-based Large-scale Adaptation of Multilingual Language Models",
        Some("2304.08865"),
        "Text in almost any script is written in Latin letters by rule, which lets a multilingual model learn it from little data.",
        "As good as special transliterators and best in most of 14 languages, above all for unseen scripts.",
    ),
    Method::planned(
        68,
        "KGE-MedQA",
        FAMILY,
        "Leveraging External Knowledge Resources to Enable Domain-Specific Comprehension",
        Some("2401.07977"),
        "A general reader becomes better in a field by mapping the vectors of that field's knowledge graph into its inputs.",
        "BERT and RoBERTa reach BioBERT and SciBERT on COVID-QA and PubMedQA without pretraining on medicine.",
    ),
    Method::planned(
        76,
        "SciRIFF",
        FAMILY,
        "SciRIFF: A Resource to Enhance Language Model Instruction-Following over Scientific Literature",
        Some("2406.07835"),
        "Labelled collections become instructions with structured answers, which tune a model for a field while general skill is watched.",
        "28.1 % (7B) and 6.5 % (70B) better on nine unseen science tasks, general ability within 2 %.",
    ),
    Method::planned(
        128,
        "Rare programming languages",
        FAMILY,
        "Enhancing Code Generation for Low-Resource Languages: No Silver Bullet",
        Some("2501.19085"),
        "A bench tells for a rare programming language whether examples, translation or fine-tuning suits the model's size.",
        "Fine-tuning is best for small models and may hurt the largest, while examples in the prompt always help, in R and Racket.",
    ),
];
