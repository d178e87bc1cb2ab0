//! Full training of a matrix with moments for a few directions of its gradient.
//!
//! - **GaLore** ("GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection", arXiv 2403.03507, algorithm 2): every `T` steps
//!   the `r` strongest singular directions `P` of the gradient on its smaller side; Adam on `R = Pᵀ G` (or `G P`), and
//!   `W ← W − η α P Adam(R)`.
//! - **GradNormLoRP** ("Gradient Weight-normalized Low-rank Projection for Efficient LLM Training", arXiv 2412.19616): rows are split into
//!   norms and directions, `W = diag(m) D`; `∂L/∂m_i = D_i · G_i`, `∂L/∂D_i = m_i (G_i − (D_i · G_i) D_i)`. The gradient of `D` is
//!   projected as GaLore's, `m` learns by plain Adam, and rows of `D` are normalised after the step. `m` and `D` follow from `W`, so
//!   nothing but moments is kept.
//!
//! For `W` `[n, m]`, `n ≤ m`, that is `2 r m + n r` values in place of `2 n m`, and `2` a row for its norm's moments.
//!
//! Directions come from a randomised range finder with power iterations. When they change, moments are carried over: with
//! `C = P_newᵀ P_old` the mean becomes `C m`, and the mean square `(C ⊙ C) v`, as if what lies in different directions were independent.

use ounce_kernels::gemm::{Compute, Operand, Workspace, gemm};
use ounce_kernels::optimizer::adamw::AdamW;
use ounce_kernels::optimizer::adamw8;
use ounce_kernels::pool::Pool;

use super::options::{Group, Kind, LowRank, Options, Projection};
use super::state::{Slot, SlotMut, SlotType};
use crate::Param;
use crate::net::normal;

/// Power iterations of the range finder.
const ITERATIONS: usize = 3;

/// Two moments.
#[derive(Debug, Clone)]
enum Moments {
    Wide { m: Vec<f32>, v: Vec<f32> },
    Bytes(adamw8::State),
}

impl Moments {
    fn new(kind: Kind, count: usize) -> Moments {
        match kind {
            Kind::AdamW8bit => Moments::Bytes(adamw8::State::new(count)),
            _ => Moments::Wide { m: vec![0.0; count], v: vec![0.0; count] },
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Moments::Wide { m, v } => 4 * (m.len() + v.len()),
            Moments::Bytes(it) => it.m.len() + it.v.len() + 4 * (it.m_scales.len() + it.v_scales.len()),
        }
    }

    /// What Adam adds for this gradient: minus the rate times the mean over the root of the mean square.
    fn step(&mut self, pool: &Pool, adam: &AdamW, grad: &[f32]) -> Vec<f32> {
        let mut step = vec![0.0; grad.len()];
        match self {
            Moments::Wide { m, v } => adam.update(pool, &mut step, grad, m, v, 1.0),
            Moments::Bytes(state) => adamw8::update(pool, adam, &mut step, grad, state, 1.0),
        }
        step
    }

    /// Replaces both.
    fn change(&mut self, by: impl FnOnce(&[f32], &[f32]) -> (Vec<f32>, Vec<f32>)) {
        match self {
            Moments::Wide { m, v } => (*m, *v) = by(m, v),
            Moments::Bytes(state) => {
                let (m, v) = state.decode();
                let (m, v) = by(&m, &v);
                state.encode(&m, &v);
            }
        }
    }

    /// Names of parts: mean, its scales, mean square, its scales.
    fn slots<'s>(&'s self, names: [&'static str; 4], slots: &mut Vec<(&'static str, SlotType, &'s [u8])>) {
        match self {
            Moments::Wide { m, v } => slots.extend([
                (names[0], SlotType::F32, bytemuck::cast_slice(m)),
                (names[2], SlotType::F32, bytemuck::cast_slice(v)),
            ]),
            Moments::Bytes(it) => slots.extend([
                (names[0], SlotType::U8, &it.m[..]),
                (names[1], SlotType::F32, bytemuck::cast_slice(&it.m_scales)),
                (names[2], SlotType::U8, &it.v[..]),
                (names[3], SlotType::F32, bytemuck::cast_slice(&it.v_scales)),
            ]),
        }
    }

