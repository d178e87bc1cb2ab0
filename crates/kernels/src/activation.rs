//! Nonlinearities, over whole vectors in place.

use crate::vector::{dispatch, exp};

/// Logistic function, `1 / (1 + e^−x)`, of one value.
#[inline(always)]
fn logistic<const FUSED: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FUSED>(-x))
}

/// `tanh(x) = 1 − 2 / (e^2x + 1)`, of one value; exact to f32 where |x| is not tiny, which GELU does not need.
#[inline(always)]
fn tanh_by_exp<const FUSED: bool>(x: f32) -> f32 {
    1.0 - 2.0 / (exp::<FUSED>(2.0 * x) + 1.0)
}

/// Logistic function, `1 / (1 + e^−x)`.
pub fn sigmoid(x: f32) -> f32 {
    logistic::<false>(x)
}

/// `x · σ(x)`.
pub fn silu(x: &mut [f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x *= logistic::<FUSED>(*x));
    }
    dispatch!(run(x: &mut [f32]))
}

/// `x · Φ(x)` with the error function to f32 precision.
pub fn gelu(x: &mut [f32]) {
    for x in x {
        *x = (0.5 * f64::from(*x) * (1.0 + libm::erf(f64::from(*x) / std::f64::consts::SQRT_2))) as f32;
    }
}

/// GELU by `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
pub fn gelu_tanh(x: &mut [f32]) {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    #[inline(always)]
    fn run<const FUSED: bool>(x: &mut [f32]) {
        for x in x {
            let inner = SQRT_2_OVER_PI * (*x + 0.044715 * *x * *x * *x);
            *x = 0.5 * *x * (1.0 + tanh_by_exp::<FUSED>(inner));
        }
    }
    dispatch!(run(x: &mut [f32]))
}

/// GELU by `x · σ(1.702 x)`.
pub fn gelu_quick(x: &mut [f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x *= logistic::<FUSED>(1.702 * *x));
    }
    dispatch!(run(x: &mut [f32]))
}

/// `max(x, 0)`.
pub fn relu(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = x.max(0.0));
}

/// `max(x, 0)²`.
pub fn relu_squared(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = x.max(0.0) * x.max(0.0));
}

/// `tanh(x)`.
pub fn tanh(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = x.tanh());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(function: fn(&mut [f32]), x: f32) -> f32 {
        let mut values = [x];
        function(&mut values);
        values[0]
    }

    #[test]
    fn values_agree_with_tables() {
        // Φ(1) = 0.8413447, Φ(−2) = 0.0227501 (standard normal table).
        assert!((at(gelu, 1.0) - 0.841_344_7).abs() < 1e-6);
        assert!((at(gelu, -2.0) + 0.045_500_3).abs() < 1e-6);
        assert!((at(silu, 2.0) - 1.761_594_2).abs() < 1e-6);
    }

    #[test]
    fn vectorised_functions_equal_their_formulas() {
        for step in -4000..4000 {
            let x = step as f32 * 0.005;
            let wide = f64::from(x);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044715 * wide.powi(3));
            for (function, exact) in [
                (silu as fn(&mut [f32]), wide / (1.0 + (-wide).exp())),
                (gelu_tanh, 0.5 * wide * (1.0 + inner.tanh())),
                (gelu_quick, wide / (1.0 + (-1.702 * wide).exp())),
            ] {
                let error = (f64::from(at(function, x)) - exact).abs();
                assert!(error <= 1e-6 * (1.0 + exact.abs()), "{x}: {error:e}");
            }
        }
    }

    #[test]
    fn far_out_values_stay_finite() {
        for function in [silu as fn(&mut [f32]), gelu_tanh, gelu_quick] {
            assert_eq!(at(function, -1e4), 0.0);
            assert_eq!(at(function, 1e4), 1e4);
        }
    }
}
