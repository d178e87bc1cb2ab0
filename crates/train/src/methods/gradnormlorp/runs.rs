//! Training of all weights, by projections, or of LoRA's factors, on letters.

use std::sync::Arc;

use ounce_kernels::gemm::{Compute, Operand, Workspace, gemm};
use ounce_kernels::pool::Pool;

use super::super::workbench::cosine;
use crate::data::{BatchSource, Pieces};
use crate::net::{Net, normal};
use crate::optim::norm::{clip_factor, global_norm};
use crate::optim::{Kind, LowRank, Optimizer, Options, Projection};
use crate::{Batch, Loss, Param, ParamKind, Result, Trainable};

/// Letters of a sequence.
pub(super) const CONTEXT: usize = 32;
/// Sequences of a step.
pub(super) const SEQUENCES: usize = 16;
/// Letters there are: ASCII.
pub(super) const VOCABULARY: usize = 128;
/// Steps after which projections look for directions anew.
pub(super) const REFRESH: u64 = 50;
/// LoRA's factor on its product.
const LORA_SCALE: f32 = 2.0;

/// Ways to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Adam,
    Lora,
    Galore,
    Lorp,
    Lorp8,
}

impl Way {
    pub const ALL: [Way; 5] = [Way::Adam, Way::Lora, Way::Galore, Way::Lorp, Way::Lorp8];
    pub const TUNED: [Way; 4] = [Way::Adam, Way::Lora, Way::Galore, Way::Lorp];

    pub fn label(self) -> &'static str {
        match self {
            Way::Adam => "AdamW",
            Way::Lora => "LoRA",
            Way::Galore => "GaLore",
            Way::Lorp => "GradNormLoRP",
            Way::Lorp8 => "GradNormLoRP in 8 bits",
        }
    }

    fn options(self, rank: usize) -> Options {
        let projection = match self {
            Way::Adam | Way::Lora => Projection::None,
            Way::Galore => Projection::Galore,
            Way::Lorp | Way::Lorp8 => Projection::GradNormLorp,
        };
        let kind = if self == Way::Lorp8 { Kind::AdamW8bit } else { Kind::AdamW };
        let low_rank = LowRank { projection, rank, refresh: REFRESH, scale: 1.0 };
        Options { kind, low_rank, weight_decay: 0.0, ..Options::default() }
    }
}

/// Sequences to learn from, to choose rates by and to be judged by.
pub(super) struct Corpus {
    train: Arc<[Vec<u32>]>,
    pub validation: Vec<Vec<u32>>,
    pub test: Vec<Vec<u32>>,
}

fn sequences(text: &str) -> Vec<Vec<u32>> {
    let ids: Vec<u32> = text.bytes().map(|byte| u32::from(byte) % VOCABULARY as u32).collect();
    ids.chunks(CONTEXT).filter(|ids| ids.len() > 1).map(<[u32]>::to_vec).collect()
}

impl Corpus {
    /// A half of what is held out is for choosing.
    pub fn new(train: &str, held_out: &str) -> Corpus {
        let mut validation = sequences(held_out);
        let test = validation.split_off(validation.len() / 2);
        Corpus { train: sequences(train).into(), validation, test }
    }
}

/// A run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    pub way: Way,
    pub rank: usize,
    pub steps: u64,
    pub rate: f64,
    pub seed: u64,
}

fn is_split(param: &Param, rank: usize) -> bool {
    param.kind == ParamKind::Matrix && param.shape.len() == 2 && param.shape.iter().all(|&side| side > rank)
}

/// LoRA: `W = W₀ + s B A`. The gradient of `W` gives those of `B` and `A`.
struct Lora {
    /// What learns: factors, and weights that are no matrices of layers.
    outer: Vec<Param>,
    /// Of each parameter its first place among those, and what it was if it has factors.
    places: Vec<(usize, Option<Vec<f32>>)>,
    rank: usize,
}

fn product(size: (usize, usize, usize), a: Operand<'_>, b: Operand<'_>, onto: &mut [f32]) {
    gemm(Pool::global(), Compute::F32, size, a, b, false, onto, size.1, &mut Workspace::default());
}

impl Lora {
    fn new(params: &[Param], rank: usize, seed: u64) -> Lora {
        let (mut outer, mut places) = (Vec::new(), Vec::new());
        for param in params {
            let place = outer.len();
            if !is_split(param, rank) {
                outer.push(param.clone());
                places.push((place, None));
                continue;
            }
            let (rows, columns) = (param.shape[0], param.shape[1]);
            let name = format!("{}.a", param.name);
            let a = normal(1.0 / (columns as f32).sqrt(), rank * columns, seed, &name);
            outer.push(Param::new(name, &[rank, columns], ParamKind::Matrix, a));
            let name = format!("{}.b", param.name);
            outer.push(Param::new(name, &[rows, rank], ParamKind::Matrix, vec![0.0; rows * rank]));
            places.push((place, Some(param.value.clone())));
        }
        Lora { outer, places, rank }
    }

    /// From the gradients of a network's weights.
    fn collect(&mut self, params: &[Param]) {
        let rank = self.rank;
        for (param, (place, base)) in params.iter().zip(&self.places) {
            if base.is_none() {
                self.outer[*place].grad.copy_from_slice(&param.grad);
                continue;
            }
            let (rows, columns) = (param.shape[0], param.shape[1]);
            let [a, b] = &mut self.outer[*place..*place + 2] else { unreachable!("two factors") };
            let (g, down) = (Operand::rows(&param.grad, columns), Operand::columns(&a.value, columns));
            product((rows, rank, columns), g, down, &mut b.grad);
            let up = Operand::columns(&b.value, rank);
            product((rank, columns, rows), up, Operand::rows(&param.grad, columns), &mut a.grad);
            a.grad.iter_mut().chain(&mut b.grad).for_each(|g| *g *= LORA_SCALE);
        }
    }

