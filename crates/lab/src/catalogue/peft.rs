//! Adapters: small trained parts beside frozen weights.

use ounce_eval::method::{Family, Method};

const FAMILY: Family = Family::Peft;

pub(super) const PLANNED: &[Method] = &[
    Method::planned(
        31,
        "PEFT survey: families and systems",
        FAMILY,
        "Parameter-Efficient Fine-Tuning for Large Models: A Comprehensive Survey",
        Some("2403.14608"),
        "One option selects any adapter family, a bench compares quality, size, delay and memory, and one server answers with many adapters.",
        "A map of four families of methods and of the systems that serve them, without measurements of its own.",
    ),
    Method::planned(
        36,
        "PEFT for unit tests",
        FAMILY,
        "Parameter-Efficient Fine-Tuning of Large Language Models for Unit Test Generation: An Empirical Study",
        Some("2411.02462"),
        "A bench tunes a code model to write unit tests by four methods and prints the quality bought per parameter, byte and minute.",
        "LoRA comes close to full fine-tuning in several cases, and prompt tuning is the cheapest.",
    ),
    Method::planned(
        40,
        "PEFT review and assessment",
        FAMILY,
        "Parameter-Efficient Fine-Tuning Methods for Pretrained Language Models: A Critical Review and Assessment",
        Some("2312.12148"),
        "A table states for each adapter family how many parameters, how much memory and what run-time cost it has, and a bench fills in the measured columns.",
        "Most of eleven methods reach or pass full fine-tuning with under 2 % of the parameters, from RoBERTa to LLaMA-13B.",
    ),
    Method::planned(
        80,
        "PEFT for code generation",
        FAMILY,
        "Exploring Parameter-Efficient Fine-Tuning Techniques for Code Generation with Large Language Models",
        Some("2308.10462"),
        "A grid of runs tells, for the memory at hand, whether prompting, tuning a small model or adapting a large one writes the best code.",
        "Adapters beat in-context learning over many models, and LoRA on a large model beats full tuning of a small one.",
    ),
];
