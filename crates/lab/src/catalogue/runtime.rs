//! Running: caches, decoding, early exits, several machines.

use ounce_eval::method::{Family, Method};

const FAMILY: Family = Family::Runtime;

pub(super) const PLANNED: &[Method] = &[
    Method::planned(
        23,
        "DeeR-VLA",
        FAMILY,
        "DeeR-VLA: Dynamic Inference of Multimodal Large Language Models for Efficient Robot Execution",
        Some("2411.02359"),
        "Limits on mean compute, peak compute and memory are turned into exit thresholds for a model that controls something step by step.",
        "5.2 to 6.5 times less compute and 2 to 6 times less memory on CALVIN without loss.",
    ),
    Method::planned(
        46,
        "CE-CoLLM",
        FAMILY,
        "CE-CoLLM: Efficient and Adaptive Large Language Models Through Cloud-Edge Collaboration",
        Some("2411.02829"),
        "The first layers run on a weak machine, confident tokens end there, hard ones ask a server, and work goes on when the network is gone.",
        "Up to 84.55 % less cloud computation and 13.81 % less time than cloud only at comparable accuracy.",
    ),
    Method::planned(
        49,
        "Dolphin",
        FAMILY,
        "Dolphin: Long Context as a New Modality for Energy-Efficient On-Device Language Models",
        Some("2408.15518"),
        "A small decoder condenses a long document into a few memory vectors that the main model reads in its place.",
        "Ten times less energy and five times lower latency than full context without loss, by a 0.5B beside a 7B decoder.",
    ),
    Method::planned(
        65,
        "TPI-LLM",
        FAMILY,
        "TPI-LLM: Serving 70B-scale LLMs Efficiently on Low-resource Edge Devices",
        Some("2410.00531"),
        "Models larger than memory run on one or more small machines, their weights streaming from disk while others compute.",
        "Llama-2-70B in 3.1 GB per device on eight devices, with over 80 % less time to the first token than Accelerate.",
    ),
    Method::planned(
        78,
        "Lamina",
        FAMILY,
        "Efficient and Economic Large Language Model Inference with Attention Offloading",
        Some("2405.01814"),
        "Attention runs on cheap machines with much memory and the rest on fast ones, in the split that gives the most tokens per cost.",
        "1.48 to 12.1 times higher estimated throughput per dollar than serving on equal machines.",
    ),
    Method::planned(
        92,
        "Llumnix",
        FAMILY,
        "Llumnix: Dynamic Scheduling for Large Language Model Serving",
        Some("2406.03243"),
        "Requests move between running servers together with their caches, which keeps the slowest answers quick and respects priorities.",
        "Tail latency better by an order of magnitude, urgent requests up to 1.5 times faster, costs up to 36 % lower.",
    ),
    Method::planned(
        111,
        "BASED",
        FAMILY,
        "Simple linear attention language models balance the recall-throughput tradeoff",
        Some("2402.18668"),
        "A language model with a state of fixed size whose recall is bought by the byte, through linear attention and a short window.",
        "Perplexity of Mamba up to 1.3B, 6.22 points more on recall tasks, and 24 times FlashAttention-2's generation throughput.",
    ),
    Method::planned(
        113,
        "Continual inference and SPA",
        FAMILY,
        "Efficient Online Processing with Deep Neural Networks (thesis; its adapters also appeared as Structured Pruning Adapters)",
        Some("2211.10155"),
        "A model for clips becomes a stream model with the same outputs for a fraction of the work, and pruned task versions share one backbone.",
        "Ten times fewer FLOPs a prediction, and pruning adapters gain 6.9 % at 90 % pruning with half the parameters.",
    ),
];
