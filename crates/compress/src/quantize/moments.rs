//! What calibration remembers of a linear layer's input: the second moments of its columns, their means and peaks.

use std::collections::{HashMap, HashSet};

use ounce_engine::Tap;
use ounce_kernels::gemm::{Compute, Operand, Workspace, gemm};
use ounce_kernels::pool::Pool;
use rayon::prelude::*;

/// Columns whose sums a thread takes at a time.
const COLUMNS: usize = 64;

/// Rows of the products that are computed at once.
const STRIP: usize = 384;

/// Rows and columns of a square that is mirrored at once.
const TILE: usize = 32;

/// Second moments of a linear layer's input of some width.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Values of a vector.
    pub width: usize,
    /// Vectors seen.
    pub tokens: usize,
    /// Sum of the squares of each column, `[width]`.
    pub squares: Vec<f64>,
    /// Sum of the absolute values of each column, `[width]`.
    pub magnitudes: Vec<f64>,
    /// Largest absolute value of each column, `[width]`.
    pub peaks: Vec<f32>,
    /// Sum of the products of all pairs of columns, `[width, width]`; empty if only squares were asked for.
    pub products: Vec<f32>,
}

impl Moments {
    /// Nothing seen yet.
    pub fn new(width: usize, pairs: bool) -> Moments {
        let products = if pairs { vec![0.0; width * width] } else { Vec::new() };
        let (squares, magnitudes, peaks) = (vec![0.0; width], vec![0.0; width], vec![0.0; width]);
        Moments { width, tokens: 0, squares, magnitudes, peaks, products }
    }

    /// Adds the vectors `x`, `[count, width]`.
    fn add(&mut self, x: &[f32], workspace: &mut Workspace) {
        let (n, count) = (self.width, x.len() / self.width);
        self.tokens += count;
        // Threads share the columns, so that sums don't depend on their number.
        let columns = (self.squares.par_chunks_mut(COLUMNS))
            .zip(self.magnitudes.par_chunks_mut(COLUMNS))
            .zip(self.peaks.par_chunks_mut(COLUMNS));
        columns.enumerate().for_each(|(index, ((squares, magnitudes), peaks))| {
            for x in x.chunks_exact(n) {
                let x = &x[index * COLUMNS..][..squares.len()];
                for (((square, magnitude), peak), x) in
                    squares.iter_mut().zip(&mut *magnitudes).zip(&mut *peaks).zip(x)
                {
                    *square += f64::from(*x) * f64::from(*x);
                    *magnitude += f64::from(x.abs());
                    *peak = peak.max(x.abs());
                }
            }
        });
        if self.products.is_empty() {
            return;
        }
        // The lower triangle, a strip of rows at a time, and its mirror image.
        for first in (0..n).step_by(STRIP) {
            let rows = STRIP.min(n - first);
            let (left, right) = (Operand::columns(&x[first..], n), Operand::rows(x, n));
            let (size, out) = ((rows, first + rows, count), &mut self.products[first * n..]);
            gemm(Pool::global(), Compute::F32, size, left, right, true, out, n, workspace);
        }
        mirror(&mut self.products, n);
    }

    /// Mean square of each column: what an error in it costs.
    pub fn importance(&self) -> Vec<f32> {
        self.squares.iter().map(|sum| (sum / self.tokens.max(1) as f64) as f32).collect()
    }

    /// Mean absolute value of each column.
    pub fn mean_magnitudes(&self) -> Vec<f32> {
        self.magnitudes.iter().map(|sum| (sum / self.tokens.max(1) as f64) as f32).collect()
    }

    /// `tr(A H Aᵀ)` with H the mean of `x xᵀ`: the mean square by which outputs move where weights move by `a`,
    /// `[rows, width]`, summed over rows.
    ///
    /// # Panics
    /// If the products of pairs were not asked for, or `a` has rows of another width.
    pub fn loss(&self, a: &[f32]) -> f64 {
        let n = self.width;
        assert!(self.products.len() == n * n && a.len().is_multiple_of(n), "pairs, and whole rows");
        trace(a, &self.products, n) / self.tokens.max(1) as f64
    }
}

/// Copies the lower triangle of a matrix, `[n, n]`, to its upper one, square by square so that lines of the cache are whole.
fn mirror(matrix: &mut [f32], n: usize) {
    for (row, column) in (0..n).step_by(TILE).flat_map(|row| (0..=row).step_by(TILE).map(move |it| (row, it)))
    {
        for to in column..n.min(column + TILE) {
            for from in row.max(to + 1)..n.min(row + TILE) {
                matrix[to * n + from] = matrix[from * n + to];
            }
        }
    }
}

