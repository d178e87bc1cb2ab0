//! Rotary position embedding: the frequencies of each scaling method.
//!
//! In the half-split layout, which ounce uses throughout, dimension `j` of a head turns together with
//! dimension `j + dims/2` by the angle `position · frequency[j]`. Sources: RoFormer (arXiv 2104.09864),
//! YaRN (arXiv 2309.00071) and LongRoPE (arXiv 2402.13753); Llama 3's blend as published with its code.

use serde::{Deserialize, Serialize};

/// Rotary embedding of one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// Rotated dimensions of a head, even; the rest passes unchanged.
    pub dims: usize,
    /// Base of the frequencies.
    pub theta: f32,
    /// How the frequencies are changed for contexts longer than the trained one.
    pub scaling: RopeScaling,
}

/// Methods of stretching the frequencies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RopeScaling {
    /// Unchanged.
    None,
    /// All frequencies divided.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// The base grows with the sequence once it is longer than `original`.
    Dynamic {
        /// The stretch.
        factor: f32,
        /// Trained context length.
        original: usize,
    },
    /// High frequencies kept, low ones divided, a ramp between (YaRN).
    Yarn {
        /// The stretch.
        factor: f32,
        /// Trained context length.
        original: usize,
        /// Turns above which a dimension is kept.
        beta_fast: f32,
        /// Turns below which a dimension is divided.
        beta_slow: f32,
        /// Factor on cosine and sine.
        attention_factor: f32,
        /// Whether the ramp's ends are rounded to whole dimensions.
        truncate: bool,
    },
    /// Long wavelengths divided, short kept, a smooth blend between (Llama 3.1 and later).
    Llama3 {
        /// The divisor of long wavelengths.
        factor: f32,
        /// `original / low_freq_factor` is the shortest fully divided wavelength.
        low_freq_factor: f32,
        /// `original / high_freq_factor` is the longest unchanged wavelength.
        high_freq_factor: f32,
        /// Trained context length.
        original: usize,
    },
    /// One divisor per frequency, from one of two lists by the sequence's length (Phi-3).
    LongRope {
        /// Divisors up to `original` positions, `dims/2` of them.
        short: Vec<f32>,
        /// Divisors beyond.
        long: Vec<f32>,
        /// Trained context length.
        original: usize,
        /// Factor on cosine and sine.
        attention_factor: f32,
    },
    /// One divisor per frequency, fixed (GGUF's `rope_freqs` tensor).
    Divisors {
        /// `dims/2` divisors.
        divisors: Vec<f32>,
    },
}

/// Frequencies ready for use.
#[derive(Debug, Clone, PartialEq)]
pub struct Frequencies {
    /// Radians per position, `dims/2` values.
    pub radians: Vec<f32>,
    /// Factor on cosine and sine.
    pub amplitude: f32,
}

impl Rope {
    /// Rotation without scaling.
    pub fn plain(dims: usize, theta: f32) -> Rope {
        Rope { dims, theta, scaling: RopeScaling::None }
    }

    /// Whether the frequencies depend on the sequence's length at all.
    pub fn depends_on_length(&self) -> bool {
        matches!(self.scaling, RopeScaling::Dynamic { .. } | RopeScaling::LongRope { .. })
    }

    /// Whether a sequence that grows from `old` to `new` positions turns all of them by new frequencies, so that
    /// nothing computed for the old ones holds any more.
    pub fn changes_between(&self, old: usize, new: usize) -> bool {
        match self.scaling {
            RopeScaling::Dynamic { original, .. } => old.max(original) != new.max(original),
            RopeScaling::LongRope { original, .. } => (old > original) != (new > original),
            _ => false,
        }
    }

