//! Optimizers that keep moments of small projections of gradients only.

use ounce_kernels::gemm::{Compute, Operand, Workspace, gemm};
use ounce_kernels::optimizer::adamw::AdamW;
use ounce_kernels::optimizer::adamw8;
use ounce_kernels::pool::Pool;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::diffusion::normal;
use crate::{Param, ParamKind};

/// How matrices are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// AdamW's moments of all of them.
    Full,
    /// A product of two thin matrices is learned on top of them (LoRA); they stay.
    Lora,
    /// Moments of the gradient's projection (GaLore, arXiv 2403.03507).
    Galore,
    /// The same for the gradient of the rows' directions; their lengths learn by Adam (GradNormLoRP).
    GradNorm,
}

/// Settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// How matrices are moved.
    pub kind: Kind,
    /// Rank of projections.
    pub rank: usize,
    /// Steps from one projection to the next.
    pub every: u64,
    /// Factor on steps of projected matrices.
    pub scale: f64,
    /// Moments in 8 bits.
    pub eight_bits: bool,
    /// Seed of random starts.
    pub seed: u64,
}

/// Two moments.
#[derive(Debug, Clone)]
enum Moments {
    Wide { m: Vec<f32>, v: Vec<f32> },
    Narrow(adamw8::State),
}

impl Moments {
    fn new(count: usize, eight_bits: bool) -> Moments {
        match eight_bits {
            true => Moments::Narrow(adamw8::State::new(count)),
            false => Moments::Wide { m: vec![0.0; count], v: vec![0.0; count] },
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Moments::Wide { m, v } => 4 * (m.len() + v.len()),
            Moments::Narrow(it) => it.m.len() + it.v.len() + 4 * (it.m_scales.len() + it.v_scales.len()),
        }
    }

    /// Adam's direction, `m̂ / (√v̂ + ε)`, at the step of this number since the moments were empty.
    fn direction(&mut self, gradient: &[f32], scale: f32, step: u64) -> Vec<f32> {
        let adam = AdamW { lr: 1.0, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, step };
        let mut moved = vec![0.0; gradient.len()];
        match self {
            Moments::Wide { m, v } => adam.update(Pool::global(), &mut moved, gradient, m, v, scale),
            Moments::Narrow(state) => {
                adamw8::update(Pool::global(), &adam, &mut moved, gradient, state, scale);
            }
        }
        moved.iter_mut().for_each(|x| *x = -*x);
        moved
    }
}

/// `a b`, `[m, k]` times `[k, n]`, of operands as they lie.
fn product(size: (usize, usize, usize), a: Operand<'_>, b: Operand<'_>) -> Vec<f32> {
    let mut out = vec![0.0; size.0 * size.1];
    let mut room = Workspace::default();
    gemm(Pool::global(), Compute::F32, size, a, b, false, &mut out, size.1, &mut room);
    out
}