    fn slots_mut<'s>(
        &'s mut self,
        names: [&'static str; 4],
        slots: &mut Vec<(&'static str, SlotType, &'s mut [u8])>,
    ) {
        match self {
            Moments::Wide { m, v } => slots.extend([
                (names[0], SlotType::F32, bytemuck::cast_slice_mut(m)),
                (names[2], SlotType::F32, bytemuck::cast_slice_mut(v)),
            ]),
            Moments::Bytes(it) => slots.extend([
                (names[0], SlotType::U8, &mut it.m[..]),
                (names[1], SlotType::F32, bytemuck::cast_slice_mut(&mut it.m_scales)),
                (names[2], SlotType::U8, &mut it.v[..]),
                (names[3], SlotType::F32, bytemuck::cast_slice_mut(&mut it.v_scales)),
            ]),
        }
    }
}

const OWN: [&str; 4] = ["m", "m_scales", "v", "v_scales"];
const OF_NORMS: [&str; 4] = ["norm_m", "norm_m_scales", "norm_v", "norm_v_scales"];

/// The memory of a matrix.
#[derive(Debug, Clone)]
pub(super) struct Projected {
    rows: usize,
    columns: usize,
    rank: usize,
    /// Directions on the smaller side, one a row: `[rank, min(rows, columns)]`.
    basis: Vec<f32>,
    moments: Moments,
    /// Of the rows' norms, if they are apart.
    norms: Option<Moments>,
}

