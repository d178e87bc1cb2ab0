//! Adaptive KL: "Rethinking Kullback-Leibler Divergence in Knowledge Distillation for Large Language Models", arXiv 2404.02657.
//!
//! Forward KL learns the head of a prediction first, reverse KL its tail. With the head being the teacher's likeliest tokens
//! up to half of its probability (equation 12), and `g_head`, `g_tail` the sums of `|p − q|` over both,
//! `L = (g_head KL(p ‖ q) + g_tail KL(q ‖ p)) / (g_head + g_tail)`; the weights count as constants.

use super::divergence::{Divergence, ForwardKl, ReverseKl};

/// The loss.
#[derive(Debug, Clone, Copy)]
pub struct Adaptive {
    /// The teacher's probability that the head has.
    pub head: f64,
}

impl Default for Adaptive {
    fn default() -> Adaptive {
        Adaptive { head: 0.5 }
    }
}

impl Adaptive {
    /// The part of forward KL in the loss.
    pub fn weight(&self, p: &[f32], q: &[f32]) -> f64 {
        let mut order: Vec<usize> = (0..p.len()).collect();
        order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
        let (mut mass, mut gaps) = (0.0, [0.0; 2]);
        for id in order {
            let (own, student) = (f64::from(p[id]).exp(), f64::from(q[id]).exp());
            gaps[usize::from(mass >= self.head)] += (own - student).abs();
            mass += own;
        }
        let [head, tail] = gaps;
        if head + tail > 0.0 { head / (head + tail) } else { 0.5 }
    }
}

impl Divergence for Adaptive {
    fn row(&self, p: &[f32], q: &[f32], gradient: Option<&mut [f32]>) -> f64 {
        let weight = self.weight(p, q);
        let Some(gradient) = gradient else {
            return weight * ForwardKl.row(p, q, None) + (1.0 - weight) * ReverseKl.row(p, q, None);
        };
        let mut reverse = vec![0.0; gradient.len()];
        let loss = weight * ForwardKl.row(p, q, Some(gradient))
            + (1.0 - weight) * ReverseKl.row(p, q, Some(&mut reverse));
        for (gradient, reverse) in gradient.iter_mut().zip(reverse) {
            *gradient = weight as f32 * *gradient + (1.0 - weight) as f32 * reverse;
        }
        loss
    }
}
