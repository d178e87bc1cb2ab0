//! Which methods there are, and what is known of each without a model.

use ounce_model::spec::Spec;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The width that usual rates of matrices are meant for.
const WIDE: f64 = 768.0;

/// How many times faster matrices of a model learn than those of a wide one: narrow ones in proportion.
pub(crate) fn of_width(base: &Spec) -> f64 {
    (WIDE / base.hidden_size.max(1) as f64).max(1.0)
}

/// A way to adapt a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // each is described by its facts
pub enum Kind {
    Lora,
    LoraFa,
    Dora,
    Dylora,
    Adalora,
    Vera,
    Svfit,
    Flora,
    Krona,
    Ia3,
    Ssf,
    Bitfit,
    Bottleneck,
    Parallel,
    Mam,
    Compacter,
    Language,
    Prompt,
    PTuning,
    Prefix,
    GatedPrefix,
    Sherl,
    Aside,
    Cloze,
    Crosstune,
}

/// What is known of a method.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// Its name on the command line and in files.
    pub name: &'static str,
    /// What it trains, in one sentence.
    pub gives: &'static str,
    /// The paper's arXiv identifier.
    pub arxiv: &'static str,
    /// Whether what it learned can become part of the base's matrices.
    pub merges: bool,
    /// Its `peft_type` where Python's peft reads and writes the same folders.
    pub peft: Option<&'static str>,
    /// A learning rate that suits it.
    pub rate: f64,
}

/// What a method adds to, takes from or puts in the place of a model: the classes of the surveys 2403.14608 and 2312.12148.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Narrow networks in layers.
    Adapters,
    /// Vectors in front of texts or of keys and values.
    SoftPrompts,
    /// Other things that are added: scales, side networks.
    Added,
    /// Weights of the model itself.
    Selective,
    /// Changes of matrices in another form.
    Reparameterised,
    /// Several of these.
    Hybrid,
}

impl Class {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Class::Adapters => "additive: adapters",
            Class::SoftPrompts => "additive: soft prompts",
            Class::Added => "additive: other",
            Class::Selective => "selective",
            Class::Reparameterised => "reparameterised",
            Class::Hybrid => "hybrid",
        }
    }
}

/// How far gradients go back through the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backward {
    /// To the lowest layer that is adapted, which is the first.
    Whole,
    /// Through the last layers.
    Upper,
    /// Not at all: the model is asked, never changed.
    None,
}

/// What a method costs, by its construction.
#[derive(Debug, Clone, Copy)]
pub struct Nature {
    /// Its class.
    pub class: Class,
    /// How many numbers it trains. Sums are over matrices, halves of layers or layers, as the method's page says.
    pub formula: &'static str,
    /// Whether texts become longer by it, as attention sees them.
    pub grows: bool,
    /// Whether a model that has learned is slower than its base: all that neither merges nor is part of the weights.
    pub delays: bool,
    /// How far gradients go back.
    pub backward: Backward,
    /// Whether it trains matrices, whose learning rates hang on the width of the model.
    pub matrices: bool,
}

impl Kind {
    /// Every method, in the order of the documentation.
    pub const ALL: [Kind; 25] = [
        Kind::Lora,
        Kind::LoraFa,
        Kind::Dora,
        Kind::Dylora,
        Kind::Adalora,
        Kind::Vera,
        Kind::Svfit,
        Kind::Flora,
        Kind::Krona,
        Kind::Ia3,
        Kind::Ssf,
        Kind::Bitfit,
        Kind::Bottleneck,
        Kind::Parallel,
        Kind::Mam,
        Kind::Compacter,
        Kind::Language,
        Kind::Prompt,
        Kind::PTuning,
        Kind::Prefix,
        Kind::GatedPrefix,
        Kind::Sherl,
        Kind::Aside,
        Kind::Cloze,
        Kind::Crosstune,
    ];