/// `out = a b`.
fn product(pool: &Pool, size: (usize, usize, usize), a: Operand<'_>, b: Operand<'_>) -> Vec<f32> {
    let mut out = vec![0.0; size.0 * size.1];
    gemm(pool, Compute::F32, size, a, b, false, &mut out, size.1, &mut Workspace::default());
    out
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Makes rows orthonormal, one after the other, twice over for rounding. A row that lies among earlier ones becomes zero.
fn orthonormal(rows: &mut [f32], width: usize) {
    for at in 0..rows.len() / width {
        let (before, row) = rows.split_at_mut(at * width);
        let row = &mut row[..width];
        let begun = dot(row, row).sqrt();
        for _ in 0..2 {
            for earlier in before.chunks_exact(width) {
                let along = dot(earlier, row) as f32;
                row.iter_mut().zip(earlier).for_each(|(x, e)| *x -= along * e);
            }
        }
        let norm = dot(row, row).sqrt();
        let factor = if norm > 1e-5 * begun && norm > 0.0 { (1.0 / norm) as f32 } else { 0.0 };
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

impl Projected {
    pub fn new(options: &Options, group: &Group, param: &Param) -> Projected {
        let (rows, columns, rank) = (param.shape[0], param.shape[1], options.low_rank.rank);
        let norms = (group.projection == Projection::GradNormLorp).then(|| Moments::new(group.kind, rows));
        Projected {
            rows,
            columns,
            rank,
            basis: vec![0.0; rank * rows.min(columns)],
            moments: Moments::new(group.kind, rank * rows.max(columns)),
            norms,
        }
    }

    pub fn bytes(&self) -> usize {
        4 * self.basis.len() + self.moments.bytes() + self.norms.as_ref().map_or(0, Moments::bytes)
    }

    /// Whether directions are those of columns, `P` `[rows, rank]`; else of rows.
    fn tall(&self) -> bool {
        self.rows <= self.columns
    }

    /// `Pᵀ G`, `[rank, columns]`, or `G P`, `[rows, rank]`.
    fn project(&self, pool: &Pool, g: &[f32]) -> Vec<f32> {
        let Projected { rows, columns, rank, .. } = *self;
        match self.tall() {
            true => product(
                pool,
                (rank, columns, rows),
                Operand::rows(&self.basis, rows),
                Operand::rows(g, columns),
            ),
            false => product(
                pool,
                (rows, rank, columns),
                Operand::rows(g, columns),
                Operand::columns(&self.basis, columns),
            ),
        }
    }

    /// `P R` or `R Pᵀ`, `[rows, columns]`.
    fn back(&self, pool: &Pool, r: &[f32]) -> Vec<f32> {
        let Projected { rows, columns, rank, .. } = *self;
        match self.tall() {
            true => product(
                pool,
                (rows, columns, rank),
                Operand::columns(&self.basis, rows),
                Operand::rows(r, columns),
            ),
            false => product(
                pool,
                (rows, columns, rank),
                Operand::rows(r, rank),
                Operand::rows(&self.basis, columns),
            ),
        }
    }

    /// Looks for the strongest directions of a gradient, and carries the moments over.
    fn refresh(&mut self, pool: &Pool, g: &[f32], seed: u64, name: &str) {
        let Projected { rows, columns, rank, .. } = *self;
        let (small, large) = (rows.min(columns), rows.max(columns));
        let mut basis = normal(1.0, rank * small, seed, name);
        orthonormal(&mut basis, small);
        for _ in 0..ITERATIONS {
            let (through, again) = match self.tall() {
                true => (Operand::rows(g, columns), Operand::columns(g, columns)),
                false => (Operand::columns(g, columns), Operand::rows(g, columns)),
            };
            let mut seen = product(pool, (rank, large, small), Operand::rows(&basis, small), through);
            orthonormal(&mut seen, large);
            basis = product(pool, (rank, small, large), Operand::rows(&seen, large), again);
            orthonormal(&mut basis, small);
        }
        let old = std::mem::replace(&mut self.basis, basis);
        let turn = product(
            pool,
            (rank, rank, small),
            Operand::rows(&self.basis, small),
            Operand::columns(&old, small),
        );
        let squares: Vec<f32> = turn.iter().map(|x| x * x).collect();
        let tall = self.tall();
        let turned = |by: &[f32], x: &[f32]| match tall {
            true => product(pool, (rank, large, rank), Operand::rows(by, rank), Operand::rows(x, large)),
            false => product(pool, (large, rank, rank), Operand::rows(x, rank), Operand::columns(by, rank)),
        };
        self.moments.change(|m, v| (turned(&turn, m), turned(&squares, v)));
    }

    /// Moves a matrix. `adam` says rate, decay and step.
    pub fn step(&mut self, pool: &Pool, options: &Options, adam: &AdamW, param: &mut Param, scale: f32) {
        let LowRank { refresh, scale: factor, .. } = options.low_rank;
        let plain = AdamW { weight_decay: 0.0, ..*adam };
        let slow = AdamW { lr: factor * adam.lr, ..plain };
        let keep = (1.0 - adam.lr * adam.weight_decay) as f32;
        let due = (adam.step - 1).is_multiple_of(refresh);
        let mut gradient: Vec<f32> = param.grad.iter().map(|g| g * scale).collect();
        let rows = self.rows;
        let norms: Vec<f32> = match self.norms {
            Some(_) => {
                param.value.chunks_exact(self.columns).map(|row| dot(row, row).sqrt() as f32).collect()
            }
            None => vec![1.0; rows],
        };
        let mut along = vec![0.0; rows];
        if self.norms.is_some() {
            let values = param.value.chunks_exact_mut(self.columns);
            let each = gradient.chunks_exact_mut(self.columns).zip(values).zip(&norms).zip(&mut along);
            for (((g, w), &norm), along) in each {
                apart(g, w, norm, along);
            }
        }
        if due {
            self.refresh(pool, &gradient, adam.step, &param.name);
        }
        let projected = self.project(pool, &gradient);
        let moved = self.moments.step(pool, &slow, &projected);
        let moved = self.back(pool, &moved);
        match &mut self.norms {
            None => {
                param.value.iter_mut().zip(&moved).for_each(|(w, step)| *w = keep * *w + step);
            }
            Some(moments) => {
                let steps = moments.step(pool, &plain, &along);
                let each = param.value.chunks_exact_mut(self.columns).zip(moved.chunks_exact(self.columns));
                for ((d, moved), (norm, step)) in each.zip(norms.iter().zip(&steps)) {
                    d.iter_mut().zip(moved).for_each(|(d, step)| *d += step);
                    let length = dot(d, d).sqrt() as f32;
                    // A row of zeros has no direction yet: what the step gives it is its value.
                    let factor = match *norm > 0.0 && length > 0.0 {
                        true => (keep * norm + step).max(0.0) / length,
                        false => 1.0,
                    };
                    d.iter_mut().for_each(|d| *d *= factor);
                }
            }
        }
    }

    pub fn slots<'s>(&'s self, param: &'s Param) -> Vec<Slot<'s>> {
        let mut slots = vec![("basis", SlotType::F32, bytemuck::cast_slice(&self.basis))];
        self.moments.slots(OWN, &mut slots);
        if let Some(norms) = &self.norms {
            norms.slots(OF_NORMS, &mut slots);
        }
        let slot = |(part, dtype, bytes)| Slot { param: &param.name, part, dtype, bytes };
        slots.into_iter().map(slot).collect()
    }

    pub fn slots_mut(&mut self, param: &Param) -> Vec<SlotMut<'_>> {
        let mut slots = vec![("basis", SlotType::F32, bytemuck::cast_slice_mut(&mut self.basis))];
        self.moments.slots_mut(OWN, &mut slots);
        if let Some(norms) = &mut self.norms {
            norms.slots_mut(OF_NORMS, &mut slots);
        }
        let slot = |(part, dtype, bytes): (&str, SlotType, _)| SlotMut {
            name: format!("{}.{part}", param.name),
            dtype,
            bytes,
        };
        slots.into_iter().map(slot).collect()
    }
}

/// Makes a row's gradient that of its direction, the row its direction, and gives the gradient of its norm.
fn apart(g: &mut [f32], w: &mut [f32], norm: f32, along: &mut f32) {
    if norm > 0.0 {
        w.iter_mut().for_each(|w| *w /= norm);
        let of_norm = dot(g, w) as f32;
        g.iter_mut().zip(&*w).for_each(|(g, d)| *g = norm * (*g - of_norm * d));
        *along = of_norm;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ParamKind;
    use crate::optim::Optimizer;

    fn options(kind: Kind, projection: Projection, rank: usize) -> Options {
        let low_rank = LowRank { projection, rank, refresh: 5, scale: 1.0 };
        Options { kind, low_rank, weight_decay: 0.0, ..Options::default() }
    }

    fn matrix(rows: usize, columns: usize) -> Param {
        Param::new("w.weight", &[rows, columns], ParamKind::Matrix, normal(0.3, rows * columns, 2, "w"))
    }

    fn memory(options: &Options, param: &Param) -> Projected {
        Projected::new(options, &options.group(param), param)
    }

    #[test]
    fn the_strongest_directions_are_found_and_moments_carried_over() {
        let pool = Pool::global();
        for (rows, columns) in [(12, 30), (30, 12)] {
            let param = matrix(rows, columns);
            let mut it = memory(&options(Kind::AdamW, Projection::Galore, 3), &param);
            // Three strong directions, and a little of everything.
            let (a, b) = (normal(1.0, rows * 3, 1, "a"), normal(1.0, 3 * columns, 1, "b"));
            let mut g = product(pool, (rows, columns, 3), Operand::rows(&a, 3), Operand::rows(&b, columns));
            g.iter_mut().zip(normal(0.05, rows * columns, 1, "c")).for_each(|(g, c)| *g += c);
            it.refresh(pool, &g, 1, "w");
            let again = it.back(pool, &it.project(pool, &g));
            let lost: f64 = g.iter().zip(&again).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            assert!(lost < 0.01 * dot(&g, &g), "{lost} {}", dot(&g, &g));
            let small = rows.min(columns);
            for (i, u) in it.basis.chunks(small).enumerate() {
                for (j, v) in it.basis.chunks(small).enumerate() {
                    assert!((dot(u, v) - f64::from(u8::from(i == j))).abs() < 1e-5);
                }
            }
            // A mean in the span stays what it is in the matrix's own space.
            let mean = it.project(pool, &g);
            it.moments.change(|_, v| (mean.clone(), v.to_vec()));
            let before = it.back(pool, &mean);
            it.refresh(pool, &g, 77, "w");
            let Moments::Wide { m, .. } = it.moments.clone() else { unreachable!("not in bytes") };
            let after = it.back(pool, &m);
            for (a, b) in before.iter().zip(&after) {
                assert!((a - b).abs() < 0.05, "{a} {b}");
            }
        }
    }

    /// With all directions but rounding, Adam's moments are those of turned coordinates; norm and direction are the definition's.
    #[test]
    fn rows_are_split_into_norm_and_direction() {
        let columns = 7;
        let (w, g) = (normal(0.5, columns, 1, "w"), normal(1.0, columns, 1, "g"));
        let norm = dot(&w, &w).sqrt() as f32;
        let (mut direction, mut tangent, mut along) = (w.clone(), g.clone(), 0.0);
        apart(&mut tangent, &mut direction, norm, &mut along);
        // L(w) = g · w as a function of norm and direction, whose length is divided away.
        let value = |norm: f64, direction: &[f32]| -> f64 {
            norm * dot(&g, direction) / dot(direction, direction).sqrt()
        };
        let slope =
            (value(f64::from(norm) + 1e-3, &direction) - value(f64::from(norm) - 1e-3, &direction)) / 2e-3;
        assert!((slope - f64::from(along)).abs() < 1e-4, "{slope} {along}");
        for at in 0..columns {
            let mut near = |by: f32| {
                direction[at] += by;
                let value = value(f64::from(norm), &direction);
                direction[at] -= by;
                value
            };
            let slope = (near(1e-3) - near(-1e-3)) / 2e-3;
            assert!((slope - f64::from(tangent[at])).abs() < 1e-3, "{at}: {slope} {}", tangent[at]);
        }
        assert!(dot(&tangent, &direction).abs() < 1e-5);
    }

    #[test]
    fn every_projection_comes_nearer_and_goes_on_from_a_copy() {
        for kind in [Kind::AdamW, Kind::AdamW8bit] {
            for projection in [Projection::Galore, Projection::GradNormLorp] {
                for (rows, columns) in [(10, 24), (24, 10)] {
                    let goal = normal(0.5, rows * columns, 9, "goal");
                    let far = |param: &Param| -> f64 {
                        param.value.iter().zip(&goal).map(|(a, b)| f64::from(a - b).powi(2)).sum()
                    };
                    let pull = |params: &mut [Param]| {
                        for at in 0..goal.len() {
                            params[0].grad[at] = params[0].value[at] - goal[at];
                        }
                    };
                    let mut params = [matrix(rows, columns)];
                    let mut optimizer = Optimizer::new(options(kind, projection, 4), &params).expect("sound");
                    let before = far(&params[0]);
                    for step in 0..150 {
                        pull(&mut params);
                        optimizer.step(&mut params, 0.03 * (1.0 - f64::from(step) / 150.0), 1.0);
                    }
                    let after = far(&params[0]);
                    assert!(after < 0.05 * before, "{kind:?} {projection:?}: {before} {after}");
                    let mut there = params.clone();
                    let mut second = Optimizer::new(options(kind, projection, 4), &there).expect("sound");
                    second.set_steps(optimizer.steps());
                    for (to, from) in second.slots_mut(&params).into_iter().zip(optimizer.slots(&params)) {
                        assert_eq!(
                            (to.name, to.dtype),
                            (format!("{}.{}", from.param, from.part), from.dtype)
                        );
                        to.bytes.copy_from_slice(from.bytes);
                    }
                    for _ in 0..7 {
                        pull(&mut params);
                        optimizer.step(&mut params, 0.01, 1.0);
                        pull(&mut there);
                        second.step(&mut there, 0.01, 1.0);
                    }
                    assert_eq!(params[0].value, there[0].value);
                }
            }
        }
    }

    #[test]
    fn memory_is_what_the_formula_says() {
        let (rows, columns, rank) = (64, 256, 8);
        let param = matrix(rows, columns);
        let bytes = |kind, projection| memory(&options(kind, projection, rank), &param).bytes();
        let values = 2 * rank * columns + rows * rank;
        assert_eq!(bytes(Kind::AdamW, Projection::Galore), 4 * values);
        assert_eq!(bytes(Kind::AdamW, Projection::GradNormLorp), 4 * (values + 2 * rows));
        assert!(4 * bytes(Kind::AdamW, Projection::GradNormLorp) < 8 * rows * columns);
        assert!(
            2 * bytes(Kind::AdamW8bit, Projection::GradNormLorp) < bytes(Kind::AdamW, Projection::Galore)
        );
        // Small matrices and other weights keep all moments.
        let small = matrix(8, 30);
        let group = options(Kind::AdamW, Projection::Galore, 8).group(&small);
        assert_eq!(group.projection, Projection::None);
        assert!(Optimizer::new(options(Kind::Lion, Projection::Galore, 8), &[]).is_err());
        assert!(Optimizer::new(options(Kind::AdamW, Projection::Galore, 0), &[]).is_err());
    }
}
