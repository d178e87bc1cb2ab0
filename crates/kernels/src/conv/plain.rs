//! Convolutions as their definition says, in f64 and in whole numbers: the truth of the fast ones.

use super::{Layout, Window};

/// `Σ w x` over a window of pixel `(y, x)` of the result, read from the padded image by `value(offset)`.
fn window_sum<A: std::iter::Sum>(
    window: &Window,
    from: &Layout,
    output: usize,
    (y, x): (usize, usize),
    product: impl Fn(usize, usize) -> A,
) -> A {
    let border = from.border - window.padding();
    (0..window.size * window.size)
        .flat_map(|tap| {
            (0..window.inputs).map(move |channel| (tap / window.size, tap % window.size, channel))
        })
        .map(|(row, column, channel)| {
            let (y, x) = (y * window.stride + row + border, x * window.stride + column + border);
            let weight = ((output * window.size + row) * window.size + column) * window.inputs + channel;
            product(weight, y * from.row() + x * window.inputs + channel)
        })
        .sum()
}

/// The sums of a convolution of f32, `[height, width, outputs]`.
pub fn floats(window: &Window, weights: &[f32], image: &[f32], from: &Layout) -> Vec<f64> {
    let product = |weight: usize, at: usize| f64::from(weights[weight]) * f64::from(image[at]);
    all(window, from, |output, pixel| window_sum(window, from, output, pixel, product))
}

/// The sums of a convolution of codes.
pub fn ints(window: &Window, weights: &[i8], image: &[u8], from: &Layout) -> Vec<i64> {
    let product = |weight: usize, at: usize| i64::from(weights[weight]) * i64::from(image[at]);
    all(window, from, |output, pixel| window_sum(window, from, output, pixel, product))
}

fn all<T>(window: &Window, from: &Layout, sum: impl Fn(usize, (usize, usize)) -> T) -> Vec<T> {
    let (height, width) = (window.result(from.height), window.result(from.width));
    let mut out = Vec::with_capacity(height * width * window.outputs);
    for y in 0..height {
        for x in 0..width {
            out.extend((0..window.outputs).map(|output| sum(output, (y, x))));
        }
    }
    out
}
