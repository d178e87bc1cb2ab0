//! Nonlinearities and their gradients, those of gated feed-forward layers in one pass.

use super::rows::split_values;
use crate::pool::{Pool, SharedOut};
use crate::vector::{dispatch, exp, fused};

/// A nonlinearity; [`crate::activation`] has the functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x · σ(x)`.
    Silu,
    /// `x · Φ(x)`.
    Gelu,
    /// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
    GeluTanh,
    /// `x · σ(1.702 x)`.
    GeluQuick,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²`.
    Relu2,
    /// `tanh(x)`.
    Tanh,
}

/// A function with its slope.
trait Function {
    /// Value and slope at `x`. What the caller does not use costs nothing once inlined.
    fn at<const FUSED: bool>(x: f32) -> (f32, f32);
}

/// `σ(x)` and `1 − σ(x)`, each to full precision where it is small.
#[inline(always)]
fn logistic<const FUSED: bool>(x: f32) -> (f32, f32) {
    let small = exp::<FUSED>(-x.abs());
    let greater = 1.0 / (1.0 + small);
    let less = small * greater;
    if x > 0.0 { (greater, less) } else { (less, greater) }
}

/// `x · σ(factor · x)` with its slope.
#[inline(always)]
fn gated_by_itself<const FUSED: bool>(x: f32, factor: f32) -> (f32, f32) {
    let (gate, rest) = logistic::<FUSED>(factor * x);
    let value = x * gate;
    (value, fused::<FUSED>(factor * value, rest, gate))
}

struct Silu;
impl Function for Silu {
    #[inline(always)]
    fn at<const FUSED: bool>(x: f32) -> (f32, f32) {
        gated_by_itself::<FUSED>(x, 1.0)
    }
}

struct GeluQuick;
impl Function for GeluQuick {
    #[inline(always)]
    fn at<const FUSED: bool>(x: f32) -> (f32, f32) {
        gated_by_itself::<FUSED>(x, 1.702)
    }
}

struct Gelu;
impl Function for Gelu {
    /// The tail of the normal distribution to 1.2e-7 of itself: `erfc(z) = t · exp(−z² + p(t))` with
    /// `t = 1 / (1 + z/2)` (Numerical Recipes, 6.2).
    #[inline(always)]
    fn at<const FUSED: bool>(x: f32) -> (f32, f32) {
        const P: [f32; 9] = [
            -0.822_152_23,
            1.488_515_9,
            -1.135_204,
            0.278_868_07,
            -0.186_288_06,
            0.096_784_18,
            0.374_091_96,
            1.000_023_7,
            -1.265_512_2,
        ];
        const DENSITY_AT_ZERO: f32 = 0.398_942_3;
        let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
        let t = 1.0 / fused::<FUSED>(z, 0.5, 1.0);
        let mut p = 0.170_872_77;
        for coefficient in P {
            p = fused::<FUSED>(p, t, coefficient);
        }
        let tail = 0.5 * t * exp::<FUSED>(fused::<FUSED>(-z, z, p));
        let share = if x > 0.0 { 1.0 - tail } else { tail };
        let density = DENSITY_AT_ZERO * exp::<FUSED>(-0.5 * x * x);
        (x * share, fused::<FUSED>(x, density, share))
    }
}

struct GeluTanh;
impl Function for GeluTanh {
    /// `0.5 (1 + tanh(y))` is `σ(2y)`, which keeps its precision far below zero.
    #[inline(always)]
    fn at<const FUSED: bool>(x: f32) -> (f32, f32) {
        const TWICE_ROOT: f32 = 2.0 * 0.797_884_6;
        const CUBIC: f32 = 0.044715;
        let square = x * x;
        let inner = TWICE_ROOT * x * fused::<FUSED>(square, CUBIC, 1.0);
        let slope = TWICE_ROOT * fused::<FUSED>(square, 3.0 * CUBIC, 1.0);
        let (gate, rest) = logistic::<FUSED>(inner);
        let value = x * gate;
        (value, fused::<FUSED>(value * rest, slope, gate))
    }
}

struct Relu;
impl Function for Relu {
    #[inline(always)]
    fn at<const FUSED: bool>(x: f32) -> (f32, f32) {
        if x > 0.0 { (x, 1.0) } else { (0.0, 0.0) }
    }
}

struct Relu2;
impl Function for Relu2 {
    #[inline(always)]
    fn at<const FUSED: bool>(x: f32) -> (f32, f32) {
        let kept = if x > 0.0 { x } else { 0.0 };
        (kept * kept, 2.0 * kept)
    }
}

struct Tanh;
impl Function for Tanh {
    #[inline(always)]
    fn at<const FUSED: bool>(x: f32) -> (f32, f32) {
        let value = crate::vector::tanh::<FUSED>(x);
        (value, fused::<FUSED>(-value, value, 1.0))
    }
}

/// Runs `$body` with `$F` as the activation's function.
macro_rules! with_function {
    ($activation:expr, $F:ident => $body:expr) => {
        with_function!($activation, $F => $body, Silu, Gelu, GeluTanh, GeluQuick, Relu, Relu2, Tanh)
    };
    ($activation:expr, $F:ident => $body:expr, $($function:ident),*) => {
        match $activation {
            $(Activation::$function => {
                type $F = $function;
                $body
            })*
        }
    };
}

/// `out = act(gate) · up`, element by element.
///
/// # Panics
/// If the lengths differ.
pub fn gated(pool: &Pool, activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
        with_function!(activation, F => {
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = F::at::<FUSED>(*gate).0 * up;
            }
        });
    }
    fn part(activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
        dispatch!(run(activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]))
    }
    assert!(gate.len() == out.len() && up.len() == out.len(), "gate, up and result of one length");
    let (length, out) = (out.len(), SharedOut::new(out));
    split_values(pool, length, |range| {
        // SAFETY: threads have disjoint ranges.
        let out = unsafe { out.part(range.clone()) };
        part(activation, &gate[range.clone()], &up[range], out);
    });
}

/// Gradient of [`gated`], in place: `gate` becomes `dout · act'(gate) · up`, and `up` becomes `dout · act(gate)`.
///
/// # Panics
/// If the lengths differ.
pub fn gated_backward(pool: &Pool, activation: Activation, gate: &mut [f32], up: &mut [f32], dout: &[f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(activation: Activation, gate: &mut [f32], up: &mut [f32], dout: &[f32]) {
        with_function!(activation, F => {
            for ((gate, up), dout) in gate.iter_mut().zip(up).zip(dout) {
                let (value, slope) = F::at::<FUSED>(*gate);
                (*gate, *up) = (slope * (dout * *up), value * dout);
            }
        });
    }
    fn part(activation: Activation, gate: &mut [f32], up: &mut [f32], dout: &[f32]) {
        dispatch!(run(activation: Activation, gate: &mut [f32], up: &mut [f32], dout: &[f32]))
    }
    assert!(gate.len() == dout.len() && up.len() == dout.len(), "gate, up and gradient of one length");
    let (gate, up) = (SharedOut::new(gate), SharedOut::new(up));
    split_values(pool, dout.len(), |range| {
        // SAFETY: threads have disjoint ranges.
        let (gate, up) = unsafe { (gate.part(range.clone()), up.part(range.clone())) };
        part(activation, gate, up, &dout[range]);
    });
}

/// `out = act(x)`, element by element.
///
/// # Panics
/// If the lengths differ.
pub fn plain(pool: &Pool, activation: Activation, x: &[f32], out: &mut [f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(activation: Activation, x: &[f32], out: &mut [f32]) {
        with_function!(activation, F => {
            // A loop, not `for_each`: a closure that is not inlined would be compiled without fused operations.
            for (out, x) in out.iter_mut().zip(x) {
                *out = F::at::<FUSED>(*x).0;
            }
        });
    }
    fn part(activation: Activation, x: &[f32], out: &mut [f32]) {
        dispatch!(run(activation: Activation, x: &[f32], out: &mut [f32]))
    }
    assert_eq!(x.len(), out.len(), "as many results as values");
    let (length, out) = (out.len(), SharedOut::new(out));
    split_values(pool, length, |range| {
        // SAFETY: threads have disjoint ranges.
        let out = unsafe { out.part(range.clone()) };
        part(activation, &x[range], out);
    });
}

/// Gradient of [`plain`], in place: `x` becomes `dout · act'(x)`.
///
/// # Panics
/// If the lengths differ.
pub fn plain_backward(pool: &Pool, activation: Activation, x: &mut [f32], dout: &[f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(activation: Activation, x: &mut [f32], dout: &[f32]) {
        with_function!(activation, F => {
            for (x, dout) in x.iter_mut().zip(dout) {
                *x = F::at::<FUSED>(*x).1 * dout;
            }
        });
    }
    fn part(activation: Activation, x: &mut [f32], dout: &[f32]) {
        dispatch!(run(activation: Activation, x: &mut [f32], dout: &[f32]))
    }
    assert_eq!(x.len(), dout.len(), "a gradient for every value");
    let x = SharedOut::new(x);
    split_values(pool, dout.len(), |range| {
        // SAFETY: threads have disjoint ranges.
        let x = unsafe { x.part(range.clone()) };
        part(activation, x, &dout[range]);
    });
}
