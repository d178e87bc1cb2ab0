//! Images and video that are generated.

use ounce_eval::method::{Family, Method};

const FAMILY: Family = Family::GenerativeVision;

pub(super) const PLANNED: &[Method] = &[
    Method::planned(
        5,
        "PanGu-Draw",
        FAMILY,
        "PanGu-Draw: Advancing Resource-Efficient Text-to-Image Synthesis with Time-Decoupled Training and Reusable Coop-Diffusion",
        Some("2312.16486"),
        "The two halves of denoising are trained apart and cheaply, and ready models of different kinds cooperate in one sampling run.",
        "48 % less data preparation and 51 % less training, with FID 7.99 on COCO at 5B parameters.",
    ),
    Method::planned(
        13,
        "lambda-ECLIPSE",
        FAMILY,
        "λ-ECLIPSE: Multi-Concept Personalized Text-to-Image Diffusion Models by Leveraging CLIP Latent Space",
        Some("2402.05195"),
        "Pictures of a subject and a sentence give new images of it without tuning per subject, through a small mapper into image embeddings.",
        "34M parameters and 74 A100 hours against 2,304 to 12,300 for rivals, with better composition.",
    ),
    Method::planned(
        34,
        "LD-Pruner",
        FAMILY,
        "LD-Pruner: Efficient Pruning of Latent Diffusion Models using Task-Agnostic Insights",
        Some("2404.11936"),
        "Operators of a denoiser are ranked by how little the final latents change without them, and cut until a speed or size is met.",
        "Stable Diffusion 34.9 % faster with a 5.2 % better FID after fine-tuning.",
    ),
    Method::planned(
        51,
        "KOALA",
        FAMILY,
        "KOALA: Empirical Lessons Toward Memory-Efficient and Fast Diffusion Models for Text-to-Image Synthesis",
        Some("2312.04005"),
        "A large denoiser loses half or two thirds of its size and regains quality by imitating the original's self-attention.",
        "SDXL's UNet 54 and 69 % smaller, the small one more than twice as fast.",
    ),
    Method::planned(
        81,
        "RECE",
        FAMILY,
        "Reliable and Efficient Concept Erasure of Text-to-Image Diffusion Models",
        Some("2407.12383"),
        "A concept is removed from a generator in seconds by solving equations, with a dial for how much else may change.",
        "3 seconds without tuning, more complete than earlier methods and more robust against hostile prompts.",
    ),
    Method::planned(
        84,
        "LEGO bricks",
        FAMILY,
        "Learning Stackable and Skippable LEGO Bricks for Efficient, Reconfigurable, and Variable-Resolution Diffusion Modeling",
        Some("2310.06389"),
        "An image generator is built of bricks that may be skipped at each sampling step and run at sizes it never trained on.",
        "Converges faster than DiT-like and U-Net backbones at comparable quality, and draws panoramas.",
    ),
    Method::planned(
        93,
        "ARLON",
        FAMILY,
        "ARLON: Boosting Diffusion Transformers with Autoregressive Models for Long Video Generation",
        Some("2410.20502"),
        "Long, consistent clips from a small planner that writes coarse tokens and a renderer that then needs fewer steps.",
        "Better than OpenSora-V1.2 on 8 of 11 VBench measures and competitive on three.",
    ),
    Method::planned(
        97,
        "3DIS-FLUX",
        FAMILY,
        "3DIS-FLUX: simple and efficient multi-instance generation with DiT rendering",
        Some("2501.05131"),
        "Several described objects are drawn at given boxes by a generator that isn't retrained, by masking its attention.",
        "Better control and quality than the original 3DIS and trained adapters on COCO-MIG.",
    ),
];
