//! Which option of each axis suits a matrix, and what it costs: options are tried axis by axis, each with the best ones of
//! the axes before it.
//!
//! Finer grids err less and take more bits. They are weighed by what a bit is worth: one more bit a value divides the squared error
//! by about four, so the option with the least `error · 4^bits` is chosen.

use serde::Serialize;

use super::{Calibration, Granularity, Mapping, Options, Symmetry, simulate};
use crate::Result;

/// Rows that are looked at: enough to choose by, whatever the size of the matrix.
const ROWS: usize = 64;

/// An option that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tried {
    /// Its name.
    pub option: &'static str,
    /// `Σ (w − ŵ)² / Σ w²`.
    pub error: f64,
    /// Bits a weight, with scales, zero points and codebooks.
    pub bits: f64,
}

/// An axis with all that was tried on it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Axis {
    /// Its name.
    pub axis: &'static str,
    /// The option that was chosen.
    pub chosen: Tried,
    /// All options, the chosen one among them.
    pub tried: Vec<Tried>,
}

/// What suits a matrix.
#[derive(Debug, Clone, Serialize)]
pub struct Explained {
    /// The axes, in the order in which they were decided.
    pub axes: Vec<Axis>,
    /// Relative squared error of the usual choice: a symmetric grid from the least to the largest value for each channel.
    pub usual: f64,
    /// Relative squared error of all chosen options together.
    pub error: f64,
    /// Bits a weight of them.
    pub bits: f64,
    /// The options.
    #[serde(skip)]
    pub options: Options,
}

/// An option's name, and how it is chosen.
type Choice = (&'static str, fn(&mut Options));

/// What is tried: axes with their options.
fn axes() -> [(&'static str, Vec<Choice>); 4] {
    [
        (
            "granularity",
            vec![
                ("channel", |it| it.granularity = Granularity::Channel),
                ("tensor", |it| it.granularity = Granularity::Tensor),
                ("group 128", |it| it.granularity = Granularity::Group(128)),
                ("group 32", |it| it.granularity = Granularity::Group(32)),
            ],
        ),
        (
            "symmetry",
            vec![
                ("restricted", |it| it.symmetry = Symmetry::Restricted),
                ("full", |it| it.symmetry = Symmetry::Full),
                ("asymmetric", |it| it.symmetry = Symmetry::Asymmetric),
            ],
        ),
        (
            "range",
            vec![
                ("min-max", |it| it.calibration = Calibration::MinMax),
                ("99.9 %", |it| it.calibration = Calibration::Percentile(0.999)),
                ("99 %", |it| it.calibration = Calibration::Percentile(0.99)),
                ("least squares", |it| it.calibration = Calibration::Mse),
                ("learned", |it| it.calibration = Calibration::Learned),
            ],
        ),
        (
            "mapping",
            vec![
                ("uniform", |it| it.mapping = Mapping::Uniform),
                ("powers of two", |it| it.mapping = Mapping::PowerOfTwo),
                ("k-means", |it| it.mapping = Mapping::KMeans),
            ],
        ),
    ]
}

/// Chooses for a matrix `[rows, columns]` at so many bits, 2 to 8.
///
/// # Errors
/// If bits are out of range or the matrix isn't whole rows.
pub fn explain(values: &[f32], columns: usize, bits: u32) -> Result<Explained> {
    let rows = values.len() / columns.max(1);
    let step = rows.div_ceil(ROWS).max(1);
    let sample: Vec<f32> = values.chunks(columns.max(1)).step_by(step).flatten().copied().collect();
    let energy = sample.iter().map(|&it| f64::from(it).powi(2)).sum::<f64>().max(f64::MIN_POSITIVE);
    let look = |name: &'static str, options: &Options| -> Result<Tried> {
        let found = simulate(&sample, columns, options, None)?;
        let bits = found.bits as f64 / sample.len().max(1) as f64;
        Ok(Tried { option: name, error: found.squared_error(&sample) / energy, bits })
    };
    let mut options = Options { bits, ..Options::default() };
    let usual = look("usual", &options)?;
    let (mut axes_found, mut last) = (Vec::new(), usual.clone());
    for (axis, choices) in axes() {
        let mut tried = Vec::with_capacity(choices.len());
        for (name, choose) in &choices {
            let mut own = options;
            choose(&mut own);
            tried.push(look(name, &own)?);
        }
        let worth = |it: &Tried| it.error * 4f64.powf(it.bits);
        let best =
            (0..tried.len()).min_by(|a, b| worth(&tried[*a]).total_cmp(&worth(&tried[*b]))).unwrap_or(0);
        choices[best].1(&mut options);
        last = tried[best].clone();
        axes_found.push(Axis { axis, chosen: last.clone(), tried });
    }
    Ok(Explained { axes: axes_found, usual: usual.error, error: last.error, bits: last.bits, options })
}

#[cfg(test)]
mod tests {
    use super::super::random;
    use super::*;

    #[test]
    fn the_chosen_options_are_the_best_of_their_axes_and_give_the_error_that_is_told() {
        let mut next = random::normal(1);
        let values: Vec<f32> =
            (0..32 * 128).map(|at| next() * if at % 128 < 64 { 1.0 } else { 6.0 } + 0.5).collect();
        let found = explain(&values, 128, 3).unwrap();
        for axis in &found.axes {
            let worth = |it: &Tried| it.error * 4f64.powf(it.bits);
            let least = axis.tried.iter().map(worth).fold(f64::INFINITY, f64::min);
            assert_eq!(worth(&axis.chosen), least);
        }
        let energy: f64 = values.iter().map(|&it| f64::from(it).powi(2)).sum();
        let again = simulate(&values, 128, &found.options, None).unwrap();
        assert!((again.squared_error(&values) / energy - found.error).abs() < 1e-12);
        assert!(found.error < found.usual);
        // Halves of rows differ, so that groups pay.
        assert_eq!(found.axes[0].chosen.option, "group 32");
    }

    #[test]
    fn one_size_everywhere_needs_no_groups_and_odd_input_is_refused() {
        let mut next = random::even(2);
        let values: Vec<f32> = (0..64 * 256).map(|_| next()).collect();
        let found = explain(&values, 256, 4).unwrap();
        assert!(["channel", "tensor"].contains(&found.axes[0].chosen.option), "{:?}", found.axes[0]);
        assert!(explain(&values, 255, 4).is_err());
        assert!(explain(&values, 256, 1).is_err());
        assert_eq!(explain(&[0.0; 64], 32, 4).unwrap().error, 0.0);
    }
}
