//! Cosines and sines of a batch's positions, computed once a forward pass for all layers that turn alike.

use ounce_model::rope::{Frequencies, Rope};

use crate::batch::Span;

/// Cosines and sines of some positions, `[positions, dims / 2]` each.
#[derive(Debug, Default)]
pub(crate) struct Rotation {
    /// Of ropes that turn alike at every length.
    frequencies: Option<Frequencies>,
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotation {
    /// Takes the positions of a batch, span behind span; each sequence ends with its span.
    pub(crate) fn fill(&mut self, rope: &Rope, spans: &[Span]) {
        self.cos.clear();
        self.sin.clear();
        for span in spans {
            if self.frequencies.is_none() || rope.depends_on_length() {
                self.frequencies = Some(rope.frequencies(span.start + span.count));
            }
            let Some(frequencies) = &self.frequencies else { continue };
            self.half = frequencies.radians.len();
            for position in span.start..span.start + span.count {
                for radians in &frequencies.radians {
                    let angle = position as f32 * radians;
                    self.cos.push(angle.cos() * frequencies.amplitude);
                    self.sin.push(angle.sin() * frequencies.amplitude);
                }
            }
        }
    }

    /// Cosines and sines of the batch's vector `index`.
    pub(crate) fn at(&self, index: usize) -> (&[f32], &[f32]) {
        let range = index * self.half..(index + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}

/// The different rotations of a model, and which of them each layer uses.
#[derive(Debug)]
pub(crate) struct Rotations {
    ropes: Vec<Rope>,
    layers: Vec<Option<usize>>,
}

impl Rotations {
    /// Collects the layers' rotations; equal ones are kept once.
    pub(crate) fn new<'s>(layers: impl Iterator<Item = Option<&'s Rope>>) -> Rotations {
        let mut rotations = Rotations { ropes: Vec::new(), layers: Vec::new() };
        for rope in layers {
            let index = rope.map(|rope| {
                let known = rotations.ropes.iter().position(|known| known == rope);
                known.unwrap_or_else(|| {
                    rotations.ropes.push(rope.clone());
                    rotations.ropes.len() - 1
                })
            });
            rotations.layers.push(index);
        }
        rotations
    }

    /// Fills `rotations` with every different rotation of a batch.
    pub(crate) fn fill(&self, spans: &[Span], rotations: &mut Vec<Rotation>) {
        rotations.resize_with(self.ropes.len(), Rotation::default);
        for (rope, rotation) in self.ropes.iter().zip(rotations) {
            rotation.fill(rope, spans);
        }
    }

    /// A layer's rotation among those of [`Rotations::fill`].
    pub(crate) fn pick<'r>(&self, layer: usize, rotations: &'r [Rotation]) -> Option<&'r Rotation> {
        self.layers[layer].map(|index| &rotations[index])
    }
}
