//! The two inner loops of attention, for one block of positions: sums over panels (scores from keys, mixtures from
//! values) and the exponentials between them.

use std::ops::Range;

use super::lanes::{Element, Lanes, exp, softcap};
use crate::vector::LANES;

/// Sums over panels of sixteen lanes: for each input `t`, panel `p` and lane `l` `out[t][p · 16 + l] = Σ_i
/// panels[p][i · 16 + l] · inputs[t][i]`, in the order of `i` whatever is computed beside it.
#[derive(Clone, Copy)]
pub(super) struct PanelSums<E> {
    pub panels: *const E,
    /// Sixteens from one panel to the next.
    pub panel_stride: usize,
    /// Rows of a panel; values of an input.
    pub length: usize,
    pub inputs: *const f32,
    pub input_stride: usize,
    pub out: *mut f32,
    pub out_stride: usize,
    /// What is read after these panels, or null; see [`Element::FETCHED`].
    pub ahead: *const u8,
}

/// The sums of `T` inputs and `P` panels, all in registers.
///
/// # Safety
/// The features of `S` are there; the panels, inputs and outputs that `sums` describes can be read and written.
#[inline(always)]
pub(super) unsafe fn panel_sums<S: Lanes, E: Element, const T: usize, const P: usize>(sums: &PanelSums<E>) {
    // SAFETY: indices stay below what the caller promises.
    unsafe {
        let mut totals = [[S::splat(0.0); P]; T];
        let panels: [*const E; P] = std::array::from_fn(|p| sums.panels.add(p * sums.panel_stride));
        let inputs: [*const f32; T] = std::array::from_fn(|t| sums.inputs.add(t * sums.input_stride));
        let step = P * size_of::<E>();
        let mut ahead = sums.ahead;
        for index in 0..sums.length {
            if E::FETCHED && !sums.ahead.is_null() {
                for line in (0..step).step_by(64) {
                    S::fetch(ahead.wrapping_add(line));
                }
                ahead = ahead.wrapping_add(step);
            }
            let mut row = [S::splat(0.0); P];
            for p in 0..P {
                row[p] = E::load::<S>(panels[p].add(index));
            }
            for t in 0..T {
                let input = S::splat(*inputs[t].add(index));
                for p in 0..P {
                    totals[t][p] = S::fma(row[p], input, totals[t][p]);
                }
            }
        }
        for t in 0..T {
            for p in 0..P {
                S::store(sums.out.add(t * sums.out_stride + p * LANES), totals[t][p]);
            }
        }
    }
}

/// Inputs that a register tile computes at once where `rows` are wanted; those past `rows` are computed for nothing.
pub(super) fn register_rows(rows: usize) -> usize {
    match rows {
        5 => 6,
        7 => 8,
        rows => rows,
    }
}

/// The sums of `rows` inputs, at most [`Lanes::ROWS`], and any number of panels. Reads and writes as many rows as
/// [`register_rows`] says.
///
/// # Safety
/// As for [`panel_sums`].
#[inline(always)]
pub(super) unsafe fn sum_panels<S: Lanes, E: Element>(rows: usize, panels: usize, sums: PanelSums<E>) {
    // SAFETY: the caller's promise, for each part of the panels.
    unsafe {
        // As many panels at once as keep the multipliers busy and their sums in registers.
        match (register_rows(rows), S::WIDE) {
            (1, true) => in_parts::<S, E, 1, 8>(panels, sums),
            (1, false) => in_parts::<S, E, 1, 4>(panels, sums),
            (2, true) => in_parts::<S, E, 2, 8>(panels, sums),
            (2, false) => in_parts::<S, E, 2, 2>(panels, sums),
            (3, true) => in_parts::<S, E, 3, 4>(panels, sums),
            (3, false) => in_parts::<S, E, 3, 2>(panels, sums),
            (4, true) => in_parts::<S, E, 4, 4>(panels, sums),
            (4, false) => in_parts::<S, E, 4, 1>(panels, sums),
            (6, true) => in_parts::<S, E, 6, 2>(panels, sums),
            (6, false) => in_parts::<S, E, 6, 1>(panels, sums),
            (8, true) => in_parts::<S, E, 8, 2>(panels, sums),
            _ => unreachable!("a register tile has at most {} rows", S::ROWS),
        }
    }
}

