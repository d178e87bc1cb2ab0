//! A student of another width: its streams are brought to the teacher's width by matrices that are learned along.
//!
//! `L = h · CE + (1 − h) · T² · KL(p_T ‖ p_S) + w / L · Σ_l ‖H_l P_lᵀ − H_l^T‖² / ‖H_l^T‖²`, the last over the student's `L` layers
//! and a batch's tokens: the loss of a target, and the hidden states of layers at the same height as FitNets (arXiv 1412.6550)
//! and TinyBERT (arXiv 1909.10351) compare them. `P_l`, `[teacher's width, student's width]`, is thrown away afterwards.

use candle_core::{Device, Tensor};

use super::streams::teacher_layers;
use super::{Options, Teacher};
use crate::graph::{GraphNet, Hook, Linear, Pass, Slot, Weight};
use crate::loss::{Distillation, ForwardKl};
use crate::{Error, Loss, ParamKind, Result};
use ounce_model::Model;

/// A linear layer that carries a matrix which something else computes with.
struct Carrying {
    base: Linear,
    carried: Weight,
}

impl Slot for Carrying {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.base.forward(x)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.base.vars();
        weights.push(self.carried.clone());
        weights
    }
}

/// The streams behind all layers.
#[derive(Default)]
struct Streams(Vec<Tensor>);

impl Hook for Streams {
    fn layer_output(&mut self, _: usize, x: Tensor) -> Result<Tensor> {
        self.0.push(x.clone());
        Ok(x)
    }
}

/// A student that learns from a teacher with the same vocabulary and any width, by `options`.
///
/// # Errors
/// If vocabularies differ, or the teacher shows no streams.
pub fn projected(student: &Model, mut teacher: impl Teacher + 'static, options: Options) -> Result<GraphNet> {
    let own = student.spec.vocab_size;
    if own != teacher.vocabulary() {
        return Err(Error::Unsupported(format!(
            "the teacher predicts {} tokens and the student {own}; both need the same vocabulary",
            teacher.vocabulary()
        )));
    }
    let Some((count, width)) = teacher.streams() else {
        return Err(Error::Unsupported("kept predictions have no streams between layers".into()));
    };
    let layers = teacher_layers(student.spec.layers.len(), count);
    let hidden = student.spec.hidden_size;
    let mut projections = Vec::new();
    let mut net = GraphNet::from_model(student, Default::default(), &mut |name, base| {
        if !name.ends_with("feed_forward.down") {
            return Ok(Box::new(base));
        }
        // The identity as far as it goes: the student begins in the teacher's first directions.
        let values = (0..width * hidden).map(|at| f32::from(u8::from(at / hidden == at % hidden))).collect();
        let carried =
            Weight::new(&format!("{name}.projection"), &[width, hidden], ParamKind::Matrix, values)?;
        projections.push(carried.clone());
        Ok(Box::new(Carrying { base, carried }))
    })?;
    if projections.len() != layers.len() {
        return Err(Error::Unsupported(
            "a student with layers that share weights or have experts can't be taught with projections"
                .into(),
        ));
    }
    net.set_objective(move |pass| objective(pass, &mut teacher, &layers, &projections, width, options));
    Ok(net)
}

fn objective(
    pass: &Pass<'_>,
    teacher: &mut dyn Teacher,
    layers: &[usize],
    projections: &[Weight],
    width: usize,
    options: Options,
) -> Result<(Tensor, Loss)> {
    let batch = pass.batch();
    let lesson = teacher.lesson(batch, layers)?;
    let mut streams = Streams::default();
    let hidden = pass.hidden(&mut streams)?;
    let mut loss = Distillation::by(&*lesson.rows, &ForwardKl, options.softness);
    let (mut value, mut found) = pass.loss(&hidden, &mut loss)?;
    let weight = f64::from(options.features) * found.count as f64 / layers.len() as f64;
    for ((stream, of), projection) in streams.0.iter().zip(&lesson.streams).zip(projections) {
        let size: f64 = of.iter().map(|h| f64::from(*h).powi(2)).sum();
        let of = Tensor::from_slice(of, (batch.tokens.len(), width), &Device::Cpu)?;
        let far = (stream.matmul(&projection.tensor()?.t()?)? - of)?.sqr()?.sum_all()?;
        let far = (far * (weight / size.max(1e-30)))?;
        found.sum += f64::from(far.to_scalar::<f32>()?);
        value = (value + far)?;
    }
    Ok((value, found))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{encoder, gradients_are_differences, hidden_tokens};
    use super::*;
    use crate::Trainable;
    use crate::distil::LiveTeacher;
    use crate::loss::Softness;

    /// The whole loss, projections included, against differences.
    #[test]
    fn gradients_are_those_of_the_loss() {
        let options = Options { softness: Softness { temperature: 2.0, hard: 0.5 }, features: 0.8 };
        let student = encoder(8, 2, 2, 0.2, 3).model().expect("a model");
        let mut net = projected(&student, LiveTeacher(encoder(12, 4, 2, 0.2, 4)), options).expect("they fit");
        let carried = net.params().iter().filter(|param| param.name.ends_with("down.projection")).count();
        assert_eq!(carried, 2);
        gradients_are_differences(&mut net, &hidden_tokens(), 4e-3);
    }

    #[test]
    fn projections_leave_with_the_lesson() {
        let student = encoder(8, 2, 2, 0.2, 3).model().expect("a model");
        let net = projected(&student, LiveTeacher(encoder(12, 4, 2, 0.2, 4)), Options::default())
            .expect("they fit");
        let learned = net.model().expect("a model");
        for info in student.spec.tensors() {
            let (a, b) = (student.weights.f32(&info.name), learned.weights.f32(&info.name));
            assert_eq!(a.expect("there"), b.expect("there"), "{}", info.name);
        }
        assert!(!learned.weights.contains("layers.0.feed_forward.down.projection"));
    }
}
