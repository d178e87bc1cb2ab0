//! Batch norms folded into the convolutions before them: `w' = γ w / √(σ² + ε)`, `b' = β − γ μ / √(σ² + ε)` with running μ, σ².

use ounce_kernels::conv::Window;

use super::architecture::{Architecture, Step};
use super::net::Net;

/// A convolution with a bias.
#[derive(Debug, Clone, PartialEq)]
pub struct FoldedConv {
    /// Its window.
    pub window: Window,
    /// `[outputs, size, size, inputs]`.
    pub weights: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
    /// Whether a ReLU follows.
    pub relu: bool,
    /// By what each output's weights were multiplied.
    pub factors: Vec<f32>,
}

/// A network without norms, for inference.
#[derive(Debug, Clone, PartialEq)]
pub struct Folded {
    /// What it is; norms are still named, and gone.
    pub architecture: Architecture,
    /// The convolutions, by step.
    pub convs: Vec<Option<FoldedConv>>,
}

impl Folded {
    /// Weights and biases.
    pub fn weights(&self) -> usize {
        self.convs.iter().flatten().map(|conv| conv.weights.len() + conv.bias.len()).sum()
    }
}

/// The network with its norms folded.
pub fn fold(net: &Net) -> Folded {
    let of = |(index, step): (usize, &Step)| {
        let Step::Conv { window, norm, relu, .. } = *step else { return None };
        let (_, matrix) = net.weights(index)?;
        let behind = net.behind(index);
        if !norm {
            let factors = vec![1.0; window.outputs];
            let bias = behind.first()?.value.clone();
            return Some(FoldedConv { window, weights: matrix.value.clone(), bias, relu, factors });
        }
        let [gamma, beta] = behind else { return None };
        let running = &net.running[index];
        let factors: Vec<f32> =
            gamma.value.iter().zip(running.inverse()).map(|(gamma, it)| gamma * it).collect();
        let rows = matrix.value.chunks(window.depth()).zip(&factors);
        let weights = rows.flat_map(|(row, factor)| row.iter().map(move |weight| weight * factor)).collect();
        let bias = beta.value.iter().zip(&running.mean).zip(&factors);
        let bias = bias.map(|((beta, mean), factor)| beta - mean * factor).collect();
        Some(FoldedConv { window, weights, bias, relu, factors })
    };
    let convs = net.architecture.steps.iter().enumerate().map(of).collect();
    Folded { architecture: net.architecture.clone(), convs }
}