    /// What is known of it.
    pub fn facts(self) -> Facts {
        let facts = |name, gives, arxiv, merges, peft, rate| Facts { name, gives, arxiv, merges, peft, rate };
        match self {
            Kind::Lora => facts(
                "lora",
                "A product of two thin matrices beside each matrix.",
                "2106.09685",
                true,
                Some("LORA"),
                3e-4,
            ),
            Kind::LoraFa => facts(
                "lora-fa",
                "LoRA whose first matrix stays as it was drawn.",
                "2308.03303",
                true,
                Some("LORA"),
                1e-3,
            ),
            Kind::Krona => {
                facts("krona", "A Kronecker product beside each matrix.", "2212.10650", true, None, 1e-3)
            }
            Kind::Ssf => facts(
                "ssf",
                "Vectors that scale and shift what leaves linear layers.",
                "2210.08823",
                false,
                None,
                3e-3,
            ),
            Kind::Mam => facts(
                "mam",
                "Short prefixes, and narrow networks beside each feed-forward half.",
                "2110.04366",
                false,
                None,
                1e-3,
            ),
            Kind::Dora => facts(
                "dora",
                "LoRA for the direction of each row, and a number for its length.",
                "2402.09353",
                true,
                Some("LORA"),
                3e-4,
            ),
            Kind::Dylora => facts(
                "dylora",
                "LoRA that works at every rank up to its own.",
                "2210.07558",
                true,
                Some("LORA"),
                5e-4,
            ),
            Kind::Adalora => facts(
                "adalora",
                "LoRA in the form of singular values, whose budget goes where it matters.",
                "2303.10512",
                true,
                Some("ADALORA"),
                1e-3,
            ),
            Kind::Vera => facts(
                "vera",
                "Vectors that scale two random matrices, which all layers share.",
                "2310.11454",
                true,
                Some("VERA"),
                1e-2,
            ),
            Kind::Svfit => {
                facts("svfit", "The largest singular values of each matrix.", "2409.05926", true, None, 3e-3)
            }
            Kind::Flora => facts(
                "flora",
                "A core and two factors beside each matrix (Tucker).",
                "2405.14739",
                true,
                None,
                1e-3,
            ),
            Kind::Ia3 => facts(
                "ia3",
                "Vectors that scale keys, values and inner activations.",
                "2205.05638",
                true,
                Some("IA3"),
                8e-3,
            ),
            Kind::Bitfit => facts("bitfit", "The biases that the model has.", "2106.10199", true, None, 1e-3),
            Kind::Bottleneck => facts(
                "bottleneck",
                "A narrow network behind each half of a layer.",
                "1902.00751",
                false,
                None,
                1e-3,
            ),
            Kind::Parallel => facts(
                "parallel",
                "A narrow network beside each feed-forward half.",
                "2110.04366",
                false,
                None,
                1e-3,
            ),
            Kind::Compacter => facts(
                "compacter",
                "Narrow networks of shared Kronecker factors.",
                "2106.04647",
                false,
                None,
                1e-3,
            ),
            Kind::Language => facts(
                "language",
                "Narrow networks and an invertible one around the embedding, to stack others on.",
                "2005.00052",
                false,
                None,
                1e-3,
            ),
            Kind::Prompt => facts(
                "prompt",
                "Vectors in front of each text.",
                "2104.08691",
                false,
                Some("PROMPT_TUNING"),
                3e-2,
            ),
            Kind::PTuning => facts(
                "p-tuning",
                "Vectors in front of each text, made by a small network.",
                "2103.10385",
                false,
                Some("P_TUNING"),
                3e-3,
            ),
            Kind::Prefix => facts(
                "prefix",
                "Keys and values in front of each layer's own.",
                "2101.00190",
                false,
                Some("PREFIX_TUNING"),
                1e-2,
            ),
            Kind::GatedPrefix => facts(
                "gated-prefix",
                "Prefixes of the last layers behind gates that begin closed.",
                "2303.16199",
                false,
                None,
                9e-3,
            ),
            Kind::Sherl => facts(
                "sherl",
                "A side network that fuses what frozen early layers show.",
                "2407.07523",
                false,
                None,
                1e-3,
            ),
            Kind::Aside => facts(
                "aside",
                "Narrow networks behind the halves of layers, and modules aside that link them.",
                "2208.09847",
                false,
                None,
                1e-3,
            ),
            Kind::Cloze => facts(
                "cloze",
                "Soft words of a template, and vectors of labels, on a masked language model.",
                "2205.05535",
                false,
                None,
                1e-3,
            ),
            Kind::Crosstune => facts(
                "crosstune",
                "A head on the states of an encoder, which knows labels by descriptions.",
                "2403.12468",
                false,
                None,
                1e-3,
            ),
        }
    }

