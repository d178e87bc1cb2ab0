//! The points of a codebook format that are near to values, and scales for them.
//!
//! Eight values `x` with weights `w` become `t · σ ∘ g` with the part's step t, signs σ and a point g of the list. With
//! `P = Σ w |x| g` and `Q = Σ w g²` a point costs `t² Q − 2 t P` beyond what does not depend on it, whatever t is: P and Q are
//! summed once for every point, and steps are then tried at two operations a point. Where signs have seven bits and an odd
//! number of values is negative, one sign has to be the wrong one: the cheapest, which takes `2 min w |x| g` off P.

use std::sync::OnceLock;

use half::f16;

use super::{BLOCK, IQ2_LEVELS, points, store};
use crate::DType;
use crate::vector::dispatch;

/// Values that are a point together.
pub const DIMS: usize = 8;

/// Points that [`Lattice::near`] can give at most.
pub const NEAR: usize = 8;

/// Magnitudes to which the largest value of a part is tried to be scaled, in levels.
const PEAKS: [f32; 12] = [15.0, 19.0, 23.0, 27.0, 31.0, 35.0, 39.0, 43.0, 48.0, 54.0, 62.0, 74.0];

/// Largest stored scale: 31 of the odd numbers.
const TOP: f32 = 31.0;

/// A codebook format that is written: IQ2_XXS, IQ2_XS and IQ2_S.
#[derive(Debug)]
pub struct Lattice {
    dtype: DType,
    points: &'static [u16],
    /// Values that share a scale.
    part: usize,
    /// Whether an even number of each eight values is negative.
    even: bool,
    table: OnceLock<Table>,
}

/// Coordinates of all points, `[8][points]`, and their squares.
#[derive(Debug)]
struct Table {
    numbers: Vec<f32>,
    squares: Vec<f32>,
}

static LATTICES: [Lattice; 3] = [
    Lattice::new(DType::IQ2XXS, &points::IQ2_XXS, 32, true),
    Lattice::new(DType::IQ2XS, &points::IQ2_XS, 16, true),
    Lattice::new(DType::IQ2S, &points::IQ2_S, 16, false),
];

/// The scales of a block as they are stored: part p has the step `factor · scales[p] / 8`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scales {
    /// The F16 factor.
    pub factor: f32,
    /// Odd numbers up to 31, one a part.
    pub scales: [u8; 16],
}

impl Scales {
    /// A block of zeros.
    pub const ZERO: Scales = Scales { factor: 0.0, scales: [1; 16] };

    /// The step of a part: what magnitudes of points are multiplied with.
    pub fn step(&self, part: usize) -> f32 {
        self.factor * 0.125 * f32::from(self.scales[part])
    }
}

/// Eight values as a point with signs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Near {
    /// Its place in the list.
    pub place: u16,
    /// Bit i is the sign of value i.
    pub signs: u8,
    /// What it costs beyond other points' common share; smaller is better.
    pub cost: f32,
}

/// What is known of eight values: P and Q of every point.
#[derive(Debug, Default, Clone)]
pub struct Sums {
    gains: Vec<f32>,
    squares: Vec<f32>,
    /// `w |x|`.
    weighted: [f32; DIMS],
    signs: u8,
    odd: bool,
}

impl Lattice {
    const fn new(dtype: DType, points: &'static [u16], part: usize, even: bool) -> Lattice {
        Lattice { dtype, points, part, even, table: OnceLock::new() }
    }

