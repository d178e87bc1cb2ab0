//! LoRA (arXiv 2106.09685) as a slot, over a frozen matrix in whatever format it is stored: for the demonstration.

use candle_core::Tensor;
use ounce_train::graph::ops::{self, Factor};
use ounce_train::graph::{GraphNet, Linear, Slot, Weight};
use ounce_train::net::Options;
use ounce_train::{ParamKind, Result};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// `y = x Wᵀ + (α/r) x Aᵀ Bᵀ`.
struct Lora {
    linear: Linear,
    a: Weight,
    b: Weight,
    scale: f64,
}

impl Slot for Lora {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let on = self.linear.on;
        let narrow = ops::linear(on, x, &Factor::Dense(self.a.tensor()?), None)?;
        let added = ops::linear(on, &narrow, &Factor::Dense(self.b.tensor()?), None)?;
        Ok((self.linear.forward(x)? + (added * self.scale)?)?)
    }

    fn vars(&self) -> Vec<Weight> {
        self.linear.vars().into_iter().chain([self.a.clone(), self.b.clone()]).collect()
    }

    fn merged(&self) -> Result<Option<Tensor>> {
        let product = (self.b.tensor()?.matmul(&self.a.tensor()?)? * self.scale)?;
        Ok(Some((self.linear.dense()? + product)?))
    }
}

/// A network whose layers' matrices are frozen, with adapters of a rank beside them; α is twice the rank.
///
/// # Errors
/// If a weight can't be read.
pub(super) fn network(model: &ounce_model::Model, rank: usize, seed: u64) -> Result<GraphNet> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut wrap = |name: &str, linear: Linear| -> Result<Box<dyn Slot>> {
        if !name.starts_with("layers.") {
            linear.freeze();
            return Ok(Box::new(linear));
        }
        linear.freeze();
        let limit = 1.0 / (linear.input as f32).sqrt();
        let a = (0..rank * linear.input).map(|_| rng.random_range(-limit..limit)).collect();
        let zeros = vec![0.0; linear.output * rank];
        Ok(Box::new(Lora {
            a: Weight::new(&format!("{name}.lora_a"), &[rank, linear.input], ParamKind::Matrix, a)?,
            b: Weight::new(&format!("{name}.lora_b"), &[linear.output, rank], ParamKind::Matrix, zeros)?,
            scale: 2.0,
            linear,
        }))
    };
    GraphNet::with_frozen(model, Options::default(), &|_| false, &mut wrap)
}
