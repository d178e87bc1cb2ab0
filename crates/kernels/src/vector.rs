//! Loops over vectors that every part of a layer shares, compiled once for each instruction set: exponentials,
//! nonlinearities, softmax, sums of products over panels of sixteen lanes.
//!
//! The code is plain Rust in fixed-width loops; `dispatch!` compiles it with the processor's features, where the
//! compiler turns the loops into vector instructions.

/// Calls `$name(arguments)`, an `#[inline(always)]` function, compiled for the instruction set in use.
macro_rules! dispatch {
    ($name:ident ( $($argument:ident : $type:ty),* $(,)? ) $(-> $result:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
            fn avx512($($argument: $type),*) $(-> $result)? {
                $name::<true>($($argument),*)
            }
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) $(-> $result)? {
                $name::<true>($($argument),*)
            }
            match $crate::isa::Isa::current().vectors() {
                // SAFETY: the path is chosen only where the processor has its features.
                $crate::isa::Isa::Avx512 => return unsafe { avx512($($argument),*) },
                // SAFETY: as above.
                $crate::isa::Isa::Avx2 => return unsafe { avx2($($argument),*) },
                _ => {}
            }
        }
        // Every AArch64 processor fuses; elsewhere a fused operation without the instruction is a slow call.
        $name::<{ cfg!(target_arch = "aarch64") }>($($argument),*)
    }};
}
pub(crate) use dispatch;

/// `a · b + c`, in one rounding where the instruction set has it.
#[inline(always)]
pub(crate) fn fused<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// `e^x` to about one unit in the last place: `2^n · p(r)` with `x = n ln 2 + r` and a polynomial of degree 6.
/// Gives 0 below −103, infinity above 88.72, NaN for NaN.
#[inline(always)]
pub(crate) fn exp<const FUSED: bool>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first exact in few bits, so that n · ln 2 is taken off without error.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-104.0, 89.0);
    let shifted = fused::<FUSED>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fused::<FUSED>(-n, LN_2_HIGH, clamped);
    let r = fused::<FUSED>(-n, LN_2_LOW, r);
    let mut p = 1.388_888_9e-3;
    for coefficient in [8.333_334e-3, 4.166_666_8e-2, 1.666_666_7e-1, 0.5, 1.0, 1.0] {
        p = fused::<FUSED>(p, r, coefficient);
    }
    // Two factors, because 2^n itself may be subnormal or too large. The low bits of what was rounded are n.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    let result = p * power(half) * power(n.wrapping_sub(half));
    if x.is_nan() { x } else { result }
}

/// `tanh(x)` to a few units in the last place: its series near 0, else `1 − 2 / (e^2x + 1)`.
#[inline(always)]
pub(crate) fn tanh<const FUSED: bool>(x: f32) -> f32 {
    const SERIES: [f32; 5] = [62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0];
    let square = x * x;
    let mut near = -1382.0 / 155_925.0;
    for coefficient in SERIES {
        near = fused::<FUSED>(near, square, coefficient);
    }
    let far = 1.0 - 2.0 / (exp::<FUSED>(2.0 * x) + 1.0);
    if x.abs() < 0.4 { x * near } else { far }
}

/// `x += y`, element by element.
pub fn add(x: &mut [f32], y: &[f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(x: &mut [f32], y: &[f32]) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
    }
    dispatch!(run(x: &mut [f32], y: &[f32]))
}

/// `x *= y`, element by element.
pub fn multiply(x: &mut [f32], y: &[f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(x: &mut [f32], y: &[f32]) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x *= y);
    }
    dispatch!(run(x: &mut [f32], y: &[f32]))
}

/// Lanes of a panel.
pub const LANES: usize = 16;

