//! Drawings from prompts in two steps: from pure noise to a first guess, from that with new noise to the drawing.
//!
//! As consistency models sample: `x₁ = f(noise₁, φ₁)`, `x₂ = f(cos φ₂ · x₁ + sin φ₂ · noise₂, φ₂)`.

use std::f32::consts::FRAC_PI_2;

use candle_core::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::denoiser::Products;
use super::glyphs::{PIXELS, Prompt};
use super::{Pass, normal};
use crate::Result;

/// The angle of each step: how much noise there is in what the network sees.
pub const STEPS: [f32; 2] = [FRAC_PI_2, 0.9];

/// Drawings that are computed at once.
const CHUNK: usize = 72;

/// Drawings that are asked for: prompts, and for each the noise of every step.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is to be drawn.
    pub prompts: Vec<Prompt>,
    noise: Vec<Vec<f32>>,
}

impl Request {
    /// A request with noise drawn from `seed`.
    pub fn new(prompts: Vec<Prompt>, seed: u64) -> Request {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let noise = STEPS.map(|_| normal(&mut random, prompts.len() * PIXELS)).into();
        Request { prompts, noise }
    }

    /// The drawings, `[prompts, pixels]`, one behind the other.
    ///
    /// # Errors
    /// If `products` fails.
    pub fn draw(&self, pass: &Pass<'_>, products: &mut dyn Products) -> Result<Vec<f32>> {
        Ok(self.run(pass, products)?.1)
    }

    /// What the network sees in each step on the way to the drawings: inputs for [`Request::denoise`].
    ///
    /// # Errors
    /// If `products` fails.
    pub fn inputs(&self, pass: &Pass<'_>, products: &mut dyn Products) -> Result<Vec<Vec<f32>>> {
        Ok(self.run(pass, products)?.0)
    }

    fn run(&self, pass: &Pass<'_>, products: &mut dyn Products) -> Result<(Vec<Vec<f32>>, Vec<f32>)> {
        let mut drawings = vec![0.0; self.prompts.len() * PIXELS];
        let mut inputs = Vec::new();
        for (angle, noise) in STEPS.into_iter().zip(&self.noise) {
            let (sin, cos) = angle.sin_cos();
            let x: Vec<f32> = drawings.iter().zip(noise).map(|(x, z)| cos * x + sin * z).collect();
            drawings = self.step(pass, angle, &x, products)?;
            inputs.push(x);
        }
        Ok((inputs, drawings))
    }

    /// What the network says in each step to given inputs, all steps one behind the other.
    ///
    /// # Errors
    /// If `products` fails.
    pub fn denoise(
        &self,
        pass: &Pass<'_>,
        inputs: &[Vec<f32>],
        products: &mut dyn Products,
    ) -> Result<Vec<f32>> {
        let mut outputs = Vec::new();
        for (angle, x) in STEPS.into_iter().zip(inputs) {
            outputs.extend(self.step(pass, angle, x, products)?);
        }
        Ok(outputs)
    }

    fn step(&self, pass: &Pass<'_>, angle: f32, x: &[f32], products: &mut dyn Products) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(x.len());
        for (x, prompts) in x.chunks(CHUNK * PIXELS).zip(self.prompts.chunks(CHUNK)) {
            let x = Tensor::from_slice(x, (prompts.len(), PIXELS), &Device::Cpu)?;
            let clean = pass.forward(&x, &vec![angle; prompts.len()], prompts, products)?;
            out.extend(clean.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(out)
    }
}
