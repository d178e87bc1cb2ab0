//! The options of all methods; each reads those that concern it.

use ounce_model::spec::Spec;
use serde::{Deserialize, Serialize};

use crate::methods::cloze::Cloze;
use crate::methods::crosstune::Cross;
use crate::retrieval::Retrieval;
use crate::{Error, Kind, Result};

/// Which linear layers are adapted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Targets {
    /// By the last part of their names (`query`), in every layer; experts' only if `experts` is among them.
    Parts(Vec<String>),
    /// By their names (`layers.3.attention.query`).
    Slots(Vec<String>),
}

/// The parts that targets may be.
const PARTS: [&str; 8] = ["query", "key", "value", "output", "gate", "up", "down", "experts"];

impl Targets {
    /// These parts of every layer.
    pub fn parts(parts: &[&str]) -> Targets {
        Targets::Parts(parts.iter().map(|part| (*part).to_owned()).collect())
    }

    /// As a user writes them: `query,value`, Hugging Face's `q_proj`, or `all`.
    ///
    /// # Errors
    /// If a part is unknown.
    pub fn parse(text: &str) -> Result<Targets> {
        let mut parts = Vec::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "all" | "all-linear" => parts.extend(PARTS[..7].iter().map(|part| (*part).to_owned())),
                "attention" => parts.extend(PARTS[..4].iter().map(|part| (*part).to_owned())),
                "feed_forward" | "mlp" => parts.extend(PARTS[4..7].iter().map(|part| (*part).to_owned())),
                _ => {
                    let short = match word.trim_end_matches("_proj") {
                        "q" => "query",
                        "k" => "key",
                        "v" => "value",
                        "o" => "output",
                        other => other,
                    };
                    if !PARTS.contains(&short) {
                        return Err(Error::Option(format!(
                            "{word:?} is no part of a layer; targets are {}, attention, mlp or all",
                            PARTS.join(", ")
                        )));
                    }
                    parts.push(short.to_owned());
                }
            }
        }
        if parts.is_empty() {
            return Err(Error::Option("no targets are named; give parts of layers, or all".into()));
        }
        parts.sort_by_key(|part| PARTS.iter().position(|known| known == part));
        parts.dedup();
        Ok(Targets::Parts(parts))
    }

    /// Whether the layer of that name is one.
    pub fn chooses(&self, slot: &str) -> bool {
        match self {
            Targets::Slots(slots) => slots.iter().any(|it| it == slot),
            Targets::Parts(parts) => {
                let part = slot.rsplit('.').next().unwrap_or_default();
                let inner = slot.contains(".experts.") || slot.contains(".shared.");
                slot.starts_with("layers.")
                    && parts.iter().any(|it| it == part)
                    && (!inner || parts.iter().any(|it| it == "experts"))
            }
        }
    }

    /// The layers of a model that are chosen: name, outputs, inputs.
    pub fn of(&self, spec: &Spec) -> Vec<(String, usize, usize)> {
        let tensors = spec.tensors().into_iter().filter(|tensor| tensor.shape.len() == 2);
        let linears = tensors.filter_map(|tensor| {
            let slot = tensor.name.strip_suffix(".weight")?;
            self.chooses(slot).then(|| (slot.to_owned(), tensor.shape[0], tensor.shape[1]))
        });
        linears.collect()
    }
}

