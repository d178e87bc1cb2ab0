//! One choice of every axis, done to a matrix.

use super::codebook::Codebook;
use super::grid::{Grid, Symmetry};
use super::range::{self, Calibration};
use super::rounding::{self, AdaOptions, Rounding};
use crate::{Error, Result};

/// Which values a number can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mapping {
    /// Evenly spaced.
    #[default]
    Uniform,
    /// Powers of two of the largest.
    PowerOfTwo,
    /// Means of clusters.
    KMeans,
    /// ± one value, whatever the bits.
    Binary,
    /// 0 and ± one value, whatever the bits.
    Ternary,
}

/// Which values share a grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Granularity {
    /// All of the matrix.
    Tensor,
    /// A row, which is an output channel.
    #[default]
    Channel,
    /// So many neighbours of a row; the last group may have fewer.
    Group(usize),
}

/// One choice of each axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Bits a value; see [`Options::bits_per_value`] for mappings that don't ask.
    pub bits: u32,
    /// Which values there are.
    pub mapping: Mapping,
    /// Whether a uniform grid is centred on zero.
    pub symmetry: Symmetry,
    /// Which range a uniform grid covers.
    pub calibration: Calibration,
    /// What shares a grid.
    pub granularity: Granularity,
    /// Which neighbour is taken.
    pub rounding: Rounding,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            bits: 8,
            mapping: Mapping::default(),
            symmetry: Symmetry::default(),
            calibration: Calibration::default(),
            granularity: Granularity::default(),
            rounding: Rounding::default(),
        }
    }
}

/// A matrix as it is after quantization.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulated {
    /// Its values, those of the levels.
    pub values: Vec<f32>,
    /// Grids that it needed: of the whole, of rows or of groups in their order; none for levels that aren't uniform.
    pub grids: Vec<Grid>,
    /// Bits that codes, scales (16 bits each), zero points and codebooks (16 bits a level) take.
    pub bits: u64,
}

impl Simulated {
    /// `Σ (r − r̃)²`.
    pub fn squared_error(&self, original: &[f32]) -> f64 {
        original.iter().zip(&self.values).map(|(a, b)| f64::from(a - b).powi(2)).sum()
    }
}

impl Options {
    /// Checks what the types can't.
    ///
    /// # Errors
    /// What is out of range.
    pub fn check(&self) -> Result<()> {
        let fail = |what: String| Err(Error::Option(what));
        if !(2..=16).contains(&self.bits) && !matches!(self.mapping, Mapping::Binary | Mapping::Ternary) {
            return fail(format!("a quantizer has 2 to 16 bits, found {}", self.bits));
        }
        if self.mapping != Mapping::Uniform && self.bits > 8 && self.bits_per_value() > 8.0 {
            return fail(format!("codebooks have at most 8 bits, found {}", self.bits));
        }
        if self.granularity == Granularity::Group(0) {
            return fail("a group holds at least one value".into());
        }
        if let Calibration::Percentile(share) = self.calibration
            && !(share > 0.0 && share <= 1.0)
        {
            return fail(format!("a percentile is a share above 0 and up to 1, found {share}"));
        }
        if self.mapping != Mapping::Uniform && self.rounding != Rounding::Nearest {
            return fail("only values of a uniform grid can be rounded other than to the nearest".into());
        }
        Ok(())
    }

    /// Bits of a value's code.
    pub fn bits_per_value(&self) -> f64 {
        match self.mapping {
            Mapping::Binary => 1.0,
            Mapping::Ternary => 2.0,
            _ => f64::from(self.bits),
        }
    }
}

