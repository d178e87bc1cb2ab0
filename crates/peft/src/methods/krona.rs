//! KronA (Edalati et al., "KronA: Parameter Efficient Tuning with Kronecker Adapter", arXiv 2212.10650, section 3.2; the full form of
//! LoKr): a Kronecker product beside each matrix, which can have full rank.
//!
//! `y = W x + b + s · (A ⊗ B) x`, `A` `[a₁, a₂]`, `B` `[b₁, b₂]`, `a₁ b₁ = out`, `a₂ b₂ = in`; `A` begins as Kaiming has it, `B` as zeros. `a₁` and `a₂` are
//! the largest divisors of the sides that are at most `r`. The product is never built: with `x` as `X` `[a₂, b₂]`,
//! `(A ⊗ B) x = A X Bᵀ`.
//!
//! Parameters: `Σ a₁ a₂ + b₁ b₂` over the matrices.

use candle_core::Tensor;
use ounce_model::spec::Spec;
use ounce_train::ParamKind;
use ounce_train::graph::{Linear, Slot, Weight};

use super::lora::times;
use crate::adapter::{Adapter, Clock, Dropout};
use crate::random::kaiming;
use crate::{Error, Result, Settings};

/// KronA.
pub struct KronA {
    settings: Settings,
    clock: Clock,
}

impl KronA {
    /// KronA with these settings.
    pub fn new(settings: Settings, clock: Clock) -> KronA {
        KronA { settings, clock }
    }
}

/// The largest divisor of a side that is at most `most`.
fn divisor(side: usize, most: usize) -> usize {
    (1..=most.min(side)).rev().find(|it| side.is_multiple_of(*it)).unwrap_or(1)
}

/// The sides of `A` and of `B`.
fn sides(output: usize, input: usize, most: usize) -> [usize; 4] {
    let (a1, a2) = (divisor(output, most), divisor(input, most));
    [a1, a2, output / a1, input / a2]
}

impl Adapter for KronA {
    fn parameters(&self, base: &Spec) -> u64 {
        let of = |(_, output, input): (String, usize, usize)| {
            let [a1, a2, b1, b2] = sides(output, input, self.settings.rank);
            (a1 * a2 + b1 * b2) as u64
        };
        self.settings.targets.of(base).into_iter().map(of).sum()
    }

    fn slot(&mut self, name: &str, linear: Linear) -> Result<Box<dyn Slot>> {
        if !self.settings.targets.chooses(name) {
            return Ok(Box::new(linear));
        }
        if self.settings.rank == 0 {
            return Err(Error::Option("the rank, KronA's longest side of A, should be 1 or more".into()));
        }
        let [a1, a2, b1, b2] = sides(linear.output, linear.input, self.settings.rank);
        let of_a = format!("{name}.krona_a");
        let a = kaiming(a2, a1 * a2, self.settings.seed, &of_a);
        let dropout = Dropout::new(&self.settings, name, &self.clock);
        Ok(Box::new(KronASlot {
            a: Weight::new(&of_a, &[a1, a2], ParamKind::Matrix, a)?,
            b: Weight::new(&format!("{name}.krona_b"), &[b1, b2], ParamKind::Matrix, vec![0.0; b1 * b2])?,
            sides: [a1, a2, b1, b2],
            scale: self.settings.scale(self.settings.rank),
            base: linear,
            dropout,
        }))
    }

    fn parts(&self) -> &'static [(&'static str, &'static str)] {
        &[("krona_a", "krona_a"), ("krona_b", "krona_b")]
    }
}

struct KronASlot {
    base: Linear,
    a: Weight,
    b: Weight,
    sides: [usize; 4],
    scale: f64,
    dropout: Dropout,
}

impl KronASlot {
    /// `s (A ⊗ B) x` for every row.
    fn product(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        let [a1, a2, b1, b2] = self.sides;
        let rows = x.dims2()?.0;
        let on = self.base.on;
        let inner = times(on, &x.reshape((rows * a2, b2))?, self.b.tensor()?)?;
        let turned = inner.reshape((rows, a2, b1))?.transpose(1, 2)?.contiguous()?;
        let outer = times(on, &turned.reshape((rows * b1, a2))?, self.a.tensor()?)?;
        let y = outer.reshape((rows, b1, a1))?.transpose(1, 2)?.contiguous()?;
        Ok((y.reshape((rows, a1 * b1))? * self.scale)?)
    }
}

impl Slot for KronASlot {
    fn forward(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        let seen = self.dropout.apply(x, &self.b.tensor()?)?;
        Ok((self.base.forward(x)? + self.product(&seen)?)?)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.base.vars();
        weights.extend([self.a.clone(), self.b.clone()]);
        weights
    }

    fn merged(&self) -> ounce_train::Result<Option<Tensor>> {
        let [a1, a2, b1, b2] = self.sides;
        let (a, b) = (self.a.tensor()?.reshape((a1, 1, a2, 1))?, self.b.tensor()?.reshape((1, b1, 1, b2))?);
        let product = (a.broadcast_mul(&b)?.reshape((a1 * b1, a2 * b2))? * self.scale)?;
        Ok(Some((self.base.dense()? + product)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_divide() {
        assert_eq!(sides(64, 160, 8), [8, 8, 8, 20]);
        assert_eq!(sides(96, 7, 6), [6, 1, 16, 7]);
    }
}
