//! The search for scales.
//!
//! For a part alone: candidate ranges, and from each a few rounds of "nearest levels for the step, best step for the
//! levels" (weighted least squares), which can only improve. For a block of parts: candidates of the common factor, for
//! each of them the whole numbers next to each part's own best step, judged by the error that they really leave; at
//! last the common factors that fit all chosen levels best.
//!
//! All of it is compiled for each instruction set, without fused operations: they give the same scales.

use half::f16;

use super::levels::{Nearest, Whole, sums};
use super::{Grid, Kind, Levels, PARTS, Scales};
use crate::quant::fit::NEGLIGIBLE;
use crate::quant::mxfp4;
use crate::vector::dispatch;

/// Ranges that are tried for a part, and rounds for each.
const TRIES: usize = 12;
const ROUNDS: usize = 3;

pub(super) fn fit(grid: &Grid, values: &[f32], weights: &[f32]) -> Scales {
    dispatch!(fit_on(grid: &Grid, values: &[f32], weights: &[f32]) -> Scales)
}

#[inline(always)]
fn fit_on<const FUSED: bool>(grid: &Grid, values: &[f32], weights: &[f32]) -> Scales {
    match grid.levels {
        Levels::Range { low, high } => {
            fit_to(grid, Whole { low: f32::from(low), high: f32::from(high) }, values, weights)
        }
        Levels::Table { levels, .. } => fit_to(grid, super::levels::Entries::new(levels), values, weights),
    }
}

#[inline(always)]
fn fit_to<L: Nearest>(grid: &Grid, levels: L, values: &[f32], weights: &[f32]) -> Scales {
    match grid.kind {
        Kind::One => one(rounded(best_step(levels, values, weights))),
        Kind::PowerOfTwo => power_of_two(levels, values, weights),
        Kind::Offset => {
            let (step, offset) = best_affine(levels, values, weights, true);
            let step = rounded(step);
            Scales { second: -rounded(offset), minimums: [1; PARTS], ..one(step) }
        }
        Kind::Zero => with_zero(levels, values, weights),
        Kind::Super { low, high } => parts(grid, levels, values, weights, low, high),
        Kind::SuperMinimum { top } => parts_with_minimum(grid, levels, values, weights, top),
        // Points are another search's work.
        Kind::Codebook { .. } => Scales::ZERO,
    }
}

/// A step and the code that stands for zero: the two next to where the free offset would have it.
#[inline(always)]
fn with_zero<L: Nearest>(levels: L, values: &[f32], weights: &[f32]) -> Scales {
    let (step, offset) = best_affine(levels, values, weights, false);
    let top = levels.ends().1;
    if step == 0.0 {
        // Nothing above zero: one negative value for all, or zeros.
        let (step, zero) = (rounded(-offset), u8::from(offset < 0.0));
        return Scales { second: step, minimums: [zero; PARTS], ..one(step) };
    }
    let place = (-offset / step).clamp(0.0, top);
    let (mut best, mut best_error) = (Scales::ZERO, f32::INFINITY);
    for zero in [place.floor(), place.ceil()] {
        let around = Whole { low: -zero, high: top - zero };
        let mut step = step;
        for _ in 0..=ROUNDS {
            let stored = rounded(step);
            let this = error(around, values, weights, stored, 0.0);
            if this < best_error {
                best = Scales { second: stored, minimums: [zero as u8; PARTS], ..one(stored) };
                best_error = this;
            }
            let Some((next, _)) = refit(around, values, weights, step) else { break };
            step = next;
        }
    }
    best
}

/// The step that fits the levels nearest for the present one best, and by how much less than the values' own weighted
/// square they then miss.
#[inline(always)]
fn refit<L: Nearest>(levels: L, values: &[f32], weights: &[f32], step: f32) -> Option<(f32, f32)> {
    let inverse = 1.0 / step;
    let [xl, ll] = sums(values, weights, |x, w| {
        let level = levels.nearest(x * inverse);
        [w * x * level, w * level * level]
    });
    (ll > 0.0 && xl != 0.0).then(|| (xl / ll, xl * xl / ll))
}