/// A matrix `[rows, columns]` of weights, as the options quantize it. `moments`, the mean of `x xᵀ` of the layer's inputs
/// `[columns, columns]`, is what [`Rounding::Adaptive`] looks at.
///
/// # Errors
/// If options are out of range, the matrix isn't whole rows, or adaptive rounding lacks moments.
pub fn simulate(
    values: &[f32],
    columns: usize,
    options: &Options,
    moments: Option<&[f32]>,
) -> Result<Simulated> {
    options.check()?;
    if columns == 0 || !values.len().is_multiple_of(columns) {
        let count = values.len();
        return Err(Error::Option(format!("{count} values are no whole rows of {columns}")));
    }
    let adaptive = options.rounding == Rounding::Adaptive;
    if adaptive && moments.is_none_or(|it| it.len() != columns * columns) {
        return Err(Error::Option(format!(
            "adaptive rounding looks at the moments of the layer's {columns} inputs; give them, or choose another rounding"
        )));
    }
    let mut rng = rounding::generator(match options.rounding {
        Rounding::Stochastic { seed } => seed,
        _ => 0,
    });
    let mut out = Simulated { values: Vec::with_capacity(values.len()), grids: Vec::new(), bits: 0 };
    for part in parts(values, columns, options.granularity) {
        out.bits += (part.len() as f64 * options.bits_per_value()) as u64;
        let book = match options.mapping {
            Mapping::Uniform => None,
            Mapping::PowerOfTwo => Some(Codebook::powers_of_two(part, options.bits)),
            Mapping::KMeans => Some(Codebook::k_means(part, options.bits)),
            Mapping::Binary => Some(Codebook::binary(part)),
            Mapping::Ternary => Some(Codebook::ternary(part)),
        };
        if let Some(book) = book {
            out.values.extend(part.iter().map(|&value| book.round(value)));
            out.bits += 16 * if options.mapping == Mapping::KMeans { book.levels().len() as u64 } else { 1 };
            continue;
        }
        let grid = options.calibration.grid(&range::points(part), options.bits, options.symmetry);
        out.bits += 16 + if options.symmetry == Symmetry::Asymmetric { u64::from(options.bits) } else { 0 };
        out.grids.push(grid);
        match options.rounding {
            Rounding::Stochastic { .. } => out.values.extend(rounding::stochastic(part, &grid, &mut rng)),
            _ => out.values.extend(part.iter().map(|&value| grid.round(value))),
        }
    }
    if let Some(moments) = moments.filter(|_| adaptive) {
        adapt(values, columns, options, moments, &mut out);
    }
    Ok(out)
}

/// Rounds again, row by row, on the grids that were found.
fn adapt(values: &[f32], columns: usize, options: &Options, moments: &[f32], out: &mut Simulated) {
    let per_row = match options.granularity {
        Granularity::Group(size) => columns.div_ceil(size),
        _ => 1,
    };
    let width = match options.granularity {
        Granularity::Group(size) => size.min(columns),
        _ => columns,
    };
    out.values.clear();
    for (number, row) in values.chunks(columns).enumerate() {
        for group in 0..per_row {
            let grid = match options.granularity {
                Granularity::Tensor => out.grids[0],
                _ => out.grids[number * per_row + group],
            };
            let range = group * width..((group + 1) * width).min(columns);
            // Groups are rounded apart, each with its inputs' own moments.
            let own: Vec<f32> =
                range.clone().flat_map(|at| moments[at * columns..][range.clone()].iter().copied()).collect();
            out.values.extend(rounding::ada_round(&row[range], &grid, &own, &AdaOptions::default()));
        }
    }
}

/// The values that share a grid, in order.
fn parts(values: &[f32], columns: usize, granularity: Granularity) -> Box<dyn Iterator<Item = &[f32]> + '_> {
    match granularity {
        Granularity::Tensor => Box::new(std::iter::once(values)),
        Granularity::Channel => Box::new(values.chunks(columns)),
        Granularity::Group(size) => Box::new(values.chunks(columns).flat_map(move |row| row.chunks(size))),
    }
}

