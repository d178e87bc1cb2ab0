//! The gradient of a convolution's weights: `dw[o, i] = Σ_p dy[p, o] · x[p + i]` over all pixels p, for training.
//!
//! Sixteen outputs are a vector, some places of the window a register each, and the pixels are the depth that is summed over.

use super::lanes::{Lanes, Plain};
use super::{Layout, PANEL, Window};
use crate::isa::Isa;

/// Places of a window that are summed at once.
const PLACES: usize = 8;

/// Adds the gradient of one image to `dw` `[outputs, size, size, inputs]`. `dy` is `[height, width, outputs]` of the result,
/// without a border.
///
/// # Panics
/// If the shapes don't fit.
pub fn weight_gradient(isa: Isa, window: &Window, image: (&[f32], Layout), dy: &[f32], dw: &mut [f32]) {
    let (values, from) = image;
    let (height, width) = (window.result(from.height), window.result(from.width));
    assert!(from.channels == window.inputs && from.border >= window.padding(), "an image with enough border");
    assert!(values.len() >= from.values(), "a whole image");
    assert_eq!(dy.len(), height * width * window.outputs, "a gradient of each result");
    assert_eq!(dw.len(), window.outputs * window.depth(), "a gradient of each weight");
    let mut panel = vec![0.0; height * width * PANEL];
    let mut sums = vec![0.0; window.depth() * PANEL];
    for first in (0..window.outputs).step_by(PANEL) {
        let lanes = PANEL.min(window.outputs - first);
        for (to, pixel) in panel.chunks_exact_mut(PANEL).zip(dy.chunks_exact(window.outputs)) {
            to[..lanes].copy_from_slice(&pixel[first..first + lanes]);
            to[lanes..].fill(0.0);
        }
        let job = Job { window, values, from, width, panel: &panel };
        match isa.vectors() {
            // SAFETY: the path is chosen only where the processor has its features; the shapes were checked.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { avx512(&job, &mut sums) },
            // SAFETY: the same.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2(&job, &mut sums) },
            // SAFETY: needs no features; the shapes were checked.
            _ => unsafe { all::<Plain>(&job, &mut sums) },
        }
        for (place, sums) in sums.chunks_exact(PANEL).enumerate() {
            for (lane, sum) in sums[..lanes].iter().enumerate() {
                dw[(first + lane) * window.depth() + place] += sum;
            }
        }
    }
}

struct Job<'a> {
    window: &'a Window,
    values: &'a [f32],
    from: Layout,
    /// Of the result.
    width: usize,
    /// Sixteen gradients a pixel.
    panel: &'a [f32],
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn avx512(job: &Job<'_>, sums: &mut [f32]) {
    // SAFETY: the same contract.
    unsafe { all::<super::lanes::Avx512>(job, sums) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(job: &Job<'_>, sums: &mut [f32]) {
    // SAFETY: the same contract.
    unsafe { all::<super::lanes::Avx2>(job, sums) }
}

/// All places of the window.
///
/// # Safety
/// The features of `S` are there; [`weight_gradient`] checked the shapes.
#[inline(always)]
unsafe fn all<S: Lanes>(job: &Job<'_>, sums: &mut [f32]) {
    let row = job.window.size * job.window.inputs;
    for line in 0..job.window.size {
        let mut place = 0;
        while place < row {
            let out = &mut sums[(line * row + place) * PANEL..];
            // SAFETY: the same contract; the places lie in the row.
            unsafe {
                if row - place >= PLACES {
                    some::<S, PLACES>(job, line, place, out);
                    place += PLACES;
                } else {
                    some::<S, 1>(job, line, place, out);
                    place += 1;
                }
            }
        }
    }
}

/// `N` places of a line of the window, from `place` on.
///
/// # Safety
/// As [`all`].
#[inline(always)]
unsafe fn some<S: Lanes, const N: usize>(job: &Job<'_>, line: usize, place: usize, out: &mut [f32]) {
    let (window, from) = (job.window, job.from);
    let (border, step) = (from.border - window.padding(), window.stride * window.inputs);
    assert!(out.len() >= N * PANEL, "room for the sums");
    // SAFETY: windows end inside the image, as its border was checked; a panel has sixteen values a pixel.
    unsafe {
        let mut sums = [S::none(); N];
        for (y, pixels) in job.panel.chunks_exact(job.width * PANEL).enumerate() {
            let start = (y * window.stride + border + line) * from.row() + border * window.inputs + place;
            let mut values = job.values.as_ptr().add(start);
            for pixel in pixels.chunks_exact(PANEL) {
                let gradient = S::floats(pixel.as_ptr());
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = S::add_product(*sum, gradient, values.add(n));
                }
                values = values.wrapping_add(step);
            }
        }
        for (n, sum) in sums.iter().enumerate() {
            S::store_floats(*sum, out[n * PANEL..].as_mut_ptr());
        }
    }
}
