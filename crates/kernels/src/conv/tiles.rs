//! The loops of a convolution: a register tile of pixels times panels over the whole window, then what becomes of its sums.

use super::lanes::{Lanes, Plain};
use super::{Codes, GROUP, Layout, PANEL, Window};
use crate::isa::Isa;

/// Values that are multiplied: bytes with bytes, or f32.
pub(super) trait Element: Copy + 'static {
    /// A weight.
    type Weight: Copy;
    /// A sum.
    type Sum: Copy + Default;
    /// Sixteen sums in registers.
    type Sums<S: Lanes>: Copy;
    /// Sixteen lanes of weights.
    type Weights<S: Lanes>: Copy;
    /// Values that one product takes.
    const GROUP: usize;
    /// Whether two panels at a time are faster where registers hold them. Measured with 32 outputs: f32 123 billion products a second
    /// against 94; bytes, whose way back needs registers too, 119 against 250.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    const PAIRS: bool;

    /// Zeros.
    unsafe fn none<S: Lanes>() -> Self::Sums<S>;
    /// Reads `16 · GROUP` weights.
    unsafe fn weights<S: Lanes>(at: *const Self::Weight) -> Self::Weights<S>;
    /// Adds products with `GROUP` values.
    unsafe fn add<S: Lanes>(sums: Self::Sums<S>, weights: Self::Weights<S>, at: *const Self)
    -> Self::Sums<S>;
    /// Writes sixteen sums.
    unsafe fn store<S: Lanes>(sums: Self::Sums<S>, to: *mut Self::Sum);
}

// SAFETY of both blocks: each function's contract is that of the one it calls.
impl Element for u8 {
    type Weight = i8;
    type Sum = i32;
    type Sums<S: Lanes> = S::Ints;
    type Weights<S: Lanes> = S::Bytes;
    const GROUP: usize = GROUP;
    const PAIRS: bool = false;

    #[inline(always)]
    unsafe fn none<S: Lanes>() -> S::Ints {
        // SAFETY: the same contract.
        unsafe { S::ints() }
    }
    #[inline(always)]
    unsafe fn weights<S: Lanes>(at: *const i8) -> S::Bytes {
        // SAFETY: the same contract.
        unsafe { S::bytes(at) }
    }
    #[inline(always)]
    unsafe fn add<S: Lanes>(sums: S::Ints, weights: S::Bytes, at: *const u8) -> S::Ints {
        // SAFETY: the same contract.
        unsafe { S::dot(sums, weights, at) }
    }
    #[inline(always)]
    unsafe fn store<S: Lanes>(sums: S::Ints, to: *mut i32) {
        // SAFETY: the same contract.
        unsafe { S::store_ints(sums, to) }
    }
}

impl Element for f32 {
    type Weight = f32;
    type Sum = f32;
    type Sums<S: Lanes> = S::Floats;
    type Weights<S: Lanes> = S::Floats;
    const GROUP: usize = 1;
    const PAIRS: bool = true;

    #[inline(always)]
    unsafe fn none<S: Lanes>() -> S::Floats {
        // SAFETY: the same contract.
        unsafe { S::none() }
    }
    #[inline(always)]
    unsafe fn weights<S: Lanes>(at: *const f32) -> S::Floats {
        // SAFETY: the same contract.
        unsafe { S::floats(at) }
    }
    #[inline(always)]
    unsafe fn add<S: Lanes>(sums: S::Floats, weights: S::Floats, at: *const f32) -> S::Floats {
        // SAFETY: the same contract.
        unsafe { S::add_product(sums, weights, at) }
    }
    #[inline(always)]
    unsafe fn store<S: Lanes>(sums: S::Floats, to: *mut f32) {
        // SAFETY: the same contract.
        unsafe { S::store_floats(sums, to) }
    }
}

/// What becomes of the sums of a panel and a pixel.
pub(super) trait Finish<E: Element> {
    /// A value of the result.
    type Out: Copy;
    /// The results of sixteen sums; `first` is the number of the panel's first output.
    fn finish(&self, sums: &[E::Sum; PANEL], first: usize) -> [Self::Out; PANEL];
}

/// f32 with bias and a least value.
pub(super) struct Floats<'a> {
    pub bias: &'a [f32],
    pub least: f32,
}

