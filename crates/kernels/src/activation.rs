//! Nonlinearities of one value.

/// Logistic function, `1 / (1 + e^−x)`.
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// `x · σ(x)`.
pub fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// `x · Φ(x)` with the error function to f32 precision.
pub fn gelu(x: f32) -> f32 {
    (0.5 * f64::from(x) * (1.0 + libm::erf(f64::from(x) / std::f64::consts::SQRT_2))) as f32
}

/// GELU by `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
pub fn gelu_tanh(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    0.5 * x * (1.0 + (SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)).tanh())
}

/// GELU by `x · σ(1.702 x)`.
pub fn gelu_quick(x: f32) -> f32 {
    x * sigmoid(1.702 * x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_agree_with_tables() {
        // Φ(1) = 0.8413447, Φ(−2) = 0.0227501 (standard normal table).
        assert!((gelu(1.0) - 0.841_344_7).abs() < 1e-6);
        assert!((gelu(-2.0) + 0.045_500_3).abs() < 1e-6);
        assert!((gelu_tanh(1.0) - gelu(1.0)).abs() < 1e-3);
        assert!((silu(2.0) - 1.761_594_2).abs() < 1e-6);
    }
}
