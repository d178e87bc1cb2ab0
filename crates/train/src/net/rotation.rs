//! Cosines and sines of a batch's positions, computed once a pass for all layers that turn alike.

use ounce_model::rope::Rope;

/// Cosines and sines of one kind of rotation, `[tokens, half]` each.
#[derive(Debug, Clone, Default)]
pub struct Rotation {
    /// Cosines, times the rotation's amplitude.
    pub cos: Vec<f32>,
    /// Sines, times the rotation's amplitude.
    pub sin: Vec<f32>,
}

/// The different rotations of a model, which of them each layer uses, and their values for the last batch.
#[derive(Debug, Default)]
pub(crate) struct Rotations {
    ropes: Vec<Rope>,
    pub values: Vec<Rotation>,
    lengths: Vec<usize>,
}

impl Rotations {
    /// The number of this rotation; equal ones are kept once.
    pub fn add(&mut self, rope: &Rope) -> usize {
        if let Some(known) = self.ropes.iter().position(|known| known == rope) {
            return known;
        }
        self.ropes.push(rope.clone());
        self.values.push(Rotation::default());
        self.ropes.len() - 1
    }

    /// Fills [`Rotations::values`] for a batch; every sequence begins at position 0.
    pub fn fill(&mut self, lengths: &[usize]) {
        if self.lengths == lengths {
            return;
        }
        for (rope, rotation) in self.ropes.iter().zip(&mut self.values) {
            rotation.cos.clear();
            rotation.sin.clear();
            let mut frequencies = None;
            for &length in lengths {
                if frequencies.is_none() || rope.depends_on_length() {
                    frequencies = Some(rope.frequencies(length));
                }
                let Some(frequencies) = &frequencies else { continue };
                for position in 0..length {
                    for radians in &frequencies.radians {
                        let angle = position as f32 * radians;
                        rotation.cos.push(angle.cos() * frequencies.amplitude);
                        rotation.sin.push(angle.sin() * frequencies.amplitude);
                    }
                }
            }
        }
        self.lengths = lengths.to_vec();
    }
}
