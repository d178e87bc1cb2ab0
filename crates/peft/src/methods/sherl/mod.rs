//! SHERL (Diao et al., "SHERL: Synthesizing High Accuracy and Efficient Memory for Resource-Limited Transfer Learning", arXiv
//! 2407.07523, section 3): a side network fuses what the frozen early layers show, and the last layers, frozen too, go on from that.
//! Nothing leads back through the early layers, so nothing of them is kept.
//!
//! `f_i = LN(W_i x_i)` of the stream behind early layer `i` of `N`; with the guide `g = f_N` and the others' likeness `S_ij = cos(f_i, f_j)`, per
//! token: `ρ_i = Σ_j relu(S_ij)`, `a_i = relu(w · (f_i ⊙ g) + b) / ρ_i`, scaled to sum to one, `z = Σ a_i f_i + g`. The late layers see
//! `LN(W_o relu(z) + b_o) + tanh(γ / 0.1) · x_N`, γ 0 at first. What is said twice by the early layers so counts once.
//!
//! Parameters: `N (d h + 3 h) + h + 1 + d h + 3 d + 1`, `h = d/2` unless `--rank` says otherwise.

mod demonstrate;

use candle_core::Tensor;
use ounce_eval::method::{Family, Method};
use ounce_model::Model;
use ounce_model::spec::{Norm, Spec};
use ounce_train::ParamKind;
use ounce_train::graph::ops::{self, Factor, Kernels};
use ounce_train::graph::{Hook, Weight};

use crate::adapter::Adapter;
use crate::random::kaiming;
use crate::{Error, Result, Settings};

const NUMBER: u16 = 41;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "SHERL",
    family: Family::Peft,
    paper: "SHERL: Synthesizing High Accuracy and Efficient Memory for Resource-Limited Transfer Learning",
    arxiv: Some("2407.07523"),
    gives: "A frozen backbone is adapted from the side, so that training needs hardly more memory than inference does.",
    claim: "As good as or better than earlier frugal tuning on vision-language tasks and GLUE at lower memory.",
    command: Some("ounce tune MODEL --method sherl --data FILE -o ADAPTER"),
    demonstrate: Some(demonstrate::demonstrate),
};

/// What γ is divided by.
const TEMPERATURE: f64 = 0.1;
/// Keeps quotients of zeros from being no numbers.
const SMALL: f64 = 1e-6;

/// How early layers are weighed; all but the first are controls for demonstrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weighing {
    /// As the paper has it.
    Sherl,
    /// Without ρ.
    Redundant,
    /// All alike.
    Uniform,
}

/// A linear layer with a norm behind it.
struct Normed {
    matrix: Weight,
    bias: Weight,
    weight: Weight,
    shift: Weight,
}

impl Normed {
    fn new(name: &str, (input, output): (usize, usize), seed: u64) -> Result<Normed> {
        let filled = |part: &str, value: f32, kind| {
            Weight::new(&format!("{name}.{part}"), &[output], kind, vec![value; output])
        };
        let matrix = format!("{name}.matrix");
        let values = kaiming(input, output * input, seed, &matrix);
        Ok(Normed {
            matrix: Weight::new(&matrix, &[output, input], ParamKind::Matrix, values)?,
            bias: filled("bias", 0.0, ParamKind::Bias)?,
            weight: filled("norm", 1.0, ParamKind::Norm)?,
            shift: filled("shift", 0.0, ParamKind::Bias)?,
        })
    }

    fn apply(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        let on = Kernels::default();
        let y = ops::linear(on, x, &Factor::Dense(self.matrix.tensor()?), Some(&self.bias.tensor()?))?;
        ops::norm(on, &y, &self.weight.tensor()?, Some(&self.shift.tensor()?), &Norm::layer(1e-5))
    }

    fn weights(&self) -> [Weight; 4] {
        [self.matrix.clone(), self.bias.clone(), self.weight.clone(), self.shift.clone()]
    }
}

/// The side network's weights.
struct Side {
    down: Vec<Normed>,
    /// `[1, h]` and `[1]`.
    weigh: [Weight; 2],
    up: Normed,
    gate: Weight,
}

/// SHERL.
pub struct Sherl {
    settings: Settings,
    weighing: Weighing,
    side: Option<Side>,
}

impl Sherl {
    /// SHERL with these settings.
    pub fn new(settings: Settings) -> Sherl {
        Sherl { settings, weighing: Weighing::Sherl, side: None }
    }

    /// Early layers, and the width of the side network.
    fn sizes(&self, base: &Spec) -> (usize, usize) {
        let width = match self.settings.rank {
            0 => (base.hidden_size / 2).max(1),
            rank => rank,
        };
        (base.layers.len().saturating_sub(self.settings.layers), width)
    }
}

impl Adapter for Sherl {
    fn begin(&mut self, base: &Model) -> Result<()> {
        let (early, late) = (self.sizes(&base.spec).0, self.settings.layers);
        if early < 2 || late == 0 {
            return Err(Error::Option(format!(
                "SHERL fuses two early layers or more and goes on with one late layer or more; of {} layers {late} can't be late",
                base.spec.layers.len()
            )));
        }
        Ok(())
    }