impl Finish<f32> for Floats<'_> {
    type Out = f32;

    #[inline(always)]
    fn finish(&self, sums: &[f32; PANEL], first: usize) -> [f32; PANEL] {
        let bias = lanes(self.bias, first);
        std::array::from_fn(|lane| (sums[lane] + bias[lane]).max(self.least))
    }
}

/// Codes again.
pub(super) struct ToCodes<'a> {
    pub bias: &'a [i32],
    pub factors: &'a [i32],
    pub shifts: &'a [u32],
    pub codes: Codes,
}

impl Finish<u8> for ToCodes<'_> {
    type Out = u8;

    #[inline(always)]
    fn finish(&self, sums: &[i32; PANEL], first: usize) -> [u8; PANEL] {
        let (bias, factors, shifts) =
            (lanes(self.bias, first), lanes(self.factors, first), lanes(self.shifts, first));
        let Codes { zero, low, high } = self.codes;
        // `Multiplier::apply`, a step at a time over all lanes, in 64 bits to the end: compilers make vectors of that.
        let mut wide: [i64; PANEL] = std::array::from_fn(|lane| {
            i64::from(sums[lane].wrapping_add(bias[lane])) * i64::from(factors[lane])
        });
        for (wide, shift) in wide.iter_mut().zip(shifts) {
            let shift = u64::from(*shift);
            *wide = (*wide + (1i64 << (shift - 1))) >> shift;
        }
        let (zero, low, high) = (i64::from(zero), i64::from(low), i64::from(high));
        wide.map(|it| (it + zero).clamp(low, high) as u8)
    }
}

/// Real numbers.
pub(super) struct ToFloats<'a> {
    pub bias: &'a [i32],
    pub scales: &'a [f32],
}

impl Finish<u8> for ToFloats<'_> {
    type Out = f32;

    #[inline(always)]
    fn finish(&self, sums: &[i32; PANEL], first: usize) -> [f32; PANEL] {
        let (bias, scales) = (lanes(self.bias, first), lanes(self.scales, first));
        std::array::from_fn(|lane| sums[lane].wrapping_add(bias[lane]) as f32 * scales[lane])
    }
}

#[inline(always)]
fn lanes<T>(values: &[T], first: usize) -> &[T; PANEL] {
    values[first..first + PANEL].try_into().expect("a whole panel")
}

/// A convolution of one image.
pub(super) struct Job<'a, E: Element> {
    pub window: &'a Window,
    pub weights: &'a [E::Weight],
    pub image: (&'a [E], Layout),
    pub channel: usize,
}

