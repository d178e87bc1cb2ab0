//! Routing between models, and retrieval.

use ounce_eval::method::{Family, Method};

const FAMILY: Family = Family::Retrieval;

pub(super) const PLANNED: &[Method] = &[
    Method::planned(
        19,
        "Prompt selection",
        FAMILY,
        "Improving Probability-based Prompt Selection Through Unified Evaluation and Analysis",
        Some("2305.14877"),
        "Among many candidate prompts, the one that suits the model is found without a single label, and its predictions are calibrated.",
        "Selection rises from 87.79 % of the oracle to 94.98 %, and to 99.44 % with calibration, over 13 tasks and 10 models.",
    ),
    Method::planned(
        33,
        "Massive tool retrieval",
        FAMILY,
        "Data-Efficient Massive Tool Retrieval: A Reinforcement Learning Approach for Query-Tool Alignment with Language Models",
        Some("2410.03212"),
        "A few sample requests train a small rewriter that finds all needed commands among thousands.",
        "All needed tools are found up to 93.28 % more often, and 78.53 % more often with one labelled sample.",
    ),
    Method::planned(
        35,
        "Low-resource OpenQA",
        FAMILY,
        "Building Efficient and Effective OpenQA Systems for Low-Resource Languages",
        Some("2401.03590"),
        "Question answering over one's own documents in another language, trained on translated data and measured with honest error bars.",
        "24 to 32 % better exact match than readers on BM25 or DPR in Turkish, judged by a few hundred questions.",
    ),
    Method::planned(
        58,
        "TILDEv2",
        FAMILY,
        "Fast Passage Re-ranking with Contextualized Exact Term Matching and Efficient Passage Expansion",
        Some("2108.08513"),
        "A thousand search hits are re-ranked on a CPU in milliseconds, because each passage's term weights were computed beforehand.",
        "Indexes 99 % smaller than TILDE's (4 against 500 GB) and 24 % better ranking, in under 100 ms.",
    ),
    Method::planned(
        100,
        "Composition of experts",
        FAMILY,
        "Composition of Experts: A Modular Compound AI System Leveraging Large Language Models",
        Some("2412.01868"),
        "Each prompt goes to the cheapest registered model that is good at prompts of its kind, within a total size.",
        "Arena-Hard 59.4 with 31B and MT-Bench 9.06 with 54B active parameters on average.",
    ),
    Method::planned(
        107,
        "Routing survey",
        FAMILY,
        "Doing More with Less: A Survey on Routing Strategies for Resource Optimisation in LLM-based systems",
        Some("2502.00409"),
        "A table of one's own queries, qualities and costs is enough to compare many routing strategies and choose one.",
        "Routing stated as optimisation under a budget, sorted by when and from what it decides.",
    ),
    Method::planned(
        110,
        "MassiveDS",
        FAMILY,
        "Scaling Retrieval-Based Language Models with a Trillion-Token Datastore",
        Some("2407.12854"),
        "A collection of passages is attached to a small model, and one pass draws the curve of quality over collection size.",
        "Quality grows steadily up to 1.4 trillion tokens, and a small model with them beats a larger one without.",
    ),
];
