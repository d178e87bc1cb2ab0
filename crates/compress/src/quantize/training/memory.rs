//! What training holds in memory, counted from what was really allocated.

use serde::{Deserialize, Serialize};

/// Bytes by what they are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Weights: those that training moves, what they round to, packed ones.
    pub weights: usize,
    /// Gradients of weights, step sizes and zero points.
    pub gradients: usize,
    /// Moments of AdamW.
    pub optimizer: usize,
    /// The most that forward and backward passes used at once.
    pub activations: usize,
    /// Hidden states of the calibration tokens on both sides of a layer.
    pub hidden: usize,
}

impl Memory {
    /// All but hidden states, which grow with the calibration set and could as well lie on disk.
    pub fn training(&self) -> usize {
        self.weights + self.gradients + self.optimizer + self.activations
    }

    /// All.
    pub fn all(&self) -> usize {
        self.training() + self.hidden
    }
}
