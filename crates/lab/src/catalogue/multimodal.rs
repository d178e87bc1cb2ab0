//! Text together with images, charts and video.

use ounce_eval::method::{Family, Method};

const FAMILY: Family = Family::Multimodal;

pub(super) const PLANNED: &[Method] = &[
    Method::planned(
        29,
        "HiRED",
        FAMILY,
        "HiRED: Attention-Guided Token Dropping for Efficient Inference of High-Resolution Vision-Language Models",
        Some("2408.10945"),
        "A picture may take at most so many tokens, and the encoder's own attention keeps the ones that matter, without training.",
        "4.7 times the throughput at a 20 % budget on LLaVA-Next-7B, first token 15 seconds sooner, 2.3 GB less.",
    ),
    Method::planned(
        44,
        "SimVLG",
        FAMILY,
        "Expedited Training of Visual Conditioned Language Generation via Redundancy Reduction",
        Some("2310.03291"),
        "A frozen image encoder and a frozen language model are joined in one run by a connector that gradually merges tokens.",
        "Five times faster training than in two stages without a noticeable loss, or equal with a tenth of the data.",
    ),
    Method::planned(
        54,
        "TinyChart",
        FAMILY,
        "TinyChart: Efficient Chart Understanding with Visual Token Merging and Program-of-Thoughts Learning",
        Some("2404.16635"),
        "Questions on a chart are answered by a short program that is then run, from an image merged to few tokens.",
        "A 3B model beats 13B chart models and GPT-4V on ChartQA at higher throughput.",
    ),
    Method::planned(
        86,
        "ADEM-VL",
        FAMILY,
        "ADEM-VL: Adaptive and Embedded Fusion for Efficient Vision-Language Tuning",
        Some("2410.17779"),
        "A text model sees images through attention without parameters, at no extra sequence length and with only a small projector trained.",
        "0.77 % better average on ScienceQA than earlier methods at lower training and inference latency.",
    ),
    Method::planned(
        89,
        "LOOK-M",
        FAMILY,
        "LOOK-M: Look-Once Optimization in KV Cache for Efficient Multimodal Long-Context Inference",
        Some("2406.18139"),
        "After many images were read, the cache keeps text first and merges the image entries it drops, with no tuning.",
        "A cache up to 80 % smaller and decoding up to 1.5 times faster at kept quality.",
    ),
    Method::planned(
        106,
        "PLLaVA",
        FAMILY,
        "PLLaVA: Parameter-free LLaVA Extension from Images to Videos for Video Dense Captioning",
        Some("2404.16994"),
        "A model trained on images reads video: pooling holds the tokens of all frames to a fixed number.",
        "3.48 of 5 on Video-ChatGPT and 58.1 % on MVBench, 14.5 % above GPT4V by image grid.",
    ),
];
