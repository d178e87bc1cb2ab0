//! A student that looks into its teacher: at the streams between layers, brought to the teacher's width by matrices that are
//! learned along, and at the relations between tokens.
//!
//! `L = h · CE + (1 − h) · T² · D(p_T, p_S) + v · R + w / L · Σ_l ‖H_l P_lᵀ − H_l^T‖² / ‖H_l^T‖²`, the last over the student's `L` layers
//! and a batch's tokens: the loss of a target, and the hidden states of layers at the same height as FitNets (arXiv 1412.6550)
//! and TinyBERT (arXiv 1909.10351) compare them. `P_l`, `[teacher's width, student's width]`, is thrown away afterwards. `R` is the loss of `relations`.

use candle_core::{Device, Tensor};

use super::relations::{RelationLesson, Relations};
use super::streams::teacher_layers;
use super::{Options, Teacher};
use crate::graph::{GraphNet, Hook, Linear, Pass, Slot, Weight};
use crate::loss::{Distillation, Divergence};
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

/// Relations as a part of a lesson.
#[derive(Debug, Clone, Copy)]
pub struct Related<'m> {
    /// Whose relations are learned.
    pub teacher: &'m Model,
    /// Which.
    pub relations: Relations,
    /// What they count for.
    pub weight: f64,
}

/// A student that learns from a teacher with the same vocabulary and any width, by `options`; predictions are compared by
/// `divergence`, which is not told of steps.
///
/// # Errors
/// If vocabularies differ, the teacher shows no streams where they count, or relations don't fit.
pub fn projected(
    student: &Model,
    mut teacher: impl Teacher + 'static,
    divergence: Box<dyn Divergence>,
    options: Options,
    related: Option<Related<'_>>,
) -> Result<GraphNet> {
    let own = student.spec.vocab_size;
    if own != teacher.vocabulary() {
        return Err(Error::Unsupported(format!(
            "the teacher predicts {} tokens and the student {own}; both need the same vocabulary",
            teacher.vocabulary()
        )));
    }
    let (mut layers, mut width) = (Vec::new(), 0);
    if options.features > 0.0 {
        let streams = teacher.streams();
        let (count, wide) = streams
            .ok_or_else(|| Error::Unsupported("kept predictions have no streams between layers".into()))?;
        (layers, width) = (teacher_layers(student.spec.layers.len(), count), wide);
    }
    let mut relations = match related {
        Some(Related { teacher, relations, weight }) => {
            Some((RelationLesson::new(student, teacher, relations)?, weight))
        }
        None => None,
    };
    let hidden = student.spec.hidden_size;
    let mut projections = Vec::new();
    let mut net = GraphNet::from_model(student, Default::default(), &mut |name, base| {
        if layers.is_empty() || !name.ends_with("feed_forward.down") {
            return Ok(match &relations {
                Some((lesson, _)) => lesson.slot(name, base),
                None => Box::new(base),
            });
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
    net.set_objective(move |pass| {
        let mut taught = Taught { layers: &layers, projections: &projections, width, options };
        let (value, mut found) = taught.objective(pass, &mut teacher, &*divergence)?;
        let Some((lesson, weight)) = &mut relations else { return Ok((value, found)) };
        let (relations, sum) = lesson.loss(pass.batch())?;
        found.sum += *weight * sum;
        Ok(((value + (relations * *weight)?)?, found))
    });
    Ok(net)
}

/// What predictions and streams are compared by.
struct Taught<'n> {
    layers: &'n [usize],
    projections: &'n [Weight],
    width: usize,
    options: Options,
}

impl Taught<'_> {
    fn objective(
        &mut self,
        pass: &Pass<'_>,
        teacher: &mut dyn Teacher,
        divergence: &dyn Divergence,
    ) -> Result<(Tensor, Loss)> {
        let Taught { layers, projections, width, options } = *self;
        let batch = pass.batch();
        let lesson = teacher.lesson(batch, layers)?;
        let mut streams = Streams::default();
        let hidden = pass.hidden(&mut streams)?;
        let mut loss = Distillation::by(&*lesson.rows, divergence, options.softness);
        let (mut value, mut found) = pass.loss(&hidden, &mut loss)?;
        let weight = f64::from(options.features) * found.count as f64 / layers.len().max(1) as f64;
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
}

#[cfg(test)]
mod tests {
    use super::super::tests::{encoder, gradients_are_differences, hidden_tokens};
    use super::*;
    use crate::Trainable;
    use crate::distil::LiveTeacher;
    use crate::loss::{ForwardKl, Softness};

    fn with(student: &Model, options: Options, related: Option<Related<'_>>) -> Result<GraphNet> {
        let teacher = LiveTeacher(encoder(12, 4, 2, 0.2, 4));
        projected(student, teacher, Box::new(ForwardKl), options, related)
    }

    /// Relations beside predictions, without streams.
    #[test]
    fn relations_count_by_their_weight() {
        let options = Options { softness: Softness { temperature: 1.0, hard: 0.0 }, features: 0.0 };
        let student = encoder(8, 2, 2, 0.3, 3).model().expect("a model");
        let teacher = encoder(12, 4, 2, 0.2, 4).model().expect("a model");
        let relations = Relations::usual(&student, &teacher).expect("attention");
        let of = |weight: f64| {
            let related = Related { teacher: &teacher, relations, weight };
            let mut net = with(&student, options, Some(related)).expect("they fit");
            assert_eq!(net.params().len(), student.spec.tensors().len(), "no projections");
            let loss = net.loss(&hidden_tokens()).expect("a loss").sum;
            gradients_are_differences(&mut net, &hidden_tokens(), 5e-3);
            loss
        };
        let [none, one, three] = [of(0.0), of(1.0), of(3.0)];
        assert!(one > none && ((three - none) - 3.0 * (one - none)).abs() < 1e-4, "{none} {one} {three}");
    }

    /// The whole loss, projections included, against differences.
    #[test]
    fn gradients_are_those_of_the_loss() {
        let options = Options { softness: Softness { temperature: 2.0, hard: 0.5 }, features: 0.8 };
        let student = encoder(8, 2, 2, 0.2, 3).model().expect("a model");
        let mut net = with(&student, options, None).expect("they fit");
        let carried = net.params().iter().filter(|param| param.name.ends_with("down.projection")).count();
        assert_eq!(carried, 2);
        gradients_are_differences(&mut net, &hidden_tokens(), 4e-3);
    }

    #[test]
    fn projections_leave_with_the_lesson() {
        let student = encoder(8, 2, 2, 0.2, 3).model().expect("a model");
        let net = with(&student, Options { features: 1.0, ..Options::default() }, None).expect("they fit");
        let learned = net.model().expect("a model");
        for info in student.spec.tensors() {
            let (a, b) = (student.weights.f32(&info.name), learned.weights.f32(&info.name));
            assert_eq!(a.expect("there"), b.expect("there"), "{}", info.name);
        }
        assert!(!learned.weights.contains("layers.0.feed_forward.down.projection"));
    }
}
