//! Low-rank adapters of query and value matrices, held beside a network whose weights are what the adapters make of them.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use ounce_train::Param;

use crate::quantize::training::adam::Adam;

/// `W + B A`, with `A` `[rank, in]` random and `B` `[out, rank]` zero to begin with.
#[derive(Debug)]
pub struct Adapter {
    /// The parameter's place in its network.
    pub param: usize,
    base: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    rank: usize,
    memory: [Adam; 2],
}

/// Whether a weight gets an adapter.
pub fn is_adapted(name: &str) -> bool {
    name.ends_with(".attention.query.weight") || name.ends_with(".attention.value.weight")
}

impl Adapter {
    /// Adapters of a network's query and value matrices.
    pub fn all(params: &[Param], rank: usize, seed: u64) -> Vec<Adapter> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let adapted = params.iter().enumerate().filter(|(_, param)| is_adapted(&param.name));
        adapted
            .map(|(at, param)| {
                let (rows, columns) = (param.shape[0], param.shape[1]);
                let range = (3.0 / columns as f32).sqrt();
                let a: Vec<f32> = (0..rank * columns).map(|_| random.random_range(-range..range)).collect();
                let memory = [Adam::new(a.len()), Adam::new(rows * rank)];
                Adapter { param: at, base: param.value.clone(), a, b: vec![0.0; rows * rank], rank, memory }
            })
            .collect()
    }

    /// Writes `W + B A` to the parameter.
    pub fn write(&self, params: &mut [Param]) {
        let param = &mut params[self.param];
        let columns = param.shape[1];
        param.value.copy_from_slice(&self.base);
        for (row, b) in param.value.chunks_exact_mut(columns).zip(self.b.chunks_exact(self.rank)) {
            for (factor, a) in b.iter().zip(self.a.chunks_exact(columns)) {
                row.iter_mut().zip(a).for_each(|(w, a)| *w += factor * a);
            }
        }
    }

    /// Moves the adapter by the parameter's gradient `G`: that of `B` is `G Aᵀ`, that of `A` is `Bᵀ G`.
    pub fn step(&mut self, params: &[Param], rate: f64, clip: f32, step: u64) {
        let param = &params[self.param];
        let columns = param.shape[1];
        let (mut da, mut db) = (vec![0.0; self.a.len()], vec![0.0; self.b.len()]);
        for (row, g) in param.grad.chunks_exact(columns).enumerate() {
            for rank in 0..self.rank {
                let a = &self.a[rank * columns..(rank + 1) * columns];
                db[row * self.rank + rank] = clip * g.iter().zip(a).map(|(g, a)| g * a).sum::<f32>();
                let b = clip * self.b[row * self.rank + rank];
                da[rank * columns..(rank + 1) * columns].iter_mut().zip(g).for_each(|(d, g)| *d += b * g);
            }
        }
        self.memory[0].step(&mut self.a, &da, rate, step);
        self.memory[1].step(&mut self.b, &db, rate, step);
    }
}
