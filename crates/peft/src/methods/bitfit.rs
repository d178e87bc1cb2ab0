//! BitFit (Ben Zaken et al., "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models", arXiv
//! 2106.10199): of all weights only the biases that are there are trained, those of norms included.
//!
//! Parameters: `Σ out` over layers and norms with a bias.

use ounce_model::Model;
use ounce_model::spec::Spec;

use crate::adapter::Adapter;
use crate::{Error, Result};

/// BitFit.
pub struct BitFit;

fn is_trained(weight: &str) -> bool {
    weight.starts_with("layers.") && weight.ends_with(".bias")
}

impl Adapter for BitFit {
    fn begin(&mut self, base: &Model) -> Result<()> {
        if self.parameters(&base.spec) > 0 {
            return Ok(());
        }
        Err(Error::Option(format!(
            "the layers of this {} model have no biases to train; choose another method, ia3 for as few numbers",
            base.spec.family
        )))
    }

    fn parameters(&self, base: &Spec) -> u64 {
        let biases = base.tensors().into_iter().filter(|tensor| is_trained(&tensor.name));
        biases.map(|tensor| tensor.shape.iter().product::<usize>() as u64).sum()
    }

    fn trains(&self, weight: &str) -> bool {
        is_trained(weight)
    }
}