/// The usual choice for weights: one symmetric grid of restricted range for each row of `columns` values.
pub fn channels(values: &[f32], columns: usize, bits: u32, calibration: Calibration) -> Vec<Grid> {
    values
        .chunks(columns.max(1))
        .map(|row| calibration.grid(&range::points(row), bits, Symmetry::Restricted))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::random;
    use super::*;

    /// Rows of very different size.
    fn matrix() -> Vec<f32> {
        let mut next = random::normal(1);
        (0..16 * 64)
            .map(|at| next() * (1.0 + (at / 64) as f32) * if at % 64 < 8 { 4.0 } else { 1.0 })
            .collect()
    }

    fn error(options: Options) -> f64 {
        let values = matrix();
        simulate(&values, 64, &options, None).unwrap().squared_error(&values)
    }

    #[test]
    fn finer_granularity_errs_less() {
        for bits in [2, 3, 4, 8] {
            let of = |granularity| error(Options { bits, granularity, ..Options::default() });
            let (tensor, channel) = (of(Granularity::Tensor), of(Granularity::Channel));
            let group = of(Granularity::Group(8));
            assert!(channel < tensor && group < channel, "{bits}: {tensor} {channel} {group}");
        }
    }

    #[test]
    fn every_mapping_is_that_of_its_file_part_by_part() {
        let values = matrix();
        let options = Options { bits: 3, ..Options::default() };
        for mapping in [Mapping::PowerOfTwo, Mapping::KMeans, Mapping::Binary, Mapping::Ternary] {
            let found = simulate(&values, 64, &Options { mapping, ..options }, None).unwrap();
            for (row, out) in values.chunks(64).zip(found.values.chunks(64)) {
                let book = match mapping {
                    Mapping::PowerOfTwo => Codebook::powers_of_two(row, 3),
                    Mapping::KMeans => Codebook::k_means(row, 3),
                    Mapping::Binary => Codebook::binary(row),
                    _ => Codebook::ternary(row),
                };
                assert!(row.iter().zip(out).all(|(&value, &out)| book.round(value) == out));
            }
        }
        let uniform = simulate(&values, 64, &options, None).unwrap();
        let grids = channels(&values, 64, 3, Calibration::MinMax);
        assert_eq!(uniform.grids, grids);
        let rounded = values.iter().enumerate().map(|(at, &value)| grids[at / 64].round(value));
        assert!(uniform.values.iter().copied().eq(rounded));
    }

    #[test]
    fn sizes_count_codes_scales_and_zero_points() {
        let values = matrix();
        let size = |options: &Options| simulate(&values, 64, options, None).unwrap().bits;
        let options = Options { bits: 4, ..Options::default() };
        assert_eq!(size(&options), 1024 * 4 + 16 * 16);
        let grouped =
            Options { granularity: Granularity::Group(8), symmetry: Symmetry::Asymmetric, ..options };
        assert_eq!(size(&grouped), 1024 * 4 + 128 * 20);
        assert_eq!(size(&Options { mapping: Mapping::Binary, ..options }), 1024 + 16 * 16);
        assert_eq!(size(&Options { mapping: Mapping::KMeans, ..options }), 1024 * 4 + 16 * 16 * 16);
    }

    #[test]
    fn adaptive_rounding_lowers_the_error_of_outputs() {
        let values: Vec<f32> = matrix()[..2 * 64].to_vec();
        let mut next = random::normal(9);
        let mut moments = vec![0.0; 64 * 64];
        for _ in 0..80 {
            let shared = next();
            let x: Vec<f32> = (0..64).map(|_| shared + 0.4 * next()).collect();
            for (at, moment) in moments.iter_mut().enumerate() {
                *moment += x[at / 64] * x[at % 64] / 80.0;
            }
        }
        let of = |rounding, granularity| {
            let options = Options { bits: 3, rounding, granularity, ..Options::default() };
            let found = simulate(&values, 64, &options, Some(&moments)).unwrap();
            let rows = values.chunks(64).zip(found.values.chunks(64));
            rows.map(|(row, out)| rounding::output_error(row, out, &moments)).sum::<f64>()
        };
        for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Group(16)] {
            let (nearest, adaptive) =
                (of(Rounding::Nearest, granularity), of(Rounding::Adaptive, granularity));
            assert!(adaptive < nearest, "{granularity:?}: {adaptive} {nearest}");
        }
    }

    #[test]
    fn odd_options_are_refused() {
        let refused =
            |options: Options, columns: usize| simulate(&[0.0; 8], columns, &options, None).unwrap_err();
        let base = Options::default();
        refused(Options { bits: 1, ..base }, 4);
        refused(Options { bits: 17, ..base }, 4);
        refused(Options { granularity: Granularity::Group(0), ..base }, 4);
        refused(Options { calibration: Calibration::Percentile(1.5), ..base }, 4);
        refused(Options { mapping: Mapping::KMeans, rounding: Rounding::Stochastic { seed: 1 }, ..base }, 4);
        refused(Options { mapping: Mapping::KMeans, bits: 12, ..base }, 4);
        refused(base, 3);
        refused(base, 0);
        let message = refused(Options { rounding: Rounding::Adaptive, ..base }, 4).to_string();
        assert!(message.contains("moments"), "{message}");
    }
}