/// `A H`, `[rows, n]`, for the rows of `a` and a symmetric `h`, `[n, n]`.
pub(super) fn times(a: &[f32], h: &[f32], n: usize) -> Vec<f32> {
    let mut out = vec![0.0; a.len()];
    let (left, right) = (Operand::rows(a, n), Operand::rows(h, n));
    let (size, mut workspace) = ((a.len() / n, n, n), Workspace::default());
    gemm(Pool::global(), Compute::F32, size, left, right, false, &mut out, n, &mut workspace);
    out
}

/// `tr(A H Aᵀ)`, as for [`times`].
pub(super) fn trace(a: &[f32], h: &[f32], n: usize) -> f64 {
    a.par_iter().zip(&times(a, h, n)).map(|(a, b)| f64::from(a * b)).sum()
}

/// Collects [`Moments`] of linear layers by name; those that share their input share their moments.
#[derive(Default)]
pub struct Collector {
    pairs: bool,
    /// Linears of interest; none for all.
    only: Option<HashSet<String>>,
    /// The linear behind which nothing is of interest.
    last: Option<String>,
    /// Of a linear's name, the place in `moments`.
    places: HashMap<String, usize>,
    moments: Vec<Moments>,
    workspace: Workspace,
}

impl Collector {
    /// Squares alone, or the products of all pairs too.
    pub fn new(pairs: bool) -> Collector {
        Collector { pairs, ..Collector::default() }
    }

    /// As [`Collector::new`], for some linear layers. `last` is the one behind which none of them comes, if one is known.
    pub fn of(linears: HashSet<String>, last: Option<String>, pairs: bool) -> Collector {
        Collector { pairs, only: Some(linears), last, ..Collector::default() }
    }

    /// All moments by the linear's name.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Moments)> {
        self.places.iter().map(|(name, &place)| (name.as_str(), &self.moments[place]))
    }

    /// Where a linear layer's moments lie: the same number for those that share their input.
    pub(crate) fn place(&self, linear: &str) -> Option<usize> {
        self.places.get(linear).copied()
    }

    /// The moments of a linear layer's input, if it was given anything.
    pub fn moments(&self, linear: &str) -> Option<&Moments> {
        self.places.get(linear).map(|&place| &self.moments[place])
    }
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Collector({} linears)", self.places.len())
    }
}

impl Tap for Collector {
    fn observe(&mut self, linears: &[&str], x: &[f32], width: usize) -> bool {
        let wanted = |name: &&&str| self.only.as_ref().is_none_or(|only| only.contains(**name));
        let linears: Vec<&str> = linears.iter().filter(wanted).copied().collect();
        if linears.is_empty() {
            return false;
        }
        let known = linears.first().and_then(|name| self.places.get(*name)).copied();
        let place = known.unwrap_or_else(|| {
            self.moments.push(Moments::new(width, self.pairs));
            let place = self.moments.len() - 1;
            self.places.extend(linears.iter().map(|name| ((*name).to_owned(), place)));
            place
        });
        self.moments[place].add(x, &mut self.workspace);
        self.last.as_ref().is_some_and(|last| linears.contains(&last.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_sums_over_all_that_was_shown() {
        let x: Vec<f32> = (0..7 * 5).map(|i| (i as f32 * 0.7).sin()).collect();
        let mut collector = Collector::new(true);
        collector.observe(&["a", "b"], &x[..10], 5);
        collector.observe(&["a", "b"], &x[10..], 5);
        let moments = collector.moments("b").unwrap();
        assert_eq!(moments.tokens, 7);
        for i in 0..5 {
            for j in 0..5 {
                let sum: f32 = x.chunks_exact(5).map(|x| x[i] * x[j]).sum();
                assert!((moments.products[i * 5 + j] - sum).abs() < 1e-5);
            }
            assert!((moments.squares[i] - f64::from(moments.products[i * 5 + i])).abs() < 1e-5);
        }
        for i in 0..5 {
            let column = || x.chunks_exact(5).map(|x| x[i].abs());
            assert_eq!(moments.peaks[i], column().fold(0.0, f32::max));
            assert!((moments.mean_magnitudes()[i] - column().sum::<f32>() / 7.0).abs() < 1e-6);
        }
        let a = [0.5, -1.0, 0.25, 2.0, -0.125];
        let square = |x: &[f32]| x.iter().zip(a).map(|(x, a)| x * a).sum::<f32>().powi(2);
        let expected = x.chunks_exact(5).map(square).sum::<f32>() / 7.0;
        assert!((moments.loss(&a) - f64::from(expected)).abs() < 1e-5 * f64::from(expected));
        assert!(collector.moments("c").is_none());
    }
}