/// Runs on a path.
pub(super) fn run<E: Element, F: Finish<E>>(
    isa: Isa,
    job: &Job<'_, E>,
    finish: &F,
    (out, layout): (&mut [F::Out], Layout),
) {
    let Job { window, image: (image, from), .. } = job;
    assert!(window.size % 2 == 1 && window.stride > 0, "windows have an odd side and move");
    assert!(from.channels == window.inputs && from.border >= window.padding(), "an image with enough border");
    assert!(image.len() >= from.values() && out.len() >= layout.values(), "whole images");
    assert!(
        layout.height == window.result(from.height) && layout.width == window.result(from.width),
        "a result of the window's size"
    );
    assert!(job.channel + window.outputs <= layout.channels, "channels for the result");
    match isa.vectors() {
        // SAFETY: the path is chosen only where the processor has its features; the shapes were checked.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512(job, finish, out, layout) },
        // SAFETY: the same.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2(job, finish, out, layout) },
        // SAFETY: needs no features; the shapes were checked.
        _ => unsafe { all::<Plain, E, F, 2, 1>(job, finish, out, layout) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn avx512<E: Element, F: Finish<E>>(job: &Job<'_, E>, finish: &F, out: &mut [F::Out], layout: Layout) {
    // SAFETY: the same contract.
    unsafe {
        match E::PAIRS {
            true => all::<super::lanes::Avx512, E, F, 8, 2>(job, finish, out, layout),
            false => all::<super::lanes::Avx512, E, F, 8, 1>(job, finish, out, layout),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<E: Element, F: Finish<E>>(job: &Job<'_, E>, finish: &F, out: &mut [F::Out], layout: Layout) {
    // SAFETY: the same contract.
    unsafe { all::<super::lanes::Avx2, E, F, 4, 1>(job, finish, out, layout) }
}

/// The whole image in tiles of `T` pixels and `P` panels.
///
/// # Safety
/// The features of `S` are there; [`run`] checked the shapes.
#[inline(always)]
unsafe fn all<S: Lanes, E: Element, F: Finish<E>, const T: usize, const P: usize>(
    job: &Job<'_, E>,
    finish: &F,
    out: &mut [F::Out],
    layout: Layout,
) {
    let count = job.window.outputs.div_ceil(PANEL);
    let mut panel = 0;
    while panel < count {
        // SAFETY: the same contract.
        unsafe {
            if count - panel >= P {
                some::<S, E, F, T, P>(job, finish, panel, out, layout);
                panel += P;
            } else {
                some::<S, E, F, T, 1>(job, finish, panel, out, layout);
                panel += 1;
            }
        }
    }
}

/// All pixels of `P` panels.
///
/// # Safety
/// As [`all`].
#[inline(always)]
unsafe fn some<S: Lanes, E: Element, F: Finish<E>, const T: usize, const P: usize>(
    job: &Job<'_, E>,
    finish: &F,
    panel: usize,
    out: &mut [F::Out],
    layout: Layout,
) {
    for y in 0..layout.height {
        let mut x = 0;
        while x < layout.width {
            // SAFETY: the same contract; the pixels lie in the result.
            unsafe {
                if layout.width - x >= T {
                    tile::<S, E, F, T, P>(job, finish, panel, (y, x), out, layout);
                    x += T;
                } else {
                    tile::<S, E, F, 1, P>(job, finish, panel, (y, x), out, layout);
                    x += 1;
                }
            }
        }
    }
}

/// `T` pixels of a row and `P` panels.
///
/// # Safety
/// As [`all`]; the pixels lie in the result.
#[inline(always)]
unsafe fn tile<S: Lanes, E: Element, F: Finish<E>, const T: usize, const P: usize>(
    job: &Job<'_, E>,
    finish: &F,
    panel: usize,
    (y, x): (usize, usize),
    out: &mut [F::Out],
    layout: Layout,
) {
    let (window, (image, from)) = (job.window, job.image);
    let depth = window.depth();
    let step = window.stride * window.inputs;
    let mut stored = [[[E::Sum::default(); PANEL]; P]; T];
    // The window's corner: the padding moves it to the left and up, the border to the right and down.
    let border = from.border - window.padding();
    let corner = (y * window.stride + border) * from.row() + (x * window.stride + border) * window.inputs;
    // SAFETY: the last row of the last window ends inside the image, as `run` checked by its border; a panel holds the
    // whole depth.
    unsafe {
        let mut sums = [[E::none::<S>(); P]; T];
        let panels: [*const E::Weight; P] =
            std::array::from_fn(|p| job.weights.as_ptr().add((panel + p) * depth * PANEL));
        let mut at = 0;
        for row in 0..window.size {
            let values = image.as_ptr().add(corner + row * from.row());
            let mut value = 0;
            while value < window.size * window.inputs {
                let mut weights = [E::weights::<S>(panels[0].add(at)); P];
                for p in 1..P {
                    weights[p] = E::weights::<S>(panels[p].add(at));
                }
                for t in 0..T {
                    let values = values.add(t * step + value);
                    for p in 0..P {
                        sums[t][p] = E::add::<S>(sums[t][p], weights[p], values);
                    }
                }
                at += E::GROUP * PANEL;
                value += E::GROUP;
            }
        }
        for t in 0..T {
            for p in 0..P {
                E::store::<S>(sums[t][p], stored[t][p].as_mut_ptr());
            }
        }
    }
    for (t, stored) in stored.iter().enumerate() {
        let pixel = layout.at(y, x + t) + job.channel;
        for (p, stored) in stored.iter().enumerate() {
            let first = (panel + p) * PANEL;
            let results = finish.finish(stored, first);
            let lanes = PANEL.min(window.outputs - first);
            let to = &mut out[pixel + first..pixel + first + lanes];
            match <&mut [F::Out; PANEL]>::try_from(&mut *to) {
                Ok(to) => *to = results,
                Err(_) => to.copy_from_slice(&results[..lanes]),
            }
        }
    }
}