/// Makes rows orthonormal, in order (Gram and Schmidt, twice against rounding). A row that hangs on earlier ones becomes zero.
fn orthonormal(rows: &mut [f32], width: usize) {
    for at in 0..rows.len() / width {
        let (before, rest) = rows.split_at_mut(at * width);
        let own = &mut rest[..width];
        let was = own.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        for _ in 0..2 {
            for other in before.chunks_exact(width) {
                let along: f64 = own.iter().zip(other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                own.iter_mut().zip(other).for_each(|(a, b)| *a -= along as f32 * b);
            }
        }
        let length = own.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let factor = if length > 1e-6 * was { (1.0 / length) as f32 } else { 0.0 };
        own.iter_mut().for_each(|x| *x *= factor);
    }
}

/// Rows that span the `rank` strongest directions of `g`'s smaller side, `[rank, min(rows, columns)]`: subspace iteration (Halko, Martinsson and
/// Tropp, "Finding structure with randomness", 2011, algorithm 4.4).
fn strongest(g: &[f32], (rows, columns): (usize, usize), rank: usize, random: &mut ChaCha8Rng) -> Vec<f32> {
    let side = rows.min(columns);
    let mut basis = normal(random, rank * side);
    orthonormal(&mut basis, side);
    for _ in 0..4 {
        basis = if rows <= columns {
            let across =
                product((rank, columns, rows), Operand::rows(&basis, rows), Operand::rows(g, columns));
            product((rank, rows, columns), Operand::rows(&across, columns), Operand::columns(g, columns))
        } else {
            let across =
                product((rank, rows, columns), Operand::rows(&basis, columns), Operand::columns(g, columns));
            product((rank, columns, rows), Operand::rows(&across, rows), Operand::rows(g, columns))
        };
        orthonormal(&mut basis, side);
    }
    basis
}

/// One weight's memory.
#[derive(Debug, Clone)]
enum State {
    Frozen,
    Full(Moments),
    Projected { basis: Vec<f32>, moments: Moments, since: u64, lengths: Option<Moments> },
    Lora { whole: Vec<f32>, a: Vec<f32>, b: Vec<f32>, of_a: Moments, of_b: Moments },
}

/// An optimizer for the weights of a network.
#[derive(Debug, Clone)]
pub struct Projected {
    options: Options,
    states: Vec<State>,
    random: ChaCha8Rng,
    steps: u64,
}

fn sides(param: &Param) -> (usize, usize) {
    (param.shape[0], param.shape[1])
}

impl Projected {
    /// Matrices with a smaller side above the rank are projected; all other weights have AdamW's moments, in the same number of bits.
    pub fn new(options: Options, params: &[Param]) -> Projected {
        let mut random = ChaCha8Rng::seed_from_u64(options.seed);
        let Options { kind, rank, eight_bits, .. } = options;
        let state = |param: &Param| {
            if !param.is_trainable() {
                return State::Frozen;
            }
            let is_matrix = param.kind == ParamKind::Matrix && param.shape.len() == 2;
            if kind == Kind::Full || !is_matrix || param.shape[0].min(param.shape[1]) <= rank {
                return State::Full(Moments::new(param.value.len(), eight_bits));
            }
            let (rows, columns) = sides(param);
            if kind == Kind::Lora {
                let deviation = (columns as f32).sqrt().recip();
                return State::Lora {
                    whole: param.value.clone(),
                    a: normal(&mut random, rank * columns).iter().map(|x| x * deviation).collect(),
                    b: vec![0.0; rows * rank],
                    of_a: Moments::new(rank * columns, eight_bits),
                    of_b: Moments::new(rows * rank, eight_bits),
                };
            }
            State::Projected {
                basis: Vec::new(),
                moments: Moments::new(rank * rows.max(columns), eight_bits),
                since: 0,
                lengths: (kind == Kind::GradNorm).then(|| Moments::new(rows, false)),
            }
        };
        let states = params.iter().map(state).collect();
        Projected { options, states, random, steps: 0 }
    }

    /// Bytes of moments and projections of matrices that are projected or adapted, and of all other weights. What LoRA holds besides its
    /// moments are weights.
    pub fn bytes(&self) -> (usize, usize) {
        let mut sums = (0, 0);
        for state in &self.states {
            match state {
                State::Frozen => {}
                State::Full(moments) => sums.1 += moments.bytes(),
                State::Projected { basis, moments, lengths, .. } => {
                    sums.0 += 4 * basis.len() + moments.bytes() + lengths.as_ref().map_or(0, Moments::bytes);
                }
                State::Lora { of_a, of_b, .. } => sums.0 += of_a.bytes() + of_b.bytes(),
            }
        }
        sums
    }

    /// Moves the weights at learning rate `rate`; gradients times `clip`.
    pub fn step(&mut self, params: &mut [Param], rate: f64, clip: f32) {
        self.steps += 1;
        let (steps, options) = (self.steps, self.options);
        for (param, state) in params.iter_mut().zip(&mut self.states) {
            match state {
                State::Frozen => {}
                State::Full(moments) => {
                    let moved = moments.direction(&param.grad, clip, steps);
                    param.value.iter_mut().zip(moved).for_each(|(w, x)| *w -= rate as f32 * x);
                }
                State::Lora { whole, a, b, of_a, of_b } => {
                    let (rows, columns) = sides(param);
                    let rank = options.rank;
                    let (g, size_a, size_b) = (&param.grad, (rank, columns, rows), (rows, rank, columns));
                    let da = product(size_a, Operand::columns(b, rank), Operand::rows(g, columns));
                    let db = product(size_b, Operand::rows(g, columns), Operand::columns(a, columns));
                    for (values, moments, slope) in [(&mut *a, of_a, da), (&mut *b, of_b, db)] {
                        let moved = moments.direction(&slope, clip, steps);
                        values.iter_mut().zip(moved).for_each(|(w, x)| *w -= rate as f32 * x);
                    }
                    let added =
                        product((rows, columns, rank), Operand::rows(b, rank), Operand::rows(a, columns));
                    param.value.iter_mut().zip(whole.iter().zip(added)).for_each(|(w, (x, y))| *w = x + y);
                }
                State::Projected { basis, moments, since, lengths } => {
                    let size = sides(param);
                    let split = lengths.as_ref().map(|_| directions(&param.value, &param.grad, size.1));
                    let g = split.as_ref().map_or(&param.grad, |it| &it.slope);
                    if basis.is_empty() || *since == options.every {
                        *basis = strongest(g, size, options.rank, &mut self.random);
                        // Moments are numbers along the old directions.
                        *moments = Moments::new(options.rank * size.0.max(size.1), options.eight_bits);
                        *since = 0;
                    }
                    *since += 1;
                    let small = down(basis, g, size, options.rank);
                    let moved = up(basis, &moments.direction(&small, clip, *since), size, options.rank);
                    let far = (rate * options.scale) as f32;
                    match (split, lengths) {
                        (Some(split), Some(lengths)) => {
                            let longer = lengths.direction(&split.of_lengths, clip, steps);
                            let columns = size.1;
                            let rows = param.value.chunks_exact_mut(columns).zip(moved.chunks_exact(columns));
                            for (at, (row, moved)) in rows.enumerate() {
                                let length = split.lengths[at];
                                let direction = row.iter().zip(moved).map(|(w, x)| w / length - far * x);
                                let direction: Vec<f32> = direction.collect();
                                let own = direction.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
                                let length = length - rate as f32 * longer[at];
                                row.iter_mut().zip(direction).for_each(|(w, x)| *w = length * x / own);
                            }
                        }
                        _ => param.value.iter_mut().zip(moved).for_each(|(w, x)| *w -= far * x),
                    }
                }
            }
        }
    }
}

/// A matrix as lengths and directions of its rows, with the gradients of both.
struct Directions {
    lengths: Vec<f32>,
    /// `Σ_j D_ij G_ij`.
    of_lengths: Vec<f32>,
    /// `m_i (G − D ⊙ g_m)`, across the rows.
    slope: Vec<f32>,
}

fn directions(w: &[f32], g: &[f32], columns: usize) -> Directions {
    let mut it = Directions { lengths: Vec::new(), of_lengths: Vec::new(), slope: Vec::with_capacity(w.len()) };
    for (w, g) in w.chunks_exact(columns).zip(g.chunks_exact(columns)) {
        let length = w.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        let along = w.iter().zip(g).map(|(w, g)| w * g).sum::<f32>() / length;
        it.slope.extend(w.iter().zip(g).map(|(w, g)| length * (g - w / length * along)));
        it.lengths.push(length);
        it.of_lengths.push(along);
    }
    it
}

/// The gradient along the basis: `[rank, columns]` where rows are fewer, else `[rows, rank]`.
fn down(basis: &[f32], g: &[f32], (rows, columns): (usize, usize), rank: usize) -> Vec<f32> {
    if rows <= columns {
        product((rank, columns, rows), Operand::rows(basis, rows), Operand::rows(g, columns))
    } else {
        product((rows, rank, columns), Operand::rows(g, columns), Operand::columns(basis, columns))
    }
}

/// Back to the matrix's shape.
fn up(basis: &[f32], small: &[f32], (rows, columns): (usize, usize), rank: usize) -> Vec<f32> {
    if rows <= columns {
        product((rows, columns, rank), Operand::columns(basis, rows), Operand::rows(small, columns))
    } else {
        product((rows, columns, rank), Operand::rows(small, rank), Operand::rows(basis, columns))
    }
}