/// Sums over sixteen lanes for several inputs at once: for each input `t` and lane `l`
/// `out[t][l] = Σ_i weights[i · stride + l] · inputs[t][i]`.
///
/// `weights` holds at least sixteen values from each multiple of `stride` on; inputs have one length.
///
/// # Panics
/// If a slice is too short.
pub fn lane_sums<const T: usize>(weights: &[f32], stride: usize, inputs: [&[f32]; T]) -> [[f32; LANES]; T] {
    #[inline(always)]
    fn sums<const FUSED: bool, const T: usize>(
        weights: &[f32],
        stride: usize,
        inputs: [&[f32]; T],
    ) -> [[f32; LANES]; T] {
        let mut out = [[0.0f32; LANES]; T];
        let length = inputs[0].len();
        if length == 0 {
            return out;
        }
        assert!(inputs.iter().all(|input| input.len() == length), "inputs of one length");
        for (index, weights) in weights.chunks(stride).take(length).enumerate() {
            let weights: &[f32; LANES] = weights[..LANES].try_into().expect("sixteen lanes");
            for t in 0..T {
                let input = inputs[t][index];
                for lane in 0..LANES {
                    out[t][lane] = fused::<FUSED>(weights[lane], input, out[t][lane]);
                }
            }
        }
        out
    }
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
        fn avx512<const T: usize>(weights: &[f32], stride: usize, inputs: [&[f32]; T]) -> [[f32; LANES]; T] {
            sums::<true, T>(weights, stride, inputs)
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2<const T: usize>(weights: &[f32], stride: usize, inputs: [&[f32]; T]) -> [[f32; LANES]; T] {
            sums::<true, T>(weights, stride, inputs)
        }
        match crate::isa::Isa::current().vectors() {
            // SAFETY: the path is chosen only where the processor has its features.
            crate::isa::Isa::Avx512 => return unsafe { avx512(weights, stride, inputs) },
            // SAFETY: as above.
            crate::isa::Isa::Avx2 => return unsafe { avx2(weights, stride, inputs) },
            _ => {}
        }
    }
    sums::<{ cfg!(target_arch = "aarch64") }, T>(weights, stride, inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_of_the_last_place() {
        let mut worst = 0.0f64;
        for step in -8800..8800 {
            let x = step as f32 * 0.01;
            let exact = f64::from(x).exp();
            for found in [exp::<false>(x), exp::<true>(x)] {
                let error = (f64::from(found) - exact).abs() / exact.max(f64::from(f32::MIN_POSITIVE));
                worst = worst.max(error);
            }
        }
        assert!(worst < 2.4e-7, "{worst:e}");
    }

    #[test]
    fn tanh_is_within_some_units_of_the_last_place() {
        for step in -4000..4000 {
            let x = step as f32 * 0.005;
            let exact = f64::from(x).tanh();
            for found in [tanh::<false>(x), tanh::<true>(x)] {
                assert!((f64::from(found) - exact).abs() <= 4e-7 * exact.abs(), "{x}: {found} for {exact}");
            }
        }
        assert_eq!((tanh::<true>(1e9), tanh::<true>(-1e9)), (1.0, -1.0));
        assert!(tanh::<false>(f32::NAN).is_nan());
    }

    #[test]
    fn exp_at_the_ends() {
        assert_eq!(exp::<false>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp::<false>(-200.0), 0.0);
        assert_eq!(exp::<false>(0.0), 1.0);
        assert_eq!(exp::<false>(f32::INFINITY), f32::INFINITY);
        assert!(exp::<false>(f32::NAN).is_nan());
    }

    #[test]
    fn lane_sums_are_sums_of_products() {
        let weights: Vec<f32> = (0..20 * 40).map(|i| (i as f32 * 0.1).sin()).collect();
        let inputs: Vec<f32> = (0..60).map(|i| (i as f32 * 0.7).cos()).collect();
        let out = lane_sums(&weights, 40, [&inputs[..20], &inputs[20..40], &inputs[40..]]);
        for (t, out) in out.iter().enumerate() {
            for (lane, &found) in out.iter().enumerate() {
                let exact: f64 =
                    (0..20).map(|i| f64::from(weights[i * 40 + lane]) * f64::from(inputs[t * 20 + i])).sum();
                assert!((f64::from(found) - exact).abs() < 1e-5);
            }
        }
    }
}
