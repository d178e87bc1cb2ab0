//! A shape-aware mixture of low-rank adapters (SMoL, section 4.2).
//!
//! Each matrix has some adapters `B_e A_e`; a gate that is told the shape gives each a weight `g_e`, zero but for the two it likes
//! most, so that a shape's matrix is `W + s Σ g_e B_e A_e`. The gate is one for all matrices: two linear maps, with noise while it
//! learns (noisy top-k, arXiv 1701.06538), and a softmax over those it takes.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::quantize::training::adam::Adam;

/// Values between the gate's two maps.
const HIDDEN: usize = 16;

/// How adapters are made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Adapters of a matrix.
    pub experts: usize,
    /// How many of them a shape takes.
    pub taken: usize,
    /// Rank of each.
    pub rank: usize,
    /// The factor `s` on their sum.
    pub scale: f32,
}

impl Default for Options {
    fn default() -> Options {
        Options { experts: 5, taken: 2, rank: 8, scale: 2.0 }
    }
}

/// The adapters of a matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapters {
    /// The matrix's name.
    pub name: String,
    /// Its rows and columns.
    pub shape: [usize; 2],
    /// `A`, `[experts, rank, columns]`.
    pub a: Vec<f32>,
    /// `B`, `[experts, rows, rank]`.
    pub b: Vec<f32>,
}

/// What a gate takes for a shape, and what its gradient needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Adapters with their weights; the weights add up to 1.
    pub taken: Vec<(usize, f32)>,
    features: Vec<f32>,
    noise: Vec<f32>,
}

/// Gate and adapters.
#[derive(Debug, Clone, PartialEq)]
pub struct Smol {
    /// How they are made.
    pub options: Options,
    /// Of each matrix.
    pub adapters: Vec<Adapters>,
    /// The gate's maps: `[16, features + 1]`, `[experts, 16]`, and that of the noise, `[experts, features + 1]`.
    pub gate: [Vec<f32>; 3],
}

/// Gradients of a [`Smol`], in its order.
#[derive(Debug)]
pub struct Slopes {
    adapters: Vec<[Vec<f32>; 2]>,
    gate: [Vec<f32>; 3],
}

/// What AdamW keeps of a [`Smol`].
#[derive(Debug)]
pub struct Memory {
    adapters: Vec<[Adam; 2]>,
    gate: [Adam; 3],
}