/// `P` panels at a time, what is left in halves.
///
/// # Safety
/// As for [`panel_sums`].
#[inline(always)]
unsafe fn in_parts<S: Lanes, E: Element, const T: usize, const P: usize>(
    mut panels: usize,
    mut sums: PanelSums<E>,
) {
    // SAFETY: the caller's promise; each part lies behind the last.
    unsafe {
        let skip = |sums: &mut PanelSums<E>, count: usize| {
            sums.panels = sums.panels.add(count * sums.panel_stride);
            sums.out = sums.out.add(count * LANES);
            if !sums.ahead.is_null() {
                sums.ahead = sums.ahead.wrapping_add(count * sums.length * size_of::<E>());
            }
        };
        while panels >= P {
            S::panel_sums::<E, T, P>(&sums);
            skip(&mut sums, P);
            panels -= P;
        }
        if P > 4 && panels >= 4 {
            S::panel_sums::<E, T, 4>(&sums);
            skip(&mut sums, 4);
            panels -= 4;
        }
        if P > 2 && panels >= 2 {
            S::panel_sums::<E, T, 2>(&sums);
            skip(&mut sums, 2);
            panels -= 2;
        }
        if panels == 1 {
            S::panel_sums::<E, T, 1>(&sums);
        }
    }
}

/// Widens `count` times sixteen elements.
///
/// # Safety
/// The features of `S` are there; `from` and `to` have that many elements.
#[inline(always)]
pub(super) unsafe fn widen<S: Lanes, E: Element>(from: *const E, to: *mut f32, count: usize) {
    for index in 0..count {
        // SAFETY: the caller's promise.
        unsafe { S::store(to.add(index * LANES), E::load::<S>(from.add(index))) };
    }
}

/// What becomes of the scores of one query and block.
pub(super) struct Softmax {
    pub softcap: Option<f32>,
    /// One a position of the block: factors on the scores and on the probabilities; or both null.
    pub key_scales: *const f32,
    pub value_scales: *const f32,
}

impl Softmax {
    /// Turns the scores of the panels `panels` of a block into `exp(score − greatest)`, and 0 outside `visible`,
    /// which lies within those panels. Gives the greatest score (−∞ if none is visible) and the sum.
    ///
    /// # Safety
    /// The features of `S` are there; `scores` and what scales there are reach to the last panel's end.
    #[inline(always)]
    pub(super) unsafe fn run<S: Lanes>(
        &self,
        scores: *mut f32,
        panels: Range<usize>,
        visible: Range<usize>,
    ) -> (f32, f32) {
        let lanes = || panels.clone().map(|panel| panel * LANES);
        // SAFETY: the caller's promise.
        unsafe {
            if visible.is_empty() {
                lanes().for_each(|at| S::store(scores.add(at), S::splat(0.0)));
                return (f32::NEG_INFINITY, 0.0);
            }
            if !self.key_scales.is_null() {
                for at in lanes() {
                    let scaled = S::mul(S::load(scores.add(at)), S::load(self.key_scales.add(at)));
                    S::store(scores.add(at), scaled);
                }
            }
            if let Some(cap) = self.softcap {
                for at in lanes() {
                    S::store(scores.add(at), softcap::<S>(S::load(scores.add(at)), cap));
                }
            }
            let hidden = (panels.start * LANES..visible.start).chain(visible.end..panels.end * LANES);
            hidden.for_each(|at| *scores.add(at) = f32::NEG_INFINITY);

            let mut greatest = S::splat(f32::NEG_INFINITY);
            for at in lanes() {
                greatest = S::max(S::load(scores.add(at)), greatest);
            }
            let greatest = S::greatest(greatest);
            let mut total = S::splat(0.0);
            for at in lanes() {
                let mut p = exp::<S>(S::sub(S::load(scores.add(at)), S::splat(greatest)));
                total = S::add(total, p);
                if !self.value_scales.is_null() {
                    p = S::mul(p, S::load(self.value_scales.add(at)));
                }
                S::store(scores.add(at), p);
            }
            (greatest, S::sum(total))
        }
    }
}