    fn parameters(&self, base: &Spec) -> u64 {
        let ((early, h), d) = (self.sizes(base), base.hidden_size);
        (early * (d * h + 3 * h) + h + 1 + d * h + 3 * d + 1) as u64
    }

    fn weights(&mut self, base: &Model) -> Result<Vec<Weight>> {
        let ((early, h), d, seed) = (self.sizes(&base.spec), base.spec.hidden_size, self.settings.seed);
        let down =
            (0..early).map(|at| Normed::new(&format!("sherl.{at}"), (d, h), seed)).collect::<Result<_>>()?;
        let side = Side {
            down,
            weigh: [
                Weight::new("sherl.weigh", &[1, h], ParamKind::Matrix, kaiming(h, h, seed, "sherl.weigh"))?,
                Weight::new("sherl.weigh_bias", &[1], ParamKind::Bias, vec![0.0])?,
            ],
            up: Normed::new("sherl.up", (h, d), seed)?,
            gate: Weight::new("sherl.gate", &[1], ParamKind::Norm, vec![0.0])?,
        };
        let mut weights: Vec<Weight> = side.down.iter().flat_map(Normed::weights).collect();
        weights.extend(side.weigh.iter().cloned().chain(side.up.weights()).chain([side.gate.clone()]));
        self.side = Some(side);
        Ok(weights)
    }

    fn hook(&self, _lengths: &[usize]) -> Box<dyn Hook + '_> {
        Box::new(Beside { of: self, seen: Vec::new() })
    }
}

/// Collects what early layers give, and gives the late ones what was fused.
struct Beside<'a> {
    of: &'a Sherl,
    seen: Vec<Tensor>,
}

impl Hook for Beside<'_> {
    fn layer_input(&mut self, layer: usize, x: Tensor) -> ounce_train::Result<Tensor> {
        let Some(side) = &self.of.side else { return Ok(x) };
        if layer == 0 || layer > side.down.len() {
            return Ok(x);
        }
        self.seen.push(x.detach());
        if layer < side.down.len() {
            return Ok(x);
        }
        let fused = side.fuse(&self.seen, self.of.weighing)?;
        self.seen.clear();
        let gate = (side.gate.tensor()? / TEMPERATURE)?.tanh()?;
        Ok((fused + x.detach().broadcast_mul(&gate)?)?)
    }
}

impl Side {
    /// From what early layers gave, `[tokens, d]` each, to what late ones see.
    fn fuse(&self, seen: &[Tensor], weighing: Weighing) -> ounce_train::Result<Tensor> {
        let all = seen.iter().zip(&self.down).map(|(x, down)| down.apply(x));
        let mut all: Vec<Tensor> = all.collect::<ounce_train::Result<_>>()?;
        let Some(guide) = all.pop() else {
            return Err(Error::Option("SHERL saw no early layers".into()).into());
        };
        let count = all.len();
        // [tokens, layers, h]
        let shallow = Tensor::stack(&all, 1)?;
        let (tokens, _, h) = shallow.dims3()?;
        let weights = match weighing {
            Weighing::Uniform => ops::tensor(vec![1.0 / count as f32; tokens * count], (tokens, count))?,
            _ => {
                let with_guide =
                    shallow.broadcast_mul(&guide.reshape((tokens, 1, h))?)?.reshape((tokens * count, h))?;
                let [w, b] = &self.weigh;
                let scores = with_guide.matmul(&w.tensor()?.t()?)?.broadcast_add(&b.tensor()?)?;
                let scores = scores.reshape((tokens, count))?.relu()?;
                let scores = match weighing {
                    Weighing::Sherl => (scores / redundancy(&shallow)?)?,
                    _ => scores,
                };
                scores.broadcast_div(&(scores.sum_keepdim(1)? + SMALL)?)?
            }
        };
        let sum = shallow.broadcast_mul(&weights.reshape((tokens, count, 1))?)?.sum(1)?;
        self.up.apply(&(sum + guide)?.relu()?)
    }
}

/// `ρ`, `[tokens, layers]`: how much of each layer all say, itself included.
fn redundancy(shallow: &Tensor) -> candle_core::Result<Tensor> {
    let lengths = (shallow.sqr()?.sum_keepdim(2)? + SMALL)?.sqrt()?;
    let directions = shallow.broadcast_div(&lengths)?;
    directions.matmul(&directions.transpose(1, 2)?.contiguous()?)?.relu()?.sum(2)? + SMALL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_study_gives_sound_evidence() {
        let scale = demonstrate::Scale { text: 4_000, steps: 2, choosing: 1, seeds: 1, sequences: 4 };
        let evidence = demonstrate::measure(&crate::desk::Desk, &scale).expect("measured");
        evidence.check().expect("sound");
        assert_eq!((evidence.rows.len(), evidence.expectations.len()), (6, 3));
    }

    #[test]
    fn what_is_said_twice_counts_once() {
        // Two equal layers and one at a right angle to them.
        let layers = ops::tensor(vec![1.0, 0.0, 2.0, 0.0, 0.0, 3.0], (1, 3, 2)).expect("sizes");
        let found = redundancy(&layers).and_then(|it| it.flatten_all()?.to_vec1::<f32>()).expect("f32");
        for (found, expected) in found.iter().zip([2.0, 2.0, 1.0]) {
            assert!((found - expected).abs() < 1e-4, "{found} for {expected}");
        }
    }
}
