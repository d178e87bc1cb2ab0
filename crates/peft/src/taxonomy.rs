//! Methods that the surveys "Parameter-Efficient Fine-Tuning for Large Models" (arXiv 2403.14608) and "Parameter-Efficient
//! Fine-Tuning Methods for Pretrained Language Models" (arXiv 2312.12148) sort into classes, and by what ounce has each, or that it
//! hasn't.

use serde::Serialize;

use crate::Kind;

/// By what ounce has a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Covered {
    /// A method of its own.
    Method(Kind),
    /// A method with these settings, or a command.
    By(Kind, &'static str),
    /// A command that is no adapter's.
    Command(&'static str),
    /// Not at all.
    No,
}

/// A method of a survey.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// Its class and part of it.
    pub class: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Whether ounce has it.
    pub covered: Covered,
}

/// A row of the table, as it is printed.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its class and part of it.
    pub class: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Whether ounce has it.
    pub covered: bool,
    /// By what.
    pub by: Option<String>,
}

impl Member {
    /// As it is printed.
    pub fn row(&self) -> Row {
        let by = match self.covered {
            Method(kind) => Some(format!("--method {kind}")),
            By(kind, how) => Some(format!("--method {kind} {how}")),
            Command(command) => Some(command.to_owned()),
            No => None,
        };
        Row { class: self.class, name: self.name, covered: by.is_some(), by }
    }
}

use Covered::{By, Command, Method, No};

const fn member(class: &'static str, name: &'static str, covered: Covered) -> Member {
    Member { class, name, covered }
}

const ADAPTERS: &str = "additive: adapters";
const PROMPTS: &str = "additive: soft prompts";
const ADDED: &str = "additive: other";
const UNSTRUCTURED: &str = "selective: single weights";
const STRUCTURED: &str = "selective: parts";
const LOW_RANK: &str = "reparameterised: low rank";
const DERIVED: &str = "reparameterised: derivatives of LoRA";
const MANUAL: &str = "hybrid: by hand";
const AUTOMATIC: &str = "hybrid: searched";
const UNIFIED: &str = "unified and pruned";
const MEMORY: &str = "efficiency: memory and quantized bases";
const SYSTEMS: &str = "systems";

