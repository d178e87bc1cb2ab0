//! The adapter of a matrix: `B A` of low rank (Hu et al., "LoRA", arXiv 2106.09685).

use candle_core::Tensor;
use ounce_train::graph::{Linear, Weight};
use ounce_train::{ParamKind, Result};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// `α/r · B A`, which is zero at first: `A [r, in]` begins as Kaiming has it, `B [out, r]` as zeros.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// A.
    pub a: Weight,
    /// B.
    pub b: Weight,
    /// r.
    pub rank: usize,
    /// α/r.
    pub scale: f32,
}

impl Adapter {
    /// An adapter of the layer of that name.
    ///
    /// # Errors
    /// If the rank is 0.
    pub fn new(
        name: &str,
        linear: &Linear,
        (rank, scale): (usize, f32),
        random: &mut ChaCha8Rng,
    ) -> Result<Adapter> {
        let (input, output) = (linear.input, linear.output);
        let limit = 1.0 / (input as f32).sqrt();
        let a = (0..rank * input).map(|_| random.random_range(-limit..limit)).collect();
        Ok(Adapter {
            a: Weight::new(&format!("{name}.lora_a"), &[rank, input], ParamKind::Matrix, a)?,
            b: Weight::new(
                &format!("{name}.lora_b"),
                &[output, rank],
                ParamKind::Matrix,
                vec![0.0; output * rank],
            )?,
            rank,
            scale,
        })
    }

    /// `α/r · B A`, `[out, in]`.
    ///
    /// # Errors
    /// Outside a pass.
    pub fn product(&self) -> Result<Tensor> {
        Ok((self.b.tensor()?.matmul(&self.a.tensor()?)? * f64::from(self.scale))?)
    }
}