    /// The format's list, if it has one and is written.
    pub fn of(dtype: DType) -> Option<&'static Lattice> {
        LATTICES.iter().find(|it| it.dtype == dtype)
    }

    /// The format.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Points of the list.
    pub fn points(&self) -> usize {
        self.points.len()
    }

    /// Values that share a step.
    pub fn part(&self) -> usize {
        self.part
    }

    fn table(&self) -> &Table {
        self.table.get_or_init(|| {
            let level = |dim: usize, point: u16| f32::from(IQ2_LEVELS[usize::from(point >> (2 * dim) & 3)]);
            let numbers: Vec<f32> =
                (0..DIMS).flat_map(|dim| self.points.iter().map(move |&point| level(dim, point))).collect();
            let squares = numbers.iter().map(|x| x * x).collect();
            Table { numbers, squares }
        })
    }

    /// Levels of a point with signs, before the step.
    pub fn levels(&self, near: &Near) -> [f32; DIMS] {
        let point = self.points[usize::from(near.place)];
        std::array::from_fn(|dim| {
            let level = f32::from(IQ2_LEVELS[usize::from(point >> (2 * dim) & 3)]);
            if near.signs >> dim & 1 == 1 { -level } else { level }
        })
    }

    /// Sums up P and Q for eight values and their weights.
    pub fn sum(&self, x: &[f32; DIMS], w: &[f32; DIMS], sums: &mut Sums) {
        sums.signs = (0..DIMS).fold(0, |signs, dim| signs | u8::from(x[dim] < 0.0) << dim);
        sums.odd = self.even && sums.signs.count_ones() % 2 == 1;
        sums.weighted = std::array::from_fn(|dim| w[dim] * x[dim].abs());
        let count = self.points.len();
        sums.gains.resize(count, 0.0);
        sums.squares.resize(count, 0.0);
        all_sums(self.table(), w, sums);
    }

    /// The cost of the cheapest point at a step, and its place.
    pub fn cheapest(&self, sums: &Sums, step: f32) -> (usize, f32) {
        let least = least_cost(&sums.gains, &sums.squares, step);
        let cost = |at: usize| cost(sums.gains[at], sums.squares[at], step);
        let place = (0..self.points.len()).find(|&at| cost(at) <= least).unwrap_or(0);
        (place, least)
    }

    /// A point with the signs that suit it best.
    pub fn with_signs(&self, sums: &Sums, place: usize, step: f32) -> Near {
        let mut signs = sums.signs;
        if sums.odd {
            let point = self.points[place];
            let level = |dim: usize| f32::from(IQ2_LEVELS[usize::from(point >> (2 * dim) & 3)]);
            let price = |dim: usize| sums.weighted[dim] * level(dim);
            let wrong = (0..DIMS).min_by(|&a, &b| price(a).total_cmp(&price(b))).unwrap_or(0);
            signs ^= 1 << wrong;
        }
        Near { place: place as u16, signs, cost: cost(sums.gains[place], sums.squares[place], step) }
    }

    /// The cheapest points at a step, the cheapest first, into `near`; gives how many.
    pub fn near(&self, sums: &Sums, step: f32, near: &mut [Near; NEAR]) -> usize {
        let mut found = 0;
        let mut worst = f32::INFINITY;
        for place in 0..self.points.len() {
            let cost = cost(sums.gains[place], sums.squares[place], step);
            if found == NEAR && !(cost < worst) {
                continue;
            }
            let mut at = if found < NEAR { found } else { NEAR - 1 };
            found = (found + 1).min(NEAR);
            while at > 0 && near[at - 1].cost > cost {
                near[at] = near[at - 1];
                at -= 1;
            }
            near[at] = Near { place: place as u16, signs: 0, cost };
            worst = near[found - 1].cost;
        }
        for near in &mut near[..found] {
            *near = self.with_signs(sums, usize::from(near.place), step);
        }
        found
    }

    /// Scales that bring the sum of `weights · (value − stored)²` near its least for a block of values.
    ///
    /// # Panics
    /// If there are not as many values and weights as a block has.
    pub fn fit(&self, values: &[f32], weights: &[f32]) -> Scales {
        assert!(values.len() == BLOCK && weights.len() == BLOCK, "one block");
        let units = self.part / DIMS;
        let mut all = vec![Sums::default(); BLOCK / DIMS];
        for ((x, w), sums) in values.as_chunks().0.iter().zip(weights.as_chunks().0).zip(&mut all) {
            self.sum(x, w, sums);
        }
        let total =
            |part: &[Sums], step: f32| part.iter().map(|sums| self.cheapest(sums, step).1).sum::<f32>();
        // P and Q of a part's cheapest points.
        let fitted = |part: &[Sums], step: f32| {
            part.iter().fold((0.0, 0.0), |(gain, square), sums| {
                let (place, _) = self.cheapest(sums, step);
                (gain + sums.gains[place], square + sums.squares[place])
            })
        };
        let mut steps = [0.0f32; 16];
        for ((part, values), step) in
            all.chunks_exact(units).zip(values.chunks_exact(self.part)).zip(&mut steps)
        {
            let largest = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let mut best = (0.0, 0.0);
            for peak in PEAKS {
                let tried = largest / peak;
                let cost = total(part, tried);
                if cost < best.1 {
                    best = (tried, cost);
                }
            }
            for _ in 0..2 {
                let (gain, square) = fitted(part, best.0);
                let tried = if square > 0.0 { (gain / square).max(0.0) } else { 0.0 };
                let cost = total(part, tried);
                if cost < best.1 {
                    best = (tried, cost);
                }
            }
            *step = best.0;
        }
        let parts = BLOCK / self.part;
        let most = steps[..parts].iter().copied().fold(0.0, f32::max);
        if !(most > 0.0) {
            return Scales::ZERO;
        }
        let mut scales = Scales { factor: f16::from_f32(8.0 * most / TOP).to_f32(), scales: [1; 16] };
        if scales.factor == 0.0 || !scales.factor.is_finite() {
            return Scales { factor: if scales.factor == 0.0 { 0.0 } else { f32::INFINITY }, ..scales };
        }
        for (index, part) in all.chunks_exact(units).enumerate() {
            let wanted = ((8.0 * steps[index] / scales.factor - 1.0) * 0.5).round().clamp(0.0, 15.0) as u8;
            let near = [wanted.saturating_sub(1), wanted, (wanted + 1).min(15)].map(|it| 2 * it + 1);
            let cost = |scale: u8| total(part, Scales { scales: [scale; 16], ..scales }.step(0));
            let costs = near.map(cost);
            let best = (0..3).min_by(|&a, &b| costs[a].total_cmp(&costs[b])).unwrap_or(1);
            scales.scales[index] = near[best];
        }
        // The factor that suits the points best, as often as that helps.
        let whole = |scales: &Scales| -> f32 {
            all.chunks_exact(units).enumerate().map(|(index, part)| total(part, scales.step(index))).sum()
        };
        let (gain, square) =
            all.chunks_exact(units).enumerate().fold((0.0f32, 0.0f32), |(gain, square), (index, part)| {
                let (own_gain, own_square) = fitted(part, scales.step(index));
                let scale = 0.125 * f32::from(scales.scales[index]);
                (gain + own_gain * scale, square + own_square * scale * scale)
            });
        let factor = f16::from_f32(gain / square.max(f32::MIN_POSITIVE)).to_f32();
        let other = Scales { factor, ..scales };
        if factor > 0.0 && factor.is_finite() && whole(&other) < whole(&scales) { other } else { scales }
    }

    /// Writes a block.
    ///
    /// # Panics
    /// If there are not 32 points, or `block` has not a block's length.
    pub fn put(&self, scales: &Scales, chosen: &[Near], block: &mut [u8]) {
        assert!(chosen.len() == BLOCK / DIMS && block.len() == self.dtype.block_bytes(), "one block");
        block.fill(0);
        match self.dtype {
            DType::IQ2XXS => store::iq2_xxs(scales, chosen, block),
            DType::IQ2XS => store::iq2_xs(scales, chosen, block),
            _ => store::iq2_s(scales, chosen, block),
        }
    }

    /// Rounds a block of values with weights to the nearest points.
    pub fn encode(&self, values: &[f32], weights: &[f32], block: &mut [u8]) {
        let scales = self.fit(values, weights);
        let mut sums = Sums::default();
        let mut chosen = [Near::default(); BLOCK / DIMS];
        let units = values.as_chunks().0.iter().zip(weights.as_chunks().0);
        for ((index, near), (x, w)) in chosen.iter_mut().enumerate().zip(units) {
            let step = scales.step(index * DIMS / self.part);
            self.sum(x, w, &mut sums);
            *near = self.with_signs(&sums, self.cheapest(&sums, step).0, step);
        }
        self.put(&scales, &chosen, block);
    }
}