/// The table.
pub const MEMBERS: &[Member] = &[
    member(ADAPTERS, "sequential adapters (Houlsby)", Method(Kind::Bottleneck)),
    member(
        ADAPTERS,
        "adapters behind the feed-forward half (Pfeiffer)",
        By(Kind::Bottleneck, "--targets down"),
    ),
    member(ADAPTERS, "parallel adapters", Method(Kind::Parallel)),
    member(ADAPTERS, "MAD-X", By(Kind::Language, "and --method bottleneck --below")),
    member(ADAPTERS, "connected inside and aside modules (IAA)", Method(Kind::Aside)),
    member(ADAPTERS, "CoDA", No),
    member(ADAPTERS, "AdapterFusion", No),
    member(ADAPTERS, "AdaMix", No),
    member(ADAPTERS, "AdapterSoup", No),
    member(ADAPTERS, "Tiny-Attn", No),
    member(PROMPTS, "prompt tuning", Method(Kind::Prompt)),
    member(PROMPTS, "prefix tuning", Method(Kind::Prefix)),
    member(PROMPTS, "P-tuning", Method(Kind::PTuning)),
    member(PROMPTS, "soft templates and verbalizers", Method(Kind::Cloze)),
    member(PROMPTS, "LLaMA-Adapter", Method(Kind::GatedPrefix)),
    member(PROMPTS, "P-tuning v2", By(Kind::Prefix, "with a new head")),
    member(PROMPTS, "SPoT", No),
    member(PROMPTS, "ATTEMPT", No),
    member(PROMPTS, "MPT", No),
    member(PROMPTS, "IPT", No),
    member(PROMPTS, "SPT", No),
    member(PROMPTS, "SMoP", No),
    member(PROMPTS, "DEPT", No),
    member(PROMPTS, "InfoPrompt", No),
    member(ADDED, "cross-attention over label descriptions (CrossTune)", Method(Kind::Crosstune)),
    member(ADDED, "(IA)³", Method(Kind::Ia3)),
    member(ADDED, "side networks: SHERL", Method(Kind::Sherl)),
    member(ADDED, "side networks: LST", No),
    member(ADDED, "SSF", Method(Kind::Ssf)),
    member(ADDED, "IPA", No),
    member(ADDED, "PASTA", No),
    member(ADDED, "AttentionFusion", No),
    member(UNSTRUCTURED, "diff pruning", No),
    member(UNSTRUCTURED, "FISH mask", No),
    member(UNSTRUCTURED, "PaFi, threshold mask", No),
    member(UNSTRUCTURED, "Child-tuning", No),
    member(UNSTRUCTURED, "LT-SFT", No),
    member(UNSTRUCTURED, "SAM", No),
    member(STRUCTURED, "BitFit", Method(Kind::Bitfit)),
    member(STRUCTURED, "any parts by name", Command("model.trains of ounce train")),
    member(STRUCTURED, "Xattn tuning", No),
    member(STRUCTURED, "FAR", No),
    member(STRUCTURED, "S-BitFit, U-BitFit", No),
    member(LOW_RANK, "LoRA", Method(Kind::Lora)),
    member(LOW_RANK, "FLoRA (Tucker)", Method(Kind::Flora)),
    member(LOW_RANK, "VeRA", Method(Kind::Vera)),
    member(LOW_RANK, "singular values: SVFit", Method(Kind::Svfit)),
    member(LOW_RANK, "intrinsic SAID", No),
    member(LOW_RANK, "KronA, LoKr", Method(Kind::Krona)),
    member(LOW_RANK, "LoHa", No),
    member(DERIVED, "DyLoRA", Method(Kind::Dylora)),
    member(DERIVED, "AdaLoRA", Method(Kind::Adalora)),
    member(DERIVED, "DoRA", Method(Kind::Dora)),
    member(DERIVED, "PiSSA", By(Kind::Lora, "--pissa")),
    member(DERIVED, "rsLoRA", By(Kind::Lora, "--rslora")),
    member(DERIVED, "LoRA+", By(Kind::Lora, "--plus")),
    member(DERIVED, "LoRA-FA", Method(Kind::LoraFa)),
    member(DERIVED, "LongLoRA", No),
    member(DERIVED, "MoLoRA, LoRAHub", No),
    member(MANUAL, "Compacter", Method(Kind::Compacter)),
    member(MANUAL, "MAM", Method(Kind::Mam)),
    member(MANUAL, "U-MAM, UniPELT", No),
    member(AUTOMATIC, "AutoPEFT, NOAH, S4, S3Delta-M", No),
    member(UNIFIED, "SparseAdapter, AdapterDrop, ProPETL", No),
    member(MEMORY, "QLoRA", By(Kind::Lora, "on a quantized model")),
    member(MEMORY, "LoftQ, QA-LoRA, BI-Adapter", No),
    member(MEMORY, "MeZO", No),
    member(MEMORY, "MEFT", No),
    member(SYSTEMS, "many adapters in one batch (S-LoRA, Punica, PetS)", Command("ounce serve --lora")),
    member(SYSTEMS, "many adapters trained at once (mLoRA)", No),
    member(SYSTEMS, "offsite and private tuning", No),
    member(SYSTEMS, "federated adapters", No),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_stands_in_the_table_under_its_class() {
        for kind in Kind::ALL {
            let class = kind.nature().class.name();
            let own = MEMBERS.iter().find(|it| matches!(it.covered, Method(k) | By(k, _) if k == kind));
            let own = own.unwrap_or_else(|| panic!("{kind} is missing"));
            assert!(own.class.starts_with(class), "{kind}: {class} and {}", own.class);
        }
        for (at, member) in MEMBERS.iter().enumerate() {
            assert!(MEMBERS[..at].iter().all(|it| it.name != member.name), "{} twice", member.name);
        }
    }
}