    /// Brings a network's weights up.
    fn show(&self, params: &mut [Param]) {
        for (param, (place, base)) in params.iter_mut().zip(&self.places) {
            let Some(base) = base else {
                param.value.copy_from_slice(&self.outer[*place].value);
                continue;
            };
            let (rows, columns) = (param.shape[0], param.shape[1]);
            let (a, b) = (&self.outer[*place].value, &self.outer[*place + 1].value);
            let (b, a) = (Operand::rows(b, self.rank), Operand::rows(a, columns));
            product((rows, columns, self.rank), b, a, &mut param.value);
            param.value.iter_mut().zip(base).for_each(|(w, base)| *w = base + LORA_SCALE * *w);
        }
    }
}

/// Bytes that a way keeps of the matrices of layers: moments and directions.
pub(super) fn moments(net: &Net, way: Way, rank: usize) -> Result<usize> {
    let matrices = || net.params().iter().filter(|param| is_split(param, rank)).cloned();
    let learned: Vec<Param> = match way {
        Way::Lora => Lora::new(&matrices().collect::<Vec<_>>(), rank, 0).outer,
        _ => matrices().collect(),
    };
    Ok(Optimizer::new(way.options(rank), &learned)?.bytes())
}

/// Trains; gradients are clipped to a norm of 1.
pub(super) fn base(net: &mut Net, corpus: &Corpus, course: Course) -> Result<()> {
    let Course { way, rank, steps, rate, seed } = course;
    let mut source = Pieces::new(corpus.train.clone(), SEQUENCES, seed, None)?;
    let mut lora = (way == Way::Lora).then(|| Lora::new(net.params(), rank, seed));
    let learned = lora.as_ref().map_or(net.params(), |lora| &lora.outer[..]);
    let mut optimizer = Optimizer::new(way.options(rank), learned)?;
    let schedule = cosine(rate, steps);
    for step in 0..steps {
        let Some(batch) = source.next()? else { break };
        net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        net.accumulate(&batch, 1.0 / batch.counted().max(1) as f32)?;
        let rate = schedule.rate(step);
        match &mut lora {
            None => {
                let clip = clip_factor(global_norm(Pool::global(), net.params()), Some(1.0));
                optimizer.step(net.params_mut(), rate, clip);
            }
            Some(lora) => {
                lora.collect(net.params());
                let clip = clip_factor(global_norm(Pool::global(), &lora.outer), Some(1.0));
                optimizer.step(&mut lora.outer, rate, clip);
                lora.show(net.params_mut());
            }
        }
    }
    Ok(())
}

/// Trains, and gives the loss on sequences, nats a letter; infinite if it is no number.
pub(super) fn run(net: &mut Net, corpus: &Corpus, judged: &[Vec<u32>], course: Course) -> Result<f64> {
    base(net, corpus, course)?;
    let mut sum = Loss::default();
    for sequences in judged.chunks(64) {
        sum += net.loss(&Batch::next_token(sequences.iter().map(Vec::as_slice)))?;
    }
    Ok(if sum.mean().is_finite() { sum.mean() } else { f64::INFINITY })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Preset};

    /// The gradients of LoRA's factors are those of finite differences through the network.
    #[test]
    fn factors_have_the_gradients_of_the_loss() {
        let shape = config::Model {
            preset: Preset::Llama,
            hidden: 16,
            layers: 1,
            heads: 1,
            context: CONTEXT,
            ..config::Model::default()
        };
        let model = shape.architecture(VOCABULARY, []).expect("sound");
        let mut net = Net::random(&model, Default::default(), shape.initial(), 1).expect("sound");
        let mut lora = Lora::new(net.params(), 3, 2);
        let texts = sequences("a cat sat on the mat and slept all day");
        let batch = Batch::next_token(texts.iter().map(Vec::as_slice));
        // B away from zero, so that A has a gradient.
        for (at, param) in lora.outer.iter_mut().enumerate().filter(|(_, it)| it.name.ends_with(".b")) {
            param.value = normal(0.3, param.value.len(), at as u64, "b");
        }
        lora.show(net.params_mut());
        net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        net.accumulate(&batch, 1.0).expect("fits");
        lora.collect(net.params());
        let mut checked = 0;
        for index in 0..lora.outer.len() {
            let name = lora.outer[index].name.clone();
            if !(name.ends_with(".a") || name.ends_with(".b")) {
                continue;
            }
            let grad = lora.outer[index].grad.clone();
            let place =
                (0..grad.len()).fold(0, |best, at| if grad[at].abs() > grad[best].abs() { at } else { best });
            let mut at = |by: f32| {
                lora.outer[index].value[place] += by;
                lora.show(net.params_mut());
                lora.outer[index].value[place] -= by;
                net.loss(&batch).expect("fits").sum
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            let told = f64::from(grad[place]);
            assert!((slope - told).abs() < 0.05 * told.abs() + 2e-2, "{name}: {slope} {told}");
            checked += 1;
        }
        assert!(checked >= 14, "{checked}");
    }
}
