//! Speech.

use ounce_eval::method::{Family, Method};

const FAMILY: Family = Family::Speech;

pub(super) const PLANNED: &[Method] = &[
    Method::planned(
        12,
        "Shrutilipi",
        FAMILY,
        "Effectiveness of Mining Audio and Text Pairs from Public Data for Improving ASR Systems for Low-Resource Languages",
        Some("2208.12666"),
        "Long recordings and untidy documents are aligned into clean pairs of sound and sentence, each with a quality score.",
        "6,400 hours in 12 Indian languages, 5.8 % lower mean word error, and Hindi from 18.8 to 13.5 %.",
    ),
    Method::planned(
        39,
        "TODM",
        FAMILY,
        "TODM: Train Once Deploy Many Efficient Supernet-Based RNN-T Compression For On-device ASR Models",
        Some("2309.01947"),
        "A speech recogniser is trained once and exported in any of several sizes, each as good as if trained for itself.",
        "Sub-networks match or beat single models by up to 3 % relative word error, for about one training job.",
    ),
    Method::planned(
        77,
        "OSUM",
        FAMILY,
        "OSUM: Advancing Open Speech Understanding Models with Limited Resources in Academia",
        Some("2501.13306"),
        "A speech encoder on a small language model learns recognition and several further tasks together without coming apart.",
        "Eight speech tasks trained stably from about 50.5k hours, with recipes and data preparation open.",
    ),
];
