//! Inner products in f32: the arithmetic under every linear layer of the reference engine.
//!
//! Each sum is split over a fixed number of lanes, so a result depends on the instruction set that was
//! chosen at start, and on nothing else: not on the thread count, not on how many vectors are done at once.

/// Independent partial sums of one inner product; a multiple of every vector width in use.
const LANES: usize = 32;

/// `Σ x[i] · y[i]` in one loop that the compiler vectorises for the caller's instruction set.
#[inline(always)]
fn dot_lanes<const FUSED: bool>(x: &[f32], y: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (y_chunks, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in x_chunks.iter().zip(y_chunks) {
        for lane in 0..LANES {
            // `mul_add` is one instruction where the set has it and a slow library call where not.
            sums[lane] =
                if FUSED { x[lane].mul_add(y[lane], sums[lane]) } else { sums[lane] + x[lane] * y[lane] };
        }
    }
    for (lane, (x, y)) in x_rest.iter().zip(y_rest).enumerate() {
        sums[lane] = if FUSED { x.mul_add(*y, sums[lane]) } else { sums[lane] + x * y };
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn dot_avx2(x: &[f32], y: &[f32]) -> f32 {
    dot_lanes::<true>(x, y)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn dot_avx512(x: &[f32], y: &[f32]) -> f32 {
    dot_lanes::<true>(x, y)
}

#[cfg(target_arch = "aarch64")]
fn dot_plain(x: &[f32], y: &[f32]) -> f32 {
    // Every AArch64 processor has fused multiply-add.
    dot_lanes::<true>(x, y)
}

#[cfg(not(target_arch = "aarch64"))]
fn dot_plain(x: &[f32], y: &[f32]) -> f32 {
    dot_lanes::<false>(x, y)
}

/// `Σ x[i] · y[i]`; the slices have the same length.
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len(), "an inner product needs two vectors of one length");
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512F, just checked (the standard library caches the answer).
            return unsafe { dot_avx512(x, y) };
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            // SAFETY: the processor has AVX2 and FMA, just checked.
            return unsafe { dot_avx2(x, y) };
        }
    }
    dot_plain(x, y)
}

/// `out += factor · x`, element by element.
pub fn add_scaled(factor: f32, x: &[f32], out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out += factor * x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_equals_the_sum_in_f64_at_every_length() {
        for length in [0, 1, 7, 31, 32, 33, 64, 100, 1000] {
            let x: Vec<f32> = (0..length).map(|i| (i as f32 * 0.37).sin()).collect();
            let y: Vec<f32> = (0..length).map(|i| (i as f32 * 0.73).cos()).collect();
            let exact: f64 = x.iter().zip(&y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            for found in [dot(&x, &y), dot_plain(&x, &y)] {
                assert!(
                    (f64::from(found) - exact).abs() < 1e-5 * (1.0 + length as f64),
                    "{length}: {found} {exact}"
                );
            }
        }
    }
}
