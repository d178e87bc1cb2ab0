//! Compacter (Mahabadi et al., "Compacter: Efficient Low-Rank Hypercomplex Adapter Layers", arXiv 2106.04647, equations 3 to 5):
//! bottleneck adapters whose matrices are sums of Kronecker products of factors that all layers share and factors of rank one.
//!
//! `W = Σᵢ Aᵢ ⊗ (sᵢ tᵢᵀ)`, `i` to `n`; `y = x W + b` with rows `x`; `Aᵢ` `[n, n]` shared by all, `sᵢ` `[k/n]` and `tᵢ` `[m/n]` of each layer. An adapter is
//! `y = f(x) + U gelu(D f(x))`, both `D` and `U` of this form. Norms of the layers are trained, too (section 5). `Aᵢ` are normal with a
//! deviation of 0.01, `sᵢ` and `tᵢ` uniform after Glorot with a gain of √2.
//!
//! Never is `W` built: `z = X Sᵀ` with the row as an `[n, k/n]` matrix `X`, then `n` rows are mixed by `Aᵢ` and spread along `tᵢ`.
//!
//! Parameters: `n³ + Σ 2 (k + m) + k + m`, and the norms.

mod demonstrate;

use candle_core::Tensor;
use ounce_eval::method::{Family, Method};
use ounce_model::spec::Spec;
use ounce_train::ParamKind;
use ounce_train::graph::{Linear, Slot, Weight};
use ounce_train::net::normal;

use super::bottleneck::narrow;
use crate::adapter::Adapter;
use crate::random::uniform;
use crate::{Error, Result, Settings};

const NUMBER: u16 = 55;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "Compacter",
    family: Family::Peft,
    paper: "Compacter: Efficient Low-Rank Hypercomplex Adapter Layers",
    arxiv: Some("2106.04647"),
    gives: "Adapters for all layers are built from shared Kronecker factors and fit into a few KiB in total.",
    claim: "0.047 % trainable parameters give T5-base the GLUE quality of full fine-tuning, and more on SuperGLUE.",
    command: Some("ounce tune MODEL --method compacter --data FILE -o ADAPTER"),
    demonstrate: Some(demonstrate::demonstrate),
};

/// The deviation of what all layers share, at first.
const DEVIATION: f32 = 0.01;

/// The factors that all layers share: their name.
pub(crate) const RULE: &str = "phm_rule";

/// Compacter.
pub struct Compacter {
    settings: Settings,
    /// `A`, `[n, n, n]`.
    rule: Weight,
}

impl Compacter {
    /// Compacter with these settings.
    ///
    /// # Errors
    /// If `n` is 0.
    pub fn new(settings: Settings) -> Result<Compacter> {
        let n = settings.blocks;
        if n == 0 {
            return Err(Error::Option("n, the number of Kronecker products, should be 1 or more".into()));
        }
        let rule = normal(DEVIATION, n * n * n, settings.seed, RULE);
        Ok(Compacter { rule: Weight::new(RULE, &[n, n, n], ParamKind::Matrix, rule)?, settings })
    }

    /// The narrow width of an adapter: a multiple of `n`.
    fn inner(&self, width: usize) -> usize {
        let n = self.settings.blocks;
        narrow(width, self.settings.reduction).next_multiple_of(n)
    }
}

fn is_norm(weight: &str) -> bool {
    weight.starts_with("layers.") && weight.contains("_norm.")
}

impl Adapter for Compacter {
    fn parameters(&self, base: &Spec) -> u64 {
        let halves = self.settings.targets.of(base).into_iter();
        let of = |width: usize| 3 * (width + self.inner(width)) as u64;
        let norms = base.tensors().into_iter().filter(|it| is_norm(&it.name));
        let norms: usize = norms.map(|it| it.shape.iter().product::<usize>()).sum();
        self.settings.blocks.pow(3) as u64
            + halves.map(|(_, output, _)| of(output)).sum::<u64>()
            + norms as u64
    }

    fn trains(&self, weight: &str) -> bool {
        is_norm(weight)
    }

