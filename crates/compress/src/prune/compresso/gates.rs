//! Hard concrete gates (arXiv 1712.01312): random factors between 0 and 1 that are exactly 0 or 1 with a chance of their own, and have a
//! gradient.
//!
//! `s = σ((ln u − ln(1 − u) + ln α) / τ)` with `u` uniform is stretched to `(−0.1, 1.1)` and cut to `[0, 1]`. A gate is open at all with
//! the chance `σ(ln α − τ ln(0.1 / 1.1))`.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// The temperature τ.
const TEMPERATURE: f32 = 2.0 / 3.0;

/// How far a gate is stretched beyond 0 and 1.
const STRETCH: f32 = 0.1;

/// What pulls a gate to its end when it is read and not drawn, as the paper's code has it.
const SHARPNESS: f32 = 0.8;

/// A gate that was drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Its factor.
    pub z: f32,
    /// The factor's derivative by `ln α`.
    pub slope: f32,
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// `τ ln(0.1 / 1.1)`.
fn shift() -> f32 {
    TEMPERATURE * (STRETCH / (1.0 + STRETCH)).ln()
}

/// The `ln α` of a gate that is closed with this chance.
pub fn closed_with(chance: f32) -> f32 {
    ((1.0 - chance) / chance).ln() + shift()
}

/// The chance that a gate is open at all, and its derivative by `ln α`.
pub fn open(log_alpha: f32) -> (f32, f32) {
    let chance = sigmoid(log_alpha - shift());
    (chance, chance * (1.0 - chance))
}

/// A gate at this `u`.
pub fn at(log_alpha: f32, u: f32) -> Draw {
    let s = sigmoid((u.ln() - (1.0 - u).ln() + log_alpha) / TEMPERATURE);
    let wide = 1.0 + 2.0 * STRETCH;
    let stretched = s * wide - STRETCH;
    let inside = stretched > 0.0 && stretched < 1.0;
    Draw {
        z: stretched.clamp(0.0, 1.0),
        slope: if inside { s * (1.0 - s) / TEMPERATURE * wide } else { 0.0 },
    }
}

/// Draws a gate.
pub fn draw(log_alpha: f32, random: &mut ChaCha8Rng) -> Draw {
    at(log_alpha, random.random_range(1e-6f32..1.0 - 1e-6))
}

/// The factor of a gate that stays open, without chance.
pub fn settled(log_alpha: f32) -> f32 {
    let s = sigmoid(log_alpha / TEMPERATURE * SHARPNESS);
    (s * (1.0 + 2.0 * STRETCH) - STRETCH).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn gates_are_closed_as_often_as_they_say_and_slopes_are_slopes() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for chance in [0.01f32, 0.3, 0.9] {
            let log_alpha = closed_with(chance);
            assert!((open(log_alpha).0 - (1.0 - chance)).abs() < 1e-5);
            let closed = (0..40_000).filter(|_| draw(log_alpha, &mut random).z == 0.0).count();
            assert!((closed as f32 / 40_000.0 - chance).abs() < 0.01, "{chance}: {closed}");
            for u in [0.2f32, 0.5, 0.7] {
                let step = 1e-2;
                let slope = (at(log_alpha + step, u).z - at(log_alpha - step, u).z) / (2.0 * step);
                let edge = at(log_alpha, u).z == 0.0 || at(log_alpha, u).z == 1.0;
                assert!(edge || (at(log_alpha, u).slope - slope).abs() < 1e-3, "{chance} {u}");
            }
            let step = 1e-2;
            let slope = (open(log_alpha + step).0 - open(log_alpha - step).0) / (2.0 * step);
            assert!((open(log_alpha).1 - slope).abs() < 1e-3);
        }
        assert_eq!((settled(20.0), settled(-20.0)), (1.0, 0.0));
    }
}