fn uniform(random: &mut ChaCha8Rng, count: usize, inputs: usize) -> Vec<f32> {
    let range = (3.0 / inputs.max(1) as f32).sqrt();
    (0..count).map(|_| random.random_range(-range..range)).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

impl Smol {
    /// New adapters that change nothing yet, for matrices with names, rows and columns; the gate sees so many features.
    pub fn new(matrices: Vec<(String, [usize; 2])>, features: usize, options: Options, seed: u64) -> Smol {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let Options { experts, rank, .. } = options;
        let adapters = matrices
            .into_iter()
            .map(|(name, shape)| {
                let a = uniform(&mut random, experts * rank * shape[1], shape[1]);
                Adapters { name, shape, a, b: vec![0.0; experts * shape[0] * rank] }
            })
            .collect();
        let gate = [
            uniform(&mut random, HIDDEN * (features + 1), features + 1),
            uniform(&mut random, experts * HIDDEN, HIDDEN),
            vec![0.0; experts * (features + 1)],
        ];
        Smol { options, adapters, gate }
    }

    /// What the gate takes for a shape's features; with randomness its logits are disturbed.
    pub fn choose(&self, features: &[f32], random: Option<&mut ChaCha8Rng>) -> Choice {
        let features: Vec<f32> = features.iter().copied().chain([1.0]).collect();
        let mut noise = vec![0.0; self.options.experts];
        if let Some(random) = random {
            for noise in &mut noise {
                let (u, v): (f32, f32) = (1.0 - random.random::<f32>(), random.random());
                *noise = (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos();
            }
        }
        self.taken(features, noise)
    }

    fn taken(&self, features: Vec<f32>, noise: Vec<f32>) -> Choice {
        let hidden = self.hidden(&features);
        let logits: Vec<f32> = (0..self.options.experts)
            .map(|expert| {
                let disturbed = match noise[expert] {
                    0.0 => 0.0,
                    noise => noise * softplus(self.noise_of(expert, &features)),
                };
                dot(&self.gate[1][expert * HIDDEN..][..HIDDEN], &hidden) + disturbed
            })
            .collect();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
        order.truncate(self.options.taken.max(1));
        let top = logits[order[0]];
        let parts: Vec<f32> = order.iter().map(|&expert| (logits[expert] - top).exp()).collect();
        let sum: f32 = parts.iter().sum();
        let taken = order.into_iter().zip(parts).map(|(expert, part)| (expert, part / sum)).collect();
        Choice { taken, features, noise }
    }

    fn hidden(&self, features: &[f32]) -> Vec<f32> {
        self.gate[0].chunks_exact(features.len()).map(|row| dot(row, features)).collect()
    }

    fn noise_of(&self, expert: usize, features: &[f32]) -> f32 {
        dot(&self.gate[2][expert * features.len()..][..features.len()], features)
    }

    /// Adds what the taken adapters of matrix `at` come to.
    pub fn add(&self, at: usize, choice: &Choice, values: &mut [f32]) {
        let Adapters { shape: [rows, columns], a, b, .. } = &self.adapters[at];
        let Options { rank, scale, .. } = self.options;
        for &(expert, weight) in &choice.taken {
            let a = &a[expert * rank * columns..][..rank * columns];
            let b = &b[expert * rows * rank..][..rows * rank];
            for (row, b) in values.chunks_exact_mut(*columns).zip(b.chunks_exact(rank)) {
                for (factor, a) in b.iter().zip(a.chunks_exact(*columns)) {
                    let factor = scale * weight * factor;
                    row.iter_mut().zip(a).for_each(|(w, a)| *w += factor * a);
                }
            }
        }
    }

    /// Gradients of zero.
    pub fn slopes(&self) -> Slopes {
        let zeros = |values: &Vec<f32>| vec![0.0; values.len()];
        Slopes {
            adapters: self.adapters.iter().map(|it| [zeros(&it.a), zeros(&it.b)]).collect(),
            gate: [zeros(&self.gate[0]), zeros(&self.gate[1]), zeros(&self.gate[2])],
        }
    }

    /// Adds the gradients that follow from those of matrices as they are in a shape: `(at, gradient)`, `[rows, columns]` each.
    pub fn backward(&self, choice: &Choice, gradients: &[(usize, Vec<f32>)], slopes: &mut Slopes) {
        let Options { rank, scale, .. } = self.options;
        let mut of_weights = vec![0.0; choice.taken.len()];
        for (at, gradient) in gradients {
            let Adapters { shape: [rows, columns], a, b, .. } = &self.adapters[*at];
            let [da, db] = &mut slopes.adapters[*at];
            for (&(expert, weight), of_weight) in choice.taken.iter().zip(&mut of_weights) {
                let a = &a[expert * rank * columns..][..rank * columns];
                let b = &b[expert * rows * rank..][..rows * rank];
                let da = &mut da[expert * rank * columns..][..rank * columns];
                let db = &mut db[expert * rows * rank..][..rows * rank];
                for ((g, b), db) in
                    gradient.chunks_exact(*columns).zip(b.chunks_exact(rank)).zip(db.chunks_exact_mut(rank))
                {
                    for (place, (b, db)) in b.iter().zip(db).enumerate() {
                        let a = &a[place * columns..][..*columns];
                        let along = scale * dot(g, a);
                        *db += weight * along;
                        *of_weight += b * along;
                        let factor = scale * weight * b;
                        da[place * columns..][..*columns]
                            .iter_mut()
                            .zip(g)
                            .for_each(|(d, g)| *d += factor * g);
                    }
                }
            }
        }
        // Through the softmax over those that were taken, and the maps.
        let mean: f32 = choice.taken.iter().zip(&of_weights).map(|((_, weight), d)| weight * d).sum();
        let (features, width) = (&choice.features, choice.features.len());
        let hidden = self.hidden(features);
        let mut of_hidden = [0.0; HIDDEN];
        for ((expert, weight), d) in choice.taken.iter().zip(&of_weights) {
            let d = weight * (d - mean);
            let row = expert * HIDDEN;
            for ((slope, h), (of, w)) in slopes.gate[1][row..][..HIDDEN]
                .iter_mut()
                .zip(&hidden)
                .zip(of_hidden.iter_mut().zip(&self.gate[1][row..]))
            {
                *slope += d * h;
                *of += d * w;
            }
            if choice.noise[*expert] != 0.0 {
                let of_noise = d * choice.noise[*expert] / (1.0 + (-self.noise_of(*expert, features)).exp());
                slopes.gate[2][expert * width..][..width]
                    .iter_mut()
                    .zip(features)
                    .for_each(|(s, f)| *s += of_noise * f);
            }
        }
        for (row, d) in slopes.gate[0].chunks_exact_mut(width).zip(of_hidden) {
            row.iter_mut().zip(features).for_each(|(slope, f)| *slope += d * f);
        }
    }

    /// Memory for steps.
    pub fn memory(&self) -> Memory {
        let adam = |values: &Vec<f32>| Adam::new(values.len());
        Memory {
            adapters: self.adapters.iter().map(|it| [adam(&it.a), adam(&it.b)]).collect(),
            gate: [adam(&self.gate[0]), adam(&self.gate[1]), adam(&self.gate[2])],
        }
    }

    /// Brings the norm of all gradients down to a limit.
    pub fn clip(&self, slopes: &mut Slopes, limit: f32) {
        let square = |values: &Vec<f32>| values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        let all = slopes.adapters.iter().flatten().chain(&slopes.gate).map(square).sum::<f64>().sqrt();
        if all > f64::from(limit) {
            let factor = (f64::from(limit) / all) as f32;
            let values = slopes.adapters.iter_mut().flatten().chain(&mut slopes.gate).flatten();
            values.for_each(|x| *x *= factor);
        }
    }

    /// Moves everything against its gradient; `step` counts from 1.
    pub fn step(&mut self, slopes: &Slopes, memory: &mut Memory, rate: f64, step: u64) {
        for ((adapters, [da, db]), [ma, mb]) in
            self.adapters.iter_mut().zip(&slopes.adapters).zip(&mut memory.adapters)
        {
            ma.step(&mut adapters.a, da, rate, step);
            mb.step(&mut adapters.b, db, rate, step);
        }
        for ((values, slopes), memory) in self.gate.iter_mut().zip(&slopes.gate).zip(&mut memory.gate) {
            memory.step(values, slopes, rate, step);
        }
    }

    /// All numbers, for tests of gradients: of a matrix's `A` and `B`, or of a map of the gate.
    #[cfg(test)]
    pub(super) fn number(&mut self, part: usize, at: usize) -> &mut f32 {
        match part {
            0..=2 => &mut self.gate[part][at],
            part if part % 2 == 1 => &mut self.adapters[(part - 3) / 2].a[at],
            part => &mut self.adapters[(part - 3) / 2].b[at],
        }
    }

    /// The gradient that belongs to [`Smol::number`].
    #[cfg(test)]
    pub(super) fn slope(slopes: &Slopes, part: usize, at: usize) -> f32 {
        match part {
            0..=2 => slopes.gate[part][at],
            part => slopes.adapters[(part - 3) / 2][(part - 3) % 2][at],
        }
    }
}

/// Refuses numbers that can't be.
///
/// # Errors
/// In one sentence.
pub fn check(options: &Options) -> Result<()> {
    match options.experts > 0 && options.taken > 0 && options.taken <= options.experts && options.rank > 0 {
        true => Ok(()),
        false => Err(crate::Error::Option(format!(
            "{} of {} adapters of rank {} can't be taken; take one at least and no more than there are",
            options.taken, options.experts, options.rank
        ))),
    }
}