    fn slot(&mut self, name: &str, linear: Linear) -> Result<Box<dyn Slot>> {
        if !self.settings.targets.chooses(name) {
            return Ok(Box::new(linear));
        }
        let (n, width, seed) = (self.settings.blocks, linear.output, self.settings.seed);
        if !width.is_multiple_of(n) {
            return Err(Error::Option(format!(
                "{name} gives {width} values, which {n} Kronecker products do not divide; choose another --blocks"
            )));
        }
        let inner = self.inner(width);
        let down = Phm::new(&format!("{name}.down"), (width, inner), &self.rule, n, seed)?;
        let up = Phm::new(&format!("{name}.up"), (inner, width), &self.rule, n, seed)?;
        Ok(Box::new(CompacterSlot { base: linear, down, up }))
    }

    fn parts(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("down_s", "phm_down_s"),
            ("down_t", "phm_down_t"),
            ("down_bias", "phm_down_bias"),
            ("up_s", "phm_up_s"),
            ("up_t", "phm_up_t"),
            ("up_bias", "phm_up_bias"),
        ]
    }
}

/// A parametrised hypercomplex layer with fast weights of rank one.
struct Phm {
    /// `A`, `[n, n, n]`.
    rule: Weight,
    /// `[n, k/n]`.
    s: Weight,
    /// `[n, m/n]`.
    t: Weight,
    /// `[m]`.
    bias: Weight,
    n: usize,
}

impl Phm {
    fn new(name: &str, (k, m): (usize, usize), rule: &Weight, n: usize, seed: u64) -> Result<Phm> {
        let draw = |part: &str, width: usize| {
            let name = format!("{name}_{part}");
            // Glorot's bound of a column of this length, with a gain of √2.
            let limit = (2.0f32 * 6.0 / (width + 1) as f32).sqrt();
            Weight::new(&name, &[n, width], ParamKind::Matrix, uniform(limit, n * width, seed, &name))
        };
        Ok(Phm {
            rule: rule.clone(),
            s: draw("s", k / n)?,
            t: draw("t", m / n)?,
            bias: Weight::new(&format!("{name}_bias"), &[m], ParamKind::Bias, vec![0.0; m])?,
            n,
        })
    }

    /// `x W + b`, `[rows, k]` to `[rows, m]`.
    fn apply(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        let bias = self.bias.tensor()?;
        Ok(product(x, &self.rule.tensor()?, &self.s.tensor()?, &self.t.tensor()?, self.n)?
            .broadcast_add(&bias)?)
    }

    fn weights(&self) -> [Weight; 4] {
        [self.rule.clone(), self.s.clone(), self.t.clone(), self.bias.clone()]
    }
}

/// `x · Σᵢ Aᵢ ⊗ (sᵢ tᵢᵀ)` without the sum ever being built.
fn product(x: &Tensor, rule: &Tensor, s: &Tensor, t: &Tensor, n: usize) -> candle_core::Result<Tensor> {
    let (rows, k) = x.dims2()?;
    let m = n * t.dims2()?.1;
    // z[row, a, i] = Σ_p x[row, a, p] sᵢ[p]
    let z = x.contiguous()?.reshape((rows * n, k / n))?.matmul(&s.t()?)?.reshape((rows, n, n))?;
    let mut sum: Option<Tensor> = None;
    for i in 0..n {
        let own = z.narrow(2, i, 1)?.reshape((rows, n))?;
        let mixed = own.matmul(&rule.narrow(0, i, 1)?.reshape((n, n))?)?;
        let spread = mixed.reshape((rows * n, 1))?.matmul(&t.narrow(0, i, 1)?)?;
        sum = Some(match sum {
            Some(sum) => (sum + spread)?,
            None => spread,
        });
    }
    match sum {
        Some(sum) => sum.reshape((rows, m)),
        None => candle_core::bail!("no products"),
    }
}

