//! Low-rank cores of tensors with any number of dimensions: kernels of convolutions, `[out, in, height, width]`.

use candle_core::{Tensor, Var};
use ounce_train::net::normal;

/// A core and a factor along each dimension.
#[derive(Debug, Clone)]
pub struct Tucker {
    /// `G`, `[r₁, …, r_N]`.
    pub core: Var,
    /// `U_i`, `[d_i, r_i]`.
    pub factors: Vec<Var>,
    /// s.
    pub scale: f64,
}

impl Tucker {
    /// What begins as zero, for a weight of these sizes.
    ///
    /// # Errors
    /// If there are not as many ranks as sizes.
    pub fn new(sizes: &[usize], ranks: &[usize], scale: f64, seed: u64) -> candle_core::Result<Tucker> {
        if sizes.len() != ranks.len() {
            candle_core::bail!("{} ranks for a weight of {} dimensions", ranks.len(), sizes.len());
        }
        let device = candle_core::Device::Cpu;
        let factors = sizes.iter().zip(ranks).enumerate().map(|(i, (&size, &rank))| {
            let values = normal((2.0 / rank as f32).sqrt(), size * rank, seed, &format!("factor {i}"));
            Var::from_vec(values, (size, rank), &device)
        });
        let core = Var::from_vec(vec![0.0f32; ranks.iter().product()], ranks, &device)?;
        Ok(Tucker { core, factors: factors.collect::<candle_core::Result<_>>()?, scale })
    }

    /// How many numbers it has: `Σ d_i r_i + Π r_i`.
    pub fn parameters(sizes: &[usize], ranks: &[usize]) -> usize {
        sizes.iter().zip(ranks).map(|(size, rank)| size * rank).sum::<usize>()
            + ranks.iter().product::<usize>()
    }

    /// `ΔW`, in the weight's shape.
    ///
    /// # Errors
    /// If the tensors do not fit, which they do.
    pub fn delta(&self) -> candle_core::Result<Tensor> {
        let factors: Vec<Tensor> = self.factors.iter().map(|factor| factor.as_tensor().clone()).collect();
        product(self.core.as_tensor(), &factors)? * self.scale
    }

    /// All that is trained.
    pub fn vars(&self) -> Vec<Var> {
        self.factors.iter().chain([&self.core]).cloned().collect()
    }
}

/// `G ×₁ U₁ … ×_N U_N`.
///
/// # Errors
/// If the sizes do not fit.
pub(super) fn product(core: &Tensor, factors: &[Tensor]) -> candle_core::Result<Tensor> {
    let mut whole = core.clone();
    for (mode, factor) in factors.iter().enumerate() {
        whole = along(&whole, mode, factor)?;
    }
    Ok(whole)
}

/// The product along a mode: `x ×_mode factor`.
fn along(x: &Tensor, mode: usize, factor: &Tensor) -> candle_core::Result<Tensor> {
    let mut shape = x.dims().to_vec();
    let last = shape.len() - 1;
    let moved = x.transpose(mode, last)?.contiguous()?;
    let width = shape[mode];
    let product = moved.reshape(((), width))?.matmul(&factor.t()?)?;
    shape.swap(mode, last);
    shape[last] = factor.dims()[0];
    product.reshape(shape)?.transpose(mode, last)?.contiguous()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delta_is_the_sum_over_all_ranks() {
        let (sizes, ranks) = ([3, 4, 2, 5], [2, 3, 1, 2]);
        let tucker = Tucker::new(&sizes, &ranks, 0.5, 7).expect("sizes");
        let core = normal(1.0, 12, 1, "core");
        let shape: &[usize] = &ranks;
        tucker
            .core
            .set(&Tensor::from_vec(core.clone(), shape, &candle_core::Device::Cpu).expect("core"))
            .expect("core");
        let found = tucker.delta().expect("fits");
        assert_eq!(found.dims(), sizes);
        let found = found.flatten_all().and_then(|it| it.to_vec1::<f32>()).expect("f32");
        let factors: Vec<Vec<Vec<f32>>> =
            tucker.factors.iter().map(|factor| factor.to_vec2::<f32>().expect("f32")).collect();
        for (at, found) in found.iter().enumerate() {
            let (a, b, c, d) = (at / 40, at / 10 % 4, at / 5 % 2, at % 5);
            let mut sum = 0.0;
            for (i, value) in core.iter().enumerate() {
                let (i, j, k, l) = (i / 6, i / 2 % 3, 0, i % 2);
                sum += value * factors[0][a][i] * factors[1][b][j] * factors[2][c][k] * factors[3][d][l];
            }
            assert!((found - 0.5 * sum).abs() < 1e-4, "{at}: {found} for {}", 0.5 * sum);
        }
        let count: usize = tucker.vars().iter().map(|var| var.elem_count()).sum();
        assert_eq!(count, Tucker::parameters(&sizes, &ranks));
    }
}