#[inline(always)]
fn cost(gain: f32, square: f32, step: f32) -> f32 {
    step * (step * square - 2.0 * gain)
}

/// P and Q of every point.
fn all_sums(table: &Table, w: &[f32; DIMS], sums: &mut Sums) {
    #[inline(always)]
    fn run<const FUSED: bool>(table: &Table, w: &[f32; DIMS], sums: &mut Sums) {
        let count = sums.gains.len();
        let (gains, squares) = (&mut sums.gains[..count], &mut sums.squares[..count]);
        gains.fill(0.0);
        squares.fill(0.0);
        for dim in 0..DIMS {
            let (a, w) = (sums.weighted[dim], w[dim]);
            let numbers = &table.numbers[dim * count..][..count];
            let own = &table.squares[dim * count..][..count];
            for at in 0..count {
                gains[at] += a * numbers[at];
                squares[at] += w * own[at];
            }
        }
        if !sums.odd {
            return;
        }
        // Points come in runs whose cheapest wrong signs stay in registers.
        const RUN: usize = 64;
        for first in (0..count).step_by(RUN) {
            let mut price = [f32::INFINITY; RUN];
            let width = RUN.min(count - first);
            for dim in 0..DIMS {
                let numbers = &table.numbers[dim * count + first..][..width];
                for (price, number) in price.iter_mut().zip(numbers) {
                    let own = sums.weighted[dim] * number;
                    *price = if own < *price { own } else { *price };
                }
            }
            gains[first..first + width].iter_mut().zip(price).for_each(|(gain, price)| *gain -= 2.0 * price);
        }
    }
    dispatch!(run(table: &Table, w: &[f32; DIMS], sums: &mut Sums))
}

/// The least cost of all points at a step.
fn least_cost(gains: &[f32], squares: &[f32], step: f32) -> f32 {
    #[inline(always)]
    fn run<const FUSED: bool>(gains: &[f32], squares: &[f32], step: f32) -> f32 {
        const LANES: usize = 16;
        let mut least = [f32::INFINITY; LANES];
        for (gains, squares) in gains.as_chunks::<LANES>().0.iter().zip(squares.as_chunks::<LANES>().0) {
            for lane in 0..LANES {
                let own = cost(gains[lane], squares[lane], step);
                least[lane] = if own < least[lane] { own } else { least[lane] };
            }
        }
        least.into_iter().fold(f32::INFINITY, f32::min)
    }
    dispatch!(run(gains: &[f32], squares: &[f32], step: f32) -> f32)
}
