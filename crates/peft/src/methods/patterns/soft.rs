//! Learning probabilities of labels: `T² KL(p ‖ softmax(logits / T))`.

use ounce_kernels::pool::Pool;
use ounce_kernels::softmax::log_sum_exp;
use ounce_train::Trainable;
use ounce_train::data::labelled::{Example, batch};
use ounce_train::loss::{Chunk, LogitLoss};
use ounce_train::methods::workbench::cosine;
use ounce_train::optim::norm::{clip_factor, global_norm};
use ounce_train::optim::{self, Optimizer};

use super::Exploit;
use crate::few::Dice;
use crate::{Adapted, Result};

/// The loss of a batch's texts, in their order.
pub(super) struct SoftLabels<'t> {
    /// Probabilities of each text's labels.
    pub targets: Vec<&'t [f32]>,
    pub temperature: f64,
    /// Texts seen.
    pub at: usize,
}

impl LogitLoss for SoftLabels<'_> {
    fn chunk(&mut self, chunk: Chunk<'_>, scale: Option<f32>) -> f64 {
        let t = self.temperature;
        let mut sum = 0.0;
        for logits in chunk.logits.chunks_exact_mut(chunk.width) {
            let target = self.targets[self.at];
            self.at += 1;
            let scores: Vec<f32> = logits.iter().map(|logit| (f64::from(*logit) / t) as f32).collect();
            let all = log_sum_exp(&scores);
            for ((logit, score), &share) in logits.iter_mut().zip(&scores).zip(target) {
                let logarithm = f64::from(*score) - all;
                if share > 0.0 {
                    sum += t * t * f64::from(share) * (f64::from(share).ln() - logarithm);
                }
                if let Some(scale) = scale {
                    // T² · 1/T.
                    *logit = scale * (t * (logarithm.exp() - f64::from(share))) as f32;
                }
            }
        }
        sum
    }
}

/// Trains a classifier on texts' probabilities.
pub(super) fn fit(net: &mut Adapted, examples: &[Example], targets: &[Vec<f32>], of: &Exploit) -> Result<()> {
    let options = optim::Options { weight_decay: 0.0, ..optim::Options::default() };
    let mut optimizer = Optimizer::new(options, net.params())?;
    let (schedule, mut dice, mut order) = (cosine(of.rate, of.steps[1]), Dice::new(of.seed), Vec::new());
    let at_once = of.at_once.min(examples.len());
    for step in 0..of.steps[1] {
        if order.len() < at_once {
            order = (0..examples.len()).collect();
            dice.shuffle(&mut order);
        }
        let chosen = order.split_off(order.len() - at_once);
        let targets = chosen.iter().map(|&at: &usize| targets[at].as_slice()).collect();
        let mut loss = SoftLabels { targets, temperature: of.temperature, at: 0 };
        net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        let found =
            net.by(&batch(chosen.iter().map(|&at| &examples[at])), Some(1.0 / at_once as f32), &mut loss)?;
        let clip = clip_factor(global_norm(Pool::global(), net.params()), Some(1.0));
        optimizer.step(net.params_mut(), schedule.rate(step), clip);
        net.stepped(found.mean());
    }
    Ok(())
}