    /// The learning rate that is usual for it on a model of that shape.
    pub fn usual_rate(self, base: &Spec) -> f64 {
        let rate = self.facts().rate;
        if self.nature().matrices { rate * of_width(base) } else { rate }
    }

    /// What it costs.
    pub fn nature(self) -> Nature {
        use Class::{Adapters, Added, Hybrid, Reparameterised, Selective, SoftPrompts};
        let (class, formula, matrices) = match self {
            Kind::Lora | Kind::Dylora => (Reparameterised, "Σ r (in + out)", true),
            Kind::LoraFa => (Reparameterised, "Σ r out", true),
            Kind::Krona => (Reparameterised, "Σ a₁ a₂ + b₁ b₂", true),
            Kind::Ssf => (Added, "Σ 2 out", false),
            Kind::Mam => (Hybrid, "2 n L kv + Σ 2 d m + d + m", true),
            Kind::Dora => (Reparameterised, "Σ r (in + out) + out", true),
            Kind::Adalora => (Reparameterised, "Σ r₀ (in + out + 1)", true),
            Kind::Vera => (Reparameterised, "Σ r + out", false),
            Kind::Svfit => (Reparameterised, "Σ r", false),
            Kind::Flora => (Reparameterised, "Σ r (in + out) + r²", true),
            Kind::Ia3 => (Added, "Σ out of keys and values + Σ in of down", false),
            Kind::Bitfit => (Selective, "Σ out of layers with a bias", false),
            Kind::Bottleneck => (Adapters, "Σ 2 d m + d + m", true),
            Kind::Parallel => (Adapters, "Σ 2 d m + d + m", true),
            Kind::Compacter => (Hybrid, "n³ + Σ 3 (d + m) + norms", true),
            Kind::Language => (Adapters, "Σ 2 d m + d + m, and 2 (d m' + d/2 + m')", true),
            Kind::Prompt => (SoftPrompts, "n d", false),
            Kind::PTuning => (SoftPrompts, "n d + 3 (d² + d)", true),
            Kind::Prefix => (SoftPrompts, "2 n L kv", false),
            Kind::GatedPrefix => (SoftPrompts, "L (n d + 1)", false),
            Kind::Sherl => (Added, "N (d h + 3 h) + d h + 3 d + h + 2", true),
            Kind::Aside => (Adapters, "L (2 d r + r² + r) + Σ 2 d m + d + m", true),
            Kind::Cloze => (SoftPrompts, "n d + C (d + 1)", false),
            Kind::Crosstune => (Added, "6 p d + d² + p + 5 d", true),
        };
        let prompts = class == SoftPrompts || self == Kind::Mam;
        Nature {
            class,
            formula,
            grows: prompts,
            delays: !self.facts().merges,
            backward: match self {
                Kind::Sherl => Backward::Upper,
                Kind::Crosstune => Backward::None,
                _ => Backward::Whole,
            },
            matrices,
        }
    }

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The method of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn parse(name: &str) -> Result<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            Error::Option(format!("there is no method {name:?}; there are {}", names.join(", ")))
        })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