/// The options of all methods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The method.
    pub method: Kind,
    /// Which layers are adapted.
    pub targets: Targets,
    /// r: width between thin matrices; singular values (svfit; 0 for all); width of SHERL's side network (0 for half).
    pub rank: usize,
    /// α; what is added is scaled by α/r, or α/√r.
    pub alpha: f64,
    /// The share of a layer's inputs that an adapter does not see in a training step.
    pub dropout: f64,
    /// Scale by α/√r (rsLoRA).
    pub rslora: bool,
    /// Begin with the largest singular vectors (PiSSA).
    pub pissa: bool,
    /// LoRA+: the rate of B as a multiple of A's.
    pub plus: f64,
    /// Rank that AdaLoRA begins with.
    pub initial_rank: usize,
    /// Steps of the whole run, for budgets that change as it goes; 0 if unknown.
    pub steps: u64,
    /// Vectors in front of a text.
    pub tokens: usize,
    /// Width by which that of a narrow network is smaller.
    pub reduction: usize,
    /// n of parametrised hypercomplex layers.
    pub blocks: usize,
    /// The last layers that take part (gated-prefix, sherl).
    pub layers: usize,
    /// What random numbers begin with.
    pub seed: u64,
    /// Weights of the model itself that are trained besides, by the beginnings of their names: a new head.
    pub trains: Vec<String>,
    /// The language adapters that lie under this one, from the bottom.
    pub below: Vec<Settings>,
    /// Labels are words that fill a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloze: Option<Cloze>,
    /// Labels are known by descriptions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross: Option<Cross>,
    /// Passages are ranked for queries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retrieval: Option<Retrieval>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            method: Kind::Lora,
            targets: Targets::parts(&PARTS[..7]),
            rank: 8,
            alpha: 16.0,
            dropout: 0.0,
            rslora: false,
            pissa: false,
            plus: 1.0,
            initial_rank: 12,
            steps: 0,
            tokens: 16,
            reduction: 16,
            blocks: 4,
            layers: 2,
            seed: 1,
            trains: Vec::new(),
            below: Vec::new(),
            cloze: None,
            cross: None,
            retrieval: None,
        }
    }
}

impl Settings {
    /// What suits a method.
    pub fn of(method: Kind) -> Settings {
        let base = Settings { method, ..Settings::default() };
        match method {
            Kind::Vera => Settings { rank: 256, ..base },
            Kind::Svfit => Settings { rank: 0, ..base },
            Kind::Flora => Settings { alpha: 8.0, ..base },
            Kind::Krona => Settings { alpha: 8.0, ..base },
            Kind::Mam => Settings { tokens: 8, ..base },
            Kind::Dylora => Settings { rank: 16, alpha: 16.0, ..base },
            Kind::Adalora => Settings { alpha: 32.0, ..base },
            Kind::Ia3 => Settings { targets: Targets::parts(&["key", "value", "down"]), ..base },
            Kind::Bottleneck | Kind::Aside => {
                Settings { targets: Targets::parts(&["output", "down"]), ..base }
            }
            Kind::Language => Settings { targets: Targets::parts(&["down"]), ..base },
            Kind::Compacter => {
                Settings { targets: Targets::parts(&["output", "down"]), reduction: 32, ..base }
            }
            Kind::Prefix => Settings { tokens: 20, ..base },
            Kind::GatedPrefix => Settings { tokens: 10, layers: usize::MAX, ..base },
            Kind::Sherl => Settings { rank: 0, ..base },
            _ => base,
        }
    }

    /// The factor on what is added: α/r, or α/√r.
    pub fn scale(&self, rank: usize) -> f64 {
        let rank = rank.max(1) as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Refuses what no method can do.
    ///
    /// # Errors
    /// In one sentence.
    pub fn check(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::Option(format!(
                "dropout should be from 0 to below 1, found {}",
                self.dropout
            )));
        }
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return Err(Error::Option(format!("alpha should be above 0, found {}", self.alpha)));
        }
        if !(self.plus >= 1.0 && self.plus.is_finite()) {
            return Err(Error::Option(format!(
                "the ratio of LoRA+ should be 1 or more, found {}",
                self.plus
            )));
        }
        if self.method == Kind::Cloze
            && !self.cloze.as_ref().is_some_and(|it| it.soft || it.template.soft().next().is_some())
        {
            return Err(Error::Option(
                "a template of given words has nothing to train; put words in {braces}, or give --soft-template N, --soft-verbalizer or \
                 --method with what lies under it"
                    .into(),
            ));
        }
        if self.pissa && self.method != Kind::Lora {
            return Err(Error::Option(format!(
                "PiSSA is a way to begin LoRA; {} begins otherwise",
                self.method
            )));
        }
        Ok(())
    }

    /// Checks a rank against the sides of a matrix.
    ///
    /// # Errors
    /// If it is 0, or above the smaller side.
    pub fn check_rank(&self, rank: usize, slot: &str, output: usize, input: usize) -> Result<()> {
        let most = output.min(input);
        if rank == 0 || rank > most {
            return Err(Error::Option(format!(
                "a rank of {rank} does not fit {slot}, which is {output} × {input}; choose 1 to {most}"
            )));
        }
        Ok(())
    }
}
