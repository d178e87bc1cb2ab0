//! A small model learns from a large one.

use ounce_eval::method::{Family, Method};

const FAMILY: Family = Family::Distillation;

pub(super) const PLANNED: &[Method] = &[
    Method::planned(
        83,
        "CEMA",
        FAMILY,
        "Towards Robust and Efficient Cloud-Edge Elastic Model Adaptation via Selective Entropy Distillation",
        Some("2402.17316"),
        "Deployed models follow changing inputs: devices send few samples up, a server adapts, and only normalisation parameters come back.",
        "Better than test-time adaptation on ImageNet-C and ImageNet-R with far fewer uploaded samples.",
    ),
    Method::planned(
        91,
        "AGD",
        FAMILY,
        "Efficient Distillation of Classifier-Free Guidance using Adapters",
        Some("2503.07274"),
        "Small adapters give a guided diffusion model in one pass per step instead of two, with the guidance dial kept.",
        "FID as good as or better than with guidance at half the evaluations, training 2 % of extra parameters.",
    ),
];