/// `Wᵀ`, `[m, k]`, as it is written: for who multiplies with it often.
pub(crate) fn dense_turned(rule: &[f32], s: &[f32], t: &[f32], (k, m, n): (usize, usize, usize)) -> Vec<f32> {
    let (kn, mn) = (k / n, m / n);
    let value = |row: usize, column: usize| -> f32 {
        let (a, p, b, q) = (row / kn, row % kn, column / mn, column % mn);
        (0..n).map(|i| rule[(i * n + a) * n + b] * s[i * kn + p] * t[i * mn + q]).sum()
    };
    (0..m * k).map(|at| value(at % k, at / k)).collect()
}

struct CompacterSlot {
    base: Linear,
    down: Phm,
    up: Phm,
}

impl Slot for CompacterSlot {
    fn forward(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        let y = self.base.forward(x)?;
        let added = self.up.apply(&self.down.apply(&y)?.gelu()?)?;
        Ok((y + added)?)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.base.vars();
        weights.extend(self.down.weights().into_iter().chain(self.up.weights()));
        weights
    }

    fn merged(&self) -> ounce_train::Result<Option<Tensor>> {
        Err(Error::Option("a network behind a matrix can't become part of it".into()).into())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;
    use ounce_train::graph::ops::tensor;

    use super::*;

    /// `W`, `[k, m]`.
    fn dense(rule: &[f32], s: &[f32], t: &[f32], (k, m, n): (usize, usize, usize)) -> Vec<f32> {
        let turned = dense_turned(rule, s, t, (k, m, n));
        (0..k * m).map(|at| turned[at % m * k + at / m]).collect()
    }

    #[test]
    fn a_small_study_gives_sound_evidence() {
        let scale = demonstrate::Scale { text: 6_000, few: 8, steps: 2, choosing: 1, seeds: 1 };
        let evidence = demonstrate::measure(&crate::desk::Desk, &scale).expect("measured");
        evidence.check().expect("sound");
        assert!(evidence.expectations[3].holds, "{:?}", evidence.expectations[3]);
    }

    #[test]
    fn the_fast_product_is_that_with_the_kronecker_sum_and_so_are_its_gradients() {
        let (rows, k, m, n) = (5, 12, 8, 4);
        let x = tensor(normal(1.0, rows * k, 1, "x"), (rows, k)).expect("x");
        let values = [normal(1.0, n * n * n, 2, "a"), normal(1.0, k, 3, "s"), normal(1.0, m, 4, "t")];
        let vars = [
            Var::from_tensor(&tensor(values[0].clone(), (n, n, n)).expect("a")).expect("a"),
            Var::from_tensor(&tensor(values[1].clone(), (n, k / n)).expect("s")).expect("s"),
            Var::from_tensor(&tensor(values[2].clone(), (n, m / n)).expect("t")).expect("t"),
        ];
        let [a, s, t] = &vars;
        let found = product(&x, a, s, t, n).expect("fits");
        let w = tensor(dense(&values[0], &values[1], &values[2], (k, m, n)), (k, m)).expect("w");
        let expected = x.matmul(&w).expect("fits");
        let difference =
            (&found - &expected).and_then(|it| it.abs()?.max_all()?.to_scalar::<f32>()).expect("f32");
        assert!(difference < 1e-5 * 20.0, "{difference}");
        let loss = found.sqr().and_then(|it| it.sum_all()).expect("sum");
        let gradients = loss.backward().expect("gradients");
        let of = |values: &[Vec<f32>; 3]| {
            let w = tensor(dense(&values[0], &values[1], &values[2], (k, m, n)), (k, m)).expect("w");
            x.matmul(&w).and_then(|it| it.sqr()?.sum_all()?.to_scalar::<f32>()).map(f64::from).expect("f32")
        };
        for (which, var) in vars.iter().enumerate() {
            let gradient = gradients.get(var).and_then(|it| it.flatten_all().ok()).expect("tracked");
            for (at, gradient) in gradient.to_vec1::<f32>().expect("f32").into_iter().enumerate() {
                let moved = |by: f32| {
                    let mut values = values.clone();
                    values[which][at] += by;
                    of(&values)
                };
                let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                assert!(
                    (f64::from(gradient) - slope).abs() < 2e-2 * slope.abs().max(10.0),
                    "{which} {at}: {gradient} {slope}"
                );
            }
        }
    }
}
