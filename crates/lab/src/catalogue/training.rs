//! Training recipes.

use ounce_eval::method::{Family, Method};

const FAMILY: Family = Family::Training;

pub(super) const PLANNED: &[Method] = &[
    Method::planned(
        67,
        "CLP-Transfer",
        FAMILY,
        "Efficient Language Model Training through Cross-Lingual and Progressive Transfer Learning",
        Some("2301.09626"),
        "A large model in one language and a small one in another give the starting weights for a large model in the second language.",
        "Up to 80 % fewer training steps than from random weights, for GPT-2 and BLOOM in German.",
    ),
    Method::planned(
        71,
        "Vega v2 self-evolution",
        FAMILY,
        "Toward Efficient Language Model Pretraining and Downstream Adaptation via Self-Evolution: A Case Study on SuperGLUE",
        Some("2212.01853"),
        "An encoder in training finds the words it can learn most from and softens their labels, and soft prompts move from rich to poor tasks.",
        "A 6B encoder with 91.3 on SuperGLUE, first of its time and best on four of eight tasks.",
    ),
    Method::planned(
        119,
        "MEMO",
        FAMILY,
        "A Model or 603 Exemplars: Towards Memory-Efficient Class-Incremental Learning",
        Some("2205.13218"),
        "New classes are added for as long as a byte budget lasts, and the tool divides it between kept samples and new network blocks.",
        "A ResNet-32 costs as much memory as 603 CIFAR images, and at equal small budgets storing whole models loses.",
    ),
    Method::planned(
        124,
        "Redco",
        FAMILY,
        "Redco: A Lightweight Tool to Automate Distributed Training of LLMs on Any GPU/TPUs",
        Some("2310.16355"),
        "Whoever writes three functions (batch, loss, predict) can train on one worker or many with a sharding plan made by rule.",
        "GPT-J, LLaMA, T5 and OPT up to 66B without code for model parallelism.",
    ),
];
