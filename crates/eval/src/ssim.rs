//! Structural similarity of images (SSIM): 1 for equal ones, lower the less their local means, contrasts and patterns agree.
//!
//! Wang, Bovik, Sheikh and Simoncelli, 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity". In
//! every window that lies within the image, with means `μ`, variances `σ²` and covariance `σ_xy`,
//!
//! `SSIM = (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / ((μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂))`, `C₁ = (0.01 L)²`, `C₂ = (0.03 L)²`,
//!
//! where `L` is the range of values; the image's value is the mean over windows.

/// How the pixels of a window count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Window {
    /// A square of so many pixels an edge, all alike; variances as of a sample, with `n − 1`. scikit-image's default is 7.
    Uniform(usize),
    /// A Gaussian of this deviation, cut off at 3.5 deviations. The paper's is 1.5, eleven pixels an edge.
    Gaussian(f64),
}

impl Window {
    /// Pixels of an edge.
    pub fn edge(self) -> usize {
        match self {
            Window::Uniform(edge) => edge,
            Window::Gaussian(deviation) => 2 * (3.5 * deviation + 0.5) as usize + 1,
        }
    }

    /// Weights along an edge, with sum 1, and the factor on variances.
    fn weights(self) -> (Vec<f64>, f64) {
        let edge = self.edge();
        match self {
            Window::Uniform(_) => {
                let count = (edge * edge) as f64;
                (vec![(edge as f64).recip(); edge], count / (count - 1.0))
            }
            Window::Gaussian(deviation) => {
                let middle = (edge / 2) as f64;
                let bell = |at: usize| (-0.5 * ((at as f64 - middle) / deviation).powi(2)).exp();
                let sum: f64 = (0..edge).map(bell).sum();
                ((0..edge).map(|at| bell(at) / sum).collect(), 1.0)
            }
        }
    }
}

/// The similarity of two images of `width` pixels a row, whose values span `range`.
///
/// # Panics
/// If the images differ in size or are no whole rows, or the window is below 2 pixels or larger than they are.
pub fn ssim(a: &[f32], b: &[f32], width: usize, window: Window, range: f64) -> f64 {
    let (edge, (weights, factor)) = (window.edge(), window.weights());
    assert!(a.len() == b.len() && width > 0 && a.len().is_multiple_of(width), "two images of one size");
    let height = a.len() / width;
    assert!((2..=width.min(height)).contains(&edge), "a window that fits into the image");
    let (c1, c2) = ((0.01 * range).powi(2), (0.03 * range).powi(2));
    let (mut sum, mut count) = (0.0, 0);
    for top in 0..=height - edge {
        for left in 0..=width - edge {
            // Mean of a and b, of their squares, of their product.
            let mut means = [0.0; 5];
            for (row, vertical) in weights.iter().enumerate() {
                let from = (top + row) * width + left;
                let pairs = a[from..from + edge].iter().zip(&b[from..from + edge]);
                for ((&a, &b), horizontal) in pairs.zip(&weights) {
                    let (a, b, weight) = (f64::from(a), f64::from(b), vertical * horizontal);
                    let values = [a, b, a * a, b * b, a * b];
                    means.iter_mut().zip(values).for_each(|(mean, value)| *mean += weight * value);
                }
            }
            let [a, b, aa, bb, ab] = means;
            let (va, vb, vab) = (factor * (aa - a * a), factor * (bb - b * b), factor * (ab - a * b));
            let alike = (2.0 * a * b + c1) * (2.0 * vab + c2);
            sum += alike / ((a * a + b * b + c1) * (va + vb + c2));
            count += 1;
        }
    }
    sum / f64::from(count)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        width: usize,
        range: f64,
        a: Vec<f32>,
        b: Vec<f32>,
        uniform: f64,
        small: f64,
        gaussian: f64,
    }

    #[test]
    fn it_is_what_scikit_image_finds() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../../tests/golden/ssim.json")).unwrap();
        assert!(cases.len() >= 4);
        for case in cases {
            let found = |window| ssim(&case.a, &case.b, case.width, window, case.range);
            let pairs = [
                (found(Window::Uniform(7)), case.uniform),
                (found(Window::Uniform(3)), case.small),
                (found(Window::Gaussian(1.5)), case.gaussian),
            ];
            for (found, expected) in pairs {
                assert!((found - expected).abs() < 1e-6, "{found} {expected}");
            }
        }
    }

    #[test]
    fn equal_images_are_alike_and_turned_ones_are_not() {
        let image: Vec<f32> = (0..144).map(|at| ((at * 37 % 101) as f32 / 50.0) - 1.0).collect();
        let opposite: Vec<f32> = image.iter().map(|value| -value).collect();
        assert!((ssim(&image, &image, 12, Window::Uniform(7), 2.0) - 1.0).abs() < 1e-12);
        // Around a common mean, so that only the pattern is turned.
        let [up, down] =
            [image, opposite].map(|image| image.iter().map(|value| 5.0 + value).collect::<Vec<_>>());
        assert!(ssim(&up, &down, 12, Window::Uniform(7), 2.0) < -0.9);
    }
}
