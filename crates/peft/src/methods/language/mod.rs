//! Language adapters (Pfeiffer et al., "MAD-X: An Adapter-Based Framework for Multi-Task Cross-Lingual Transfer", arXiv 2005.00052,
//! section 4): bottleneck adapters behind the feed-forward halves, and an invertible network between embedding and layers whose
//! inverse stands before the head, so that words may be spelt anew while embedding and head stay tied.
//!
//! `[e₁, e₂] = e`, `o₁ = F(e₂) + e₁`, `o₂ = G(o₁) + e₂`; back: `e₂ = o₂ − G(o₁)`, `e₁ = o₁ − F(e₂)`; `F` and `G` are narrow networks of half
//! the width.
//!
//! A task adapter is a bottleneck adapter on top of a frozen language adapter (`--below FOLDER`); the language adapter can be
//! changed for another's under a task adapter that was trained once.
//!
//! Parameters: those of bottleneck adapters, and twice those of a narrow network of `d/2`.

mod demonstrate;

use candle_core::Tensor;
use ounce_eval::method::{Family, Method};
use ounce_train::graph::Weight;
use ounce_train::graph::ops::Kernels;

use super::bottleneck::{Block, Bottleneck, narrow};
use crate::{Error, Result};

const NUMBER: u16 = 27;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "Small models, big impact",
    family: Family::Peft,
    paper: "Small Models, Big Impact: Efficient Corpus and Graph-Based Adaptation of Small Multilingual Language Models for Low-Resource Languages",
    arxiv: Some("2502.10140"),
    gives: "A compact encoder learns one more language from a little text, through whichever adapter serves it best.",
    claim: "Adapters trained on at most 1 GB of text match full fine-tuning, and such small encoders beat LLaMA-3 and GPT-4 in these languages.",
    command: Some("ounce tune ENCODER --method language --data FILE -o ADAPTER"),
    demonstrate: Some(demonstrate::demonstrate),
};

/// What the narrow networks divide their width by.
const REDUCTION: usize = 2;

/// What `F` and `G` are called.
pub(crate) const NAMES: [&str; 2] = ["invertible_f", "invertible_g"];

/// Language adapters are bottleneck adapters whose level has an invertible part around the embedding.
pub type Language = Bottleneck;

/// The invertible network.
#[derive(Debug, Clone)]
pub(crate) struct Invertible {
    f: Block,
    g: Block,
    half: usize,
}

impl Invertible {
    /// One that changes nothing yet.
    pub fn new(name: &str, width: usize, seed: u64) -> Result<Invertible> {
        if !width.is_multiple_of(2) {
            return Err(Error::Option(format!(
                "an invertible adapter halves the residual stream, whose width of {width} is odd; choose bottleneck"
            )));
        }
        let (half, on) = (width / 2, Kernels::default());
        let block = |part: &str| Block::new(&format!("{part}.{name}"), (half, half), REDUCTION, seed, on);
        let [f, g] = NAMES;
        Ok(Invertible { f: block(f)?, g: block(g)?, half })
    }

    /// How many numbers it has for a stream of this width.
    pub fn parameters(width: usize) -> u64 {
        let (half, inner) = (width / 2, narrow(width / 2, REDUCTION));
        2 * (2 * half * inner + half + inner) as u64
    }

    fn halves(&self, x: &Tensor) -> candle_core::Result<[Tensor; 2]> {
        Ok([x.narrow(1, 0, self.half)?.contiguous()?, x.narrow(1, self.half, self.half)?.contiguous()?])
    }

    /// From the embedding to what the layers see.
    pub fn forward(&self, e: &Tensor) -> ounce_train::Result<Tensor> {
        let [e1, e2] = self.halves(e)?;
        let o1 = (self.f.apply(&e2)? + e1)?;
        let o2 = (self.g.apply(&o1)? + e2)?;
        Ok(Tensor::cat(&[o1, o2], 1)?)
    }

    /// From what the last norm gives to what the head sees.
    pub fn backward(&self, o: &Tensor) -> ounce_train::Result<Tensor> {
        let [o1, o2] = self.halves(o)?;
        let e2 = (o2 - self.g.apply(&o1)?)?;
        let e1 = (o1 - self.f.apply(&e2)?)?;
        Ok(Tensor::cat(&[e1, e2], 1)?)
    }

    /// All that it computes with.
    pub fn weights(&self) -> impl Iterator<Item = Weight> + '_ {
        self.f.weights().chain(self.g.weights())
    }
}

#[cfg(test)]
mod tests {
    use super::demonstrate::{Scale, measure, translated};
    use crate::desk::Desk;

    #[test]
    fn a_small_study_gives_sound_evidence() {
        assert_eq!(translated("The cats sleep, a cat."), "The cotsen slaapa, a cat.");
        let scale = Scale { text: 3_000, test: 600, steps: 2, topics: 6, topic_steps: 1, seeds: 1 };
        let evidence = measure(&Desk, &scale).expect("measured");
        evidence.check().expect("sound");
        assert_eq!((evidence.rows.len(), evidence.expectations.len()), (5, 4));
    }
}
