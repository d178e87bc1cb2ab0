//! The denoiser of glyphs as a network whose bits are to be decided.

use ounce_eval::ssim::{Window, ssim};
use ounce_train::diffusion::{Layer, Part, Pass, Request, glyphs};

use super::plan::{Group, Plan, Unit};
use super::simulate::{First, Quantized, Ranges};
use super::table::Subject;
use crate::Result;

/// Pixels span −1 to 1.
const RANGE: f64 = 2.0;

/// The group of a layer.
pub fn group(part: Part) -> Group {
    match part {
        Part::CrossAttention | Part::FeedForward | Part::Text => Group::Content,
        Part::Convolution | Part::Time | Part::SelfAttention => Group::Quality,
    }
}

/// The mean similarity of drawings one behind the other.
pub fn similarity(drawings: &[f32], others: &[f32]) -> f64 {
    let pairs = drawings.chunks(glyphs::PIXELS).zip(others.chunks(glyphs::PIXELS));
    let count = pairs.len().max(1) as f64;
    pairs.map(|(a, b)| ssim(a, b, glyphs::SIZE, Window::Uniform(7), RANGE)).sum::<f64>() / count
}

/// A denoiser that draws what a request asks for.
#[derive(Debug)]
pub struct Drawing<'n> {
    pass: &'n Pass<'n>,
    ranges: &'n Ranges,
    first: First,
    request: Request,
    /// What the network sees on the way to the original's drawings.
    inputs: Vec<Vec<f32>>,
    units: Vec<Unit>,
}

impl<'n> Drawing<'n> {
    /// A network, what its layers read, and what is to be drawn.
    ///
    /// # Errors
    /// If the network can't be run.
    pub fn new(
        pass: &'n Pass<'n>,
        ranges: &'n Ranges,
        first: First,
        request: Request,
    ) -> Result<Drawing<'n>> {
        let inputs = request.inputs(pass, &mut ounce_train::diffusion::Plain)?;
        let unit = |layer: &Layer| Unit {
            name: layer.name.clone(),
            group: group(layer.part),
            weights: layer.weights() as u64,
            activations: layer.activations() as u64,
        };
        let units = pass.net().layers().iter().map(unit).collect();
        Ok(Drawing { pass, ranges, first, request, inputs, units })
    }

    /// What becomes of the first token from now on.
    pub fn set_first(&mut self, first: First) {
        self.first = first;
    }

    /// What is to be drawn.
    pub fn request(&self) -> &Request {
        &self.request
    }

    fn quantized(&self, plan: &Plan) -> Result<Quantized> {
        Ok(Quantized::new(self.pass.net(), self.ranges, plan, self.first)?)
    }
}

impl Subject for Drawing<'_> {
    fn units(&self) -> &[Unit] {
        &self.units
    }

    fn output(&mut self, plan: &Plan) -> Result<Vec<f32>> {
        Ok(self.request.denoise(self.pass, &self.inputs, &mut self.quantized(plan)?)?)
    }

    fn images(&mut self, plan: &Plan) -> Result<Vec<f32>> {
        Ok(self.request.draw(self.pass, &mut self.quantized(plan)?)?)
    }

    fn similarity(&self, images: &[f32], others: &[f32]) -> f64 {
        similarity(images, others)
    }
}
