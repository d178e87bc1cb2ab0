//! Cosines and sines of a batch of positions, computed once a forward pass for all layers that turn alike.

use ounce_model::rope::Rope;

use crate::attention::Span;

/// Cosines and sines of consecutive positions, `[positions, dims / 2]` each.
#[derive(Debug)]
pub(crate) struct Rotation {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotation {
    /// The rotation of a span's positions, in a sequence that ends with the span.
    pub(crate) fn new(rope: &Rope, span: Span) -> Rotation {
        let frequencies = rope.frequencies(span.start + span.count);
        let half = frequencies.radians.len();
        let (mut cos, mut sin) =
            (Vec::with_capacity(half * span.count), Vec::with_capacity(half * span.count));
        for position in span.start..span.start + span.count {
            for radians in &frequencies.radians {
                let angle = position as f32 * radians;
                cos.push(angle.cos() * frequencies.amplitude);
                sin.push(angle.sin() * frequencies.amplitude);
            }
        }
        Rotation { half, cos, sin }
    }

    /// Cosines and sines of the span's position `index`.
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

    /// Every different rotation of a span.
    pub(crate) fn of(&self, span: Span) -> Vec<Rotation> {
        self.ropes.iter().map(|rope| Rotation::new(rope, span)).collect()
    }

    /// A layer's rotation among those of [`Rotations::of`].
    pub(crate) fn pick<'r>(&self, layer: usize, rotations: &'r [Rotation]) -> Option<&'r Rotation> {
        self.layers[layer].map(|index| &rotations[index])
    }
}