/// Scales of a format without parts.
pub(super) fn one(factor: f32) -> Scales {
    Scales { factor, scales: [1; PARTS], ..Scales::ZERO }
}

/// As the format stores it.
fn rounded(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

/// Sum of `w (x − step · level − offset)²` with nearest levels.
#[inline(always)]
fn error<L: Nearest>(levels: L, values: &[f32], weights: &[f32], step: f32, offset: f32) -> f32 {
    let inverse = if step == 0.0 { 0.0 } else { 1.0 / step };
    let [sum] = sums(values, weights, |x, w| {
        let difference = x - (step * levels.nearest((x - offset) * inverse) + offset);
        [w * difference * difference]
    });
    sum
}

/// By which part of the full range the narrowest candidate reaches: the fewer levels, the more it pays to clip.
fn narrowest(count: usize) -> f32 {
    match count {
        0..=4 => 0.25,
        5..=8 => 0.45,
        9..=16 => 0.6,
        17..=32 => 0.75,
        33..=64 => 0.85,
        _ => 0.94,
    }
}

/// From the narrowest range to a little more than the whole.
fn ranges<L: Nearest>(levels: L) -> impl Iterator<Item = f32> + Clone {
    let least = narrowest(levels.count());
    let most = 1.0 + (1.0 - least) * 0.25;
    (0..TRIES).map(move |index| least + (most - least) * index as f32 / (TRIES - 1) as f32)
}

/// The step for levels on both sides of zero.
#[inline(always)]
fn best_step<L: Nearest>(levels: L, values: &[f32], weights: &[f32]) -> f32 {
    let peak = values.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
    if !(peak > NEGLIGIBLE) {
        return 0.0;
    }
    let (low, high) = levels.ends();
    let mut best = (0.0, 0.0);
    // Where one side reaches further, either sign may be the better one.
    let signs: &[f32] = if -low == high { &[1.0] } else { &[1.0, -1.0] };
    for &sign in signs {
        for range in ranges(levels) {
            let mut step = sign * range * peak / high.max(-low);
            for _ in 0..ROUNDS {
                let Some((next, gain)) = refit(levels, values, weights, step) else { break };
                if gain > best.1 {
                    best = (next, gain);
                }
                if next == step {
                    break;
                }
                step = next;
            }
        }
    }
    best.0
}

/// Step and offset for levels from zero on; the offset is not above zero unless `free`.
#[inline(always)]
fn best_affine<L: Nearest>(levels: L, values: &[f32], weights: &[f32], free: bool) -> (f32, f32) {
    let (mut min, mut max) = (f32::MAX, f32::MIN);
    for &x in values {
        (min, max) = (min.min(x), max.max(x));
    }
    if !free {
        min = min.min(0.0);
    }
    if !(max - min > NEGLIGIBLE) {
        // All alike: the offset alone can say it if it may.
        return (0.0, min);
    }
    let top = levels.ends().1;
    let least = narrowest(levels.count());
    let cuts = [0.0, 0.15, 0.35, 0.6, 1.0].map(|cut| cut * (1.0 - least));
    let [sum_w, sum_x] = sums(values, weights, |x, w| [w, w * x]);
    let mut best = ((max - min) / top, min);
    let mut best_error = f32::INFINITY;
    for low_cut in cuts {
        for high_cut in cuts {
            // Half of each cut, so that both together leave the narrowest range.
            let low = min + (max - min) * low_cut / 2.0;
            let high = max - (max - min) * high_cut / 2.0;
            let (mut step, mut offset) = ((high - low) / top, low);
            for round in 0..=ROUNDS {
                let inverse = 1.0 / step;
                // One pass tells what these leave and which fit their levels better.
                let [left, sl, sll, sxl] = sums(values, weights, |x, w| {
                    let level = levels.nearest((x - offset) * inverse);
                    let difference = x - (step * level + offset);
                    let wl = w * level;
                    [w * difference * difference, wl, wl * level, wl * x]
                });
                if left < best_error {
                    (best, best_error) = ((step, offset), left);
                }
                let determinant = sum_w * sll - sl * sl;
                if round == ROUNDS || !(determinant > 0.0) {
                    break;
                }
                let before = (step, offset);
                step = (sum_w * sxl - sum_x * sl) / determinant;
                offset = (sll * sum_x - sl * sxl) / determinant;
                if !free && offset > 0.0 {
                    (step, offset) = (sxl / sll, 0.0);
                }
                if !(step > 0.0) || (step, offset) == before {
                    break;
                }
            }
        }
    }
    best
}

#[inline(always)]
fn power_of_two<L: Nearest>(levels: L, values: &[f32], weights: &[f32]) -> Scales {
    let peak = values.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
    if !(peak > 0.0) {
        // The smallest exponent of the table's encoding that is no subnormal.
        return one(mxfp4::half_scale(2));
    }
    let around = (peak.log2().floor() - 2.0 + 127.0) as i32;
    let steps = (around - 2..=around + 1).map(|e| mxfp4::half_scale(e.clamp(2, 254) as u8));
    let best = steps.min_by(|&a, &b| {
        error(levels, values, weights, a, 0.0).total_cmp(&error(levels, values, weights, b, 0.0))
    });
    one(best.unwrap_or(1.0))
}

#[inline(always)]
fn parts(grid: &Grid, levels: impl Nearest, values: &[f32], weights: &[f32], low: i8, high: i8) -> Scales {
    let len = grid.part;
    let each = || values.chunks_exact(len).zip(weights.chunks_exact(len)).enumerate();
    let mut steps = [0.0f32; PARTS];
    for (part, (values, weights)) in each() {
        steps[part] = best_step(levels, values, weights);
    }
    let peak = steps.iter().copied().fold(0.0f32, |peak, x| if x.abs() > peak.abs() { x } else { peak });
    if peak == 0.0 {
        return Scales::ZERO;
    }
    let (mut best, mut best_error) = (Scales::ZERO, f32::INFINITY);
    for end in [low, high] {
        for stretch in [1.0f32, 0.97, 0.94, 1.03] {
            let factor = rounded(peak / f32::from(end) * stretch);
            if factor == 0.0 {
                continue;
            }
            let mut candidate = Scales { factor, ..Scales::ZERO };
            let mut sum = 0.0;
            for (part, (values, weights)) in each() {
                let place = steps[part] / factor;
                let mut least = f32::INFINITY;
                for scale in [place.floor(), place.ceil()] {
                    let scale = scale.clamp(f32::from(low), f32::from(high));
                    let this = error(levels, values, weights, factor * scale, 0.0);
                    if this < least {
                        (least, candidate.scales[part]) = (this, scale as i8);
                    }
                }
                sum += least;
            }
            if sum < best_error {
                (best, best_error) = (candidate, sum);
            }
        }
    }
    polish(grid, levels, values, weights, best, best_error)
}

#[inline(always)]
fn parts_with_minimum(grid: &Grid, levels: impl Nearest, values: &[f32], weights: &[f32], top: u8) -> Scales {
    let len = grid.part;
    let each = || values.chunks_exact(len).zip(weights.chunks_exact(len)).enumerate();
    let (mut steps, mut offsets) = ([0.0f32; PARTS], [0.0f32; PARTS]);
    for (part, (values, weights)) in each() {
        (steps[part], offsets[part]) = best_affine(levels, values, weights, false);
    }
    let most = |all: &[f32]| all.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let (top_step, top_offset) = (most(&steps), most(&offsets));
    if top_step == 0.0 && top_offset == 0.0 {
        return Scales::ZERO;
    }
    let top = f32::from(top);
    // Coarse numbers leave more to be gained by another factor.
    let stretches: &[f32] = if top < 32.0 { &[1.0, 0.94, 0.88, 0.82, 1.06] } else { &[1.0, 0.97] };
    let (mut best, mut best_error) = (Scales::ZERO, f32::INFINITY);
    for stretch in stretches {
        for second_stretch in stretches {
            let factor = rounded(top_step / top * stretch);
            let second = rounded(top_offset / top * second_stretch);
            let mut candidate = Scales { factor, second, ..Scales::ZERO };
            let mut sum = 0.0;
            for (part, (values, weights)) in each() {
                let around = |x: f32, unit: f32| {
                    let place = if unit == 0.0 { 0.0 } else { x / unit };
                    [place.floor(), place.ceil()].map(|place| place.clamp(0.0, top))
                };
                let mut least = f32::INFINITY;
                for scale in around(steps[part], factor) {
                    let step = factor * scale;
                    // The offset that goes with this step.
                    let wanted = best_offset(levels, values, weights, step, offsets[part]);
                    for minimum in around(-wanted, second) {
                        let this = error(levels, values, weights, step, -(second * minimum));
                        if this < least {
                            least = this;
                            candidate.scales[part] = scale as i8;
                            candidate.minimums[part] = minimum as u8;
                        }
                    }
                }
                sum += least;
            }
            if sum < best_error {
                (best, best_error) = (candidate, sum);
            }
        }
    }
    polish(grid, levels, values, weights, best, best_error)
}

/// The offset, not above zero, that goes with a step.
#[inline(always)]
fn best_offset<L: Nearest>(levels: L, values: &[f32], weights: &[f32], step: f32, offset: f32) -> f32 {
    let inverse = if step == 0.0 { 0.0 } else { 1.0 / step };
    let [sum_w, sum] =
        sums(values, weights, |x, w| [w, w * (x - step * levels.nearest((x - offset) * inverse))]);
    if sum_w > 0.0 { (sum / sum_w).min(0.0) } else { offset }
}

/// The factors that fit all chosen levels best, if they leave less once they are rounded.
#[inline(always)]
fn polish(
    grid: &Grid,
    levels: impl Nearest,
    values: &[f32],
    weights: &[f32],
    scales: Scales,
    before: f32,
) -> Scales {
    // x ≈ factor · a − second · b with a = scale · level, b = minimum.
    let (mut aa, mut ab, mut bb, mut xa, mut xb) = (0.0f32, 0.0f32, 0.0f32, 0.0f32, 0.0f32);
    let each = values.chunks_exact(grid.part).zip(weights.chunks_exact(grid.part)).enumerate();
    for (part, (values, weights)) in each {
        let (step, offset) = (scales.step(part), scales.offset(part));
        let inverse = if step == 0.0 { 0.0 } else { 1.0 / step };
        let (scale, b) = (f32::from(scales.scales[part]), -f32::from(scales.minimums[part]));
        let [w, wx, wa, waa, wxa] = sums(values, weights, |x, w| {
            let a = scale * levels.nearest((x - offset) * inverse);
            [w, w * x, w * a, w * a * a, w * x * a]
        });
        aa += waa;
        ab += wa * b;
        bb += w * b * b;
        xa += wxa;
        xb += wx * b;
    }
    let determinant = aa * bb - ab * ab;
    let (factor, second) = if bb == 0.0 && aa > 0.0 {
        (xa / aa, scales.second)
    } else if determinant > 1e-6 * aa * bb {
        ((bb * xa - ab * xb) / determinant, (aa * xb - ab * xa) / determinant)
    } else {
        return scales;
    };
    let polished = Scales { factor: rounded(factor), second: rounded(second.max(0.0)), ..scales };
    let error = each_error(grid, levels, values, weights, &polished);
    if error < before { polished } else { scales }
}

/// The error of a whole block.
#[inline(always)]
fn each_error(grid: &Grid, levels: impl Nearest, values: &[f32], weights: &[f32], scales: &Scales) -> f32 {
    let parts = values.chunks_exact(grid.part).zip(weights.chunks_exact(grid.part)).enumerate();
    parts.map(|(p, (x, w))| error(levels, x, w, scales.step(p), scales.offset(p))).sum()
}