    /// The frequencies for a sequence of `length` positions.
    pub fn frequencies(&self, length: usize) -> Frequencies {
        let base = match self.scaling {
            RopeScaling::Dynamic { factor, original } => {
                let length = length.max(original) as f64;
                let grown = f64::from(factor) * length / original as f64 - (f64::from(factor) - 1.0);
                let dims = self.dims as f64;
                f64::from(self.theta) * grown.powf(dims / (dims - 2.0))
            }
            _ => f64::from(self.theta),
        };
        let mut radians: Vec<f64> =
            (0..self.dims / 2).map(|i| base.powf(-2.0 * i as f64 / self.dims as f64)).collect();
        let mut amplitude = 1.0;
        match &self.scaling {
            RopeScaling::None | RopeScaling::Dynamic { .. } => {}
            RopeScaling::Linear { factor } => {
                radians.iter_mut().for_each(|radians| *radians /= f64::from(*factor));
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                let (low, high) = (f64::from(*low_freq_factor), f64::from(*high_freq_factor));
                for radians in &mut radians {
                    let turns = *original as f64 * *radians / std::f64::consts::TAU;
                    let divided = *radians / f64::from(*factor);
                    let blend = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    *radians = (1.0 - blend) * divided + blend * *radians;
                }
            }
            RopeScaling::Yarn { factor, original, beta_fast, beta_slow, attention_factor, truncate } => {
                amplitude = *attention_factor;
                let dimension = |turns: f32| {
                    let wave = *original as f64 / (f64::from(turns) * std::f64::consts::TAU);
                    self.dims as f64 * wave.ln() / (2.0 * base.ln())
                };
                let (mut low, mut high) = (dimension(*beta_fast), dimension(*beta_slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(self.dims as f64 - 1.0));
                if high <= low {
                    high = low + 0.001;
                }
                for (i, radians) in radians.iter_mut().enumerate() {
                    let divide = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    *radians = *radians / f64::from(*factor) * divide + *radians * (1.0 - divide);
                }
            }
            RopeScaling::LongRope { short, long, original, attention_factor } => {
                amplitude = *attention_factor;
                let divisors = if length > *original { long } else { short };
                divide(&mut radians, divisors);
            }
            RopeScaling::Divisors { divisors } => divide(&mut radians, divisors),
        }
        Frequencies { radians: radians.into_iter().map(|radians| radians as f32).collect(), amplitude }
    }

    /// The divisors `theta^(-2i/dims) / frequency`, as GGUF's `rope_freqs` tensor holds them, if the scaling
    /// is one that GGUF expresses so (Llama 3 or a list of divisors).
    pub fn divisors(&self) -> Option<Vec<f32>> {
        if !matches!(self.scaling, RopeScaling::Llama3 { .. } | RopeScaling::Divisors { .. }) {
            return None;
        }
        let plain = Rope::plain(self.dims, self.theta).frequencies(0).radians;
        let scaled = self.frequencies(0).radians;
        Some(plain.iter().zip(&scaled).map(|(plain, scaled)| plain / scaled).collect())
    }
}

fn divide(radians: &mut [f64], divisors: &[f32]) {
    for (radians, divisor) in radians.iter_mut().zip(divisors) {
        *radians /= f64::from(*divisor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_short_waves_and_divides_long_ones() {
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original: 8192 };
        let rope = Rope { dims: 128, theta: 500_000.0, scaling };
        let plain = Rope::plain(128, 500_000.0).frequencies(1).radians;
        let scaled = rope.frequencies(1).radians;
        assert_eq!(plain[0], scaled[0]);
        assert!((plain[63] / scaled[63] - 8.0).abs() < 1e-4);
        let divisors = rope.divisors().expect("llama3 is expressible");
        assert!((divisors[0] - 1.0).abs() < 1e-6 && (divisors[63] - 8.0).abs() < 1e-4);
    }

    #[test]
    fn dynamic_changes_only_beyond_the_trained_length() {
        let rope = Rope { dims: 16, theta: 1e4, scaling: RopeScaling::Dynamic { factor: 2.0, original: 32 } };
        assert_eq!(rope.frequencies(8), rope.frequencies(32));
        assert!(rope.frequencies(64).radians[7] < rope.frequencies(32).radians[7]);
        assert!(rope.changes_between(40, 41) && !rope.changes_between(8, 32));
    }
}
