//! Fewer weights.

use ounce_eval::method::{Family, Method};

const FAMILY: Family = Family::Pruning;

pub(super) const PLANNED: &[Method] = &[
    Method::planned(
        2,
        "Beta-Rank",
        FAMILY,
        "Beta-Rank: A Robust Convolutional Filter Pruning Method For Imbalanced Medical Image Analysis",
        Some("2304.07461"),
        "Whole filters of a convolutional net are removed without the rare classes of a small, uneven data set being forgotten.",
        "58 % (IDRiD) and 45 % (ISIC) of the FLOPs of ResNet-110 removed at accuracy equal to or above the unpruned net.",
    ),
    Method::planned(
        8,
        "PST",
        FAMILY,
        "Parameter-Efficient Sparsity for Large Language Models Fine-Tuning",
        Some("2205.11005"),
        "A model is fine-tuned and made up to 90 % sparse in the same run, while only a few small matrices are trained.",
        "1.5 % trainable parameters match full sparse training of BERT-base at 50 % and 90 % sparsity.",
    ),
    Method::planned(
        122,
        "Dynamic sparse learning",
        FAMILY,
        "Dynamic Sparse Learning: A Novel Paradigm for Efficient Recommendation",
        Some("2402.02855"),
        "A recommender's embeddings keep within a fixed number of stored weights from the first training step, by pruning and regrowing as it learns.",
        "Ranking quality comparable with distillation, searched sizes and pruning on six data sets at far lower training and inference cost.",
    ),
];
