//! Many machines that keep their data.

use ounce_eval::method::{Family, Method};

const FAMILY: Family = Family::Federated;

pub(super) const PLANNED: &[Method] = &[
    Method::planned(
        18,
        "FederatedScope-LLM",
        FAMILY,
        "FederatedScope-LLM: A Comprehensive Package for Fine-tuning Large Language Models in Federated Learning",
        Some("2309.00363"),
        "Fine-tuning over clients who keep their texts is simulated on one machine, with quality and traffic per client for every choice made.",
        "Federated tuning beats local and stays below central training, and LoRA is the strongest adapter.",
    ),
    Method::planned(
        26,
        "FedSpine",
        FAMILY,
        "Efficient Deployment of Large Language Models on Resource-constrained Devices",
        Some("2501.02438"),
        "Slow and fast devices tune a model together, and each ends with a pruned version of its own size that nobody had to plan.",
        "1.4 to 6.9 times faster on 80 devices with 0.4 to 4.5 % more accuracy at equal sparsity.",
    ),
    Method::planned(
        28,
        "SFPrompt",
        FAMILY,
        "SFPrompt: Communication-Efficient Split Federated Fine-Tuning for Large Pre-Trained Models over Resource-Limited Devices",
        Some("2407.17533"),
        "Weak devices hold the two ends of a model and a soft prompt, so private data can tune a model that wouldn't fit there.",
        "0.46 % of the local compute of full federated tuning and 53 % less traffic for ViT-base.",
    ),
    Method::planned(
        52,
        "pFedGate",
        FAMILY,
        "Efficient Personalized Federated Learning via Sparse Model-Adaptation",
        Some("2305.02776"),
        "Every device uses and uploads just the share of a common model it can afford, picked for its data batch by batch.",
        "Better accuracy and cost together than earlier personalised methods, also for new clients.",
    ),
    Method::planned(
        64,
        "FedZip",
        FAMILY,
        "FedZip: A Compression Framework for Communication-Efficient Federated Learning",
        Some("2102.01593"),
        "Updates between machines shrink by pruning, clustering and entropy coding, and the same codec packs any difference of weights.",
        "Up to 1085 times smaller updates and 99 % less traffic at kept accuracy.",
    ),
    Method::planned(
        82,
        "FedPipe",
        FAMILY,
        "Automated Federated Pipeline for Parameter-Efficient Fine-Tuning of Large Language Models",
        Some("2404.06448"),
        "Unequal machines tune one model, and each is told which matrices, which rank, batch and bit width suit it.",
        "Faster and more accurate than full tuning, LoRA and FedAdapter across federated BERT and GPT-2.",
    ),
    Method::planned(
        96,
        "pFedPG",
        FAMILY,
        "Efficient Model Personalization in Federated Learning via Client-Specific Prompt Generation",
        Some("2308.15367"),
        "Clients of one frozen model each get visual prompts from a server that learns from all of them, in messages of a few KB.",
        "Better than personalised federated baselines under domain shift and uneven labels at tiny traffic.",
    ),
];
