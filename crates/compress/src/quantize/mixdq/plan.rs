//! How many bits each layer's weights and inputs get, and what that comes to.

use serde::{Deserialize, Serialize};

/// Bits of a number that stays as it is.
pub const FULL: u32 = 16;

/// By which measure a layer's loss is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// How an image looks: convolutions, self-attention, projections. Judged by the SQNR of the network's output.
    Quality,
    /// What an image shows: cross-attention and feed-forward layers. Judged by the SSIM of the image.
    Content,
}

/// A layer whose bits are to be decided.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// By which measure it is judged.
    pub group: Group,
    /// Values of its matrix.
    pub weights: u64,
    /// Values that it reads for one image.
    pub activations: u64,
}

/// Which of a layer's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Its matrix.
    Weights,
    /// What it reads.
    Activations,
}

impl Unit {
    /// Values on that side.
    pub fn values(&self, side: Side) -> u64 {
        match side {
            Side::Weights => self.weights,
            Side::Activations => self.activations,
        }
    }
}

/// Bits of every layer; [`FULL`] leaves numbers as they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Plan {
    /// Of weights.
    pub weights: Vec<u32>,
    /// Of what layers read.
    pub activations: Vec<u32>,
}

impl Plan {
    /// Nothing quantized in so many layers.
    pub fn full(layers: usize) -> Plan {
        Plan { weights: vec![FULL; layers], activations: vec![FULL; layers] }
    }

    /// The bits on one side.
    pub fn side(&self, side: Side) -> &[u32] {
        match side {
            Side::Weights => &self.weights,
            Side::Activations => &self.activations,
        }
    }

    /// The plan with other bits on one side.
    #[must_use]
    pub fn with(mut self, side: Side, bits: Vec<u32>) -> Plan {
        match side {
            Side::Weights => self.weights = bits,
            Side::Activations => self.activations = bits,
        }
        self
    }

    /// Mean bits a value on one side.
    pub fn mean_bits(&self, side: Side, units: &[Unit]) -> f64 {
        let bits = total(self.side(side), side, units);
        bits as f64 / units.iter().map(|unit| unit.values(side)).sum::<u64>().max(1) as f64
    }
}

/// Bits of all values on one side.
pub fn total(bits: &[u32], side: Side, units: &[Unit]) -> u64 {
    bits.iter().zip(units).map(|(&bits, unit)| u64::from(bits) * unit.values(side)).sum()
}

/// The same bits for all layers: all have `mean` if that is a whole number, otherwise the numbers below and above, in turns
/// and without a look at what layers are, so that at no point of the network more was spent than the mean allows.
pub fn uniform(side: Side, units: &[Unit], mean: f64) -> Vec<u32> {
    let (low, high) = (mean.floor() as u32, mean.ceil() as u32);
    let (mut spent, mut allowed) = (0.0, 0.0);
    let mut bits = Vec::with_capacity(units.len());
    for unit in units {
        let values = unit.values(side) as f64;
        allowed += values * mean;
        let own = if spent + values * f64::from(high) <= allowed { high } else { low };
        spent += values * f64::from(own);
        bits.push(own);
    }
    bits
}
